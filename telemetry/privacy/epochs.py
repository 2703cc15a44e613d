"""The secrets of the epochs: one random secret a month, so that one can be destroyed alone.

They stand in the key file of version 2, below its two first lines, a line each:

    2026-04 1 0123…ef        64 hex digits
    2026-04 2 destroyed……    as long, once the secret is destroyed

The number is the generation: `rotate` adds one, the highest is the one in use.
The file is only ever appended to, and a secret overwritten in its place, under
a lock on the file: it is never replaced, so no old copy of it stays behind on a
file system that writes in place. What was copied elsewhere is elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from telemetry.errors import KeyFileError

LINKED = "linked"
"""Name of the one epoch of a lake whose months are linked."""
_BYTES = 32
_LINE = re.compile(rb"(\d{4}-\d{2}|linked) (\d+) ([!-~]{64})\n")
_HEX = re.compile(rb"[0-9a-f]{64}")
_DESTROYED = b"destroyed".ljust(2 * _BYTES, b".")


class Secret(NamedTuple):
    """One generation of one epoch; `value` is None once it is destroyed."""

    epoch: str
    generation: int
    value: bytes | None
    position: int
    """Where its hex digits stand in the file."""


class EpochFile:
    """The secrets in a key file of version 2."""

    def __init__(self, path: Path, start: int) -> None:
        """Reads them.

        Args:
            path: The key file.
            start: Where the epochs begin in it.

        Raises:
            KeyFileError: A line is no epoch.
        """
        self._path = path
        self._start = start
        self._seen = (0, 0)
        self._secrets: dict[str, list[Secret]] = {}
        self._refresh()

    def newest(self, epochs: Iterable[str]) -> dict[str, bytes]:
        """Returns the secret in use of each epoch; makes those that there are none of.

        An epoch whose secrets are destroyed gets a new one, which tells nothing of the old.

        Raises:
            KeyFileError: The file cannot be written.
        """
        wanted = sorted(set(epochs))
        self._refresh()
        if any(self._in_use(epoch) is None for epoch in wanted):
            with self._alone() as handle:
                self._add(handle, [epoch for epoch in wanted if self._in_use(epoch) is None])
        found = {epoch: self._in_use(epoch) for epoch in wanted}
        return {epoch: value for epoch, value in found.items() if value is not None}

    def living(self, epoch: str) -> list[bytes]:
        """Returns every secret of an epoch that is not destroyed, the newest first."""
        self._refresh()
        values = [secret.value for secret in reversed(self._secrets.get(epoch, []))]
        return [value for value in values if value is not None]

    def rotate(self) -> list[str]:
        """Gives every epoch that has a secret in use a new one; returns their names."""
        with self._alone() as handle:
            epochs = [epoch for epoch in self._secrets if self._in_use(epoch) is not None]
            self._add(handle, epochs)
        return sorted(epochs)

    def destroy(self, epochs: Iterable[str]) -> int:
        """Overwrites all secrets of some epochs; returns how many there were.

        Raises:
            KeyFileError: The file cannot be written.
        """
        with self._alone() as handle:
            doomed = [s for epoch in set(epochs) for s in self._secrets.get(epoch, [])]
            for secret in doomed:  # those destroyed before too: a crash may have left half a one
                os.pwrite(handle, _DESTROYED, secret.position)
            os.fsync(handle)
            self._refresh(forced=True)
        return sum(secret.value is not None for secret in doomed)

    def all(self) -> list[Secret]:
        """Returns every generation, by epoch."""
        self._refresh()
        return [secret for epoch in sorted(self._secrets) for secret in self._secrets[epoch]]

    def _in_use(self, epoch: str) -> bytes | None:
        generations = self._secrets.get(epoch)
        return generations[-1].value if generations else None

    def _add(self, handle: int, epochs: list[str]) -> None:
        """Appends a new generation of each epoch, durable before it is used."""
        lines = []
        for epoch in epochs:
            generation = len(self._secrets.get(epoch, [])) + 1
            lines.append(f"{epoch} {generation} {secrets.token_hex(_BYTES)}\n")
        data, end = "".join(lines).encode(), self._end
        os.ftruncate(handle, end)
        written = 0
        while written < len(data):
            written += os.pwrite(handle, data[written:], end + written)
        os.fsync(handle)
        self._refresh(forced=True)

    def _refresh(self, forced: bool = False) -> None:
        """Reads the file again if another process changed it."""
        try:
            with self._path.open("rb") as handle:
                status = os.fstat(handle.fileno())
                seen = (status.st_size, status.st_mtime_ns)
                if forced or seen != self._seen:
                    handle.seek(self._start)
                    self._parse(handle.read())
                    self._seen = seen
        except OSError as error:
            raise KeyFileError(
                f"Cannot read the key file {self._path}: {error.strerror}; put it back."
            ) from None

    def _parse(self, data: bytes) -> None:
        found: dict[str, list[Secret]] = {}
        # A line without an end was torn by a crash before anything used it.
        whole = data[: data.rfind(b"\n") + 1]
        position = 0
        while position < len(whole):
            match = _LINE.match(whole, position)
            epoch = match[1].decode() if match else ""
            if match is None or int(match[2]) != len(found.get(epoch, [])) + 1:
                raise KeyFileError(
                    f"{self._path} is damaged among its epochs; put it back from its copy."
                )
            value = bytes.fromhex(match[3].decode()) if _HEX.fullmatch(match[3]) else None
            place = self._start + match.start(3)
            secret = Secret(epoch, int(match[2]), value, place)
            found.setdefault(epoch, []).append(secret)
            position = match.end()
        self._secrets = found
        self._end = self._start + len(whole)

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Opens the file for writing, alone among all writers, as they left it."""
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                self._refresh(forced=True)
                yield handle
            finally:
                os.close(handle)
        except OSError as error:
            raise KeyFileError(
                f"Cannot write the key file {self._path}: {error.strerror}; check its owner, mode "
                "and disk."
            ) from None
