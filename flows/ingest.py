"""The ingest flow: sources into the lake, for sites whose captures arrive all day."""

from __future__ import annotations

from flows import _command

if __name__ == "__main__":  # before Prefect is imported: wrong usage must fail at once
    raise SystemExit(_command.main("ingest"))

from prefect import flow

from flows import _tasks
from flows._job import find_job
from telemetry.records import IngestReport


@flow(persist_result=False, log_prints=False)
def ingest(inbox: str = "inbox", config: str | None = None) -> IngestReport:
    """Reads an inbox into the lake.

    Prefect stores these parameters: neither may hold an address.

    Args:
        inbox: Folder of sources; what it holds already known is not read again.
        config: Settings file; without it `sekisho.toml` of the working folder, if any.

    Returns:
        What was read, for a caller in this process; Prefect does not keep it.

    Raises:
        StepFailed: The step failed; Prefect learns the kind of the error only.
        SourcesRefused: A named source or the whole inbox was refused.
    """
    report = _tasks.ingest(find_job(inbox, config))
    return _tasks.conclude(report, report)
