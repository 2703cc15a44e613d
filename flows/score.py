"""The score flow: scores, list and report of what the lake holds."""

from __future__ import annotations

from flows import _command

if __name__ == "__main__":  # before Prefect is imported: wrong usage must fail at once
    raise SystemExit(_command.main("score"))

from pathlib import Path

from prefect import flow

from flows import _tasks
from flows._job import find_job
from telemetry.scoring.scores import Ranking


@flow(persist_result=False, log_prints=False)
def score(config: str | None = None) -> tuple[Ranking, list[Path]]:
    """Scores every endpoint in the lake, writes the list and the report.

    Args:
        config: Settings file; without it `sekisho.toml` of the working folder, if any.
            Prefect stores this: it may hold no address.

    Returns:
        All endpoints, highest score first, and the files written, for a caller in this
        process; Prefect does not keep them.

    Raises:
        StepFailed: A step failed; Prefect learns the kind of the error only.
    """
    job = find_job(None, config)
    endpoints = _tasks.score(job)
    files = _tasks.make_list(job)
    return endpoints, [*files, _tasks.make_report(job)]
