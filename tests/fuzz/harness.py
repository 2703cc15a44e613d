"""Reads any bytes as an ingest does, and says what must hold whatever they are.

A source is refused by one sentence, or gives records and counts that add up; nothing else may
come of it. What compiled code reads lies at the end of a page behind which reading is a crash.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import resource
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from telemetry.columns import Layer, schema
from telemetry.errors import SourceError
from telemetry.homeland import IN_OUT, OUT_IN, OUT_OUT, Border, load
from telemetry.lake.merge import merge_segments
from telemetry.privacy import Gate, Keys
from telemetry.raw import RawBatch
from telemetry.readers import Place, Session, find_reader, open_source, places
from telemetry.readers.exports import carriers
from telemetry.readers.packets import capture
from telemetry.reasons import DROPS
from telemetry.records import Tally

MOST_MEMORY = 1 << 20
"""KiB by which one source may enlarge the process: what xz may take, several times."""
LABELS = {reason.label for reason in DROPS}
SENTENCE = re.compile(r"[A-Za-z`][ -~]{5,200}\.")
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f]*:[0-9a-f:]+")
_frombuffer = np.frombuffer


class Given(NamedTuple):
    """How a source is read: the fields of `Session` by the same names."""

    captures: Literal["auto", "traffic", "exports"] = "auto"
    mapping: Path | None = None
    decoder: Literal["kernel", "dpkt"] = "kernel"


class Found(NamedTuple):
    """What came of a source: the reader's name, rows and counts; or why it was refused."""

    reader: str
    table: pa.Table
    tally: Tally
    refusal: str = ""


@cache
def border() -> Border:
    return Border(load("JP", ()), OUT_IN | IN_OUT | OUT_OUT)


@cache
def _gate() -> Gate:
    return Gate(border(), Keys(bytes(range(32))), "link")


def check(data: bytes, given: Given) -> list[Found]:
    """Reads bytes on guarded memory, and asserts what must hold of every source in them.

    Captures are read by the reference decoder too, which must find the same.

    Args:
        data: A whole file.
        given: How it is read.

    Returns:
        What was found in each source: one, or the members of an archive.
    """
    before = _memory()
    with tempfile.NamedTemporaryFile() as file, guarded_memory(data):
        file.write(data)
        file.flush()
        found = [_read(place, given) for place in places(file.name)]
        for place, kernel in zip(places(file.name), found, strict=True):
            if kernel.reader in ("pcap", "pcapng", "snoop"):
                _assert_same(kernel, _read(place, given._replace(decoder="dpkt")))
    assert _memory() - before < MOST_MEMORY, "too much memory"
    return found


def _memory() -> int:
    """Returns the most memory held so far, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _read(place: Place, given: Given) -> Found:
    tally = Tally()
    empty = schema(Layer.RECORD).empty_table()
    session = Session(border(), given.decoder, given.captures, given.mapping)
    handed_over = dropped = 0
    tables = [empty]
    try:
        source = open_source(place)
    except SourceError as error:
        return _refused(empty, tally, error)
    try:
        reader = find_reader(source, session)
        for batch in reader.read(source, session, tally):
            batch.check()
            before = sum(tally.dropped.values())
            tables.append(_gate().admit(batch, tally, reader.gated))
            dropped += sum(tally.dropped.values()) - before
            handed_over += _packets(batch) if reader.gated else len(batch)
        source.finish()
    except SourceError as error:
        return _refused(empty, tally, error)
    finally:
        source.close()
    assert set(tally.dropped) <= LABELS, tally
    assert min([*tally.dropped.values(), tally.kept, tally.packets]) >= 0, tally
    # What the reader itself did not drop it has handed over; the gate dropped the rest.
    assert handed_over == tally.kept + dropped, (handed_over, dropped, tally)
    if tally.damage is not None:
        _assert_blank(tally.damage)
    table = pa.concat_tables(tables)
    if not reader.gated:
        assert len(table) == tally.kept, (len(table), tally)
    return Found(reader.name, table, tally)


def _refused(empty: pa.Table, tally: Tally, error: SourceError) -> Found:
    assert SENTENCE.fullmatch(str(error)), str(error)
    _assert_blank(str(error))
    return Found("", empty, tally, str(error))


def _assert_blank(text: str) -> None:
    """Asserts that a text says nothing of a source's content."""
    assert text.isprintable() and not ADDRESS.search(text), text


def _packets(batch: RawBatch) -> int:
    return int(batch.a.packets.sum() + batch.b.packets.sum())


def _assert_same(kernel: Found, reference: Found) -> None:
    assert kernel.tally == reference.tally, (kernel.tally, reference.tally)
    assert kernel.refusal == reference.refusal
    same = merge_segments(kernel.table).equals(merge_segments(reference.table))
    assert same, (kernel.table.to_pylist(), reference.table.to_pylist())


# Memory that ends where the bytes end


def guarded(data: Any) -> np.ndarray:
    """Returns a copy of bytes, uint8, behind whose end reading is a crash."""
    view = memoryview(data).cast("B")
    size = -(-len(view) // mmap.PAGESIZE) * mmap.PAGESIZE
    region = mmap.mmap(-1, size + mmap.PAGESIZE)
    whole = _frombuffer(region, np.uint8)
    _forbid(whole.ctypes.data + size)
    ours = whole[size - len(view) : size]
    ours[:] = _frombuffer(view, np.uint8) if len(view) else ()
    ours.flags.writeable = not view.readonly
    return ours


def _forbid(address: int) -> None:
    done = ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, 0)
    assert done == 0


@contextmanager
def guarded_memory(data: bytes) -> Iterator[None]:
    """Gives compiled code guarded memory only, and each record of a capture when it is whole.

    Args:
        data: The source; of a plain capture each record comes to lie at the end of its page.
    """
    sizes = list(record_sizes(data))
    taken: dict[int, tuple[Any, Iterator[int]]] = {}  # the stream too, so that its id is its own

    def refill(
        stream: Any, buffer: np.ndarray, start: int, end: int
    ) -> tuple[np.ndarray, int, int, bool]:
        _, left = taken.setdefault(id(stream), (stream, iter(sizes)))
        more = stream.read(next(left, 1 << 20))
        rest = guarded(buffer[start:end].tobytes() + more)
        rest.flags.writeable = True
        return rest, 0, len(rest), not more

    def frombuffer(buffer: Any, dtype: Any = float, *args: Any, **options: Any) -> Any:
        plain = dtype is np.uint8 and not args and not options
        return (
            guarded(buffer)
            if plain and len(buffer)
            else _frombuffer(buffer, dtype, *args, **options)
        )

    with (
        patch.object(capture, "refill", refill),
        patch.object(carriers, "refill", refill),
        patch.object(np, "frombuffer", frombuffer),
    ):
        yield


def record_sizes(data: bytes) -> Iterator[int]:
    """Yields the bytes of each record of a classic pcap or block of pcapng; else nothing."""
    big = data[:4] in (b"\xa1\xb2\xc3\xd4", b"\xa1\xb2\x3c\x4d")
    order, at = ">" if big else "<", 0
    if data[:4] == b"\x0a\x0d\x0d\x0a":
        order = ">" if data[8:12] == b"\x1a\x2b\x3c\x4d" else "<"
        while at + 8 <= len(data):
            size = struct.unpack_from(order + "I", data, at + 4)[0]
            yield max(size, 12)
            at += max(size, 12)
    elif big or data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        at = 24
        while at + 16 <= len(data):
            size = 16 + struct.unpack_from(order + "I", data, at + 8)[0]
            yield size
            at += size
