"""Records inside the lines of another log: one of syslog, or one that a shipper made of them.

Programs that carry logs (Filebeat, Fluentd, Fluent Bit, Logstash, Vector, Kafka's writers,
Splunk, Elasticsearch) put each record into an object of their own, as text or as an object, and
syslog (RFC 3164, RFC 5424) puts a header before it. What stands around a record is not looked at
and never kept. The first lines tell how the others are wrapped.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from telemetry.raw import RawBatch
from telemetry.readers.contract import Dated, Reader, Session
from telemetry.readers.rows.texts import (
    CHUNK,
    Key,
    chunks,
    drop,
    json_object,
    json_value,
)
from telemetry.readers.source import Blocks, Source
from telemetry.reasons import Reason
from telemetry.records import Tally

NAME: Final = "envelope"
ABOUT: Final = "lines of syslog or of a shipper such as Filebeat or Fluentd, with a record in each"
_HOLDERS: Final[tuple[Key, ...]] = (
    *("message", "@message", "_raw", "log", "line", "msg", "event", "conn", "json"),
    *(("result", "_raw"), ("event", "original"), ("_source", "message"), "_source"),
    *(("_source", "event", "original"), "result"),
)
"""Where shippers put a record, as text or as an object."""
_LOOKED_AT: Final = 20
"""Lines that tell how the others are wrapped: the first may hold something else."""
_HEADER: Final = re.compile(rb"[^{}\"]{1,300}?(?=\{)")
"""What stands before an object: times, names of hosts and programs, tabs."""

Unwrap = Callable[[bytes], bytes | None]


class WrappedReader:
    """Reads records of one format out of another log's lines; see `contract.Reader`."""

    gated = False

    def __init__(self, inner: Reader, unwrap: Unwrap) -> None:
        """Takes the reader of the format, and what takes a record out of a line."""
        self.name = inner.name
        self.about = inner.about
        self._inner = inner
        self._unwrap = unwrap

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether the records in the lines are of the format."""
        return self._inner.recognises(_unwrapped(head, self._unwrap), session)

    def read(self, source: Source, session: Session, tally: Tally) -> Iterator[RawBatch]:
        """Yields the records; a line without one is counted."""
        inside = cast(Source, _Inside(source, self._unwrap, tally))
        yield from self._inner.read(inside, session, tally)

    def starts(self, head: bytes) -> int | None:
        """Returns the time of the first records; see `contract.Dated`."""
        inside = _unwrapped(head, self._unwrap)
        return self._inner.starts(inside) if isinstance(self._inner, Dated) else None


def ways_to_unwrap(head: bytes) -> Iterator[tuple[Unwrap, bytes]]:
    """Yields how lines may be unwrapped, by the first of them, and the head unwrapped that way.

    Args:
        head: First bytes of a source, after decompression.
    """
    lines = [line for line in head.splitlines()[:_LOOKED_AT] if line.strip()]
    rows = [row for line in lines if (row := json_object(line)) is not None]
    ways: list[Unwrap] = [
        _from_object(key)
        for key in _HOLDERS
        if any(json_value(row, key) is not None for row in rows)
    ]
    if not rows and any(json_object(_after_header(line) or b"") for line in lines):
        ways.append(_after_header)
    for unwrap in ways:
        if inside := _unwrapped(head, unwrap):
            yield unwrap, inside


def _from_object(key: Key) -> Unwrap:
    def unwrap(line: bytes) -> bytes | None:
        value = json_value(json_object(line), key)
        if isinstance(value, dict):
            return json.dumps(value).encode()
        if isinstance(value, str):
            return value.encode("utf-8", "replace").replace(b"\n", b" ")
        return None

    return unwrap


def _after_header(line: bytes) -> bytes | None:
    found = _HEADER.match(line)
    return line[found.end() :] if found else None


def _unwrapped(lines: bytes, unwrap: Unwrap, tally: Tally | None = None) -> bytes:
    """Returns the records of lines, a line each; those that hold none are counted."""
    inside = [unwrap(line) for line in lines.splitlines() if line.strip()]
    records = [record.strip() for record in inside if record]
    if tally is not None:
        drop(tally, Reason.NOT_A_RECORD, len(inside) - len(records))
    return b"".join(record + b"\n" for record in records)


class _Inside:
    """A source of what another one's lines hold, for the readers of records."""

    def __init__(self, source: Source, unwrap: Unwrap, tally: Tally) -> None:
        self._source = source
        self._unwrap = unwrap
        self._tally: Tally | None = tally
        self.head = _unwrapped(source.head, unwrap)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def stream(self) -> io.BufferedReader[Any]:
        # What is read a second time is not counted again.
        tally, self._tally = self._tally, None
        pieces = chunks(self._source.stream(), tally or Tally())
        found = (_unwrapped(piece, self._unwrap, tally) for piece in pieces)
        return io.BufferedReader(Blocks(piece for piece in found if piece), CHUNK)
