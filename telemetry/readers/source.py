"""One input: a file, an archive's member or standard input, known by hash, read as a stream."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple, cast

from telemetry.errors import SourceError
from telemetry.readers.ahead import ahead
from telemetry.readers.archives import Archived, Member, members, open_member
from telemetry.readers.containers import BLOCK, unpack
from telemetry.records import printable

HEAD = 64 * 1024
"""Bytes, after decompression, by which formats are recognised."""
LARGE = 16 << 20
"""Bytes on disk from which a file is worth threads: to hash, to unpack and to read it."""
_UNPACKED = 1 << 20  # bytes that are handed from one thread to the other
_WAITING = 8
"""Of these, how many may wait: who parses packets takes 8 MB at a time, and meanwhile the next
are made."""


class Place(NamedTuple):
    """Where a source lies.

    Attributes:
        path: File name, or `-`.
        member: Of an archive that holds several; None for the file itself.
        name: What to call it, for the caller's eyes only.
    """

    path: str
    member: Member | None
    name: str


class Source:
    """An input: a file, read as often as needed, or a pipe, read once and kept nowhere.

    Attributes:
        path: As the caller named it; for messages to the caller only.
        size: Bytes on disk; 0 for a pipe.
        is_pipe: Whether it can be read once only.
        is_large: Whether it is read, unpacked and hashed in threads; never so for a pipe, which
            may keep a thread waiting for ever.
        content_sha256: Hash of the bytes after decompression, once `finish` was called: the
            same content may come plain today and compressed tomorrow.
        containers: Names of the containers opened, the outermost first.
        head: First bytes after decompression.
        damage: Why the decompressed stream ended early, if it did.
    """

    def __init__(
        self,
        path: str,
        file: io.FileIO | Archived,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Hashes a file, and looks at the first bytes.

        Args:
            path: Name for messages.
            file: Unbuffered binary file, owned by this object from now on.
            progress: Called with the number of bytes read so far.

        Raises:
            SourceError: It cannot be read, or is empty.
        """
        self.path = path
        self.content_sha256: str | None = None
        self.damage: str | None = None
        self._file = file
        self._progress = progress
        self._hash = hashlib.sha256()
        self.is_pipe = not file.seekable()
        self._stat = os.fstat(file.fileno())
        self.size = 0 if self.is_pipe else self._stat.st_size
        if isinstance(file, Archived):
            self.size = file.size
        self.is_large = self.size >= LARGE
        self._sha256: str | None = None
        self._hashing: _Hashing | None = None
        self._unpacked: Blocks | None = None
        self._content = hashlib.sha256()  # of what is in containers
        if self.is_large and isinstance(file, io.FileIO):
            self._hashing = _Hashing(file.fileno())
        elif not self.is_pipe:
            try:
                self._sha256 = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
            except OSError as error:
                raise SourceError(f"It cannot be read: {_os_reason(error)}.") from None
        try:
            self._plain, self._stream = self._open()
            self.head = self._stream.peek(HEAD)[:HEAD]
        except BaseException:
            self._stop()
            raise

    @property
    def sha256(self) -> str | None:
        """Hash of the bytes, of an archive's member as they lie in it; None while it is unknown.

        Of a file it is known before anything is parsed, of a large one at some time while it is
        read, of a pipe once `finish` was called.
        """
        return self._hashing.sha256 if self._hashing else self._sha256

    def stream(self) -> io.BufferedReader[Any]:
        """Returns the decompressed bytes from the start; one stream at a time."""
        if not self.is_pipe:
            self.damage = None
            self._stop_unpacking()
            self._plain, self._stream = self._open(self.is_large)
        return self._stream

    def plain_file(self) -> io.FileIO | None:
        """Returns the file itself, if it holds the bytes as they are and can be read anywhere."""
        whole = isinstance(self._file, io.FileIO) and not (self.is_pipe or self.containers)
        return cast(io.FileIO, self._file) if whole else None

    def finish(self) -> None:
        """Reads what is left, so that the hashes are those of all bytes.

        Raises:
            SourceError: It cannot be read, or a file is no longer the one that was hashed.
        """
        if self.is_pipe or self.containers:
            for stream in (self._stream, self._plain):
                while stream.read(BLOCK):
                    pass
        if self.is_pipe:
            self._sha256 = self._hash.hexdigest()
        else:
            self.identify()
            now = os.fstat(self._file.fileno())
            if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
                raise SourceError("It changed while it was read; ingest it again.")
        if self.sha256 is None:
            raise SourceError("It cannot be read to its end; check the disk it is on.")
        self.content_sha256 = self._content.hexdigest() if self.containers else self.sha256

    def identify(self) -> None:
        """Waits until a large file is hashed; `sha256` stays None where that is impossible."""
        if self._hashing is not None:
            self._hashing.join()

    def close(self) -> None:
        """Closes the file."""
        self._stop()
        self._file.close()

    def _stop(self) -> None:
        self._stop_unpacking()
        if self._hashing is not None:
            self._hashing.stop()

    def _stop_unpacking(self) -> None:
        if self._unpacked is not None:
            self._unpacked.close()
            self._unpacked = None

    def _open(
        self, in_threads: bool = False
    ) -> tuple[io.BufferedReader[Any], io.BufferedReader[Any]]:
        """Returns the bytes as they are, and decompressed."""
        if not self.is_pipe:
            self._file.seek(0)
        counted = _Counted(self._file, self._progress, self._hash if self.is_pipe else None)
        plain = io.BufferedReader(counted, BLOCK)
        if not plain.peek(1):
            raise SourceError("It is empty.")
        self.containers, stream = _opened(self._file, plain, self._damaged)
        if not self.containers:
            return plain, stream
        self._content = hashlib.sha256()
        blocks = _blocks(stream)
        if in_threads:
            blocks = ahead(_hashed(ahead(blocks, _WAITING), self._content))
        else:
            blocks = _hashed(blocks, self._content)
        self._unpacked = Blocks(blocks)
        return plain, io.BufferedReader(self._unpacked, BLOCK)

    def _damaged(self, why: str) -> None:
        self.damage = self.damage or why


