"""The views of sql/: one folder each, with `query.sql` and `about.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from telemetry.errors import SettingsError
from telemetry.settings import ASSETS

SQL = ASSETS / "sql"
BASE = "stored_records"
"""The table that all views rest on: Layer.RECORD, and `day` and `bucket`."""


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """One column of a view: its name, unit ("" for names and flags) and meaning."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class View:
    """One view of sql/.

    Attributes:
        name: Its name, equal to its folder's.
        sql: The SELECT that defines it.
        grain: What one row stands for.
        why: What it is for.
        columns: What it returns, in order.
        depends_on: Views it reads, the base table left out.
        by_endpoint: Whether its rows on an endpoint rest on the records of that endpoint alone,
            so that endpoints can be computed in parts.
    """

    name: str
    sql: str
    grain: str
    why: str
    columns: tuple[ViewColumn, ...]
    depends_on: tuple[str, ...]
    by_endpoint: bool = False


@cache
def views() -> list[View]:
    """Returns all views, each after those it depends on, else by name.

    Raises:
        SettingsError: An about.yaml is incomplete, or views depend on each other in a circle.
    """
    found = {path.parent.name: _read(path) for path in sorted(SQL.glob("*/about.yaml"))}
    return [found[name] for name in _ordered(found.values())]


def needed_for(name: str) -> list[View]:
    """Returns a view and all it rests on, in dependency order."""
    by_name = {view.name: view for view in views()}
    wanted: set[str] = set()
    open_names = [name]
    while open_names:
        current = open_names.pop()
        if current not in wanted:
            wanted.add(current)
            open_names.extend(by_name[current].depends_on)
    return [view for view in views() if view.name in wanted]


def _ordered(found: Iterable[View]) -> list[str]:
    sorter = TopologicalSorter({view.name: sorted(view.depends_on) for view in found})
    order: list[str] = []
    try:
        sorter.prepare()
    except CycleError as error:
        raise SettingsError(f"The views {error.args[1]} of sql/ form a circle; cut it.") from None
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order.extend(ready)
        sorter.done(*ready)
    return order


def _read(path: Path) -> View:
    import yaml  # late: the command's help must not wait for it

    # The parser in C takes a tenth of the time, where PyYAML was built with it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    about: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    try:
        return View(
            name=_equal(about["name"], path.parent.name),
            sql=path.with_name("query.sql").read_text(encoding="utf-8"),
            grain=about["grain"],
            why=about["why"],
            columns=tuple(
                ViewColumn(c["name"], c.get("unit", ""), c["meaning"]) for c in about["columns"]
            ),
            depends_on=tuple(name for name in about["depends_on"] if name != BASE),
            by_endpoint=about.get("by_endpoint", False),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"sql/{path.parent.name}/about.yaml: {error} is missing or wrong."
        ) from None


def _equal(name: str, folder: str) -> str:
    if name != folder:
        raise ValueError("name")
    return name
