"""The analysts' catalog: typed, commented, complete, and locked."""

from datetime import date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from lake_segments import key, meter, source, table, traffic

from telemetry.columns import RECORD, Layer, schema
from telemetry.errors import LakeError, PrivacyError, Refused
from telemetry.lake import Lake, connect, query

VIEWS = [
    ("ports", "SELECT endpoint_port, count(*) AS n FROM stored_records GROUP BY ALL"),
    ("busy_ports", "SELECT * FROM ports WHERE n > 1"),
]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    path = tmp_path / "the analyst's lake"
    with Lake.create_or_open(path, policy_tag="p", key_id="k") as lake:
        with lake.source() as batch:
            batch.stage(table(meter(traffic(1, 200, days=2))))
            batch.accept(source(1, batch.rows))
        lake.commit()
        lake.build_catalog(VIEWS)
    return path


def types(path: Path, view: str) -> list[tuple[str, str]]:
    answer = query(path, f"DESCRIBE {view}")
    return list(zip(*(answer[c].to_pylist() for c in ("column_name", "column_type")), strict=True))


def test_the_views_hold_every_record_with_its_partition(lake: Path) -> None:
    answer = query(lake, "SELECT day, count(*) AS n FROM stored_records GROUP BY day ORDER BY day")
    assert answer["day"].to_pylist() == [date(2026, 3, 1), date(2026, 3, 2)]
    wrong = "SELECT count(*) AS n FROM stored_records WHERE day <> first_seen::DATE"
    assert query(lake, wrong)["n"].to_pylist() == [0]
    assert [n for n, _ in types(lake, "stored_records")] == [
        *(c.name for c in RECORD),
        "day",
        "bucket",
    ]
    assert query(lake, "SELECT sum(n)::INT AS n FROM busy_ports")["n"][0].as_py() > 0


def test_an_empty_lake_has_the_same_types(lake: Path, tmp_path: Path) -> None:
    with Lake.create_or_open(tmp_path / "empty", policy_tag="p", key_id="k") as empty:
        empty.build_catalog(VIEWS)
        empty_scores = types(empty.path, "scores")
        for view in ("stored_records", "sources", "runs", "busy_ports"):
            assert types(empty.path, view) == types(lake, view)
            assert query(empty.path, f"FROM {view}").num_rows == 0
        empty.write_scores(pa.Table.from_pylist([], schema=schema(Layer.SCORE)), "r1")
        empty.build_catalog()
        assert types(empty.path, "scores") == empty_scores


def test_columns_carry_their_meaning(lake: Path) -> None:
    answer = query(
        lake,
        "SELECT comment FROM duckdb_columns() WHERE table_name = 'stored_records' "
        "AND column_name = 'endpoint_bytes'",
    )
    assert answer["comment"].to_pylist() == ["IP bytes sent by the endpoint (bytes)"]


def test_ipv6_survives(lake: Path) -> None:
    six = key(1)
    answer = query(
        lake,
        f"SELECT DISTINCT endpoint_ip, endpoint_addr FROM stored_records "
        f"WHERE endpoint_ip = '{six['endpoint_ip']}'",
    )
    assert answer.to_pylist() == [{k: six[k] for k in ("endpoint_ip", "endpoint_addr")}]


def test_sources_and_runs_are_counted(lake: Path) -> None:
    answer = query(lake, "SELECT dropped['domestic'] AS d, ingested_at AS t FROM sources")
    assert answer.to_pylist() == [{"d": 10, "t": datetime(2026, 3, 2, 0, 0, 1)}]
    runs = query(lake, "SELECT run, sources, read, kept FROM runs").to_pylist()
    assert runs == [{"run": "r1", "sources": 1, "read": 100, "kept": 90}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('{lake}/files.sqlite')",
        "SELECT * FROM read_text('{lake}/ledger.jsonl')",
        "SELECT * FROM glob('/etc/*')",
        "COPY (SELECT 1) TO '{outside}/out.csv'",
        "ATTACH '{outside}/other.duckdb' AS other",
        "CREATE TABLE more AS SELECT 1",
        "DROP VIEW stored_records",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
    ],
)
def test_the_catalog_is_locked(lake: Path, tmp_path: Path, sql: str) -> None:
    (lake / "ledger.jsonl").write_text("{}\n")
    named = sql.format(lake=str(lake).replace("'", "''"), outside=tmp_path)
    connection = connect(lake)
    try:
        with pytest.raises(duckdb.Error):
            connection.execute(named).fetchall()
    finally:
        connection.close()
    with pytest.raises(Refused):
        query(lake, named)


