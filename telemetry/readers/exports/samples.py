"""Flow samples of sFlow v5: sampled packets go through the packet kernel.

Of each flow sample one record counts: the packet's header as it was on the wire, else the
sampled IPv4 or IPv6 header fields. Counter samples are stepped over. sFlow tells no time: a
sample has that of the capture, and without one it is dropped.

Format: sflow.org, sFlow Version 5 (sflow_version_5.txt).
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import njit

from telemetry.homeland import Border
from telemetry.loads import be32, be64, get, put
from telemetry.raw import I64, NEVER, PORTED, UNKNOWN, RawBatch
from telemetry.readers.exports.flows import (
    A_PORT,
    ACTIVE,
    B_PORT,
    BYTES,
    FIRST,
    FLAGS,
    IDLE,
    LAST,
    LEAST,
    MOST,
    PACKETS,
    PROTOCOL,
    RATE,
    RECORD_COLUMNS,
    ROWS,
    SIDE_COLUMNS,
    Rows,
)
from telemetry.readers.exports.messages import SFLOW, Datagrams, samples_at
from telemetry.readers.packets.decode import HASH, KEY, TIME, decode
from telemetry.readers.packets.meter import RATES, FlowTable, has_room, meter, packet_of
from telemetry.reasons import Reason

# sFlow's numbers of header protocols to LINKTYPE_ numbers: Ethernet, frame relay, PPP, IPv4,
# IPv6, MPLS, packet over SONET, IEEE 802.11.
_LINKS = {1: 1, 5: 107, 7: 9, 11: 228, 12: 229, 13: 219, 14: 50, 15: 105}
_LINK_OF = np.array([_LINKS.get(i, -1) for i in range(16)], np.int64)
_FLOW, _EXPANDED_FLOW = 1, 3
_RAW_HEADER, _SAMPLED_IPV4, _SAMPLED_IPV6 = 1, 3, 4
_DONE, _TABLE_FULL, _ROWS_FULL = range(3)
# Where the kernel stands: datagram, offset of the next sample (0: none), samples left; then
# the number of rates in the table.
_AT, _SAMPLE, _LEFT, _RATES_USED = range(4)
_KEPT = int(Reason.KEPT)
_MALFORMED = int(Reason.MALFORMED_ROW)
_NO_ADDRESS = int(Reason.NO_ADDRESS)
_BAD_TIME = int(Reason.BAD_TIME)
_V4_PREFIX = np.uint64(0xFFFF00000000)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_u = np.uint64


@njit(cache=True, nogil=True)
def _number_of(rate, rates, state):
    """Returns the number under which a rate stands in the table, -1 when there is no room."""
    for number in range(state[_RATES_USED]):
        if rates[number] == rate:
            return number
    number = state[_RATES_USED]
    if number == RATES:
        return -1
    rates[number] = rate
    state[_RATES_USED] = number + 1
    return number


@njit(cache=True, nogil=True)
def _meter_header(at, length, number, time, flows, tables, allowed):
    """Gives a sampled header to the packet kernel; returns a value of `Reason`.

    Args:
        at: Memory address of the record: protocol, bytes on the wire, bytes stripped, bytes of
            the header, header.
        length: Bytes of the record.
        number: Of the sampling rate.
        time: Of the sample, in microseconds since 1970.
        flows: Flow table with room.
        tables: Homeland look-up tables.
        allowed: Bit mask of allowed directions.
    """
    if length < 16:
        return _MALFORMED
    protocol, wire, captured = be32(at), be32(at + _u(4)), be32(at + _u(12))
    if captured > length - 16:
        return _MALFORMED
    packet = packet_of(flows, 0)
    link = _LINK_OF[protocol] if protocol < 16 else -1
    base = at + _u(16)
    wire = max(wire - be32(at + _u(8)), captured)
    reason = decode(
        base, captured, wire, link, time, tables, allowed, flows.seeds, flows.fragments, packet
    )
    if reason == _KEPT:
        put(packet, TIME, _u(time))
        put(packet, KEY, get(packet, KEY) | _u(number) << _u(56))
        put(packet, HASH, get(packet, HASH) ^ (_u(number) * _SPREAD))
        meter(flows, packet)
    return reason


@njit(cache=True, nogil=True)
def _put_fields(at, length, kind, rate, time, rows):
    """Turns sampled header fields into a row; returns a value of `Reason`.

    Args:
        at: Memory address of the record: length, protocol, addresses, ports, TCP flags, …
        length: Bytes of the record.
        kind: _SAMPLED_IPV4 or _SAMPLED_IPV6.
        rate: Sampling rate.
        time: Of the sample, in microseconds since 1970.
        rows: With room.
    """
    width = 4 if kind == _SAMPLED_IPV4 else 16
    if length < 20 + 2 * width:
        return _MALFORMED
    row, out, addresses = rows.used[0], rows.numbers, rows.addresses
    for side in range(2):
        address = at + _u(8 + side * width)
        if width == 4:
            addresses[2 * side, row] = _u(0)
            addresses[2 * side + 1, row] = _V4_PREFIX | _u(be32(address))
        else:
            addresses[2 * side, row] = be64(address)
            addresses[2 * side + 1, row] = be64(address + _u(8))
    ports = at + _u(8 + 2 * width)
    protocol = be32(at + _u(4))
    with_ports = protocol in PORTED
    octets = be32(at)
    out[A_PORT, row] = be32(ports) if with_ports else 0
    out[B_PORT, row] = be32(ports + _u(4)) if with_ports else 0
    out[PROTOCOL, row] = protocol
    out[RATE, row] = rate
    out[ACTIVE, row] = UNKNOWN
    out[IDLE, row] = UNKNOWN
    for side in range(2):
        own = RECORD_COLUMNS + side * SIDE_COLUMNS
        for column in (PACKETS, BYTES, LEAST, MOST, FLAGS):
            out[own + column, row] = UNKNOWN
        out[own + FIRST, row] = out[own + LAST, row] = NEVER
    own = RECORD_COLUMNS
    out[own + PACKETS, row] = 1
    out[own + BYTES, row] = out[own + LEAST, row] = out[own + MOST, row] = octets
    out[own + FLAGS, row] = be32(ports + _u(8)) & 0xFF
    out[own + FIRST, row] = out[own + LAST, row] = time
    rows.used[0] = row + 1
    return _KEPT


@njit(cache=True, nogil=True)
def _best_record(base, at, end, count):
    """Finds the record of a flow sample that tells most.

    Returns:
        (kind, offset, length); kind is 0 when there is none, -1 when a record is cut.
    """
    found, place, size = 0, 0, 0
    for _ in range(count):
        if end - at < 8:
            return -1, 0, 0
        kind, length = be32(base + _u(at)), be32(base + _u(at + 4))
        if length > end - at - 8:
            return -1, 0, 0
        if kind == _RAW_HEADER or (kind in (_SAMPLED_IPV4, _SAMPLED_IPV6) and found == 0):
            found, place, size = kind, at + 8, length
            if kind == _RAW_HEADER:
                break
        at += 8 + length
    return found, place, size


@njit(cache=True, nogil=True)
def _take_sample(base, at, end, expanded, time, rates, state, flows, tables, allowed, rows):
    """Handles one flow sample; returns a value of `Reason`, or -1 when the table is full."""
    header = 44 if expanded else 32
    if end - at < header:
        return _MALFORMED
    rate = max(be32(base + _u(at + (12 if expanded else 8))), 1)
    count = be32(base + _u(at + header - 4))
    kind, place, length = _best_record(base, at + header, end, count)
    if kind < 0:
        return _MALFORMED
    if kind == 0:
        return _NO_ADDRESS
    if time < 0:
        return _BAD_TIME
    record = base + _u(place)
    if kind != _RAW_HEADER:
        return _put_fields(record, length, kind, rate, time, rows)
    number = _number_of(rate, rates, state)
    if number < 0:
        return -1
    return _meter_header(record, length, number, time, flows, tables, allowed)


@njit(cache=True, nogil=True)
def _decode_samples(datagrams, n, state, rates, flows, tables, allowed, rows):
    """Walks the samples of sFlow messages until all are, or there is no room.

    Returns:
        _DONE, _TABLE_FULL or _ROWS_FULL.
    """
    while state[_AT] < n:
        i = state[_AT]
        if datagrams.kind[i] == SFLOW:
            base, captured = datagrams.address[i], datagrams.captured[i]
            if state[_SAMPLE] == 0:
                state[_SAMPLE] = samples_at(base)
                state[_LEFT] = be32(base + _u(state[_SAMPLE] - 4))
            at = state[_SAMPLE]
            while state[_LEFT] > 0:
                size = be32(base + _u(at + 4)) if captured - at >= 8 else captured
                if size > captured - at - 8:
                    rows.counts[_MALFORMED] += 1
                    break
                kind = be32(base + _u(at))
                if kind == _FLOW or kind == _EXPANDED_FLOW:
                    if not has_room(flows):
                        return _TABLE_FULL
                    if rows.used[0] == ROWS:
                        return _ROWS_FULL
                    reason = _take_sample(
                        base,
                        at + 8,
                        at + 8 + size,
                        kind == _EXPANDED_FLOW,
                        datagrams.time[i],
                        rates,
                        state,
                        flows,
                        tables,
                        allowed,
                        rows,
                    )
                    if reason < 0:
                        return _TABLE_FULL
                    rows.counts[reason] += 1
                at += 8 + size
                state[_SAMPLE] = at
                state[_LEFT] -= 1
        state[_AT] += 1
        state[_SAMPLE] = 0
    return _DONE


class SampleDecoder:
    """Decodes the samples of one source."""

    def __init__(self, border: Border, counts: I64) -> None:
        """Starts a source.

        Args:
            border: Applied to every sampled packet before it reaches the flow table.
            counts: Samples by `Reason`, added to.
        """
        self._border = border
        self._table = FlowTable(1 << 14)
        self._state = np.zeros(4, np.int64)
        self._rows = Rows.empty(counts)

    def decode(self, datagrams: Datagrams, n: int) -> Iterator[RawBatch]:
        """Yields records of the first `n` messages, as far as they fill batches."""
        self._state[_AT] = 0
        while True:
            status = _decode_samples(
                datagrams,
                n,
                self._state,
                self._table.rates,
                self._table.flows,
                self._border.homeland.tables,
                self._border.allowed,
                self._rows,
            )
            if status == _DONE:
                return
            if status == _TABLE_FULL:
                yield from self._drain()
            else:
                yield self._take()

    def finish(self) -> Iterator[RawBatch]:
        """Yields what is left."""
        yield from self._drain()
        if self._rows.used[0]:
            yield self._take()

    def _drain(self) -> Iterator[RawBatch]:
        yield from self._table.drain()
        self._state[_RATES_USED] = 0

    def _take(self) -> RawBatch:
        batch = self._rows.batch()
        self._rows = Rows.empty(self._rows.counts)
        return batch
