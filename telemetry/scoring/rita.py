"""RITA's published beacon formula, for comparison: what the field uses on the same calls.

After the description and default configuration of RITA 5 (Active Countermeasures, 2024): the mean
of four parts over 24 hours, plus or minus 0.15 by prevalence. What needs content or other
logs (host names, signatures, threat intelligence) is left out, and so is the day of the first
sight, which is the same for all that is generated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telemetry.scoring.scores import Scores

DAY = 86_400
LISTED = 0.6
_LEAST_CALLS = 4
_HOURS = 24


def score(
    starts: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64], days: int, prevalence: float
) -> float:
    """Scores the calls of one pair; the best day counts, as an analyst would see it.

    Args:
        starts: When each call began, in seconds since the first day began; sorted.
        sizes: Bytes that the caller sent in each.
        days: How many days there are.
        prevalence: Share of the inside hosts that call the address, 0..1.

    Returns:
        0..1.15; 0 without a day of four calls.
    """
    edges = np.searchsorted(starts, np.arange(days + 1) * DAY)
    best = 0.0
    for day, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        moments = np.unique(np.floor(starts[low:high] - day * DAY))
        if len(moments) >= _LEAST_CALLS:
            best = max(best, _day(moments, sizes[low:high].astype(np.float64)))
    if not best:
        return 0.0
    return best + (0.15 if prevalence <= 0.02 else -0.15 if prevalence >= 0.5 else 0.0)


def of_lake(calls: pa.Table, features: pa.Table) -> Scores:
    """Scores the endpoints of a lake: the strongest of the pairs that inside hosts opened.

    Args:
        calls: `endpoint_ip`, `peer`, `first_seen` and `peer_bytes` of each connection that an
            inside host opened, in any order.
        features: Table of `endpoint_features`.

    Returns:
        Every endpoint; from `LISTED` on, RITA's "high" severity, it is listed.
    """
    shares = dict(
        zip(
            features["endpoint_ip"].to_pylist(),
            pc.divide(features["hosts"], pc.cast(features["all_hosts"], pa.float64())).to_pylist(),
            strict=True,
        )
    )
    best = dict.fromkeys(shares, 0.0)
    pairs = calls.group_by(["endpoint_ip", "peer"]).aggregate(
        [("first_seen", "list"), ("peer_bytes", "list")]
    )
    for row in pairs.to_pylist():
        starts = np.array(row["first_seen_list"], "datetime64[us]").astype(np.int64) / 1e6
        order = np.argsort(starts)
        starts = starts[order] - starts.min() // DAY * DAY
        sizes = np.array([size or 0 for size in row["peer_bytes_list"]], np.int64)[order]
        days = int(starts[-1] // DAY) + 1
        found = score(starts, sizes, days, shares[row["endpoint_ip"]])
        best[row["endpoint_ip"]] = max(best[row["endpoint_ip"]], found)
    return Scores.by_method(features, best.values(), ["c2"] * len(best), LISTED)


def _day(moments: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]) -> float:
    timing = _steadiness(np.diff(moments), empty=1.0)
    size = _steadiness(sizes, empty=0.0)
    bars = np.histogram(moments, bins=_HOURS, range=(0, DAY))[0]
    return (timing + size + _duration(moments, bars) + max(_flatness(bars), _modes(bars))) / 4


def _steadiness(values: npt.NDArray[np.float64], empty: float) -> float:
    """Returns the mean of what Bowley's skew and the median absolute deviation say, 0..1."""
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
    skew = 0.0
    if q3 - q1 >= 10 and q1 != median != q3:
        skew = abs((q1 + q3 - 2 * median) / (q3 - q1))
    deviation = float(np.median(np.abs(values - median)))
    near = max(0.0, (median - deviation) / median) if median >= 1 else empty
    return float(1 - skew + near) / 2


def _duration(moments: npt.NDArray[np.float64], bars: npt.NDArray[Any]) -> float:
    if np.count_nonzero(bars) < 6:
        return 0.0
    run = longest = 0
    for bar in (*bars.tolist(), *bars.tolist()):  # a run may go round midnight
        run = run + 1 if bar else 0
        longest = max(longest, run)
    coverage = float(moments[-1] - moments[0]) / DAY
    return min(1.0, max(coverage, longest / 12))


def _flatness(bars: npt.NDArray[Any]) -> float:
    return max(0.0, 1 - float(bars.std() / bars.mean()))


def _modes(bars: npt.NDArray[Any]) -> float:
    """Returns the share of busy hours that have one of two usual heights."""
    heights = bars[bars > 0]
    if len(heights) < 11:
        return 0.0
    width = int(np.ceil(0.05 * heights.max()))
    counts = np.sort(np.unique(heights // width, return_counts=True)[1])[-2:]
    return min(1.0, float(counts.sum()) / max(len(heights) - 1, 1))
