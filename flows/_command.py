"""`python -m flows.NAME`: one run of a flow, now, with the options of `sekisho`.

Nothing here imports Prefect before the usage is checked.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Any

from cyclopts import App, CycloptsError

from flows._environment import isolate, state_folder, use_server
from flows._job import Job, StepFailed, given
from flows._server import Server, ServerError
from telemetry.cli import DEFAULTS, Json, Options
from telemetry.console import Console
from telemetry.errors import SekishoError
from telemetry.pipeline import expand
from telemetry.records import IngestReport
from telemetry.settings import Settings

_SLOW_ROOMS = ("lake", "features")
_EPILOGUE = "Exit code 0: done. 1: a run failed. 2: wrong usage, or refused."


def daily() -> int:
    """Runs the daily flow; returns the exit code."""
    app = _app("daily")

    @app.default
    def run(*sources: str, json: Json = False, options: Options = DEFAULTS) -> int:
        """Ingest sources, score every foreign endpoint, write the list and the report.

        Args:
            sources: Files, folders or - for standard input.
            json: Answer in JSON.
            options: Shared options.
        """
        settings = _checked(options, sources)
        with Console(json) as console:
            report = _run("daily", Job(settings, sources, console))
            console.ran(report)
        return _exit_code(report.ingest)

    return _main(app)


def ingest() -> int:
    """Runs the ingest flow; returns the exit code."""
    app = _app("ingest")

    @app.default
    def run(*sources: str, json: Json = False, options: Options = DEFAULTS) -> int:
        """Read sources into the lake; each is read once, whatever its name.

        Args:
            sources: Files, folders or - for standard input.
            json: Answer in JSON.
            options: Shared options.
        """
        settings = _checked(options, sources)
        with Console(json) as console:
            report = _run("ingest", Job(settings, sources, console))
            console.ingested(report)
        return _exit_code(report)

    return _main(app)


def score() -> int:
    """Runs the score flow; returns the exit code."""
    app = _app("score")

    @app.default
    def run(*, json: Json = False, options: Options = DEFAULTS) -> int:
        """Score every endpoint in the lake, write the list and the report.

        Args:
            json: Answer in JSON.
            options: Shared options.
        """
        with Console(json) as console:
            console.listed(*_run("score", Job(options.settings(), watch=console)))
        return 0

    return _main(app)


def _app(name: str) -> App:
    return App(
        name=f"python -m flows.{name}",
        version_flags=(),
        help_epilogue=_EPILOGUE,
        suppress_keyboard_interrupt=False,  # told in `_main`
    )


def _main(app: App) -> int:
    _log_to_stderr()
    try:
        code = app(exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        return 2
    except StepFailed as failed:
        if not isinstance(failed.error, SekishoError):
            raise failed.error from None
        return failed.error.exit_code  # `sealed` has told the sentence already
    except SekishoError as error:
        print(f"sekisho: {error}", file=sys.stderr)
        return error.exit_code
    except ServerError as error:
        print(f"sekisho: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sekisho: stopped; nothing that was stored is lost.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    return code if isinstance(code, int) else 0


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("sekisho: %(message)s"))
    log = logging.getLogger("sekisho")
    log.addHandler(handler)
    log.propagate = False  # Prefect's handler of the root logger would say it again


def _checked(options: Options, sources: tuple[str, ...]) -> Settings:
    """Returns the settings; refuses at once what the run would refuse many seconds later."""
    settings = options.settings()
    expand(settings, sources)
    return settings


def _run(name: str, job: Job) -> Any:
    home = state_folder(job.settings.lake)
    server = None if isolate(home) else Server(home)
    if server:
        use_server(server.url, server.secret)
    flow = getattr(import_module(f"flows.{name}"), name)
    if server:
        for room in _SLOW_ROOMS:  # to import, while the server starts
            import_module(f"telemetry.{room}")
        server.wait()
    with given(job):
        return flow()


def _exit_code(report: IngestReport) -> int:
    refused = [source for source in report.sources if source.status == "refused" and source.named]
    return 1 if refused else 0
