"""Distinct rows of integer columns, so that costly work is done once for each value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telemetry.raw import U64

I32 = npt.NDArray[np.int32]


def distinct(*columns: U64) -> tuple[I32, tuple[U64, ...]]:
    """Finds the distinct rows of some columns, in the order they first appear.

    Args:
        *columns: Arrays of one length n.

    Returns:
        For each row the index of its value (n), and for each column its k values.
    """
    n, width = len(columns[0]), len(columns)
    packed = np.empty((n, width), np.uint64)
    for position, column in enumerate(columns):
        packed[:, position] = column
    # One hash pass over bytes; numpy's own unique would sort, many times slower.
    rows = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(8 * width), n, [None, pa.py_buffer(packed)]
    ).dictionary_encode()
    values = np.frombuffer(rows.dictionary.buffers()[1], np.uint64, len(rows.dictionary) * width)
    table = values.reshape(-1, width)
    return rows.indices.to_numpy(), tuple(table[:, position] for position in range(width))
