"""The benchmark works and its totals agree; how fast anything is, is not tested."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import benchmarks.contenders
from benchmarks import results
from benchmarks.contenders import (
    DPKT,
    INGEST,
    KERNEL,
    MISSING,
    NO_NFCAPD,
    NO_PEERS,
    PEER,
    Contender,
    Round,
    check_totals,
    contenders,
)
from benchmarks.measure import ROOT, BenchmarkError, run_pinned

TOTALS = {"read": 100, "kept": 80, "kept_bytes": 8000}


def contender(name: str, *rounds: Round, items: int = 100, whole: bool = True) -> Contender:
    return Contender(name, lambda: rounds[0], items, whole=whole, rounds=list(rounds))


def round_(wall: float = 1.0, cpu: float = 1.0, **totals: int) -> Round:
    return Round(wall, cpu, 1_000_000, {**TOTALS, **totals})


def test_the_short_form_runs_and_every_total_agrees() -> None:
    report = ROOT / "benchmarks" / "RESULTS.md"
    before = report.read_bytes() if report.exists() else None
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--short"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    for name in (
        "packet kernel",
        "packet reader",
        "sekisho ingest",
        "dpkt",
        "Zeek reader",
        "IPFIX",
    ):
        assert f"\n{name}" in ran.stdout
    if shutil.which("nfpcapd") and shutil.which("nfdump"):
        assert f"\n{PEER}" in ran.stdout
        assert "Totals agree: 200,000 packets" in ran.stdout
    else:
        assert MISSING in ran.stdout
    assert (report.read_bytes() if report.exists() else None) == before
    for line in ran.stdout.splitlines():
        if line.startswith("ALARM"):  # how fast anything is, is told, not tested
            warnings.warn(line, SlowerThanReported, stacklevel=1)


class SlowerThanReported(UserWarning):
    """A part of ours is less than half as fast, beside dpkt, as RESULTS.md says."""


def test_the_alarm_compares_with_what_was_reported_beside_dpkt(tmp_path: Path) -> None:
    def found(seconds: float) -> list[Contender]:
        named = ((KERNEL, seconds), (INGEST, 9.0), (f"{DPKT}, the first 100", 1.0))
        return [contender(name, round_(cpu=cpu)) for name, cpu in named]

    assert results.alarms(found(1.0), tmp_path / "none.md") == []
    report = tmp_path / "RESULTS.md"
    report.write_text("\n".join("| " + " | ".join(row) + " |" for row in results.rows(found(0.1))))
    assert results.alarms(found(0.15), report) == []
    told = results.alarms(found(0.3), report)
    assert told == [f"{KERNEL}: 3.0 times as fast as dpkt, 10.0 in RESULTS.md"]


@pytest.mark.parametrize("wrong", ["read", "kept", "kept_bytes"])
def test_one_packet_or_byte_too_many_is_an_error(wrong: str) -> None:
    ours = contender("ours", round_())
    theirs = contender(PEER, round_(**{wrong: TOTALS[wrong] + 1}))
    check_totals([ours])
    with pytest.raises(BenchmarkError, match="until they agree"):
        check_totals([ours, theirs])


def test_a_slice_is_held_to_its_own_count() -> None:
    piece = contender("dpkt", Round(1.0, 1.0, 0, {"read": 9}), items=10, whole=False)
    with pytest.raises(BenchmarkError, match="counted 9 read, not 10"):
        check_totals([piece])


def test_a_missing_tool_is_said_and_the_rest_still_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(benchmarks.contenders, "PEERS", tmp_path / "python")
    exports = {"IPFIX": tmp_path / "ipfix"}
    found = contenders(tmp_path / "capture", 100_000, tmp_path / "log", 10, exports, 10)
    assert [c.name for c in found if c.name == PEER] == []
    assert len(found) == 7
    for measured in found:
        measured.rounds.append(round_())
    notes = results.notes(found, 100_000)
    assert {MISSING + ".", NO_NFCAPD + ".", NO_PEERS + "."} <= set(notes)
    assert results.rows([contender("ours", round_())])[0][5:7] == ("", "")


def test_ratios_are_of_rates_and_of_the_same_round() -> None:
    peer = contender(PEER, round_(4.0, 2.0), round_(8.0, 2.0), round_(4.0, 2.0))
    ours = contender("ours", round_(1.0, 1.0), round_(2.0, 1.0), round_(0.5, 1.0))
    piece = contender("dpkt", *(round_(4.0, 2.0),) * 3, items=10)
    table = {row[0]: row[5:7] for row in results.rows([peer, ours, piece])}
    assert table == {PEER: ("1.00", "1.00"), "ours": ("4.00", "2.00"), "dpkt": ("0.10", "0.10")}


def test_a_failing_contender_is_an_error_with_its_last_words() -> None:
    with pytest.raises(BenchmarkError, match="exit code 3: the disk is gone"):
        run_pinned(["sh", "-c", "echo the disk is gone >&2; exit 3"])
