"""Killed at any instant, nothing is lost, doubled or left lying around."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e import (
    CAPTURES,
    TRUTH,
    call,
    environment,
    fixed_key,
    query_rows,
    settings_in,
    stored,
)
from test_pipeline import contiguous, frames, unpacked

from telemetry import pipeline
from telemetry.lake import Lake

DRIVER = """
import sys
from telemetry import cli
from telemetry.pipeline import intake
intake.COMMIT_SOURCES = 2  # several commits, so that kills fall between them too
sys.exit(cli.main(sys.argv[1:]))
"""
DEAF = """
import sys, time
from telemetry import cli, pipeline
def swallow(*_):
    print("on", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:  # as an extension does that clears errors
        time.sleep(60)
pipeline.run = swallow
sys.exit(cli.main(sys.argv[1:]))
"""
WHOLE = ("border-b.pcapng", "conn.log", "conn.json.log", "cooked.pcap", "rawip.pcap")
CUT = ("ddos.pcap.gz", "border-c.pcap.gz")
KILLS = 5
PLACES = {"records", "scores", "selection", "quarantine", "certificates", "lists", "reports",
          "tmp", "lock", "files.sqlite", "analyst.duckdb", "ledger.jsonl"}  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Captures as they are and in pieces: pieces make merges, which can be hit as well."""
    folder = tmp_path_factory.mktemp("pieces")
    rng = random.Random(20261123)
    found = [CAPTURES / name for name in WHOLE]
    for name in CUT:
        head, packets = frames(unpacked(CAPTURES / name))
        for number, piece in enumerate(contiguous(packets, rng)):
            found.append(folder / f"{name}.{number}")
            found[-1].write_bytes(head + b"".join(piece))
    rng.shuffle(found)
    return found


def test_kills_do_not_show(sources: list[Path], tmp_path: Path) -> None:
    calm = settings_in(tmp_path / "calm")
    pipeline.ingest(calm, [str(source) for source in sources])

    rng = random.Random(7)
    lake, key = tmp_path / "hit" / "lake", tmp_path / "hit" / "key"
    lake.parent.mkdir()
    fixed_key(key)
    killed = [
        # Each time there is something new to take in, and something old to step over.
        _killed_ingest(
            sources[: 2 * number + 2], lake, key, after=rng.uniform(0, 1) * number / KILLS
        )
        for number in range(1, KILLS + 1)
    ]
    assert sum(killed) >= KILLS // 2, "most runs were over before the kill: kill sooner"

    last = call("ingest", *sources, "--lake", lake, "--key", key, "--json")
    assert last.code == 0
    assert {s["status"] for s in last.json["sources"]} <= {"ingested", "already_ingested"}
    assert stored(lake).equals(stored(calm.lake))
    assert call("audit", "verify", "--lake", lake).code == 0
    _check_sources(lake, len(sources))
    _check_ledger(lake)
    check_files(lake)


@pytest.mark.parametrize("after", [0.0, 0.004, 0.02])
def test_a_lake_killed_at_its_birth_comes_to_life(tmp_path: Path, after: float) -> None:
    lake, key = tmp_path / "lake", fixed_key(tmp_path / "key")
    source = CAPTURES / "rawip.pcap"
    assert _killed_ingest([source], lake, key, after, at_birth=True)
    answer = call("ingest", source, "--lake", lake, "--key", key, "--json")
    assert (answer.code, answer.json["sources"][0]["kept"]) == (0, 2755)
    assert call("audit", "verify", "--lake", lake).code == 0
    check_files(lake)


@pytest.mark.parametrize("after", [0.0, 0.15, 0.35, 0.6])
def test_an_interrupt_is_one_sentence(tmp_path: Path, after: float) -> None:
    lake, key = tmp_path / "lake", fixed_key(tmp_path / "key")
    process = _started(["run", str(CAPTURES), "--lake", str(lake), "--key", str(key)])
    wait_for(process, (lake / "ledger.jsonl").exists)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b"sekisho: Stopped; nothing that was stored is lost. Run it again for the rest.\n"
    assert call("audit", "verify", "--lake", lake).code == 0
    assert call("ingest", CAPTURES / "rawip.pcap", "--lake", lake, "--key", key).code == 0


def test_an_interrupt_of_a_flow_is_the_same_sentence(tmp_path: Path) -> None:
    lake, key = tmp_path / "lake", fixed_key(tmp_path / "key")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "flows.daily",
            str(CAPTURES),
            "--lake",
            str(lake),
            "--key",
            str(key),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    wait_for(process, (lake / "ledger.jsonl").exists)
    time.sleep(0.8)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b"sekisho: Stopped; nothing that was stored is lost. Run it again for the rest.\n"


def test_an_interrupt_that_a_library_swallows_is_said_again(tmp_path: Path) -> None:
    process = _started(["run", str(CAPTURES), "--lake", str(tmp_path)], DEAF, subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"on\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == b"sekisho: Stopped; nothing that was stored is lost. Run it again for the rest.\n"


def _started(
    arguments: list[str], driver: str = DRIVER, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", driver, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def wait_for(process: subprocess.Popen[bytes], happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not happened():
        time.sleep(0.001)


def _killed_ingest(
    sources: list[Path], lake: Path, key: Path, after: float, at_birth: bool = False
) -> bool:
    """Starts an ingest and kills it some time after its first ledger entry, or its first folder."""
    arguments = ["ingest", *map(str, sources), "--lake", str(lake), "--key", str(key)]
    ledger = lake / "ledger.jsonl"
    size = ledger.stat().st_size if ledger.exists() else 0
    process = _started(arguments)

    def begun() -> bool:
        if at_birth:
            return lake.exists()
        return ledger.exists() and ledger.stat().st_size > size

    wait_for(process, begun)
    time.sleep(after)
    process.kill()
    _, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err.decode()
    return process.returncode == -signal.SIGKILL


def _check_sources(lake: Path, number: int) -> None:
    """Every source is there once, balances, and the sums are those of the truth."""
    rows = query_rows(lake, "SELECT * FROM sources")
    assert len(rows) == len({row["sha256"] for row in rows}) == number
    for row in rows:
        assert row["read"] == row["kept"] + sum(n for _, n in row["dropped"])
    truths = [TRUTH["files"][f"captures/{name}"] for name in (*WHOLE, *CUT)]
    assert sum(row["read"] for row in rows) == sum(
        truth.get("packets", 0) + truth.get("records", 0) for truth in truths
    )
    assert sum(row["kept"] for row in rows) == sum(
        n for truth in truths for way, n in truth["directions"].items() if way != "in_in"
    )


def _check_ledger(lake: Path) -> None:
    """Nothing is in the lake that the ledger does not account for, with the same counts."""
    entries = [json.loads(line) for line in (lake / "ledger.jsonl").read_text().splitlines()]
    told = {
        source["sha256"]: source
        for entry in entries
        if entry["kind"] == "ingest"
        for source in entry["facts"]["sources"]
    }
    for row in query_rows(lake, "SELECT * FROM sources"):
        facts = told[row["sha256"]]
        assert facts["packets_read"] + facts["records_read"] == row["read"]
        assert facts["kept"] == row["kept"]
        assert facts["dropped"] == dict(row["dropped"])


def check_files(lake: Path) -> None:
    """Only listed files, in known places; what a merge replaced waits for its readers."""
    assert {path.name for path in lake.iterdir()} <= PLACES
    assert list((lake / "tmp").iterdir()) == []
    meta = Lake.peek(lake)
    with Lake.create_or_open(lake, policy_tag=meta.policy_tag, key_id=meta.key_id) as opened:
        opened.remove_retired(0)
        listed = {file.name for file in opened.files()}
    found = {
        path.relative_to(lake).as_posix()
        for folder in ("records", "quarantine/records")
        for path in (lake / folder).rglob("*.parquet")
    }
    assert listed
    assert found == listed


def test_a_lake_whose_ledger_is_gone_takes_and_gives_nothing(tmp_path: Path) -> None:
    lake, key = tmp_path / "lake", fixed_key(tmp_path / "key")
    options = ("--lake", lake, "--key", key)
    assert call("ingest", CAPTURES / "rawip.pcap", *options).code == 0
    for spoil in (lambda path: path.write_bytes(b""), lambda path: path.unlink()):
        spoil(lake / "ledger.jsonl")
        for command in (("ingest", CAPTURES / "cooked.pcap"), ("score",), ("audit", "verify")):
            answer = call(*command, *options)
            assert answer.code == 1 and "ledger" in answer.err, answer
        assert Lake.stored_sources(lake) == 1


def test_what_a_crash_left_open_in_the_ledger_is_settled(tmp_path: Path, monkeypatch) -> None:
    lake, key = tmp_path / "lake", fixed_key(tmp_path / "key")
    options = ("--lake", lake, "--key", key)

    def power_off(_: Lake) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Lake, "commit", power_off)
        assert call("ingest", CAPTURES / "rawip.pcap", *options).code == 130
    assert call("ingest", CAPTURES / "cooked.pcap", *options).code == 0
    with monkeypatch.context() as broken:
        broken.setattr(Lake, "merge", power_off)
        assert call("ingest", CAPTURES / "rawip.pcap", *options).code == 130
    lines = (lake / "ledger.jsonl").read_text().splitlines()
    ends = [e["kind"] for e in map(json.loads, lines) if e["kind"] in ("commit", "abandoned")]
    assert ends == ["abandoned", "commit", "commit"]
