"""Columns of texts, from delimited lines and from JSON Lines.

Delimited lines pass a kernel of ours, which is twice as fast as polars' CSV reader here
and counts every broken line; JSON passes polars. Only the columns that are asked for are
looked at, so labels and names end here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from telemetry.raw import I64
from telemetry.readers.rows import kernels
from telemetry.reasons import Reason
from telemetry.records import Tally

if TYPE_CHECKING:
    import polars as pl

Flags: TypeAlias = npt.NDArray[np.bool_]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Key: TypeAlias = str | tuple[str, ...]
"""A key of a JSON object; a tuple leads into the objects within."""

CHUNK = 4 << 20
"""Bytes parsed at once; also the longest line that is read."""
_SEPARATORS = (b",", b"\t", b"|", b";")
BOM = b"\xef\xbb\xbf"
_LARGEST = 2**63  # no record counts so far, nor nanoseconds


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts in one array of bytes; text i is `data[starts[i]:ends[i]]`."""

    data: Bytes
    starts: I64
    ends: I64

    def __len__(self) -> int:
        return len(self.starts)

    def at(self, row: int) -> str:
        """Returns one text."""
        return self.data[self.starts[row] : self.ends[row]].tobytes().decode("utf-8", "replace")

    def only(self, rows: Flags | I64) -> Texts:
        """Returns the column of some rows."""
        return Texts(self.data, self.starts[rows], self.ends[rows])

    def distinct(self) -> list[str]:
        """Returns the different texts."""
        hashes = kernels.text_hashes(self.data, self.starts, self.ends, False)
        return [self.at(int(row)) for row in np.unique(hashes, return_index=True)[1]]

    def parted(self, byte: str) -> tuple[Texts, Texts, Flags]:
        """Returns what stands before and after the first `byte`, and which texts have it.

        A text without it stands whole before, and nothing after.
        """
        places = kernels.part(self.data, self.starts, self.ends, ord(byte))
        has = places >= 0
        before = Texts(self.data, self.starts, np.where(has, places, self.ends))
        after = Texts(self.data, np.where(has, places + 1, self.ends), self.ends)
        return before, after, has


@dataclass(frozen=True, slots=True)
class Table:
    """Columns by name, of equal length; `unset` stands for no value, as does no text."""

    columns: Mapping[str, Texts]
    rows: int
    unset: str = "-"

    def __len__(self) -> int:
        return self.rows

    def get(self, name: str) -> Texts:
        """Returns a column; one that the table lacks holds empty texts."""
        if name in self.columns:
            return self.columns[name]
        nothing = np.zeros(self.rows, dtype=np.int64)
        return Texts(np.frombuffer(b"", dtype=np.uint8), nothing, nothing)

    def only(self, rows: Flags) -> Table:
        """Returns the table of some rows."""
        if rows.all():
            return self
        columns = {name: texts.only(rows) for name, texts in self.columns.items()}
        return Table(columns, int(rows.sum()), self.unset)


def chunks(stream: IO[bytes], tally: Tally) -> Iterator[bytes]:
    """Yields whole lines in chunks, the last line ended by a newline too.

    A line longer than a chunk is counted as malformed and skipped.
    """
    rest = b""
    skipping = False
    while block := stream.read(CHUNK):
        if skipping:
            _, newline, block = block.partition(b"\n")
            skipping = not newline
        cut = block.rfind(b"\n") + 1
        if cut:
            yield (rest + block[:cut]).removeprefix(BOM)
            rest = block[cut:]
        else:
            rest += block
        if len(rest) > CHUNK:
            drop(tally, Reason.MALFORMED_ROW, 1)
            rest, skipping = b"", True
    if rest:
        yield (rest + b"\n").removeprefix(BOM)


def drop(tally: Tally, reason: Reason, rows: int) -> None:
    """Counts rows that were found and are not handed over."""
    tally.read += rows
    if rows:
        tally.dropped[reason.label] += rows


def filled(lines: bytes) -> int:
    """Returns the number of lines that are not blank."""
    return sum(1 for line in lines.split(b"\n") if line.strip())


# -- delimited lines


@dataclass(frozen=True, slots=True)
class Fields:
    """How lines are cut into fields.

    Attributes:
        names: The header's names, in order.
        separator: One byte between fields.
        quoted: Whether `"` may stand around a field. A line ends at its newline even so.
        padded: Whether blanks before and after a text are no part of it.
        spare: How many of the last fields may be missing.
        unset: Text of a field without a value.
    """

    names: tuple[str, ...]
    separator: bytes = b","
    quoted: bool = False
    padded: bool = False
    spare: int = 0
    unset: str = "-"


def head_line(head: bytes) -> bytes:
    """Returns the first line that is not blank."""
    return next((line for line in head.removeprefix(BOM).splitlines() if line.strip()), b"")


