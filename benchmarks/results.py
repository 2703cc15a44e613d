"""The table on the terminal and in RESULTS.md."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

from benchmarks.contenders import (
    DPKT,
    GATE,
    INGEST,
    KERNEL,
    MISSING,
    NO_NFCAPD,
    NO_PEERS,
    PEER,
    READER,
    Contender,
)
from benchmarks.measure import CORE, Conditions

HEAD = (
    "",
    "a second",
    "a CPU second",
    "wall s",
    "CPU s",
    "x peer (wall)",
    "x peer (CPU)",
    "peak MB",
)
_PACKAGES = ("numba", "numpy", "polars", "pyarrow", "duckdb", "dpkt")


def rows(found: Sequence[Contender]) -> list[tuple[str, ...]]:
    """Returns the table: medians of the rounds, ratios taken within each round."""
    by_name = {contender.name: contender for contender in found}
    return [
        (
            contender.name,
            _rate(contender, "wall"),
            _rate(contender, "cpu"),
            f"{median(r.wall for r in contender.rounds):.2f}",
            f"{median(r.cpu for r in contender.rounds):.2f}",
            _ratio(contender, by_name.get(contender.peer), "wall"),
            _ratio(contender, by_name.get(contender.peer), "cpu"),
            f"{max(r.memory for r in contender.rounds) / 1e6:,.0f}",
        )
        for contender in found
    ]


def _rate(contender: Contender, clock: str) -> str:
    value = contender.items / median(getattr(r, clock) for r in contender.rounds)
    text = f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} k"
    return f"{text} {contender.unit}"


def _ratio(contender: Contender, peer: Contender | None, clock: str) -> str:
    """How many times as many packets in the same time; measured in the same round."""
    if peer is None or contender.unit != peer.unit:
        return ""
    pairs = zip(contender.rounds, peer.rounds, strict=True)
    ratios = [getattr(theirs, clock) / getattr(ours, clock) for ours, theirs in pairs]
    return f"{median(ratios) * contender.items / peer.items:.2f}"


def as_text(table: Sequence[tuple[str, ...]]) -> str:
    """Returns the table for a terminal."""
    widths = [max(len(row[i]) for row in (HEAD, *table)) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (HEAD, *table)
    )


def _as_markdown(table: Sequence[tuple[str, ...]], head: tuple[str, ...] = HEAD) -> str:
    ruler = ("---", *("---:",) * (len(head) - 1))
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *table))


def notes(found: Sequence[Contender], packets: int) -> list[str]:
    """Returns what a reader of the table must know."""
    said = [
        "Everything ran on one and the same core, one after the other, in alternation; the rate "
        "is the median of the rounds, a ratio the median of those within one round. The capture "
        "was in the page cache. On a shared machine CPU seconds (user and system) tell more than "
        "wall time.",
        "Kernel: finding, decoding, gating and metering packets that lie in memory; taking the "
        "table apart is not in it, and its peak memory holds the whole capture. Reader: from the "
        "file to raw batches. Both are timed inside a warm process.",
        "sekisho ingest: the process from start to end, compiled code cached; hash of the "
        "source, gate, pseudonyms, ledger, Parquet synced and committed, catalog built. It keeps "
        "no domestic-domestic traffic; nfpcapd keeps all of it.",
        _stages(found),
        "dpkt: Python's usual packet library with a dictionary of five-tuples. dpkt, NFStream and "
        "tshark get a slice; their ratio is of the rate. NFStream drops about one packet in "
        "twenty of ours without a word. softflowd sends its flows nowhere, so that writing them "
        "is not in its time.",
        "The peer of captures is nfpcapd, that of flow exports nfcapd, that of Zeek's log zat: the "
        "faster of its two ways to read one, in an environment of its own.",
    ]
    exports = [c for c in found if c.unit == "records" and c.whole]
    if any(c.name == c.peer for c in exports):
        said.append(
            "nfcapd: it reads no file, so that the datagrams are sent to it over the loopback "
            "interface, from another core and only as fast as it takes them; look at its CPU "
            "time, in which receiving is. Records, packets and bytes in its files agree."
        )
    elif exports:
        said.append(NO_NFCAPD + ".")
    if exports and not any(c.name.startswith("netflow") for c in found):
        said.append(NO_PEERS + ".")
    if not any(c.name == PEER for c in found):
        return [*said, MISSING + "."]
    totals = next(c for c in found if c.name == PEER).rounds[0].totals
    return [
        *said,
        f"Totals agree: {packets:,} packets read by each; {totals['kept']:,} packets and "
        f"{totals['kept_bytes']:,} IP bytes not between two domestic hosts, in the kernel's rows, "
        "in the committed lake, and in nfpcapd's files through a filter on the prefixes that the "
        "generator uses. Flow counts are not compared: timeouts differ.",
    ]


def alarms(found: Sequence[Contender], report: Path) -> list[str]:
    """Returns what of ours is less than half as fast, beside dpkt, as in a report.

    Only what is timed inside a warm process: a short run shows nothing of a whole command.
    """
    if not report.exists():
        return []
    cells = [line.strip("| \n").split(" | ") for line in report.read_text().splitlines()]
    then = {row[0]: _per_second(row[2]) for row in cells if len(row) == len(HEAD)}
    now = {contender.name: _per_second(_rate(contender, "cpu")) for contender in found}
    told = []
    for name in filter(_is_ours, now.keys() & then.keys() - {INGEST}):
        before, after = (_beside_dpkt(rates, name) for rates in (then, now))
        if after < before / 2:
            told.append(f"{name}: {after:.1f} times as fast as dpkt, {before:.1f} in RESULTS.md")
    return sorted(told)


def _beside_dpkt(rates: Mapping[str, float], name: str) -> float:
    return rates[name] / next(rate for other, rate in rates.items() if other.startswith(DPKT))


def _per_second(cell: str) -> float:
    """Reads a rate as the table shows it; 0 where it shows none."""
    number, _, rest = cell.partition(" ")
    try:
        return float(number) * {"M": 1e6, "k": 1e3}.get(rest[:1], 1.0)
    except ValueError:
        return 0.0


def _stages(found: Sequence[Contender]) -> str:
    """Says where the CPU time of an ingest goes, as far as its parts are measured alone."""
    kernel, whole_reader, gated = (_share(found, name, INGEST) for name in (KERNEL, READER, GATE))
    rest = 1 - whole_reader - gated
    return (
        f"Of the CPU time of an ingest the kernel takes {kernel:.0%}, reading the file and "
        f"handing on rows {max(0.0, whole_reader - kernel):.0%}, the gate {gated:.0%}; the other "
        f"{rest:.0%} "
        "are the start of the process, the source's hash, Parquet, ledger and catalog."
    )


def _share(found: Sequence[Contender], part: str, whole: str) -> float:
    """Returns the CPU time of a part of ours in that of the whole; the median of the rounds."""
    rounds = {contender.name: contender.rounds for contender in found}
    return median(a.cpu / b.cpu for a, b in zip(rounds[part], rounds[whole], strict=True))


def machine() -> str:
    """Returns the machine and the versions, in one line each."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{os.cpu_count()} x {model}, {memory:.0f} GB, Linux "
        f"{platform.release().partition('-')[0]}; core {CORE}\n"
        f"sekisho {version('sekisho')}, Python {platform.python_version()}, {packages}"
        f"{_nfpcapd_version()}"
    )


