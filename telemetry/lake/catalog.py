"""The analysts' catalog: a DuckDB file of views over the listed files.

It is built aside and swapped in by rename, so a reader has the old one or the
new one, never half of one. Connections read nothing but the lake's records and
scores, load no extension and write nothing.

Its schema `main` shows selected endpoints only. The schema `everything` has the
same views over the quarantine too, whose files a connection may open only when
it was made for that.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from telemetry import COMPILED
from telemetry.columns import TABLES, Layer
from telemetry.errors import LakeError, Refused
from telemetry.lake.files import lake_errors
from telemetry.lake.layout import (
    CATALOG,
    FILE_MODE,
    NO_LAKE,
    QUARANTINE,
    RECORDS,
    SCORES,
    SELECTION,
    SPILL,
    TABLE,
    TMP,
)
from telemetry.lake.table import Listed, StoredSource

_Config = dict[str, str | bool | int | float | list[str]]
CLOSED: _Config = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
# Not EXPLAIN: with ANALYZE it runs what it explains, whatever that is.
_READS = (duckdb.StatementType.SELECT,)

_AT_ONCE = 50_000
"""Rows of an answer that is not held whole."""
EVERYTHING = "everything"
"""Schema of the views that show unselected endpoints too."""
_RUNS = """
SELECT run, unit, min(ingested_at) AS began, count(*) AS sources, sum(read)::BIGINT AS read,
       sum(kept)::BIGINT AS kept, sum(records_written)::BIGINT AS records_written
