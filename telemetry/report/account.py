"""The overseers' account: what the ledger says, what the lake says, and whether both agree.

Both sides are added up apart: the ledger's entries one by one, and the counters of the
lake's file table. No record is looked at.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, Protocol

from telemetry.report.facts import Totals

Entry = Mapping[str, Any]
"""One entry of a ledger: `at`, `kind`, `facts` and the rest."""
Unit = Literal["packets", "records"]
UNITS: tuple[Unit, ...] = ("packets", "records")
"""What captures and logs are counted in."""
PLACES = ("merged", "purged", "erased", "selected", "quarantined")
"""Where a record segment that was written may be."""


class SourceCounts(Protocol):
    """What the lake's file table holds of one source."""

    @property
    def sha256(self) -> str:
        """Hash of its bytes."""

    @property
    def sensor(self) -> str:
        """Where it was taken."""

    @property
    def unit(self) -> Unit:
        """What is counted."""

    @property
    def read(self) -> int:
        """Items found."""

    @property
    def kept(self) -> int:
        """Items that passed the gate."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Items dropped, by reason."""

    @property
    def records_written(self) -> int:
        """Record segments that it gave."""


@dataclass(frozen=True, slots=True)
class LakeSide:
    """What the lake's file table says at one moment.

    Attributes:
        sources: All stored sources.
        scores: Scores it holds.
        oldest: Day of the oldest record; None when there is none.
        segments: Record segments `written`, and how many are in each of `PLACES`.
        pending: Acts that are done and, after a crash, not in the ledger yet.
    """

    sources: Sequence[SourceCounts]
    scores: int
    oldest: date | None
    segments: Mapping[str, int]
    pending: Sequence[Entry] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One number that both sides know.

    Attributes:
        name: What is compared; a key of the table of words.
        of: What it is further told by: a unit, or a unit and a reason; empty when nothing.
        ledger: The number by the ledger.
        lake: The number by the lake.
    """

    name: str
    of: tuple[str, ...]
    ledger: int
    lake: int

    @property
    def agrees(self) -> bool:
        """Whether both sides say the same."""
        return self.ledger == self.lake


@dataclass(slots=True)
class Approval:
    """An approval that acts were done under.

    Attributes:
        id: Its name.
        basis: Provision it rests on; None when no run under it was entered.
        runs: Runs under it.
        entries: Entries of the ledger that name it.
        first: Time of the first of them.
        last: Time of the last.
    """

    id: str
    basis: str | None
    runs: int
    entries: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that is reported.

    Attributes:
        entries: Entries in the ledger.
        anchor: Number and hash of the newest, `N:HASH`.
        first: Time of the first entry, ISO 8601; None when there is none.
        last: Time of the newest.
        traffic: What was read, kept and dropped, by unit, by the ledger.
        segments: See `LakeSide`.
        oldest: Day of the oldest record.
        acts: How often each thing was done, and how much by it.
        seconds: Longest times to erase, in seconds; None when nothing was erased.
        approvals: By id.
        checks: What both sides know.
    """

    entries: int
    anchor: str
    first: str | None
    last: str | None
    traffic: Mapping[Unit, Totals]
    segments: Mapping[str, int]
    oldest: date | None
    acts: Mapping[str, int]
    seconds: Mapping[str, float | None]
    approvals: Sequence[Approval]
    checks: Sequence[Check]

    @property
    def differences(self) -> list[Check]:
        """The numbers on which ledger and lake disagree."""
        return [check for check in self.checks if not check.agrees]


