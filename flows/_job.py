"""What a flow works on, kept out of Prefect.

Prefect stores parameters, results, messages and logs in its database and shows them
to whoever may see the server. Domestic prefixes, file names and scores have no place
there: a job stays in the process that runs it, and of an error only its kind goes out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from telemetry.errors import SekishoError, SettingsError
from telemetry.pipeline import Progress, new_run_id
from telemetry.settings import Settings, load

logger = logging.getLogger("sekisho")
"""Never among Prefect's loggers, so that nothing logged here reaches its database."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run's settings and sources, who watches it, and the id that all its steps share."""

    settings: Settings
    sources: tuple[str, ...] = ()
    watch: Progress = field(default_factory=Progress)
    run_id: str = field(default_factory=new_run_id)


_GIVEN: ContextVar[Job] = ContextVar("job")


@contextmanager
def given(job: Job) -> Iterator[None]:
    """Flows that run within the block work on `job`, whatever their parameters say."""
    token = _GIVEN.set(job)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def find_job(inbox: str | None, config: str | None) -> Job:
    """Returns the job that was given, or else makes the one that the parameters name.

    Args:
        inbox: Folder of sources; None for a flow that reads none.
        config: Settings file; None means sekisho.toml of the working folder, if any.

    Raises:
        StepFailed: The settings or the folder are wrong.
    """
    job = _GIVEN.get(None)
    if job is not None:
        return job
    with sealed():
        settings = load(Path(config) if config else None)
        if inbox is None:
            return Job(settings)
        if not Path(inbox).is_dir():
            raise SettingsError("The inbox is not a folder; correct the flow's parameter.")
        return Job(settings, (inbox,))


class StepFailed(Exception):
    """A step failed. The text names the kind of error only; `error` is the error itself."""

    def __init__(self, error: Exception) -> None:
        """Args: error: What happened."""
        super().__init__(type(error).__name__)
        self.error = error

    @property
    def transient(self) -> bool:
        """Whether the same step may succeed later without any change."""
        return isinstance(self.error, SekishoError) and self.error.transient


class SourcesRefused(Exception):
    """All steps were done, yet the run must count as failed. The text holds counts only.

    Attributes:
        answer: What the flow would have returned.
        sentence: What to tell whoever started the run.
    """

    def __init__(self, counts: str, answer: Any, sentence: str) -> None:
        """Args: counts, answer, sentence: See above."""
        super().__init__(counts)
        self.answer = answer
        self.sentence = sentence


@contextmanager
def sealed() -> Iterator[None]:
    """Tells an error to whoever started the run, and Prefect no more than its kind.

    Raises:
        StepFailed: In place of any other error.
    """
    try:
        yield
    except SekishoError as error:
        logger.error("%s", error)
        raise StepFailed(error) from None
    except Exception as error:
        raise StepFailed(error) from None
