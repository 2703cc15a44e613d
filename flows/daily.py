"""The daily flow: ingest, score and select, list, report, retention.

`python -m flows.daily SOURCE…` runs it now; prefect.yaml runs it every night on a site.
"""

from __future__ import annotations

from flows import _command

if __name__ == "__main__":  # before Prefect is imported: wrong usage must fail at once
    raise SystemExit(_command.main("daily"))

from prefect import flow

from flows import _tasks
from flows._job import find_job
from telemetry.pipeline import RunReport


@flow(persist_result=False, log_prints=False)
def daily(inbox: str = "inbox", config: str | None = None) -> RunReport:
    """Ingests an inbox, scores every endpoint, writes list and report, erases what is due.

    Prefect stores these parameters: neither may hold an address.

    Args:
        inbox: Folder of sources; what it holds already known is not read again.
        config: Settings file; without it `sekisho.toml` of the working folder, if any.

    Returns:
        What was read and found, for a caller in this process; Prefect does not keep it.

    Raises:
        StepFailed: A step failed; Prefect learns the kind of the error only.
        SourcesRefused: All is written, but a named source or the whole inbox was refused.
    """
    job = find_job(inbox, config)
    ingested = _tasks.ingest(job)
    endpoints = _tasks.score(job)
    files = _tasks.make_list(job)
    files.append(_tasks.make_report(job))
    report = RunReport(ingested, endpoints, files, _tasks.retention(job))
    return _tasks.conclude(ingested, report)