@dataclass(slots=True)
class _Sum:
    """Counts of one unit."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, read: int, kept: int, dropped: Mapping[str, int]) -> None:
        self.read += read
        self.kept += kept
        self.dropped.update(dropped)


@dataclass(slots=True)
class _Stored:
    """Sources that are stored, by one side."""

    sources: int = 0
    segments: int = 0
    units: dict[Unit, _Sum] = field(default_factory=lambda: {unit: _Sum() for unit in UNITS})


def make_account(entries: Iterable[Entry], lake: LakeSide) -> Account:
    """Adds up a ledger and compares it with its lake.

    Args:
        entries: All entries, in order, each verified.
        lake: The other side, as of a moment when the newest entry was the newest.
    """
    told = list(entries)
    done = [*told, *_not_entered(told, lake.pending)]
    ledger = _by_ledger(told, lake)
    of = _facts_by_kind(done)
    newest = told[-1] if told else None
    return Account(
        entries=len(told),
        anchor=f"{newest['seq']}:{newest['hash']}" if newest else f"0:{'0' * 64}",
        first=told[0]["at"] if told else None,
        last=newest["at"] if newest else None,
        traffic={u: Totals(s.read, s.kept, dict(s.dropped)) for u, s in ledger.units.items()},
        segments=lake.segments,
        oldest=lake.oldest,
        acts=_acts(of, ledger)
        | {"table_changes": _table_changes(told), "not_entered": len(done) - len(told)},
        seconds=_seconds(of),
        approvals=_approvals(told),
        checks=_checks(ledger, _by_lake(lake), of, lake, _scores_left(done)),
    )


def _not_entered(told: Sequence[Entry], pending: Sequence[Entry]) -> list[Entry]:
    """Returns acts that the lake has noted and the ledger does not know."""
    known = {(e["kind"], e["facts"].get(e["kind"])) for e in told}
    return [e for e in pending if (e["kind"], e["facts"][e["kind"]]) not in known]


def _facts_by_kind(entries: Iterable[Entry]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        found.setdefault(entry["kind"], []).append(entry["facts"])
    return found


def _by_ledger(entries: Sequence[Entry], lake: LakeSide) -> _Stored:
    """Adds up the sources whose `ingest` was followed by `commit`.

    A crash between the two leaves it to the lake to say whether they are stored.
    """
    stored, waiting = _Stored(), dict[str, Mapping[str, Any]]()
    for entry in entries:
        kind, facts = entry["kind"], entry["facts"]
        if kind == "ingest":
            waiting[facts["run"]] = facts
        elif kind == "commit" and facts["run"] in waiting:
            _add(stored, waiting.pop(facts["run"]))
        elif kind == "abandoned":
            waiting.pop(facts["run"], None)
    there = {(source.sha256, source.sensor) for source in lake.sources}
    for facts in waiting.values():
        if (facts["sources"][0]["sha256"], facts["sensor"]) in there:
            _add(stored, facts)
    return stored


def _add(stored: _Stored, ingest: Mapping[str, Any]) -> None:
    for source in ingest["sources"]:
        stored.sources += 1
        stored.segments += source["records_written"]
        unit: Unit = "packets" if source["packets_read"] else "records"
        read = source["packets_read"] + source["records_read"]
        stored.units[unit].add(read, source["kept"], source["dropped"])


def _by_lake(lake: LakeSide) -> _Stored:
    stored = _Stored(len(lake.sources), sum(s.records_written for s in lake.sources))
    for source in lake.sources:
        stored.units[source.unit].add(source.read, source.kept, source.dropped)
    return stored


def _total(facts: Iterable[Mapping[str, Any]], *names: str) -> int:
    return sum(int(f.get(name, 0)) for f in facts for name in names)


def _checks(
    ledger: _Stored,
    lake: _Stored,
    of: Mapping[str, Sequence[Mapping[str, Any]]],
    side: LakeSide,
    scores: int,
) -> list[Check]:
    checks = [Check("sources_stored", (), ledger.sources, lake.sources)]
    for unit in UNITS:
        ours, theirs = ledger.units[unit], lake.units[unit]
        checks.append(Check("read", (unit,), ours.read, theirs.read))
        checks.append(Check("kept", (unit,), ours.kept, theirs.kept))
        checks += [
            Check("dropped", (unit, label), ours.dropped[label], theirs.dropped[label])
            for label in sorted(ours.dropped.keys() | theirs.dropped.keys())
        ]
        accounted = theirs.kept + theirs.dropped.total()
        checks.append(Check("kept_and_dropped", (unit,), ours.read, accounted))
    places = side.segments
    purged = _total(of.get("purge", ()), "records")
    erased = _total(of.get("erasure", ()), "selected", "unselected")
    return [
        *checks,
        Check("segments_of_sources", (), ledger.segments, lake.segments),
        Check("segments_written", (), ledger.segments, places["written"]),
        Check("segments_placed", (), ledger.segments, sum(places[place] for place in PLACES)),
        Check("records_purged", (), purged, places["purged"]),
        Check("records_erased", (), erased, places["erased"]),
        Check("scores", (), scores, side.scores),
    ]


def _scores_left(entries: Iterable[Entry]) -> int:
    """Returns the scores of the newest scoring, without those that were taken out since."""
    left = 0
    for entry in entries:
        if entry["kind"] == "score":
            left = entry["facts"]["endpoints"]
        elif entry["kind"] in ("purge", "erasure"):
            left -= entry["facts"]["scores"]
    return left


def _acts(of: Mapping[str, Sequence[Mapping[str, Any]]], ledger: _Stored) -> dict[str, int]:
    def times(kind: str, **having: object) -> int:
        return sum(all(f.get(k) == v for k, v in having.items()) for f in of.get(kind, ()))

    def total(kind: str, *names: str) -> int:
        return _total(of.get(kind, ()), *names)

    newest = (of.get("score") or [{}])[-1]
    return {
        "runs": times("run"),
        "runs_stopped": times("stop"),
        "sources_stored": ledger.sources,
        "sources_refused": times("refused"),
        "sources_abandoned": total("abandoned", "sources"),
        "endpoints_scored": newest.get("endpoints", 0),
        "endpoints_listed": newest.get("listed", 0),
        "selections": times("selection"),
        "records_selected": total("selection", "records"),
        "unselected_looks": times("unselected"),
        "exports": times("export"),
        "entries_exported": total("export", "entries"),
        "reports": times("report"),
        "reidentification_requests": times("reidentify"),
        "reidentifications": times("reidentify", outcome="found"),
        "leak_searches": times("leaks"),
        "leaks_found": total("leaks", "leaks"),
        "leakage_measures": times("leakage"),
        "leakage_leaks": total("leakage", "leaks"),
        "purges": times("purge"),
        "records_purged": total("purge", "records"),
        "erasures": times("erasure"),
        "unselected_erased": total("erasure", "unselected"),
        "selected_erased": total("erasure", "selected"),
        "rule_changes": _changes(of.get("selection", ()), "rules_sha256"),
        "threshold_changes": _changes(of.get("score", ()), "threshold"),
        "key_rotations": times("rotate", state="done"),
        "keys_destroyed": total("destroy", "secrets"),
        "ledger_repairs": times("repair"),
    }


def _changes(facts: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(a[name] != b[name] for a, b in itertools.pairwise(facts))


def _table_changes(entries: Iterable[Entry]) -> int:
    used = [e["facts"]["homeland_sha256"] for e in entries if e["kind"] in ("run", "purge")]
    return sum(a != b for a, b in itertools.pairwise(used))


def _seconds(of: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float | None]:
    def longest(kind: str, name: str) -> float | None:
        return max((f[name] for f in of.get(kind, ()) if f.get(name) is not None), default=None)

    return {
        "purge": longest("purge", "seconds"),
        "erasure": longest("erasure", "seconds"),
        "erasure_late": longest("erasure", "late_s"),
    }


def _approvals(entries: Iterable[Entry]) -> list[Approval]:
    found: dict[str, Approval] = {}
    for entry in entries:
        facts, at = entry["facts"], entry["at"]
        name = facts["authority"]
        approval = found.setdefault(name, Approval(name, None, 0, 0, at, at))
        approval.entries += 1
        approval.last = at
        if entry["kind"] == "run":
            approval.runs += 1
            approval.basis = facts.get("basis")
    return [found[name] for name in sorted(found)]
