"""The metering kernel: decoded packets become bidirectional records.

A record is a row of 128 bytes, two cache lines, found through a hash table of
slots. Packets come in batches of 64: decode and hash them all, prefetching the
slots; prefetch the rows; then update. One flow's continuation after a silence
of more than `IDLE_US` or across a half-hour mark is a new row, so every row is a
finished segment at any time and the table can be emptied whenever it is full:
the lake's merge puts segments of one record together exactly.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit

from telemetry.bursts import coalesce
from telemetry.columns import BURST_US, CUT_US, IDLE_US
from telemetry.loads import get, prefetch, put
from telemetry.raw import I64, NEVER, U64, UNKNOWN, Bursts, RawBatch, Side
from telemetry.readers.packets import fragments
from telemetry.readers.packets.decode import (
    E_HI,
    E_LO,
    FLAGS,
    HASH,
    HEADERS,
    KEY,
    LENGTH,
    P_HI,
    P_LO,
    SIDE,
    TIME,
    WORDS,
    Seeds,
)

BATCH = 64
"""Packets decoded before the first of them is metered."""
RATES = 256
"""Sampling rates that one table can tell apart, by the upper byte of KEY."""

# Words of a row after the five of the key. Two halves of 32 bits in one word are the
# endpoint's (low) and the peer's (high); two words in a row likewise. Times are
# microseconds since the row's half-hour mark.
_BIN = 5  # half-hour number (low); flags of the endpoint, of the peer (8 bits each, high)
_PACKETS = 6
_BYTES = 7  # and 8
_SPAN = 9  # and 10: first (low), last (high)
_BURST = 11  # and 12: first and last of the burst that is going on
_CHAIN = 13  # 1 + index of the newest finished burst; 0 for none
_HEADERS = 14
_SIZES = 15  # 16 bits each: endpoint smallest, largest, peer smallest, largest
ROW = 16
_DRAINED = 1 << 17  # rows of a batch: its arrays are small enough that memory is used again
_BURSTS_A_ROW = 4  # room for finished bursts; most rows have none, slow long ones many

_u = np.uint64
_LOW = _u(0xFFFFFFFF)
_W32 = _u(32)
_CUT = _u(CUT_US)
_IDLE = _u(IDLE_US)
_GAP = _u(BURST_US)
_ONE = _u(1)
_W16 = _u(16)
_MOST_SIZE = _u(0xFFFF)
_ZERO = _u(0)
_NOBODY = _u(0xFFFFFFFF)  # first > last: the side has sent nothing
_NO_SIZES = _u(0x0000FFFF0000FFFF)
_FULL_COUNTER = _u(0xFFFE0000)


class Flows(NamedTuple):
    """A flow table as kernels see it: memory addresses and sizes, all uint64.

    Attributes:
        slots: 1 + row in the low half, part of the hash in the high half; 0 is free.
        mask: Number of slots, a power of two, less one.
        rows: Segments, ROW words each.
        bursts: Finished bursts, two words each: first | last << 32, and 1 + index of the
            burst before it in the same row and side.
        capacity: Number of rows.
        burst_capacity: Number of bursts.
        used: Two words: rows and bursts in use.
        batch: BATCH decoded packets of WORDS words.
        fragments: Table of first fragments, see `fragments.remember`; it outlives `drain`.
        seeds: Of the hash.
    """

    slots: np.uint64
    mask: np.uint64
    rows: np.uint64
    bursts: np.uint64
    capacity: np.uint64
    burst_capacity: np.uint64
    used: np.uint64
    batch: np.uint64
    fragments: np.uint64
    seeds: Seeds


class FlowTable:
    """The segments being metered.

    Attributes:
        flows: What kernels work on; valid as long as this object lives.
        rates: Sampling rate that each number in the upper byte of KEY stands for.
    """

    def __init__(self, capacity: int) -> None:
        """Makes an empty table.

        Args:
            capacity: Rows before it must be emptied, a power of two; 128 bytes each.
        """
        self.rates = np.ones(RATES, np.int64)
        self._slots = np.zeros(4 * capacity, np.uint64)
        self._rows = np.empty((capacity, ROW), np.uint64)
        self._bursts = np.empty((_BURSTS_A_ROW * capacity, 2), np.uint64)
        self._used = np.zeros(2, np.uint64)
        self._batch = np.zeros((BATCH, WORDS), np.uint64)
        self._fragments = np.zeros((fragments.ENTRIES, fragments.WORDS), np.uint64)
        self.flows = Flows(
            slots=_address(self._slots),
            mask=np.uint64(len(self._slots) - 1),
            rows=_address(self._rows),
            bursts=_address(self._bursts),
            capacity=np.uint64(capacity),
            burst_capacity=np.uint64(len(self._bursts)),
            used=_address(self._used),
            batch=_address(self._batch),
            fragments=_address(self._fragments),
            seeds=Seeds(*(np.uint64(secrets.randbits(64) | 1) for _ in Seeds._fields)),
        )

    def __len__(self) -> int:
        return int(self._used[0])

    def drain(self) -> Iterator[RawBatch]:
        """Empties the table into batches of segments, sides in canonical order."""
        for start in range(0, len(self), _DRAINED):
            yield self._segments(self._rows[start : min(start + _DRAINED, len(self))])
        self._slots.fill(0)
        self._used.fill(0)

    def _segments(self, rows: U64) -> RawBatch:
        addresses, numbers = _take_apart(rows)
        return RawBatch(
            a_hi=addresses[E_HI],
            a_lo=addresses[E_LO],
            b_hi=addresses[P_HI],
            b_lo=addresses[P_LO],
            a_port=numbers[_A_PORT],
            b_port=numbers[_B_PORT],
            protocol=numbers[_PROTOCOL],
            tunnel=numbers[_TUNNEL],
            outer=numbers[_OUTER],
            sampling_rate=self.rates[numbers[_SAMPLING]],
            active_timeout=numbers[_ACTIVE],
            idle_timeout=numbers[_QUIET],
            a=self._side(rows, numbers, 0),
            b=self._side(rows, numbers, 1),
        )

    def _side(self, rows: U64, numbers: I64, side: int) -> Side:
        own = list(numbers[_KEY_FIELDS + side * _SIDE_FIELDS :][:_SIDE_FIELDS])
        return Side(*own, bursts=self._side_bursts(rows, side))

    def _side_bursts(self, rows: U64, side: int) -> Bursts | None:
        most = int(self._used[1]) + len(rows)  # all finished ones, and the last of each row
        offsets = np.empty(len(rows) + 1, np.int64)
        starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
        n = _collect_bursts(rows, self._bursts, side, offsets, starts, ends)
        return Bursts(*coalesce(offsets, starts[:n], ends[:n])) if n else None


def _address(array: U64) -> np.uint64:
    return np.uint64(array.ctypes.data)


@njit(cache=True, nogil=True, inline="always")
def has_room(flows):
    """Returns whether a whole batch fits, come what may."""
    batch = _u(2 * BATCH)
    return get(flows.used, 0) + batch <= flows.capacity and (
        get(flows.used, 1) + batch <= flows.burst_capacity
    )


@njit(cache=True, nogil=True, inline="always")
def packet_of(flows, i):
    """Returns the address of packet `i` of the batch."""
    return flows.batch + _u(i) * _u(8 * WORDS)


@njit(cache=True, nogil=True, inline="always")
def prefetch_slot(flows, packet):
    """Brings the slot of a decoded packet near."""
    prefetch(flows.slots + (get(packet, HASH) & flows.mask) * _u(8))


@njit(cache=True, nogil=True, inline="always")
def prefetch_row(flows, packet):
    """Brings the row that a packet's slot points to near."""
    slot = get(flows.slots, np.int64(get(packet, HASH) & flows.mask))
    if slot != _ZERO:
        row = _row_of(flows, slot)
        prefetch(row)
        prefetch(row + _u(64))


