"""Wires the rooms: the only module that knows them all.

`run` is what a day needs: `ingest`, `score` (which also selects), `make_list`,
`make_report`, `retention`. Each takes settings and returns plain facts; none of them prints.
Each declares what it `needs`, and refuses settings whose role may not do it.
"""

from __future__ import annotations

from telemetry.pipeline.daily import RunReport, run
from telemetry.pipeline.doors import Progress, Retained, load_homeland, new_run_id
from telemetry.pipeline.erasure import purge, retention, retention_due
from telemetry.pipeline.evaluation import evaluate, evaluate_beacons
from telemetry.pipeline.intake import COMMIT_SOURCES, Group, expand, failure, ingest
from telemetry.pipeline.oversight import (
    AuditReport,
    audit_report,
    destroy_keys,
    examine,
    examine_authority,
    export_ledger,
    leakage,
    leaks,
    new_key,
    refresh_homeland,
    reidentify,
    rotate_keys,
    show_keys,
    verify_ledger,
)
from telemetry.pipeline.results import (
    explain,
    make_list,
    make_report,
    query,
    read_scores,
    score,
)

__all__ = [
    "COMMIT_SOURCES",
    "AuditReport",
    "Group",
    "Progress",
    "Retained",
    "RunReport",
    "audit_report",
    "destroy_keys",
    "evaluate",
    "evaluate_beacons",
    "examine",
    "examine_authority",
    "expand",
    "explain",
    "export_ledger",
    "failure",
    "ingest",
    "leakage",
    "leaks",
    "load_homeland",
    "make_list",
    "make_report",
    "new_key",
    "new_run_id",
    "purge",
    "query",
    "read_scores",
    "refresh_homeland",
    "reidentify",
    "retention",
    "retention_due",
    "rotate_keys",
    "run",
    "score",
    "show_keys",
    "verify_ledger",
]
