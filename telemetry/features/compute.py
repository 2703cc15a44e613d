"""Runs the views on a connection that the caller owns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
_PART = "part"


class Connection(Protocol):
    """What is needed of a DuckDB connection; the lake makes it."""

    def execute(self, query: str) -> Any:
        """Runs one statement."""

    def sql(self, query: str) -> Any:
        """Returns the relation of one query."""


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
    return _compute(connection, "endpoint_features", "endpoint_ip", part)


def pair_features(connection: Connection) -> pa.Table:
    """Returns the features of every pair of an endpoint and a host, ordered by both.

    Args:
        connection: As for `endpoint_features`.

    Returns:
        The columns of sql/pair_features.
    """
    (pairs,) = _compute(connection, "pair_features", "endpoint_ip, peer")
    return pairs


def _compute(
    connection: Connection, name: str, order: str, part: int | None = None
) -> Iterator[pa.Table]:
    *steps, last = needed_for(name)
    records, *others = steps
    assert records.name == RECORDS
    # What rests on the records of one endpoint alone is computed for some endpoints at a time:
    # sorts fit the memory, whatever the size of the lake. Of each part only that is kept, as
    # tables `all_...`, which all endpoints must be known for.
    local = [view for view in others if view.by_endpoint or view.merge]
    resting = {view.name for view in local}
    before: list[View] = []
    after: list[View] = []
    for view in others:
        if view not in local:
            late = not resting.isdisjoint(view.depends_on)
            (after if late else before).append(view)
            resting |= {view.name} if late else set()
    needed = {name for view in (*after, last) for name in view.depends_on}
    kept = [view for view in local if view.name in needed]
    try:
        # Views that several others read are computed once: a temporary table hides the
        # view of the same name in the catalog.
        _view_records(connection, records, "true")
        for view in before:
            _make(connection, view.name, view.sql)
        parts = _parts(connection, part or PART)
        for number, some in enumerate(parts):
            _view_records(connection, records, some.of_records)
            for view in local:
                chosen = some.of_contacts if view.name == CONTACTS else "true"
                _make(connection, view.name, f"SELECT * FROM ({view.sql}) WHERE {chosen}")
            for view in kept:
                rows = f"SELECT *, {number} AS {_PART} FROM temp.{view.name}"
                if number:
                    connection.execute(f"INSERT INTO {_ALL}{view.name} {rows}").fetchall()
                else:
                    _make(connection, _ALL + view.name, rows)
        for view in local:
            connection.execute(f"DROP TABLE temp.{view.name}").fetchall()
        for view in kept:
            if view.merge:
                _make(connection, view.name, f"WITH parts AS ({_whole(view)}) {view.merge}")
            else:
                _show(connection, view.name, _whole(view))
        _view_records(connection, records, "true")
        for view in after:
            _make(connection, _ALL + view.name, view.sql)
            _show(connection, view.name, f"FROM temp.{_ALL}{view.name}")
        shares = range(len(parts)) if part is not None and len(parts) > 1 else [None]
        for share in shares:
            if share is not None:
                _show_share(connection, share, kept, after)
            found = connection.sql(f"SELECT * FROM ({last.sql}) ORDER BY {order}")
            yield found.to_arrow_table()
    finally:
        _drop(connection, [view.name for view in others])


def _whole(view: View) -> str:
    return f"SELECT * EXCLUDE ({_PART}) FROM temp.{_ALL}{view.name}"


def _show_share(
    connection: Connection, number: int, kept: Sequence[View], after: Sequence[View]
) -> None:
    """Lets views show the endpoints of one part alone."""
    for view in kept:
        if not view.merge:
            _show(connection, view.name, f"{_whole(view)} WHERE {_PART} = {number}")
    of_part = f"SELECT endpoint_ip FROM temp.{_ALL}{ENDPOINTS} WHERE {_PART} = {number}"
    for view in after:
        if any(column.name == "endpoint_ip" for column in view.columns):
            own = f"FROM temp.{_ALL}{view.name} WHERE endpoint_ip IN ({of_part})"
            _show(connection, view.name, own)


def _view_records(connection: Connection, records: View, condition: str) -> None:
    _show(connection, RECORDS, f"SELECT * FROM ({records.sql}) WHERE {condition}")


def _make(connection: Connection, name: str, sql: str) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}").fetchall()


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
