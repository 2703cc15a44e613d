"""What the page is drawn from; the caller gathers it, the page adds nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from telemetry.records import ScoredEndpoint, Status


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts in one unit, packets or records.

    Attributes:
        read: Items found.
        kept: Items that passed the gate.
        dropped: Items not kept, by the label of their reason.
    """

    read: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def balances(self) -> bool:
        """Whether every item read is accounted for."""
        return self.read == self.kept + sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source; it has no name here, since names leak.

    Attributes:
        sha256: Content hash in hex, None if it could not be read. The page shows its start.
        format: Name of the format, None if it was not recognised.
        status: What became of the source.
        packets_read: Packets found, 0 for logs.
        records_read: Log records found, 0 for captures.
        kept: Items that passed the gate.
        dropped: Items that did not.
        records_written: Records that went to the lake.
    """

    sha256: str | None
    format: str | None
    status: Status
    packets_read: int
    records_read: int
    kept: int
    dropped: int
    records_written: int


@dataclass(frozen=True, slots=True)
class Hour:
    """Records of one hour.

    Attributes:
        start: Start of the hour, naive UTC.
        records: All records that began in it.
        listed: Those of listed endpoints.
    """

    start: datetime
    records: int
    listed: int


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """Everything on the page.

    Attributes:
        run: Id of the run.
        authority: Id of the authority.
        made_at: When the page was made, naive UTC.
        period: First and last time seen in the lake, naive UTC; None when it is empty.
        sources: The sources that the counts are about.
        packets: Totals over the captures among them.
        records: Totals over the logs among them.
        n_records: Records in the lake.
        n_endpoints: Foreign endpoints scored.
        endpoints: All scored endpoints, or at least the listed ones and the highest 50.
        timeline: Hours that have records, in any order.
        left_out: Listed endpoints that the list leaves out, as they were last seen long ago.
    """

    run: str
    authority: str
    made_at: datetime
    period: tuple[datetime, datetime] | None
    sources: Sequence[SourceFacts]
    packets: Totals
    records: Totals
    n_records: int
    n_endpoints: int
    endpoints: Sequence[ScoredEndpoint]
    timeline: Sequence[Hour]
    left_out: int = 0
