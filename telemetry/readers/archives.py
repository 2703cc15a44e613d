"""Archives: many files in one, each of which is a source of its own.

Formats: PKWARE's APPNOTE for zip; POSIX.1-2008, pax, for tar, with the long names of GNU.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from telemetry.errors import SourceError
from telemetry.readers.containers import BLOCK, ZIP_METHODS, Unpacked, unpack

ABOUT_ZIP = "zip files; each member is a source: stored, deflate, bzip2, zstd, xz"
ABOUT_TAR = "tar files, packed or not; each member is a source"
MOST_MEMBERS = 100_000
_MOST_DIRECTORY = 1 << 23
"""Bytes of the directory of a zip file: some hundred thousand members."""
_MOST_NOTES = 1 << 23
"""Bytes of what a tar file says of its members."""
_LONGEST_NAME = 4096
_DIGITS = 20
_MOST_BYTES = 1 << 62
_MOST_UNPACKED = 32 << 30
"""Bytes that are unpacked on the way to all members of a packed tar file, each time."""
_MOST_ZEROS = 4096
"""Blocks of zeros behind which nobody puts another tar file."""
_BROKEN = "The tar file is broken; fetch it again."
_ENDS_EARLY = "The tar file ends early; fetch it again, or unpack what there is of it."
_STORED = 0


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file in a zip file.

    Attributes:
        name: Its name, for the caller's eyes only.
        method: PKWARE's number of how it is packed.
        encrypted: Whether it is.
        header: Where its local header begins.
        size: Packed bytes.
        crc: CRC-32 of the plain bytes.
    """

    name: str
    method: int
    encrypted: bool
    header: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in a tar file.

    Attributes:
        name: Its name, for the caller's eyes only.
        offset: Where its bytes begin, in the unpacked tar file.
        size: How many there are.
    """

    name: str
    offset: int
    size: int


Member = ZipMember | TarMember


class Archived(io.RawIOBase):
    """An archive's member as a file of its own; it owns the archive's file.

    Attributes:
        kind: Names of what is opened to get at it, the outermost first.
        size: Its bytes, as they lie in the archive.
    """

    kind: list[str]
    size: int

    def __init__(self, file: io.FileIO) -> None:
        """Takes the archive's file, owned by this object from now on."""
        self._file = file

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True; to the start, that is."""
        return True

    def fileno(self) -> int:
        """Returns the archive's descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        """Closes the archive."""
        self._file.close()
        super().close()

    def unpacked(
        self, plain: io.BufferedReader[Any], damaged: Callable[[str], None], block: int = BLOCK
    ) -> io.BufferedReader[Any]:
        """Returns the member's plain bytes, given a stream of them as they lie in the archive."""
        return plain


def members(file: io.FileIO) -> list[Member] | None:
    """Returns the files in an archive, without hidden ones; None for what is no archive.

    Raises:
        SourceError: It is an archive, and broken, or far too large.
        OSError: It cannot be read.
    """
    if os.pread(file.fileno(), 4, 0) in (b"PK\3\4", b"PK\5\6"):
        return list(zip_members(file))
    broken: list[str] = []
    names, stream = unpack(_whole(file), broken.append)
    if not _is_tar(stream.peek(tarfile.BLOCKSIZE)[: tarfile.BLOCKSIZE]):
        return None
    found: list[Member] = []
    try:
        found += _tar_members(stream, None if names else os.fstat(file.fileno()).st_size)
    except SourceError:
        if not broken:
            raise
    if broken:
        raise SourceError(f"The tar file is broken: {broken[0]}; fetch it again.")
    return found


def open_member(file: io.FileIO, member: Member) -> Archived:
    """Opens a member.

    Args:
        file: The archive, owned by the member from now on.
        member: One of its `members`.

    Raises:
        SourceError: It is encrypted, packed in a way that is not read, or not there.
    """
    if isinstance(member, TarMember):
        return _TarredFile(file, member)
    return _ZippedFile(file, member)


def _is_hidden(name: str) -> bool:
    """Returns whether a file system hides it, or the macOS finder has added it."""
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return any(part[:1] == "." or part == "__MACOSX" for part in parts)


class _Whole(io.RawIOBase):
    """A file's bytes from the start, wherever others read in it; closing it closes nothing."""

    def __init__(self, file: io.FileIO) -> None:
        self._descriptor = file.fileno()
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence != io.SEEK_END
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        n = os.preadv(self._descriptor, [buffer], self._at)
        self._at += n
        return n


