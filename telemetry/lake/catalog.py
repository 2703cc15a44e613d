"""The analysts' catalog: a DuckDB file of views over the listed files.

It is built aside and swapped in by rename, so a reader has the old one or the
new one, never half of one. Connections read nothing but the lake's records and
scores, load no extension and write nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from telemetry.columns import TABLES, Layer
from telemetry.errors import LakeError, Refused
from telemetry.lake.files import lake_errors
from telemetry.lake.layout import CATALOG, FILE_MODE, RECORDS, SCORES, SPILL, TMP
from telemetry.lake.table import Listed, StoredSource

_Config = dict[str, str | bool | int | float | list[str]]
_CLOSED: _Config = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
# Not EXPLAIN: with ANALYZE it runs what it explains, whatever that is.
_READS = (duckdb.StatementType.SELECT,)

_SOURCES = """
CREATE TABLE sources (
    sha256 VARCHAR, content_sha256 VARCHAR, sensor VARCHAR, authority VARCHAR, format VARCHAR,
    unit VARCHAR, read BIGINT, kept BIGINT, dropped MAP(VARCHAR, BIGINT), records_written BIGINT,
    run VARCHAR, ingested_at TIMESTAMP
);
"""
_RUNS = """
CREATE TABLE runs AS
SELECT run, unit, min(ingested_at) AS began, count(*) AS sources, sum(read)::BIGINT AS read,
       sum(kept)::BIGINT AS kept, sum(records_written)::BIGINT AS records_written