FROM main.sources GROUP BY run, unit ORDER BY began, run, unit
"""
_TABLES = f"""
CREATE TABLE sources (
    sha256 VARCHAR, content_sha256 VARCHAR, sensor VARCHAR, authority VARCHAR, format VARCHAR,
    unit VARCHAR, read BIGINT, kept BIGINT, dropped MAP(VARCHAR, BIGINT), records_written BIGINT,
    run VARCHAR, ingested_at TIMESTAMP
);
CREATE TABLE runs AS {_RUNS};
CREATE SCHEMA {EVERYTHING};
CREATE VIEW {EVERYTHING}.sources AS FROM main.sources;
CREATE VIEW {EVERYTHING}.runs AS FROM main.runs;
"""


class Catalog:
    """A lake's catalog, open for questions and for nothing else.

    DuckDB's own connection could still write where it may read, so nobody is handed it.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Not for callers: see `connect`."""
        self._connection = connection

    def sql(self, query: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Answers one reading statement.

        Args:
            query: One statement that reads, such as SELECT, DESCRIBE or SHOW TABLES.
            params: What `$name` in it stands for.

        Raises:
            Refused: The statement is wrong, or does something else than read.
        """
        try:
            if not self._reads(query):
                raise Refused("Only one statement that reads is allowed; write a single SELECT.")
            return self._connection.sql(query, params=params).to_arrow_table()
        except duckdb.Error as error:
            first_line = _with_hint(str(error))
            raise Refused(f"The query cannot be answered, correct it: {first_line}") from None

    def _reads(self, query: str) -> bool:
        statements = self._connection.extract_statements(query)
        try:
            return len(statements) == 1 and statements[0].type in _READS
        except ValueError:  # a kind of statement that DuckDB has no name for in Python
            return False

    def close(self) -> None:
        """Gives the files of the catalog free."""
        self._connection.close()


def connect(
    lake: Path, *, memory: str = "1GB", threads: int | None = None, unselected: bool = False
) -> Catalog:
    """Opens a lake's catalog for questions; close it, for it keeps the files it opened.

    Args:
        lake: Folder of the lake.
        memory: Memory limit, as DuckDB reads it.
        threads: Threads to use; None for all cores.
        unselected: Whether records and scores of unselected endpoints can be read too: for
            work of the library that shows nobody a record, or under an approval.

    Raises:
        LakeError: There is no catalog.
    """
    return Catalog(work_connection(lake, memory=memory, threads=threads, unselected=unselected))


def work_connection(
    lake: Path, *, memory: str = "1GB", threads: int | None = None, unselected: bool = False
) -> duckdb.DuckDBPyConnection:
    """Opens a lake's catalog for our own queries, see `connect`.

    It may make temporary tables, and spills to the lake's own `tmp/`.

    Raises:
        LakeError: There is no catalog.
    """
    root = lake.resolve()
    if not (root / CATALOG).is_file():
        if (root / TABLE).is_file():
            raise LakeError(f"No run has ended in the lake {lake} yet; give its sources again.")
        raise LakeError(NO_LAKE.format(lake))
    config: _Config = CLOSED | {
        "memory_limit": memory,
        "temp_directory": str(root / TMP / f"{SPILL}{os.getpid()}"),
    }
    if threads is not None:
        config["threads"] = threads
    folders = [RECORDS, SCORES, SELECTION, *([QUARANTINE] if unselected else [])]
    readable = ", ".join(_text(f"{root / folder}/") for folder in folders)
    with duckdb_errors(lake), lake_errors(lake):
        connection = _attach(root / CATALOG, config)
        for statement in (
            f"USE analyst.{EVERYTHING if unselected else 'main'}",
            "SET TimeZone = 'UTC'",
            f"SET allowed_directories = [{readable}]",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            connection.execute(statement).fetchall()
    return connection


def _with_hint(message: str) -> str:
    """Returns the first line of an error, and what DuckDB thinks was meant."""
    first, *more = message.splitlines()
    hints = [line for line in more if line.startswith(("Did you mean", "Candidate"))]
    return " ".join([first, *hints[:1]])


@contextmanager
def holding(records: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a database in memory that holds these records and nothing else.

    Args:
        records: With the columns of `stored_records`.
    """
    with duckdb.connect(config=dict(CLOSED)) as connection:
        connection.register("given", records)
        connection.execute("CREATE TABLE stored_records AS FROM given").fetchall()
        connection.unregister("given")
        yield connection


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


def query(lake: Path, sql: str, *, memory: str = "1GB", unselected: bool = False) -> pa.Table:
    """Answers one reading statement on the catalog; see `connect`.

    Raises:
        LakeError: There is no catalog.
        Refused: The statement is wrong, or does something else than read.
    """
    with closing(connect(lake, memory=memory, unselected=unselected)) as catalog:
        return catalog.sql(sql)


def stream(lake: Path, sql: str, *, memory: str, unselected: bool = False) -> Iterator[pa.Table]:
    """Answers a statement of ours, some rows at a time.

    Raises:
        LakeError: There is no catalog, or memory or disk do not suffice for what is asked.
    """
    connection = work_connection(lake, memory=memory, unselected=unselected)
    with closing(connection), duckdb_errors(lake):
        for batch in connection.sql(sql).to_arrow_reader(_AT_ONCE):
            yield pa.Table.from_batches([batch])


def build(
    root: Path,
    aside: Path,
    files: Sequence[Listed],
    derived: Sequence[Listed],
    sources: Sequence[StoredSource],
    views: Sequence[tuple[str, str]],
) -> None:
    """Builds the catalog at `aside` and swaps it in.

    Args:
        root: Folder of the lake.
        aside: Where to build, below the lake's `tmp/`.
        files: The listed files of records.
        derived: The listed files of scores and of the selection.
        sources: All sources, for the tables `sources` and `runs`.
        views: Names and SELECTs of further views, each resting on earlier ones only.

    Raises:
        LakeError: A view is wrong, or the disk is full.
    """
    with duckdb_errors(root), lake_errors(root):
        connection = duckdb.connect(str(aside), config=CLOSED)
        try:
            connection.execute("SET TimeZone = 'UTC'").fetchall()
            _begin(connection, views)
            with _transaction(connection):
                if sources:
                    connection.register("given", _sources_table(sources))
                    connection.execute("INSERT INTO main.sources FROM given").fetchall()
                    connection.unregister("given")
                connection.execute(f"INSERT INTO main.runs {_RUNS}").fetchall()
                shown, known = ([f for f in fs if not f.quarantined] for fs in (files, derived))
                for schema, some, others in (("main", shown, known), (EVERYTHING, files, derived)):
                    connection.execute(f"USE {schema}").fetchall()
                    for statement in _statements(root.resolve(), some, others):
                        connection.execute(statement).fetchall()
            # Where the disk is full, closing would leave it half written and say nothing.
            connection.execute("CHECKPOINT").fetchall()
        finally:
            connection.close()
        aside.chmod(FILE_MODE)
        _sync_file(aside)
        aside.replace(root / CATALOG)


def _begin(connection: duckdb.DuckDBPyConnection, views: Sequence[tuple[str, str]]) -> None:
    """Begins a catalog: that of an empty lake, worked out once for each state of the views.

    To work out the views takes longer than to read a small source, and they do not change from
    run to run. So it is kept where the compiled kernels are, if it can be. Nothing of a lake is
    in it.
    """
    empty = [*_statements(Path(), [], [])]
    made_by = Path(__file__).read_bytes()
    made_of = repr((duckdb.__version__, made_by, empty, views)).encode()
    kept = COMPILED / f"catalog-{hashlib.sha256(made_of).hexdigest()[:16]}.duckdb"
    own = connection.execute("SELECT current_catalog()").fetchall()[0][0]
    with suppress(duckdb.Error):  # there is none, or it is damaged
        with _attached(connection, kept, "READ_ONLY"):
            connection.execute(f"COPY FROM DATABASE kept TO {_name(own)}").fetchall()
        return
    with _transaction(connection):
        connection.execute(_TABLES).fetchall()
        stubs: list[str] = []
        for schema in ("main", EVERYTHING):
            connection.execute(f"USE {schema}").fetchall()
            for statement in empty:
                connection.execute(statement).fetchall()
            stubs = _create_views(connection, views, stubs)
    with suppress(OSError, duckdb.Error):
        _keep(connection, own, kept)


def _keep(connection: duckdb.DuckDBPyConnection, own: str, kept: Path) -> None:
    """Keeps a copy."""
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="catalog-") as folder:
        ready = Path(folder) / kept.name
        with _attached(connection, ready, "READ_WRITE"):
            connection.execute(f"COPY FROM DATABASE {_name(own)} TO kept").fetchall()
        ready.chmod(FILE_MODE)
        _sync_file(ready)
        ready.replace(kept)


