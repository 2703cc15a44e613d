"""What is measured: ours in four parts, and the tools of the field."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    CORE,
    CORES,
    ROOT,
    BenchmarkError,
    Usage,
    free_port,
    run_fed,
    run_pinned,
)

Totals = dict[str, int]
"""Of `read`, `kept`, `kept_bytes`: those that a contender tells."""


KERNEL = "packet kernel, from memory"
READER = "packet reader, from the file"
GATE = "gate alone: classes, verdicts, pseudonyms"
INGEST = "sekisho ingest, whole process"
PEER = "nfpcapd, capture in, nfcapd files out"
MISSING = "nfpcapd: not installed (Debian package nfdump), so there is nothing to compare with"
NO_NFCAPD = "nfcapd: not installed (Debian package nfdump)"
NO_PEERS = "The packages netflow and zat: not installed (`make peers`)"
ZAT = "zat (PyPI), conn.log to dictionaries"
ARGUS = "Argus, capture in, its flows out"
SOFTFLOWD = "softflowd, capture in, no flows out"
DPKT = "dpkt, five-tuples"
PEERS = ROOT / "benchmarks" / ".peers" / "bin" / "python"
"""Python of the environment that holds other people's packages."""


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
        whole: Whether it must find the totals of the whole input.
        input: Name of the input; those of one input are compared with each other.
        peer: Whom it is measured against, by name.
        rounds: What was measured so far.
    """

    name: str
    run: Callable[[], Round]
    items: int
    unit: str = "packets"
    whole: bool = True
    input: str = "packets"
    peer: str = PEER
    rounds: list[Round] = field(default_factory=list)


def ask(
    task: str, *arguments: object, python: str = sys.executable
) -> tuple[Usage, dict[str, Any]]:
    """Runs a task of `benchmarks.worker` in a process of its own."""
    parts = [str(argument) for argument in arguments]
    usage = run_pinned([python, "-m", "benchmarks.worker", task, *parts])
    return usage, json.loads(usage.output)


def _inside(task: str, *arguments: object, python: str = sys.executable) -> Round:
    """Measures a part by its own clock, its memory by that of the process."""
    usage, facts = ask(task, *arguments, python=python)
    return Round(facts.pop("wall"), facts.pop("cpu"), usage.memory, facts)


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """Makes a folder on the disk of an input, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=beside.parent) as folder:
        yield Path(folder)


def ingest(capture: Path, cores: Set[int] = frozenset({CORE})) -> Round:
    """Measures a whole `sekisho ingest` into a new lake."""
    with scratch(capture) as folder:
        command = [sys.executable, "-m", "telemetry.cli", "ingest", str(capture), "--json"]
        usage = run_pinned([*command, "--lake", "lake"], folder, cores)
        source = json.loads(usage.output)["sources"][0]
        if source["status"] != "ingested":
            raise BenchmarkError(f"The capture was not ingested: {source['error']}")
        _, stored = ask("lake", folder / "lake")
    if source["packets_read"] != source["kept"] + sum(source["dropped"].values()):
        raise BenchmarkError("The counts of sekisho ingest do not add up.")
    totals = {"read": source["packets_read"], **stored}
    return Round(usage.wall, usage.cpu, usage.memory, totals)


def nfpcapd(capture: Path) -> Round:
    """Measures a whole nfpcapd, and counts what it wrote."""
    crossing = _crossing_filter(ask("domestic", "-")[1]["prefixes"])
    with scratch(capture) as folder:
        usage = run_pinned(["nfpcapd", "-r", str(capture), "-w", str(folder)], folder)
        read, _ = _nfdump(folder)
        kept, kept_bytes = _nfdump(folder, crossing)
    totals = {"read": read, "kept": kept, "kept_bytes": kept_bytes}
    return Round(usage.wall, usage.cpu, usage.memory, totals)


def _argus(capture: Path) -> Round:
    """Measures a whole Argus, and counts what it wrote."""
    with scratch(capture) as folder:
        usage = run_pinned(["argus", "-r", str(capture), "-w", "flows"], folder)
        names, values = run_pinned(["racount", "-r", "flows"], folder).output.splitlines()[:2]
    totals = dict(zip(names.split()[1:], values.split()[1:], strict=True))
    return Round(usage.wall, usage.cpu, usage.memory, {"read": int(totals["total_pkts"])})


def _softflowd(capture: Path) -> Round:
    """Measures softflowd without a collector; it tells its totals on standard error."""
    command = f"exec softflowd -6 -d -m 4000000 -p pid -c none -r {shlex.quote(str(capture))} 2>&1"
    with scratch(capture) as folder:
        usage = run_pinned(["sh", "-c", command], folder)
    told = re.findall(r"^(?:Packets processed|Ignored packets): (\d+)", usage.output, re.M)
    return Round(usage.wall, usage.cpu, usage.memory, {"read": sum(map(int, told))})


def _tshark(capture: Path, packets: int) -> Round:
    """Measures tshark writing the five-tuples of the first packets as text."""
    fields = ("frame.time_epoch", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport",
              "tcp.dstport", "udp.srcport", "udp.dstport", "ip.len")  # fmt: skip
    command = ["tshark", "-n", "-r", str(capture), "-c", str(packets), "-T", "fields"]
    usage = run_pinned([*command, *(word for name in fields for word in ("-e", name))])
    return Round(usage.wall, usage.cpu, usage.memory, {"read": usage.output.count("\n")})


