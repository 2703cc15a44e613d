"""Fifty faults: killed anywhere in whatever changes a lake, nothing is lost and nothing leaks."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from e2e import CAPTURES, ROOT, TRUTH, call, environment, query_rows, stored
from test_late_discovery import addresses_below, better_table
from test_leaks import search_lake, searcher_of
from test_selection import later

from telemetry import pipeline
from telemetry.settings import Settings, load

FAULTS = 50
ACTS = ("ingest", "purge", "retention", "rotate")
TURNS = ("ingest", "rotate", "retention", "rotate", "purge", "rotate", "ingest", "retention")
"""A purge takes as long as four erasures, a rotation a tenth of one."""
OLD, NEW = ("border-b.pcapng", "conn.log"), ("rawip.pcap", "border-c.pcap.gz", "cooked.pcap")

# Waits for orders with everything imported, so that a kill falls into the act and not into the
# start of Python. A fault is the moment of an audited call (a file opened, moved, removed…) or a
# share of the time that the undisturbed act took.
DRIVER = """
import json, os, signal, sys, threading, time
from datetime import datetime
from pathlib import Path
from telemetry import features, lake, pipeline, privacy, readers, report, scoring
from telemetry.lake import merge
from telemetry.readers import pcap, pcapng, zeek
from telemetry.settings import load

def act(order):
    table = order["homeland"] and Path(order["homeland"])
    settings = load(lake=Path(order["lake"]), homeland=table)
    match order["act"]:
        case "ingest": pipeline.ingest(settings, order["sources"])
        case "purge": pipeline.purge(settings)
        case "retention": pipeline.retention(settings, at=datetime.fromisoformat(order["at"]))
        case "rotate": pipeline.rotate_keys(settings)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def child(order):
    calls = 0
    def hook(event, _):
        nonlocal calls
        if event in WATCHED or event.startswith("sqlite3."):
            calls += 1
            if calls == order["call"]:
                die()
    sys.addaudithook(hook)
    if order["seconds"] is not None:
        timer = threading.Timer(order["seconds"], die)
        timer.daemon = True
        timer.start()
    began = time.monotonic()
    act(order)
    print(json.dumps({"calls": calls, "seconds": time.monotonic() - began}), flush=True)
    os._exit(0)

WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate",
           "os.listdir", "os.scandir", "fcntl.flock", "fcntl.lockf"}
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        try:
            child(json.loads(line))
        except BaseException as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        print(json.dumps({"signal": os.WTERMSIG(status)}), flush=True)
"""


@dataclass
class Driver:
    """The process that carries out acts, and is told where to die."""

    process: subprocess.Popen[str]

    def order(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        defaults = {"homeland": None, "sources": [], "at": None, "call": None, "seconds": None}
        self.process.stdin.write(json.dumps({**defaults, **order}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer
        return answer


@pytest.fixture
def driver() -> Iterator[Driver]:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        yield Driver(process)
        assert process.stdin is not None
        process.stdin.close()


@dataclass
class Case:
    """A filled lake, what a better table knows of it, and what an undisturbed act makes of it."""

    folder: Path
    kept: Path
    homeland: Path
    now_home: list[str]
    at: datetime
    domestic: set[str]
    calm: dict[str, pa.Table] = field(default_factory=dict)

    def words(self, act: str) -> dict[str, Any]:
        """Returns what an act is called with."""
        more: dict[str, dict[str, Any]] = {
            "ingest": {"sources": [str(CAPTURES / name) for name in NEW]},
            "purge": {"homeland": str(self.homeland)},
            "retention": {"at": self.at.isoformat()},
            "rotate": {},
        }
        return {"act": act, **more[act]}

    def again(self) -> Settings:
        """Puts lake and key back as they were, in their place: a catalog names its files whole."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.kept, self.folder)
        return load(lake=self.folder / "lake")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    folder, kept = tmp_path / "hit", tmp_path / "kept"
    folder.mkdir()
    settings = load(lake=folder / "lake")
    pipeline.run(settings, [str(CAPTURES / name) for name in OLD])
    endpoints = [
        row["a"]
        for row in query_rows(
            settings.lake,
            "SELECT DISTINCT unnest([endpoint_ip, peer_ip]) AS a FROM stored_records ORDER BY 1",
        )
        if row["a"] is not None
    ]
    now_home = random.Random(4).sample(endpoints, 6)
    domestic = {
        host for name in (*OLD, *NEW) for host in TRUTH["files"][f"captures/{name}"]["domestic"]
    }
    shutil.copytree(folder, kept)
    better = better_table(tmp_path, endpoints, now_home)
    return Case(folder, kept, better, now_home, later(31), domestic)


def unkeyed(lake: Path) -> pa.Table:
    """Returns all records without their pseudonyms: a new month's secret is drawn at random."""
    table = stored(lake).drop_columns(["peer_pid", "peer_net_pid"])
    return table.sort_by([(name, "ascending") for name in _plain(table)])


def _plain(table: pa.Table) -> list[str]:
    return [f.name for f in table.schema if not pa.types.is_list(f.type)]


def check_whole(case: Case, settings: Settings, act: str) -> None:
    """The lake is what the undisturbed act made; the ledger holds, by two verifiers."""
    lake = settings.lake
    assert unkeyed(lake).equals(case.calm[act])
    assert call("audit", "verify", "--lake", lake).code == 0
    outside = [sys.executable, str(ROOT / "data" / "verify_ledger.py"), str(lake / "ledger.jsonl")]
    assert subprocess.run(outside, capture_output=True, check=False).returncode == 0
    assert list((lake / "tmp").iterdir()) == []
    if act == "purge":
        assert addresses_below(lake, case.now_home) == {}


@pytest.mark.timeout(900)
def test_fifty_faults_leave_lake_and_ledger_whole_and_nothing_domestic(
    case: Case, driver: Driver
) -> None:
    rng = random.Random(20261126)
    searcher = searcher_of(case.domestic, TRUTH["canary_words"])
    bounds = {}
    for act in ACTS:
        settings = case.again()
        bounds[act] = driver.order(lake=str(settings.lake), **case.words(act))
        case.calm[act] = unkeyed(settings.lake)
    killed: Counter[str] = Counter()
    for number in range(FAULTS):
        act = TURNS[number % len(TURNS)]
        settings = case.again()
        fault = (
            {"call": rng.randint(1, bounds[act]["calls"])}
            if number // len(TURNS) % 2
            else {"seconds": rng.uniform(0, 0.9 * bounds[act]["seconds"])}
        )
        answer = driver.order(lake=str(settings.lake), **case.words(act), **fault)
        killed[act] += answer.get("signal") == signal.SIGKILL
        # Before anybody mends anything: what the dead run left holds nothing domestic.
        for path in settings.lake.rglob("*"):
            if path.is_file():
                assert not searcher.raw(path.read_bytes()), (act, fault, path.name)
        driver.order(lake=str(settings.lake), **case.words(act))
        check_whole(case, settings, act)
        if number >= FAULTS - len(TURNS):  # inside compressed columns too; that takes its time
            assert search_lake(searcher, settings.lake) == {}, (act, fault)
    assert sum(killed.values()) >= 0.8 * FAULTS, killed
    assert all(killed[act] for act in ACTS), killed
