"""The analysts' catalog: typed, commented, complete, and locked."""

from collections.abc import Iterator
from datetime import date, datetime
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_segments import key, meter, source, table, traffic

from telemetry import lake as room
from telemetry.columns import RECORD, Layer, schema
from telemetry.errors import LakeError, PrivacyError, Refused
from telemetry.lake import Lake, connect, stream
from telemetry.lake.catalog import work_connection

query = partial(room.query, unselected=True)
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
        for view in ("stored_records", "selected", "sources", "runs", "busy_ports"):
            assert types(empty.path, view) == types(lake, view)
            assert query(empty.path, f"FROM {view}").num_rows == 0
        empty.select([scores()], lambda _: chosen(), "r1")
        empty.build_catalog()
        assert types(empty.path, "scores") == empty_scores


def test_a_catalog_is_the_same_with_and_without_what_was_kept_of_one(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(cache: Path, views: list[tuple[str, str]]) -> list[object]:
        monkeypatch.setattr("telemetry.lake.catalog.COMPILED", cache)
        with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
            writer.build_catalog(views)
        made = "SELECT schema_name, view_name, sql FROM duckdb_views() WHERE NOT internal"
        asked = (made, "FROM busy_ports", "FROM sources", "FROM runs", "FROM everything.ports")
        return [query(lake, f"{sql} ORDER BY ALL").to_pylist() for sql in asked]

    cache = tmp_path / "cache"
    first = built(cache, VIEWS)
    [kept] = cache.iterdir()
    written = kept.stat().st_mtime_ns
    assert first[0] and built(cache, VIEWS) == first
    assert [path.stat().st_mtime_ns for path in cache.iterdir()] == [written]
    content = kept.read_bytes()
    for damaged in (b"", content[:5000], content[:9000] + b"?" + content[9001:]):
        kept.write_bytes(damaged)
        assert built(cache, VIEWS) == first
        assert kept.stat().st_size == len(content)
    assert built(cache, [*VIEWS, ("more", "FROM ports")])[0] != first[0]
    assert len(list(cache.iterdir())) == 2
    not_a_folder = tmp_path / "file"
    not_a_folder.write_text("")
    assert built(not_a_folder, VIEWS) == first


def test_columns_carry_their_meaning(lake: Path) -> None:
    answer = query(
        lake,
        "SELECT DISTINCT comment FROM duckdb_columns() WHERE table_name = 'stored_records' "
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


ATTACKS = {
    "write a file": "COPY (SELECT 1) TO '{outside}/out.csv'",
    "write among the records": "COPY (SELECT 1 AS a) TO '{lake}/records/more.parquet'",
    "write over the scores": "COPY (SELECT 1 AS a) TO '{lake}/scores/r1.parquet'",
    "write a database among the records": "ATTACH '{lake}/records/more.duckdb' AS more",
    "carry the lake off": "EXPORT DATABASE '{outside}/all'",
    "carry the lake off within it": "EXPORT DATABASE '{lake}/records/all'",
    "load a database": "IMPORT DATABASE '{outside}'",
    "attach another lake": "ATTACH '{outside}/other.duckdb' AS other",
    "attach SQLite": "ATTACH '{lake}/files.sqlite' AS t (TYPE sqlite)",
    "detach the catalog": "USE memory; DETACH analyst",
    "read a file": "SELECT * FROM read_csv('/etc/passwd')",
    "read a file by its name": "FROM '/etc/passwd'",
    "read a CSV by its name": "FROM '{outside}/secret.csv'",
    "read a file as text": "SELECT * FROM read_text('/etc/passwd')",
    "read the environment": "FROM read_blob('/proc/self/environ')",
    "read a variable": "SELECT getenv('HOME')",
    "read JSON": "FROM read_json('{outside}/secret.json')",
    "sniff a file": "FROM sniff_csv('{outside}/secret.csv')",
    "read metadata": "FROM parquet_metadata('{outside}/secret.parquet')",
    "read a database": "FROM read_duckdb('{outside}/other.duckdb')",
    "read the file table": "SELECT * FROM read_blob('{lake}/files.sqlite')",
    "read the ledger": "SELECT * FROM read_text('{lake}/ledger.jsonl')",
    "climb out of the records": "FROM read_text('{lake}/records/../ledger.jsonl')",
    "climb out of the lake": "FROM read_text('{lake}/records/../../secret.csv')",
    "read the key": "FROM read_text('{lake}.key')",
    "list files": "SELECT * FROM glob('/*')",
    "list the lake": "SELECT * FROM glob('{lake}/*')",
    "call out": "FROM 'https://example.org/x.parquet'",
    "call an address": "FROM read_csv('http://127.0.0.1:9/x.csv')",
    "call a store": "FROM read_parquet('s3://bucket/x.parquet')",
    "install": "INSTALL httpfs",
    "install from elsewhere": "INSTALL httpfs FROM 'http://127.0.0.1:9'",
    "load": "LOAD httpfs",
    "load a file": "LOAD '{outside}/evil.duckdb_extension'",
    "update": "UPDATE EXTENSIONS",
    "keep a secret": "CREATE PERSISTENT SECRET s (TYPE s3)",
    "tell secrets": "FROM duckdb_secrets()",
    "open the door": "SET enable_external_access = true",
    "open a folder": "SET allowed_directories = ['/']",
    "unlock": "SET lock_configuration = false",
    "unlock by default": "RESET lock_configuration",
    "spill elsewhere": "SET temp_directory = '{outside}'",
    "write a profile": "PRAGMA profiling_output = '{outside}/profile.json'",
    "write a log": "FROM enable_logging('QueryLog', storage = 'file', "
    "storage_config = {{'path': '{outside}/log'}})",
    "call a procedure": "CALL enable_logging()",
    "nest a deed": "FROM query($$COPY (SELECT 1) TO '{outside}/nested.csv'$$)",
    "hide behind a question": "SELECT 1; COPY (SELECT 1) TO '{outside}/out.csv'",
    "explain a deed": "EXPLAIN ANALYZE COPY (SELECT 1 AS a) TO '{lake}/records/more.parquet'",
    "prepare a deed": "PREPARE p AS COPY (SELECT 1 AS a) TO '{lake}/records/more.parquet'",
    "make a table": "CREATE TABLE more AS SELECT 1",
    "make a macro": "CREATE MACRO analyst.main.f() AS 1",
    "drop a view": "DROP VIEW stored_records",
    "delete": "DELETE FROM sources",
    "change": "UPDATE sources SET read = 0",
    "insert": "INSERT INTO runs SELECT * FROM runs",
    "look at Python": "FROM in_reach",
}
OURS_MAY = {
    "detach the catalog",
    "write among the records",
    "write over the scores",
    "write a database among the records",
    "carry the lake off within it",
    "explain a deed",
    "prepare a deed",
}
"""What DuckDB does, where it may read; only `Catalog` stands in the way."""


def test_no_attack_on_the_catalog_gets_anywhere(lake: Path, tmp_path: Path) -> None:
    in_reach = pa.table({"a": [1]})  # DuckDB would find it by its name
    assert in_reach.num_rows
    before = stage(lake, tmp_path)
    done = []
    for attack, sql in ATTACKS.items():
        named = sql.format(lake=str(lake).replace("'", "''"), outside=tmp_path)
        catalog = connect(lake)
        for ask in (catalog.sql, lambda sql: query(lake, sql)):
            try:
                ask(named)
                done.append(attack)
            except Refused:
                pass
        catalog.close()
    assert done == []
    assert contents(tmp_path) == before


def test_no_attack_on_our_own_connection_leaves_the_records(lake: Path, tmp_path: Path) -> None:
    before = stage(lake, tmp_path)
    done = []
    for attack in ATTACKS.keys() - OURS_MAY:
        named = ATTACKS[attack].format(lake=str(lake).replace("'", "''"), outside=tmp_path)
        connection = work_connection(lake)
        try:
            connection.execute(named).fetchall()
            done.append(attack)
        except (duckdb.Error, ValueError):
            pass
        finally:
            connection.close()
    assert done == []
    assert contents(tmp_path) == before


def stage(lake: Path, outside: Path) -> dict[Path, bytes]:
    """Lays out what an attack would be after; returns every file."""
    (lake / "ledger.jsonl").write_text("{}\n")
    lake.with_name(f"{lake.name}.key").write_text("key\n")
    for name in ("secret.csv", "secret.json"):
        (outside / name).write_text("1\n")
    return contents(outside)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_question_takes_values(lake: Path) -> None:
    catalog = connect(lake)
    try:
        assert catalog.sql("SELECT $n + 1 AS n", {"n": 1})["n"].to_pylist() == [2]
        assert catalog.sql("DESCRIBE stored_records").num_rows > 10
        assert catalog.sql("SHOW TABLES").num_rows >= 3
    finally:
        catalog.close()


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
            "novelty": 0.5,
            "novelty_in": "hosts",
        }
        for e in endpoints
    ]
    return pa.Table.from_pylist(rows, schema=schema(Layer.SCORE))


