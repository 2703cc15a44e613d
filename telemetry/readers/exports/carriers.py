"""What carries export messages: captures of UDP datagrams, and files of nothing but messages.

Files are raw datagrams one after another, or IPFIX files (RFC 5655), which are the same.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numba import njit

from telemetry.errors import SourceError
from telemetry.loads import be16, be32, be64, u8
from telemetry.readers import pcap, pcapng, snoop
from telemetry.readers.exports.messages import (
    IPFIX,
    NEED_MORE,
    NO_EXPORT,
    NO_MESSAGE,
    Datagrams,
    extent,
    is_whole,
    kind_of,
)
from telemetry.readers.packets.capture import (
    CONTROL,
    CORRUPT,
    CORRUPT_FROM_HERE,
    CUT_SHORT,
    MORE,
    NEED_BYTES,
    CaptureReader,
    Frames,
    Walker,
    refill,
)
from telemetry.readers.packets.headers import link_payload
from telemetry.readers.packets.meter import BATCH
from telemetry.records import Tally

NO_MESSAGE_FROM_HERE = "no export message stands from some point on; those before it were read"
_BUFFER = 1 << 22
_UDP = 17
_V4_PREFIX = np.uint64(0xFFFF00000000)
_u = np.uint64


_CAPTURES: tuple[CaptureReader, ...] = (pcap.READER, pcapng.READER, snoop.READER)


@njit(cache=True, nogil=True)
def _udp_at(base, captured, offset, version):
    """Finds a UDP header behind an IP header; fragments have none that is of use.

    Returns:
        Its offset, or 0.
    """
    if version == 4:
        if captured < offset + 20 or be16(base + _u(offset + 6)) & 0x3FFF:
            return 0
        size = (u8(base + _u(offset)) & 15) * 4
        udp = u8(base + _u(offset + 9)) == _UDP and size >= 20
        return offset + size if udp else 0
    if version != 6 or captured < offset + 40:
        return 0
    following = u8(base + _u(offset + 6))
    offset += 40
    while following == 0 or following == 60:  # hop-by-hop and destination options
        if captured < offset + 8:
            return 0
        following = u8(base + _u(offset))
        offset += (u8(base + _u(offset + 1)) + 1) * 8
    return offset if following == _UDP else 0


@njit(cache=True, nogil=True)
def _unwrap(frames, n, datagrams):
    """Finds the export messages in the first `n` frames, one entry for each frame."""
    for i in range(n):
        datagrams.kind[i] = NO_EXPORT
        base, captured = frames.address[i], frames.captured[i]
        offset, version = link_payload(base, captured, frames.link[i])
        if version < 0 or captured <= offset:
            continue
        version = u8(base + _u(offset)) >> 4
        at = _udp_at(base, captured, offset, version)
        if at == 0 or captured < at + 8:
            continue
        size = be16(base + _u(at + 4)) - 8
        present = min(captured - at - 8, size)
        message = base + _u(at + 8)
        datagrams.kind[i] = kind_of(message, present, size)
        datagrams.address[i] = message
        datagrams.captured[i] = present
        datagrams.size[i] = size
        datagrams.time[i] = frames.time[i]
        datagrams.port[i] = be16(base + _u(at))
        if version == 4:
            datagrams.hi[i] = _u(0)
            datagrams.lo[i] = _V4_PREFIX | _u(be32(base + _u(offset + 12)))
        else:
            datagrams.hi[i] = be64(base + _u(offset + 8))
            datagrams.lo[i] = be64(base + _u(offset + 16))


@njit(cache=True, nogil=True)
def _count_whole(datagrams, n):
    """Counts the datagrams that are whole and valid export messages."""
    found = 0
    for i in range(n):
        if datagrams.kind[i] != NO_EXPORT and datagrams.captured[i] == datagrams.size[i]:
            found += is_whole(datagrams.address[i], datagrams.size[i])
    return found


@njit(cache=True, nogil=True)
def _split(address, position, end, at_end, datagrams):
    """Finds up to BATCH messages that stand one after another.

    Returns:
        (messages, new position, NEED_BYTES, CORRUPT or MORE).
    """
    n = 0
    while n < BATCH:
        if position == end:
            return n, position, NEED_BYTES
        base = address + _u(position)
        size = extent(base, end - position, at_end)
        if size == NEED_MORE:
            return n, position, NEED_BYTES
        if size == NO_MESSAGE:
            return n, position, CORRUPT
        present = min(size, end - position)
        datagrams.kind[n] = kind_of(base, present, size)
        datagrams.address[n] = base
        datagrams.captured[n] = present
        datagrams.size[n] = size
        datagrams.time[n] = -1
        n += 1
        position += present
    return n, position, MORE


def capture_of(head: bytes) -> CaptureReader | None:
    """Returns the reader of the capture that begins so, None if it is none."""
    return next((reader for reader in _CAPTURES if reader.recognises(head, None)), None)


def datagrams_in_capture(
    stream: io.BufferedReader, walker: Walker, tally: Tally
) -> Iterator[tuple[Datagrams, int]]:
    """Yields the messages of a capture: arrays that are used again, and how many are filled.

    Packets that carry no message are among them, as NO_EXPORT.

    Args:
        stream: Decompressed bytes, from the first packet or block on.
        walker: Of the capture's format.
        tally: Counts packets, and keeps damage.
    """
    buffer, start, end, at_end = np.empty(_BUFFER, np.uint8), 0, 0, False
    frames, datagrams = Frames.empty(), Datagrams.empty(BATCH)
    while True:
        address = np.uint64(buffer.ctypes.data)
        n, start, status = walker.walk(walker.state, address, start, end, frames)
        if n:
            tally.packets += n
            _unwrap(frames, n, datagrams)
            yield datagrams, n
        if status == CONTROL:
            taken, status = walker.control(buffer[start:end].data)
            start += taken
        if status == CORRUPT:
            tally.damage = CORRUPT_FROM_HERE
            return
        if status == NEED_BYTES:
            if at_end:
                break
            buffer, start, end, at_end = refill(stream, buffer, start, end)
    if start < end:
        tally.damage = CUT_SHORT


def datagrams_in_file(stream: io.BufferedReader, tally: Tally) -> Iterator[tuple[Datagrams, int]]:
    """Yields the messages of a file of messages, as `datagrams_in_capture` does."""
    buffer, start, end, at_end = np.empty(_BUFFER, np.uint8), 0, 0, False
    datagrams = Datagrams.empty(BATCH)
    while True:
        address = np.uint64(buffer.ctypes.data)
        n, start, status = _split(address, start, end, at_end, datagrams)
        if n:
            tally.packets += n
            yield datagrams, n
        if status == CORRUPT:
            tally.damage = NO_MESSAGE_FROM_HERE
            return
        if status == NEED_BYTES:
            if at_end:
                return
            buffer, start, end, at_end = refill(stream, buffer, start, end)


def carries_exports(head: bytes, reader: CaptureReader) -> bool:
    """Returns whether at least half of the packets at the head of a capture are exports."""
    stream: io.BufferedReader = io.BufferedReader(io.BytesIO(head), len(head))
    exports, judged = 0, Tally()
    try:
        walker = reader.walker(stream, judged)
        for datagrams, n in datagrams_in_capture(stream, walker, judged):
            exports += _count_whole(datagrams, n)
    except SourceError:
        return False
    return 0 < judged.packets <= 2 * exports


def holds_messages(head: bytes, whole: bool) -> bool:
    """Returns whether a file begins with export messages and goes on so.

    Args:
        head: First bytes.
        whole: Whether they are all there are.
    """
    data = np.frombuffer(head, np.uint8)
    address, datagrams = np.uint64(data.ctypes.data), Datagrams.empty(BATCH)
    n, _, status = _split(address, 0, len(data), whole, datagrams)
    if n == 0 or not is_whole(datagrams.address[0], datagrams.captured[0]):
        return False
    # The formats without structure must be right to the end; a few bytes could be by chance.
    return status != CORRUPT or int(_count_whole(datagrams, n)) > 1


def exported_at(head: bytes) -> int | None:
    """Returns when the first message of a file was exported, in microseconds since 1970."""
    kind, second = int.from_bytes(head[:2]), 4 if head[1] == IPFIX else 8
    return None if kind == 0 else int.from_bytes(head[second : second + 4]) * 1_000_000
