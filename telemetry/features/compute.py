"""Runs the views on a connection that the caller owns.

What rests on the records of one endpoint alone is computed for some endpoints at a time, on all
cores: sorts fit the memory, whatever the size of the lake. What the detectors read of each part
waits packed, in some hundred bytes an endpoint, beyond a limit on the disk; what rests on all
endpoints, in the engine, which has a limit of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import IO, Any, Final, NamedTuple, Protocol

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
"""Parts at a time at most; each has so many fewer records."""
_ENDPOINT = 8
"""One endpoint's features take the memory of so many records, and the scores' besides."""
_HELD = 64 << 20
"""Bytes of packed parts that wait in memory."""
_ALL = "all_"
_GIVEN = "given"


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


def split_cores(cores: int) -> tuple[int, int]:
    """Returns how many parts to compute at a time, and the threads that the engine is given.

    A part is computed by the thread that asks for it, and by what the engine has besides. Where
    all threads are the engine's, which shares out each step, it takes a fifth more time (ten
    million records on two cores: 55 and 45 s).
    """
    workers = max(1, min(_WORKERS, cores))
    return workers, max(1, cores - workers + 1)


def endpoint_parts(
    connection: Connection,
    part: int = PART,
    spill: Path | None = None,
    workers: int | None = None,
) -> Generator[pa.Table]:
    """Yields the features of every foreign endpoint, some endpoints at a time.

    Args:
        connection: As for `endpoint_features`; nothing else may be asked meanwhile.
        part: As for `endpoint_features`.
        spill: Folder for what would take too much memory, in a file without a name; None keeps
            all in memory.
        workers: Parts that are computed at a time, as `split_cores` says; None for what it says
            of the connection's threads.

    Yields:
        Tables with the columns of sql/endpoint_features, each endpoint in one of them.
    """
    return _compute(connection, "endpoint_features", part, spill, workers)


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


def _compute(
    connection: Connection,
    name: str,
    part: int,
    spill: Path | None = None,
    workers: int | None = None,
) -> Generator[pa.Table]:
    *steps, last = needed_for(name)
    plan = _plan(steps, last)
    if workers is None:
        threads = connection.sql("SELECT current_setting('threads')").fetchall()[0][0]
        workers, _ = split_cores(threads)
    try:
        # What is computed hides the view of the same name in the catalog.
        _show(connection, RECORDS, plan.records.sql)
        with ExitStack() as stack:
            shown = {MIRRORED: connection.sql(_MIRRORED).to_arrow_table()}
            for view in plan.before:
                shown[view.name] = connection.sql(view.sql).to_arrow_table()
                stack.enter_context(_registered(connection, view.name, shown[view.name]))
            stack.enter_context(_registered(connection, MIRRORED, shown[MIRRORED]))
            parts = _parts(connection, max(1, part // workers), shown[MIRRORED].num_rows)
            found = _in_turn(connection, plan, parts, shown, workers)
            if last.by_endpoint:
                yield from (_stream([one[last.name]]).read_all() for one in found)
            else:
                store = stack.enter_context(_stored_in(spill))
                packed = _gathered(connection, plan, found, store)
                size = max(1, part // _ENDPOINT)
                yield from _finished(connection, plan, last, packed, store, size)
    finally:
        _drop(connection, [view.name for view in steps])


def _gathered(
    connection: Connection, plan: _Plan, found: Iterator[dict[str, _Packed]], store: _Store
) -> dict[str, list[_Stored]]:
    """Computes what rests on all endpoints; returns what the last view wants part by part."""
    packed: dict[str, list[_Stored]] = {}
    late = [view for view in plan.kept if view.is_merged or view.name in plan.read_late]
    for part in found:
        for view in late:
            with _registered(connection, _GIVEN, _stream([part.pop(view.name)]).read_all()):
                _add(connection, _ALL + view.name, f"FROM {_GIVEN}")
        for name, one in part.items():
            packed.setdefault(name, []).append(store.put(one))
    _show(connection, RECORDS, plan.records.sql)
    for view in late:
        _make(connection, view.name, _merged(view) if view.is_merged else f"FROM {_ALL}{view.name}")
        connection.execute(f"DROP TABLE temp.{_ALL}{view.name}").fetchall()
    for view in plan.after:
        _make(connection, view.name, view.sql)
    return packed


def _merged(view: View) -> str:
    """Returns the SELECT that puts together what parts of the endpoints gave."""
    terms = ", ".join(
        # A sum of whole numbers is a HUGEINT.
        f"{c.merge}({c.name}){'::BIGINT' if c.merge == 'sum' else ''} AS {c.name}"
        if c.merge
        else c.name
        for c in view.columns
    )
    return f"SELECT {terms} FROM temp.{_ALL}{view.name} GROUP BY ALL"


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
    local = [view for view in (*others, last) if view.in_parts]
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
    assert not read_late.intersection(last.depends_on), "it would have to be kept in two ways"
    kept = [view for view in local if view.name in needed]
    return _Plan(records, before, local, after, read_late, kept)


def _in_turn(
    connection: Connection,
    plan: _Plan,
    parts: Sequence[_Part],
    shown: Mapping[str, pa.Table],
    workers: int,
) -> Iterator[dict[str, _Packed]]:
    """Yields what is kept of each part, in order; some are computed at the same time."""
    cursors: SimpleQueue[Connection] = SimpleQueue()
    opened: list[Any] = []
    stopped = Event()

    def compute(part: _Part) -> dict[str, _Packed]:
        cursor = cursors.get()
        try:
            return _local(cursor, plan, part, stopped)
        finally:
            cursors.put(cursor)

    pool = ThreadPoolExecutor(workers)
    try:
        catalog, schema = connection.sql("SELECT current_catalog(), current_schema()").fetchall()[0]
        for _ in range(workers):
            opened.append(connection.cursor())
            opened[-1].execute(f'USE "{catalog}"."{schema}"').fetchall()
            for name, table in shown.items():
                opened[-1].register(name, table)
            cursors.put(opened[-1])
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
        if view.name in done:
            found[view.name] = _pack(connection.sql(sql).to_arrow_table())
        else:
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
    plan: _Plan,
    last: View,
    packed: Mapping[str, list[_Stored]],
    store: _Store,
    endpoints: int,
) -> Iterator[pa.Table]:
    """Yields the last view for so many endpoints at a time, up to twice as many."""
    of_all = [view.name for view in plan.after if "endpoint_ip" in (c.name for c in view.columns)]
    for name in of_all:
        connection.execute(f"ALTER TABLE temp.{name} RENAME TO {_ALL}{name}").fetchall()
    own = f"WHERE endpoint_ip IN (SELECT endpoint_ip FROM {ENDPOINTS})"
    for begin, end in _groups([one.rows for one in packed[ENDPOINTS]], endpoints):
        tables = {
            name: _stream([store.get(part) for part in parts[begin:end]]).read_all()
            for name, parts in packed.items()
        }
        whole = tables.pop(ENDPOINTS)
        with ExitStack() as stack:
            for name, table in tables.items():
                stack.enter_context(_registered(connection, name, table))
            pieces = max(1, whole.num_rows // endpoints)
            size = -(-whole.num_rows // pieces)
            for piece in range(pieces):
                with _registered(connection, ENDPOINTS, whole.slice(piece * size, size)):
                    for name in of_all:
                        _show(connection, name, f"FROM temp.{_ALL}{name} {own}")
                    yield connection.sql(last.sql).to_arrow_table()


def _groups(sizes: Sequence[int], least: int) -> Iterator[tuple[int, int]]:
    """Yields the ends of groups of neighbours that have so many together, but for the last."""
    begin = gathered = 0
    for end, size in enumerate(sizes, start=1):
        gathered += size
        if gathered >= least or end == len(sizes):
            yield begin, end
            begin, gathered = end, 0


class _Packed(NamedTuple):
    """A table in a small part of its size: most columns tell of what few endpoints do."""

    rows: int
    buffer: pa.Buffer


class _Stored(NamedTuple):
    """Where a packed table lies in a store."""

    rows: int
    at: int
    size: int


class _Store:
    """Packed tables in a file, one after the other."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._end = 0

    def put(self, packed: _Packed) -> _Stored:
        at, size = self._end, packed.buffer.size
        self._file.seek(at)
        self._file.write(memoryview(packed.buffer))
        self._end += size
        return _Stored(packed.rows, at, size)

    def get(self, stored: _Stored) -> _Packed:
        self._file.seek(stored.at)
        return _Packed(stored.rows, pa.py_buffer(self._file.read(stored.size)))


