"""What readers of tables of records share: a reader says what it recognises, and its batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from telemetry.errors import SourceError
from telemetry.raw import RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.records import earliest
from telemetry.readers.source import Source
from telemetry.reasons import Reason
from telemetry.records import Tally

_UNREADABLE = (
    "None of its rows can be read; each needs both addresses, both ports, the protocol and a "
    "time, as the format usually spells them, so export it anew."
)


class RowsReader(ABC):
    """The reader of a format of records; see `contract.Reader` and `contract.Dated`."""

    gated = False

    @abstractmethod
    def batches(self, head: bytes, stream: IO[bytes], tally: Tally) -> Iterator[RawBatch]:
        """Yields the records of a stream.

        Args:
            head: Its first bytes, which the reader recognises.
            stream: All of its bytes.
            tally: Counts what is found.

        Raises:
            SourceError: It cannot be read as this format at all.
        """

    def read(self, source: Source, session: Session, tally: Tally) -> Iterator[RawBatch]:
        """Yields the source's records."""
        tally.unit = "records"
        yield from self.batches(source.head, source.stream(), tally)
        finish(source, tally)

    def starts(self, head: bytes) -> int | None:
        """Returns the time of the first records."""
        return earliest(self.batches(head, BytesIO(head), Tally()))


def finish(source: Source, tally: Tally, unreadable: str = _UNREADABLE) -> None:
    """Ends the reading of rows; every reader of them calls it last.

    Args:
        source: The input, read to its end.
        tally: What was counted; damage is noted there.
        unreadable: Says what to do with a source that has rows and none that can be read.

    Raises:
        SourceError: It is such a source.
    """
    unread = tally.dropped[Reason.MALFORMED_ROW.label] + tally.dropped[Reason.NO_ADDRESS.label]
    if unread and unread == tally.read - tally.dropped[Reason.NOT_IP.label]:
        raise SourceError(unreadable)
    tally.damage = source.damage or tally.damage
