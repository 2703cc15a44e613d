"""How much memory a run may take, and what each part of it gets.

Measured: the interpreter with all libraries and the country tables takes 350 MB; batches on
their way from the packets to the lake, or Parquet that is being written, at most 180 MB. The
rest is shared out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

DEFAULT = "1GB"
LEAST = "800MB"
_UNITS = {"MB": 10**6, "GB": 10**9}
_FIXED = 530 * 10**6
_FLOW = 224  # bytes of a row of the flow table with its slots and bursts
_SEGMENT = 1100  # bytes of a segment that waits, its copy while it is spilled, and what both leave
_RECORD = 1600  # bytes that it takes to compute the features of one record's endpoint


class Budget(NamedTuple):
    """The parts of the memory of one run.

    Attributes:
        flows: Flows that are metered at once; a power of two.
        segments: Segments that wait in memory before they are spilled.
        engine: What DuckDB may take, as it reads it.
        records: Records whose endpoints are computed at once.
    """

    flows: int
    segments: int
    engine: str
    records: int


def budget(memory: str) -> Budget:
    """Shares out memory.

    Args:
        memory: A whole number of MB or GB, powers of ten.

    Raises:
        ValueError: It is none, or too little to work with.
    """
    total, free = _bytes(memory), _bytes(memory) - _FIXED
    if total < _bytes(LEAST):
        raise ValueError(f"{memory} is too little to work with, give {LEAST} or more")
    flows = 1 << min((free // 4 // _FLOW).bit_length() - 1, 21)
    segments = (free - flows * _FLOW) * 7 // 10 // _SEGMENT
    return Budget(flows, segments, f"{total // 10**6 // 2}MB", total * 4 // 10 // _RECORD)


def _bytes(memory: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,5})(MB|GB)", memory)
    if found is None:
        raise ValueError("it must be a whole number of MB or GB, such as 1GB or 800MB")
    return int(found[1]) * _UNITS[found[2]]
