"""`audit report`: the account of a real lake, and what becomes of it when a number is changed."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
from e2e import CAPTURES, Answer, call, query_rows, sample_run, settings_in

from telemetry import pipeline
from telemetry.errors import LakeBusy
from telemetry.lake import Lake
from telemetry.pipeline.doors import utc_now
from telemetry.privacy import Ledger
from telemetry.report.terms import TERMS
from telemetry.settings import Settings

SCHEMA = json.loads((Path(__file__).parents[1] / "report" / "overseers.schema.json").read_text())


def report(lake: Path, *more: object) -> Answer:
    return call("audit", "report", "--lake", lake, *more)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """The lake of the sample run, to be changed."""
    shutil.copytree(sample_run().settings.lake, tmp_path / "lake")
    return tmp_path / "lake"


def change(lake: Path, sql: str) -> None:
    with sqlite3.connect(lake / "files.sqlite") as table:
        assert table.execute(sql).rowcount >= 1
    table.close()


def test_the_account_of_a_run_agrees_and_holds_its_figures(lake: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in lake.rglob("*") if p.is_file() and "sqlite-" not in p.name}
    answer = report(lake, "--json")
    assert (answer.code, answer.err) == (0, "")
    told = answer.json
    jsonschema.validate(told, SCHEMA)
    assert told["agrees"]
    ingested = sample_run().report.ingest.sources
    packets = [s for s in ingested if s.packets_read]
    assert told["traffic"]["packets"]["read"] == sum(s.packets_read for s in packets)
    assert told["traffic"]["packets"]["kept"] == sum(s.kept for s in packets)
    assert told["acts"]["endpoints_scored"] == len(sample_run().report.endpoints)
    assert told["acts"]["exports"] == told["acts"]["reports"] == 1
    assert told["approvals"][0]["basis"] == "agreement"
    stored = told["segments"]["selected"] + told["segments"]["quarantined"]
    assert stored == Lake.peek_counters(lake).segments.written - told["segments"]["merged"]
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_page_and_the_text_speak_both_languages(
    lake: Path, tmp_path: Path, language: str
) -> None:
    page = tmp_path / "page.html"
    proceedings = tmp_path / "oversight.toml"
    proceedings.write_text("[article_17]\nrequests = 31\napprovals = 29\n")
    answer = report(lake, "--html", page, "--lang", language, "--oversight", proceedings)
    assert (answer.code, answer.out) == (0, f"{page}\n")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    html = page.read_text("utf-8")
    said = report(lake, "--lang", language, "--oversight", proceedings).out
    for text in (html, said):
        assert TERMS["agree"][language == "ja"] in text
        assert "29" in text
    assert f'<html lang="{language}">' in html


CHANGES = {
    "more kept": "UPDATE sources SET kept = kept + 1 WHERE kept > 0",
    "less read": "UPDATE sources SET read = read - 1 WHERE read > 0",
    "a source gone": "DELETE FROM sources WHERE rowid = 1",
    "a reason changed": "UPDATE sources SET dropped = replace(dropped, 'domestic', 'not_ip')",
    "records gone": "DELETE FROM files WHERE rowid IN "
    "(SELECT rowid FROM files WHERE kind = 'records' LIMIT 1)",
    "scores gone": "DELETE FROM files WHERE kind = 'scores'",
    "an erasure unsaid": "UPDATE counters SET value = value + 3 WHERE name = 'erased'",
    "more written": "UPDATE counters SET value = value + 1 WHERE name = 'written'",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_number_changed_behind_the_ledger_is_found(lake: Path, tmp_path: Path, what: str) -> None:
    change(lake, CHANGES[what])
    page = tmp_path / "page.html"
    answer = report(lake, "--html", page)
    assert (answer.code, answer.out) == (1, f"{page}\n")
    assert "Ledger and lake differ in" in answer.err
    html = page.read_text("utf-8")
    assert '<tr class="bad">' in html
    assert TERMS["disagree"][0] in html
    assert not report(lake, "--json").json["agrees"]


def test_a_changed_ledger_is_not_added_up(lake: Path) -> None:
    ledger = lake / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"kept":', b'"kept":1', 1))
    answer = report(lake)
    assert (answer.code, answer.out) == (1, "")
    assert "does not verify" in answer.err


@pytest.mark.parametrize(
    ("kind", "facts"),
    [("ingest", {"run": "r"}), ("score", {"endpoints": "all"}), ("purge", {"records": None})],
)
def test_a_forged_entry_that_chains_is_told_apart(
    lake: Path, kind: str, facts: dict[str, object]
) -> None:
    Ledger(lake / "ledger.jsonl").append(kind, authority="a", **facts)
    answer = report(lake)
    assert (answer.code, answer.out) == (1, "")
    assert "compare it with a copy" in answer.err
    assert answer.has_no_traceback()


def test_an_erasure_is_accounted_for(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    pipeline.run(settings, [str(CAPTURES / name) for name in ("border-b.pcapng", "conn.log")])
    erased = pipeline.retention(settings, at=utc_now() + timedelta(days=31)).erased
    made = pipeline.audit_report(settings)
    assert made.account.differences == []
    assert made.account.acts["unselected_erased"] == erased.unselected > 0
    assert made.account.seconds["erasure_late"] is not None
    pipeline.score(settings)
    assert pipeline.audit_report(settings).account.differences == []


def test_it_waits_for_no_run_and_disturbs_none(lake: Path) -> None:
    settings = Settings(lake=lake)
    meta = Lake.peek(lake)
    with (
        Lake.create_or_open(lake, policy_tag=meta.policy_tag, key_id=meta.key_id),
        pytest.raises(LakeBusy),
    ):
        pipeline.audit_report(settings)
    assert pipeline.audit_report(settings).account.differences == []


def test_an_auditor_gets_it_without_the_key(lake: Path) -> None:
    assert not lake.with_name("lake.key").exists()
    assert report(lake, "--role", "auditor").code == 0
    assert query_rows(lake, "SELECT count(*) AS n FROM sources")[0]["n"]


def test_there_is_no_report_without_a_lake(tmp_path: Path) -> None:
    answer = report(tmp_path / "nowhere")
    assert (answer.code, answer.out) == (1, "")
    assert "There is no lake" in answer.err