@njit(cache=True, nogil=True, inline="always")
def _row_of(flows, slot):
    return flows.rows + ((slot & _LOW) - _ONE) * _u(8 * ROW)


@njit(cache=True, nogil=True, inline="always")
def _start_row(flows, packet, time_bin, at, tag):
    """Takes a new row for the packet's record and enters it in the slot."""
    number = get(flows.used, 0) + _ONE
    put(flows.used, 0, number)
    put(flows.slots, at, tag | number)
    row = _row_of(flows, number)
    put(row, E_HI, get(packet, E_HI))
    put(row, E_LO, get(packet, E_LO))
    put(row, P_HI, get(packet, P_HI))
    put(row, P_LO, get(packet, P_LO))
    put(row, KEY, get(packet, KEY))
    put(row, _BIN, time_bin)
    put(row, _PACKETS, _ZERO)
    put(row, _BYTES, _ZERO)
    put(row, _BYTES + 1, _ZERO)
    put(row, _SPAN, _NOBODY)
    put(row, _SPAN + 1, _NOBODY)
    put(row, _BURST, _NOBODY)
    put(row, _BURST + 1, _NOBODY)
    put(row, _CHAIN, _ZERO)
    put(row, _HEADERS, _ZERO)
    put(row, _SIZES, _NO_SIZES)
    return row


