"""The lake: clean records in Parquet, a file table in SQLite, a DuckDB catalog of views.

LAKE/
    records/day=YYYY-MM-DD/bucket=NN/NAME.parquet
    scores/RUN.parquet
    files.sqlite      what is stored; a file it does not list does not exist
    analyst.duckdb    views over the listed files, swapped in by rename
    tmp/              everything is written here first
    lock              held by the one writer
"""

from telemetry.lake.catalog import connect, query
from telemetry.lake.store import Lake, SourceBatch
from telemetry.lake.table import Counts, LakeMeta, StoredSource

__all__ = [
    "Counts",
    "Lake",
    "LakeMeta",
    "SourceBatch",
    "StoredSource",
    "connect",
    "query",
]
