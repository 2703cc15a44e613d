"""What a day needs, as one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from telemetry.pipeline.doors import Progress, Retained, new_run_id
from telemetry.pipeline.erasure import retention
from telemetry.pipeline.intake import ingest
from telemetry.pipeline.results import make_list, make_report, score
from telemetry.records import IngestReport
from telemetry.roles import needs
from telemetry.settings import Settings

if TYPE_CHECKING:
    from telemetry.scoring.scores import Ranking


@dataclass(frozen=True, slots=True)
class RunReport:
    """Answer of `run --json`."""

    ingest: IngestReport
    endpoints: Ranking
    files: list[Path]
    retained: Retained


@needs("operation")
def run(settings: Settings, sources: Sequence[str], progress: Progress | None = None) -> RunReport:
    """Ingests sources, scores and selects endpoints, writes list and report, erases what is due.

    Raises:
        SekishoError: See `ingest`; a single bad source is reported, not raised.
    """
    watch = progress or Progress()
    run_id = new_run_id()
    ingested = ingest(settings, sources, watch, run_id=run_id)
    endpoints = score(settings, watch, run_id=run_id)
    _, files = make_list(settings, watch, run_id=run_id)
    report = make_report(settings, watch, run_id=run_id)
    retained = retention(settings, watch, run_id=run_id)
    return RunReport(ingested, endpoints, [*files, report], retained)
