"""Plain text: one address a line, for block lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from telemetry.lists.contract import ListEntry, ListHeader, utc


class Plain:
    """One address a line after `#` lines that say what the list is."""

    name = "plain"
    suffix = ".txt"

    def write(self, entries: Sequence[ListEntry], header: ListHeader, stream: TextIO) -> None:
        """Writes the list; see `ListFormat.write`."""
        for line in _head(entries, header):
            # A line break inside an id would start a line that reads as an address.
            stream.write(f"# {' '.join(line.split())}\n")
        for entry in entries:
            stream.write(f"{entry.scored.endpoint}\n")


def _head(entries: Sequence[ListEntry], header: ListHeader) -> list[str]:
    lines = [
        "Sekisho: foreign attack infrastructure",
        f"run: {header.run}",
        f"authority: {header.authority}",
        f"data up to: {utc(header.made_at) if header.made_at else 'no data'}",
        f"entries: {len(entries)}",
        f"expired: {header.expired}",
    ]
    if not entries:
        why = "no endpoint reached the threshold"
        if header.expired:
            future = header.made_at is None
            why = "all entries are dated later than now" if future else "all entries have expired"
        return [*lines, f"This list is empty: {why}."]
    expiries = sorted(entry.valid_until for entry in entries)
    return [
        *lines,
        f"expiry: {header.days} days after an address was last seen",
        f"first entry expires: {utc(expiries[0])}",
        f"last entry expires: {utc(expiries[-1])}",
    ]
