"""An approval that ends while a run is under way ends the run, at a clean point."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from e2e import CAPTURES, call, fixed_key, query_rows

from telemetry.pipeline import doors, intake

AUTHORITY = """\
id = "test/1"
basis = "agreement"
purpose = "test"
approver = "nobody"
sensors = ["sample"]
directions = ["out_in", "in_out"]
valid_from = 2020-01-01
valid_until = 2098-12-31
retention_days = 1
"""
SOURCES = [CAPTURES / name for name in ("rawip.pcap", "cooked.pcap", "border-b.pcapng")]


class Clock(datetime):
    """A clock that passes the end of the approval after so many looks."""

    looks = 0
    last = 10**9

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        cls.looks += 1
        end = datetime(2099, 1, 1, tzinfo=UTC)
        return end if cls.looks > cls.last else end - timedelta(seconds=1)


def entries(lake: Path) -> list[dict]:
    return [json.loads(line) for line in (lake / "ledger.jsonl").read_text().splitlines()]


@pytest.fixture
def options(tmp_path: Path) -> list[object]:
    (tmp_path / "authority.toml").write_text(AUTHORITY)
    key = fixed_key(tmp_path / "key")
    lake, authority = tmp_path / "lake", tmp_path / "authority.toml"
    return ["--lake", lake, "--key", key, "--authority", authority]


@pytest.mark.parametrize("commit_each", [1, 256])
def test_expiry_in_the_middle_of_a_run_stops_it_at_a_clean_point(
    tmp_path: Path, options: list[object], monkeypatch: pytest.MonkeyPatch, commit_each: int
) -> None:
    """At whichever look the clock passes the end: whole sources, a balanced ledger, exit code 2."""
    for module in (doors, intake):
        monkeypatch.setattr(module, "datetime", Clock)
    monkeypatch.setattr(intake, "COMMIT_SOURCES", commit_each)
    monkeypatch.setattr(Clock, "last", 10**9)
    stops = set()
    for last in range(1, 14):
        lake = tmp_path / f"lake-{last}"
        monkeypatch.setattr(Clock, "looks", 0)
        monkeypatch.setattr(Clock, "last", last)
        answer = call("ingest", *SOURCES, "--lake", lake, *options[2:])
        if answer.code == 0:
            break
        assert answer.code == 2 and answer.err.count("\n") == 1
        assert "ended at 2099-01-01" in answer.err
        if not lake.exists():  # before the run began
            continue
        *before, stop = entries(lake)
        assert stop["kind"] == "stop"
        assert stop["facts"]["why"] == "expired"
        stored = query_rows(lake, "SELECT * FROM sources")
        assert call("audit", "verify", "--lake", lake).code == 0
        assert len(stored) == len(SOURCES) - stop["facts"]["sources_left"]
        told = [s["sha256"] for e in before if e["kind"] == "ingest" for s in e["facts"]["sources"]]
        assert sorted(told) == sorted(row["sha256"] for row in stored)
        stops.add(stop["facts"]["sources_left"])
    assert stops == {1, 2, 3}, "the clock passed the end before, within and after sources"


def test_a_revocation_stops_a_run_that_is_under_way(
    tmp_path: Path, options: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    revocations = tmp_path / "revocations.toml"
    revocations.write_text("")
    monkeypatch.setenv("SEKISHO_REVOCATIONS", str(revocations))
    ingest_one = intake._ingest_one

    def revoke_after_the_first(*given: object) -> object:
        report = ingest_one(*given)
        revocations.write_text(
            '[[revoked]]\nid = "test/1"\nfrom = 2020-01-01\nreason = "taken back"\n'
        )
        return report

    with monkeypatch.context() as spied:
        spied.setattr(intake, "_ingest_one", revoke_after_the_first)
        answer = call("ingest", *SOURCES, *options)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert "was revoked from 2020-01-01T00:00:00Z: taken back" in answer.err
    assert "1 of 3 sources were read before." in answer.err
    stop = entries(tmp_path / "lake")[-1]
    assert (stop["kind"], stop["facts"]["why"]) == ("stop", "revocation")
    assert stop["facts"]["sources_left"] == 2
    for verb in ("ingest", "run", "score", "list", "report"):
        sources = SOURCES if verb in ("ingest", "run") else []
        assert call(verb, *sources, *options).code == 2
    assert entries(tmp_path / "lake")[-1] == stop


def test_every_entry_names_its_authority(tmp_path: Path, options: list[object]) -> None:
    assert call("run", *SOURCES[:1], CAPTURES.parent / "broken", *options).code == 0
    found = entries(tmp_path / "lake")
    assert {entry["kind"] for entry in found} >= {"run", "refused", "ingest", "commit", "score"}
    assert {entry["facts"]["authority"] for entry in found} == {"test/1"}


def test_authority_check_tells_the_terms_and_what_is_wrong(
    tmp_path: Path, options: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = call("authority", "check", "--json", *options)
    assert good.code == 0
    assert good.json["basis"] == "agreement" and good.json["directions"] == ["out_in", "in_out"]
    assert (good.json["covers"], good.json["signed"]) == (True, False)
    assert good.json["revocations"] == "no list is set"
    monkeypatch.setenv("SEKISHO_REVOCATIONS", str(tmp_path / "revocations.toml"))
    (tmp_path / "revocations.toml").write_text(
        '[[revoked]]\nid = "test/1"\nfrom = 2020-01-01\nreason = "taken back"\n'
    )
    bad = call("authority", "check", "--json", *options)
    assert bad.code == 2 and bad.json["covers"] is False and "was revoked" in bad.err


def test_signing_and_checking_go_together(tmp_path: Path, options: list[object]) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "overseer.pem", tmp_path / "overseer.pub"
    private.touch(0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "sekisho.toml").write_text(f'overseer_key = "{public}"\n')
    check = ("authority", "check", "--json", "--config", tmp_path / "sekisho.toml", *options)
    assert call(*check).code == 2
    signed = call("authority", "sign", tmp_path / "authority.toml", "--key", private)
    assert signed.code == 0 and signed.out.strip().endswith("authority.toml.sig")
    answer = call(*check)
    assert answer.code == 0 and answer.json["signed"] is True
    private.chmod(0o644)
    refused = call("authority", "sign", tmp_path / "authority.toml", "--key", private)
    assert refused.code == 2 and "chmod 600" in refused.err
