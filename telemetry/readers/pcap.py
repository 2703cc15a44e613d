"""Classic pcap, as tcpdump writes it, and the variants that others made of it.

Format: draft-ietf-opsawg-pcap. Both byte orders, micro- and nanoseconds. Variants that share a
magic number are told apart as Wireshark does, by which record header fits: Kuznetzov's three
patches, Nokia's; AIX by its version and link numbers; Ixia's by magic numbers of their own.
Before version 2.3, and in DG/UX's 543.0, a record's two lengths stand the other way round; in
2.3 both are found.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import io
import struct
from typing import NamedTuple

import numpy as np
from numba import njit

from telemetry.errors import SourceError
from telemetry.loads import be32, le32
from telemetry.raw import I64
from telemetry.readers.contract import Session
from telemetry.readers.packets.capture import (
    CORRUPT,
    LONGEST,
    MORE,
    NEED_BYTES,
    TABLE_FULL,
    CaptureReader,
    Walker,
    meter_frames,
)
from telemetry.readers.packets.link import link_name
from telemetry.readers.packets.meter import BATCH, has_room
from telemetry.readers.source import HEAD
from telemetry.records import Tally

_HEADER = 24
_STANDARD, _NANO, _MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
_IXIA_NANO, _IXIA_MICRO = 0x1C0001AC, 0x1C0001AB
_KINDS = (_STANDARD, _NANO, _MODIFIED, _IXIA_NANO, _IXIA_MICRO)
_MAGICS = {
    magic.to_bytes(4, "big" if order == ">" else "little"): (order, magic)
    for magic in _KINDS
    for order in "<>"
}
# Sizes of record headers, the likeliest first.
_RECORDS = {_STANDARD: (16, 24, 20), _MODIFIED: (24, 28)}
_PROBED = 4
# AIX takes the interface types of RFC 1573 for link types.
_AIX_LINKS = {6: 1, 9: 6, 15: 10, 24: 0}
_AIX_FDDI, _AIX_PADDING = 15, 3
_NEVER, _ALWAYS, _WHEN_LONGER = range(3)
_BIG, _DIVISOR, _RECORD, _LINK, _SWAP, _PADDING = range(6)
_u = np.uint64


class PcapHeader(NamedTuple):
    """What the head of a classic pcap file tells of its packets.

    Attributes:
        order: Byte order in `struct`'s notation.
        divisor: From a record's fraction of a second to microseconds.
        record: Bytes of a record's header.
        link: LINKTYPE_ number.
        swap: Whether a record's lengths stand the other way round: 0 never, 1 always, 2 when
            more was captured than there was.
        padding: Bytes before each frame.
        size: Bytes of the file's header.
    """

    order: str
    divisor: int
    record: int
    link: int
    swap: int
    padding: int
    size: int


def read_header(head: bytes) -> PcapHeader:
    """Reads a pcap file's header, and looks at the first records where it does not say enough.

    Args:
        head: The file's first bytes.

    Raises:
        SourceError: The header is not all there.
    """
    order, magic = _MAGICS[head[:4]]
    size = _HEADER + 4 * (magic in (_IXIA_NANO, _IXIA_MICRO))
    if len(head) < size:
        raise SourceError("The pcap file ends inside its header; there is nothing to read.")
    major, minor = struct.unpack(order + "HH", head[4:8])
    # The upper half of the link field may hold the length of a frame check sequence.
    link = struct.unpack(order + "I", head[20:24])[0] & 0xFFFF
    if magic == _STANDARD and (major, minor) == (2, 2) and link in _AIX_LINKS:
        padding = _AIX_PADDING if link == _AIX_FDDI else 0
        return PcapHeader(order, 1000, 16, _AIX_LINKS[link], _ALWAYS, padding, size)
    swap = _NEVER
    if (major == 2 and minor < 3) or major == 543:
        swap = _ALWAYS
    elif (major, minor) == (2, 3):
        swap = _WHEN_LONGER
    record = _RECORDS.get(magic, (16,))[0]
    if (major, minor) == (2, 4):
        fitting = [r for r in _RECORDS.get(magic, ()) if _fits(head[size:], order, r)]
        record = fitting[0] if fitting else record
    divisor = 1000 if magic in (_NANO, _IXIA_NANO) else 1
    return PcapHeader(order, divisor, record, link, swap, 0, size)


def _fits(data: bytes, order: str, record: int) -> bool:
    """Returns whether the first records make sense with headers of that many bytes."""
    at = 0
    for number in range(_PROBED):
        header = data[at : at + record]
        if len(header) < record:
            # A file that ends here, and not inside a header, ends well.
            return number > 0 and not header
        _, fraction, captured, wire = struct.unpack(order + "4I", header[:16])
        if fraction >= 1_000_000 or captured > min(wire, LONGEST):
            return False
        if record == 20:
            # What all of Nokia's have in common; other programs write zeros.
            common = struct.unpack(order + "I", header[16:])[0] & 0x0FFF00F0
            fits = common in (0x0FBF0000, 0)
        else:
            # An interface's number, an Ethernet type, and whom the packet was for.
            interface, _, target = struct.unpack(order + "IHB", header[16:].ljust(7, b"\0")[:7])
            fits = interface <= 10_000 and target <= 4
        if not fits:
            return False
        at += record + captured
    return True


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
        swap = state[_SWAP]
        if swap == _ALWAYS or (swap == _WHEN_LONGER and captured > wire):
            captured, wire = wire, captured
        if captured > LONGEST:
            return n, position, CORRUPT
        if end - position - header < captured:
            return n, position, NEED_BYTES
        padding = min(state[_PADDING], captured)
        frames.address[n] = at + _u(header + padding)
        frames.captured[n] = captured - padding
        frames.wire[n] = max(wire, captured) - padding
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
    walk = staticmethod(_walk)
    meter = staticmethod(_meter)

    def __init__(self, state: I64) -> None:
        self.state = state

    def control(self, data: memoryview) -> tuple[int, int]:
        raise AssertionError("classic pcap has no control blocks")


class PcapReader(CaptureReader):
    """Reads classic pcap."""

    name = "pcap"
    about = "classic pcap: both byte orders, micro- and nanoseconds, modified and old headers"

    def recognises(self, head: bytes, session: Session | None) -> bool:
        """Returns whether the file starts with one of pcap's magic numbers."""
        return head[:4] in _MAGICS

    def starts(self, head: bytes) -> int | None:
        """Returns the time of the first packet that has one."""
        header = read_header(head)
        first = head[header.size : header.size + 8]
        if len(first) < 8:
            return None
        seconds, fraction = struct.unpack(header.order + "II", first)
        return int(seconds * 1_000_000 + fraction // header.divisor)

    def walker(self, stream: io.BufferedReader, tally: Tally) -> Walker:
        """Reads the header and returns what finds the packets behind it.

        Raises:
            SourceError: The file ends inside its header.
        """
        header = read_header(stream.peek(HEAD)[:HEAD])
        stream.read(header.size)
        tally.linktypes.add(link_name(header.link))
        words = (header.divisor, header.record, header.link, header.swap, header.padding)
        return _PcapWalker(np.array([header.order == ">", *words], np.int64))


READER = PcapReader()
