"""What Prefect must find in the environment before it is imported.

Prefect reads its settings once, at import: `isolate` comes first.
"""

from __future__ import annotations

import os
from pathlib import Path

from telemetry.settings import Settings

_ALWAYS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "true",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # ours, in `flows._server`, is quicker
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    # Tracebacks of failed runs; the error itself is told once, as one sentence.
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}


def state_folder(settings: Settings) -> Path:
    """Returns where Prefect keeps its database: beside the lake, as the key is."""
    return settings.beside(".prefect").absolute()


def isolate(home: Path) -> str | None:
    """Cuts Prefect off from the user's profiles and from everybody's statistics.

    A profile may point at a server elsewhere, which would get names and logs of every
    run; so only PREFECT_API_URL, given for this very run, is honoured.

    Args:
        home: Folder of Prefect's state; made, for its owner alone, if it is missing.

    Returns:
        The API that the user asked for, or None.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.pop("PREFECT_PROFILE", None)
    os.environ.update(_ALWAYS)
    os.environ["PREFECT_HOME"] = str(home)
    return os.environ.get("PREFECT_API_URL") or None


def use_server(url: str, secret: str) -> None:
    """Makes Prefect talk to a server of our own, past any proxy."""
    os.environ.pop("PREFECT_API_KEY", None)
    os.environ["PREFECT_API_URL"] = url
    os.environ["PREFECT_API_AUTH_STRING"] = secret
    for name in ("no_proxy", "NO_PROXY"):
        others = os.environ.get(name, "")
        os.environ[name] = f"{others},127.0.0.1" if others else "127.0.0.1"
