"""The steps of a run as Prefect tasks: few, coarse, without results of their own in Prefect.

A step that did half its work is repeated without harm: the lake takes a source once.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows._job import Job, SourcesRefused, StepFailed, logger, sealed
from telemetry import pipeline
from telemetry.records import IngestReport
from telemetry.scoring.scores import Ranking

Answer = TypeVar("Answer")
RETRY_DELAYS_S = [5.0, 15.0, 60.0, 300.0]
"""Seconds before each further attempt: another run may hold the lake for minutes."""


def is_transient(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Says whether a failed step is worth another attempt."""
    again = isinstance(state.data, StepFailed) and state.data.transient
    if again:
        logger.warning("Trying again soon.")
    return again


_step = task(
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=is_transient,
    persist_result=False,
    cache_policy=NO_CACHE,
    log_prints=False,
)


def _say(counts: str) -> None:
    """Logs to Prefect what a site's operator wants to see there: counts, nothing else."""
    get_run_logger().info(counts)


@_step
def ingest(job: Job) -> IngestReport:
    """Reads the sources into the lake."""
    with sealed():
        report = pipeline.ingest(job.settings, job.sources, job.watch, run_id=job.run_id)
    counts = Counter(source.status for source in report.sources)
    _say(", ".join(f"{n} sources {status}" for status, n in sorted(counts.items())))
    return report


@_step
def score(job: Job) -> Ranking:
    """Scores every endpoint."""
    with sealed():
        endpoints = pipeline.score(job.settings, job.watch, run_id=job.run_id)
    _say(f"{len(endpoints)} endpoints scored, {len(endpoints.listed)} to be listed")
    return endpoints


@_step
def make_list(job: Job) -> list[Path]:
    """Writes the list."""
    with sealed():
        return pipeline.make_list(job.settings, job.watch, run_id=job.run_id)[1]


@_step
def make_report(job: Job) -> Path:
    """Writes the report."""
    with sealed():
        return pipeline.make_report(job.settings, job.watch, run_id=job.run_id)


@_step
def retention(job: Job) -> pipeline.Retained:
    """Erases what may stay no longer."""
    with sealed():
        retained = pipeline.retention(job.settings, job.watch, run_id=job.run_id)
    erased = retained.erased
    _say(f"{erased.unselected + erased.selected} records erased")
    return retained


def conclude(report: IngestReport, answer: Answer) -> Answer:
    """Ends a flow whose steps are all done: fails it if what it ought to read was refused.

    Raises:
        SourcesRefused: `pipeline.failure` says that the run must count as failed.
    """
    sentence = pipeline.failure(report)
    if sentence is None:
        return answer
    refused = sum(source.status == "refused" for source in report.sources)
    counts = f"{refused} of {len(report.sources)} sources refused"
    get_run_logger().error(counts)
    raise SourcesRefused(counts, answer, sentence)
