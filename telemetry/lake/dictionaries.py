"""Dictionaries cut to size: a part of a table must not carry the whole table's values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


def compact(table: pa.Table) -> pa.Table:
    """Returns a table whose dictionaries hold what it uses, in the order of first use.

    Equal columns, however their dictionaries were, come out with equal dictionaries.
    """
    whole = [0, len(table)]
    columns = [cut(one_chunk(c), whole)[0] for c in table.unify_dictionaries().columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Returns a column, of unified dictionaries, as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def cut(array: pa.Array, edges: Sequence[int]) -> list[pa.Array]:
    """Cuts an array into parts, each with a dictionary of its own if it has one.

    Args:
        array: Its values must be all in the parts.
        edges: Where each part begins, and the end of the last.

    Returns:
        The parts; a dictionary holds what its part uses, in the order of first use.
    """
    pieces = list(pairwise(edges))
    if not pa.types.is_dictionary(array.type):
        return [array.slice(start, end - start) for start, end in pieces]
    indices = pc.fill_null(array.indices, -1).to_numpy()
    codes, used, ends = _cut(indices, np.array(edges, np.int64), len(array.dictionary))
    values = array.dictionary.take(pa.array(used))
    parts, begin = [], 0
    for (start, end), stop in zip(pieces, ends.tolist(), strict=True):
        own = codes[start:end]
        index = pa.array(own, mask=own < 0 if array.null_count else None)
        parts.append(pa.DictionaryArray.from_arrays(index, values.slice(begin, stop - begin)))
        begin = stop
    return parts


@nb.njit(cache=True, nogil=True)
def _cut(indices: I32, edges: I64, size: int) -> tuple[I32, I32, I64]:  # pragma: no cover
    """Numbers the values of each part anew, in the order of first use; -1 stays.

    Returns:
        The new numbers, the old numbers of all parts' values, and where those of each part end.
    """
    codes = np.empty(len(indices), np.int32)
    used = np.empty(len(indices), np.int32)
    ends = np.empty(len(edges) - 1, np.int64)
    seen_in = np.full(size, -1, np.int64)
    number = np.empty(size, np.int32)
    begin = filled = 0
    for part in range(len(edges) - 1):
        for row in range(edges[part], edges[part + 1]):
            value = indices[row]
            if value < 0:
                codes[row] = -1
                continue
            if seen_in[value] != part:
                seen_in[value] = part
                number[value] = filled - begin
                used[filled] = value
                filled += 1
            codes[row] = number[value]
        begin = ends[part] = filled
    return codes, used[:filled], ends
