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
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from telemetry.homeland import Border
from telemetry.raw import RawBatch
from telemetry.readers.source import Source
from telemetry.records import Tally


class Reader(Protocol):
    """One format."""

    name: str
    """Name in reports, such as `pcapng`."""
    gated: bool
    """Whether batches have passed the border already, packet by packet."""

    def recognises(self, head: bytes) -> bool:
        """Returns whether the source's first bytes are of this format."""
        ...

    def read(self, source: Source, border: Border, tally: Tally) -> Iterator[RawBatch]:
        """Yields the source's records and counts what it meets.

        Args:
            source: The input, decompressed on the way.
            border: Which addresses are foreign and which directions are allowed;
                only readers of packets use it.
            tally: Counts, final when the iterator is exhausted.

        Raises:
            SourceError: The source cannot be read as this format at all.
        """
        ...