def open_source(place: str | Place, progress: Callable[[int], None] | None = None) -> Source:
    """Opens a file, the only file in an archive, a member of one, or standard input for `-`.

    Args:
        place: File name, `-`, or one of `places`.
        progress: Called with the number of bytes read so far.

    Raises:
        SourceError: It is missing, not a file, not readable or empty.
    """
    if isinstance(place, str):
        place = Place(place, None, place)
    file = _open(place)
    try:
        return Source(place.name, file, progress)
    except BaseException:
        file.close()
        raise


def places(path: str) -> list[Place]:
    """Returns the sources that a file holds: itself, or the members of an archive.

    A file that cannot be looked into is returned as it is; opening it will say why.
    """
    whole = [Place(path, None, path)]
    if path == "-":
        return whole
    try:
        with _open_file(Path(path)) as file:
            found = members(file)
    except (SourceError, OSError):
        return whole
    if found is None or len(found) < 2:
        return whole
    return [Place(path, member, f"{path}/{printable(member.name)}") for member in found]


def head_of(place: Place) -> bytes:
    """Returns a file's first bytes after decompression, without hashing it.

    Raises:
        SourceError: It cannot be opened or read.
    """
    with closing(_open(place)) as file:
        file.seek(0)
        plain = io.BufferedReader(_Counted(file, None, None), HEAD)
        _, stream = _opened(file, plain, lambda why: None, HEAD)
        return stream.peek(HEAD)


def _opened(
    file: io.FileIO | Archived,
    plain: io.BufferedReader[Any],
    damaged: Callable[[str], None],
    block: int = BLOCK,
) -> tuple[list[str], io.BufferedReader[Any]]:
    """Returns the names of the containers and the bytes inside them."""
    if not isinstance(file, Archived):
        return unpack(plain, damaged, block)
    names, stream = unpack(file.unpacked(plain, damaged, block), damaged, block)
    return [*file.kind, *names], stream


