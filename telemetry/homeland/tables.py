"""The look-up tables and the kernels that look into them.

Each family is a sorted list of boundaries: from one to the next, all addresses
have one class. An index (by /16 for IPv4, by /21 for the IPv6 in use) leaves few
boundaries to search; most slots of IPv4 hold none, so that most look-ups are
two loads. Kernels use unsigned numbers throughout, because numba turns a sum of
uint64 and int64 into a float.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from telemetry.homeland.address import MAPPED
from telemetry.homeland.classes import INSIDE_6TO4, INSIDE_LOW, INSIDE_TEREDO
from telemetry.loads import get, le32, u8

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_16 = np.uint64(16)
_32 = np.uint64(32)
_LOW_32 = np.uint64(0xFFFFFFFF)
_MAPPED_HIGH = np.uint64(0xFFFF)

# IPv6 in use lies in 2000::/3 (RFC 4291 calls the rest reserved or special).
_V6_FIRST = np.uint64(0x2000 << 48)
_V6_END = np.uint64(0x4000 << 48)
_V6_SHIFT = np.uint64(43)
_V6_SLOTS = np.uint64(1 << 18)

_CLEAR: Final = 255
"""In an overlay: what lies below shows through."""


class Arrays(NamedTuple):
    """The compiled tables; k4 and k6 are the numbers of boundaries.

    Attributes:
        v4_index: Boundary in force where each /16 begins, shape (65537,).
        v4_start: IPv4 boundaries, shape (k4,), the first is 0.
        v4_class: Class from each boundary on, shape (k4,).
        v6_index: Boundary in force where each slot of IPv6 begins, shape (2**18 + 3,).
        v6_hi: Upper halves of the IPv6 boundaries, shape (k6,), the first is 0.
        v6_lo: Lower halves, shape (k6,).
        v6_class: Class, or where the deciding IPv4 address is found, shape (k6,).
    """

    v4_index: U32
    v4_start: U32
    v4_class: U8
    v6_index: U32
    v6_hi: U64
    v6_lo: U64
    v6_class: U8

    def tables(self) -> Tables:
        """Returns where the arrays lie, for kernels; valid as long as this object lives."""
        return Tables(*(np.uint64(array.ctypes.data) for array in self))


class Tables(NamedTuple):
    """Memory addresses of `Arrays`, in the same order.

    Kernels are given addresses because arrays handed from one to the next cost numba
    reference counts, and a call seven words for each array.
    """

    v4_index: np.uint64
    v4_start: np.uint64
    v4_class: np.uint64
    v6_index: np.uint64
    v6_hi: np.uint64
    v6_lo: np.uint64
    v6_class: np.uint64


@njit(cache=True, nogil=True, inline="always")
def _u32_at(array, index):  # type: ignore[no-untyped-def]
    return np.uint64(le32(array + (index << _TWO)))


@njit(cache=True, nogil=True)
def class_of(tables: Tables, hi: np.uint64, lo: np.uint64) -> np.uint8:
    """Returns the class of an address: DOMESTIC, SPECIAL, FOREIGN or UNALLOCATED.

    For use inside other kernels: no allocation, no exception.

    Args:
        tables: Addresses of the compiled tables.
        hi: Upper 64 bits; 0 for IPv4.
        lo: Lower 64 bits; IPv4 stands as ::ffff:a.b.c.d.
    """
    inside = lo & _LOW_32
    if hi != _ZERO or lo >> _32 != _MAPPED_HIGH:
        found: np.uint8 = _class_of_v6(tables, hi, lo)
        if found < INSIDE_LOW:
            return found
        if found == INSIDE_6TO4:
            inside = (hi >> _16) & _LOW_32
        elif found == INSIDE_TEREDO:
            inside ^= _LOW_32
    of_v4: np.uint8 = _class_of_v4(tables, inside)
    return of_v4


@njit(cache=True, nogil=True)
def _class_of_v4(tables: Tables, address: np.uint64) -> np.uint8:
    slot = address >> _16
    at = _u32_at(tables.v4_index, slot)
    left = _u32_at(tables.v4_index, slot + _ONE) - at + _ONE
    while left > _ONE:  # halves what is left without a jump that depends on the address
        half = left >> _ONE
        at += half if _u32_at(tables.v4_start, at + half) <= address else _ZERO
        left -= half
    return np.uint8(u8(tables.v4_class + at))


@njit(cache=True, nogil=True)
def _class_of_v6(tables: Tables, hi: np.uint64, lo: np.uint64) -> np.uint8:
    slot = _slot_of_v6(hi)
    at = _u32_at(tables.v6_index, slot)
    left = _u32_at(tables.v6_index, slot + _ONE) - at + _ONE
    while left > _ONE:
        half = left >> _ONE
        at += half if get(tables.v6_hi, np.int64(at + half)) <= hi else _ZERO
        left -= half
    while get(tables.v6_hi, np.int64(at)) == hi and get(tables.v6_lo, np.int64(at)) > lo:
        at -= _ONE  # few boundaries are finer than /64
    return np.uint8(u8(tables.v6_class + at))


@njit(cache=True, nogil=True)
def _slot_of_v6(hi: np.uint64) -> np.uint64:
    """Slot 0 is below 2000::/3, the last is above; between, each slot is a /21."""
    if hi < _V6_FIRST:
        return _ZERO
    if hi >= _V6_END:
        return _V6_SLOTS + _ONE
    return ((hi - _V6_FIRST) >> _V6_SHIFT) + _ONE


@njit(cache=True, nogil=True)
def classify(tables: Tables, hi: U64, lo: U64, out: U8) -> None:
    """Writes the class of each address into `out`; all of shape (n,)."""
    for row in range(len(hi)):
        out[row] = class_of(tables, hi[row], lo[row])


class Steps(NamedTuple):
    """Classes of one family: `classes[i]` from `starts[i]` on, both of shape (n,)."""

    starts: U64
    classes: U8


def merged(all_steps: Steps) -> Steps:
    """Leaves out the steps that change nothing."""
    starts, classes = all_steps
    changes = np.append(True, classes[1:] != classes[:-1])
    return Steps(starts[changes], classes[changes])


class Paint(NamedTuple):
    """All addresses first..last (128-bit numbers, both included) get one class or mark."""

    first: int
    last: int
    value: int


def compile_tables(
    v4: Steps, v4_paints: Iterable[Paint], v6: Steps, v6_paints: Iterable[Paint]
) -> Arrays:
    """Makes the tables.

    Args:
        v4: Classes by country table, IPv4.
        v4_paints: What lies above them under ::ffff:0:0/96; later ones win.
        v6: Classes by country table, upper 64 bits of IPv6.
        v6_paints: What lies above those; later ones win.
    """
    v4_start, v4_rest, v4_class = _painted(v4, _clip(_coat(v4_paints), MAPPED, 32), 0)
    v6_hi, v6_lo, v6_class = _painted(v6, _coat(v6_paints), 64)
    slots = (np.arange(int(_V6_SLOTS) + 1, dtype=np.uint64) << _V6_SHIFT) + _V6_FIRST
    return Arrays(
        v4_index=_index(v4_start, v4_rest, np.arange(65536, dtype=np.uint64) << _16),
        v4_start=v4_start.astype(np.uint32),
        v4_class=v4_class,
        v6_index=_index(v6_hi, v6_lo, np.append(_ZERO, slots)),
        v6_hi=v6_hi,
        v6_lo=v6_lo,
        v6_class=v6_class,
    )


Coat = list[tuple[int, int]]
"""(from this 128-bit number on, this class, mark or _CLEAR), sorted, the first at 0."""


def _coat(paints: Iterable[Paint]) -> Coat:
    coat = {0: _CLEAR}
    for first, last, value in paints:
        edges = sorted(coat)
        resumed = coat[edges[bisect_left(edges, last + 2) - 1]]
        for edge in edges:
            if first <= edge <= last:
                del coat[edge]
        coat[first] = value
        coat[last + 1] = resumed
    return sorted(coat.items())


def _clip(coat: Coat, base: int, bits: int) -> Coat:
    """Cuts out 2**bits numbers from `base` on, counted from 0."""
    at_base = [value for start, value in coat if start <= base][-1]
    return [(0, at_base)] + [
        (start - base, value) for start, value in coat if base < start < base + (1 << bits)
    ]


def _painted(below: Steps, coat: Coat, shift: int) -> tuple[U64, U64, U8]:
    """Lays a coat over steps whose starts are the numbers without their low `shift` bits.

    Returns:
        Starts without the low bits, the low bits, and classes.
    """
    high: list[U64] = []
    low: list[U64] = []
    classes: list[U8] = []
    ends = [start for start, _ in coat[1:]] + [None]
    for (start, value), end in zip(coat, ends, strict=True):
        if start >> shift > int(np.iinfo(np.uint64).max):
            break  # past the last address
        here = int(np.searchsorted(below.starts, np.uint64(start >> shift), "right"))
        shown = int(below.classes[here - 1]) if value == _CLEAR else value
        high.append(np.array([start >> shift], np.uint64))
        low.append(np.array([start & ((1 << shift) - 1)], np.uint64))
        classes.append(np.array([shown], np.uint8))
        if value != _CLEAR:
            continue
        stop = len(below.starts) if end is None else bisect_left(below.starts, -(-end >> shift))
        high.append(below.starts[here:stop])
        low.append(np.zeros(max(0, stop - here), np.uint64))
        classes.append(below.classes[here:stop])
    joined = np.concatenate(classes)
    changes = np.append(True, joined[1:] != joined[:-1])
    return np.concatenate(high)[changes], np.concatenate(low)[changes], joined[changes]


def _index(high: U64, low: U64, slots: U64) -> U32:
    """Returns the boundary in force where each slot begins, and the last boundary."""
    at = np.searchsorted(high, slots)
    here = np.minimum(at, len(high) - 1)
    begins = (high[here] == slots) & (low[here] == 0)
    return np.append(np.where(begins, at, at - 1), len(high) - 1).astype(np.uint32)
