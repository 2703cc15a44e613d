"""Answers to programs: their shape does not change, and stdout holds nothing else."""

from __future__ import annotations

import copy
import json
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args

import pytest
from e2e import BROKEN, CAPTURES, LISTS, Answer, call, environment, fixed_key, spawn
from jsonschema import Draft202012Validator, ValidationError

from telemetry.readers import reader_names
from telemetry.reasons import DROPS
from telemetry.records import Role, Status

COUNT = {"type": "integer", "minimum": 0}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"}


def closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def array(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items} | more


SOURCE = closed(
    path={"type": "string", "minLength": 1},
    sha256={"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"},
    format={"enum": [*reader_names(), None]},
    linktypes=array({"type": "string"}, uniqueItems=True),
    packets_read=COUNT,
    records_read=COUNT,
    kept=COUNT,
    dropped={
        "type": "object",
        "propertyNames": {"enum": [reason.label for reason in DROPS]},
        "additionalProperties": {"type": "integer", "minimum": 1},
    },
    records_written=COUNT,
    status={"enum": list(get_args(Status))},
    error={"type": ["string", "null"], "pattern": r"^\S.*\S$"},
    first_seen={"anyOf": [TIME, {"type": "null"}]},
    last_seen={"anyOf": [TIME, {"type": "null"}]},
)
INGEST = closed(
    run={"type": "string", "pattern": r"^\d{8}T\d{6}-[0-9a-f]{6}$"},
    sources=array(SOURCE, minItems=1),
    seconds={"type": "number", "minimum": 0},
)
REASON = closed(
    name={"type": "string", "pattern": "^[a-z_]+$"},
    text={"type": "string", "minLength": 1},
    contribution={"type": "number"},
)
_ENTRY = dict(
    endpoint={"type": "string"},
    score={"type": "number", "minimum": 0, "maximum": 1},
    role={"enum": list(get_args(Role))},
    listed={"type": "boolean"},
    confidence={"type": "integer", "minimum": 0, "maximum": 100},
    reasons=array(REASON),
    first_seen=TIME,
    last_seen=TIME,
    records={"type": "integer", "minimum": 1},
)
_ENDPOINT = dict(
    **_ENTRY,
    novelty={"type": "number", "minimum": 0, "maximum": 1},
    novelty_in={"type": ["string", "null"]},
)
ENTRY = closed(**_ENTRY)
ENDPOINT = closed(**_ENDPOINT)
SERVICE = closed(
    protocol={"type": "integer", "minimum": 0, "maximum": 255},
    port={"type": ["integer", "null"], "minimum": 0, "maximum": 65535},
    service={"type": "string"},
    opened_by={"enum": ["endpoint", "peer"]},
    records={"type": "integer", "minimum": 1},
    peers={"type": "integer", "minimum": 1},
    sent_bytes={"type": ["integer", "null"], "minimum": 0},
    got_bytes={"type": ["integer", "null"], "minimum": 0},
    first_seen=TIME,
    last_seen=TIME,
)
PEER = closed(
    peer={"type": "string", "minLength": 1},
    side={"enum": ["inside", "foreign"]},
    records={"type": "integer", "minimum": 1},
    sent_bytes={"type": ["integer", "null"], "minimum": 0},
    got_bytes={"type": ["integer", "null"], "minimum": 0},
    sampling_rate={"type": "integer", "minimum": 1},
    first_seen=TIME,
    last_seen=TIME,
)
CASE = closed(
    **_ENDPOINT,
    expired={"type": "boolean"},
    services=array(SERVICE, minItems=1),
    peers=array(PEER, minItems=1),
    course=array(COUNT, minItems=60, maxItems=60),
)
ENDPOINTS = closed(endpoints=array(ENDPOINT))
ENTRIES = closed(endpoints=array(ENTRY))
RUN = closed(ingest=INGEST, score=ENDPOINTS, files=array({"type": "string"}, uniqueItems=True))

