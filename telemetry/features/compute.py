"""Runs the views on a connection that the caller owns.

What rests on the records of one endpoint alone is computed for some endpoints at a time, on all
cores: sorts fit the memory, whatever the size of the lake. What the rest needs of each part
waits packed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Any, Final, NamedTuple, Protocol

import pyarrow as pa

from telemetry.features.catalog import BASE, View, needed_for

RECORDS: Final = "records"
CONTACTS: Final = "contacts"
ENDPOINTS: Final = "endpoints"
MIRRORED: Final = "mirrored"
"""Shown besides the views: the foreign addresses that are the other end of a record."""
PART: Final = 250_000
"""Records whose endpoints are computed at a time: some 400 MB at most."""
_WORKERS = 4
"""Parts at a time; each has so many fewer records."""
_ENDPOINT = 8
"""One endpoint's features take the memory of so many records, and the scores' besides."""
_ALL = "all_"


class Connection(Protocol):
    """What is needed of a DuckDB connection; the lake makes it."""

    def execute(self, query: str) -> Any:
        """Runs one statement."""

    def sql(self, query: str) -> Any:
        """Returns the relation of one query."""

    def register(self, view_name: str, python_object: Any) -> Any:
        """Shows Arrow data under a name."""

    def unregister(self, view_name: str) -> Any:
        """Takes the name back."""

    def cursor(self) -> Any:
        """Returns another connection to the same database."""


def endpoint_features(connection: Connection, part: int = PART) -> pa.Table:
    """Returns the features of every foreign endpoint, ordered by address as text.

    Args:
        connection: DuckDB connection on which `stored_records` can be read; it may be
            read-only. Temporary tables are made there and dropped again.
        part: Records whose endpoints are computed at a time; it does not show.

    Returns:
        The columns of sql/endpoint_features.
    """
    return pa.concat_tables(endpoint_parts(connection, part)).sort_by("endpoint_ip")


def endpoint_parts(connection: Connection, part: int = PART) -> Iterator[pa.Table]:
    """Yields the features of every foreign endpoint, some endpoints at a time.

    Args:
        connection: As for `endpoint_features`; nothing else may be asked meanwhile.
        part: As for `endpoint_features`.

    Yields:
        Tables with the columns of sql/endpoint_features, each endpoint in one of them.
    """
    return _compute(connection, "endpoint_features", part)


def pair_features(connection: Connection, part: int = PART) -> pa.Table:
    """Returns the features of every pair of an endpoint and a host, ordered by both.

    Args:
        connection: As for `endpoint_features`.
        part: As for `endpoint_features`.

    Returns:
        The columns of sql/pair_features.
    """
    parts = pa.concat_tables(_compute(connection, "pair_features", part))
    return parts.sort_by([("endpoint_ip", "ascending"), ("peer", "ascending")])


def _compute(connection: Connection, name: str, part: int) -> Iterator[pa.Table]:
    *steps, last = needed_for(name)
    plan = _plan(steps, last)
    threads = connection.sql("SELECT current_setting('threads')").fetchall()[0][0]
    workers = max(1, min(_WORKERS, threads))
    shown: dict[str, pa.Table] = {}
    try:
        # What is computed hides the view of the same name in the catalog.
        _show(connection, RECORDS, plan.records.sql)
        for view in plan.before:
            shown[view.name] = connection.sql(view.sql).to_arrow_table()
            connection.register(view.name, shown[view.name])
        shown[MIRRORED] = connection.sql(_MIRRORED).to_arrow_table()
        connection.register(MIRRORED, shown[MIRRORED])
        packed: dict[str, list[_Packed]] = {view.name: [] for view in plan.kept}
        parts = _parts(connection, max(1, part // workers), shown[MIRRORED].num_rows)
        for found in _in_turn(connection, plan, parts, shown, workers):
            if last.by_endpoint:
                yield _stream([found[last.name]]).read_all()
                continue
            for name_kept, one in found.items():
                packed[name_kept].append(one)
        if last.by_endpoint:
            return
        _show(connection, RECORDS, plan.records.sql)
        for view in plan.kept:
            if view.merge or view.name in plan.read_late:
                connection.register("parts", _stream(packed.pop(view.name)))
                _make(connection, view.name, view.merge or "FROM parts")
                connection.unregister("parts")
        for view in plan.after:
            _make(connection, view.name, view.sql)
        yield from _finished(connection, last, plan.after, packed, part // _ENDPOINT)
    finally:
        for name_shown in shown:
            connection.unregister(name_shown)
        _drop(connection, [view.name for view in steps])


class _Plan(NamedTuple):
    """The views that another needs, in order.

    Attributes:
        records: The first.
        before: Those that rest on no endpoint.
        local: Those that rest on one endpoint alone, or whose parts can be merged.
        after: Those that rest on all endpoints.
        read_late: What is read by these.
        kept: Of `local`, what is needed when all parts are done.
    """

    records: View
    before: list[View]
    local: list[View]
    after: list[View]
    read_late: set[str]
    kept: list[View]


def _plan(steps: Sequence[View], last: View) -> _Plan:
    records, *others = steps
    assert records.name == RECORDS
    local = [view for view in (*others, last) if view.by_endpoint or view.merge]
    resting = {view.name for view in local}
    before: list[View] = []
    after: list[View] = []
    for view in others:
        if view not in local:
            late = not resting.isdisjoint(view.depends_on)
            (after if late else before).append(view)
            resting |= {view.name} if late else set()
    read_late = {name for view in after for name in view.depends_on}
    needed = {last.name} if last.by_endpoint else read_late.union(last.depends_on)
    return _Plan(
        records, before, local, after, read_late, [view for view in local if view.name in needed]
    )


def _in_turn(
    connection: Connection,
    plan: _Plan,
    parts: Sequence[_Part],
    shown: Mapping[str, pa.Table],
    workers: int,
) -> Iterator[dict[str, _Packed]]:
    """Yields what is kept of each part, in order; some are computed at the same time."""
    cursors: SimpleQueue[Connection] = SimpleQueue()
    opened = [connection.cursor() for _ in range(min(workers, len(parts)))]
    catalog, schema = connection.sql("SELECT current_catalog(), current_schema()").fetchall()[0]
    for cursor in opened:
        cursor.execute(f'USE "{catalog}"."{schema}"').fetchall()
        for name, table in shown.items():
            cursor.register(name, table)
        cursors.put(cursor)

    stopped = Event()

    def compute(part: _Part) -> dict[str, _Packed]:
        cursor = cursors.get()
        try:
            return _local(cursor, plan, part, stopped)
        finally:
            cursors.put(cursor)

    pool = ThreadPoolExecutor(len(opened))
    try:
        yield from pool.map(compute, parts)
    finally:
        # Whoever stops a run does not wait for what nobody will read.
        stopped.set()
        for cursor in opened:
            cursor.interrupt()
        pool.shutdown(cancel_futures=True)
        for cursor in opened:
            cursor.close()


def _local(connection: Connection, plan: _Plan, part: _Part, stopped: Event) -> dict[str, _Packed]:
    """Computes the endpoints of one part, unless stopped meanwhile."""
    found: dict[str, _Packed] = {}
    _show(connection, RECORDS, f"SELECT * FROM ({plan.records.sql}) WHERE {part.of_records}")
    for view, done in _with_what_is_done(plan.local):
        if stopped.is_set():
            break
        chosen = part.of_contacts if view.name == CONTACTS else "true"
        sql = f"SELECT * FROM ({view.sql}) WHERE {chosen}"
        if [view.name] == done:
            found[view.name] = _pack(connection.sql(sql).to_arrow_table())
            continue
        _make(connection, view.name, sql)
        if view in plan.kept:
            found[view.name] = _pack(connection.sql(f"FROM temp.{view.name}").to_arrow_table())
        for name in done:
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}").fetchall()
    return found


def _with_what_is_done(views: Sequence[View]) -> Iterator[tuple[View, list[str]]]:
    """Yields each view with the names of those, itself among them, that none after it reads."""
    last = {name: view.name for view in views for name in (view.name, *view.depends_on)}
    names = {view.name for view in views}
    for view in views:
        yield view, [name for name, by in last.items() if by == view.name and name in names]


def _finished(
    connection: Connection,
    last: View,
    after: Sequence[View],
    packed: Mapping[str, list[_Packed]],
    endpoints: int,
) -> Iterator[pa.Table]:
    """Yields the last view for so many endpoints or some more, those of whole parts."""
    of_all = [
        view.name for view in after if any(column.name == "endpoint_ip" for column in view.columns)
    ]
    for name in of_all:
        connection.execute(f"ALTER TABLE temp.{name} RENAME TO {_ALL}{name}").fetchall()
    own = f"WHERE endpoint_ip IN (SELECT endpoint_ip FROM {ENDPOINTS})"
    rows = [one.rows for one in packed[ENDPOINTS]]
    begin = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and sum(rows[begin:end]) < endpoints:
            continue
        for name, parts in packed.items():
            connection.register(name, _stream(parts[begin:end]).read_all())
        for name in of_all:
            _show(connection, name, f"FROM temp.{_ALL}{name} {own}")
        yield connection.sql(last.sql).to_arrow_table()
        for name in packed:
            connection.unregister(name)
        begin = end


class _Packed(NamedTuple):
    """A table in a tenth of its size: most columns tell of what few endpoints do."""

    rows: int
    buffer: pa.Buffer


def _pack(table: pa.Table) -> _Packed:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1))
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return _Packed(table.num_rows, sink.getvalue())


def _stream(parts: Sequence[_Packed]) -> pa.RecordBatchReader:
    """Returns the rows of packed tables, which are unpacked one at a time."""
    batches = (batch for part in parts for batch in pa.ipc.open_stream(part.buffer))
    return pa.RecordBatchReader.from_batches(pa.ipc.open_stream(parts[0].buffer).schema, batches)


def _make(connection: Connection, name: str, sql: str) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}").fetchall()


def _show(connection: Connection, name: str, sql: str) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}").fetchall()


def _drop(connection: Connection, names: Sequence[str]) -> None:
    made = {*names, *(_ALL + name for name in names)}
    for kind in ("view", "table"):
        found = connection.sql(
            f"SELECT {kind}_name FROM duckdb_{kind}s() WHERE database_name = 'temp'"
        ).fetchall()
        for (name,) in found:
            if name in made:
                connection.execute(f"DROP {kind} temp.{name}").fetchall()


class _Part(NamedTuple):
    """Some endpoints: what chooses records that name them, and what chooses their contacts."""

    of_records: str
    of_contacts: str


_MIRRORED = f"SELECT DISTINCT peer_ip AS endpoint_ip FROM {BASE} WHERE peer_ip IS NOT NULL"


def _parts(connection: Connection, rows: int, both: int) -> list[_Part]:
    """Parts the endpoints so that each part has about so many records.

    The lake keeps the records of an endpoint in one bucket, so that a part reads its own files.
    Only an endpoint that is the other end of a record between two foreign addresses has some
    elsewhere: those endpoints make parts of their own.
    """
    sizes = connection.sql(
        f"SELECT bucket, count(*) FROM {BASE} GROUP BY bucket ORDER BY bucket"
    ).fetchall()
    if sum(size for _, size in sizes) <= rows:
        return [_Part("true", "true")]
    mirrored = f"SELECT endpoint_ip FROM {MIRRORED}"
    own = f"endpoint_ip NOT IN ({mirrored})" if both else "true"
    parts = []
    together: list[int] = []
    left = rows
    for bucket, size in sizes:
        if size > rows:
            for share in _shares(size, rows):
                parts.append(_Part(f"bucket = {bucket} AND {share} AND {own}", own))
            continue
        if size > left:
            parts.append(_Part(f"bucket IN {_listed(together)} AND {own}", own))
            together, left = [], rows
        together.append(bucket)
        left -= size
    if together:
        parts.append(_Part(f"bucket IN {_listed(together)} AND {own}", own))
    if both:
        related = connection.sql(
            f"SELECT count(*) FROM {BASE} WHERE peer_ip IS NOT NULL OR endpoint_ip IN ({mirrored})"
        ).fetchall()[0][0]
        for share in _shares(2 * related, rows):
            some = f"({mirrored} WHERE {share})"
            named = f"(endpoint_ip IN {some} OR coalesce(peer_ip IN {some}, false))"
            parts.append(_Part(named, f"endpoint_ip IN {some}"))
    return parts


def _shares(size: int, rows: int) -> list[str]:
    number = -(-size // rows)
    return [f"hash(endpoint_ip) % {number} = {share}" for share in range(number)]


def _listed(numbers: list[int]) -> str:
    return f"({', '.join(map(str, numbers))})"
