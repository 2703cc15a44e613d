"""Lists: scored endpoints become files for block lists and other systems.

We stop at files. Every entry carries a role, a confidence, its reasons and an
expiry. Names that other rooms may use are those exported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from telemetry.lists.contract import ListEntry, ListFormat, ListHeader
from telemetry.lists.csv import Csv
from telemetry.lists.jsonl import JsonLines
from telemetry.lists.plain import Plain
from telemetry.lists.stix import Stix
from telemetry.lists.writing import MANIFEST, count_left_out, is_left_out, write_all
from telemetry.records import ScoredEndpoint

__all__ = [
    "FORMATS",
    "MANIFEST",
    "ListEntry",
    "ListFormat",
    "ListHeader",
    "count_left_out",
    "is_left_out",
    "write_lists",
]

FORMATS: tuple[ListFormat, ...] = (
    Csv(),
    Plain(),
    JsonLines(),
    Stix(),
)
"""Every format, in the order they are written. A new one is a line here."""


def write_lists(
    entries: Sequence[ScoredEndpoint],
    folder: Path,
    header: ListHeader,
    forbidden: Callable[[str], bool],
) -> list[Path]:
    """Writes the list in every format, and a manifest with counts and hashes.

    Files are written aside and renamed, with mode 0600; equal arguments give equal
    bytes. An empty list is a valid list.

    Args:
        entries: Scored endpoints; only those with `listed` that have not expired at the
            header's `made_at` are written. Without it, no entry has a time to trust.
        folder: Where the files go, `list.csv` and so on; made if it is missing.
        header: What is said about the whole list; its `expired` is counted here.
        forbidden: True for an address that must not leave, such as a domestic one. It
            is asked for each listed endpoint and for each address inside its reasons.

    Returns:
        The files written, in the order of `FORMATS`, the manifest last.

    Raises:
        PrivacyError: An entry is forbidden or no address; nothing was written.
        LakeError: The folder cannot be written; earlier lists stay as they were.
    """
    return write_all(FORMATS, entries, folder, header, forbidden)