def chosen(*endpoints: str) -> pa.Table:
    since, until = datetime(2026, 3, 2), datetime(2027, 3, 2)
    rows = [
        {"endpoint": e, "since": since, "until": until, "rules": "selection/1", "rule": "listed"}
        for e in endpoints
    ]
    return pa.Table.from_pylist(rows, schema=schema(Layer.SELECTION))


def test_the_newest_scores_are_shown(lake: Path) -> None:
    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        for run, endpoint in (("r2", "9.9.9.9"), ("r1", "8.8.8.8"), ("r1", "2001:db8::1")):
            writer.select([scores(endpoint)], lambda _: chosen(), run)
        writer.build_catalog(VIEWS)
        with pytest.raises(PrivacyError):
            writer.select([scores("9.9.9.9").drop_columns(["role"])], lambda _: chosen(), "r3")
        with pytest.raises(LakeError, match="run's id"):
            writer.select([scores("9.9.9.9")], lambda _: chosen("9.9.9.9"), "../r3")
    found = query(lake, "SELECT endpoint, reasons[1].text AS why FROM scores").to_pylist()
    assert found == [{"endpoint": "2001:db8::1", "why": "9 hosts in 4 s"}]


def test_scores_of_an_older_release_can_be_read(lake: Path) -> None:
    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        writer.select([scores("9.9.9.9")], lambda _: chosen("9.9.9.9"), "r1")
        for path in lake.glob("**/scores/*.parquet"):
            pq.write_table(pq.read_table(path).drop_columns(["novelty", "novelty_in"]), path)
        writer.build_catalog(VIEWS)
    found = query(lake, "SELECT endpoint, score, novelty, novelty_in FROM scores").to_pylist()
    assert found == [{"endpoint": "9.9.9.9", "score": 0.9, "novelty": None, "novelty_in": None}]


