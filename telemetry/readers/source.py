"""One input: a file or standard input, known by the hash of its bytes, read as a stream."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import zstandard

from telemetry.errors import SourceError

HEAD = 64 * 1024
"""Bytes, after decompression, by which formats are recognised."""
_BLOCK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# Compressed bytes taken at once. Of gzip, because each member's end copies what follows it; of
# zstd, because 4 bytes can stand for 128 KiB, and all that comes out is held in memory.
_GZIP_STEP = 1 << 16
_ZSTD_STEP = 1 << 13
_WINDOW = 1 << 27  # zstd --long=27, the most that the zstd tool accepts unasked


class Source:
    """An input opened once and read as often as needed.

    Attributes:
        path: As the caller named it; for messages to the caller only.
        size: Bytes on disk.
        sha256: Hash of these bytes; known before anything is parsed.
        container: `plain`, `gzip` or `zstd`.
        head: First bytes after decompression.
        damage: Why the decompressed stream ended early, if it did.
    """

    def __init__(
        self, path: str, file: io.FileIO, progress: Callable[[int], None] | None = None
    ) -> None:
        """Hashes the file and looks at its first bytes.

        Args:
            path: Name for messages.
            file: Seekable binary file, owned by this object from now on.
            progress: Called with the number of bytes read from disk so far.

        Raises:
            SourceError: The file cannot be read.
        """
        self.path = path
        self.damage: str | None = None
        self._file = file
        self._progress = progress
        self._stat = os.fstat(file.fileno())
        self.size = self._stat.st_size
        try:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self.container = self._container()
            self.head = _read_up_to(self.stream(), HEAD)
        except OSError as error:
            raise SourceError(f"It cannot be read: {_os_reason(error)}.") from None
        self.damage = None

    def stream(self) -> io.BufferedReader:
        """Returns the decompressed bytes from the start; one stream at a time."""
        self._file.seek(0)
        raw: io.RawIOBase = _Counted(self._file, self._progress)
        if self.container == "gzip":
            raw = _Gzip(raw, self._damaged)
        elif self.container == "zstd":
            raw = _Zstd(raw, self._damaged)
        return io.BufferedReader(raw, _BLOCK)

    def unchanged(self) -> bool:
        """Returns whether the file is still the one that was hashed."""
        now = os.fstat(self._file.fileno())
        return (now.st_size, now.st_mtime_ns) == (self._stat.st_size, self._stat.st_mtime_ns)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _container(self) -> str:
        self._file.seek(0)
        magic = self._file.read(4)
        if magic.startswith(_GZIP_MAGIC):
            return "gzip"
        if magic == _ZSTD_MAGIC:
            return "zstd"
        return "plain"

    def _damaged(self, why: str) -> None:
        self.damage = why


def open_source(path: str, progress: Callable[[int], None] | None = None) -> Source:
    """Opens a file, or standard input for `-`.

    Args:
        path: File name, or `-`.
        progress: Called with the number of bytes read from disk so far.

    Raises:
        SourceError: It is missing, not a file, not readable or empty.
    """
    file = _spooled_stdin() if path == "-" else _open_file(Path(path))
    source = Source(path, file, progress)
    if source.size == 0:
        source.close()
        raise SourceError("It is empty.")
    return source


def _open_file(path: Path) -> io.FileIO:
    try:
        if not path.is_file():
            raise SourceError("There is no such file." if not path.exists() else "It is no file.")
        return path.open("rb", buffering=0)
    except OSError as error:
        raise SourceError(f"It cannot be opened: {_os_reason(error)}.") from None


def _spooled_stdin() -> io.FileIO:
    # The hash must be known before anything is parsed, so the stream needs a second reading;
    # an unnamed file on disk holds it and is gone with the process.
    if sys.stdin is None:
        raise SourceError("Standard input is closed.")
    try:
        spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        while block := sys.stdin.buffer.read(_BLOCK):
            spool.write(block)
        spool.seek(0)
    except OSError as error:
        raise SourceError(
            f"Standard input cannot be kept for its second reading: {_os_reason(error)}."
        ) from None
    return spool


def _read_up_to(stream: io.BufferedReader, size: int) -> bytes:
    parts = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _os_reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


class _Counted(io.RawIOBase):
    """The file's bytes, reporting how far it was read."""

    def __init__(self, file: io.FileIO, progress: Callable[[int], None] | None) -> None:
        self._file = file
        self._progress = progress
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            n = self._file.readinto(buffer)
        except OSError as error:
            raise SourceError(f"It cannot be read: {_os_reason(error)}.") from None
        self._position += n
        if self._progress is not None:
            self._progress(self._position)
        return int(n)


class _Decompressed(io.RawIOBase):
    """Bytes of a compressed file; damage ends the stream and is reported, not raised."""

    def __init__(self, raw: io.RawIOBase, damaged: Callable[[str], None]) -> None:
        self._raw = raw
        self._damaged = damaged
        self._ready = memoryview(b"")
        self._done = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready and not self._done:
            self._ready = memoryview(self._more())
        n = min(len(buffer), len(self._ready))
        buffer[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        return n

    def _more(self) -> bytes:
        raise NotImplementedError


class _Gzip(_Decompressed):
    def __init__(self, raw: io.RawIOBase, damaged: Callable[[str], None]) -> None:
        super().__init__(raw, damaged)
        self._member = zlib.decompressobj(wbits=31)

    def _more(self) -> bytes:
        data = self._member.unconsumed_tail or self._member.unused_data
        if len(data) < len(_GZIP_MAGIC):
            data += self._raw.read(_GZIP_STEP) or b""
        if self._member.eof:
            if not data.startswith(_GZIP_MAGIC):
                self._done = True  # end of the file, or padding after the last member
                return b""
            self._member = zlib.decompressobj(wbits=31)
        elif not data:
            self._damaged("the gzip stream ends early")
            self._done = True
            return b""
        try:
            return self._member.decompress(data, 4 * _BLOCK)
        except zlib.error:
            self._damaged("the gzip stream is broken")
            self._done = True
            return b""


def _zstd_frame() -> zstandard.ZstdDecompressionObj:
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()


class _Zstd(_Decompressed):
    def __init__(self, raw: io.RawIOBase, damaged: Callable[[str], None]) -> None:
        super().__init__(raw, damaged)
        self._frame = _zstd_frame()

    def _more(self) -> bytes:
        data = (self._frame.eof and self._frame.unused_data) or self._raw.read(_ZSTD_STEP) or b""
        if self._frame.eof:
            if not data:
                self._done = True
                return b""
            self._frame = _zstd_frame()
        elif not data:
            self._damaged("the zstd stream ends early")
            self._done = True
            return b""
        try:
            return self._frame.decompress(data)
        except zstandard.ZstdError:
            self._damaged("the zstd stream is broken")
            self._done = True
            return b""
