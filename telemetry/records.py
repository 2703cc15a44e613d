"""What passes between rooms besides batches: counts, reports, scored endpoints."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Role = Literal[
    "c2",
    "scanner",
    "bruteforce",
    "ddos",
    "reflector",
    "relay",
    "spam",
    "malware_download",
    "exfiltration",
    "unknown",
]
Direction = Literal["out_in", "in_out", "out_out"]
DIRECTIONS: tuple[Direction, ...] = ("out_in", "in_out", "out_out")
Status = Literal["ingested", "already_ingested", "refused"]


@dataclass(slots=True)
class Tally:
    """Counts of one source while it is read; `read = kept + Σ dropped` always.

    Attributes:
        unit: What is counted: packets for captures, records for the rest.
        read: Items found in the source, unreadable ones included.
        packets: Packets that carried them, of a capture of exports; 0 of other sources.
        dropped: Items not kept, by reason.
        linktypes: Names of the link types met.
        damage: What is wrong with the source as a whole, in one sentence, if anything.
    """

    unit: Literal["packets", "records"] = "packets"
    read: int = 0
    packets: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    linktypes: set[str] = field(default_factory=set)
    damage: str | None = None

    @property
    def kept(self) -> int:
        """Items that passed the gate."""
        return self.read - sum(self.dropped.values())


def printable(name: str) -> str:
    """Returns a file's name without what a terminal might obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What became of one source; `path` is for the caller's eyes, never stored.

    Attributes:
        first_seen: Time of the first packet of what was stored, as text; None without any.
        last_seen: Of the last.
        named: Whether the caller named it, rather than a folder that holds it.
    """

    path: str
    sha256: str | None
    format: str | None
    linktypes: list[str]
    packets_read: int
    records_read: int
    kept: int
    dropped: dict[str, int]
    records_written: int
    status: Status
    error: str | None = None
    first_seen: str | None = None
    last_seen: str | None = None
    named: bool = True


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Answer of `ingest --json`, the id of the authority, and what a new homeland table purged.

    Attributes:
        purged: Stored records erased at the start, because their address is domestic now.
    """

    run: str
    authority: str
    sources: list[SourceReport]
    seconds: float
    purged: int = 0


@dataclass(frozen=True, slots=True)
class Reason:
    """One piece of evidence: its detector, a sentence with its numbers, its share."""

    name: str
    text: str
    contribution: float


@dataclass(frozen=True, slots=True)
class ScoredEndpoint:
    """A foreign address with its score; times are naive UTC.

    `novelty` is None where it was scored before there was any, `novelty_in` also where nobody is
    more usual.
    """

    endpoint: str
    score: float
    role: Role
    listed: bool
    confidence: int
    reasons: list[Reason]
    first_seen: datetime
    last_seen: datetime
    records: int
    novelty: float | None = None
    novelty_in: str | None = None


def endpoint_json(scored: ScoredEndpoint) -> dict[str, Any]:
    """Returns the endpoint in the shape of `score --json`."""
    return entry_json(scored) | {"novelty": scored.novelty, "novelty_in": scored.novelty_in}


def entry_json(scored: ScoredEndpoint) -> dict[str, Any]:
    """Returns the endpoint in the shape of `list --json`: evidence only."""
    return {
        "endpoint": scored.endpoint,
        "score": scored.score,
        "role": scored.role,
        "listed": scored.listed,
        "confidence": scored.confidence,
        "reasons": [
            {"name": r.name, "text": r.text, "contribution": r.contribution} for r in scored.reasons
        ],
        "first_seen": scored.first_seen.isoformat(timespec="microseconds") + "Z",
        "last_seen": scored.last_seen.isoformat(timespec="microseconds") + "Z",
        "records": scored.records,
    }