def test_scores_come_in_any_number_of_tables(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telemetry.lake.store._SCORES_AT_ONCE", 3)
    hidden = [f"9.9.9.{n}" for n in range(8)]
    tables = [scores(*hidden[:2]), scores("8.8.8.8", *hidden[2:5]), scores(*hidden[5:])]

    def choose(table: pa.Table) -> pa.Table:
        return chosen(*(e for e in table["endpoint"].to_pylist() if e.startswith("8.")))

    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        assert writer.select(iter(tables), choose, "r1") == (1, 0)
        writer.build_catalog()
        # Who is selected stays so, whatever comes later.
        assert writer.select(iter(tables), lambda _: chosen(), "r2") == (0, 0)
        writer.build_catalog()
        writer.remove_retired(0)
    assert len(list((lake / "quarantine" / "scores").iterdir())) == 2
    shown = room.query(lake, "SELECT endpoint FROM scores").to_pylist()
    assert shown == [{"endpoint": "8.8.8.8"}]
    sql = "SELECT endpoint FROM scores ORDER BY score DESC, endpoint"
    parts = list(stream(lake, sql, memory="500MB", unselected=True))
    found = pa.concat_tables(parts)["endpoint"].to_pylist()
    assert found == ["8.8.8.8", *hidden]


def test_scores_that_fail_midway_leave_nothing(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telemetry.lake.store._SCORES_AT_ONCE", 1)

    def failing() -> Iterator[pa.Table]:
        yield scores("9.9.9.9")
        raise KeyboardInterrupt

    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        writer.select([scores("8.8.8.8")], lambda _: chosen(), "r1")
        writer.build_catalog()
        before = sorted((lake / "quarantine" / "scores").iterdir())
        with pytest.raises(KeyboardInterrupt):
            writer.select(failing(), lambda _: chosen(), "r2")
        assert sorted((lake / "quarantine" / "scores").iterdir()) == before
    assert query(lake, "SELECT endpoint FROM scores").to_pylist() == [{"endpoint": "8.8.8.8"}]


def test_older_scores_stay_until_the_catalog_shows_newer(lake: Path) -> None:
    def files() -> set[str]:
        return {path.stem.partition("-")[0] for path in (lake / "scores").iterdir()}

    def shown() -> list[str]:
        endpoints: list[str] = query(lake, "SELECT endpoint FROM scores")["endpoint"].to_pylist()
        return endpoints

    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        writer.select([scores("9.9.9.9")], lambda _: chosen("9.9.9.9"), "r2")
        writer.build_catalog()
        writer.select([scores("8.8.8.8")], lambda _: chosen("8.8.8.8"), "r1")
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
    with (
        Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer,
        writer.work(memory="60MB", threads=1) as connection,
    ):
        connection.execute(
            "CREATE TEMP TABLE wide AS SELECT i, uuid()::TEXT AS t FROM range(1500000) r(i)"
        ).fetchall()
        assert list((lake / "tmp").rglob("*")), "nothing was spilt: the limit is too high"
        assert connection.execute("SELECT count(*) FROM wide").fetchall() == [(1_500_000,)]


def test_work_that_memory_does_not_suffice_for_is_told_as_the_lake_s_failure(lake: Path) -> None:
    with Lake.create_or_open(lake, policy_tag="p", key_id="k") as writer:
        one_value = "SELECT list(i) FROM range(30000000) r(i)"
        with (
            pytest.raises(LakeError, match="Out of Memory"),
            writer.work(memory="60MB", threads=1) as connection,
        ):
            connection.execute(one_value).fetchall()
