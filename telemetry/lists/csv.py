"""CSV: one row an endpoint, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import TextIO

from telemetry.lists.contract import ListEntry, ListHeader, reasons_text, utc

COLUMNS = (
    "endpoint",
    "role",
    "confidence",
    "score",
    "reasons",
    "first_seen",
    "last_seen",
    "valid_until",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A cell that begins so may be run as a formula (OWASP, CSV Injection)."""


class Csv:
    """A header row, then one row an endpoint; no comment lines."""

    name = "csv"
    suffix = ".csv"

    def write(self, entries: Sequence[ListEntry], header: ListHeader, stream: TextIO) -> None:
        """Writes the list; see `ListFormat.write`."""
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(COLUMNS)
        for entry in entries:
            rows.writerow([guard(cell) for cell in _cells(entry)])


def guard(cell: str) -> str:
    """Returns the cell with a leading quote mark if a spreadsheet could run it."""
    return "'" + cell if cell.startswith(_FORMULA) else cell


def _cells(entry: ListEntry) -> tuple[str, ...]:
    scored = entry.scored
    return (
        scored.endpoint,
        scored.role,
        str(scored.confidence),
        f"{scored.score:.4f}",
        reasons_text(scored),
        utc(scored.first_seen),
        utc(scored.last_seen),
        utc(entry.valid_until),
    )
