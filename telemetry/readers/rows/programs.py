"""Formats that a program of their makers reads best: its output, as a stream.

The program is given the source on standard input, so that no name of a file reaches it, and an
environment without a home, so that no settings of a user change what it prints. What it prints
about errors is not read beyond the fact that it printed something. Its memory and its CPU time
are bounded: broken input may lead it astray.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from telemetry.errors import SourceError
from telemetry.readers.source import Source

_BLOCK = 1 << 20
_IN_MEMORY = 1 << 30
"""Bytes of a compressed source, unpacked, that are held for a program that must seek."""
_MEMORY = 4 << 30
"""Bytes of address space of a program."""
_SECONDS, _PER_SECOND = 10, 1 << 16
"""CPU seconds of a program, and bytes of the source that give it one more."""
_COMPLAINTS = 1 << 16
"""Bytes of errors after which a program is stopped."""
_PATIENCE = 30.0
"""Seconds a program has to end after its output has ended."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that turns a source into text.

    Attributes:
        name: Its name on the search path.
        package: The Debian package that holds it.
        arguments: What it is called with to read standard input.
        seeks: Whether its standard input must be a file rather than a pipe.
    """

    name: str
    package: str
    arguments: Sequence[str]
    seeks: bool = False


class Output:
    """A program's output.

    Attributes:
        stream: What it prints.
        complained: Whether it printed an error or ended with one; final after the stream's end.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None and process.stderr is not None
        self.stream: IO[bytes] = process.stdout
        self.complained = False
        self._process = process
        self._errors = process.stderr
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        said = 0
        while more := os.read(self._errors.fileno(), _BLOCK):
            self.complained = True
            said += len(more)
            if said > _COMPLAINTS:  # it says the same for ever
                self._process.kill()

    def end(self) -> None:
        """Waits for the program's end; call it when the stream has ended."""
        try:
            failed = self._process.wait(_PATIENCE) != 0
        except subprocess.TimeoutExpired:  # what does not end has not read it to its end
            failed = True
        self._watcher.join(_PATIENCE)
        if failed:  # `|=` would read before the wait, and undo what the watcher saw meanwhile
            self.complained = True

    def close(self) -> None:
        """Closes the pipes of a program that has ended."""
        self._watcher.join(_PATIENCE)
        self.stream.close()
        self._errors.close()


class _Feeder(threading.Thread):
    """Gives a program its input.

    Attributes:
        failure: Why the source could not be read to its end, if so.
    """

    def __init__(self, entrance: IO[bytes], source: Source) -> None:
        super().__init__(daemon=True)
        self.failure: SourceError | None = None
        self._entrance = entrance
        self._source = source

    def run(self) -> None:
        # The program may end before its input does.
        with suppress(OSError, ValueError), self._entrance:
            try:
                stream = self._source.stream()
                while block := stream.read(_BLOCK):
                    self._entrance.write(block)
            except SourceError as error:
                self.failure = error


@contextmanager
def output_of(program: Program, source: Source) -> Iterator[Output]:
    """Runs a program over a source; it is stopped when the caller is done.

    Raises:
        SourceError: The program is not installed, or the source is too large for it or cannot be
            read to its end.
    """
    path = shutil.which(program.name)
    if path is None:
        raise SourceError(
            f"Reading it needs the program {program.name}; install the Debian package "
            f"{program.package}."
        )
    given = seekable(source) if program.seeks else None
    process = subprocess.Popen(
        [path, *program.arguments],
        stdin=subprocess.PIPE if given is None else given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={"PATH": os.defpath, "TZ": "UTC", "LC_ALL": "C", **_temporary()},
    )
    output, feeder = Output(process), None
    if process.stdin is not None:
        feeder = _Feeder(process.stdin, source)
        feeder.start()
    elif given is not None:
        os.close(given)
    try:
        _bound(process.pid, source.size)
        yield output
    finally:
        process.kill()
        process.wait()
        if feeder is not None:  # the source is the caller's again
            feeder.join(_PATIENCE)
        output.close()
    if feeder is not None and feeder.failure is not None:
        raise feeder.failure


def _temporary() -> dict[str, str]:
    """Returns where a program may write, if this process says so: inside the lake."""
    return {name: value for name, value in os.environ.items() if name == "TMPDIR"}


def _bound(pid: int, size: int) -> None:
    limits = {resource.RLIMIT_AS: _MEMORY}
    if size:  # a pipe tells none
        limits[resource.RLIMIT_CPU] = _SECONDS + size // _PER_SECOND
    with suppress(ProcessLookupError):
        for what, limit in limits.items():
            _, most = resource.prlimit(pid, what)
            if most != resource.RLIM_INFINITY:  # nobody may raise what is set
                limit = min(limit, most)
            resource.prlimit(pid, what, (limit, limit))


def seekable(source: Source) -> int:
    """Returns a descriptor of the source's bytes, unpacked, that can be read anywhere.

    Raises:
        SourceError: It is compressed or a pipe, and too large to be held in memory.
    """
    file = source.plain_file()
    if file is not None:
        return os.dup(file.fileno())
    # Memory and not a temporary file: nothing domestic may reach a disk.
    memory = os.memfd_create("source")
    size, stream = 0, source.stream()
    while block := stream.read(_BLOCK):
        size += len(block)
        if size > _IN_MEMORY:
            os.close(memory)
            raise SourceError("It is too large to be read compressed or from a pipe; unpack it.")
        os.write(memory, block)
    return memory
