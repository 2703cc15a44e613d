"""A hash table in an array, which compiled kernels and Python share."""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import secrets

import numpy as np
from numba import njit

from telemetry.raw import U64

_u = np.uint64


def empty_index(capacity: int) -> U64:
    """Returns an empty table of uint64, shape (capacity + 1, 4).

    A row is a key of three words, of which the last is never 0, and its value. The row behind
    them holds secret factors of the hash, and the number of keys.

    Args:
        capacity: Rows, a power of two; half of them can be filled.
    """
    index = np.zeros((capacity + 1, 4), np.uint64)
    index[capacity, :3] = [secrets.randbits(64) | 1 for _ in range(3)]
    return index


@njit(cache=True, nogil=True)
def _row_of(index, a, b, c):
    """Returns the row of a key, or the free one where it belongs."""
    capacity = index.shape[0] - 1
    h = a * index[capacity, 0] + b * index[capacity, 1] + c * index[capacity, 2]
    h ^= h >> _u(32)
    h *= index[capacity, 0]
    row = np.int64((h >> _u(24)) & _u(capacity - 1))
    while index[row, 2] != _u(0) and not (
        index[row, 0] == a and index[row, 1] == b and index[row, 2] == c
    ):
        row = (row + 1) & (capacity - 1)
    return row


@njit(cache=True, nogil=True)
def find(index, a, b, c):
    """Returns the value under a key of three words (uint64), 0 when there is none."""
    return np.int64(index[_row_of(index, a, b, c), 3])


@njit(cache=True, nogil=True)
def enter(index, a, b, c, value):
    """Sets the value under a key; returns whether there was room."""
    row = _row_of(index, a, b, c)
    capacity = index.shape[0] - 1
    if index[row, 2] == _u(0):
        if index[capacity, 3] >= _u(capacity // 2):
            return False
        index[capacity, 3] += _u(1)
        index[row, 0], index[row, 1], index[row, 2] = a, b, c
    index[row, 3] = _u(value)
    return True
