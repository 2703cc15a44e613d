"""`python -m benchmarks [--packets N] [--rounds R] [--short | --large N]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from benchmarks import large, results
from benchmarks.contenders import INGEST, Contender, ask, check_totals, contenders
from benchmarks.measure import ROOT, BenchmarkError, Conditions, Watch

DATA = ROOT / "benchmarks" / "data"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
LARGE = ROOT / "benchmarks" / "LARGE.md"
_LINES_SHARE = 10
"""One line of the synthetic log to so many packets."""
_RECORDS_SHARE = 2
"""One exported record to so many packets."""


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Speed beside other tools.")
    parser.add_argument("--packets", type=int, default=5_000_000, help="packets in the capture")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each contender")
    parser.add_argument(
        "--short", action="store_true", help="200,000 packets, one round, nothing written"
    )
    parser.add_argument(
        "--large", type=int, metavar="N", help="one capture of N packets instead, on all cores too"
    )
    options = parser.parse_args()
    if options.packets < 1000 or options.rounds < 1:
        parser.error("at least 1000 packets and one round")
    try:
        if options.short:
            with tempfile.TemporaryDirectory() as folder:
                _run(Path(folder), 200_000, 1, None)
        elif options.large:
            DATA.mkdir(exist_ok=True)
            _run_large(DATA, options.large, options.rounds)
        else:
            DATA.mkdir(exist_ok=True)
            _run(DATA, options.packets, options.rounds, RESULTS)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def _run(folder: Path, packets: int, rounds: int, report: Path | None) -> None:
    lines = packets // _LINES_SHARE
    capture = _input(folder, "make_packets", f"packets-{packets}", "pcap", packets)
    log = _input(folder, "make_zeek", f"conn-{lines}", "log", lines)
    records = packets // _RECORDS_SHARE
    exports = {
        name: _input(folder, "make_exports", f"{word}-{records}", "pcap", version, records)
        for name, word, version in (("NetFlow v9", "netflow9", 9), ("IPFIX", "ipfix", 10))
    }
    found = contenders(capture, packets, log, lines, exports, records)
    conditions = _measure(found, rounds)
    check_totals(found)
    print(results.machine())
    print(results.conditions_text(conditions), end="\n\n")
    print(results.as_text(results.rows(found)), end="\n\n")
    print("\n".join(f"* {note}" for note in results.notes(found, packets)))
    for alarm in results.alarms(found, RESULTS):
        print(f"ALARM: {alarm}")
    if report is not None:
        results.write(report, found, packets, capture.stat().st_size, conditions)
        print(f"\nWritten to {report.relative_to(ROOT)}.")


def _run_large(folder: Path, packets: int, rounds: int) -> None:
    capture = _input(folder, "make_packets", f"packets-{packets}", "pcap", packets)
    packed = _input(folder, "pack", f"packets-{packets}", "pcap.zst", str(capture))
    tenth = _input(folder, "make_packets", f"packets-{packets // 10}", "pcap", packets // 10)
    flood = _input(folder, "make_flood", f"flood-{packets}", "pcap", packets)
    found = large.contenders(capture, packed, tenth, flood, packets)
    conditions = _measure(found, rounds, large.ALL)
    check_totals(found)
    same = large.same_in_any_order(capture)
    asked = large.questions(capture)
    size = capture.stat().st_size
    results.write_large(LARGE, found, asked, [*large.notes(found), same], packets, size, conditions)
    print(LARGE.read_text(), end="")


def _input(folder: Path, task: str, name: str, ending: str, *count: object) -> Path:
    """Makes an input unless it is there, made by the same code."""
    code = b"".join(
        (ROOT / file).read_bytes()
        for file in (
            "telemetry/samples/bulk.py",
            "telemetry/samples/plan.py",
            "benchmarks/worker.py",
        )
    )
    path = folder / f"{name}-{sha256(code).hexdigest()[:8]}.{ending}"
    if not path.exists():
        for old in folder.glob(f"{name}-*.{ending}"):
            old.unlink()
        _say(f"Making {path.name} (once)…")
        aside = path.with_suffix(".part")
        ask(task, aside, *count)
        aside.rename(path)
    return path


def _measure(found: list[Contender], rounds: int, first: str = INGEST) -> Conditions:
    """Runs all contenders in turn, round by round; what may compile ran once before."""
    _say("Compiling and warming up…")
    next(contender for contender in found if contender.name == first).run()
    watch = Watch()
    for number in range(1, rounds + 1):
        for contender in found:
            _say(f"Round {number} of {rounds}: {contender.name}")
            contender.rounds.append(contender.run())
    return watch.stop()


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
