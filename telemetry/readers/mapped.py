"""Any table of records, read as a mapping file says: CSV, JSON or Parquet.

The mapping is a TOML file: `[columns]` names, for each meaning of a closed list
(`rows.records.MEANINGS`), the column that holds it; other keys say what columns do not (see
`Mapping`). Columns that are not named are never looked at.

With a mapping set, every text and every Parquet file is read by this reader and no other.
Parquet passes as texts, like all the rest: one path from there on.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from telemetry.errors import SettingsError, SourceError
from telemetry.raw import UNKNOWN, RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.objects import first_objects, object_lines
from telemetry.readers.rows.programs import seekable
from telemetry.readers.rows.reader import finish
from telemetry.readers.rows.records import MANDATORY, MEANINGS, Layout, batch
from telemetry.readers.rows.shaping import icmp_parted
from telemetry.readers.rows.texts import (
    BOM,
    Fields,
    Key,
    Table,
    chunks,
    first_line,
    header_fields,
    json_object,
    json_value,
    table_of_json,
    table_of_lines,
    texts_of,
)
from telemetry.readers.source import Source
from telemetry.records import Tally

if TYPE_CHECKING:
    import polars as pl

_PARQUET = b"PAR1"
_UNREADABLE = "None of its rows can be read under the mapping; check the columns and the units."
_WRAPPED = (
    "No column that the mapping names is in it; correct the mapping or, if its records are wrapped "
    "in another object, take them out first, such as with `jq -c '.[]'`."
)
_ROWS = 1 << 16  # of Parquet, taken at once
_LONGEST_TEXT = 256
_NO_TEXT = b"no text"
_TEXTS = (
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view()),
)
_SPARSE = ("icmp_type", "icmp_code", *(name for name in MEANINGS if name.endswith("_flags")))
"""Meanings that JSON may leave out of all of its first rows."""


class Mapping(BaseModel):
    """What a mapping file may say.

    Attributes:
        columns: For each meaning its column; for JSON and Parquet a list of names leads into
            nested objects.
        delimiter: One character between fields of text; told by the header if not given.
        names: The columns in order, of text without a header.
        unset: Text of a field without a value; an empty field has none either.
        time: Unit of `start` and `end`; dates are read whatever it is.
        duration: Unit of `duration`.
        one_way: Whether a row tells of the packets from `src` to `dst` alone.
        icmp_in_port: Whether `dst_port` holds 256 times the type and the code of ICMP, or
            `type.code`; 0 tells no type.
        tcp_flags: Whether flags without letters and without `0x` are hexadecimal.
        sampling_rate: One packet in so many was seen.
        active_timeout: Seconds after which the exporter cut records that went on.
        idle_timeout: Seconds of silence after which it ended them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    columns: dict[str, str | list[str]]
    delimiter: Annotated[str, Field(pattern=r"^[ -~\t]$")] | None = None
    names: list[str] = []
    unset: str = "-"
    time: Literal["s", "ms", "us", "ns", "iso8601"] = "iso8601"
    duration: Literal["s", "ms", "us", "ns"] = "s"
    one_way: bool = False
    icmp_in_port: bool = False
    tcp_flags: Literal["decimal", "hex"] = "decimal"
    sampling_rate: Annotated[int, Field(ge=1, lt=2**31)] = 1
    active_timeout: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    idle_timeout: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    def layout(self) -> Layout:
        """Returns it in the builder's words."""
        active, idle = self.active_timeout, self.idle_timeout
        return Layout(
            time="s" if self.time == "iso8601" else self.time,
            duration=self.duration,
            one_way=self.one_way,
            icmp_in_port=self.icmp_in_port,
            icmp_zeros=not self.icmp_in_port,  # exporters that know no type write 0
            hex_flags=self.tcp_flags == "hex",
            sampling_rate=self.sampling_rate,
            active_timeout=UNKNOWN if active is None else active,
            idle_timeout=UNKNOWN if idle is None else idle,
        )


