"""The lake: clean records in Parquet, a file table in SQLite, a DuckDB catalog of views.

LAKE/
    quarantine/       records and scores of endpoints that are not selected, laid out alike
    records/day=YYYY-MM-DD/bucket=NN/NAME.parquet
    scores/RUN.parquet
    selection/RUN.parquet   who is selected, by which rule, until when
    certificates/     one for each erasure
    files.sqlite      what is stored; a file it does not list does not exist
    analyst.duckdb    views over the listed files, swapped in by rename
    tmp/              everything is written here first
    lock              held by the one writer
"""

from telemetry.lake.catalog import Catalog, connect, holding, query, stream
from telemetry.lake.purge import Purge
from telemetry.lake.retention import Due, Erasure
from telemetry.lake.store import Lake, SourceBatch
from telemetry.lake.table import Counts, LakeMeta, StoredSource

__all__ = [
    "Catalog",
    "Counts",
    "Due",
    "Erasure",
    "Lake",
    "LakeMeta",
    "Purge",
    "SourceBatch",
    "StoredSource",
    "connect",
    "holding",
    "query",
    "stream",
]
