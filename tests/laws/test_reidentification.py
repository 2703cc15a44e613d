"""Pseudonyms can be turned back by one command, under one kind of approval, and leave a trace.

Each test is named for what somebody might try.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from e2e import CAPTURES, call, fixed_key, query_rows
from test_approvals import AUTHORITY, entries

from telemetry.homeland import DOMESTIC, load

SOURCE = CAPTURES / "rawip.pcap"
SCHEMES = ["deterministic", "prefix", "cryptopan"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an authority that allows it, and one that does not."""
    monkeypatch.chdir(tmp_path)
    Path("plain.toml").write_text(AUTHORITY)
    Path("special.toml").write_text(
        AUTHORITY.replace("test/1", "test/2") + 'further_purposes = ["re_identification"]\n'
    )
    return tmp_path


def filled(config: str = "") -> list[object]:
    """Fills a lake with a key of its own, and returns the options that name it.

    Everybody is selected: of others nobody is turned back.
    """
    Path("sekisho.toml").write_text(config)
    options = ("--lake", "lake", "--authority", "plain.toml")
    for words in (("ingest", SOURCE), ("score", "--threshold", "0")):
        assert call(*words, *options).code == 0
    return ["--lake", "lake", "--authority", "special.toml"]


def pids() -> list[str]:
    rows = query_rows(
        Path("lake"), "SELECT DISTINCT peer_pid AS p FROM stored_records ORDER BY ALL"
    )
    return [row["p"] for row in rows if row["p"]]


def ask(pid: str, options: list[object], reason: str = "ticket 17") -> Any:
    return call("reidentify", pid, "--reason", reason, "--json", *options)


