"""What a person, or a program that asked for JSON, gets to see of a run."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console as Terminal
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from telemetry.pipeline import Progress as Watcher
from telemetry.records import (
    IngestReport,
    SourceReport,
    endpoint_json,
    entry_json,
    printable,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from telemetry.pipeline import AuditReport, Retained, RunReport
    from telemetry.report import Language
    from telemetry.scoring.scores import Ranking, Scores

_STAGES = {
    "read": "Reading",
    "merge": "Merging",
    "purge": "Classing again",
    "search": "Searching",
    "score": "Scoring",
    "select": "Selecting",
    "list": "Writing the list",
    "report": "Writing the report",
    "retention": "Erasing what is due",
}
_HOME_IS_DOUBTED = 0.5
"""Share of records without an end at home, from which a run asks whether it is the right one."""
_SHOWN = 3
"""Endpoints of each role, and files passed over for a reason, that are shown; --json has all."""
_SHOWN_LISTED = 12
"""Endpoints that are shown in any case, if there are so many, of all roles alike."""
_SHOWN_ROWS = 500
_SHOWN_OF_CASE = 15
_SHOWN_ITEMS = 3
"""Rows of an answer to a query; laying out more takes a terminal too long."""


class Console(Watcher):
    """Watches a run and says in the end what came of it.

    Progress goes to a terminal's stderr and nowhere else, and never names more of a
    source than its number.
    """

    def __init__(self, as_json: bool) -> None:
        """Args: as_json: Answer in JSON on stdout."""
        self._json = as_json
        self._out = Terminal(highlight=False, width=None if sys.stdout.isatty() else 160)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Terminal(stderr=True),
            transient=True,
            disable=sys.stderr is None or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("Preparing", total=None, rate="")
        self._items = 0
        self._before = 0
        self._size = 0

    def __enter__(self) -> Self:
        """Starts showing progress."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops showing progress."""
        self._bar.stop()

    def stage(self, name: str) -> None:
        """Shows the stage."""
        self._bar.update(self._task, description=_STAGES[name], total=None, rate="")

    def source(self, number: int, total: int, size: int) -> None:
        """Shows which source is read; all sources share one bar."""
        self._before += self._size
        self._size = size
        self._bar.update(self._task, description=f"Reading {number} of {total}")

    def position(self, read: int) -> None:
        """Moves the bar within a source."""
        if self._size:
            self._bar.update(self._task, total=self._size, completed=read)

    def done(self, report: SourceReport) -> None:
        """Counts what was read."""
        self._items += report.packets_read + report.records_read
        elapsed = self._bar.tasks[0].elapsed or 0.0
        if elapsed > 1:
            self._bar.update(self._task, rate=f"{self._items / elapsed:,.0f} items/s")

    def ingested(self, report: IngestReport) -> None:
        """Says what was read, dropped and kept."""
        self._bar.stop()
        if self._json:
            _print_json(ingest_json(report))
        else:
            self._show_ingest(report)

    def scored(self, endpoints: Ranking) -> None:
        """Says how endpoints were scored."""
        self._bar.stop()
        if self._json:
            _print_json({"endpoints": map(endpoint_json, endpoints)})
        else:
            self._show_ranking(endpoints)

    def ranked(self, endpoints: Ranking, files: list[Path]) -> None:
        """Says how endpoints were scored, and where that is written."""
        self.scored(endpoints)
        if not self._json:
            self._show_files(files)

    def listed(self, endpoints: Scores, files: list[Path]) -> None:
        """Says what is listed and where."""
        self._bar.stop()
        if self._json:
            _print_json({"endpoints": map(entry_json, endpoints)})
        else:
            self._show_listed(endpoints, "")
            self._show_files(files)

    def ran(self, report: RunReport) -> None:
        """Says all of it."""
        self._bar.stop()
        if self._json:
            _print_json(run_json(report))
        else:
            self._show_ingest(report.ingest)
            self._show_ranking(report.endpoints)
            if report.retained.erased.files:
                self._show_erased(report.retained)
            self._show_files(report.files)

    def retained(self, retained: Retained) -> None:
        """Says what was erased, and where its certificate is."""
        self._bar.stop()
        if self._json:
            _print_json(retained.facts)
            return
        self._show_erased(retained)
        self._show_files([retained.certificate])

    def _show_erased(self, retained: Retained) -> None:
        erased, segments = retained.erased, retained.facts["segments"]
        self._out.print(
            f"[bold]Erased[/bold]     {erased.unselected:,} records not selected, "
            f"{erased.selected:,} selected"
        )
        self._out.print(
            f"[bold]Left[/bold]       {segments['quarantined']:,} records not selected, "
            f"{segments['selected']:,} selected"
        )

    def _show_ingest(self, report: IngestReport) -> None:
        by_status: Counter[str] = Counter(
            # Of a folder it is no fault that it holds other things too.
            "passed_over" if source.status == "refused" and not source.named else source.status
            for source in report.sources
        )
        parts = [
            f"{by_status[status]} {words}"
            for status, words in (
                ("ingested", "read"),
                ("already_ingested", "known already"),
                ("refused", "refused"),
                ("passed_over", "passed over"),
            )
            if by_status[status]
        ]
        self._out.print(f"[bold]Authority[/bold]  {report.authority}")
        if report.purged:
            print(
                f"Purged     {report.purged:,} stored records, domestic by the new homeland table"
            )
        self._out.print(f"[bold]Sources[/bold]    {', '.join(parts)}, in {report.seconds:.1f} s")
        for unit in ("packets", "records"):
            self._show_counts(report, unit)
        begun = [source.first_seen for source in report.sources if source.first_seen]
        ended = [source.last_seen for source in report.sources if source.last_seen]
        if begun and ended:
            first, last = (time.partition(".")[0] for time in (min(begun), max(ended)))
            self._out.print(f"[bold]Period[/bold]     {first} to {last} UTC")
        passed_over: defaultdict[str, list[str]] = defaultdict(list)
        for source in report.sources:
            if source.status == "refused" and not source.named:
                passed_over[source.error or ""].append(printable(source.path))
            elif source.error:
                verb = "refused" if source.status == "refused" else "damaged"
                print(f"  {verb}: {printable(source.path)}: {source.error}")
        for error, paths in sorted(passed_over.items(), key=lambda item: -len(item[1])):
            more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
            print(f"  passed over: {error}\n    {', '.join(paths[:_SHOWN])}{more}")

    def _show_counts(self, report: IngestReport, unit: str) -> None:
        sources = [s for s in report.sources if getattr(s, f"{unit}_read")]
        if not sources:
            return
        dropped: Counter[str] = Counter()
        for source in sources:
            dropped.update(source.dropped)
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(min_width=30)
        table.add_column(justify="right")
        table.add_row(f"[bold]{unit.capitalize()}[/bold] read", f"{_sum(sources, f'{unit}_read')}")
        for reason, number in dropped.most_common():
            table.add_row(f"  dropped: {reason.replace('_', ' ')}", f"{number:,}")
        table.add_row("  kept", f"{_sum(sources, 'kept')}")
        table.add_row("  stored as parts of records", f"{_sum(sources, 'records_written')}")
        self._out.print(table)

    def _show_ranking(self, endpoints: Ranking) -> None:
        doubt = ""
        if endpoints.between_foreign > _HOME_IS_DOUBTED:
            doubt = (
                f"{100 * endpoints.between_foreign:.1f} % of the records are between two foreign "
                "addresses: if hosts of yours are among them, make a new lake with your --home or "
                "--country."
            )
        self._show_listed(endpoints.listed, f"{len(endpoints):,} scored, ", doubt)

    def _show_listed(self, listed: Scores, before: str, doubt: str = "") -> None:
        roles = listed.roles
        summary = ", ".join(f"{n} {role}" for role, n in roles.most_common()) or "none"
        self._out.print(f"[bold]Endpoints[/bold]  {before}{len(listed):,} listed: {summary}")
        if doubt:
            self._out.print(f"  {doubt}")
        if not listed:
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("endpoint", no_wrap=True)
        table.add_column("role", no_wrap=True)
        table.add_column("score", justify="right")
        table.add_column("why")
        each = max(_SHOWN, _SHOWN_LISTED // len(roles))
        shown = [e for role in roles for e in listed.with_role(role)[:each]]
        for endpoint in shown:
            why = endpoint.reasons[0].text if endpoint.reasons else ""
            table.add_row(endpoint.endpoint, endpoint.role, f"{endpoint.score:.2f}", why)
        self._out.print(table)
        if len(listed) > len(shown):
            self._out.print(f"  … and {len(listed) - len(shown):,} more")

    def _show_files(self, files: list[Path]) -> None:
        self._out.print("[bold]Files[/bold]")
        for path in files:
            print(f"  {path}{_left_out(path)}")


def _left_out(path: Path) -> str:
    """Returns what a manifest says of listed endpoints that the list does not hold."""
    from telemetry.lists import MANIFEST

    if path.name != MANIFEST:
        return ""
    facts = json.loads(path.read_text(encoding="utf-8"))
    if not facts["expired"]:
        return ""
    if facts["data_up_to"] is None:
        return (
            f"\n    The list holds nobody: all {facts['expired']:,} listed are dated later than "
            "now. Check the clocks of the sources and of this machine."
        )
    return (
        f"\n    The list holds {facts['entries']:,}; {facts['expired']:,} more "
        f"{'was' if facts['expired'] == 1 else 'were'} last seen over "
        f"{facts['days']} days before the newest data ({facts['data_up_to']}), see list_days."
    )


def ingest_json(report: IngestReport) -> dict[str, Any]:
    """Returns the answer of `ingest --json`."""
    sources = []
    for source in report.sources:
        facts = asdict(source)
        del facts["named"]
        sources.append(facts)
    return {"run": report.run, "sources": sources, "seconds": report.seconds}


def run_json(report: RunReport) -> dict[str, Any]:
    """Returns the answer of `run --json`; its endpoints, without those erased, are read once."""
    return {
        "ingest": ingest_json(report.ingest),
        "score": {"endpoints": map(endpoint_json, report.endpoints)},
        "files": [str(path) for path in report.files],
    }


def print_table(table: pa.Table, as_json: bool) -> None:
    """Prints the answer to a query: JSON Lines, or a table that fits the terminal."""
    if as_json:
        for row in table.to_pylist():
            print(_json(row))
        return
    rows = [
        {name: " ".join(_cell(value).split()) for name, value in row.items()}
        for row in table.slice(0, _SHOWN_ROWS).to_pylist()
    ]
    widths = {n: max(len(n), *(len(row[n]) for row in rows), 0) for n in table.column_names}
    if not sys.stdout.isatty() or sum(widths.values()) + 2 * len(widths) <= Terminal().width:
        for row in [{name: name for name in widths}, *rows]:
            print("  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip())
    else:  # too wide for the terminal: a line a value
        margin = max(map(len, widths))
        for row in rows:
            for name, value in row.items():
                print(f"{name:>{margin}}  {value}")
            print()
    if len(table) > _SHOWN_ROWS:
        print(f"… and {len(table) - _SHOWN_ROWS:,} more rows; --json prints them all")


def _cell(value: Any) -> str:
    """Returns a value as a table shows it; of long lists only the beginning."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        more = f"; … {len(value):,} in all" if len(value) > _SHOWN_ITEMS else ""
        return "; ".join(map(_cell, value[:_SHOWN_ITEMS])) + more
    return str(_plain(value) if isinstance(value, bytes) else value)


def print_facts(title: str, facts: Mapping[str, Any], as_json: bool) -> None:
    """Prints names and values."""
    if as_json:
        _print_json(dict(facts))
        return
    print(title)
    for name, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        print(f"  {name.replace('_', ' '):<20} {text}")


def print_case(case: Mapping[str, Any], as_json: bool) -> None:
    """Prints the whole case of one endpoint, with a line that draws its course."""
    import pyarrow as pa

    from telemetry.report.words import ROLES

    if as_json:
        _print_json(dict(case))
        return
    name, does = ROLES[case["role"]]
    listed = "listed" if case["listed"] else "not listed"
    if case["listed"] and case["expired"]:
        listed += ", but last seen so long ago that the list leaves it out"
    print(f"{case['endpoint']}  {name}: {does}")
    records = "1 record" if case["records"] == 1 else f"{case['records']:,} records"
    print(f"score {case['score']:.2f}, {listed}; {records}\n")
    for reason in case["reasons"]:
        print(f"  {reason['contribution']:.2f}  {reason['name']}: {reason['text']}")
    if case["novelty_in"]:
        percent = math.floor(1000 * case["novelty"]) / 10
        print(
            f"\n  novelty, no evidence: {percent} % of all endpoints are more usual; the fewest "
            f"equal it in {case['novelty_in']}"
        )
    print(f"\n{_drawn(case['course'])}")
    first, last = (case[when].partition(".")[0] for when in ("first_seen", "last_seen"))
    print(f"{first}{last:>{max(len(case['course']) - len(first), len(last) + 1)}}  UTC\n")
    sampled = max(peer["sampling_rate"] for peer in case["peers"])
    if sampled > 1:
        print(f"Made from samples, one packet in up to {sampled:,}: bytes are those of samples.\n")
    for name in ("services", "peers"):
        rows = case[name]
        print_table(pa.Table.from_pylist(rows[:_SHOWN_OF_CASE]), False)
        if len(rows) > _SHOWN_OF_CASE:
            print(f"… and {len(rows) - _SHOWN_OF_CASE:,} more {name}; --json prints them all")
        print()


def _drawn(counts: Sequence[int]) -> str:
    """Draws numbers as bars of eight heights, on a scale of square roots: few show beside many."""
    top = max(*counts, 1)
    encoding = (sys.stdout.encoding or "").lower()
    bars = " ▁▂▃▄▅▆▇█" if encoding.startswith("utf") else " .,:;+*%#"
    return "".join(bars[math.ceil(8 * math.sqrt(count / top))] for count in counts)


def print_evaluation(answer: Mapping[str, Any], as_json: bool) -> None:
    """Prints what the scores are worth: a line a data set, a line a role, false positives."""
    import pyarrow as pa

    from telemetry.scoring.evaluation import by_threshold

    if as_json:
        _print_json(dict(answer))
        return
    print_table(pa.Table.from_pylist(answer["sets"]), False)
    print()
    roles = [
        {
            "role": role,
            **{name: facts[name] for name in ("positives", "found", "recall", "right_role")},
            "by records": "  ".join(
                f"{name}: {found}/{of}" for name, (found, of) in facts["found_by_records"].items()
            ),
            **{
                f"precision at {base}": f"{least:.3f}"
                for base, least in answer["precision"][role].items()
            },
        }
        for role, facts in answer["roles"].items()
    ]
    print_table(pa.Table.from_pylist(roles), False)
    print(
        f"\nFalse positives {answer['false_positives']} of {answer['harmless']:,} harmless: "
        f"{answer['per_10000']} per 10,000, at most {answer['per_10000_at_most']} (95 %).\n"
        "Precision is the least that the bound allows, where so many of all endpoints are bad."
    )
    print("\nAt other thresholds:")
    print_table(pa.Table.from_pylist(by_threshold(answer)), False)
    for name, title in (
        ("views", "The same records, as poorer sources would have told them"),
        ("field", "The same records, by the methods of the field"),
    ):
        if name in answer:
            print(f"\n{title}; of those that left a record:")
            print_table(pa.Table.from_pylist(answer[name]), False)
    if answer["unread"]:
        print(f"Not read, and so not found: {', '.join(answer['unread'])}.")


def print_beacons(answer: Mapping[str, Any], as_json: bool) -> None:
    """Prints how many generated beacons are found, by interval, jitter and loss."""
    import pyarrow as pa

    if as_json:
        _print_json(dict(answer))
        return
    for name in ("interval", "jitter", "loss", "false_positives"):
        print_table(pa.Table.from_pylist(answer[name]), False)
        print()
    every, wrong = answer["all"], answer["wrongly_listed"]
    print(
        f"Beacons {every['listed']:,} of {every['beacons']:,} listed; harmless "
        f"{sum(wrong.values()):,} of {answer['harmless']:,} pairs: "
        f"{', '.join(f'{kind} {number:,}' for kind, number in wrong.items())}.\n"
        "Recall, and that of RITA's formula, is that above the score which one harmless pair "
        "in 10,000 exceeds, or as many as stand there."
    )


def print_account(made: AuditReport, language: Language) -> None:
    """Prints the overseers' report; numbers on which ledger and lake differ are red."""
    from telemetry.report import overseers

    out = Terminal(highlight=False, width=None if sys.stdout.isatty() else 160)
    for title, lines in overseers.sections(made.account, made.proceedings, language):
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(min_width=30)
        table.add_column(justify="right")
        for line in lines:
            style = "bold red" if line.alarm else None
            table.add_row(f"  {escape(line.name)}", escape(line.value), style=style)
        out.print(f"[bold]{escape(title)}[/bold]")
        out.print(table)


def _print_json(answer: dict[str, Any]) -> None:
    """Prints an answer; what stands in an iterator is never held as a whole."""
    with suppress(BrokenPipeError):
        for piece in _pieces(answer):
            sys.stdout.write(piece)
        print()


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and any(isinstance(v, dict | Iterator) for v in value.values()):
        for number, (key, inner) in enumerate(value.items()):
            yield f"{', ' if number else '{'}{json.dumps(key)}: "
            yield from _pieces(inner)
        yield "}"
    elif isinstance(value, Iterator):
        yield "["
        for number, item in enumerate(value):
            yield f"{', ' if number else ''}{_json(item)}"
        yield "]"
    else:
        yield _json(value)


def _json(value: Any) -> str:
    """Returns JSON that any program reads: times with Z, no NaN."""
    return json.dumps(_plain(value), default=str, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds") + "Z"
    return value


def _sum(sources: Iterable[SourceReport], name: str) -> str:
    return f"{sum(getattr(source, name) for source in sources):,}"