@contextmanager
def _attached(connection: duckdb.DuckDBPyConnection, path: Path, mode: str) -> Iterator[None]:
    connection.execute(f"ATTACH {_text(str(path))} AS kept ({mode})").fetchall()
    try:
        yield
    finally:
        connection.execute("DETACH kept").fetchall()


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.begin()  # one, or each statement is made durable
    yield
    connection.commit()


def _create_views(
    connection: duckdb.DuckDBPyConnection,
    views: Sequence[tuple[str, str]],
    stubs: Sequence[str] = (),
) -> list[str]:
    """Creates views that rest on each other, in the schema in use.

    DuckDB works out a new view with all that it rests on, again for each mention: a second for
    ours. So each is made over stubs, empty views of the same columns, and those that others rest
    on become themselves last.

    Args:
        connection: The catalog.
        views: Names and SELECTs, each resting on earlier ones only.
        stubs: What was returned for the same views in another schema.

    Returns:
        The statements that make the stubs.
    """
    made = list(stubs)
    for statement in stubs:
        connection.execute(statement).fetchall()
    inner = [view for i, view in enumerate(views) if _mentioned(view[0], views[i + 1 :])]
    for name, sql in inner[len(stubs) :]:
        connection.execute(f"CREATE VIEW {_name(name)} AS {sql}").fetchall()
        described = connection.execute(f"DESCRIBE {_name(name)}").fetchall()
        nulls = ", ".join(f"NULL::{kind} AS {_name(column)}" for column, kind, *_ in described)
        made.append(f"CREATE OR REPLACE VIEW {_name(name)} AS SELECT {nulls} WHERE false")
        connection.execute(made[-1]).fetchall()
    for name, sql in (*(view for view in views if view not in inner), *reversed(inner)):
        connection.execute(f"CREATE OR REPLACE VIEW {_name(name)} AS {sql}").fetchall()
    return made