FROM sources GROUP BY run, unit ORDER BY began, run, unit;
"""


def connect(
    lake: Path, *, memory: str = "1GB", threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """Opens a lake's catalog for reading.

    The connection may make temporary tables, and spills to the lake's own `tmp/`.
    Close it: each connection keeps the files of the catalog it opened.

    Args:
        lake: Folder of the lake.
        memory: Memory limit, as DuckDB reads it.
        threads: Threads to use; None for all cores.

    Raises:
        LakeError: There is no catalog.
    """
    root = lake.resolve()
    if not (root / CATALOG).is_file():
        raise LakeError(f"There is no catalog in {lake}; check --lake, or ingest sources first.")
    config: _Config = _CLOSED | {
        "memory_limit": memory,
        "temp_directory": str(root / TMP / f"{SPILL}{os.getpid()}"),
    }
    if threads is not None:
        config["threads"] = threads
    readable = ", ".join(_text(f"{root / folder}/") for folder in (RECORDS, SCORES))
    with _duckdb_errors(lake), lake_errors(lake):
        connection = _attach(root / CATALOG, config)
        for statement in (
            "USE analyst",
            "SET TimeZone = 'UTC'",
            f"SET allowed_directories = [{readable}]",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            connection.execute(statement).fetchall()
    return connection


def _attach(path: Path, config: _Config) -> duckdb.DuckDBPyConnection:
    """Attaches the catalog to a database in memory.

    Opened by its path, DuckDB would hand out the file it had open before a swap to
    all connections of this process. And DuckDB opens a file twice, first for its
    header: a swap between the two gives a mixture, so one that fell in is undone.
    """
    while True:
        before = path.stat()
        connection = duckdb.connect(":memory:", config=config)
        try:
            connection.execute(f"ATTACH {_text(str(path))} AS analyst (READ_ONLY)").fetchall()
        except duckdb.Error:
            connection.close()
            if _same(before, path.stat()):
                raise
            continue
        if _same(before, path.stat()):
            return connection
        connection.close()


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_ctime_ns) == (other.st_ino, other.st_ctime_ns)


def query(lake: Path, sql: str, *, memory: str = "1GB") -> pa.Table:
    """Answers one reading statement on the catalog.

    Raises:
        LakeError: There is no catalog.
        Refused: The statement is wrong, or does something else than read.
    """
    connection = connect(lake, memory=memory)
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type not in _READS:
            raise Refused("Only one statement that reads is allowed; write a single SELECT.")
        return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        first_line = str(error).splitlines()[0]
        raise Refused(f"The query cannot be answered, correct it: {first_line}") from None
    finally:
        connection.close()


def build(
    root: Path,
    aside: Path,
    files: Sequence[Listed],
    scores: Sequence[Listed],
    sources: Sequence[StoredSource],
    views: Sequence[tuple[str, str]],
) -> None:
    """Builds the catalog at `aside` and swaps it in.

    Args:
        root: Folder of the lake.
        aside: Where to build, below the lake's `tmp/`.
        files: The listed files of records.
        scores: The listed files of scores.
        sources: All sources, for the tables `sources` and `runs`.
        views: Names and SELECTs of further views, each resting on earlier ones only.

    Raises:
        LakeError: A view is wrong, or the disk is full.
    """
    with _duckdb_errors(root), lake_errors(root):
        connection = duckdb.connect(str(aside), config=_CLOSED)
        try:
            connection.execute("SET TimeZone = 'UTC'").fetchall()
            for statement in _statements(root.resolve(), files, scores):
                connection.execute(statement).fetchall()
            if sources:
                connection.register("given", _sources_table(sources))
                connection.execute("INSERT INTO sources SELECT * FROM given").fetchall()
                connection.unregister("given")
            connection.execute(_RUNS).fetchall()
            for name, sql in views:
                connection.execute(f"CREATE VIEW {_name(name)} AS {sql}").fetchall()
        finally:
            connection.close()
        aside.chmod(FILE_MODE)
        _sync_file(aside)
        aside.replace(root / CATALOG)


def _statements(root: Path, files: Sequence[Listed], scores: Sequence[Listed]) -> Iterator[str]:
    names = [file.name for file in files]
    partition = {"day": "DATE", "bucket": "INTEGER"}
    yield _view("stored_records", Layer.RECORD, root, names, partition)
    yield _view("scores", Layer.SCORE, root, [file.name for file in scores], {})
    yield "COMMENT ON VIEW stored_records IS 'records between foreign endpoints and their peers'"
    yield "COMMENT ON VIEW scores IS 'the newest score of each endpoint'"
    for view, layer in (("stored_records", Layer.RECORD), ("scores", Layer.SCORE)):
        for column in TABLES[layer]:
            unit = f" ({column.unit})" if column.unit else ""
            comment = _text(column.meaning + unit)
            yield f"COMMENT ON COLUMN {view}.{_name(column.name)} IS {comment}"
    yield "COMMENT ON COLUMN stored_records.day IS 'UTC day of first_seen'"
    yield "COMMENT ON COLUMN stored_records.bucket IS 'CRC-32 of endpoint_addr modulo buckets'"
    yield _SOURCES


def _view(name: str, layer: Layer, root: Path, names: list[str], partition: dict[str, str]) -> str:
    """Returns the view over files; without files it is empty, with the same types."""
    columns = [_name(column.name) for column in TABLES[layer]] + list(partition)
    if names:
        paths = ", ".join(_text(str(root / file)) for file in names)
        hive = ", ".join(f"'{key}': {kind}" for key, kind in partition.items())
        options = f", hive_partitioning = true, hive_types = {{{hive}}}" if hive else ""
        source = f"read_parquet([{paths}]{options})"
        return f"CREATE VIEW {name} AS SELECT {', '.join(columns)} FROM {source}"
    kinds = [_kind(column.type) for column in TABLES[layer]] + list(partition.values())
    nulls = ", ".join(f"NULL::{k} AS {c}" for c, k in zip(columns, kinds, strict=True))
    return f"CREATE VIEW {name} AS SELECT {nulls} WHERE false"


def _kind(kind: pa.DataType) -> str:
    """Returns DuckDB's name of the type it reads from Parquet for an Arrow type."""
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if pa.types.is_list(kind):
        return f"{_kind(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{_name(f.name)} {_kind(f.type)}' for f in kind)})"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP"
    if pa.types.is_fixed_size_binary(kind):
        return "BLOB"
    return _KINDS[kind]


_KINDS = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.float64(): "DOUBLE",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
}


def _sources_table(sources: Sequence[StoredSource]) -> pa.Table:
    names = (
        *("sha256", "content_sha256", "sensor", "authority", "format", "unit", "read", "kept"),
    )
    columns = {name: [getattr(s, name) for s in sources] for name in names}
    dropped = [sorted(s.dropped.items()) for s in sources]
    return pa.table(
        columns
        | {
            "dropped": pa.array(dropped, pa.map_(pa.string(), pa.int64())),
            "records_written": [s.records_written for s in sources],
            "run": [s.run for s in sources],
            "ingested_at": pa.array([_utc(s.at) for s in sources], pa.timestamp("us")),
        }
    )


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


@contextmanager
def _duckdb_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        if "No space left" in str(error):
            raise LakeError(
                "The disk that holds the lake is full; free space and run again, "
                "nothing stored is lost."
            ) from error
        first = str(error).splitlines()[0]
        raise LakeError(f"The catalog of the lake {root} fails: {first}.") from error
