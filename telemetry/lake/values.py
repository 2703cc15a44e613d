"""The values that a stored file holds, column by column: for whoever must search them all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from telemetry.lake.catalog import CLOSED

Values = npt.NDArray[Any] | Iterable[Any]
_ROWS = 10_000


def values_of(path: Path) -> Iterator[Values]:
    """Yields the values of a Parquet, SQLite or DuckDB file; nothing for another file.

    Names, metadata, statistics and all values of dictionaries, used or not, are among them.

    Yields:
        Numbers of one column in an array, or values of any kind.

    Raises:
        OSError, ValueError: The file is damaged.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"PAR1"):
        yield from _parquet(path)
    elif head == b"SQLite format 3\0":
        yield from _sqlite(path)
    elif head[8:12] == b"DUCK":
        yield from _duckdb(path)


def _parquet(path: Path) -> Iterator[Values]:
    schema = pq.read_schema(path)
    texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_binary(f.type)]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        meta = file.metadata
        yield [*(meta.metadata or {}).items(), meta.created_by, file.schema_arrow.names]
        for group in range(meta.num_row_groups):
            for number in range(meta.num_columns):
                statistics = meta.row_group(group).column(number).statistics
                if statistics is not None and statistics.has_min_max:
                    yield [statistics.min, statistics.max]
            for name in schema.names:
                yield from _distinct(file.read_row_group(group, columns=[name]).column(0))


def _distinct(column: pa.ChunkedArray) -> Iterator[Values]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        for chunk in column.chunks:
            yield from _distinct(pa.chunked_array([chunk.dictionary]))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _distinct(
            pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
        )
    elif pa.types.is_struct(kind):
        for inner in column.flatten():
            yield from _distinct(inner)
    elif pa.types.is_timestamp(kind):
        yield from _distinct(column.cast(pa.int64()))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        yield pc.unique(column.drop_null()).to_numpy(zero_copy_only=False)
    else:
        yield pc.unique(column).to_pylist()


def _sqlite(path: Path) -> Iterator[Values]:
    # Without a log there is nothing to share with a writer, and no file to leave behind.
    logged = path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.resolve().as_uri()}?mode=ro{'' if logged else '&immutable=1'}"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as sql:
            yield from sql.execute("SELECT * FROM sqlite_master")
            names = sql.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in names:
                quoted = name.replace('"', '""')
                yield from _by_column(sql.execute(f'SELECT * FROM "{quoted}"'))
    except sqlite3.Error as error:
        raise ValueError("The SQLite file is damaged.") from error


def _duckdb(path: Path) -> Iterator[Values]:
    try:
        with duckdb.connect(str(path), read_only=True, config=CLOSED) as connection:
            for catalog in ("duckdb_tables", "duckdb_views", "duckdb_columns"):
                yield connection.execute(f"SELECT * FROM {catalog}() WHERE NOT internal").fetchall()
            for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                quoted = name.replace('"', '""')
                yield from _by_column(connection.execute(f'SELECT * FROM "{quoted}"'))
    except duckdb.Error as error:
        raise ValueError("The DuckDB file is damaged.") from error


def _by_column(cursor: Any) -> Iterator[Values]:
    while rows := cursor.fetchmany(_ROWS):
        yield from map(set, zip(*rows, strict=True)) if _hashable(rows) else rows


def _hashable(rows: list[tuple[Any, ...]]) -> bool:
    return not any(isinstance(value, list | dict) for value in rows[0])
