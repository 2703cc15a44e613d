"""Names and modes inside a lake."""

from __future__ import annotations

FOLDER_MODE = 0o700
FILE_MODE = 0o600

RECORDS = "records"
SCORES = "scores"
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

FOLDERS = (RECORDS, SCORES, TMP, LISTS, REPORTS)
KNOWN = {*FOLDERS, TABLE, f"{TABLE}-wal", f"{TABLE}-shm", CATALOG, LOCK, "ledger.jsonl"}
"""What may stand in a folder that is to become a lake."""
