"""Roles: every command and every function of the pipeline has one that may call it."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest
from cyclopts import App
from e2e import CAPTURES, call, query_rows

from telemetry import pipeline
from telemetry.cli import Options, app
from telemetry.roles import LEAST, Need
from telemetry.settings import STRICTNESS, Role

COMMANDS: dict[str, Need | None] = {
    "run nowhere.pcap": "operation",
    "ingest nowhere.pcap": "operation",
    "score": "operation",
    "list": "operation",
    "report": "records",
    "query SELECT": "records",
    "explain 192.0.2.1": "records",
    "doctor": "counters",
    "audit verify": "counters",
    "audit export": "counters",
    "audit report": "counters",
    "audit leakage --against nowhere.csv": "counters",
    "audit leaks --against nowhere.pcap": "counters",
    "homeland refresh --into table.parquet nowhere.csv": "operation",
    "homeland show": "counters",
    "homeland check 192.0.2.1": "counters",
    "homeland diff nowhere.parquet nowhere.parquet": "counters",
    "homeland report": "counters",
    "homeland purge": "operation",
    "authority check": "counters",
    "authority sign nowhere.toml --key nowhere.pem": None,
    "keys new some.key": "operation",
    "keys show": "operation",
    "keys rotate": "operation",
    "keys destroy 2026-04": "operation",
    "reidentify 00000000-0000-4000-8000-000000000000 --reason why": "operation",
    "retention run": "operation",
    "retention show": "counters",
    "model evaluate --corpus nowhere": "operation",
    "model beacons --pairs 1 --hosts 10 --each 1 --days 1": "operation",
    "samples list": None,
    "samples formats": None,
    "samples fetch folder": None,
    "samples make folder": None,
}
"""Every command with the least that it must be given, and what it needs; None: no lake at all."""


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, and no settings from outside."""
    for name in [name for name in os.environ if name.startswith("SEKISHO_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def commands(group: App, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], App]:
    found: dict[tuple[str, ...], App] = {}
    for name in group:
        if not name.startswith("-"):
            inner = commands(group[name], (*path, name))
            found |= inner or {(*path, name): group[name]}
    return found


def known() -> dict[tuple[str, ...], Need | None]:
    paths = commands(app)
    return {
        path: need
        for line, need in COMMANDS.items()
        for path in paths
        if tuple(line.split()[: len(path)]) == path
    }


def test_every_command_has_a_role() -> None:
    """A new command belongs into COMMANDS, and calls a function of the pipeline that `needs`."""
    assert set(known()) == set(commands(app))
    assert len(known()) == len(COMMANDS)


def test_a_command_without_a_role_knows_no_lake() -> None:
    for path, need in known().items():
        function = commands(app)[path].default_command
        assert function is not None
        options = {p.default for p in inspect.signature(function).parameters.values()}
        assert (need is None) == (not any(isinstance(o, Options) for o in options)), path


@pytest.mark.parametrize("role", STRICTNESS)
@pytest.mark.parametrize("line", [line for line, need in COMMANDS.items() if need])
def test_a_command_is_refused_to_roles_that_may_not(line: str, role: Role) -> None:
    need = COMMANDS[line]
    assert need is not None
    answer = call(*line.split(), "--role", role)
    refused = f"The role {role} may not do this" in answer.err
    assert refused == (STRICTNESS[role] > STRICTNESS[LEAST[need]]), answer
    if refused:
        assert (answer.code, answer.out) == (2, "")
        assert list(Path().iterdir()) == []


def test_every_function_of_the_pipeline_says_what_it_needs() -> None:
    silent = [
        name
        for name, function in inspect.getmembers(pipeline, inspect.isfunction)
        if function.__module__.startswith(f"{pipeline.__name__}.")
        and name[0] != "_"
        and next(iter(inspect.signature(function).parameters), "") == "settings"
        and not hasattr(function, "need")
    ]
    assert silent == []


def test_an_auditor_sees_the_account_and_no_record() -> None:
    assert call("ingest", CAPTURES / "rawip.pcap").code == 0
    assert query_rows(Path("lake"), "SELECT count(*) AS n FROM records")[0]["n"]
    before = {path: path.read_bytes() for path in Path("lake").rglob("*.parquet")}
    Path("sekisho.toml").write_text('role = "auditor"\n')
    os.environ["SEKISHO_ROLE"] = "operator"
    try:
        assert call("audit", "verify").code == 0
        assert '"kind":"commit"' in call("audit", "export").out
        for line in ("query FROM records", "score", f"run {CAPTURES / 'conn.log'}", "report"):
            answer = call(*line.split(" ", 1), "--role", "operator")
            assert (answer.code, answer.out) == (2, ""), line
            assert "The role auditor may not do this" in answer.err
    finally:
        del os.environ["SEKISHO_ROLE"]
    assert {path: path.read_bytes() for path in Path("lake").rglob("*.parquet")} == before


def test_an_analyst_asks_and_changes_nothing() -> None:
    assert call("ingest", CAPTURES / "rawip.pcap").code == 0
    Path("sekisho.toml").write_text('role = "analyst"\n')
    assert call("query", "SELECT count(*) AS n FROM sources").out.split() == ["n", "1"]
    assert call("ingest", CAPTURES / "conn.log").code == 2
    assert query_rows(Path("lake"), "FROM sources")[0]["format"]
