"""Containers: packed bytes in, plain bytes out, as a stream in bounded memory.

`CONTAINERS` is the table of those that are recognised by their first bytes; `ZIP_METHODS` of those
that a zip file's directory names.

Formats: RFC 1952 (gzip), RFC 8878 (zstd), the LZ4 frame format 1.6, bzip2, and the .xz file format
1.2.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import lz4.frame
import zstandard

BLOCK = 1 << 20
"""Bytes that a stream holds ready."""
_NESTED = 3
"""Containers inside each other that are opened."""
_MOST_OUT = 4 * BLOCK
_WINDOW = 1 << 27  # zstd --long=27, the most that the zstd tool accepts unasked
_XZ_MEMORY = 1 << 28  # four times what `xz -9` needs


class _Decompressor(Protocol):
    """What the decompressors of Python's own library look like."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Inflate:
    """zlib's decompressor in the shape of the others."""

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits)
        self.eof = False
        self.needs_input = True
        self.unused_data: bytes | None = None

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.eof, self.unused_data = self._zlib.eof, self._zlib.unused_data
        # With a full answer more may be waiting inside, though all input was taken.
        self.needs_input = not self._zlib.unconsumed_tail and len(out) < max_length
        return out


class _ZstdFrame:
    """One zstd frame; its answers are bounded by what it is given, not by `max_length`."""

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        self.eof = False
        self.needs_input = True
        self.unused_data: bytes | None = None

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out: bytes = self._frame.decompress(data)
        self.eof, self.unused_data = self._frame.eof, self._frame.unused_data
        return out


@dataclass(frozen=True, slots=True)
class Container:
    """A way to pack bytes.

    Attributes:
        name: Name in reports.
        about: What it is, for people.
        start: What a member or frame begins with.
        new: Makes the decompressor of one member or frame.
        step: Packed bytes taken at once. Small where the answer cannot be bounded otherwise:
            4 bytes of zstd can stand for 128 KiB.
    """

    name: str
    about: str
    start: re.Pattern[bytes]
    new: Callable[[], _Decompressor]
    step: int = 1 << 16


def _new_xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _new_lz4() -> _Decompressor:
    frame: _Decompressor = lz4.frame.LZ4FrameDecompressor()
    return frame


_SKIPPABLE = rb"[\x50-\x5f]\x2a\x4d\x18"
_SKIPPED = re.compile(_SKIPPABLE)
_GZIP = Container("gzip", "RFC 1952", re.compile(rb"\x1f\x8b\x08"), lambda: _Inflate(31))
_ZSTD = Container(
    "zstd",
    "RFC 8878, windows up to 128 MiB",
    re.compile(rb"\x28\xb5\x2f\xfd|" + _SKIPPABLE),
    _ZstdFrame,
    1 << 10,
)
_LZ4 = Container("lz4", "LZ4 frames", re.compile(rb"\x04\x22\x4d\x18|" + _SKIPPABLE), _new_lz4)
_BZIP2 = Container(
    "bzip2",
    "bzip2",
    re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    bz2.BZ2Decompressor,
)
_XZ = Container("xz", "xz, in up to 256 MiB of memory", re.compile(rb"\xfd7zXZ\0"), _new_xz)
CONTAINERS = (_GZIP, _ZSTD, _LZ4, _BZIP2, _XZ)
"""Containers of one stream."""

_DEFLATE = Container("deflate", "RFC 1951", re.compile(rb"(?!)"), lambda: _Inflate(-15))
ZIP_METHODS = {8: _DEFLATE, 12: _BZIP2, 93: _ZSTD, 95: _XZ}
"""How members of zip files are packed, by PKWARE's numbers."""
_ERRORS = (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError, RuntimeError)
_LONGEST_START = 10


class Unpacked(io.RawIOBase):
    """Bytes of a packed stream; damage ends it and is reported, not raised."""

    def __init__(
        self,
        packed: io.BufferedReader[Any],
        container: Container,
        damaged: Callable[[str], None],
        crc: int | None = None,
    ) -> None:
        """Takes a packed stream.

        Args:
            packed: Bytes of the container.
            container: Says how they are packed.
            damaged: Called with what is wrong with the stream.
            crc: CRC-32 that all bytes must have, for containers that keep it elsewhere.
        """
        self._packed = packed
        self._container = container
        self._damaged = damaged
        self._frame = container.new()
        self._ready = memoryview(b"")
        self._done = False
        self._stuck = False
        self._crc = crc
        self._crc_so_far = 0

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills the buffer, as far as there is something to fill it with."""
        buffer = memoryview(buffer)
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
        self._check(buffer[:filled], filled < len(buffer))
        return filled

    def _check(self, data: memoryview, at_end: bool) -> None:
        if self._crc is None:
            return
        self._crc_so_far = zlib.crc32(data, self._crc_so_far)
        if at_end and self._crc_so_far != self._crc:
            self._crc = None
            self._damaged("what the zip file holds is not what was packed into it")

    def _more(self) -> bytes:
        data = b""
        if self._frame.eof:
            data = self._next_start()
            if not data:
                return b""
            self._frame = self._container.new()
        elif self._frame.needs_input or self._stuck:
            data = self._packed.read(self._container.step) or b""
            if not data:
                return self._end("ends early")
        return self._unpack(data)

    def _next_start(self) -> bytes:
        """Returns the first bytes of the next member or frame, if there is one."""
        data = (self._frame.unused_data or b"").lstrip(b"\0")
        while len(data) < _LONGEST_START and (more := self._packed.read(self._container.step)):
            data = (data + more).lstrip(b"\0")  # padding
        if self._container.start.match(data):
            return data
        return self._end("is followed by something else" if data else None)

    def _unpack(self, data: bytes) -> bytes:
        try:
            out = self._frame.decompress(data, _MOST_OUT)
        except _ERRORS:
            return self._end("is broken")
        self._stuck = not out
        return out

    def _end(self, why: str | None) -> bytes:
        self._done = True
        if why is not None:
            self._damaged(f"the {self._container.name} stream {why}; what came before was read")
        return b""


def unpack(
    plain: io.BufferedReader[Any], damaged: Callable[[str], None], block: int = BLOCK
) -> tuple[list[str], io.BufferedReader[Any]]:
    """Opens the containers that a stream's first bytes announce.

    Args:
        plain: The stream.
        damaged: Called with what is wrong with a container.
        block: Bytes that each stream holds ready; no fewer than it takes to know a format.

    Returns:
        Names of the containers, the outermost first, and the stream inside them.
    """
    names: list[str] = []
    stream: io.BufferedReader[Any] = plain
    while len(names) < _NESTED and (container := _recognise(stream.peek(block))):
        stream = io.BufferedReader(Unpacked(stream, container, damaged), block)
        names.append(container.name)
    return names, stream


def _recognise(head: bytes) -> Container | None:
    start = 0
    # Frames that are skipped may stand before those of zstd or of lz4.
    while len(head) >= start + 8 and _SKIPPED.match(head, start):
        start += 8 + int.from_bytes(head[start + 4 : start + 8], "little")
    for container in CONTAINERS:
        if container.start.match(head, start if start < len(head) else 0):
            return container
    return None