def _open(place: Place) -> io.FileIO | Archived:
    if place.path == "-":
        return _open_stdin()
    file = _open_file(Path(place.path))
    try:
        if place.member is not None:
            return open_member(file, place.member)
        found = members(file)
        file.seek(0)
        return file if found is None else open_member(file, _only(found))
    except OSError as error:
        file.close()
        raise SourceError(f"It cannot be read: {_os_reason(error)}.") from None
    except BaseException:
        file.close()
        raise


def _only(found: list[Member]) -> Member:
    if len(found) > 1:
        raise SourceError("It is an archive that holds several files; read them one by one.")
    if not found:
        raise SourceError("It is an archive that holds no file.")
    return found[0]


def _open_file(path: Path) -> io.FileIO:
    try:
        if not path.is_file():
            raise SourceError("There is no such file." if not path.exists() else "It is no file.")
        return path.open("rb", buffering=0)
    except OSError as error:
        raise SourceError(f"It cannot be opened: {_os_reason(error)}.") from None


def _open_stdin() -> io.FileIO:
    if sys.stdin is None:
        raise SourceError("Standard input is closed.")
    return io.FileIO(os.dup(sys.stdin.fileno()), "rb")


def _os_reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


class _Hashing(Thread):
    """Hashes a file beside whoever reads it; sets `sha256` when it is done."""

    def __init__(self, file: int) -> None:
        super().__init__(name="hash", daemon=True)
        self.sha256: str | None = None
        self._file = file
        self._stopped = Event()
        self.start()

    def run(self) -> None:
        digest, buffer, at = hashlib.sha256(), memoryview(bytearray(BLOCK)), 0
        try:
            while n := os.preadv(self._file, [buffer], at):
                if self._stopped.is_set():
                    return
                digest.update(buffer[:n])
                at += n
        except OSError:
            return  # whoever reads the file says why
        self.sha256 = digest.hexdigest()

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _blocks(stream: io.BufferedReader[Any]) -> Generator[bytes]:
    while block := stream.read(_UNPACKED):
        yield block


def _hashed(blocks: Generator[bytes], digest: hashlib._Hash) -> Generator[bytes]:
    with closing(blocks):
        for block in blocks:
            digest.update(block)
            yield block


class Blocks(io.RawIOBase):
    """A stream of blocks, none of them empty; closing it ends the threads that make them."""

    def __init__(self, blocks: Generator[bytes]) -> None:
        """Takes what makes the blocks."""
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills a buffer as far as there are blocks."""
        buffer = memoryview(buffer)
        filled = 0
        while filled < len(buffer) and (self._left or self._more()):
            n = min(len(buffer) - filled, len(self._left))
            buffer[filled : filled + n] = self._left[:n]
            self._left = self._left[n:]
            filled += n
        return filled

    def close(self) -> None:
        """Closes what makes the blocks."""
        self._blocks.close()
        super().close()

    def _more(self) -> bool:
        self._left = memoryview(next(self._blocks, b""))
        return bool(self._left)


class _Counted(io.RawIOBase):
    """The file's bytes, reporting how far it was read; a pipe's are hashed on the way."""

    def __init__(
        self,
        file: io.FileIO | Archived,
        progress: Callable[[int], None] | None,
        digest: hashlib._Hash | None,
    ) -> None:
        self._file = file
        self._progress = progress
        self._digest = digest
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        buffer = memoryview(buffer)  # `read` hands over a bytearray, whose slices are copies
        n = 0
        try:  # a pipe gives what it has; the buffer is filled, for the sake of `peek`
            while n < len(buffer) and (more := self._file.readinto(buffer[n:])):
                n += more
        except OSError as error:
            raise SourceError(f"It cannot be read: {_os_reason(error)}.") from None
        if self._digest is not None:
            self._digest.update(buffer[:n])
        self._position += n
        if self._progress is not None:
            self._progress(self._position)
        return n
