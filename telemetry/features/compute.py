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
_ENDPOINTS_SHARE = 4
"""One endpoint's features take the memory of so many records, and the scores' besides."""


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
    # sorts fit the memory, whatever the size of the lake.
    local = [view for view in others if view.by_endpoint]
    resting = {view.name for view in local}
    before: list[View] = []
    after: list[View] = []
    for view in others:
        if not view.by_endpoint:
            late = not resting.isdisjoint(view.depends_on)
            (after if late else before).append(view)
            resting |= {view.name} if late else set()
    needed = {name for view in (*after, last) for name in view.depends_on}
    kept = [view.name for view in local if view.name in needed]
    try:
        # Views that several others read are computed once: a temporary table hides the
        # view of the same name in the catalog.
        _view_records(connection, records, "true")
        for view in before:
            _make(connection, view)
        for number, some in enumerate(_parts(connection, part or PART)):
            _view_records(connection, records, some.of_records)
            for view in local:
                _make(connection, view, some.of_contacts if view.name == CONTACTS else "true")
            for one in kept:
                verb = "INSERT INTO" if number else "CREATE OR REPLACE TEMP TABLE"
                as_ = "" if number else " AS"
                connection.execute(f"{verb} all_{one}{as_} FROM temp.{one}").fetchall()
        for view in local:
            connection.execute(f"DROP TABLE temp.{view.name}").fetchall()
        for one in kept:
            connection.execute(f"ALTER TABLE temp.all_{one} RENAME TO {one}").fetchall()
        _view_records(connection, records, "true")
        for view in after:
            _make(connection, view)
        for _ in _endpoints_in_turn(connection, last.depends_on, part):
            found = connection.sql(f"SELECT * FROM ({last.sql}) ORDER BY {order}")
            yield found.to_arrow_table()
    finally:
        connection.execute(f"DROP VIEW IF EXISTS temp.{RECORDS}").fetchall()
        for one in (*(view.name for view in others), *(f"all_{k}" for k in kept), MIRRORED):
            connection.execute(f"DROP TABLE IF EXISTS temp.{one}").fetchall()


def _endpoints_in_turn(
    connection: Connection, names: Sequence[str], part: int | None
) -> Iterator[None]:
    """Lets temporary tables show some endpoints after others, all at once without `part`."""
    whole = "whole_"
    shares = ["true"]
    if part is not None:
        endpoints = connection.sql("SELECT count(*) FROM temp.endpoints").fetchall()[0][0]
        shares = _shares(endpoints, max(1, part // _ENDPOINTS_SHARE)) or shares
    if len(shares) == 1:
        yield
        return
    found = connection.sql(
        "SELECT table_name FROM duckdb_columns() WHERE database_name = 'temp' "
        "AND column_name = 'endpoint_ip' ORDER BY table_name"
    ).fetchall()
    parted = [name for (name,) in found if name in names]
    for name in parted:
        connection.execute(f"ALTER TABLE temp.{name} RENAME TO {whole}{name}").fetchall()
    try:
        for share in shares:
            for name in parted:
                connection.execute(
                    f"CREATE OR REPLACE TEMP VIEW {name} AS FROM temp.{whole}{name} WHERE {share}"
                ).fetchall()
            yield
    finally:
        for name in parted:
            connection.execute(f"DROP VIEW IF EXISTS temp.{name}").fetchall()
            connection.execute(f"DROP TABLE temp.{whole}{name}").fetchall()


def _view_records(connection: Connection, records: View, condition: str) -> None:
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {RECORDS} AS SELECT * FROM ({records.sql}) WHERE {condition}"
    ).fetchall()


def _make(connection: Connection, view: View, condition: str = "true") -> None:
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {view.name} AS SELECT * FROM ({view.sql}) WHERE {condition}"
    ).fetchall()


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
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {MIRRORED} AS "
        f"SELECT DISTINCT peer_ip AS endpoint_ip FROM {BASE} WHERE peer_ip IS NOT NULL"
    ).fetchall()
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
