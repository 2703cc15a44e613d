"""Runs the views on a connection that the caller owns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import pyarrow as pa

from telemetry.features.catalog import BASE, View, needed_for

RECORDS: Final = "records"
CONTACTS: Final = "contacts"
MIRRORED: Final = "mirrored"
"""Temporary table of the foreign addresses that are the other end of a record."""
PART: Final = 500_000
"""Records whose endpoints are computed at a time: some 400 MB at most."""
ENDPOINTS: Final = "endpoints"
_ALL = "all_"


class Connection(Protocol):
    """What is needed of a DuckDB connection; the lake makes it."""

    def execute(self, query: str) -> Any:
        """Runs one statement."""

    def sql(self, query: str) -> Any:
        """Returns the relation of one query."""

    def register(self, view_name: str, python_object: Any) -> Any:
        """Shows an Arrow table under a name."""

    def unregister(self, view_name: str) -> Any:
        """Takes the name back."""


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
    records, *others = steps
    assert records.name == RECORDS
    before, local, after = _ordered_by_need(others)
    # What rests on the records of one endpoint alone is computed for some endpoints at a time:
    # sorts fit the memory, whatever the size of the lake.
    if last.by_endpoint:
        local.append(last)
    read_late = {name for view in after for name in view.depends_on}
    kept = [view for view in local if view.merge or view.name in read_late]
    packed: dict[str, list[pa.Buffer]] = {
        view.name: [] for view in local if view.name in last.depends_on and view not in kept
    }
    try:
        # Views that several others read are computed once: a temporary table hides the
        # view of the same name in the catalog.
        _view_records(connection, records, "true")
        for view in before:
            _make(connection, view.name, view.sql)
        for number, some in enumerate(_parts(connection, part)):
            _view_records(connection, records, some.of_records)
            for view, done in _with_what_is_done(local):
                chosen = some.of_contacts if view.name == CONTACTS else "true"
                _make(connection, view.name, f"SELECT * FROM ({view.sql}) WHERE {chosen}")
                if view is last:
                    yield connection.sql(f"FROM temp.{view.name}").to_arrow_table()
                elif view in kept:
                    _add(connection, _ALL + view.name, f"FROM temp.{view.name}", not number)
                elif view.name in packed and not last.by_endpoint:
                    table = connection.sql(f"FROM temp.{view.name}").to_arrow_table()
                    packed[view.name].append(_pack(table))
                for name_done in done:
                    connection.execute(f"DROP TABLE temp.{name_done}").fetchall()
        if last.by_endpoint:
            return
        for view in kept:
            parts = f"(FROM temp.{_ALL}{view.name})"
            sql = f"WITH parts AS {parts} {view.merge}" if view.merge else parts
            _make(connection, view.name, sql)
            connection.execute(f"DROP TABLE temp.{_ALL}{view.name}").fetchall()
        _view_records(connection, records, "true")
        for view in after:
            _make(connection, view.name, view.sql)
        yield from _finish(connection, last, after, packed)
    finally:
        _drop(connection, [view.name for view in (*others, last)])


def _ordered_by_need(views: Sequence[View]) -> tuple[list[View], list[View], list[View]]:
    """Returns views that rest on no endpoint, on one alone, and on all of them."""
    local = [view for view in views if view.by_endpoint or view.merge]
    resting = {view.name for view in local}
    before: list[View] = []
    after: list[View] = []
    for view in views:
        if view not in local:
            late = not resting.isdisjoint(view.depends_on)
            (after if late else before).append(view)
            resting |= {view.name} if late else set()
    return before, local, after


def _with_what_is_done(views: Sequence[View]) -> Iterator[tuple[View, list[str]]]:
    """Yields each view with the names of those, itself among them, that none after it reads."""
    last = {name: view.name for view in views for name in (view.name, *view.depends_on)}
    names = {view.name for view in views}
    for view in views:
        yield view, [name for name, by in last.items() if by == view.name and name in names]


def _finish(
    connection: Connection, last: View, after: Sequence[View], packed: Mapping[str, list[pa.Buffer]]
) -> Iterator[pa.Table]:
    """Yields the last view for the endpoints of one part after another."""
    of_all = [
        view.name for view in after if any(column.name == "endpoint_ip" for column in view.columns)
    ]
    for name in of_all:
        connection.execute(f"ALTER TABLE temp.{name} RENAME TO {_ALL}{name}").fetchall()
    names, buffers = list(packed), list(packed.values())
    for part in zip(*buffers, strict=True):
        for name, buffer in zip(names, part, strict=True):
            connection.register(name, pa.ipc.open_stream(buffer).read_all())
        own = f"WHERE endpoint_ip IN (SELECT endpoint_ip FROM {ENDPOINTS})"
        for name in of_all:
            _show(connection, name, f"FROM temp.{_ALL}{name} {own}")
        yield connection.sql(last.sql).to_arrow_table()
        for name in names:
            connection.unregister(name)


def _pack(table: pa.Table) -> pa.Buffer:
    """Returns a table in a tenth of its size: most columns tell of what few endpoints do."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1))
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _view_records(connection: Connection, records: View, condition: str) -> None:
    _show(connection, RECORDS, f"SELECT * FROM ({records.sql}) WHERE {condition}")


def _make(connection: Connection, name: str, sql: str) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}").fetchall()


def _add(connection: Connection, name: str, sql: str, first: bool) -> None:
    if first:
        _make(connection, name, sql)
    else:
        connection.execute(f"INSERT INTO temp.{name} {sql}").fetchall()


def _show(connection: Connection, name: str, sql: str) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}").fetchall()


def _drop(connection: Connection, names: Sequence[str]) -> None:
    made = {RECORDS, MIRRORED, *names, *(_ALL + name for name in names)}
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


def _parts(connection: Connection, rows: int) -> list[_Part]:
    """Parts the endpoints so that each part has about so many records.

    The lake keeps the records of an endpoint in one bucket, so that a part reads its own files.
    Only an endpoint that is the other end of a record between two foreign addresses has some
    elsewhere: those endpoints make parts of their own.
    """
    sizes = connection.sql(
        f"SELECT bucket, count(*), count(peer_ip) FROM {BASE} GROUP BY bucket ORDER BY bucket"
    ).fetchall()
    if sum(size for _, size, _ in sizes) <= rows:
        return [_Part("true", "true")]
    mirrored = f"SELECT endpoint_ip FROM temp.{MIRRORED}"
    _make(
        connection,
        MIRRORED,
        f"SELECT DISTINCT peer_ip AS endpoint_ip FROM {BASE} WHERE peer_ip IS NOT NULL",
    )
    both = sum(count for _, _, count in sizes)
    own = f"endpoint_ip NOT IN ({mirrored})" if both else "true"
    parts = []
    together: list[int] = []
    left = rows
    for bucket, size, _ in sizes:
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
