"""The closed table of columns. What is not in it cannot be stored.

A record has two sides: the **endpoint**, a foreign address, and its **peer**, a
domestic host known only by pseudonym (or, for `out_out`, the other foreign
address). A prefix tells which side *sent* what a column counts:
`endpoint_bytes` were sent by the endpoint, `peer_bytes` by the peer.

Each column states how two parts of one record merge, so that a capture cut
anywhere, read in any order, gives the very same records. Arrow schemas, the
catalog's comments and the privacy gate's closed-world check all derive from
this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from telemetry.errors import PrivacyError


class Merge(StrEnum):
    """How the values of two parts of one record become one value."""

    KEY = "key"  # equal in both parts, by definition
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    OR = "or"
    BURSTS = "bursts"  # union of time intervals, see `telemetry.bursts`


class Layer(StrEnum):
    """The tables a column may stand in."""

    RECORD = "record"
    SCORE = "score"
    SELECTION = "selection"


@dataclass(frozen=True, slots=True)
class Column:
    """One allowed column.

    Attributes:
        name: Name in every table that holds it.
        type: Arrow type.
        unit: Unit of the value, or "" for names and flags.
        meaning: One line for the catalog and the docs.
        layer: The table that may hold it.
        merge: How parts of a record merge; None outside the record layer.
        nullable: Whether a source may be unable to tell.
    """

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    layer: Layer
    merge: Merge | None = None
    nullable: bool = False


TIME = pa.timestamp("us")
TEXT = pa.dictionary(pa.int32(), pa.string())
ADDRESS = pa.binary(16)
IDLE_US = 300 * 1_000_000
"""Silence, in microseconds, that ends a record (Zeek's TCP inactivity timeout is 5 minutes)."""
CUT_US = 1800 * 1_000_000
"""Records made from packets are also cut at multiples of this since 1970, in microseconds."""
BURST_US = 1_000_000
"""Packets of one side parted by this much or more, in microseconds, are two bursts."""


def _record(
    name: str, kind: pa.DataType, unit: str, meaning: str, merge: Merge, nullable: bool = False
) -> Column:
    return Column(name, kind, unit, meaning, Layer.RECORD, merge, nullable)


def _side(side: str) -> tuple[Column, ...]:
    def column(
        name: str, kind: pa.DataType, unit: str, meaning: str, merge: Merge, nullable: bool = True
    ) -> Column:
        return _record(f"{side}_{name}", kind, unit, meaning, merge, nullable)

    return (
        column("packets", pa.int64(), "packets", f"packets sent by the {side}", Merge.SUM),
        column("bytes", pa.int64(), "bytes", f"IP bytes sent by the {side}", Merge.SUM),
        column(
            "payload_bytes", pa.int64(), "bytes", "of these, above the transport header", Merge.SUM
        ),
        column("min_bytes", pa.int32(), "bytes", "smallest IP packet sent", Merge.MIN),
        column("max_bytes", pa.int32(), "bytes", "largest IP packet sent", Merge.MAX),
        column("tcp_flags", pa.uint8(), "", "OR of the TCP flags sent", Merge.OR),
        column("first", TIME, "UTC", f"first packet sent by the {side}", Merge.MIN),
        column("last", TIME, "UTC", f"last packet sent by the {side}", Merge.MAX),
        column(
            "burst_starts",
            pa.list_(TIME),
            "UTC",
            "first packet of each burst; null when there is at most one",
            Merge.BURSTS,
        ),
        column(
            "burst_ends",
            pa.list_(TIME),
            "UTC",
            "last packet of each burst; null when there is at most one",
            Merge.BURSTS,
        ),
    )


RECORD: tuple[Column, ...] = (
    _record("sensor", TEXT, "", "where the source was taken", Merge.KEY),
    _record("endpoint_ip", TEXT, "", "foreign address", Merge.KEY),
    _record("endpoint_addr", ADDRESS, "", "the same, 16 bytes, IPv4 as ::ffff:a.b.c.d", Merge.KEY),
    _record("endpoint_port", pa.uint16(), "", "its port, or the ICMP type", Merge.KEY),
    _record("peer_ip", TEXT, "", "the other foreign address (out_out only)", Merge.KEY, True),
    _record("peer_pid", TEXT, "", "pseudonym of the domestic host", Merge.KEY, True),
    _record("peer_net_pid", TEXT, "", "pseudonym of its network (/24, /48)", Merge.KEY, True),
    _record("peer_port", pa.uint16(), "", "its port, or the ICMP code", Merge.KEY),
    _record("protocol", pa.uint8(), "", "IANA protocol number", Merge.KEY),
    _record("tunnel", TEXT, "", "innermost tunnel opened, or 'none'", Merge.KEY),
    _record(
        "pair_class", TEXT, "", "classes of endpoint and peer, as `foreign-domestic`", Merge.KEY
    ),
    _record("outer_class", TEXT, "", "the same of the outermost addresses, or 'none'", Merge.KEY),
    _record("sampling_rate", pa.int32(), "", "one packet in so many was seen", Merge.KEY),
    _record(
        "active_timeout_s",
        pa.int32(),
        "s",
        "the exporter cut records that went on after so long",
        Merge.MAX,
        True,
    ),
    _record(
        "idle_timeout_s",
        pa.int32(),
        "s",
        "the exporter ended records after such a silence",
        Merge.MAX,
        True,
    ),
    _record("first_seen", TIME, "UTC", "first packet of either side", Merge.MIN),
    _record("last_seen", TIME, "UTC", "last packet of either side", Merge.MAX),
    *_side("endpoint"),
    *_side("peer"),
)

SCORE: tuple[Column, ...] = tuple(
    Column(name, kind, unit, meaning, Layer.SCORE, nullable=name.startswith("novelty"))
    for name, kind, unit, meaning in (
        ("endpoint", pa.string(), "", "foreign address"),
        ("score", pa.float64(), "0..1", "how surely it is attack infrastructure"),
        ("role", pa.string(), "", "what it is used for"),
        ("listed", pa.bool_(), "", "whether it stands on the list"),
        ("confidence", pa.int32(), "0..100", "the score in STIX's scale"),
        (
            "reasons",
            pa.list_(
                pa.struct(
                    [
                        ("name", pa.string()),
                        ("text", pa.string()),
                        ("contribution", pa.float64()),
                    ]
                )
            ),
            "",
            "the evidence in words, strongest first",
        ),
        ("first_seen", TIME, "UTC", "first packet to or from it"),
        ("last_seen", TIME, "UTC", "last packet to or from it"),
        ("records", pa.int64(), "records", "records it appears in"),
        ("novelty", pa.float64(), "0..1", "share of all that were scored that is more usual"),
        ("novelty_in", pa.string(), "", "in which trait the fewest equal it, see traits; or null"),
    )
)

SELECTION: tuple[Column, ...] = tuple(
    Column(name, kind, unit, meaning, Layer.SELECTION)
    for name, kind, unit, meaning in (
        ("endpoint", pa.string(), "", "foreign address"),
        ("since", TIME, "UTC", "when it was selected first"),
        ("until", TIME, "UTC", "when its records are erased, unless it is selected again"),
        ("rules", pa.string(), "", "version of the rules that selected it last"),
        ("rule", pa.string(), "", "the rule among them"),
    )
)

TABLES: dict[Layer, tuple[Column, ...]] = {
    Layer.RECORD: RECORD,
    Layer.SCORE: SCORE,
    Layer.SELECTION: SELECTION,
}


def schema(layer: Layer) -> pa.Schema:
    """Returns the Arrow schema of a layer, in the table's order."""
    return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in TABLES[layer]])


def check_closed(names: list[str], layer: Layer) -> None:
    """Refuses any difference between `names` and the columns of a layer.

    Raises:
        PrivacyError: A column is unknown, missing or out of order.
    """
    allowed = [c.name for c in TABLES[layer]]
    if names != allowed:
        unknown = sorted(set(names) - set(allowed))
        missing = sorted(set(allowed) - set(names))
        raise PrivacyError(
            f"Columns of the {layer} table are closed: unknown {unknown}, missing {missing}; "
            "enter the column in telemetry/columns.py first."
        )
