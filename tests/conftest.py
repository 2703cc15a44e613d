"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def unconfined() -> Iterator[None]:
    """Takes back what a run inside this process confines: file modes and temporary files."""
    umask, folder = os.umask(0o022), os.environ.get("TMPDIR")
    os.umask(umask)
    yield
    os.umask(umask)
    os.environ.pop("TMPDIR", None)
    if folder is not None:
        os.environ["TMPDIR"] = folder


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Returns the folder of real captures that SEKISHO_CORPUS names; skips without it."""
    folder = os.environ.get("SEKISHO_CORPUS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no corpus: set SEKISHO_CORPUS to its folder")
    return Path(folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many cases the missing corpus cost."""
    skipped = terminalreporter.stats.get("skipped", [])
    cases = sum("no corpus" in str(report.longrepr) for report in skipped)
    if cases:
        terminalreporter.write_line(f"{cases} corpus cases skipped: SEKISHO_CORPUS is not set")
