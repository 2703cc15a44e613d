"""The views of sql/ are what their about.yaml says, and compute the same from any order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import stored_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.columns import Layer, schema
from telemetry.errors import SettingsError
from telemetry.features import (
    View,
    about,
    catalog,
    compute,
    endpoint_features,
    endpoint_parts,
    pair_features,
    shown,
    views,
)

ROWS: list[dict[str, Any]] = [
    {
        "endpoint": {"ip": "198.51.100.1", "port": 8444, "flags": "SAF", "bytes": 300, "at": 0.1},
        "peer": {"host": "a", "port": 50000, "flags": "SAF", "bytes": 400, "at": 0, "until": 0.3},
        "repeat": {"times": 8, "every": 61.3},
    },
    {
        "endpoint": {"ip": "198.51.100.2", "port": 40000, "flags": "S", "at": 5},
        "peer": {"host": "b", "port": 23, "packets": 0},
        "repeat": {"times": 5, "every": 0.7},
    },
    {
        "endpoint": {"ip": "198.51.100.3", "port": 40000, "flags": "SAF", "at": 9, "until": 11.3},
        "peer": {"ip": "203.0.113.5", "port": 25, "flags": "SAF", "at": 9.1, "until": 11.2},
        "repeat": {"times": 4, "every": 33.3},
    },
]


def test_each_view_stands_after_those_it_reads() -> None:
    seen: set[str] = set()
    for view in views():
        assert set(view.depends_on) <= seen, view.name
        seen.add(view.name)


@pytest.mark.parametrize("view", views(), ids=lambda view: view.name)
def test_about_names_exactly_the_columns_of_the_query(view: View) -> None:
    with stored_rows.connect([]) as connection:
        for needed in catalog.needed_for(view.name)[:-1]:
            connection.execute(f"CREATE TABLE {needed.name} AS {needed.sql}")
        connection.execute(f"CREATE VIEW {view.name} AS {view.sql}")
        names = connection.sql(f"SELECT * FROM {view.name}").columns
    assert names == [column.name for column in view.columns]
    assert all(column.meaning for column in view.columns)
    assert view.grain and view.why


@pytest.mark.parametrize("view", views(), ids=lambda view: view.name)
def test_about_names_exactly_the_views_that_the_query_reads(view: View) -> None:
    # Without any one of them the query must fail; with all of them it must not.
    others = {name for name in view.depends_on} | {catalog.BASE}
    read = set()
    for missing in sorted(others):
        connection = stored_rows.connect([])
        for needed in catalog.needed_for(view.name)[:-1]:
            connection.execute(f"CREATE TABLE {needed.name} AS {needed.sql}")
        connection.execute(f"DROP TABLE {missing}")
        try:
            connection.sql(view.sql)
        except duckdb.CatalogException:
            read.add(missing)
    assert read - {catalog.BASE} == set(view.depends_on)


def test_the_view_about_says_what_all_others_mean() -> None:
    name, sql = about()
    with duckdb.connect() as connection:
        rows = connection.sql(sql).fetchall()
    told = [(view.name, column.name) for view in views() for column in (view, *view.columns)]
    stored = {"stored_records", "scores", "selected", "sources", "runs", "about"}
    assert name == "about"
    assert sum(row[0] not in stored for row in rows) == len(told)
    assert {row[0] for row in rows} == {view.name for view in views()} | stored
    assert {row[2] for row in rows if row[0] == "scores"} == {"", *schema(Layer.SCORE).names}
    (why,) = [row for row in rows if row[:2] == ("contacts", 0)]
    assert why[2] == "" and why[4].startswith("one record and foreign end of it. The endpoint's")


def test_a_circle_of_views_is_refused() -> None:
    with pytest.raises(SettingsError, match="circle"):
        catalog._ordered({"a": ["b"], "b": ["a"]})


def test_features_do_not_depend_on_the_order_of_records() -> None:
    whole = stored_rows.stored_records(ROWS)
    shuffled = whole.take(random.Random(7).sample(range(whole.num_rows), whole.num_rows))
    first, second = (_endpoint_features(table) for table in (whole, shuffled))
    assert first.num_rows == 4
    assert first.equals(second)


SIDES = st.fixed_dictionaries(
    {
        "endpoint": st.integers(1, 9),
        "peer": st.one_of(st.sampled_from("abc"), st.integers(1, 9)),
        "port": st.sampled_from((22, 53, 443, 8444)),
        "from_endpoint": st.booleans(),
        "answered": st.booleans(),
        "at": st.integers(0, 400),
        "times": st.integers(1, 6),
        "sampling_rate": st.sampled_from((1, 100)),
        "udp": st.booleans(),
    }
)


def _row(sides: dict[str, Any]) -> dict[str, Any]:
    peer, calls = sides["peer"], sides["from_endpoint"]
    named = {"host": peer} if isinstance(peer, str) else {"ip": f"203.0.113.{peer}"}
    endpoint = f"203.0.113.{sides['endpoint']}" if sides["times"] > 3 else "198.51.100.9"
    if "ip" in named and named["ip"] == endpoint:
        named = {"host": "d"}
    silent = {} if sides["answered"] else {"packets": 0}
    late = {"at": sides["at"] + 0.2, "flags": "SAF", **silent}
    first = {"at": sides["at"], "flags": "SAF" if sides["answered"] else "S"}
    caller, called = {"port": 50000, **first}, {"port": sides["port"], **late}
    return {
        "protocol": "udp" if sides["udp"] else "tcp",
        "sampling_rate": sides["sampling_rate"],
        "endpoint": {"ip": endpoint, **(caller if calls else called)},
        "peer": {**named, **(called if calls else caller)},
        "repeat": {"times": sides["times"], "every": 7.5 * sides["times"]},
    }


@settings(deadline=None, max_examples=10)
@given(st.lists(SIDES, min_size=1, max_size=14), st.integers(1, 60), st.integers(1, 3))
def test_parts_do_not_show(drawn: list[dict[str, Any]], part: int, buckets: int) -> None:
    """Endpoints computed in parts, also those of records between foreign ones, are the same."""
    table = stored_rows.stored_records([_row(sides) for sides in drawn])
    with duckdb.connect() as connection:
        connection.register("given", table)
        connection.execute(
            "CREATE TABLE stored_records AS SELECT *, first_seen::DATE AS day, "
            f"(hash(endpoint_addr) % {buckets})::INTEGER AS bucket FROM given"
        )
        whole = endpoint_features(connection)
        assert whole.num_rows
        assert endpoint_features(connection, part).equals(whole)
        crowded = pa.concat_tables(endpoint_parts(connection, part, workers=3))
        assert crowded.sort_by("endpoint_ip").equals(whole)
        assert pair_features(connection, part).equals(pair_features(connection))


def test_what_is_computed_in_parts_rests_on_nothing_that_needs_all_endpoints() -> None:
    by_name = {view.name: view for view in views()}
    for view in views():
        for name in view.depends_on if view.in_parts else ():
            below = {one.name for one in catalog.needed_for(name)[:-1]}
            assert by_name[name].in_parts or not any(by_name[n].in_parts for n in below)


def test_what_is_merged_names_an_aggregate_for_all_but_its_key() -> None:
    merged = [view for view in views() if view.is_merged]
    keys = {view.name: [c.name for c in view.columns if not c.merge] for view in merged}
    (traits,) = (view for view in views() if view.name == "traits")
    alike = [c.name for c in traits.columns if c.name != "endpoint_ip"]
    assert keys == {"hosts": ["peer"], "kinds": alike, "replies": ["peer", "begun"]}


@pytest.mark.parametrize("view", [v for v in views() if v.is_merged], ids=lambda view: view.name)
def test_what_parts_gave_is_put_together_as_if_there_had_been_none(view: View) -> None:
    called = [
        {
            "endpoint": {"ip": f"198.51.100.{n}", "port": 443, "flags": "A", "at": n % 20},
            "peer": {"host": "ab"[n % 2], "port": 50000 + n, "flags": "A", "at": n % 20},
            "sampling_rate": 10,
        }
        for n in range(40)
    ]
    steps = catalog.needed_for(view.name)[:-1]
    with stored_rows.connect(called) as connection:

        def answer() -> Any:
            for step in steps:
                if step.name != "sensors":
                    connection.execute(f"CREATE OR REPLACE TABLE {step.name} AS {step.sql}")
            return connection.sql(view.sql).to_arrow_table()

        for step in steps:
            connection.execute(f"CREATE TABLE {step.name} AS {step.sql}")
        whole = answer()
        connection.execute("ALTER TABLE stored_records RENAME TO every")
        parts = []
        for share in range(3):
            chosen = f"FROM every WHERE hash(endpoint_ip) % 3 = {share}"
            connection.execute(f"CREATE OR REPLACE VIEW stored_records AS {chosen}")
            parts.append(answer())
        connection.register("given", pa.concat_tables(parts))
        connection.execute(f"CREATE TEMP TABLE all_{view.name} AS FROM given")
        order = [(c.name, "ascending") for c in view.columns if not c.merge]
        merged = connection.sql(compute._merged(view)).to_arrow_table()
        assert merged.sort_by(order).to_pylist() == whole.sort_by(order).to_pylist()


# Two addresses of one network of which DuckDB's `hash` makes the same number, with whatever
# follows: whoever rents such a network can find thousands.
TWINS = ("2a00:abcd:1234:5678:9abc:1487:5900:1000", "2a00:abcd:1234:5678:9abc:1487:9700:100d")


def test_nobody_can_choose_an_address_to_be_taken_for_another() -> None:
    rows = [
        {
            "endpoint": {"ip": ip, "port": 8444, "flags": "SAF", "at": n},
            "peer": {"host": "a", "port": 50000 + n, "flags": "SAF", "at": n},
        }
        for ip, times in zip(TWINS, (1, 40), strict=True)
        for n in range(times)
    ]
    with stored_rows.connect(rows) as connection:
        hashes = connection.sql(f"SELECT hash('{TWINS[0]}'), hash('{TWINS[1]}')").fetchall()
        assert len(set(hashes[0])) == 1
        found = endpoint_features(connection).to_pylist()
    assert [(row["endpoint_ip"], row["records"]) for row in found] == [
        (TWINS[0], 1), (TWINS[1], 40)
    ]  # fmt: skip


def _many() -> duckdb.DuckDBPyConnection:
    """Returns a connection on which forty endpoints have a record each."""
    return stored_rows.connect(
        {
            "endpoint": {"ip": f"198.51.100.{n}", "port": 443, "flags": "SAF", "at": n},
            "peer": {"host": "a", "port": 50000 + n, "flags": "SAF", "at": n},
        }
        for n in range(40)
    )


def _left(connection: duckdb.DuckDBPyConnection) -> list[Any]:
    sql = (
        "SELECT table_name FROM duckdb_tables() WHERE temporary "
        "UNION ALL SELECT view_name FROM duckdb_views() WHERE temporary AND NOT internal"
    )
    return [name for (name,) in connection.sql(sql).fetchall() if name != "given"]


def test_what_waits_on_the_disk_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _many() as connection:
        whole = endpoint_features(connection)
        monkeypatch.setattr("telemetry.features.compute._HELD", 1)
        parts = endpoint_parts(connection, 16, tmp_path)
        first = next(parts)
        held = [
            str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()
        ]
        assert list(tmp_path.iterdir()) == [], "what has no name cannot be left behind"
        assert pa.concat_tables([first, *parts]).sort_by("endpoint_ip").equals(whole)
        assert any(name.startswith(str(tmp_path)) for name in held)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_who_takes_only_some_parts_leaves_nothing_behind(taken: int) -> None:
    with _many() as connection:
        parts = endpoint_parts(connection, 16)
        found = [next(parts).num_rows for _ in range(taken)]
        parts.close()
        assert all(0 < rows < 2 * 16 // 4 for rows in found)
        assert _left(connection) == []
        assert endpoint_features(connection).num_rows == 40


def test_a_part_that_fails_is_told_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(table: pa.Table) -> None:
        raise OSError("no space")

    with _many() as connection:
        monkeypatch.setattr(compute, "_pack", full)
        with pytest.raises(OSError, match="no space"):
            endpoint_features(connection, 16)
        assert _left(connection) == []


def test_features_leave_nothing_behind_and_read_only_is_enough(tmp_path: Any) -> None:
    path = tmp_path / "catalog.duckdb"
    with duckdb.connect(str(path)) as made:
        made.register("given", stored_rows.stored_records(ROWS))
        made.execute(
            "CREATE TABLE stored_records AS "
            "SELECT *, first_seen::DATE AS day, 0 AS bucket FROM given"
        )
        for name, sql in shown():
            made.execute(f"CREATE VIEW {name} AS {sql}")
    with duckdb.connect(str(path), read_only=True) as connection:
        endpoints = endpoint_features(connection)
        pairs = pair_features(connection)
        left = _left(connection)
        by_view = connection.sql("SELECT * FROM endpoint_features ORDER BY endpoint_ip")
        assert by_view.to_arrow_table().equals(endpoints)
    assert left == []
    assert endpoints["endpoint_ip"].to_pylist() == sorted(endpoints["endpoint_ip"].to_pylist())
    assert pairs.num_rows == 4


def test_no_records_give_no_features() -> None:
    with stored_rows.connect([]) as connection:
        assert endpoint_features(connection).num_rows == 0
        assert pair_features(connection).num_rows == 0


def _endpoint_features(table: pa.Table) -> pa.Table:
    with duckdb.connect() as connection:
        connection.register("given", table)
        connection.execute(
            "CREATE TABLE stored_records AS "
            "SELECT *, first_seen::DATE AS day, 0 AS bucket FROM given"
        )
        return endpoint_features(connection)