@contextmanager
def _stored_in(folder: Path | None) -> Iterator[_Store]:
    """Opens a store, in memory as far as that is small or no folder is given."""
    held = _HELD if folder is not None else 0  # no limit
    with tempfile.SpooledTemporaryFile(held, dir=str(folder) if folder else None) as file:
        yield _Store(file)


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


@contextmanager
def _registered(connection: Connection, name: str, data: Any) -> Iterator[None]:
    """Shows Arrow data under a name."""
    connection.register(name, data)
    try:
        yield
    finally:
        connection.unregister(name)


def _make(connection: Connection, name: str, sql: str) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}").fetchall()


def _add(connection: Connection, name: str, sql: str) -> None:
    connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} AS {sql} LIMIT 0").fetchall()
    connection.execute(f"INSERT INTO temp.{name} {sql}").fetchall()


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
            for share in _ranges(connection, bucket, size, rows):
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


def _ranges(connection: Connection, bucket: int, size: int, rows: int) -> list[str]:
    """Parts a bucket by address, as its files are sorted: a part need not read the others' rows."""
    share = -(-size // -(-size // rows))
    counted = f"SELECT endpoint_addr, count(*) AS n FROM {BASE} WHERE bucket = {bucket} GROUP BY 1"
    shares = f"SELECT endpoint_addr, (sum(n) OVER (ORDER BY endpoint_addr) - 1) // {share} AS share"
    ends = connection.sql(
        f"SELECT hex(max(endpoint_addr)) FROM ({shares} FROM ({counted})) GROUP BY share ORDER BY 1"
    ).fetchall()
    ranges = []
    above = ""
    for (end,) in ends:
        ranges.append(f"{above}endpoint_addr <= unhex('{end}')")
        above = f"endpoint_addr > unhex('{end}') AND "
    return ranges


def _shares(size: int, rows: int) -> list[str]:
    number = -(-size // rows)
    return [f"hash(endpoint_ip) % {number} = {share}" for share in range(number)]


def _listed(numbers: list[int]) -> str:
    return f"({', '.join(map(str, numbers))})"