@pytest.mark.parametrize("config", ["", "link_epochs = true\n"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_pseudonym_is_turned_back_and_nothing_of_it_stays(
    place: Path, scheme: str, config: str
) -> None:
    options = filled(f'pseudonyms = "{scheme}"\n{config}')
    found = pids()
    before = len(entries(Path("lake")))
    answers = [ask(pid, options).json for pid in found[:20]]
    home = load("JP", ())
    assert {home.class_of_text(answer["address"]) for answer in answers} == {DOMESTIC}
    assert len({answer["address"] for answer in answers}) == len(answers)
    assert {answer["epoch"] == "linked" for answer in answers} == {bool(config)}
    assert all(answer["expires"].endswith("Z") for answer in answers)
    told = entries(Path("lake"))[before:]
    assert [entry["kind"] for entry in told] == ["reidentify"] * len(answers)
    for pid, entry in zip(found, told, strict=False):
        facts = entry["facts"]
        assert facts["authority"] == "test/2"
        assert facts["pid_sha256"] == hashlib.sha256(pid.encode()).hexdigest()
        assert (facts["reason"], facts["outcome"]) == ("ticket 17", "found")
    kept = b"".join(path.read_bytes() for path in Path().rglob("*") if path.is_file())
    for answer in answers:
        packed = ipaddress.ip_address(answer["address"]).packed
        forms = [answer["address"].encode(), packed.hex().encode(), base64.b64encode(packed)]
        assert not any(form in kept for form in forms)


def test_without_a_purpose_nothing_is_turned_back_and_nothing_written(place: Path) -> None:
    filled()
    [pid, *_] = pids()
    before = Path("lake/ledger.jsonl").read_bytes()
    for authority in (["--authority", "plain.toml"], []):
        answer = ask(pid, ["--lake", "lake", *authority])
        assert answer.code == 2 and "does not allow re_identification" in answer.err
        assert answer.out == ""
    assert Path("lake/ledger.jsonl").read_bytes() == before


def test_a_guess_is_no_pseudonym(place: Path) -> None:
    """The command is no oracle for values that no record has; the attempt is on record."""
    options = filled()
    answer = ask("00000000-0000-4000-8000-000000000000", options)
    assert answer.code == 1 and "No record in the lake has this pseudonym" in answer.err
    assert entries(Path("lake"))[-1]["facts"]["outcome"] == "no record"
    for junk in ("1", "x' OR 1=1 --", pids()[0].upper(), "0" * 36):
        answer = ask(junk, options)
        assert answer.code == 2 and "A pseudonym is a UUID" in answer.err


@pytest.mark.parametrize("reason", ["", " ", "x" * 201, "looking at 192.0.2.1"])
def test_no_reason_no_address(place: Path, reason: str) -> None:
    options = filled()
    answer = ask(pids()[0], options, reason)
    assert answer.code == 2 and answer.out == ""
    assert entries(Path("lake"))[-1]["kind"] != "reidentify"


def test_another_key_turns_nothing_back(place: Path) -> None:
    options = filled()
    answer = ask(pids()[0], [*options, "--key", fixed_key(Path("other.key"))])
    assert answer.code == 2 and "another pseudonym key" in answer.err and answer.out == ""


def test_a_destroyed_month_cannot_be_turned_back_or_extended(place: Path) -> None:
    """Crypto-erasure: the records stay, what their pseudonyms mean is gone for everybody."""
    options = filled()
    [pid, *rest] = pids()
    answer = ask(pid, options).json
    shown = call("keys", "show", "--json", *options)
    [epoch] = [json.loads(line)["epoch"] for line in shown.out.splitlines()]
    assert epoch == answer["epoch"]
    done = call("keys", "destroy", epoch, *options)
    assert done.code == 0 and "Secrets destroyed: 1" in done.out
    again = ask(pid, options)
    assert again.code == 2 and again.out == ""
    assert f"The key of epoch {epoch} was destroyed" in again.err
    last = entries(Path("lake"))[-3:]
    assert [entry["kind"] for entry in last] == ["destroy", "destroy", "reidentify"]
    assert [entry["facts"].get("state") for entry in last] == ["begun", "done", None]
    assert last[-1]["facts"]["outcome"] == "key destroyed"
    more = CAPTURES / "border-b.pcapng"
    assert call("ingest", more, "--lake", "lake", "--authority", "plain.toml").code == 0
    assert {pid, *rest} <= set(pids()), "the old records are as they were"
    assert call("audit", "verify", "--lake", "lake").code == 0


def test_a_copy_of_the_key_file_does_not_revive_what_was_destroyed(place: Path) -> None:
    options = filled()
    copy = Path("lake.key").read_bytes()
    assert call("keys", "destroy", "lake.key", *options).code == 0
    Path("lake.key").write_bytes(copy)
    for answer in (
        ask(pids()[0], options),
        call("ingest", CAPTURES / "cooked.pcap", "--lake", "lake", "--authority", "plain.toml"),
        call("keys", "rotate", *options),
    ):
        assert answer.code == 2 and "an older copy" in answer.err and answer.out == ""


def test_after_a_rotation_hosts_have_new_pseudonyms_and_old_ones_still_mean_something(
    place: Path,
) -> None:
    options = filled()
    before = set(pids())
    rotated = call("keys", "rotate", *options)
    assert rotated.code == 0 and "Epochs with a new secret: 1" in rotated.out
    # The same traffic once more, under another sensor: the same hosts and month, new pseudonyms.
    Path("wide.toml").write_text(AUTHORITY.replace('"sample"', '"sample", "other"'))
    again = ("ingest", SOURCE, "--lake", "lake", "--sensor", "other", "--authority", "wide.toml")
    assert call(*again).code == 0
    assert call("score", "--threshold", "0", *options).code == 0
    after = set(pids()) - before
    assert len(after) == len(before)
    addresses = [{ask(p, options).json["address"] for p in sorted(ids)} for ids in (before, after)]
    assert addresses[0] == addresses[1]
    kinds = [e["facts"]["state"] for e in entries(Path("lake")) if e["kind"] == "rotate"]
    assert kinds == ["begun", "done"]


def test_a_crash_in_a_rotation_is_told_by_the_next_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from telemetry.privacy import Keys

    options = filled()

    def power_off(*_: object) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Keys, "rotate", power_off)
        assert call("keys", "rotate", *options).code == 130
    assert call("score", *options).code == 0
    states = [e["facts"]["state"] for e in entries(Path("lake")) if e["kind"] == "rotate"]
    assert states == ["begun", "interrupted"]
    assert call("audit", "verify", "--lake", "lake").code == 0


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("", 'pseudonyms = "prefix"\n'),
        ('pseudonyms = "prefix"\n', 'pseudonyms = "cryptopan"\n'),
        ('pseudonyms = "cryptopan"\n', ""),
        ("", "link_epochs = true\n"),
        ("link_epochs = true\n", ""),
    ],
)
def test_a_lake_has_one_kind_of_pseudonyms_for_ever(place: Path, first: str, then: str) -> None:
    """Months cannot be linked afterwards, nor a scheme changed, by editing the settings."""
    filled(first)
    Path("sekisho.toml").write_text(then)
    answer = call("ingest", CAPTURES / "cooked.pcap", "--lake", "lake", "--authority", "plain.toml")
    assert answer.code == 2 and "a lake has one kind" in answer.err


@pytest.mark.parametrize("linked", [False, True])
def test_linked_months_stand_in_the_ledger(place: Path, linked: bool) -> None:
    filled("link_epochs = true\n" if linked else "")
    [run, *_] = entries(Path("lake"))
    assert (run["kind"], run["facts"]["link_epochs"]) == ("run", linked)


def test_keys_of_version_1_are_read_and_do_not_pretend_to_forget(place: Path) -> None:
    options = [*filled(f'key_file = "{fixed_key(Path("old.key"))}"\n')]
    assert ask(pids()[0], options).code == 0
    for command in (("keys", "rotate"), ("keys", "destroy", "2026-04")):
        answer = call(*command, *options)
        assert answer.code == 2 and "version 1 derives all months" in answer.err
    assert not {"rotate", "destroy"} & {entry["kind"] for entry in entries(Path("lake"))}
