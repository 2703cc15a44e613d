"""Drives the kernels over a capture: bytes in, batches of segments out.

What formats of captures share: a buffer that is refilled from the stream, a walker
that finds the next packets in it, and the loop that decodes and meters them.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import njit

from telemetry.homeland import Border
from telemetry.loads import put
from telemetry.raw import I64, RawBatch
from telemetry.readers.ahead import ahead
from telemetry.readers.contract import Session
from telemetry.readers.packets.decode import TIME, decode
from telemetry.readers.packets.meter import (
    BATCH,
    FlowTable,
    meter,
    packet_of,
    prefetch_row,
    prefetch_slot,
)
from telemetry.readers.source import Source
from telemetry.reasons import Reason
from telemetry.records import Tally

MORE, NEED_BYTES, CONTROL, CORRUPT, TABLE_FULL = range(5)
"""What a walker or the kernel stopped at."""
LONGEST = 1 << 26
"""Bytes of the longest packet record or block that is believed; a longer one is corruption."""
LAST_TIME = 253_402_300_800 * 1_000_000
"""The year 10000, in microseconds since 1970."""
CORRUPT_FROM_HERE = "the capture is corrupt from some point on; the part before it was read"
CUT_SHORT = "the capture ends inside a packet; the packets before it were read"

_BUFFER = 1 << 23
_KEPT = int(Reason.KEPT)
_BAD_TIME = int(Reason.BAD_TIME)


class Frames(NamedTuple):
    """Packets found by a walker: scratch arrays of BATCH entries.

    Attributes:
        address: Memory address of the frame.
        captured: Bytes captured.
        wire: Bytes on the wire.
        link: LINKTYPE_ number, or -1 when the file does not say.
        time: Microseconds since 1970; below 0 when out of range.
    """

    address: np.ndarray
    captured: I64
    wire: I64
    link: I64
    time: I64

    @classmethod
    def empty(cls) -> Frames:
        """Returns arrays for a walker to fill."""
        return cls(np.empty(BATCH, np.uint64), *(np.empty(BATCH, np.int64) for _ in range(4)))


class Walker(Protocol):
    """Finds packets in a buffer; one for each capture format.

    Attributes:
        walk: Compiled: (state, address, position, end, frames) -> (frames found, new position,
            status); finds up to BATCH.
        meter: Compiled loop (state, address, position, end, frames, flows, tables,
            allowed, counts) -> (new position, status) around `walk` and `meter_frames`.
        state: What the loop knows of the file.
    """

    walk: Any
    meter: Any
    state: I64

    def control(self, data: memoryview) -> tuple[int, int]:
        """Reads the rare thing at which `meter` stopped with CONTROL.

        Args:
            data: What is in the buffer from there on.

        Returns:
            (bytes taken, status): MORE, NEED_BYTES or CORRUPT.
        """
        ...


class CaptureReader(ABC):
    """The reader of a format of captures; see `contract.Reader` and `contract.Dated`."""

    gated = True

    @abstractmethod
    def recognises(self, head: bytes, session: Session | None) -> bool:
        """Returns whether a source's first bytes are of this format, whatever the session."""

    @abstractmethod
    def starts(self, head: bytes) -> int | None:
        """Returns the time of the first packet that has one."""

    @abstractmethod
    def walker(self, stream: io.BufferedReader, tally: Tally) -> Walker:
        """Reads the file's header, if it has one, and returns what finds the packets behind it.

        Raises:
            SourceError: The header cannot be read.
        """

    def read(self, source: Source, session: Session, tally: Tally) -> Iterator[RawBatch]:
        """Yields the capture's records."""
        stream = source.stream()
        walker, table = self.walker(stream, tally), FlowTable(session.flows)
        found = read_frames(stream, walker, table, session.border, tally)
        if source.is_large:
            with closing(ahead(found)) as batches:
                yield from batches
        else:
            yield from (batch for batch in found if batch is not None)
        tally.damage = source.damage or tally.damage


@njit(cache=True, nogil=True)
def meter_frames(frames, n, flows, tables, allowed, counts):
    """Decodes the first `n` frames, counts them by reason and meters those that are kept.

    Args:
        frames: As a walker filled them.
        n: At most BATCH.
        flows: Flow table with room for a batch.
        tables: Homeland look-up tables.
        allowed: Bit mask of allowed directions.
        counts: Packets by `Reason`, added to.
    """
    kept = 0
    for i in range(n):
        packet = packet_of(flows, kept)
        reason = _BAD_TIME
        if frames.time[i] >= 0:
            reason = decode(
                frames.address[i],
                frames.captured[i],
                frames.wire[i],
                frames.link[i],
                frames.time[i],
                tables,
                allowed,
                flows.seeds,
                flows.fragments,
                packet,
            )
        counts[reason] += 1
        if reason == _KEPT:
            put(packet, TIME, np.uint64(frames.time[i]))
            prefetch_slot(flows, packet)
            kept += 1
    for i in range(kept):
        prefetch_row(flows, packet_of(flows, i))
    for i in range(kept):
        meter(flows, packet_of(flows, i))


def read_frames(
    stream: io.BufferedReader, walker: Walker, table: FlowTable, border: Border, tally: Tally
) -> Iterator[RawBatch | None]:
    """Yields the records of a capture, and None each time that it has used up its buffer.

    Args:
        stream: Decompressed bytes, from the first packet or block on.
        walker: Of the capture's format.
        table: Empty; it is emptied out whenever it is full.
        border: Applied to every packet before it reaches the flow table.
        tally: Counts packets; final when the iterator is exhausted.
    """
    buffer = np.empty(_BUFFER, np.uint8)
    start = end = 0
    frames = Frames.empty()
    counts = np.zeros(len(Reason), np.int64)
    at_end = False
    while True:
        start, status = walker.meter(
            walker.state,
            np.uint64(buffer.ctypes.data),
            start,
            end,
            frames,
            table.flows,
            border.homeland.tables,
            border.allowed,
            counts,
        )
        if status == CONTROL:
            taken, status = walker.control(buffer[start:end].data)
            start += taken
        if status == TABLE_FULL:
            yield from table.drain()
        elif status == CORRUPT:
            tally.damage = CORRUPT_FROM_HERE
            break
        elif status == NEED_BYTES:
            if at_end:
                break
            yield None
            buffer, start, end, at_end = refill(stream, buffer, start, end)
    if start < end and tally.damage is None:
        tally.damage = CUT_SHORT
    count(counts, tally)
    yield from table.drain()


def refill(
    stream: io.BufferedReader, buffer: np.ndarray, start: int, end: int
) -> tuple[np.ndarray, int, int, bool]:
    """Moves the rest to the front and reads on; grows a buffer that is too small for one record."""
    rest = end - start
    if rest > len(buffer) // 2 and len(buffer) < 4 * LONGEST:
        larger = np.empty(2 * len(buffer), np.uint8)
        larger[:rest] = buffer[start:end]
        buffer = larger
    else:
        buffer[:rest] = buffer[start:end].copy()
    n = stream.readinto(buffer[rest:].data)
    return buffer, 0, rest + n, n == 0


def count(counts: I64, tally: Tally) -> None:
    """Adds items counted by `Reason`, in the order of its numbers, to a tally."""
    tally.read += int(counts.sum())
    for reason in Reason:
        if reason is not Reason.KEPT and counts[reason]:
            tally.dropped[reason.label] += int(counts[reason])
