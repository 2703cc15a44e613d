"""Automatic selection and erasure: people see what is selected, the rest goes in time."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from e2e import CAPTURES, call, query_rows, settings_in, stored

from telemetry import pipeline
from telemetry.errors import AuthorityError, LakeError, Refused
from telemetry.lake import Lake, query
from telemetry.lake.table import FileTable
from telemetry.pipeline import doors
from telemetry.privacy import Ledger
from telemetry.settings import Settings

SOURCES = ("border-b.pcapng", "conn.log", "rawip.pcap")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = settings_in(tmp_path_factory.mktemp("original"))
    pipeline.run(settings, [str(CAPTURES / name) for name in SOURCES])
    return settings


@pytest.fixture
def settings(original: Settings, tmp_path: Path) -> Settings:
    """A filled lake of its own for each test."""
    shutil.copytree(original.lake, tmp_path / "lake")
    mine = settings_in(tmp_path)
    publish(mine)  # the copied catalog names the files of the original
    return mine


def publish(settings: Settings) -> None:
    meta = Lake.peek(settings.lake)
    with Lake.create_or_open(settings.lake, policy_tag=meta.policy_tag, key_id=meta.key_id) as lake:
        doors.publish(lake)


def later(days: float) -> datetime:
    return doors.utc_now() + timedelta(days=days)


def entries(settings: Settings, kind: str) -> list[dict[str, object]]:
    lines = (settings.lake / "ledger.jsonl").read_text().splitlines()
    return [e["facts"] for e in map(json.loads, lines) if e["kind"] == kind]


def approval(folder: Path, **changes: str) -> Path:
    """Returns the sample authority with some lines changed."""
    text = (CAPTURES.parent / "authority.toml").read_text()
    lines = [line for line in text.splitlines() if line.split(" ")[0] not in changes]
    path = folder / "authority.toml"
    path.write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in changes.items())]))
    return path


def selected(settings: Settings) -> set[str]:
    return {row["endpoint"] for row in query_rows(settings.lake, "FROM analyst.main.selected")}


def unselected(settings: Settings) -> set[str]:
    """Returns the foreign addresses that are in no record of a selected endpoint."""
    sql = """
        SELECT unnest([endpoint_ip, peer_ip]) AS a FROM {0}stored_records
    """
    everybody, seen = (
        {row["a"] for row in query_rows(settings.lake, sql.format(schema))} - {None}
        for schema in ("", "analyst.main.")
    )
    return everybody - seen


def holding(lake: Path, addresses: set[str]) -> set[str]:
    """Returns which files of the lake hold one of the addresses as a value or as bytes."""
    found = set()
    for path in lake.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data = str(pq.ParquetFile(path).read().to_pylist()).encode()
        words = set(
            data.replace(b"'", b"\n").replace(b'"', b"\n").replace(b" ", b"\n").split(b"\n")
        )
        if words & {a.encode() for a in addresses}:
            found.add(path.relative_to(lake).as_posix())
    return found


def test_every_record_of_a_selected_endpoint_is_shown_and_no_other(settings: Settings) -> None:
    chosen = selected(settings)
    listed = {row["endpoint"] for row in query_rows(settings.lake, "FROM scores WHERE listed")}
    assert chosen == listed
    assert 0 < len(chosen) < len(query_rows(settings.lake, "FROM scores"))
    rows = stored(settings.lake).to_pylist()
    wanted = [r for r in rows if r["endpoint_ip"] in chosen or r["peer_ip"] in chosen]
    assert 0 < len(wanted) < len(rows)
    assert query(settings.lake, "FROM stored_records ORDER BY ALL").to_pylist() == wanted
    assert {e["endpoint"] for e in query(settings.lake, "FROM scores").to_pylist()} == chosen
    assert query(settings.lake, "SELECT count(*) AS n FROM records")["n"].to_pylist() == [
        len(wanted)
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "FROM everything.stored_records",
        "FROM analyst.everything.scores",
        "FROM everything.endpoint_features",
        "SELECT * FROM read_parquet('{lake}/quarantine/**/*.parquet')",
        "SELECT * FROM read_blob('{lake}/quarantine/**/*.parquet')",
        "SELECT * FROM glob('{lake}/quarantine/**')",
        "SELECT * FROM '{lake}/records/../quarantine/records/*/*/*.parquet'",
    ],
)
def test_no_question_reaches_into_the_quarantine(settings: Settings, sql: str) -> None:
    with pytest.raises(Refused):
        query(settings.lake, sql.format(lake=settings.lake.resolve()))


def test_lists_and_report_name_nobody_who_is_not_selected(settings: Settings) -> None:
    nobody = unselected(settings)
    assert nobody
    assert all(name.startswith("quarantine/") for name in holding(settings.lake, nobody))


def test_unselected_records_need_an_approval_for_them_and_a_reason(
    settings: Settings, tmp_path: Path
) -> None:
    sql = "SELECT count(*) AS n FROM stored_records"
    options = ("--lake", settings.lake, "--key", settings.key_path)
    assert call("query", sql, "--unselected", *options).code == 2
    assert call("query", sql, "--reason", "curious", *options).code == 2
    assert call("query", sql, "--unselected", "--reason", "curious", *options).code == 2
    assert entries(settings, "unselected") == []
    allowed = approval(tmp_path, further_purposes='["unselected_records"]')
    answer = call("query", sql, "--unselected", "--reason", "complaint 7", "--json",
                  "--authority", allowed, *options)  # fmt: skip
    assert answer.json == {"n": len(stored(settings.lake))}
    (entry,) = entries(settings, "unselected")
    assert entry["reason"] == "complaint 7"
    assert entry["sql_sha256"] == hashlib.sha256(sql.encode()).hexdigest()
    told = call("query", sql, "--unselected", "--reason", "about 192.0.2.1", "--json",
                "--authority", allowed, *options)  # fmt: skip
    assert told.code == 2 and told.out == ""
    assert call("query", sql, "--json", *options).json["n"] < answer.json["n"]


def test_the_clock_goes_on_and_everything_goes_in_its_time(settings: Settings) -> None:
    lake = settings.lake
    nobody, chosen, before = unselected(settings), selected(settings), stored(lake)
    shown = query(lake, "FROM stored_records ORDER BY ALL")

    early = pipeline.retention(settings, at=later(29))
    assert early.erased.unselected == early.erased.selected == 0
    assert stored(lake).equals(before)
    assert holding(lake, nobody)

    month = pipeline.retention(settings, at=later(31))
    assert month.erased.unselected == len(before) - len(shown)
    assert stored(lake).equals(shown)
    assert query(lake, "FROM stored_records ORDER BY ALL").equals(shown)
    assert holding(lake, nobody) == set()
    assert (lake / "lists" / "list.csv").exists()

    year = pipeline.retention(settings, at=later(366))
    assert year.erased.selected == len(shown)
    assert year.erased.deselected == len(chosen)
    assert len(stored(lake)) == 0
    assert holding(lake, chosen | nobody) == set()
    assert [p.name for folder in ("lists", "reports") for p in (lake / folder).iterdir()] == []
    # No command makes a copy of a lake, so there is no other place to look at.

    assert call("audit", "verify", "--lake", lake).code == 0
    for retained, entry in zip(
        (early, month, year), entries(settings, "erasure")[-3:], strict=True
    ):
        facts = json.loads(retained.certificate.read_text())
        digest = hashlib.sha256(retained.certificate.read_bytes()).hexdigest()
        assert entry["certificate_sha256"] == digest
        assert facts["holds"] is entry["holds"] is True
        segments = facts["segments"]
        assert segments["written"] == sum(n for name, n in segments.items() if name != "written")
        for unit in ("packets", "records"):
            told = facts["sources"][unit]
            assert told["read"] == told["kept"] + sum(told["dropped"].values()) > 0
    written = query_rows(lake, "SELECT sum(records_written)::INT AS n FROM sources")[0]["n"]
    assert segments == {
        "written": written,
        "merged": written - len(before),
        "purged": 0,
        "erased": len(before),
        "selected": 0,
        "quarantined": 0,
    }


def test_the_approval_s_retention_ends_the_selected(original: Settings, tmp_path: Path) -> None:
    short = settings_in(tmp_path, authority=approval(tmp_path, retention_days="3"))
    pipeline.run(short, [str(CAPTURES / name) for name in SOURCES])
    assert selected(short)
    assert pipeline.retention(short, at=later(2.9)).erased.files == 0
    gone = pipeline.retention(short, at=later(3.1)).erased
    assert gone.selected and gone.unselected
    assert len(stored(short.lake)) == 0


def test_who_was_selected_once_stays_so_on_a_quiet_day(settings: Settings) -> None:
    chosen, shown = selected(settings), query(settings.lake, "FROM stored_records ORDER BY ALL")
    pipeline.score(settings.model_copy(update={"threshold": 1.0}))
    assert selected(settings) == chosen
    assert query(settings.lake, "FROM stored_records ORDER BY ALL").equals(shown)
    assert pipeline.retention(settings, at=later(31)).erased.selected == 0
    assert query(settings.lake, "FROM stored_records ORDER BY ALL").equals(shown)


def test_erased_records_come_back_by_no_merge_and_no_run(settings: Settings) -> None:
    pipeline.retention(settings, at=later(31))
    left = stored(settings.lake)
    pipeline.run(settings, [str(CAPTURES / name) for name in SOURCES])
    assert stored(settings.lake).equals(left)


def test_what_a_certificate_cannot_balance_is_an_error(settings: Settings) -> None:
    table = FileTable(settings.lake, writer=True)
    with table.transaction():
        table.count("written", 1)
    table.close()
    with pytest.raises(LakeError, match="does not hold"):
        pipeline.retention(settings)
    assert entries(settings, "erasure")[-1]["holds"] is False


def test_rules_select_more_and_say_which(settings: Settings, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('version = "site/2"\nreason = "all scanners"\n[[rule]]\nname = "scanners"\n'
                     'roles = ["scanner"]\nmin_score = 0.01\n')  # fmt: skip
    before = selected(settings)
    mine = settings.model_copy(update={"selection_rules": rules})
    pipeline.score(mine)
    sql = "SELECT endpoint FROM scores WHERE role = 'scanner' AND score >= 0.01"
    scanners = {row["endpoint"] for row in query_rows(settings.lake, sql)}
    assert selected(settings) == before | scanners
    (entry,) = [e for e in entries(settings, "selection") if e["rules"] == "site/2"]
    assert entry["rules_sha256"] == hashlib.sha256(rules.read_bytes()).hexdigest()


def test_rules_of_a_site_with_an_overseer_must_be_signed(
    settings: Settings, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from telemetry.privacy import sign_file

    key = Ed25519PrivateKey.generate()
    secret, public = tmp_path / "secret.pem", tmp_path / "public.pem"
    secret.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption()))  # fmt: skip
    secret.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))  # fmt: skip
    rules = tmp_path / "rules.toml"
    rules.write_text('version = "s/1"\nreason = "r"\n[[rule]]\nname = "listed"\nlisted = true\n')
    update = {"selection_rules": rules, "overseer_key": public, "authority": approval(tmp_path)}
    mine = settings.model_copy(update=update)
    sign_file(mine.authority, secret)
    with pytest.raises(AuthorityError, match="rules"):
        pipeline.score(mine)
    sign_file(rules, secret)
    pipeline.score(mine)
    rules.write_text(rules.read_text() + "\n# more\n")
    with pytest.raises(AuthorityError, match="rules"):
        pipeline.score(mine)


def test_show_tells_what_goes_when(settings: Settings) -> None:
    answer = call("retention", "show", "--lake", settings.lake, "--json")
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert sum(row["records"] for row in rows) == len(stored(settings.lake))
    assert [row["selected"] for row in rows] == [False, True]
    done = call("retention", "run", "--lake", settings.lake, "--json")
    assert done.code == 0
    assert done.json["holds"] is True


def check_sound(settings: Settings, moment: datetime, erasures: int, nobody: set[str]) -> None:
    """One entry an erasure, wherever it was stopped; nothing that is due is left anywhere."""
    assert call("audit", "verify", "--lake", settings.lake).code == 0
    told = entries(settings, "erasure")
    assert len({e["erasure"] for e in told}) == len(told)
    assert sum(int(e["unselected"] > 0) for e in told) == erasures  # type: ignore[operator]
    for entry in told:
        path = settings.lake / "certificates" / f"{entry['erasure']}.json"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["certificate_sha256"]
    assert holding(settings.lake, nobody) == set()
    assert pipeline.retention(settings, at=moment).facts["holds"] is True


@pytest.mark.parametrize(
    "stop", ["publish", "erase_replaced", "write_certificate", "append", "end_erasure"]
)
def test_stopped_between_any_two_steps_the_erasure_is_ended_and_entered_once(
    settings: Settings, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise Stopped

    moment, nobody = later(31), unselected(settings)
    with monkeypatch.context() as patched:
        owner = {"publish": doors, "append": Ledger}.get(stop, Lake)
        patched.setattr(owner, stop, fail)
        with pytest.raises(Stopped):
            pipeline.retention(settings, at=moment)
    pipeline.retention(settings, at=moment)
    check_sound(settings, moment, 1, nobody)
