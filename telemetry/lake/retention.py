"""Retention: what may stay in the lake until when, and what an erasure took out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from telemetry.lake.table import Listed


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure took out of the lake.

    Attributes:
        id: Names its certificate and its ledger entry.
        at: The moment as of which it was done, naive UTC in ISO 8601.
        quarantine_days: Days that records may wait for being selected.
        files: Files of records that were struck or replaced.
        unselected: Records of endpoints that were not selected.
        selected: Records of selected endpoints.
        endpoints: Endpoints that lost a record.
        scores: Scores that went with them.
        deselected: Endpoints that are selected no more.
        oldest: When the oldest of these records was ingested, like `at`.
        late_s: Seconds by which the one that was due first is late.
    """

    id: str
    at: str
    quarantine_days: int
    files: int = 0
    unselected: int = 0
    selected: int = 0
    endpoints: int = 0
    scores: int = 0
    deselected: int = 0
    oldest: str | None = None
    late_s: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """Records that end on one day.

    Attributes:
        due: The moment from which the first of them must go, naive UTC.
        selected: Whether their endpoints are selected.
        files: Files that hold them.
        records: How many they are.
    """

    due: datetime
    selected: bool
    files: int
    records: int


def due_at(file: Listed, quarantine_days: int) -> datetime:
    """Returns the moment, naive UTC, from which a file of records must go."""
    since, retention_days = file.term
    days = min(quarantine_days, retention_days) if file.quarantined else retention_days
    return datetime.fromisoformat(since) + timedelta(days=days)


def schedule(files: list[Listed], quarantine_days: int) -> list[Due]:
    """Returns what ends when, the first first, by day and by whether it is selected."""
    groups: dict[tuple[str, bool], list[tuple[datetime, Listed]]] = {}
    for file in files:
        due = due_at(file, quarantine_days)
        key = (due.date().isoformat(), not file.quarantined)
        groups.setdefault(key, []).append((due, file))
    return [
        Due(
            min(due for due, _ in group),
            selected,
            len(group),
            sum(file.rows for _, file in group),
        )
        for (_, selected), group in sorted(groups.items())
    ]