BEACON = "22.51.207.57"
"""A server of command and control in conn.log."""
SOURCES = [
    CAPTURES / "cooked.pcap",
    CAPTURES / "conn.log",
    CAPTURES / "border-b.pcapng",
    BROKEN / "truncated_tail.pcap",
    BROKEN / "no_packets.pcap",
    BROKEN / "empty.pcap",
    BROKEN / "not_a_capture.txt",
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers") / "lake"


@pytest.fixture(scope="module")
def answers(lake: Path) -> dict[str, Answer]:
    """Every command that answers in JSON, one after the other on one lake."""
    shared = ["--lake", lake, "--key", fixed_key(lake.with_name("key")), "--json"]
    return {
        "ingest": call("ingest", *SOURCES, *shared),
        "again": call("ingest", *SOURCES, *shared),
        "score": call("score", *shared),
        "list": call("list", *shared),
        "explain": call("explain", BEACON, *shared),
        "run": call("run", CAPTURES / "rawip.pcap", CAPTURES / "cooked.pcap", *shared),
    }


def check(answer: Any, shape: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(shape)
    Draft202012Validator(shape).validate(answer)


@pytest.mark.parametrize(
    ("name", "shape", "code"),
    [
        ("ingest", INGEST, 1),
        ("again", INGEST, 1),
        ("score", ENDPOINTS, 0),
        ("list", ENTRIES, 0),
        ("explain", CASE, 0),
        ("run", RUN, 0),
    ],
)
def test_an_answer_is_one_document_of_the_agreed_shape(answers, name, shape, code):
    answer = answers[name]
    check(answer.json, shape)
    assert answer.out.count("\n") == 1
    assert answer.err.count("\n") == code  # a sentence when it failed, else nothing
    assert answer.code == code


def test_a_case_agrees_with_the_score_and_adds_up(answers):
    case = answers["explain"].json
    (scored,) = [
        one for one in answers["score"].json["endpoints"] if one["endpoint"] == case["endpoint"]
    ]
    assert {name: case[name] for name in scored} == scored
    assert sum(case["course"]) == sum(one["records"] for one in case["services"])
    assert case["records"] == sum(case["course"])
    assert case["records"] == sum(one["records"] for one in case["peers"])


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("133.11.0.1", "No selected endpoint has that address"),  # inside
        ("192.0.2.77", "No selected endpoint has that address"),  # nobody
        ("' OR 1=1 --", "That is no address"),
    ],
)
def test_who_is_not_selected_is_neither_shown_nor_named(answers, lake, asked, sentence):
    assert answers["score"].code == 0
    refused = call("explain", asked, "--lake", lake)
    assert (refused.code, refused.out) == (2, "")
    assert sentence in refused.err
    assert asked not in refused.err


def test_a_case_is_drawn_for_a_person(answers, lake):
    assert answers["explain"].code == 0
    mapped = f"::ffff:{BEACON}"
    shown = call("explain", mapped, "--lake", lake).out
    utf8 = spawn("explain", mapped, "--lake", lake, env=environment(PYTHONIOENCODING="utf-8")).out
    assert f"{BEACON}  command and control: gives orders to infected hosts" in shown
    assert "rhythm: an inside host connects every" in shown
    for said, bars in ((shown, " .,:;+*%#"), (utf8, " ▁▂▃▄▅▆▇█")):
        (course,) = [line for line in said.splitlines() if line and set(line) <= set(bars)]
        assert len(course) == 60
    peers = {one["peer"] for one in answers["explain"].json["peers"]}
    assert all(peer in shown for peer in peers)
    assert "listed; " in shown and "novelty, no evidence: " in shown


def test_who_is_listed_but_left_out_of_the_list_is_told(answers, lake):
    assert answers["list"].code == 0
    manifest = lake / "lists" / "manifest.json"
    whole = manifest.read_text(encoding="utf-8")
    try:
        manifest.write_text(json.dumps(json.loads(whole) | {"data_up_to": "2099-01-01T00:00:00Z"}))
        assert "listed, but last seen so long ago" in call("explain", BEACON, "--lake", lake).out
    finally:
        manifest.write_text(whole, encoding="utf-8")


