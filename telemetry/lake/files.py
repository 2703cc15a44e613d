"""Files of the lake: Parquet in, Parquet out, written aside and moved into place."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.columns import TEXT, TIME, Layer, schema
from telemetry.errors import LakeBusy, LakeError
from telemetry.lake.layout import FILE_MODE, FOLDER_MODE

ROW_GROUP = 128 * 1024
"""Rows of a row group: small enough to skip, large enough to compress."""
_DICTIONARY_BYTES = 8 << 20  # a row group of distinct pseudonyms still fits
_MANY = 32  # from here one sync of everything is cheaper than one for each file

_RECORD = schema(Layer.RECORD)
_TEXT = [field.name for field in _RECORD if field.type == TEXT]
_TIMES = [field.name for field in _RECORD if field.type == TIME]
_PLAIN = pa.schema(
    [field.with_type(pa.string()) if field.type == TEXT else field for field in _RECORD]
)
_REPEATED = [  # columns of few distinct values
    field.name
    for field in _RECORD
    if field.type in (TEXT, pa.uint8(), pa.uint16(), pa.int32(), pa.binary(16))
]


@dataclass(frozen=True, slots=True)
class Aside:
    """A file written to `tmp/`, to be moved into place.

    Attributes:
        path: Where it is now.
        folder: Folder it belongs to, below the lake, such as `records/day=…/bucket=03`.
        rows: Rows in it.
        bytes: Its size.
        sha256: Hash of its content, which also gives its name.
    """

    path: Path
    folder: str
    rows: int
    bytes: int
    sha256: str


def write_records(parts: Iterable[pa.Table], path: Path, folder: str) -> Aside:
    """Writes records aside as Parquet, a row group at a time.

    Args:
        parts: Records in their order; equal records give equal bytes, however they are parted.
        path: The new file, which nobody sees before `move`.
        folder: Folder it belongs to, below the lake.
    """
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE), "wb") as file:
        sink = _Hashed(file)
        rows = _encode(parts, pa.PythonFile(sink, mode="w"))
    return Aside(path, folder, rows, sink.bytes, sink.digest.hexdigest())


def encode_records(table: pa.Table) -> pa.Buffer:
    """Returns records as `write_records` writes them."""
    sink = pa.BufferOutputStream()
    _encode([table], sink)
    return sink.getvalue()


class _Hashed:
    """A file that is hashed and counted while it is written."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True  # whoever opened the file closes it


def _encode(parts: Iterable[pa.Table], sink: pa.NativeFile) -> int:
    """Encodes records in groups of `ROW_GROUP`; returns how many they are.

    Text is written from plain values: a slice must not carry its table's whole dictionary.
    """
    with pq.ParquetWriter(
        sink,
        _PLAIN,
        compression="zstd",
        use_dictionary=_REPEATED,
        dictionary_pagesize_limit=_DICTIONARY_BYTES,
        column_encoding={name: "DELTA_BINARY_PACKED" for name in _TIMES},
        store_schema=False,
    ) as writer:
        rest, rows = _PLAIN.empty_table(), 0
        for part in parts:
            rows += len(part)
            rest = pa.concat_tables([rest, part.cast(_PLAIN)]) if len(rest) else part.cast(_PLAIN)
            whole = len(rest) // ROW_GROUP * ROW_GROUP
            if whole:
                writer.write_table(rest.slice(0, whole), row_group_size=ROW_GROUP)
                rest = rest.slice(whole)
        if len(rest) or not rows:
            writer.write_table(rest, row_group_size=ROW_GROUP)
    return rows


def read_records(path: Path) -> pa.Table:
    """Reads a file of records back with the schema of `Layer.RECORD`."""
    with pq.ParquetFile(path, read_dictionary=_TEXT) as file:
        return file.read(use_threads=False).cast(_RECORD)


def read_groups(path: Path) -> Iterator[pa.Table]:
    """Reads a file of records, a row group at a time."""
    with pq.ParquetFile(path, read_dictionary=_TEXT) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, use_threads=False).cast(_RECORD)


def encode_plain(table: pa.Table) -> pa.Buffer:
    """Returns a small table as Parquet, without any metadata of its own."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd")
    return sink.getvalue()


def write_aside(content: pa.Buffer, path: Path, folder: str, rows: int) -> Aside:
    """Writes a file that nobody sees yet; `move` makes it last."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE), "wb") as file:
        file.write(content)
    return Aside(path, folder, rows, content.size, hashlib.sha256(content).hexdigest())


def move(root: Path, moves: Iterable[tuple[Aside, str]]) -> list[Path]:
    """Makes files durable and moves them to their names below `root`.

    On an error nothing stays in place that was not there before.
    """
    moves = list(moves)
    placed: list[Path] = []
    try:
        _sync([aside.path for aside, _ in moves])
        folders: dict[Path, None] = {}
        for aside, name in moves:
            final = root / name
            for folder in _make_folders(root, final.parent):
                folders[folder] = None
            new = not final.exists()
            aside.path.replace(final)
            if new:
                placed.append(final)
        _sync(list(folders))
    except BaseException:
        remove(placed)
        raise
    return placed


def remove(paths: Iterable[Path]) -> None:
    """Removes files; one that is gone already is no error."""
    for path in paths:
        path.unlink(missing_ok=True)


def _make_folders(root: Path, folder: Path) -> list[Path]:
    """Makes a folder and its parents below root; returns those whose entries changed."""
    missing = []
    while folder != root and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(mode=FOLDER_MODE)
    return [folder, *missing]


def _sync(paths: list[Path]) -> None:
    if len(paths) > _MANY:
        os.sync()  # Linux waits until all is written, see sync(2)
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def lake_errors(root: Path) -> Iterator[None]:
    """Turns what the system says into one sentence for the user.

    Raises:
        LakeBusy: Another process holds the file table.
        LakeError: Everything else.
    """
    try:
        yield
    except OSError as error:
        raise LakeError(_sentence(root, error)) from error
    except sqlite3.Error as error:
        text = str(error)
        if "full" in text:
            raise LakeError(_FULL) from error
        if "locked" in text:
            raise LakeBusy(
                f"Another run holds the lake {root}; try again when it is done."
            ) from error
        raise LakeError(f"The file table of the lake {root} fails: {text}.") from error
    except pa.ArrowException as error:
        full = "No space left" in str(error)
        raise LakeError(
            _FULL if full else f"A file of the lake {root} cannot be read; restore it."
        ) from error


_FULL = "The disk that holds the lake is full; free space and run again, nothing stored is lost."


def _sentence(root: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return _FULL
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT):
        return f"The lake {root} cannot be written or read here; check its place and rights."
    return f"The lake {root} fails: {error.strerror or 'input/output error'}; check its disk."
