"""One large capture: on one core and on all, packed, growing, and a flood; and questions to it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.contenders import (
    PEER,
    Contender,
    Round,
    ask,
    has_nfpcapd,
    ingest,
    nfpcapd,
    score,
    scratch,
)
from benchmarks.measure import CORES, BenchmarkError, run_pinned

ONE = "sekisho ingest, one core"
ALL = "sekisho ingest, all cores"
_ZSTD = "{}, from zstd"
_TENTH = "sekisho ingest, one core, a tenth of it"
_FLOOD = "sekisho ingest, all cores, SYN flood of as many flows"
_SCORE = "sekisho score, all cores, the records of the capture"
_PIECES = 4
_QUESTIONS = {
    "one address: all its records": (
        "SELECT * FROM stored_records WHERE endpoint_ip = '{address}'",
        ["ip {address}"],
    ),
    "ten addresses with the most bytes": (
        "SELECT endpoint_ip, sum(endpoint_bytes) AS bytes FROM stored_records "
        "GROUP BY ALL ORDER BY bytes DESC LIMIT 10",
        ["-s", "srcip/bytes", "-n", "10"],
    ),
    "ten ports with the most bytes": (
        "SELECT endpoint_port, sum(endpoint_bytes) AS bytes FROM stored_records "
        "GROUP BY ALL ORDER BY bytes DESC LIMIT 10",
        ["-s", "srcport/bytes", "-n", "10"],
    ),
}


def contenders(capture: Path, packed: Path, tenth: Path, flood: Path, n: int) -> list[Contender]:
    """Returns what is measured.

    Args:
        capture: What `make_packets` wrote.
        packed: The same, as zstd.
        tenth: A capture of a tenth of the packets, made alike.
        flood: What `make_flood` wrote.
        n: Packets in the capture and in the flood.
    """

    def contender(name: str, run: Callable[[], Round], of: str = "packets") -> Contender:
        items = n // 10 if of == "tenth" else n
        return Contender(name, run, items, input=of, peer=PEER if of == "packets" else "")

    found = [
        contender(ONE, lambda: ingest(capture)),
        contender(ALL, lambda: ingest(capture, CORES)),
        contender(_ZSTD.format(ONE), lambda: ingest(packed)),
        contender(_ZSTD.format(ALL), lambda: ingest(packed, CORES)),
    ]
    if has_nfpcapd():
        found.append(contender(PEER, lambda: nfpcapd(capture)))
    scored = Contender(_SCORE, lambda: _score(scored, capture), 0, "records", False, peer="")
    return [
        *found,
        contender(_TENTH, lambda: ingest(tenth), "tenth"),
        contender(_FLOOD, lambda: ingest(flood, CORES), "flood"),
        scored,
    ]


def _score(contender: Contender, capture: Path) -> Round:
    """Measures a round; how many records there are to score is known when they are made."""
    measured = score(capture)
    contender.items = measured.totals["read"]
    return measured


def same_in_any_order(capture: Path) -> str:
    """Reads a capture whole, and in pieces in another order; says that the records are the same.

    Raises:
        BenchmarkError: They are not.
    """
    with scratch(capture) as folder:
        sekisho = [sys.executable, "-m", "telemetry.cli"]
        run_pinned([*sekisho, "keys", "new", "key"], folder)
        command = [*sekisho, "ingest", "--key", "key"]
        run_pinned([*command, str(capture), "--lake", "whole"], folder, CORES)
        ask("split", folder / "piece", capture, _PIECES)
        for number in (2, 0, 3, 1):
            piece = folder / f"piece-{number}.pcap"
            run_pinned([*command, str(piece), "--lake", "pieces"], folder, CORES)
            piece.unlink()
        whole, pieces = (ask("checksum", folder / name)[1] for name in ("whole", "pieces"))
    if whole != pieces:
        raise BenchmarkError(f"Read whole there is {whole}, read in pieces {pieces}.")
    return (
        f"Read whole, and in {_PIECES} pieces in another order by a command each, the capture "
        f"gives the same {whole['records']:,} records: checksum {whole['checksum']}."
    )


def notes(found: Sequence[Contender]) -> list[str]:
    """Returns what the table shows of cores and growth."""
    by_name = {one.name: one for one in found}

    def times(slow: str, fast: str) -> float:
        pairs = zip(by_name[slow].rounds, by_name[fast].rounds, strict=True)
        return median(a.wall / b.wall for a, b in pairs)

    packed_one, packed_all = _ZSTD.format(ONE), _ZSTD.format(ALL)
    return [
        f"{len(CORES)} cores are {times(ONE, ALL):.2f} times one core on the plain capture, "
        f"{times(packed_one, packed_all):.2f} times on the packed one.",
        f"Ten times the packets take {times(ONE, _TENTH):.2f} times the time.",
    ]


def questions(capture: Path) -> list[tuple[str, ...]]:
    """Asks the lake of a capture and nfpcapd's files the same.

    Returns:
        A row each: question, our seconds, nfdump's, how many times faster.
    """
    with scratch(capture) as folder:
        command = [sys.executable, "-m", "telemetry.cli", "ingest", str(capture), "--json"]
        run_pinned([*command, "--lake", "lake"], folder, CORES)
        _, facts = ask("busiest", folder / "lake")
        peer = folder / "nfcapd"
        if has_nfpcapd():
            peer.mkdir()
            run_pinned(["nfpcapd", "-r", str(capture), "-w", str(peer)], folder)
        asked: list[tuple[str, ...]] = []
        for name, (sql, words) in _QUESTIONS.items():
            _, ours = ask("query", folder / "lake", sql.format(**facts))
            theirs = _asked(peer, [word.format(**facts) for word in words])
            ratio = f"{theirs / ours['wall']:.1f}" if theirs else ""
            asked.append((name, f"{ours['wall']:.3f}", f"{theirs:.3f}" if theirs else "", ratio))
        return asked


def _asked(folder: Path, words: Sequence[str]) -> float:
    """Returns the shortest of three times that nfdump takes on all cores; 0 without it."""
    if not folder.exists():
        return 0.0
    spent = []
    for _ in range(3):
        started = time.perf_counter()
        command = ["nfdump", "-R", str(folder), "-o", "csv", *words]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        spent.append(time.perf_counter() - started)
    return min(spent)
