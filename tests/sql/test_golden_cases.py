"""Every query of sql/ gives, on the rows of each case, what the case expects.

A case is a folder <query>/<case>/ with input.yaml (rows, see stored_rows) and expect.yaml:

    order: endpoint_ip        # how to sort the answer
    where: protocol = 6       # optional: which rows to look at
    rows:                     # all of them, each with the columns that matter
      - {endpoint_ip: 198.51.100.7, gaps: 9}

Times are given as seconds since START of stored_rows.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from stored_rows import START, connect

from telemetry.features import shown, views
from telemetry.features.catalog import needed_for

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/*/expect.yaml"))


def test_every_query_has_a_golden_case() -> None:
    assert {view.name for view in views()} == {case.parent.name for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_query_gives_what_the_case_expects(case: Path) -> None:
    given = yaml.safe_load((case / "input.yaml").read_text(encoding="utf-8"))
    expected = yaml.safe_load((case / "expect.yaml").read_text(encoding="utf-8"))
    rows = answer(case.parent.name, given, expected)
    assert len(rows) == len(expected["rows"]), rows
    for row, wanted in zip(rows, expected["rows"], strict=True):
        found = {name: _plain(row[name]) for name in wanted}
        assert found == {name: _close(value) for name, value in wanted.items()}


def answer(
    name: str, given: list[dict[str, Any]], expected: dict[str, Any]
) -> list[dict[str, Any]]:
    """Runs a query and all it rests on, as the catalog shows them; returns the rows asked for."""
    needed = {view.name for view in needed_for(name)}
    with connect(given) as connection:
        for view, sql in shown():
            if view in needed:
                connection.execute(f"CREATE VIEW {view} AS {sql}")
        where, order = expected.get("where", "true"), expected["order"]
        table = connection.sql(
            f"SELECT * FROM {name} WHERE {where} ORDER BY {order}"
        ).to_arrow_table()
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - START).total_seconds()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-3) if isinstance(value, float) else value
