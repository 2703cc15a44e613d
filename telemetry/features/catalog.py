"""The views of sql/: one folder each, with `query.sql` and `about.yaml`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path
from typing import Any

from telemetry.columns import TABLES, Column, Layer
from telemetry.errors import SettingsError
from telemetry.settings import ASSETS

SQL = ASSETS / "sql"
BASE = "stored_records"
"""The table that all views rest on: Layer.RECORD, and `day` and `bucket`."""


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """One column of a view.

    Attributes:
        name: Its name.
        unit: Unit of the value, or "" for names and flags.
        meaning: One line for the reader.
        merge: The aggregate that puts together what parts of the endpoints gave, or "".
    """

    name: str
    unit: str
    meaning: str
    merge: str = ""


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

    @property
    def in_parts(self) -> bool:
        """Whether its rows can be computed for some endpoints at a time."""
        return self.by_endpoint or self.is_merged

    @property
    def is_merged(self) -> bool:
        """Whether what parts of the endpoints gave is put together by `ViewColumn.merge`."""
        return any(column.merge for column in self.columns)


@cache
def views() -> list[View]:
    """Returns all views, each after those it depends on, else by name.

    Raises:
        SettingsError: An about.yaml is incomplete, or views depend on each other in a circle.
    """
    abouts = {path.parent.name: _about(path) for path in sorted(SQL.glob("*/about.yaml"))}
    found: dict[str, View] = {}
    for name in _ordered({name: about["depends_on"] for name, about in abouts.items()}):
        with _names_the_file(name):
            found[name] = _view(name, abouts[name], found)
    return list(found.values())


def about() -> tuple[str, str]:
    """Returns name and SELECT of a view that says what the views and their columns mean."""
    told: list[tuple[str, str, Sequence[ViewColumn | Column]]] = [
        *((view.name, f"{view.grain}. {view.why}", view.columns) for view in views()),
        *((name, why, TABLES[of] if of else ()) for name, (of, why) in _STORED.items()),
    ]
    rows = [
        (name, number, column.name, column.unit, column.meaning)
        for name, why, columns in told
        for number, column in enumerate((ViewColumn("", "", why), *columns))
    ]
    values = ", ".join(f"({', '.join(map(_literal, row))})" for row in rows)
    names = "view_name, place, column_name, unit, meaning"
    return "about", f"SELECT * FROM (VALUES {values}) AS about({names}) ORDER BY ALL"


_STORED: dict[str, tuple[Layer | None, str]] = {
    BASE: (Layer.RECORD, "one record. What all views rest on; `records` says more of each."),
    "scores": (
        Layer.SCORE,
        "one endpoint. Its newest score, its role and the reasons; `endpoint` is the `endpoint_ip` "
        "of the other views.",
    ),
    "selected": (Layer.SELECTION, "one endpoint that is selected. By which rule, and until when."),
    "sources": (None, "one source that was read. Its hash, its format, and what became of it."),
    "runs": (None, "one run and unit. What its sources held and what was kept."),
    "about": (None, "one column of a view, or at place 0 the view. What it means."),
}
"""What the catalog shows besides the views of sql/."""


def _literal(value: object) -> str:
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def shown() -> list[tuple[str, str]]:
    """Returns names and SELECTs of all views and of `about`, for the catalog of a lake.

    DuckDB works out a view anew wherever another mentions it, and the last of ours would rest on
    the records some four hundred times. So what rests on views of all endpoints carries all its
    steps, each once. Others do not: the catalog would grow to several times its size.
    """
    return [*((view.name, _with_steps(view)) for view in views()), about()]


def _with_steps(view: View) -> str:
    *steps, _ = needed_for(view.name)
    local = {step.name for step in steps if step.in_parts}
    late = {s.name for s in steps if s.name not in local and not local.isdisjoint(s.depends_on)}
    if late.isdisjoint(view.depends_on):
        return view.sql
    named = ",\n".join(f"{step.name} AS (\n{step.sql})" for step in steps)
    return f"WITH {named}\nSELECT * FROM (\n{view.sql})"


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


def _ordered(depends_on: Mapping[str, Iterable[str]]) -> list[str]:
    sorter = TopologicalSorter({name: sorted(set(on) - {BASE}) for name, on in depends_on.items()})
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


def _about(path: Path) -> dict[str, Any]:
    import yaml  # late: the command's help must not wait for it

    # The parser in C takes a tenth of the time, where PyYAML was built with it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with _names_the_file(path.parent.name):
        about: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
        if about["name"] != path.parent.name:
            raise ValueError("name")
        return about | {"depends_on": list(about["depends_on"])}


def _view(name: str, about: dict[str, Any], before: Mapping[str, View]) -> View:
    return View(
        name=name,
        sql=(SQL / name / "query.sql").read_text(encoding="utf-8"),
        grain=about["grain"],
        why=about["why"],
        columns=tuple(chain.from_iterable(_columns(c, before) for c in about["columns"])),
        depends_on=tuple(on for on in about["depends_on"] if on != BASE),
        by_endpoint=about.get("by_endpoint", False),
    )


def _columns(about: dict[str, Any], before: Mapping[str, View]) -> list[ViewColumn]:
    """Returns one column, or all that are taken over from a view (`of`), some left out."""
    if "of" in about:
        left_out = about.get("except", [])
        taken = (c for c in before[about["of"]].columns if c.name not in left_out)
        return [replace(column, merge="") for column in taken]
    one = ViewColumn(about["name"], about.get("unit", ""), about["meaning"], about.get("merge", ""))
    return [one]


@contextmanager
def _names_the_file(view: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"sql/{view}/about.yaml: {error} is missing or wrong.") from None
