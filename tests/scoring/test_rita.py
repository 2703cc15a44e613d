"""RITA's formula: what it says of calls whose score can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from telemetry.scoring import nemea, rita


def call(times: int, every: float, sent: int = 500) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(times) * every, np.full(times, sent)


def times(rows: int) -> dict[str, pa.Array]:
    moment = pa.array([0] * rows, pa.timestamp("us"))
    return {"first_seen": moment, "last_seen": moment}


def test_a_perfect_day_is_worth_one() -> None:
    assert rita.score(*call(1440, 60), days=1, prevalence=0.1) == pytest.approx(1.0)


def test_prevalence_moves_it() -> None:
    rare = rita.score(*call(1440, 60), days=1, prevalence=0.02)
    common = rita.score(*call(1440, 60), days=1, prevalence=0.5)
    assert (rare, common) == (pytest.approx(1.15), pytest.approx(0.85))


def test_fewer_than_four_calls_a_day_are_no_beacon() -> None:
    assert rita.score(*call(3, 20_000), days=1, prevalence=0.1) == 0
    assert rita.score(*call(20, 40_000), days=9, prevalence=0.1) == 0


def test_four_calls_have_timing_and_size_but_no_duration() -> None:
    # One bar of one call in four hours of 24: the deviation is over twice the mean.
    assert rita.score(*call(4, 21_600), days=1, prevalence=0.1) == pytest.approx(0.5)


def test_sizes_that_differ_cost_their_part() -> None:
    starts, _ = call(1440, 60)
    sizes = np.tile([100, 900], 720)
    # Median 500, deviation 400: (1 + 0.2) / 2 of a quarter.
    assert rita.score(starts, sizes, 1, 0.1) == pytest.approx(0.75 + 0.6 / 4)


def test_half_a_day_lasts_long_enough_and_has_one_mode() -> None:
    # Twelve hours of sixty calls: the run is twelve hours, all bars have one height.
    assert rita.score(*call(720, 60), days=1, prevalence=0.1) == pytest.approx(1.0)


def test_the_best_day_counts() -> None:
    one, _ = call(1440, 60)
    noise = 86_400 + np.cumsum(np.random.default_rng(1).exponential(5000, 15))
    starts = np.concatenate([one, noise])
    assert rita.score(starts, np.full(len(starts), 9), 2, 0.1) == pytest.approx(1.0)


def test_a_lake_is_scored_by_the_strongest_pair_that_a_host_opened() -> None:
    moments = np.arange(1440) * 60_000_000 + 1_791_936_000_000_000
    calls = pa.table(
        {
            "endpoint_ip": ["198.51.100.1"] * 1440 + ["198.51.100.2"] * 3,
            "peer": ["a"] * 1440 + ["b"] * 3,
            "first_seen": pa.array([*moments.tolist(), *moments[:3].tolist()], pa.timestamp("us")),
            "peer_bytes": pa.array([500] * 1443),
        }
    )
    names = ["198.51.100.1", "198.51.100.2", "198.51.100.3"]
    features = pa.table(
        {
            "endpoint_ip": names,
            "hosts": [1, 1, 1],
            "all_hosts": [10] * 3,
            "records": [1440, 3, 1],
            **times(3),
        }
    )
    found = {one.endpoint: one for one in rita.of_lake(calls, features)}
    assert found["198.51.100.1"].score == pytest.approx(1.0)
    assert [found[name].listed for name in names] == [True, False, False]


def test_thresholds_list_scans_and_guesses_and_nobody_else() -> None:
    features = pa.table(
        {
            "endpoint_ip": ["a", "b", "c", "d"],
            "login_sessions": [30, 29, 400, 0],
            "login_port": [22, 22, 25, 0],
            "most_ports_on_a_host": [0, 0, 0, 50],
            "widest_port_hosts": [0, 49, 0, 0],
            "records": [30, 29, 400, 50],
            **times(4),
        }
    )
    found = {one.endpoint: (one.role, one.listed) for one in nemea.score(features)}
    assert found["a"] == ("bruteforce", True)
    assert found["d"] == ("scanner", True)
    assert not found["b"][1]
    assert not found["c"][1]
