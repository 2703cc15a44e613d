"""What is measured: ours in four parts, and the tools of the field."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import BenchmarkError, Usage, run_pinned

Totals = dict[str, int]
"""Of `read`, `kept`, `kept_bytes`: those that a contender tells."""


@dataclass(frozen=True, slots=True)
class Round:
    """One measured round of one contender: `wall` and `cpu` in seconds, memory in bytes."""

    wall: float
    cpu: float
    memory: int
    totals: Totals


@dataclass(slots=True)
class Contender:
    """Something that is measured.

    Attributes:
        name: In the table.
        run: Measures one round.
        items: Packets or lines in one round.
        unit: What an item is.
        whole: Whether it must find the totals of the whole capture.
        rounds: What was measured so far.
    """

    name: str
    run: Callable[[], Round]
    items: int
    unit: str = "packets"
    whole: bool = True
    rounds: list[Round] = field(default_factory=list)


def ask(task: str, *arguments: object) -> tuple[Usage, dict[str, Any]]:
    """Runs a task of `benchmarks.worker` in a process of its own."""
    parts = [str(argument) for argument in arguments]
    usage = run_pinned([sys.executable, "-m", "benchmarks.worker", task, *parts])
    return usage, json.loads(usage.output)


def _inside(task: str, *arguments: object) -> Round:
    """Measures a part of ours by its own clock, its memory by that of the process."""
    usage, facts = ask(task, *arguments)
    return Round(facts.pop("wall"), facts.pop("cpu"), usage.memory, facts)


@contextmanager
def _scratch(beside: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=beside.parent) as folder:
        yield Path(folder)


def _ingest(capture: Path) -> Round:
    with _scratch(capture) as folder:
        command = [sys.executable, "-m", "telemetry.cli", "ingest", str(capture), "--json"]
        usage = run_pinned([*command, "--lake", "lake"], folder)
        source = json.loads(usage.output)["sources"][0]
        if source["status"] != "ingested":
            raise BenchmarkError(f"The capture was not ingested: {source['error']}")
        _, stored = ask("lake", folder / "lake")
    if source["packets_read"] != source["kept"] + sum(source["dropped"].values()):
        raise BenchmarkError("The counts of sekisho ingest do not add up.")
    totals = {"read": source["packets_read"], **stored}
    return Round(usage.wall, usage.cpu, usage.memory, totals)


def _nfpcapd(capture: Path, crossing: str) -> Round:
    with _scratch(capture) as folder:
        usage = run_pinned(["nfpcapd", "-r", str(capture), "-w", str(folder)], folder)
        read, _ = _nfdump(folder)
        kept, kept_bytes = _nfdump(folder, crossing)
    totals = {"read": read, "kept": kept, "kept_bytes": kept_bytes}
    return Round(usage.wall, usage.cpu, usage.memory, totals)


def _nfdump(folder: Path, *filters: str) -> tuple[int, int]:
    """Returns packets and bytes in the files of a folder, of what passes a filter."""
    command = ["nfdump", "-R", str(folder), "-A", "proto", "-o", "csv", *filters]
    names, values = run_pinned(command, folder).output.splitlines()[-2:]
    summary = dict(zip(names.split(","), values.split(","), strict=True))
    return int(summary["packets"]), int(summary["bytes"])


def _crossing_filter(prefixes: list[str]) -> str:
    """Returns the nfdump filter for what is not between two domestic hosts."""
    inside = [" or ".join(f"{end} net {p}" for p in prefixes) for end in ("src", "dst")]
    return f"not (({inside[0]}) and ({inside[1]}))"


INGEST = "sekisho ingest, whole process"
PEER = "nfpcapd, capture in, nfcapd files out"
MISSING = "nfpcapd: not installed (Debian package nfdump), so there is nothing to compare with"


def contenders(capture: Path, packets: int, log: Path, lines: int) -> list[Contender]:
    """Returns what can be measured here; `PEER` is absent where it is not installed.

    Args:
        capture: What `make_packets` wrote.
        packets: How many it holds.
        log: What `make_zeek` wrote.
        lines: How many it holds.
    """
    part = max(1000, packets // 50)
    found = [
        Contender("packet kernel, from memory", lambda: _inside("kernel", capture), packets),
        Contender("packet reader, from the file", lambda: _inside("reader", capture), packets),
        Contender(INGEST, lambda: _ingest(capture), packets),
    ]
    if shutil.which("nfpcapd") and shutil.which("nfdump"):
        crossing = _crossing_filter(ask("domestic", "-")[1]["prefixes"])
        found.append(Contender(PEER, lambda: _nfpcapd(capture, crossing), packets))
    dpkt = f"dpkt, five-tuples of the first {part:,}"
    found.append(Contender(dpkt, lambda: _inside("dpkt", capture, part), part, whole=False))
    zeek = "Zeek reader, conn.log"
    found.append(Contender(zeek, lambda: _inside("zeek", log), lines, "lines", whole=False))
    return found


def check_totals(found: list[Contender], packets: int) -> None:
    """Checks that all contenders counted the same.

    Packets read are compared with what the capture holds; packets and bytes kept (what is
    not between two domestic hosts) with each other. Bytes are those of the IP packets. Flow
    counts are not compared: every tool cuts flows at timeouts of its own.

    Raises:
        BenchmarkError: They did not.
    """
    agreed: Totals = {"read": packets}
    for contender in found:
        for measured in contender.rounds:
            if not contender.whole:
                _compare(contender.name, measured.totals, {"read": contender.items})
                continue
            _compare(contender.name, measured.totals, agreed)
            for name in ("kept", "kept_bytes"):
                agreed.setdefault(name, measured.totals[name])


def _compare(name: str, counted: Totals, wanted: Totals) -> None:
    for what, value in wanted.items():
        if counted[what] != value:
            raise BenchmarkError(
                f"{name} counted {counted[what]:,} {what.replace('_', ' ')}, not {value:,}; "
                "no figure is shown until they agree."
            )