@njit(cache=True, nogil=True, inline="always")
def _continues(row, time_bin, t):
    """Returns whether a packet still belongs to the segment of a row."""
    e = get(row, _SPAN)
    p = get(row, _SPAN + 1)
    first = min(e & _LOW, p & _LOW)
    last = max(e >> _W32, p >> _W32)
    packets = get(row, _PACKETS)
    headers = get(row, _HEADERS)
    counters = (packets | headers) & _LOW, (packets | headers) >> _W32
    return (
        get(row, _BIN) & _LOW == time_bin
        and t <= last + _IDLE
        and t + _IDLE >= first
        and counters[0] < _FULL_COUNTER
        and counters[1] < _FULL_COUNTER
    )


@njit(cache=True, nogil=True, inline="always")
def _add_time(flows, row, side, shift, t):
    """Widens the side's span and its bursts by one packet time."""
    span = get(row, _SPAN + side)
    first = span & _LOW
    last = span >> _W32
    put(row, _SPAN + side, min(first, t) | (max(last, t) << _W32))
    burst = get(row, _BURST + side)
    start = burst & _LOW
    end = burst >> _W32
    if first > last:
        burst = t | (t << _W32)
    elif t >= end + _GAP or t + _GAP <= start:
        number = get(flows.used, 1)
        chain = get(row, _CHAIN)
        put(flows.bursts, 2 * np.int64(number), burst)
        put(flows.bursts, 2 * np.int64(number) + 1, (chain >> shift) & _LOW)
        put(flows.used, 1, number + _ONE)
        put(row, _CHAIN, (chain & ~(_LOW << shift)) | ((number + _ONE) << shift))
        burst = t | (t << _W32)
    else:
        burst = min(start, t) | (max(end, t) << _W32)
    put(row, _BURST + side, burst)


@njit(cache=True, nogil=True, inline="always")
def _find_row(flows, packet, time_bin, t):
    """Returns the row that a packet is counted in, a new one if need be."""
    h = get(packet, HASH)
    tag = h & ~_LOW
    at = h & flows.mask
    while True:
        slot = get(flows.slots, np.int64(at))
        if slot == _ZERO:
            return _start_row(flows, packet, time_bin, np.int64(at), tag)
        if slot & ~_LOW == tag:
            row = _row_of(flows, slot)
            if (
                get(row, E_LO) == get(packet, E_LO)
                and get(row, P_LO) == get(packet, P_LO)
                and get(row, KEY) == get(packet, KEY)
                and get(row, E_HI) == get(packet, E_HI)
                and get(row, P_HI) == get(packet, P_HI)
            ):
                if _continues(row, time_bin, t):
                    return row
                return _start_row(flows, packet, time_bin, np.int64(at), tag)
        at = (at + _ONE) & flows.mask


@njit(cache=True, nogil=True)
def meter(flows, packet):
    """Adds one decoded packet to its record.

    Args:
        flows: The flow table; `has_room` was true before the batch.
        packet: Memory address of the decoded packet, TIME in microseconds since 1970.
    """
    time = get(packet, TIME)
    time_bin = time // _CUT
    t = time - time_bin * _CUT
    row = _find_row(flows, packet, time_bin, t)
    side = np.int64(get(packet, SIDE))
    shift = _u(32 * side)
    length = get(packet, LENGTH)
    put(row, _PACKETS, get(row, _PACKETS) + (_ONE << shift))
    put(row, _BYTES + side, get(row, _BYTES + side) + length)
    put(row, _HEADERS, get(row, _HEADERS) + (get(packet, HEADERS) << shift))
    put(row, _BIN, get(row, _BIN) | (get(packet, FLAGS) << _u(32 + 8 * side)))
    sizes = get(row, _SIZES)
    own = (sizes >> shift) & _LOW
    length = min(length, _MOST_SIZE)
    own = min(own & _MOST_SIZE, length) | (max(own >> _W16, length) << _W16)
    put(row, _SIZES, (sizes & ~(_LOW << shift)) | (own << shift))
    _add_time(flows, row, side, shift, t)


