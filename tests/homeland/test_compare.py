"""What a refresh changes, and where sources disagree, against counting one by one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_homeland_table import fact
from test_refresh import POLICIES, compiled

from telemetry import homeland
from telemetry.errors import SettingsError
from telemetry.homeland import NAMES, Homeland, Policy
from telemetry.homeland.address import MAPPED
from telemetry.homeland.compare import (
    NO_STRATA,
    changes,
    disagreement,
    largest,
    read_strata,
    totals,
)
from telemetry.homeland.origins import Claim
from telemetry.homeland.policy import Rules, of_rules
from telemetry.homeland.refresh import compile_table

BASE = {4: 0x09000000, 6: 0x2400 << 48}
CLAIMS = st.lists(
    st.tuples(
        st.sampled_from([4, 6]), st.integers(0, 60), st.integers(0, 20),
        st.sampled_from(["JP", "US"]),
    ).map(lambda t: Claim(t[0], BASE[t[0]] + t[1], BASE[t[0]] + t[1] + t[2], t[3], False)),
    max_size=8,
)  # fmt: skip
TABLES = st.lists(CLAIMS, min_size=1, max_size=4).map(compiled)


def classes(home: Homeland, family: int) -> list[int]:
    keys = np.arange(BASE[family] - 2, BASE[family] + 90, dtype=np.uint64)
    zero = np.zeros(len(keys), np.uint64)
    halves = (zero, keys + np.uint64(MAPPED)) if family == 4 else (keys, zero)
    return home.classify(*halves).tolist()


@settings(deadline=None, max_examples=60)
@given(TABLES, TABLES, st.sampled_from(POLICIES), st.sampled_from([4, 6]))
def test_the_difference_is_what_classify_says_address_by_address(
    old: object, new: object, policy: Policy, family: int
) -> None:
    before, after = (of_rules(Rules((), "JP", policy, table)) for table in (old, new))  # type: ignore[arg-type]
    pairs = list(zip(classes(before, family), classes(after, family), strict=True))
    expected = Counter(f"{NAMES[a]} to {NAMES[b]}" for a, b in pairs if a != b)
    found = changes(before, after, family)
    assert totals(found) == dict(expected)
    told = {
        int(start) + n: (int(a), int(b))
        for start, size, a, b in zip(*found, strict=True)
        for n in range(int(size))
    }
    at = BASE[family] - 2
    assert told == {at + n: pair for n, pair in enumerate(pairs) if pair[0] != pair[1]}


def test_the_shipped_table_differs_from_itself_nowhere(japan: Homeland) -> None:
    for family in (4, 6):
        assert len(changes(japan, japan, family).start) == 0


def test_a_difference_of_policies_shows_the_largest_range_first(japan: Homeland) -> None:
    found = changes(japan, homeland.load("JP", policy="primary"), 4)
    rows = largest(found, 4, 5)
    assert set(totals(found)) == {"domestic to foreign"}
    assert [row["size"] for row in rows] == sorted((row["size"] for row in rows), reverse=True)
    assert japan.class_of_text(str(rows[0]["first"])) == 0
    assert japan.class_of_text(str(rows[0]["last"])) == 0


def test_disagreement_is_counted_by_stratum(tmp_path: Path) -> None:
    (tmp_path / "strata.csv").write_text(
        "# mine\n9.0.0.0/25,mobile\n9.0.0.0/26,fixed\n2400::/63,mobile\n"
    )
    cloud = [Claim(4, 0x09000100, 0x0900010F, "JP", False)]
    one = [
        Claim(4, 0x09000000, 0x0900017F, "US", False),
        Claim(6, BASE[6], BASE[6] + 3, "JP", False),
    ]
    two = [Claim(4, 0x09000000, 0x0900005F, "JP", False)]
    table = compile_table([fact("one"), fact("two"), fact("aws", kind="cloud")], [one, two, cloud])
    rules = Rules((), "JP", "any", table)
    rows = {
        row["stratum"]: row for row in disagreement(rules, read_strata(tmp_path / "strata.csv"))
    }
    assert {name: row["home_by_any"] for name, row in rows.items()} == {
        "fixed, IPv4": 64,
        "mobile, IPv4": 32,
        "cloud, IPv4": 16,
        "mobile, IPv6": 2,
        "other, IPv6": 2,
    }
    fixed = rows["fixed, IPv4"]
    assert (fixed["unanimous"], fixed["disputed"], fixed["by_two"], fixed["by_one"]) == (
        0,
        64,
        64,
        0,
    )
    assert (fixed["home_by_majority"], fixed["home_by_primary"]) == (64, 0)
    assert rows["mobile, IPv6"]["unanimous"] == 2
    assert [row["stratum"] for row in disagreement(rules, NO_STRATA)] == [
        "cloud, IPv4", "other, IPv4", "other, IPv6",
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["9.0.0.1/24,mobile", "9.0.0.0/24", "9.0.0.0/24,Mobile phones",
                                  "2400::/65,fixed", "x,y", "9.0.0.0/24,a,b"])  # fmt: skip
def test_a_bad_line_of_strata_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "strata.csv").write_text(f"9.0.0.0/25,mobile\n{line}\n")
    with pytest.raises(SettingsError, match="Line 2"):
        read_strata(tmp_path / "strata.csv")


def test_prefixes_alone_have_no_disagreement() -> None:
    with pytest.raises(SettingsError, match="--country"):
        disagreement(homeland.load(None, ["10.0.0.0/8"]).rules)


def test_every_address_of_home_space_is_in_one_stratum(japan: Homeland) -> None:
    rows = {row["stratum"]: row for row in disagreement(japan.rules)}
    v4 = rows["other, IPv4"]
    assert int(str(v4["unanimous"])) + int(str(v4["disputed"])) == v4["home_by_any"]
    assert v4["by_registries"] == 188_689_472
