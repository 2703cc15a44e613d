"""Killed at any instant of a rotation or a destruction, key, ledger and lake are whole."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from e2e import CAPTURES, call, command, environment
from test_approvals import entries

from telemetry.privacy import Keys

KILLS = 6
TRIES = 40
"""Runs started at most: on a busy machine one may end before it is killed."""


def _killed(arguments: list[object], ledger: Path, after: float) -> bool:
    """Starts a command and kills it some time after its first ledger entry."""
    size = ledger.stat().st_size
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    while process.poll() is None and ledger.stat().st_size == size:
        time.sleep(0)
    time.sleep(after)
    process.kill()
    return process.wait() == -signal.SIGKILL


def test_kills_in_rotation_and_destruction_leave_key_and_ledger_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("ingest", CAPTURES / "rawip.pcap", "--lake", "lake").code == 0
    ledger, key = Path("lake/ledger.jsonl"), Path("lake.key")
    rng = random.Random(5)
    killed = 0
    made = Keys.load(key).state()
    for number in range(TRIES):
        if number >= KILLS and killed:
            break
        verb = ["rotate"] if number % 3 else ["destroy", "lake.key"]
        after = 0.01 * rng.random() ** 3 if number < KILLS else 0.0
        killed += _killed(["keys", *verb, "--lake", "lake"], ledger, after)
        state = Keys.load(key).state()
        assert state[0] >= made[0] and state[1] >= made[1]
        made = state
        assert call("audit", "verify", "--lake", "lake").code == 0
        assert call("score", "--lake", "lake").code == 0
        acts = [e["facts"]["state"] for e in entries(Path("lake")) if "state" in e["facts"]]
        assert acts[::2] == ["begun"] * (len(acts) // 2), "every act has an end"
        assert set(acts[1::2]) <= {"done", "interrupted"}
    assert killed, "no run was still going when it was killed"
    # What the file held is used on: new records come in, and the key is the lake's as before.
    assert call("ingest", CAPTURES / "border-b.pcapng", "--lake", "lake").code == 0
    assert call("keys", "rotate", "--lake", "lake").code == 0
