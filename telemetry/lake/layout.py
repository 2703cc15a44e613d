"""Names and modes inside a lake."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

FOLDER_MODE = 0o700
FILE_MODE = 0o600

RECORDS = "records"
SCORES = "scores"
SELECTION = "selection"
QUARANTINE = "quarantine"
"""Holds `records/` and `scores/` of endpoints that are not selected; no analyst reads it."""
CERTIFICATES = "certificates"
TABLE = "files.sqlite"
CATALOG = "analyst.duckdb"
TMP = "tmp"
LISTS = "lists"
REPORTS = "reports"
LOCK = "lock"
SPILL = "spill-"
"""Start of the names below tmp/ where a reading process, named by its id, may spill."""

ASIDE = ".aside-"
"""Start of the names below lists/ and reports/ of what is written there, before its rename."""

STORED = (RECORDS, SCORES, SELECTION, QUARANTINE)
"""Folders whose Parquet files the file table lists."""
FOLDERS = (*STORED, TMP, LISTS, REPORTS, CERTIFICATES)
KNOWN = {*FOLDERS, TABLE, f"{TABLE}-wal", f"{TABLE}-shm", CATALOG, LOCK, "ledger.jsonl"}
"""What may stand in a folder that is to become a lake."""
NO_LAKE = "There is no lake at {}; check --lake, or ingest sources first."


class Partition(NamedTuple):
    """Where a record is stored: UTC day of its first packet, bucket of its endpoint."""

    day: date
    bucket: int
