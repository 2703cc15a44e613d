"""What a list format is: the seam behind which each export lives.

A new format is one module with a class of this shape, one line in
`telemetry.lists.FORMATS` and one golden file under `tests/lists/golden/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TextIO

from telemetry.records import ScoredEndpoint


@dataclass(frozen=True, slots=True)
class ListHeader:
    """What is said once about a whole list.

    Attributes:
        run: Id of the run that wrote the list.
        made_at: Newest `last_seen` in the data that is not in the future, naive UTC, so
            that equal data gives equal bytes; None when there is none.
        authority: Id of the authority under which the records were kept.
        days: Days an entry stays valid after it was last seen.
        expired: Entries left out because they were valid no longer at `made_at`; counted
            when the list is written.
    """

    run: str
    made_at: datetime | None
    authority: str
    days: int
    expired: int = 0


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One listed endpoint.

    Attributes:
        scored: The endpoint with its role, confidence and reasons.
        valid_until: The header's days after `last_seen`, or after `made_at` where a wrong
            clock says it was seen later; naive UTC, never before `made_at`. It may lie in
            the past when the data is old; whether to act on it is the consumer's rule.
    """

    scored: ScoredEndpoint
    valid_until: datetime


class ListFormat(Protocol):
    """One way to write a list.

    Attributes:
        name: Name of the format in settings and in the manifest.
        suffix: End of the file name, with its dot, such as `.csv`.
    """

    @property
    def name(self) -> str:
        """Name of the format in settings and in the manifest."""

    @property
    def suffix(self) -> str:
        """End of the file name, with its dot, such as `.csv`."""

    def write(self, entries: Sequence[ListEntry], header: ListHeader, stream: TextIO) -> None:
        """Writes the list.

        Args:
            entries: What is listed, in order of address; may be empty.
            header: What is said about the whole list.
            stream: UTF-8 text, newlines written as they are. Equal arguments must
                write equal text: no clock, no random number.
        """


def utc(moment: datetime) -> str:
    """Returns a naive UTC time as ISO 8601 with microseconds and a Z."""
    return moment.isoformat(timespec="microseconds") + "Z"


def reasons_text(scored: ScoredEndpoint) -> str:
    """Returns the reasons as one line, in the order of the score."""
    return "; ".join(" ".join(reason.text.split()) for reason in scored.reasons)
