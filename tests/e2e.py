"""What the end-to-end tests share: the command in this process or its own, samples, lakes."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from telemetry import cli, pipeline
from telemetry.console import Console
from telemetry.lake import query
from telemetry.settings import Settings, load

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "data" / "samples"
CAPTURES = SAMPLES / "captures"
BROKEN = SAMPLES / "broken"
TRUTH: dict[str, Any] = json.loads((SAMPLES / "truth.json").read_text())
LISTS = ("list.csv", "list.txt", "list.jsonl", "list.stix.json")


@dataclass(frozen=True)
class Answer:
    """What a command said; `out` and `err` as written, `words` with single spaces."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        return " ".join(f"{self.out} {self.err}".replace("│", " ").split())

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=_no_constant)

    def has_no_traceback(self) -> bool:
        said = self.out + self.err
        return not any(word in said for word in ("Traceback", "Exception ignored", '  File "'))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def call(*arguments: object) -> Answer:
    """Runs the command inside this process: no start-up to wait for."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(argument) for argument in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


def spawn(*arguments: object, before: tuple[str, ...] = (), **options: Any) -> Answer:
    """Runs the command in a process of its own, `before` in front of it."""
    done = subprocess.run(
        [*before, *command(*arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **{"env": environment()} | options,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "telemetry.cli", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """This environment without settings of Sekisho; the checkout is importable from anywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEKISHO_")}
    return kept | {"PYTHONPATH": str(ROOT)} | more


def fixed_key(path: Path) -> Path:
    """Writes a key that is the same in every test, so that tables can be compared."""
    path.write_text("sekisho-key 1\n" + "5e" * 32 + "\n")
    path.chmod(0o600)
    return path


def settings_in(folder: Path, **options: Any) -> Settings:
    """Returns settings with a lake of its own in the folder and the fixed key."""
    folder.mkdir(parents=True, exist_ok=True)
    return load(lake=folder / "lake", key_file=fixed_key(folder / "key"), **options)


def stored(lake: Path) -> pa.Table:
    """Returns all records, unselected ones too, in one order."""
    return query(lake, "SELECT * FROM stored_records ORDER BY ALL", unselected=True)


def query_rows(lake: Path, sql: str) -> list[dict[str, Any]]:
    return query(lake, sql, unselected=True).to_pylist()


def count(lake: Path, table: str) -> int:
    return int(query(lake, f"SELECT count(*) AS n FROM {table}", unselected=True)["n"][0].as_py())


@dataclass(frozen=True)
class SampleRun:
    """One undisturbed `run` over the committed captures, and what it answered."""

    settings: Settings
    report: pipeline.RunReport
    said: Answer


@functools.cache
def sample_run() -> SampleRun:
    """Runs everything once for all tests of this process; nobody may change its lake."""
    folder = Path(tempfile.mkdtemp(prefix="sekisho-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings = settings_in(folder)
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        Console(False) as console,
    ):
        report = pipeline.run(settings, [str(CAPTURES)], console)
        console.ran(report)
    return SampleRun(settings, report, Answer(0, out.getvalue(), err.getvalue()))
