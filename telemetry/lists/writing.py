"""From scored endpoints to the files that leave: the last door."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from telemetry.errors import LakeError, PrivacyError
from telemetry.lists.contract import ListEntry, ListFormat, ListHeader, utc
from telemetry.records import ScoredEndpoint

STEM = "list"
"""File names are this plus the suffix of the format."""
MANIFEST = "manifest.json"
_SPELLED = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
"""What may be an address inside a sentence."""


def write_all(
    formats: Sequence[ListFormat],
    entries: Sequence[ScoredEndpoint],
    folder: Path,
    header: ListHeader,
    forbidden: Callable[[str], bool],
) -> list[Path]:
    """Writes one list in the given formats; see `telemetry.lists.write_lists`."""
    listed = [entry for entry in entries if entry.listed]
    _refuse_forbidden(listed, forbidden)
    rows = _valid(sorted(listed, key=lambda entry: _order(entry.endpoint)), header)
    header = replace(header, expired=len(listed) - len(rows))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that the rename stays inside one file system.
        with TemporaryDirectory(dir=folder, prefix=".aside-") as aside:
            names = _write_aside(formats, rows, Path(aside), header)
            for name in names:
                (Path(aside) / name).replace(folder / name)
        _sync_folder(folder)
    except OSError as error:
        raise LakeError(
            f"The lists cannot be written to {folder} ({error.strerror}); "
            "make room or give a folder that can be written."
        ) from None
    return [folder / name for name in names]


def _valid(entries: Sequence[ScoredEndpoint], header: ListHeader) -> list[ListEntry]:
    """Returns the entries that have not expired when the list is made."""
    now = header.made_at
    if now is None:
        return []
    # No entry counts from later than now: a wrong clock would list it for ever.
    days = timedelta(days=header.days)
    rows = [ListEntry(entry, min(entry.last_seen, now) + days) for entry in entries]
    return [row for row in rows if row.valid_until >= now]


def is_left_out(folder: Path, last_seen: datetime) -> bool:
    """Tells whether the list in a folder leaves out who was last seen then, as long ago.

    Args:
        folder: Of the list; without one, nobody is left out.
        last_seen: Naive UTC.
    """
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    if facts["data_up_to"] is None:
        return True
    made_at = datetime.fromisoformat(facts["data_up_to"].removesuffix("Z"))
    return last_seen < made_at - timedelta(days=facts["days"])  # a broken clock knows no later day


def count_left_out(folder: Path) -> int:
    """Returns how many listed endpoints the list in a folder leaves out, see `is_left_out`."""
    try:
        expired: int = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["expired"]
    except FileNotFoundError:
        return 0
    return expired


def _refuse_forbidden(entries: Sequence[ScoredEndpoint], forbidden: Callable[[str], bool]) -> None:
    bad = sum(any(map(forbidden, _addresses(entry))) for entry in entries)
    if bad:
        raise PrivacyError(
            f"{bad} of {len(entries)} entries name an address that must not leave, so no list "
            "was written; score again with the current homeland table."
        )


def _addresses(entry: ScoredEndpoint) -> Iterator[str]:
    """Yields the endpoint and every address that its reasons spell out."""
    try:
        yield str(_order(entry.endpoint)[1])
    except ValueError:
        raise PrivacyError(
            "An entry is not an address, so no list was written; score again."
        ) from None
    for reason in entry.reasons:
        for word in _SPELLED.findall(f"{reason.name} {reason.text}"):
            # A sentence may go on with a full stop or a colon.
            for spelled in {word, word.rstrip("."), word.rstrip(":")}:
                with suppress(ValueError):
                    yield str(ip_address(spelled))


def _order(endpoint: str) -> tuple[int, IPv4Address | IPv6Address]:
    address = ip_address(endpoint)
    return address.version, address


def _write_aside(
    formats: Sequence[ListFormat], rows: Sequence[ListEntry], aside: Path, header: ListHeader
) -> list[str]:
    files: list[dict[str, Any]] = []
    for form in formats:
        path = aside / (STEM + form.suffix)
        with _private(path) as stream:
            form.write(rows, header, stream)
        data = path.read_bytes()
        files.append(
            {
                "name": path.name,
                "format": form.name,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
    manifest = {
        "run": header.run,
        "authority": header.authority,
        "data_up_to": utc(header.made_at) if header.made_at else None,
        "days": header.days,
        "entries": len(rows),
        "expired": header.expired,
        "roles": dict(sorted(Counter(row.scored.role for row in rows).items())),
        "files": files,
    }
    with _private(aside / MANIFEST) as stream:
        stream.write(json.dumps(manifest, indent=2) + "\n")
    # The manifest goes last: while it is old, its hashes say that the list is changing.
    return [*(str(file["name"]) for file in files), MANIFEST]


@contextmanager
def _private(path: Path) -> Iterator[TextIO]:
    """Opens a new file that only its owner can read; it is on the disk when closed."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
        yield stream
        stream.flush()
        os.fsync(handle)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
