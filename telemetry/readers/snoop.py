"""snoop, as Solaris writes it, and Shomiti's and Finisar's Surveyor.

Format: RFC 1761. Surveyor puts a trailer of 16 bytes or more behind each packet, and counts its
link types otherwise from 10 on.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import io
import struct
from typing import NamedTuple

import numpy as np
from numba import njit

from telemetry.errors import SourceError
from telemetry.loads import be32
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
from telemetry.readers.packets.link import LINKS
from telemetry.readers.packets.meter import BATCH, has_room
from telemetry.readers.source import HEAD
from telemetry.records import Tally

_MAGIC = b"snoop\0\0\0"
_HEADER = 16
_RECORD = 24
_VERSIONS = range(2, 6)
_TRAILER = 16
# From numbers of the Data Link Provider Interface to LINKTYPE_ numbers.
_LINKS = {0: 1, 2: 6, 4: 1, 8: 10, 9: 0, 14: 0, 16: 122, 18: 123, 0x80000005: 226}
_SURVEYOR_LINKS = {0: 1, 2: 6, 4: 1, 8: 10, 10: 1, 11: 6, 12: 1, 13: 6, 14: 6, 19: 1}
_u = np.uint64


class SnoopHeader(NamedTuple):
    """What the head of a snoop file tells of its packets.

    Attributes:
        link: LINKTYPE_ number, or -1 where there is none.
        name: Of the link type, for reports.
    """

    link: int
    name: str


def read_header(head: bytes) -> SnoopHeader:
    """Reads a snoop file's header, and the first record's, by which Surveyor's are told.

    Args:
        head: The file's first bytes.

    Raises:
        SourceError: The header is not all there, or of an unknown version.
    """
    if len(head) < _HEADER:
        raise SourceError("The snoop file ends inside its header; there is nothing to read.")
    version, number = struct.unpack(">II", head[8:_HEADER])
    if version not in _VERSIONS:
        raise SourceError("It is a snoop capture of a version that is not read.")
    links = _LINKS
    first = head[_HEADER : _HEADER + 12]
    if len(first) == 12:
        _, captured, size = struct.unpack(">III", first)
        if size - captured - _RECORD >= _TRAILER:
            links = _SURVEYOR_LINKS
    link = links.get(number, -1)
    return SnoopHeader(link, LINKS[link].name if link in LINKS else f"snoop_{number}")


@njit(cache=True, nogil=True)
def _walk(state, address, position, end, frames):
    """Finds up to BATCH packets; see `capture.Walker`."""
    n = 0
    while n < BATCH:
        if end - position < _RECORD:
            return n, position, NEED_BYTES
        at = address + _u(position)
        wire, captured, size = be32(at), be32(at + _u(4)), be32(at + _u(8))
        if size > LONGEST or size < _RECORD + captured:
            return n, position, CORRUPT
        if end - position < size:
            return n, position, NEED_BYTES
        frames.address[n] = at + _u(_RECORD)
        frames.captured[n] = captured
        frames.wire[n] = max(wire, captured)
        frames.link[n] = state[0]
        frames.time[n] = be32(at + _u(16)) * 1_000_000 + be32(at + _u(20))
        n += 1
        position += size
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


class _SnoopWalker:
    walk = staticmethod(_walk)
    meter = staticmethod(_meter)

    def __init__(self, state: I64) -> None:
        self.state = state

    def control(self, data: memoryview) -> tuple[int, int]:
        raise AssertionError("snoop has no control blocks")


class SnoopReader(CaptureReader):
    """Reads snoop captures."""

    name = "snoop"
    about = "snoop of Solaris (RFC 1761), and Surveyor's variant"

    def recognises(self, head: bytes, session: Session | None) -> bool:
        """Returns whether the file starts with snoop's magic number."""
        return head.startswith(_MAGIC)

    def starts(self, head: bytes) -> int | None:
        """Returns the time of the first packet that has one."""
        first = head[_HEADER + 16 : _HEADER + _RECORD]
        if len(first) < 8:
            return None
        seconds, micro = struct.unpack(">II", first)
        return int(seconds * 1_000_000 + micro)

    def walker(self, stream: io.BufferedReader, tally: Tally) -> Walker:
        """Reads the header and returns what finds the packets behind it.

        Raises:
            SourceError: The header is not all there, or of an unknown version.
        """
        header = read_header(stream.peek(HEAD)[:HEAD])
        stream.read(_HEADER)
        tally.linktypes.add(header.name)
        return _SnoopWalker(np.array([header.link], np.int64))


READER = SnoopReader()
