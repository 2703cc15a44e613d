"""What a reader is: bytes of one format in, raw batches and counts out.

A reader is one module with one object that follows `Reader`, entered in the
ordered list of `telemetry.readers`. It

* recognises its format by content, from the first bytes after decompression;
* yields `RawBatch`es in bounded memory, whatever the size of the source;
* counts every item it finds in `tally.read`, and every item it does not hand
  over in `tally.dropped`, by the labels of `telemetry.reasons`;
* raises `SourceError` when the source as a whole cannot be read, and states in
  `tally.damage` when only its tail is lost;
* never copies payload, names or labels into a batch, an error or a count.

Most need not write `read`: formats of captures are `packets.capture.CaptureReader`s, tables of
records `rows.reader.RowsReader`s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from telemetry.homeland import Border
from telemetry.raw import RawBatch
from telemetry.readers.source import Source
from telemetry.records import Tally


@dataclass(slots=True)
class Session:
    """What the readings of one run share.

    Attributes:
        border: Which addresses are foreign and which directions are allowed; only readers of
            packets use it.
        decoder: `dpkt` takes the slow reference decoder for captures.
        captures: Whether captures hold `traffic`, or `exports`: flow records on their way
            from an exporter. `auto` lets each capture tell.
        mapping: File that says which column of a table means what; None reads none.
        flows: Flows that are metered at once, a power of two; more are emptied out in between.
        carried: What a reader keeps from one source for the next, by its name, such as the
            templates of an exporter. It holds no address of a record.
    """

    border: Border
    decoder: Literal["kernel", "dpkt"] = "kernel"
    captures: Literal["auto", "traffic", "exports"] = "auto"
    mapping: Path | None = None
    flows: int = 1 << 19
    carried: dict[str, Any] = field(default_factory=dict)


class Reader(Protocol):
    """One format."""

    name: str
    """Name in reports, such as `pcapng`."""
    about: str
    """What it reads, in one line, for people."""
    gated: bool
    """Whether batches have passed the border already, packet by packet."""

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether the source's first bytes are of this format."""
        ...

    def read(self, source: Source, session: Session, tally: Tally) -> Iterator[RawBatch]:
        """Yields the source's records and counts what it meets.

        Args:
            source: The input, decompressed on the way.
            session: What the readings of this run share.
            tally: Counts, final when the iterator is exhausted.

        Raises:
            SourceError: The source cannot be read as this format at all.
        """
        ...


@runtime_checkable
class Dated(Protocol):
    """A reader that can tell when a source begins, so that a folder is read in time order."""

    def starts(self, head: bytes) -> int | None:
        """Returns the time of the first packet or record.

        Args:
            head: First bytes of a source that the reader recognises.

        Returns:
            Microseconds since 1970, or None when the head does not tell.

        Raises:
            SourceError: The source cannot be read as this format at all.
        """
        ...
