"""The tables that are shipped, and how they are made."""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import homeland
from telemetry.errors import SettingsError
from telemetry.homeland import DOMESTIC, FOREIGN, UNALLOCATED, build, policy
from telemetry.homeland.build import Range
from telemetry.homeland.ranges import IPTOASN, RIR, SCHEMA, read

SHIPPED = [policy.DATA / "countries.parquet", policy.DATA / "jp.parquet"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.stem))
def test_shipped_tables_are_sorted_small_and_named_in_the_notice(path: Path) -> None:
    table = pq.read_table(path)
    assert table.schema.remove_metadata().equals(SCHEMA)
    rows = list(zip(*(table[name].to_pylist() for name in ("family", "start", "end")), strict=True))
    assert all(start <= end for _, start, end in rows)
    assert all(a[0] < b[0] or a[2] < b[1] for a, b in pairwise(rows))
    assert path.stat().st_size < 400_000
    notice = (policy.DATA / "NOTICE.md").read_text()
    assert f"| `{path.name}` | {table.num_rows:,} |" in notice
    for name, digest in json.loads(table.schema.metadata[b"sekisho.inputs"]).items():
        assert f"- `{name}`:" in notice
        assert f"`{digest}`" in notice


def test_japan_holds_what_the_registries_say() -> None:
    table = pq.read_table(policy.DATA / "jp.parquet").to_pylist()
    v4 = [(row["end"] - row["start"] + 1, row["source"]) for row in table if row["family"] == 4]
    assert sum(size for size, source in v4 if source & RIR) == 188_689_472
    assert sum(size for size, source in v4 if source & IPTOASN) == 160_894_271
    world = pq.read_table(policy.DATA / "countries.parquet").to_pylist()
    held = [r for r in world if r["family"] == 4 and r["country"] == "JP" and r["source"] == RIR]
    assert sum(r["end"] - r["start"] + 1 for r in held) == 188_689_472


def test_loading_is_quick() -> None:
    took = []
    for _ in range(5):
        start = time.perf_counter()
        for path in SHIPPED:
            read(path)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.1  # seconds; 0.01 on a quiet machine


def _csv(folder: Path, *lines: str) -> Path:
    path = folder / "registry.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_build_makes_tables_that_load(tmp_path: Path) -> None:
    source = _csv(
        tmp_path,
        "# a comment",
        "8.0.0.0,8.0.0.9,US",
        "8.0.0.10,8.0.0.255,US",
        "9.0.0.0,9.0.2.255,JP",  # 768 addresses: no power of two
        "11.0.0.0,11.0.0.255,ZZ",
        "2400::,2400:0:0:2:ffff:ffff:ffff:ffff,JP",
    )
    first = build.build([source], [], "JP", tmp_path)
    before = [path.read_bytes() for path in first]
    assert [path.read_bytes() for path in build.build([source], [], "JP", tmp_path)] == before
    assert pq.read_table(first[0]).num_rows == 3
    home = homeland.load("JP", data=tmp_path)
    for text, expected in {
        "8.0.0.200": FOREIGN,
        "9.0.2.255": DOMESTIC,
        "9.0.3.0": UNALLOCATED,
        "11.0.0.1": UNALLOCATED,
        "2400:0:0:2::9": DOMESTIC,
        "2400:0:0:3::": UNALLOCATED,
    }.items():
        hi, lo = homeland.parse_address(text)
        assert home.class_of_text(text) == expected
        assert home.classify(np.array([hi], np.uint64), np.array([lo], np.uint64)) == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("8.0.0.9,8.0.0.0,US", "backwards"),
        ("8.0.0.0,2400::,US", "backwards"),
        ("8.0.0.0,8.0.0.9,us", "two capital letters"),
        ("8.0.0.0,8.0.0.9", "Line 2"),
        ("2400::,2400::ff,US", "finer than /64"),
        ("here,there,US", "Line 2"),
    ],
)
def test_build_refuses_bad_lines(tmp_path: Path, line: str, says: str) -> None:
    source = _csv(tmp_path, "8.0.1.0,8.0.1.255,US", line)
    with pytest.raises(SettingsError, match=says):
        build.build([source], [], "JP", tmp_path)


def test_build_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="check the path"):
        list(build.read_csv(tmp_path / "none.csv"))
    monkeypatch.setitem(sys.modules, "maxminddb", None)
    with pytest.raises(SettingsError, match="pip install maxminddb"):
        list(build.read_mmdb(tmp_path / "none.mmdb"))


SOURCE = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.sampled_from(["JP", "US"])))


def _disjoint(source: list[tuple[int, int, str]]) -> list[Range]:
    ranges, at = [], 0
    for gap, length, country in source:
        ranges.append(Range(4, at + gap, at + gap + length - 1, country))
        at += gap + length
    return ranges


@given(SOURCE, SOURCE)
def test_both_sources_in_every_address(
    one: list[tuple[int, int, str]], two: list[tuple[int, int, str]]
) -> None:
    registry, routing = _disjoint(one), _disjoint(two)

    def spread(ranges: list[Range]) -> dict[int, str]:
        return {n: r.country for r in ranges for n in range(r.start, r.end + 1)}

    held, routed = spread(registry), spread(routing)
    world = {
        n: (row.country, row.source)
        for row in build.countries(registry, routing)
        for n in range(row.start, row.end + 1)
    }
    assert world == {n: (c, IPTOASN) for n, c in routed.items()} | {
        n: (c, RIR) for n, c in held.items()
    }
    japan = {
        n: row.source
        for row in build.home(registry, routing, "JP")
        for n in range(row.start, row.end + 1)
    }
    expected = {n: RIR * (held.get(n) == "JP") + IPTOASN * (routed.get(n) == "JP") for n in world}
    assert japan == {n: bits for n, bits in expected.items() if bits}
