"""Rules of selection: closed, explicit, and never less than the list."""

from datetime import datetime

import pytest

from telemetry.errors import SettingsError
from telemetry.records import Role, ScoredEndpoint
from telemetry.scoring import read_rules, select
from telemetry.scoring.scores import Scores
from telemetry.settings import ASSETS

NOW, UNTIL = datetime(2026, 4, 1), datetime(2027, 4, 1)
HEAD = 'version = "site/1"\nreason = "why"\n'


def endpoint(name: str, score: float, role: Role = "scanner", listed: bool = False):
    return ScoredEndpoint(name, score, role, listed, 0, [], NOW, NOW, 1)


ENDPOINTS = [
    endpoint("192.0.2.4", 0.9, listed=True),
    endpoint("192.0.2.3", 0.5),
    endpoint("192.0.2.2", 0.5, "c2"),
    endpoint("192.0.2.1", 0.1, "c2"),
]


def chosen(rules: str) -> dict[str, str]:
    rows = select(Scores.of(ENDPOINTS), read_rules((HEAD + rules).encode()), NOW, UNTIL).to_pylist()
    assert [row["endpoint"] for row in rows] == sorted(row["endpoint"] for row in rows)
    assert {(row["since"], row["until"], row["rules"]) for row in rows} == {(NOW, UNTIL, "site/1")}
    return {row["endpoint"][-1]: row["rule"] for row in rows}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ('[[rule]]\nname = "l"\nlisted = true\n', {"4": "l"}),
        ('[[rule]]\nname = "s"\nmin_score = 0.5\n', {"2": "s", "3": "s", "4": "s"}),
        ('[[rule]]\nname = "c"\nroles = ["c2"]\nmin_score = 0.5\n', {"2": "c", "4": "listed"}),
        ('[[rule]]\nname = "n"\nlisted = false\nroles = ["c2"]\n[[rule]]\nname = "s"\n'
         "min_score = 0.1\n", {"1": "n", "2": "n", "3": "s", "4": "s"}),
    ],
)  # fmt: skip
def test_the_first_rule_that_is_met_selects_and_the_list_always_does(
    rules: str, expected: dict[str, str]
) -> None:
    assert chosen(rules) == expected


@pytest.mark.parametrize(
    "rules",
    [
        "",
        '[[rule]]\nname = "everybody"\n',
        '[[rule]]\nname = "s"\nminimum = 0.5\n',
        '[[rule]]\nname = "s"\nmin_score = 1.5\n',
        '[[rule]]\nname = "r"\nroles = ["suspect"]\n',
        'more = 1\n[[rule]]\nname = "l"\nlisted = true\n',
        "[[rule]\n",
    ],
)
def test_rules_that_say_nothing_or_something_else_are_refused(rules: str) -> None:
    with pytest.raises(SettingsError, match="selection rules"):
        read_rules((HEAD + rules).encode())


def test_the_shipped_rules_select_the_list() -> None:
    rules = read_rules((ASSETS / "data" / "selection" / "rules.toml").read_bytes())
    rows = select(Scores.of(ENDPOINTS), rules, NOW, UNTIL).to_pylist()
    assert [row["endpoint"] for row in rows] == ["192.0.2.4"]