def _nfpcapd_version() -> str:
    try:
        said = subprocess.run(["nfpcapd", "-V"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return ", " + said.stdout.strip().replace(": Version:", "")


def conditions_text(conditions: Conditions) -> str:
    """Returns how quiet the machine was, in one sentence."""
    before, after = conditions.load
    return (
        f"Load average {before:.1f} before and {after:.1f} after; other processes and the host "
        f"took {conditions.others:.0%} of the core meanwhile."
    )


def write(
    path: Path,
    found: Sequence[Contender],
    packets: int,
    size: int,
    conditions: Conditions,
) -> None:
    """Writes RESULTS.md.

    Args:
        path: File to write.
        found: What was measured.
        packets: In the capture.
        size: Of the capture, in bytes.
        conditions: How quiet the machine was.
    """
    rounds = len(found[0].rounds)
    text = [
        "# Speed, beside the tools of the field",
        f"Made by `make bench` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Capture: {packets:,} "
        f"packets, {packets * 6 // 100:,} heavy-tailed flows, 10 % IPv6, snap length 96, "
        f"{size / 1e6:,.0f} MB. Rounds: {rounds}.",
        "\n".join(f"- {line}" for line in machine().splitlines())
        + f"\n- {conditions_text(conditions)}",
        f"![Rates]({path.with_suffix('.svg').name})",
        _as_markdown(rows(found)),
        "\n".join(f"- {note}" for note in notes(found, packets)),
    ]
    path.with_suffix(".svg").write_text(plot(found), encoding="utf-8")
    path.write_text("\n\n".join(text) + "\n")


def plot(found: Sequence[Contender]) -> str:
    """Returns an SVG of the rates in a CPU second: a bar a contender, ten times a step."""
    rates = {one.name: (_per_second(_rate(one, "cpu")), _rate(one, "cpu")) for one in found}
    low = min(rate for rate, _ in rates.values())
    high = max(rate for rate, _ in rates.values())
    first = math.floor(math.log10(low))
    wide = 420 / (math.log10(high) - first)
    rows = []
    for place, (name, (rate, text)) in enumerate(rates.items()):
        y, length = 22 * place + 8, wide * (math.log10(rate) - first)
        kind = "#2a78d6" if _is_ours(name) else "#9a9890"
        rows.append(
            f'<text x="316" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="324" y="{y}" width="{length:.1f}" height="15" rx="2" fill="{kind}"/>'
            f'<text x="{330 + length:.1f}" y="{y + 12}">{text}</text>'
        )
    height = 22 * len(rates) + 36
    note = "In a CPU second, each step to the right ten times as many. Blue: ours."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" '
        f'font-family="sans-serif" font-size="11.5" fill="#52514e">'
        f'<rect width="860" height="{height}" fill="#ffffff"/>{"".join(rows)}'
        f'<text x="324" y="{height - 10}">{note}</text></svg>\n'
    )


def _is_ours(name: str) -> bool:
    return name.startswith(
        ("packet ", "gate ", "sekisho ", "NetFlow v9 reader", "IPFIX reader", "Zeek ")
    )


def write_large(
    path: Path,
    found: Sequence[Contender],
    asked: Sequence[tuple[str, ...]],
    said: Sequence[str],
    packets: int,
    size: int,
    conditions: Conditions,
) -> None:
    """Writes LARGE.md.

    Args:
        path: File to write.
        found: What was measured.
        asked: Questions with our seconds, nfdump's, and how many times faster.
        said: What the first table shows.
        packets: In the capture.
        size: Of the capture, in bytes.
        conditions: How quiet the machine was.
    """
    text = [
        "# One large capture",
        f"Made by `make bench-large` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Capture: "
        f"{packets:,} packets, {packets * 6 // 100:,} heavy-tailed flows, 10 % IPv6, snap length "
        f"96, {size / 1e6:,.0f} MB. Rounds: {len(found[0].rounds)}. Memory: the default, 1GB.",
        "\n".join(f"- {line}" for line in machine().splitlines())
        + f"\n- {conditions_text(conditions)}",
        _as_markdown(rows(found)),
        "\n".join(f"- {note}" for note in said),
        "Questions to the lake of the capture, and to nfpcapd's files with `nfdump` on all cores; "
        "the shortest of three, files in the page cache. Ours is timed in an open notebook, as "
        "nfdump's start costs nothing.",
        _as_markdown(asked, ("", "ours s", "nfdump s", "x nfdump")),
    ]
    path.write_text("\n\n".join(text) + "\n")
