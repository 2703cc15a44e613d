"""pcapng: sections in either byte order, several interfaces, any time resolution.

Format: draft-ietf-opsawg-pcapng. Packets come from enhanced, simple and the
obsolete packet blocks; names, comments and all else are stepped over unread.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import io
import struct

import numpy as np
from numba import njit

from telemetry.loads import be16, be32, le16, le32
from telemetry.readers.contract import Session
from telemetry.readers.packets.capture import (
    CONTROL,
    CORRUPT,
    LAST_TIME,
    LONGEST,
    MORE,
    NEED_BYTES,
    TABLE_FULL,
    CaptureReader,
    Frames,
    Walker,
    meter_frames,
)
from telemetry.readers.packets.link import link_name
from telemetry.readers.packets.meter import BATCH, has_room
from telemetry.records import Tally

_SECTION_BYTES = b"\x0a\x0d\x0d\x0a"
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_TSRESOL, _TSOFFSET = 9, 14
_SECTION, _INTERFACE, _OBSOLETE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_MOST_INTERFACES = 4096
# State: byte order, number of interfaces, then for each interface four words.
_BIG, _COUNT, _FIRST = 0, 1, 2
_LINK, _SNAPLEN, _UNITS, _OFFSET, _WORDS = range(5)
_u = np.uint64
_MILLION = _u(1_000_000)


@njit(cache=True, nogil=True, inline="always")
def _word(big, address):
    return be32(address) if big else le32(address)


@njit(cache=True, nogil=True)
def _microseconds(high, low, units, offset):
    """Converts a 64-bit count of `units` a second; returns -1 when out of range."""
    ticks = (_u(high) << _u(32)) | _u(low)
    per_second = _u(units)
    if per_second == _u(0):
        return -1
    seconds = ticks // per_second
    rest = ticks - seconds * per_second
    if seconds > _u(LAST_TIME // 1_000_000):
        return -1
    if per_second % _MILLION == _u(0):
        micro = np.int64(rest // (per_second // _MILLION))
    elif per_second > _u(1 << 43):
        # A power of two. By halves, since the product can exceed 64 bits; what is shifted out
        # is less than one of the units that are divided by.
        upper = (rest >> _u(32)) * _MILLION + ((rest & _u(0xFFFFFFFF)) * _MILLION >> _u(32))
        micro = np.int64(upper // (per_second >> _u(32)))
    else:
        micro = np.int64(rest * _MILLION // per_second)
    time = (np.int64(seconds) + offset) * 1_000_000 + micro
    return time if 0 <= time < LAST_TIME else -1


@njit(cache=True, nogil=True)
def _walk(state, address, position, end, frames):
    """Finds up to BATCH packets; see `capture.Walker`."""
    big = state[_BIG]
    n = 0
    while n < BATCH:
        if end - position < 12:
            return n, position, NEED_BYTES
        at = address + _u(position)
        kind = _word(big, at)
        if kind == _SECTION or kind == _INTERFACE:
            return n, position, CONTROL
        size = _word(big, at + _u(4))
        if size < 12 or size & 3 or size > LONGEST:
            return n, position, CORRUPT
        if end - position < size:
            return n, position, NEED_BYTES
        if _word(big, at + _u(size - 4)) != size:
            return n, position, CORRUPT
        position += size
        interface = 0
        if kind == _ENHANCED or kind == _OBSOLETE:
            if size < 32:
                return n, position, CORRUPT
            if kind == _ENHANCED:
                interface = _word(big, at + _u(8))
            else:
                interface = be16(at + _u(8)) if big else le16(at + _u(8))
            high, low = _word(big, at + _u(12)), _word(big, at + _u(16))
            captured, wire = _word(big, at + _u(20)), _word(big, at + _u(24))
            body, room = 28, size - 32
        elif kind == _SIMPLE:
            if size < 16:
                return n, position, CORRUPT
            high, low = 0, 0
            wire = _word(big, at + _u(8))
            captured, body, room = wire, 12, size - 16
        else:
            continue
        known = interface < state[_COUNT]
        slot = _FIRST + interface * _WORDS
        if kind == _SIMPLE and known and state[slot + _SNAPLEN]:
            captured = min(captured, state[slot + _SNAPLEN])
        if captured > room:
            if kind != _SIMPLE:
                return n, position - size, CORRUPT
            captured = room
        frames.address[n] = at + _u(body)
        frames.captured[n] = captured
        frames.wire[n] = max(wire, captured)
        frames.link[n] = state[slot + _LINK] if known else -1
        frames.time[n] = (
            _microseconds(high, low, state[slot + _UNITS], state[slot + _OFFSET]) if known else 0
        )
        if kind == _SIMPLE and known:
            frames.time[n] = -1  # it has none
        n += 1
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


class _PcapngWalker:
    walk = staticmethod(_walk)
    meter = staticmethod(_meter)

    def __init__(self, tally: Tally) -> None:
        self.state = np.zeros(_FIRST + _MOST_INTERFACES * _WORDS, np.int64)
        self._tally = tally

    def control(self, data: memoryview) -> tuple[int, int]:
        """Reads a section header or an interface description; see `capture.Walker`."""
        if data[:4] == _SECTION_BYTES:
            if len(data) < 12:
                return 0, NEED_BYTES
            magic = bytes(data[8:12])
            if magic not in _ORDERS:
                return 0, CORRUPT
            self.state[_BIG] = _ORDERS[magic] == ">"
            self.state[_COUNT] = 0
        order = ">" if self.state[_BIG] else "<"
        size = struct.unpack(order + "I", data[4:8])[0]
        if size < 20 or size & 3 or size > LONGEST:
            return 0, CORRUPT
        if len(data) < size:
            return 0, NEED_BYTES
        if struct.unpack(order + "I", data[size - 4 : size])[0] != size:
            return 0, CORRUPT
        if data[:4] != _SECTION_BYTES:
            self._add_interface(order, bytes(data[8 : size - 4]))
        return size, MORE

    def _add_interface(self, order: str, body: bytes) -> None:
        link, _, snaplen = struct.unpack(order + "HHI", body[:8])
        units, offset = _time_options(order, body[8:])
        self._tally.linktypes.add(link_name(link))
        number = int(self.state[_COUNT])
        if number < _MOST_INTERFACES:
            slot = _FIRST + number * _WORDS
            # Units above 2^63 keep their bits; the kernel reads them as unsigned.
            unsigned = np.array([units], np.uint64).view(np.int64)[0]
            self.state[slot : slot + _WORDS] = (link, snaplen, unsigned, offset)
            self.state[_COUNT] = number + 1


def _time_options(order: str, options: bytes) -> tuple[int, int]:
    """Returns (units a second, seconds to add) of an interface; 0 units if nonsense."""
    units, offset, at = 1_000_000, 0, 0
    while len(options) - at >= 4:
        code, length = struct.unpack_from(order + "HH", options, at)
        value = options[at + 4 : at + 4 + length]
        if code == 0:
            break
        if code == _TSRESOL and len(value) == 1:
            exponent = value[0] & 0x7F
            units = 2**exponent if value[0] & 0x80 else 10**exponent
        elif code == _TSOFFSET and len(value) == 8:
            offset = struct.unpack(order + "q", value)[0]
        at += 4 + (length + 3 & ~3)
    if units >= 1 << 64 or abs(offset) > LAST_TIME // 1_000_000:
        units = 0
    return units, offset if units else 0


class PcapngReader(CaptureReader):
    """Reads pcapng."""

    name = "pcapng"
    about = "pcapng: sections, interfaces, any time resolution"

    def recognises(self, head: bytes, session: Session | None) -> bool:
        """Returns whether the file starts with a section header block."""
        return head[:4] == _SECTION_BYTES and head[8:12] in _ORDERS

    def starts(self, head: bytes) -> int | None:
        """Returns the time of the first packet that has one."""
        walker = _PcapngWalker(Tally())
        data = np.frombuffer(head, np.uint8)
        frames = Frames.empty()
        position, status = 0, MORE
        while status in (MORE, CONTROL):
            found, position, status = _walk(
                walker.state, _u(data.ctypes.data), position, len(head), frames
            )
            times = frames.time[:found]
            if (times >= 0).any():
                return int(times[times >= 0][0])
            if status == CONTROL:
                taken, status = walker.control(data[position:].data)
                position += taken
        return None

    def walker(self, stream: io.BufferedReader, tally: Tally) -> Walker:
        """Returns what finds the packets of a stream."""
        return _PcapngWalker(tally)


READER = PcapngReader()