def first_line(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Returns the first line that is not blank and no comment, and the pieces after it."""
    for piece in pieces:
        start = 0
        while start < len(piece):
            end = piece.index(b"\n", start)
            line = piece[start:end].strip(b"\r")
            start = end + 1
            if line.strip() and not line.startswith(b"#"):
                return line, chain([piece[start:]] if start < len(piece) else [], pieces)
    return b"", iter(())


def header_fields(line: bytes, delimiter: str | None = None) -> Fields:
    """Returns how a table's lines are cut, told by its header.

    Unless a delimiter is given it is the most frequent separator; blanks part fields where
    nothing else does.
    """
    separator = delimiter.encode() if delimiter else max(_SEPARATORS, key=line.count)
    if separator not in line:
        separator = b" "
    names = [name.decode("utf-8", "replace").strip().strip('"') for name in line.split(separator)]
    return Fields(tuple(names), separator, quoted=True, padded=separator != b" ")


def table_of_lines(lines: bytes, fields: Fields, wanted: Mapping[str, str], tally: Tally) -> Table:
    """Cuts lines into columns; lines without their number of fields are counted as malformed.

    Args:
        lines: Whole lines without a header.
        fields: How they are cut.
        wanted: For each column of the result its name in the header, which must be there.
        tally: Counts the lines that do not fit.
    """
    data = np.frombuffer(lines, dtype=np.uint8)
    slots = np.full(len(fields.names), -1)
    places = {name: fields.names.index(own) for name, own in wanted.items()}
    used = sorted(set(places.values()))
    slots[used] = np.arange(len(used))
    starts = np.zeros((len(used), lines.count(b"\n")), dtype=np.int64)
    ends = np.zeros_like(starts)
    whole = np.zeros(starts.shape[1], dtype=np.bool_)
    rows = kernels.split(
        data,
        fields.separator[0],
        ord('"') if fields.quoted else -1,
        ord(" ") if fields.padded else -1,
        slots,
        fields.spare,
        starts,
        ends,
        whole,
    )
    columns = {
        name: Texts(data, starts[slots[place], :rows], ends[slots[place], :rows])
        for name, place in places.items()
    }
    drop(tally, Reason.MALFORMED_ROW, rows - int(whole[:rows].sum()))
    return Table(columns, rows, fields.unset).only(whole[:rows])


# -- JSON Lines


def table_of_json(lines: bytes, wanted: Mapping[str, tuple[Key, ...]]) -> Table:
    """Turns JSON Lines into columns; a line that is no object becomes a row of empty texts.

    Args:
        lines: One JSON value a line.
        wanted: For each column of the result the keys that may hold it; the first with a value
            counts.
    """
    import polars as pl  # late: captures, which do without, need not wait for it

    keys = list(dict.fromkeys(key for options in wanted.values() for key in options))
    frame = None
    # What does not begin as an object might be taken for compressed data.
    if lines.startswith(b"{"):
        with suppress(pl.exceptions.PolarsError, OSError):  # some line is broken
            frame = pl.read_ndjson(lines, schema=_schema(keys))
    if frame is None or frame.height != lines.count(b"\n"):
        columns = _slow_columns(lines, keys)
    else:
        columns = {key: _leaf(frame, key) for key in keys}
    return Table(
        {name: texts_of(_first(columns, options)) for name, options in wanted.items()},
        len(next(iter(columns.values()))),
    )


def json_object(line: bytes) -> dict[str, Any] | None:
    """Returns the object that a line holds, or None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def json_value(row: object, key: Key) -> object:
    """Returns what an object holds under a key, or None."""
    for name in (key,) if isinstance(key, str) else key:
        row = row.get(name) if isinstance(row, dict) else None
    return row


def _schema(keys: list[Key]) -> dict[str, pl.DataType]:
    import polars as pl

    tree: dict[str, Any] = {}
    for key in keys:
        branch = tree
        *path, leaf = (key,) if isinstance(key, str) else key
        for name in path:
            branch = branch.setdefault(name, {})
        branch[leaf] = {}

    def of(branch: dict[str, Any]) -> pl.DataType:
        return (
            pl.Struct({name: of(inner) for name, inner in branch.items()})
            if branch
            else pl.String()
        )

    return {name: of(branch) for name, branch in tree.items()}


def _leaf(frame: pl.DataFrame, key: Key) -> pl.Series:
    name, *path = (key,) if isinstance(key, str) else key
    column = frame[name]
    for inner in path:
        column = column.struct.field(inner)
    return column


def _slow_columns(lines: bytes, keys: list[Key]) -> dict[Key, pl.Series]:
    """Reads line by line what polars cannot take at once: broken lines, odd shapes."""
    import polars as pl

    rows = [json_object(line) for line in lines.split(b"\n") if line.strip()]
    return {
        key: pl.Series([_text(json_value(row, key)) for row in rows], dtype=pl.String())
        for key in keys
    }


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # JSON can spell lone surrogates
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value) if abs(value) < _LARGEST else "overflow"
    return None if value is None else "no text"


def _first(columns: Mapping[Key, pl.Series], options: tuple[Key, ...]) -> pl.Series:
    first = columns[options[0]]
    for option in options[1:]:
        first = first.zip_with(first.is_not_null(), columns[option])
    return first


def texts_of(column: pl.Series) -> Texts:
    """Returns a column of polars as texts; null is empty."""
    import polars as pl

    array = column.fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    first = array.offset
    # A copy is writable, as the kernels are compiled for.
    bounds = np.frombuffer(offsets, dtype=np.int64)[first : first + len(array) + 1].copy()
    return Texts(np.frombuffer(data or b"", dtype=np.uint8), bounds[:-1], bounds[1:])
