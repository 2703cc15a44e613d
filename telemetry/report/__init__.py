"""Reports: facts become one self-contained HTML page.

The page runs no script, loads nothing and holds no name of a file. Names that
other rooms may use are those exported here.
"""

from __future__ import annotations

from pathlib import Path

from telemetry.report.account import Account, LakeSide, make_account
from telemetry.report.facts import Hour, ReportFacts, SourceFacts, Totals
from telemetry.report.words import Language

__all__ = [
    "Account",
    "Hour",
    "LakeSide",
    "Language",
    "ReportFacts",
    "SourceFacts",
    "Totals",
    "make_account",
    "write_report",
]


def write_report(facts: ReportFacts, path: Path) -> None:
    """Writes the analysts' page; see `telemetry.report.page.write_report`.

    Args:
        facts: What the page says.
        path: The file; written aside and renamed, mode 0600.

    Raises:
        LakeError: The file cannot be written; an earlier page stays as it was.
    """
    from telemetry.report.page import write_report as write  # late: jinja2 is slow to import

    write(facts, path)
