"""`python -m flows.NAME`: one run of a flow, now, with the options of `sekisho`.

Nothing here imports Prefect before the usage is checked.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from cyclopts import App, CycloptsError

from flows._environment import isolate, state_folder, use_server
from flows._job import Job, SourcesRefused, StepFailed, given
from flows._server import Server, ServerError
from telemetry.cli import DEFAULTS, STOPPED, Json, Options, Sources, leave, stoppable
from telemetry.console import Console
from telemetry.errors import SekishoError
from telemetry.pipeline import expand

_SLOW_ROOMS = ("lake", "features")
_EPILOGUE = "Exit code 0: done. 1: a run failed. 2: wrong usage, or refused. 130: stopped."


class _Command(NamedTuple):
    """One flow's command: its help, whether it reads sources, and how its answer is shown."""

    summary: str
    takes_sources: bool
    show: Callable[[Console, Any], None]


_COMMANDS = {
    "daily": _Command(
        "Ingest sources, score every foreign endpoint, write the list and the report.",
        True,
        Console.ran,
    ),
    "ingest": _Command(
        "Read sources into the lake; each is read once, whatever its name.",
        True,
        Console.ingested,
    ),
    "score": _Command(
        "Score every endpoint in the lake, write the list and the report.",
        False,
        lambda console, found: console.ranked(*found),
    ),
}


def main(name: str) -> int:
    """Runs a flow with the arguments of this process; returns the exit code."""
    code = stoppable(lambda: _answer(name))
    if code == STOPPED:
        leave(code)  # libraries that were stopped complain when they are taken down
    return code


def _answer(name: str) -> int:
    _log_to_stderr()
    app = _app(name)
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
    except BrokenPipeError:
        return 1
    return code if isinstance(code, int) else 0


def _app(name: str) -> App:
    app = App(
        name=f"python -m flows.{name}",
        help=_COMMANDS[name].summary,
        version_flags=(),
        help_epilogue=_EPILOGUE,
        suppress_keyboard_interrupt=False,  # told in `main`
    )

    def with_sources(*sources: Sources, json: Json = False, options: Options = DEFAULTS) -> int:
        """Runs the flow.

        Args:
            sources: Files, folders, quoted patterns, zip and tar files, or - for standard input.
            json: Answer in JSON.
            options: Shared options.
        """
        expand(options.settings(), sources)  # refuses at once what the run would refuse late
        return _run(name, sources, json, options)

    def without(*, json: Json = False, options: Options = DEFAULTS) -> int:
        """Runs the flow.

        Args:
            json: Answer in JSON.
            options: Shared options.
        """
        return _run(name, (), json, options)

    app.default(with_sources if _COMMANDS[name].takes_sources else without)
    return app


def _run(name: str, sources: tuple[str, ...], json: bool, options: Options) -> int:
    sentence = None
    with Console(json) as console:
        try:
            answer = _flow(name, Job(options.settings(), sources, console))
        except SourcesRefused as refused:
            answer, sentence = refused.answer, refused.sentence
        _COMMANDS[name].show(console, answer)
    if sentence is None:
        return 0
    print(f"sekisho: {sentence}", file=sys.stderr)
    return 1


def _flow(name: str, job: Job) -> Any:
    home = state_folder(job.settings)
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


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("sekisho: %(message)s"))
    log = logging.getLogger("sekisho")
    log.addHandler(handler)
    log.propagate = False  # Prefect's handler of the root logger would say it again