@pytest.mark.parametrize("name", ["ingest", "again"])
def test_every_source_balances(answers, name):
    for source in answers[name].json["sources"]:
        assert source["packets_read"] == 0 or source["records_read"] == 0
        read = source["packets_read"] + source["records_read"]
        assert read == source["kept"] + sum(source["dropped"].values())


def test_a_source_says_what_became_of_it(answers):
    first = {Path(s["path"]).name: s for s in answers["ingest"].json["sources"]}
    assert [s["path"] for s in answers["ingest"].json["sources"]] == [str(p) for p in SOURCES]
    assert {name: s["status"] for name, s in first.items()} == {
        "cooked.pcap": "ingested",
        "conn.log": "ingested",
        "border-b.pcapng": "ingested",
        "truncated_tail.pcap": "ingested",
        "no_packets.pcap": "ingested",
        "empty.pcap": "refused",
        "not_a_capture.txt": "refused",
    }
    assert [name for name, s in first.items() if s["error"]] == [
        "truncated_tail.pcap",
        "empty.pcap",
        "not_a_capture.txt",
    ]
    assert first["border-b.pcapng"]["linktypes"] == ["ethernet", "raw"]
    assert (first["conn.log"]["packets_read"], first["conn.log"]["records_read"]) == (0, 1877)


def test_a_known_source_is_named_and_not_counted_again(answers):
    first, again = (answers[name].json["sources"] for name in ("ingest", "again"))
    assert [s["sha256"] for s in again] == [s["sha256"] for s in first]
    known = [s for s in again if s["status"] != "refused"]
    assert len(known) == 5
    for source in known:
        assert source["status"] == "already_ingested"
        assert source["kept"] == source["packets_read"] == source["records_written"] == 0
        assert source["error"] is None


def test_a_run_joins_both_answers_and_names_its_files(answers, lake):
    run = answers["run"].json
    assert [s["status"] for s in run["ingest"]["sources"]] == ["ingested", "already_ingested"]
    assert {Path(path).relative_to(lake).as_posix() for path in run["files"]} == {
        *(f"lists/{name}" for name in LISTS),
        "lists/manifest.json",
        "reports/report.html",
    }
    assert all(Path(path).is_file() for path in run["files"])


def test_scores_go_from_highest_to_lowest(answers):
    endpoints = answers["score"].json["endpoints"]
    assert len(endpoints) > 100
    assert endpoints == sorted(endpoints, key=lambda e: (-e["score"], e["endpoint"]))
    for endpoint in endpoints:
        contributions = [reason["contribution"] for reason in endpoint["reasons"]]
        assert contributions == sorted(contributions, reverse=True)
        assert str(ip_address(endpoint["endpoint"])) == endpoint["endpoint"]
        assert _time(endpoint["first_seen"]) <= _time(endpoint["last_seen"])


def test_the_list_holds_the_listed_scores_unchanged(answers):
    told = [e for e in answers["score"].json["endpoints"] if e["listed"]]
    listed = [{name: e[name] for name in _ENTRY} for e in told]
    assert listed
    assert answers["list"].json["endpoints"] == listed


def test_the_schemas_refuse_what_is_not_agreed(answers):
    good = answers["run"].json
    for change in (
        lambda a: a.update(extra=1),
        lambda a: a["ingest"].pop("seconds"),
        lambda a: a["ingest"]["sources"][0].update(named=True),
        lambda a: a["ingest"]["sources"][0]["dropped"].update(because=1),
        lambda a: a["score"]["endpoints"][0].update(role="evil"),
        lambda a: a["score"]["endpoints"][0].update(first_seen="2026-10-14 00:00:00"),
        lambda a: a["score"]["endpoints"][0]["reasons"][0].pop("contribution"),
    ):
        bad = copy.deepcopy(good)
        change(bad)
        with pytest.raises(ValidationError):
            check(bad, RUN)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
