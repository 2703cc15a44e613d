"""One input: a file or standard input, known by the hash of its bytes, read as a stream."""

from __future__ import annotations

import hashlib
import io
import os
import sys
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
    """An input: a file, read as often as needed, or a pipe, read once and kept nowhere.

    Attributes:
        path: As the caller named it; for messages to the caller only.
        size: Bytes on disk; 0 for a pipe.
        sha256: Hash of the bytes: of a file before anything is parsed, of a pipe once
            `finish` was called, None until then.
        content_sha256: Hash of the bytes after decompression, once `finish` was called: the
            same content may come plain today and compressed tomorrow.
        container: `plain`, `gzip` or `zstd`.
        head: First bytes after decompression.
        damage: Why the decompressed stream ended early, if it did.
    """

    def __init__(
        self, path: str, file: io.FileIO, progress: Callable[[int], None] | None = None
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
        self.sha256: str | None = None
        self.content_sha256: str | None = None
        self.damage: str | None = None
        self._file = file
        self._progress = progress
        self._hash = hashlib.sha256()
        self._is_pipe = not file.seekable()
        self._stat = os.fstat(file.fileno())
        self.size = 0 if self._is_pipe else self._stat.st_size
        if not self._is_pipe:
            try:
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise SourceError(f"It cannot be read: {_os_reason(error)}.") from None
        self._plain, self._stream = self._open()
        self.head = self._stream.peek(HEAD)[:HEAD]

    def stream(self) -> io.BufferedReader:
        """Returns the decompressed bytes from the start; one stream at a time."""
        if not self._is_pipe:
            self.damage = None
            self._plain, self._stream = self._open()
        return self._stream

    def finish(self) -> None:
        """Reads what is left, so that the hashes are those of all bytes.

        Raises:
            SourceError: It cannot be read, or a file is no longer the one that was hashed.
        """
        if self._is_pipe or self.container != "plain":
            for stream in (self._stream, self._plain):
                while stream.read(_BLOCK):
                    pass
        if self._is_pipe:
            self.sha256 = self._hash.hexdigest()
        else:
            now = os.fstat(self._file.fileno())
            if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
                raise SourceError("It changed while it was read; ingest it again.")
        packed = self._stream.raw
        self.content_sha256 = (
            packed.digest.hexdigest() if isinstance(packed, _Decompressed) else self.sha256
        )

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _open(self) -> tuple[io.BufferedReader, io.BufferedReader]:
        """Returns the bytes as they are, and decompressed."""
        if not self._is_pipe:
            self._file.seek(0)
        counted = _Counted(self._file, self._progress, self._hash if self._is_pipe else None)
        plain: io.BufferedReader = io.BufferedReader(counted, _BLOCK)
        magic = plain.peek(len(_ZSTD_MAGIC))
        if not magic:
            raise SourceError("It is empty.")
        self.container = "plain"
        if magic.startswith(_GZIP_MAGIC):
            self.container = "gzip"
            return plain, io.BufferedReader(_Gzip(plain, self._damaged), _BLOCK)
        if magic.startswith(_ZSTD_MAGIC):
            self.container = "zstd"
            return plain, io.BufferedReader(_Zstd(plain, self._damaged), _BLOCK)
        return plain, plain

    def _damaged(self, why: str) -> None:
        self.damage = why


def open_source(path: str, progress: Callable[[int], None] | None = None) -> Source:
    """Opens a file, or standard input for `-`.

    Args:
        path: File name, or `-`.
        progress: Called with the number of bytes read so far.

    Raises:
        SourceError: It is missing, not a file, not readable or empty.
    """
    file = _open_stdin() if path == "-" else _open_file(Path(path))
    try:
        return Source(path, file, progress)
    except SourceError:
        file.close()
        raise


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


class _Counted(io.RawIOBase):
    """The file's bytes, reporting how far it was read; a pipe's are hashed on the way."""

    def __init__(
        self,
        file: io.FileIO,
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


class _Decompressed(io.RawIOBase):
    """Bytes of a compressed file; damage ends the stream and is reported, not raised."""

    def __init__(self, raw: io.BufferedReader, damaged: Callable[[str], None]) -> None:
        self._raw = raw
        self._damaged = damaged
        self.digest = hashlib.sha256()
        self._ready = memoryview(b"")
        self._done = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        filled = 0
        while filled < len(buffer):
            while not self._ready and not self._done:
                self._ready = memoryview(self._more())
            n = min(len(buffer) - filled, len(self._ready))
            if n == 0:
                break
            buffer[filled : filled + n] = self._ready[:n]
            self._ready = self._ready[n:]
            filled += n
        self.digest.update(memoryview(buffer)[:filled])
        return filled

    def _more(self) -> bytes:
        raise NotImplementedError


class _Gzip(_Decompressed):
    def __init__(self, raw: io.BufferedReader, damaged: Callable[[str], None]) -> None:
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
    def __init__(self, raw: io.BufferedReader, damaged: Callable[[str], None]) -> None:
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