def _whole(file: io.FileIO) -> io.BufferedReader[Any]:
    return io.BufferedReader(_Whole(file), BLOCK)


# Zip files


def zip_members(file: io.RawIOBase) -> list[ZipMember]:
    """Returns the files in a zip file, in its order, without hidden ones.

    Args:
        file: Seekable.

    Raises:
        SourceError: Its directory is missing, broken or far too long.
    """
    try:
        with zipfile.ZipFile(_Bounded(file)) as directory:
            infos = directory.infolist()
        end = file.seek(0, io.SEEK_END)
        if not all(0 <= info.header_offset < end for info in infos):
            raise zipfile.BadZipFile
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error):
        raise SourceError(
            "The zip file's directory is missing or broken; fetch it again."
        ) from None
    found = [
        ZipMember(
            info.filename,
            info.compress_type,
            bool(info.flag_bits & 0x2041),
            info.header_offset,
            info.compress_size,
            info.CRC,
        )
        for info in sorted(infos, key=lambda info: info.header_offset)
        if not info.filename.endswith("/") and not _is_hidden(info.filename)
    ]
    if any(a.header + a.size > b.header for a, b in pairwise(found)):
        raise SourceError("The zip file's members overlap; unpack what you trust of it.")
    return found


class _Bounded:
    """A file of which no more than a zip file's directory may take is read at once."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        most = _MOST_DIRECTORY + 1
        data = self._file.read(most if size < 0 else min(size, most)) or b""
        if len(data) == most:
            raise zipfile.BadZipFile
        return data


class _ZippedFile(Archived):
    """The packed bytes of a zip file's member."""

    def __init__(self, file: io.FileIO, member: ZipMember) -> None:
        super().__init__(file)
        self._member = member
        self.kind = ["zip"]
        if member.encrypted:
            raise SourceError("It is encrypted; unpack it first.")
        if member.method != _STORED and member.method not in ZIP_METHODS:
            raise SourceError("It is packed in a way that is not read; unpack it first.")
        file.seek(member.header)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise SourceError("The zip file is broken where it should begin; fetch it again.")
        self.size = member.size
        self._start = member.header + 30 + sum(struct.unpack("<HH", header[26:30]))
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to an offset from the start of the packed bytes."""
        assert whence == io.SEEK_SET
        self._at = offset
        return offset

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads packed bytes."""
        self._file.seek(self._start + self._at)
        n = self._file.readinto(memoryview(buffer)[: max(self.size - self._at, 0)]) or 0
        self._at += n
        return n

    def unpacked(
        self, plain: io.BufferedReader[Any], damaged: Callable[[str], None], block: int = BLOCK
    ) -> io.BufferedReader[Any]:
        """Returns the member's plain bytes, given a stream of its packed ones."""
        if self._member.method == _STORED:
            return plain
        container = ZIP_METHODS[self._member.method]
        return io.BufferedReader(Unpacked(plain, container, damaged, self._member.crc), block)


# Tar files


def _is_tar(block: bytes) -> bool:
    """Returns whether a file begins as a tar file does.

    Whoever sends the first packet of a capture can write what a header has at its end, but no
    capture begins with a name, in whatever script, and nothing behind it.
    """
    name, _, rest = block[:100].partition(b"\0")
    if block[257:262] != b"ustar" or not name or min(name) < 0x20 or rest.strip(b"\0"):
        return False
    try:
        return _header(block) is not None
    except SourceError:
        return False


