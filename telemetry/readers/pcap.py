"""Classic pcap, as tcpdump writes it: both byte orders, micro- and nanoseconds.

Format: draft-ietf-opsawg-pcap. The modified header of Kuznetzov's patches
(24-byte record headers) is read too.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numba import njit

from telemetry.errors import SourceError
from telemetry.homeland import Border
from telemetry.loads import be32, le32
from telemetry.raw import I64, RawBatch
from telemetry.readers.capture import (
    CORRUPT,
    LONGEST,
    MORE,
    NEED_BYTES,
    TABLE_FULL,
    meter_frames,
    read_frames,
)
from telemetry.readers.decode import LINK_NAMES
from telemetry.readers.meter import BATCH, has_room
from telemetry.readers.source import Source
from telemetry.records import Tally

_HEADER = 24
# magic number as stored -> (byte order, divisor from the fraction to microseconds, record header)
_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1, 16),
    b"\xa1\xb2\xc3\xd4": (">", 1, 16),
    b"\x4d\x3c\xb2\xa1": ("<", 1000, 16),
    b"\xa1\xb2\x3c\x4d": (">", 1000, 16),
    b"\x34\xcd\xb2\xa1": ("<", 1, 24),
    b"\xa1\xb2\xcd\x34": (">", 1, 24),
}
_BIG, _DIVISOR, _RECORD, _LINK = range(4)
_u = np.uint64


@njit(cache=True, nogil=True)
def _walk(state, address, position, end, frames):
    """Finds up to BATCH packets; see `capture.Walker`."""
    header = state[_RECORD]
    n = 0
    while n < BATCH:
        if end - position < header:
            return n, position, NEED_BYTES
        at = address + _u(position)
        if state[_BIG]:
            seconds, fraction = be32(at), be32(at + _u(4))
            captured, wire = be32(at + _u(8)), be32(at + _u(12))
        else:
            seconds, fraction = le32(at), le32(at + _u(4))
            captured, wire = le32(at + _u(8)), le32(at + _u(12))
        if captured > LONGEST:
            return n, position, CORRUPT
        if end - position - header < captured:
            return n, position, NEED_BYTES
        frames.address[n] = at + _u(header)
        frames.captured[n] = captured
        frames.wire[n] = max(wire, captured)
        frames.link[n] = state[_LINK]
        frames.time[n] = seconds * 1_000_000 + fraction // state[_DIVISOR]
        n += 1
        position += header + captured
    return n, position, MORE


@njit(cache=True, nogil=True)
def _meter(state, address, position, end, frames, flows, tables, allowed, counts):
    """Walks and meters until bytes, room or sense run out; see `capture.Walker`."""
    while has_room(flows):
        n, position, status = _walk(state, address, position, end, frames)
        meter_frames(frames, n, flows, tables, allowed, counts)
        if status != MORE:
            return position, status
    return position, TABLE_FULL


class _PcapWalker:
    meter = staticmethod(_meter)

    def __init__(self, state: I64) -> None:
        self.state = state

    def control(self, data: memoryview) -> tuple[int, int]:
        raise AssertionError("classic pcap has no control blocks")


class PcapReader:
    """Reads classic pcap."""

    name = "pcap"
    gated = True

    def recognises(self, head: bytes) -> bool:
        """Returns whether the file starts with one of pcap's magic numbers."""
        return head[:4] in _MAGICS

    def read(self, source: Source, border: Border, tally: Tally) -> Iterator[RawBatch]:
        """Yields the capture's records; see `contract.Reader`."""
        stream = source.stream()
        header = stream.read(_HEADER)
        if len(header) < _HEADER:
            raise SourceError("The pcap file ends inside its header; there is nothing to read.")
        order, divisor, record = _MAGICS[header[:4]]
        # The upper half of the link field may hold the length of a frame check sequence.
        link = struct.unpack(order + "I", header[20:24])[0] & 0xFFFF
        tally.linktypes.add(LINK_NAMES.get(link, f"linktype_{link}"))
        state = np.array([order == ">", divisor, record, link], np.int64)
        yield from read_frames(stream, _PcapWalker(state), border, tally)
        tally.damage = source.damage or tally.damage


READER = PcapReader()