def _mentioned(name: str, views: Sequence[tuple[str, str]]) -> bool:
    """Whether a view rests on another; a step of its own with that name hides the other."""
    word = rf"\b{re.escape(name)}\b"
    return any(re.search(word, sql) and not re.search(rf"{word} AS \(", sql) for _, sql in views)


def _statements(root: Path, files: Sequence[Listed], derived: Sequence[Listed]) -> Iterator[str]:
    names = {kind: [f.name for f in derived if f.kind == kind] for kind in (SCORES, SELECTION)}
    partition = {"day": "DATE", "bucket": "INTEGER"}
    yield _view("stored_records", Layer.RECORD, root, [file.name for file in files], partition)
    yield _view("scores", Layer.SCORE, root, names[SCORES], {})
    yield _view("selected", Layer.SELECTION, root, names[SELECTION], {})
    yield "COMMENT ON VIEW stored_records IS 'records between foreign endpoints and their peers'"
    yield "COMMENT ON VIEW scores IS 'the newest score of each endpoint'"
    yield "COMMENT ON VIEW selected IS 'endpoints whose records may be seen, and until when'"
    for view, layer in _LAYERS.items():
        for column in TABLES[layer]:
            unit = f" ({column.unit})" if column.unit else ""
            comment = _text(column.meaning + unit)
            yield f"COMMENT ON COLUMN {view}.{_name(column.name)} IS {comment}"
    yield "COMMENT ON COLUMN stored_records.day IS 'UTC day of first_seen'"
    yield "COMMENT ON COLUMN stored_records.bucket IS 'CRC-32 of endpoint_addr modulo buckets'"


_LAYERS = {
    "stored_records": Layer.RECORD,
    "scores": Layer.SCORE,
    "selected": Layer.SELECTION,
}


def _view(name: str, layer: Layer, root: Path, names: list[str], partition: dict[str, str]) -> str:
    """Returns the view over files; without files it is empty, with the same types."""
    columns = [_name(column.name) for column in TABLES[layer]] + list(partition)
    if names:
        paths = ", ".join(_text(str(root / file)) for file in names)
        hive = ", ".join(f"'{key}': {kind}" for key, kind in partition.items())
        options = f", hive_partitioning = true, hive_types = {{{hive}}}" if hive else ""
        source = f"read_parquet([{paths}]{options})"
        if layer is not Layer.RECORD:
            # What an older release wrote lacks columns, until the next run writes it anew.
            source = f"(FROM {source} UNION ALL BY NAME {_nothing(layer, partition)})"
        return f"CREATE OR REPLACE VIEW {name} AS SELECT {', '.join(columns)} FROM {source}"
    return f"CREATE OR REPLACE VIEW {name} AS {_nothing(layer, partition)}"


def _nothing(layer: Layer, partition: dict[str, str]) -> str:
    """Returns a SELECT of no rows, with the columns of a layer."""
    columns = [_name(column.name) for column in TABLES[layer]] + list(partition)
    kinds = [_kind(column.type) for column in TABLES[layer]] + list(partition.values())
    nulls = ", ".join(f"NULL::{k} AS {c}" for c, k in zip(columns, kinds, strict=True))
    return f"SELECT {nulls} WHERE false"


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
def duckdb_errors(root: Path) -> Iterator[None]:
    """Tells of DuckDB's errors as the lake's own."""
    try:
        yield
    except duckdb.Error as error:
        # Ctrl-C while it asked Python for a table.
        if str(error).partition(" failed: ")[2].startswith("KeyboardInterrupt"):
            raise KeyboardInterrupt from None
        if "No space left" in str(error):
            raise LakeError(
                "The disk that holds the lake is full; free space and run again, "
                "nothing stored is lost."
            ) from error
        first = str(error).splitlines()[0]
        raise LakeError(f"The catalog of the lake {root} fails: {first}.") from error
