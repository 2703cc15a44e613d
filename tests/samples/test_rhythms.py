"""Generated rhythms are what they say, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from e2e import call
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.samples.plan import is_foreign, is_public
from telemetry.samples.rhythms import (
    DAY,
    INTERVALS,
    JITTERS,
    LOSSES,
    Pair,
    draw_pairs,
    play,
    write_rhythms,
)


def test_pairs_are_of_the_plan_and_beacons_fill_the_grid() -> None:
    pairs = draw_pairs(500, 40, 2, 3)
    assert pairs == draw_pairs(500, 40, 2, 3)
    beacons = [pair for pair in pairs if pair.kind == "beacon"]
    assert len(pairs) - len(beacons) >= 500
    cells = {(pair.interval, pair.jitter, pair.loss) for pair in beacons}
    assert len(cells) == len(INTERVALS) * len(JITTERS) * len(LOSSES) == len(beacons) / 2
    assert all(is_foreign(pair.endpoint) and not is_foreign(pair.host) for pair in pairs)
    assert all(is_public(pair.host) for pair in pairs)
    assert len({pair.endpoint for pair in beacons}) == len(beacons)
    assert not {p.endpoint for p in beacons} & {p.endpoint for p in pairs if p.kind != "beacon"}


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(INTERVALS), st.sampled_from(JITTERS), st.sampled_from(LOSSES), st.integers(0, 9)
)
def test_calls_keep_interval_jitter_and_loss(
    interval: float, jitter: float, loss: float, seed: int
) -> None:
    pair = Pair("beacon", "h", "e", 443, 6, interval, jitter, loss, True)
    (calls,) = play([pair], 7, seed)
    gaps = np.diff(calls.starts)
    assert len(calls.sent) == len(calls.got) == len(calls.starts) == len(gaps) + 1
    assert calls.starts[0] >= 0 and calls.starts[-1] < 7 * DAY + 1
    assert gaps.min() >= interval * (1 - jitter) - 0.05
    expected = 7 * DAY / interval * (1 - loss)
    assert abs(len(calls.starts) - expected) <= 5 + 5 * np.sqrt(expected)
    if loss == 0:
        assert gaps.max() <= interval * (1 + jitter) + 0.05


def test_a_host_that_sleeps_calls_by_day() -> None:
    pair = Pair("beacon", "h", "e", 443, 6, 600, 0.1, 0.0, False)
    (calls,) = play([pair], 7, 1)
    hours = calls.starts % DAY / 3600
    assert hours.min() >= 8 and hours.max() < 19
    assert set((calls.starts // DAY).tolist()) == {0, 1, 2, 3, 4}


def test_files_hold_every_call(tmp_path: Path) -> None:
    pairs = draw_pairs(20, 10, 1, 5)[:25]
    files = write_rhythms(play(pairs, 1, 5), tmp_path / "calls")
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    assert rows == sum(len(calls.starts) for calls in play(pairs, 1, 5))


def test_the_command_compares_with_the_formula_of_the_field() -> None:
    options = ["--pairs", 100, "--hosts", 40, "--each", 1, "--days", 1, "--json"]
    found = call("model", "beacons", *options)
    assert found.code == 0
    answer = found.json
    assert answer["all"]["beacons"] == sum(row["beacons"] for row in answer["interval"]) == 72
    assert answer["harmless"] >= 100
    # A minute's exact beat over a day is what everybody finds; six hours' is nobody's.
    recall = {row["interval"]: row for row in answer["interval"]}
    assert recall[60]["listed"] >= 10
    assert recall[21_600]["rita"] == 0
    assert call("model", "beacons", *options).json == answer


@pytest.mark.parametrize("option", ["--pairs", "--hosts", "--each", "--days"])
def test_a_number_that_makes_no_sense_is_refused(option: str) -> None:
    refused = call("model", "beacons", option, 0)
    assert (refused.code, "and no less" in refused.words) == (2, True)
