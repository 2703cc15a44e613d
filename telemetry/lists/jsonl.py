"""JSON Lines: one object a line, in the shape of `list --json` plus the expiry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TextIO

from telemetry.lists.contract import ListEntry, ListHeader, utc
from telemetry.records import entry_json


class JsonLines:
    """One JSON object a line."""

    name = "jsonl"
    suffix = ".jsonl"

    def write(self, entries: Sequence[ListEntry], header: ListHeader, stream: TextIO) -> None:
        """Writes the list; see `ListFormat.write`."""
        for entry in entries:
            row = entry_json(entry.scored) | {"valid_until": utc(entry.valid_until)}
            stream.write(json.dumps(row, allow_nan=False) + "\n")