def _header(block: bytes) -> tarfile.TarInfo | None:
    """Returns what a member's header says; None for zeros, which stand behind the last."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return None
    except (tarfile.HeaderError, ValueError):
        raise SourceError(_BROKEN) from None
    _check_size(info.size)
    return info


def _check_size(size: int) -> None:
    if not 0 <= size < _MOST_BYTES:
        raise SourceError(_BROKEN)


class _Notes(NamedTuple):
    """What headers say of the member behind them; None where they do not."""

    path: str | None = None
    size: int | None = None
    is_sparse: bool = False


def _tar_members(stream: io.BufferedReader[Any], end: int | None) -> Iterator[TarMember]:
    """Yields the files in a tar file, without hidden ones.

    Args:
        stream: At its beginning.
        end: How many bytes there are, if that is known.
    """
    at = found = noted = unpacked = zeros = 0
    notes = _Notes()
    is_over = False
    while block := stream.read(tarfile.BLOCKSIZE):
        at += len(block)
        try:
            info = _header(block)
        except SourceError:
            if is_over:
                return  # whatever stands behind the end
            raise
        is_over = info is None
        if info is None:
            zeros += 1
            if zeros > _MOST_ZEROS:
                return
            continue  # another tar file may have been put behind this one
        zeros = 0
        if info.type in _TOLD_OF:
            noted += _padded(info.size)
            if noted > _MOST_NOTES:
                raise SourceError("The tar file has far too long names; unpack it first.")
            data = stream.read(_padded(info.size))
            at += len(data)
            notes = _with(notes, info, data)
            continue
        size = info.size if notes.size is None else notes.size
        name = info.name if notes.path is None else notes.path
        if info.type in _PARTS or notes.is_sparse:
            raise SourceError("The tar file holds parts of files only; unpack it first.")
        if info.isreg() and not name.endswith("/") and not _is_hidden(name):
            found += 1
            unpacked += at if end is None else 0
            if found > MOST_MEMBERS:
                raise SourceError("The tar file holds far too many files; unpack it first.")
            if unpacked > _MOST_UNPACKED:
                raise SourceError(
                    "The tar file is packed, and to read each of its files all before it has "
                    "to be unpacked anew, which would take too long; unpack it first."
                )
            yield TarMember(name, at, size)
        if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES:
            at += _padded(size)
            if end is not None and at > end:
                raise SourceError(_ENDS_EARLY)
            _skip(stream, _padded(size))
        notes = _Notes()


_TOLD_OF = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Types of headers that tell of the next member, or of all."""
_PARTS = (tarfile.GNUTYPE_SPARSE, b"M")
"""Types of files with holes, and of those that began in another volume."""


def _with(notes: _Notes, info: tarfile.TarInfo, data: bytes) -> _Notes:
    """Adds to notes what a header and its data say."""
    if len(data) < info.size:
        raise SourceError(_ENDS_EARLY)
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return notes._replace(path=_name(data[: info.size].rstrip(b"\0")))
    if info.type not in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        return notes
    at = 0
    while at < info.size and data[at]:
        try:
            space = data.index(b" ", at, at + _DIGITS)
            length = int(data[at:space])
            key, value = data[space + 1 : at + length].removesuffix(b"\n").split(b"=", 1)
            if key == b"size":
                notes = notes._replace(size=int(value[:_DIGITS]))
                _check_size(int(value[:_DIGITS]))
        except ValueError:
            raise SourceError(_BROKEN) from None
        if length <= 0:
            raise SourceError(_BROKEN)
        if key == b"path":
            notes = notes._replace(path=_name(value))
        elif key.startswith(b"GNU.sparse"):
            notes = notes._replace(is_sparse=True)
        at += length
    return notes


def _name(name: bytes) -> str:
    if len(name) > _LONGEST_NAME:
        raise SourceError("The tar file has far too long names; unpack it first.")
    return name.decode("utf-8", "replace")


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _skip(stream: io.BufferedReader[Any], size: int) -> None:
    """Passes over so many bytes.

    Raises:
        SourceError: There are fewer.
    """
    if stream.seekable():
        stream.seek(size, io.SEEK_CUR)
        return
    while size:
        passed = len(stream.read(min(size, BLOCK)))
        if not passed:
            raise SourceError(_ENDS_EARLY)
        size -= passed


class _TarredFile(Archived):
    """The bytes of a tar file's member; of a packed one, all before it is unpacked too."""

    def __init__(self, file: io.FileIO, member: TarMember) -> None:
        super().__init__(file)
        self._member = member
        self.size = self._left = member.size
        self._stream: io.BufferedReader[Any] | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to the start."""
        assert offset == 0 and whence == io.SEEK_SET
        self._stream = None
        return 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads bytes of the member."""
        stream = self._stream or self._opened()
        n = stream.readinto(memoryview(buffer)[: self._left])
        if self._left and not n:
            raise SourceError(_ENDS_EARLY)
        self._left -= n
        return n

    def _opened(self) -> io.BufferedReader[Any]:
        names, stream = unpack(_whole(self._file), lambda why: None)
        _skip(stream, self._member.offset - tarfile.BLOCKSIZE)
        if _header(stream.read(tarfile.BLOCKSIZE)) is None:
            raise SourceError(_BROKEN)
        self.kind = [*names, "tar"]
        self._stream, self._left = stream, self.size
        return stream