@njit(cache=True, nogil=True)
def _collect_bursts(rows, bursts, side, offsets, starts, ends):
    """Lays out the bursts of one side row by row; rows with a single one get none.

    Returns:
        The number of bursts.
    """
    n = 0
    shift = _u(32 * side)
    for row in range(rows.shape[0]):
        offsets[row] = n
        chain = np.int64((rows[row, _CHAIN] >> shift) & _LOW)
        if chain == 0:
            continue
        base = np.int64((rows[row, _BIN] & _LOW) * _CUT)
        starts[n] = base + np.int64(rows[row, _BURST + side] & _LOW)
        ends[n] = base + np.int64(rows[row, _BURST + side] >> _W32)
        n += 1
        while chain:
            starts[n] = base + np.int64(bursts[chain - 1, 0] & _LOW)
            ends[n] = base + np.int64(bursts[chain - 1, 0] >> _W32)
            chain = np.int64(bursts[chain - 1, 1])
            n += 1
        # The chain runs from the newest to the oldest; in time order there is nothing to sort.
        low, high = offsets[row], n - 1
        while low < high:
            starts[low], starts[high] = starts[high], starts[low]
            ends[low], ends[high] = ends[high], ends[low]
            low, high = low + 1, high - 1
    offsets[rows.shape[0]] = n
    return n


# Rows of what `_take_apart` returns: those of the record, then eight for each side.
_A_PORT, _B_PORT, _PROTOCOL, _TUNNEL, _OUTER, _SAMPLING, _ACTIVE, _QUIET, _KEY_FIELDS = range(9)
_N, _OCTETS, _PAYLOAD, _LEAST, _MOST, _OR, _FIRST, _LAST, _SIDE_FIELDS = range(9)


@njit(cache=True, nogil=True)
def _take_apart(rows):
    """Spreads packed rows into columns, in one pass over memory.

    Returns:
        (addresses, numbers): uint64 of shape (4, n) and int64 of shape
        (_KEY_FIELDS + 2 * _SIDE_FIELDS, n).
    """
    n = rows.shape[0]
    addresses = np.empty((4, n), np.uint64)
    out = np.empty((_KEY_FIELDS + 2 * _SIDE_FIELDS, n), np.int64)
    for i in range(n):
        for word in range(4):
            addresses[word, i] = rows[i, word]
        key = rows[i, KEY]
        out[_A_PORT, i] = np.int64(key & _MOST_SIZE)
        out[_B_PORT, i] = np.int64((key >> _W16) & _MOST_SIZE)
        out[_PROTOCOL, i] = np.int64((key >> _W32) & _u(0xFF))
        out[_TUNNEL, i] = np.int64((key >> _u(40)) & _u(0xFF))
        out[_OUTER, i] = np.int64((key >> _u(48)) & _u(0xFF))
        out[_SAMPLING, i] = np.int64(key >> _u(56))
        out[_ACTIVE, i] = UNKNOWN
        out[_QUIET, i] = UNKNOWN
        time_bin = rows[i, _BIN]
        base = np.int64((time_bin & _LOW) * _CUT)
        for side in range(2):
            at = _KEY_FIELDS + side * _SIDE_FIELDS
            shift = _u(32 * side)
            octets = np.int64(rows[i, _BYTES + side])
            out[at + _N, i] = np.int64((rows[i, _PACKETS] >> shift) & _LOW)
            out[at + _OCTETS, i] = octets
            out[at + _PAYLOAD, i] = octets - np.int64((rows[i, _HEADERS] >> shift) & _LOW)
            out[at + _OR, i] = np.int64((time_bin >> _u(32 + 8 * side)) & _u(0xFF))
            sizes = (rows[i, _SIZES] >> shift) & _LOW
            first = rows[i, _SPAN + side] & _LOW
            last = rows[i, _SPAN + side] >> _W32
            if first > last:
                out[at + _LEAST, i] = UNKNOWN
                out[at + _MOST, i] = UNKNOWN
                out[at + _FIRST, i] = NEVER
                out[at + _LAST, i] = NEVER
            else:
                out[at + _LEAST, i] = np.int64(sizes & _MOST_SIZE)
                out[at + _MOST, i] = np.int64(sizes >> _W16)
                out[at + _FIRST, i] = base + np.int64(first)
                out[at + _LAST, i] = base + np.int64(last)
    return addresses, out
