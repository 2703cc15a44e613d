"""Runs processes on one core and measures what they take."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = max(os.sched_getaffinity(0))
"""The core that everything measured runs on; low ones take the interrupts."""
CORES = frozenset(os.sched_getaffinity(0))
"""All cores, for what is said to run on all of them."""
_TICK = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A contender failed, or the totals do not agree."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took.

    Attributes:
        wall: Seconds from start to end.
        cpu: Seconds of CPU, user and system.
        memory: Most resident bytes.
        output: Its standard output.
    """

    wall: float
    cpu: float
    memory: int
    output: str


def run_pinned(
    command: Sequence[str], folder: Path = ROOT, cores: Set[int] = frozenset({CORE})
) -> Usage:
    """Runs a command on `CORE`; threads and children it makes stay there too.

    The caller must be small: Linux counts the memory of the process that forked into the
    peak of a short child.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        cores: Other cores than that one.

    Raises:
        BenchmarkError: It failed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SEKISHO_")}
    environment["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            name = " ".join(Path(part).name for part in command[:4])
            raise BenchmarkError(f"{name} failed with exit code {process.returncode}: {last}")
        return Usage(
            wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, output.read().decode()
        )


@dataclass(frozen=True, slots=True)
class Conditions:
    """How quiet the machine was.

    Attributes:
        load: Load averages of one minute, before and after.
        others: Share of `CORE`'s time that went to other processes or to the host.
    """

    load: tuple[float, float]
    others: float


def free_port() -> int:
    """Returns a UDP port that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_fed(command: Sequence[str], task: Sequence[str], folder: Path) -> Usage:
    """Runs a daemon on `CORE` while a task of `benchmarks.worker` feeds it from elsewhere.

    Args:
        command: The daemon; it is asked to end when the task has.
        task: Name and arguments of the task.
        folder: Where it runs.

    Returns:
        What the daemon took.

    Raises:
        BenchmarkError: The task failed.
    """
    started = time.perf_counter()
    daemon = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {CORE}),
    )
    try:
        feeder = [sys.executable, "-m", "benchmarks.worker", *task]
        fed = subprocess.run(feeder, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        daemon.terminate()
        _, status, used = os.wait4(daemon.pid, 0)
        daemon.returncode = os.waitstatus_to_exitcode(status)
    if fed.returncode:
        last = fed.stderr.strip().rpartition("\n")[2]
        raise BenchmarkError(f"Feeding {command[0]} failed: {last}")
    wall, cpu = time.perf_counter() - started, used.ru_utime + used.ru_stime
    return Usage(wall, cpu, used.ru_maxrss * 1024, "")


class Watch:
    """Tells how much of `CORE` was not ours between two moments."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._busy = _busy()
        self._children = _children()
        self._wall = time.perf_counter()

    def stop(self) -> Conditions:
        """Returns the conditions since this object was made."""
        lost = _busy() - self._busy - (_children() - self._children)
        share = max(0.0, lost / (time.perf_counter() - self._wall))
        return Conditions((self._load, os.getloadavg()[0]), share)


def _busy() -> float:
    """Seconds that `CORE` was not idle since the machine started, stolen time included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{CORE}":
            # user nice system idle iowait irq softirq steal; guest time is within user
            return sum(int(ticks[i]) for i in (0, 1, 2, 5, 6, 7)) / _TICK
    return 0.0


def _children() -> float:
    used = os.times()
    return used.children_user + used.children_system