def score(capture: Path) -> Round:
    """Measures a whole `sekisho score` of a new lake on all cores; `read` are its records."""
    with scratch(capture) as folder:
        command = [sys.executable, "-m", "telemetry.cli", "ingest", str(capture)]
        run_pinned([*command, "--lake", "lake"], folder, CORES)
        _, stored = ask("lake", folder / "lake")
        command = [sys.executable, "-m", "telemetry.cli", "score", "--lake", "lake"]
        usage = run_pinned(command, folder, CORES)
    return Round(usage.wall, usage.cpu, usage.memory, {"read": stored["records"]})


def has_nfpcapd() -> bool:
    """Whether nfpcapd and nfdump are installed."""
    return bool(shutil.which("nfpcapd") and shutil.which("nfdump"))


def _nfdump(folder: Path, *filters: str) -> tuple[int, int]:
    """Returns packets and bytes in the files of a folder, of what passes a filter."""
    summary = _nfdump_summary(folder, *filters)
    return summary["packets"], summary["bytes"]


def _nfdump_summary(folder: Path, *filters: str) -> dict[str, int]:
    command = ["nfdump", "-R", str(folder), "-A", "proto", "-o", "csv", *filters]
    names, values = run_pinned(command, folder).output.splitlines()[-2:]
    pairs = zip(names.split(","), values.split(","), strict=True)
    return {name: int(value) for name, value in pairs if value.isdigit()}


def _nfcapd(capture: Path) -> Round:
    with scratch(capture) as folder:
        port = free_port()
        command = ["nfcapd", "-b", "127.0.0.1", "-p", str(port), "-w", str(folder), "-t", "3600"]
        usage = run_fed(command, ["replay", str(capture), str(port)], folder)
        summary = _nfdump_summary(folder)
    totals = {
        "read": summary["flows"],
        "kept": summary["packets"],
        "kept_bytes": summary["bytes"],
    }
    return Round(usage.wall, usage.cpu, usage.memory, totals)


def _crossing_filter(prefixes: list[str]) -> str:
    """Returns the nfdump filter for what is not between two domestic hosts."""
    inside = [" or ".join(f"{end} net {p}" for p in prefixes) for end in ("src", "dst")]
    return f"not (({inside[0]}) and ({inside[1]}))"


def _export_contenders(name: str, capture: Path, records: int) -> list[Contender]:
    """Returns ours and its peers on the datagrams of one capture of exports."""
    peer = f"nfcapd, the same {name} datagrams"

    def contender(title: str, run: Callable[[], Round], items: int, whole: bool) -> Contender:
        return Contender(title, run, items, "records", whole, input=name, peer=peer)

    ours = f"{name} reader, capture of datagrams"
    found = [contender(ours, lambda: _inside("exports", capture), records, True)]
    if shutil.which("nfcapd") and shutil.which("nfdump"):
        found.append(contender(peer, lambda: _nfcapd(capture), records, True))
    if PEERS.exists():
        part = max(240, records // 100 // 24 * 24)
        run = lambda: _inside("netflow", capture, part, python=str(PEERS))  # noqa: E731
        found.append(contender(f"netflow (PyPI), {name}, the first {part:,}", run, part, False))
    return found


def contenders(
    capture: Path, packets: int, log: Path, lines: int, exports: dict[str, Path], records: int
) -> list[Contender]:
    """Returns what can be measured here; peers are absent where they are not installed.

    Args:
        capture: What `make_packets` wrote.
        packets: How many it holds.
        log: What `make_zeek` wrote.
        lines: How many it holds.
        exports: What `make_exports` wrote, by the name of the format.
        records: How many each of them holds.
    """
    part = max(1000, packets // 50)
    found = [
        Contender(KERNEL, lambda: _inside("kernel", capture), packets),
        Contender(READER, lambda: _inside("reader", capture), packets),
        Contender(GATE, lambda: _inside("gate", capture), packets),
        Contender(INGEST, lambda: ingest(capture), packets),
    ]
    if has_nfpcapd():
        found.append(Contender(PEER, lambda: nfpcapd(capture), packets))
    if shutil.which("argus") and shutil.which("racount"):
        found.append(Contender(ARGUS, lambda: _argus(capture), packets, whole=False))
    if shutil.which("softflowd"):
        found.append(Contender(SOFTFLOWD, lambda: _softflowd(capture), packets, whole=False))
    slices = {f"{DPKT}, the first {part:,}": lambda: _inside("dpkt", capture, part)}
    if PEERS.exists():
        slices[f"NFStream (PyPI), flows alone, the first {part:,}"] = lambda: _inside(
            "nfstream", capture, part, python=str(PEERS)
        )
    if shutil.which("tshark"):
        slices[f"tshark, five-tuples as text, the first {part:,}"] = lambda: _tshark(capture, part)
    found += [Contender(name, run, part, whole=False) for name, run in slices.items()]
    for name, export in exports.items():
        found += _export_contenders(name, export, records)
    logs = {"Zeek reader, conn.log": lambda: _inside("zeek", log)}
    if PEERS.exists():
        logs[ZAT] = lambda: _inside("zat", log, python=str(PEERS))
    for name, run in logs.items():
        found.append(Contender(name, run, lines, "lines", False, input="conn.log", peer=ZAT))
    return found


def check_totals(found: list[Contender]) -> None:
    """Checks that all contenders of one input counted the same.

    Packets or records read are compared with what the input holds; packets and bytes (of
    captures those kept, which are not between two domestic hosts) with each other. Bytes are
    those of the IP packets. Flow counts of captures are not compared: every tool cuts flows
    at timeouts of its own.

    Raises:
        BenchmarkError: They did not.
    """
    by_input: dict[str, Totals] = {}
    for contender in found:
        agreed = by_input.setdefault(contender.input, {})
        if contender.whole:
            agreed.setdefault("read", contender.items)
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
