"""Bursts: the rhythm of one side of a record, in a form that merges exactly.

The bursts of a side are the largest groups of its packet times that no silence
of `BURST_US` or more parts. They are kept as disjoint intervals, so two parts
of a record join by joining their intervals: what lies closer than `BURST_US`
becomes one. For packet times A and B, however a capture was cut,

    bursts(A and B) = coalesce(bursts(A) + bursts(B))
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from telemetry.columns import BURST_US

I64 = npt.NDArray[np.int64]


@nb.njit(cache=True, nogil=True)
def _coalesce(
    offsets: I64, starts: I64, ends: I64, silence: int
) -> tuple[I64, I64, I64]:  # pragma: no cover - compiled
    out_offsets = np.zeros(len(offsets), np.int64)
    out_starts = np.empty_like(starts)
    out_ends = np.empty_like(ends)
    filled = 0
    for row in range(len(offsets) - 1):
        begin, stop = offsets[row], offsets[row + 1]
        for i in range(begin + 1, stop):
            if starts[i] < starts[i - 1]:
                order = begin + np.argsort(starts[begin:stop])
                starts[begin:stop], ends[begin:stop] = starts[order], ends[order]
                break
        row_begin = filled
        for i in range(begin, stop):
            # Sorted by start, only the last interval written can still be touched.
            if filled > row_begin and starts[i] - out_ends[filled - 1] < silence:
                out_ends[filled - 1] = max(out_ends[filled - 1], ends[i])
            else:
                out_starts[filled] = starts[i]
                out_ends[filled] = ends[i]
                filled += 1
        out_offsets[row + 1] = filled
    return out_offsets, out_starts[:filled], out_ends[:filled]


def coalesce(offsets: I64, starts: I64, ends: I64) -> tuple[I64, I64, I64]:
    """Joins, row by row, intervals parted by less than `BURST_US`.

    Args:
        offsets: Shape (rows + 1,); row i owns `starts[offsets[i]:offsets[i + 1]]`.
        starts: First packet of each interval, microseconds since 1970, in any order.
        ends: Last packet of each interval, never before its start.

    Returns:
        Offsets, starts and ends of the bursts, each row in time order.
    """
    joined: tuple[I64, I64, I64] = _coalesce(offsets, starts.copy(), ends.copy(), BURST_US)
    return joined