def load(path: Path) -> Mapping:
    """Reads a mapping file.

    Raises:
        SettingsError: It cannot be read, or says something that no mapping may say.
    """
    try:
        mapping = _parsed(path.read_bytes())
    except OSError:
        raise SettingsError(f"The mapping {path} cannot be read; check its name.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise SettingsError(f"The mapping {path} is no TOML; mend it.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(f"The mapping {path} is wrong at {where}: {first['msg']}.") from None
    if fault := _fault(mapping):
        raise SettingsError(f"The mapping {path} {fault}.")
    return mapping


@lru_cache(maxsize=4)
def _parsed(content: bytes) -> Mapping:
    return Mapping(**tomllib.loads(content.decode()))


def _fault(mapping: Mapping) -> str | None:
    told = set(mapping.columns)
    if unknown := sorted(told - set(MEANINGS)):
        return f"knows no meaning {unknown[0]}; choose among {', '.join(MEANINGS)}"
    if missing := [name for name in MANDATORY if name not in told]:
        return f"lacks the meanings {', '.join(missing)}; name their columns under [columns]"
    if not told & {"start", "end"}:
        return "names no time; name the column of start or of end"
    if mapping.one_way and (
        other := sorted(n for n in told if n.startswith("dst_") and n not in MANDATORY)
    ):
        return f"says one_way, so that {other[0]} has no meaning; take one of them out"
    return None


class MappedReader:
    """Reads tables by a mapping file."""

    name = "mapped"
    about = "any CSV, JSON or Parquet, with a mapping file (--mapping)"
    gated = False

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether there is a mapping, and this is text or Parquet.

        Raises:
            SettingsError: The mapping is wrong.
        """
        if session.mapping is None:
            return False
        load(session.mapping)
        return head.startswith(_PARQUET) or b"\0" not in head

    def read(self, source: Source, session: Session, tally: Tally) -> Iterator[RawBatch]:
        """Yields the records; side `a` is what the mapping calls `src`.

        Raises:
            SourceError: It lacks columns that the mapping names, or nothing in it parses.
            SettingsError: The mapping is wrong.
        """
        assert session.mapping is not None
        tally.unit = "records"
        mapping = load(session.mapping)
        for table in _tables(source, mapping, tally):
            if len(table):
                if mapping.icmp_in_port:
                    table = icmp_parted(table)
                yield batch(table, mapping.layout(), tally)
        finish(source, tally, _UNREADABLE)


READER = MappedReader()


def _tables(source: Source, mapping: Mapping, tally: Tally) -> Iterable[Table]:
    if source.head.startswith(_PARQUET):
        return _parquet_tables(source, mapping, tally)
    head = source.head
    if head.removeprefix(BOM).lstrip().startswith(b"{") or first_objects(head):
        return _json_tables(head, object_lines(head, source.stream(), tally), mapping)
    return _text_tables(chunks(source.stream(), tally), mapping, tally)


def _keys(mapping: Mapping) -> dict[str, Key]:
    return {
        meaning: name if isinstance(name, str) else tuple(name)
        for meaning, name in mapping.columns.items()
    }


def _refuse(lacking: list[str]) -> None:
    if lacking:
        raise SourceError(
            f"It lacks the columns that the mapping names for {', '.join(lacking)}; "
            "correct the mapping."
        )


def _text_tables(pieces: Iterator[bytes], mapping: Mapping, tally: Tally) -> Iterator[Table]:
    if mapping.names:
        separator = (mapping.delimiter or ",").encode()
        fields = Fields(tuple(mapping.names), separator, quoted=True, padded=separator != b" ")
    else:
        header, pieces = first_line(pieces)
        fields = header_fields(header, mapping.delimiter)
    fields = replace(fields, unset=mapping.unset)
    wanted = {meaning: ".".join(_path(key)) for meaning, key in _keys(mapping).items()}
    _refuse([meaning for meaning, name in wanted.items() if name not in fields.names])
    for piece in pieces:
        yield table_of_lines(piece, fields, wanted, tally)


def _json_tables(head: bytes, pieces: Iterator[bytes], mapping: Mapping) -> Iterator[Table]:
    lines = b"".join(object_lines(head, BytesIO(head), Tally())).splitlines()
    rows = [row for line in lines[:200] if (row := json_object(line))]
    keys = _keys(mapping)
    lacking = [
        meaning
        for meaning, key in keys.items()
        if rows and all(json_value(row, key) is None for row in rows)
    ]
    if len(lacking) == len(keys):
        raise SourceError(_WRAPPED)
    _refuse([meaning for meaning in lacking if meaning not in _SPARSE])
    for piece in pieces:
        table = table_of_json(piece, {meaning: (key,) for meaning, key in keys.items()})
        yield Table(table.columns, len(table), mapping.unset)


def _parquet_tables(source: Source, mapping: Mapping, tally: Tally) -> Iterator[Table]:
    """Yields texts of the mapped columns; of rows that are lost with a broken part, none."""
    keys = _keys(mapping)
    found = 0
    with os.fdopen(seekable(source), "rb") as file:
        try:
            types = _leaves(pq.ParquetFile(file).schema_arrow, keys)
            parquet = pq.ParquetFile(file, read_dictionary=_texts_among(types))
            columns = sorted(types)
            for rows in parquet.iter_batches(_ROWS, columns=columns):
                found += len(rows)
                yield Table(
                    {meaning: texts_of(_text(rows, key)) for meaning, key in keys.items()},
                    len(rows),
                    mapping.unset,
                )
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            if not found:
                raise SourceError(
                    "Its Parquet cannot be read, or a mapped column holds no plain values; "
                    "check the file and the mapping."
                ) from None
            tally.damage = "a part of the Parquet file cannot be read"


def _path(key: Key) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def _leaves(schema: pa.Schema, keys: dict[str, Key]) -> dict[str, pa.DataType]:
    """Returns the types of the mapped columns.

    Raises:
        SourceError: A column is missing.
        pa.ArrowInvalid: One holds lists or the like, of which a few bytes can stand for millions.
    """
    types = {meaning: _leaf(schema, _path(key)) for meaning, key in keys.items()}
    _refuse([meaning for meaning, found in types.items() if found is None])
    if any(pa.types.is_nested(t) or pa.types.is_fixed_size_binary(t) for t in types.values()):
        raise pa.ArrowInvalid
    return {".".join(_path(key)): types[meaning] for meaning, key in keys.items()}


def _texts_among(types: dict[str, pa.DataType]) -> list[str]:
    """Returns the columns of texts: read as dictionaries, a text of many rows is held once."""
    return [name for name, kind in types.items() if _is_text(kind)]


def _is_text(kind: pa.DataType) -> bool:
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    return values in _TEXTS


def _leaf(schema: pa.Schema, path: tuple[str, ...]) -> pa.DataType | None:
    fields: pa.Schema | pa.DataType = schema
    for name in path:
        if isinstance(fields, pa.DataType) and not pa.types.is_struct(fields):
            return None
        place = fields.get_field_index(name)
        if place < 0:
            return None
        fields = fields.field(place).type
    return fields


def _text(rows: pa.RecordBatch, key: Key) -> pl.Series:
    import polars as pl  # late: captures, which do without, need not wait for it

    name, *path = _path(key)
    column = rows.column(name)
    for inner in path:
        column = pc.struct_field(column, inner)
    if pa.types.is_dictionary(column.type) and _is_text(column.type):
        column = column.from_arrays(column.indices, _shortened(column.dictionary))
    series = pl.from_arrow(column.cast(pa.string()))
    assert isinstance(series, pl.Series)
    return series


def _shortened(texts: pa.Array) -> pa.Array:
    """Returns texts of which those too long to mean anything became one that means nothing."""
    return pc.if_else(pc.greater(pc.binary_length(texts), _LONGEST_TEXT), _NO_TEXT, texts)