def test_query_reads_only(lake: Path) -> None:
    path = next(lake.rglob("*.parquet"))
    before = path.read_bytes()
    for sql in (
        f"COPY (SELECT 1) TO '{str(path).replace(chr(39), chr(39) * 2)}'",
        "SELECT 1; SELECT 2",
        "",
        "SELECT no_such_column FROM stored_records",
    ):
        with pytest.raises(Refused):
            query(lake, sql)
    assert path.read_bytes() == before


def scores(*endpoints: str) -> pa.Table:
    seen = datetime(2026, 3, 1)
    reason = {"name": "scan", "text": "9 hosts in 4 s", "contribution": 0.4}
    rows = [
        {
            "endpoint": e,
            "score": 0.9,
            "role": "scanner",
            "listed": True,
            "confidence": 90,
            "reasons": [reason],
            "first_seen": seen,
            "last_seen": seen,
            "records": 3,
        }
        for e in endpoints
    ]
    return pa.Table.from_pylist(rows, schema=schema(Layer.SCORE))


def test_the_newest_scores_are_shown(lake: Path) -> None:
    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        for run, endpoint in (("r2", "9.9.9.9"), ("r1", "8.8.8.8"), ("r1", "2001:db8::1")):
            writer.write_scores(scores(endpoint), run)
        writer.build_catalog(VIEWS)
        with pytest.raises(PrivacyError):
            writer.write_scores(scores("9.9.9.9").drop_columns(["role"]), "r3")
        with pytest.raises(LakeError, match="run's id"):
            writer.write_scores(scores("9.9.9.9"), "../r3")
    found = query(lake, "SELECT endpoint, reasons[1].text AS why FROM scores").to_pylist()
    assert found == [{"endpoint": "2001:db8::1", "why": "9 hosts in 4 s"}]


def test_older_scores_stay_until_the_catalog_shows_newer(lake: Path) -> None:
    def files() -> set[str]:
        return {path.stem for path in (lake / "scores").iterdir()}

    def shown() -> list[str]:
        endpoints: list[str] = query(lake, "SELECT endpoint FROM scores")["endpoint"].to_pylist()
        return endpoints

    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        writer.write_scores(scores("9.9.9.9"), "r2")
        writer.build_catalog()
        writer.write_scores(scores("8.8.8.8"), "r1")
    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        assert (files(), shown()) == ({"r1", "r2"}, ["9.9.9.9"])
        writer.build_catalog()
        assert (files(), shown()) == ({"r1", "r2"}, ["8.8.8.8"])  # r2 is within the grace
        writer.remove_retired(0)
        assert (files(), shown()) == ({"r1"}, ["8.8.8.8"])


def test_a_wrong_view_leaves_the_old_catalog(lake: Path) -> None:
    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        with pytest.raises(LakeError, match="catalog"):
            writer.build_catalog([("wrong", "SELECT nothing_like_this FROM stored_records")])
        assert not list((lake / "tmp").iterdir())
    assert query(lake, "FROM ports").num_rows


def test_a_work_connection_spills_inside_the_lake(lake: Path) -> None:
    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        connection = writer.work_connection(memory="60MB", threads=1)
        try:
            connection.execute(
                "CREATE TEMP TABLE wide AS SELECT i, uuid()::TEXT AS t FROM range(1500000) r(i)"
            ).fetchall()
            assert list((lake / "tmp").rglob("*")), "nothing was spilt: the limit is too high"
            assert connection.execute("SELECT count(*) FROM wide").fetchall() == [(1_500_000,)]
        finally:
            connection.close()
