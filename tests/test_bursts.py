"""The law of bursts: however packet times are parted, joining the parts gives the same."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.bursts import coalesce
from telemetry.columns import BURST_US

# Times around the limit: gaps of just less, just as much and just more than BURST_US.
TIMES = st.builds(
    lambda steps, slack: steps * (BURST_US // 2) + slack, st.integers(-20, 20), st.integers(-2, 2)
)


def bursts_of(times: set[int]) -> list[tuple[int, int]]:
    """The definition, in plain Python."""
    found: list[tuple[int, int]] = []
    for time in sorted(times):
        if found and time - found[-1][1] < BURST_US:
            found[-1] = (found[-1][0], time)
        else:
            found.append((time, time))
    return found


def joined(rows: list[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    flat = np.array([pair for row in rows for pair in row], np.int64).reshape(-1, 2)
    out, starts, ends = coalesce(offsets, flat[:, 0].copy(), flat[:, 1].copy())
    pairs = list(zip(starts.tolist(), ends.tolist(), strict=True))
    return [pairs[a:b] for a, b in pairwise(out.tolist())]


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.lists(st.tuples(TIMES, st.integers(0, 3)), max_size=25), max_size=5))
def test_bursts_do_not_depend_on_the_cut(rows: list[list[tuple[int, int]]]) -> None:
    parted = [
        [burst for part in range(4) for burst in bursts_of({t for t, p in row if p == part})]
        for row in rows
    ]
    assert joined(parted) == [bursts_of({t for t, _ in row}) for row in rows]


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(TIMES, st.integers(0, 3 * BURST_US)), max_size=12), max_size=4))
def test_joining_twice_or_in_another_order_changes_nothing(
    rows: list[list[tuple[int, int]]],
) -> None:
    intervals = [[(start, start + length) for start, length in row] for row in rows]
    once = joined(intervals)
    assert joined(once) == once
    assert joined([row[::-1] for row in intervals]) == once


def test_the_limit_itself_parts() -> None:
    near, far = [(0, 5), (BURST_US + 4, BURST_US + 4)], [(0, 5), (BURST_US + 5, BURST_US + 5)]
    assert joined([near, far, []]) == [[(0, BURST_US + 4)], far, []]
