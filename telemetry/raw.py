"""The raw batch: the only shape in which a domestic address ever exists.

Readers make it, the privacy gate takes it apart; an import contract keeps every
other room from naming it. It holds numbers only, so that no payload byte can
ride along, and it is never written anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from telemetry.errors import PrivacyError

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

PORTED = (6, 17, 33, 132, 136)
"""Protocols with ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""
UNKNOWN = -1
"""A counter the source does not tell."""
NEVER = np.iinfo(np.int64).min
"""The time of a side that sent nothing."""

TUNNELS = (
    "none",
    "4in6",
    "6in4",
    "ipip",
    "6in6",
    "gre",
    "pptp",
    "nvgre",
    "erspan",
    "etherip",
    "6to4",
    "isatap",
    "teredo",
    "vxlan",
    "vxlan_gpe",
    "geneve",
    "gtp_u",
    "l2tp",
    "ayiya",
    "capwap",
    "tzsp",
    "srv6",
    "mpls",
    "ah",
)
"""Names of tunnel codes, in the order of the codes; new ones go to the end."""

CLASSES = 4
"""Classes of an address: domestic, special, foreign, unallocated (`telemetry.homeland`)."""
NO_OUTER = 0
"""The outer code of a record that no tunnel carried."""


def outer_code(a_class: int, b_class: int) -> int:
    """Returns the code of the outermost pair of addresses, by the classes of its two sides."""
    return 1 + CLASSES * a_class + b_class


@dataclass(slots=True)
class Bursts:
    """Bursts of one side, for all rows of a batch.

    Row i owns the intervals `starts[offsets[i]:offsets[i+1]]`, in microseconds
    since 1970. A row without intervals has at most the one burst first..last.
    """

    offsets: I64
    starts: I64
    ends: I64


@dataclass(slots=True)
class Side:
    """What one side of each record sent; arrays of equal length.

    Attributes:
        packets: Packets, or UNKNOWN.
        bytes: IP bytes, or UNKNOWN.
        payload_bytes: Bytes above the transport header, or UNKNOWN.
        min_bytes: Smallest IP packet in bytes, or UNKNOWN.
        max_bytes: Largest IP packet in bytes, or UNKNOWN.
        tcp_flags: OR of the flags, or UNKNOWN.
        first: Time of the first packet in microseconds since 1970, or NEVER.
        last: Time of the last packet, or NEVER.
        bursts: Bursts where there are two or more; None when no row has any.
    """

    packets: I64
    bytes: I64
    payload_bytes: I64
    min_bytes: I64
    max_bytes: I64
    tcp_flags: I64
    first: I64
    last: I64
    bursts: Bursts | None = None

    @classmethod
    def unknown(cls, n: int) -> Side:
        """Returns a side of which the source tells nothing, for `n` rows."""

        def full(value: int) -> I64:
            return np.full(n, value, np.int64)

        unknown = {name: full(UNKNOWN) for name in COUNTERS}
        return cls(**unknown, first=full(NEVER), last=full(NEVER), bursts=None)


COUNTERS = ("packets", "bytes", "payload_bytes", "min_bytes", "max_bytes", "tcp_flags")
"""The fields of a side that count."""


@dataclass(slots=True)
class RawBatch:
    """Bidirectional records between sides `a` and `b`, before the gate.

    Addresses are two 64-bit halves of 16 bytes in network order; IPv4 stands as
    ::ffff:a.b.c.d. For ICMP `a_port` is the type and `b_port` the code. Which
    address is foreign is the gate's business; a packet reader has put the
    foreign side in `a` already.

    Attributes:
        tunnel: Innermost tunnel opened, a code of TUNNELS.
        outer: NO_OUTER, or `outer_code` of the outermost addresses, side `a` first.
        sampling_rate: One packet in so many was seen; 1 when all were.
        active_timeout: Seconds after which the exporter cut a record that went on, or UNKNOWN.
        idle_timeout: Seconds of silence after which it ended one, or UNKNOWN.
    """

    a_hi: U64
    a_lo: U64
    b_hi: U64
    b_lo: U64
    a_port: I64
    b_port: I64
    protocol: I64
    tunnel: I64
    outer: I64
    sampling_rate: I64
    active_timeout: I64
    idle_timeout: I64
    a: Side
    b: Side

    def __len__(self) -> int:
        return len(self.a_hi)

    def only(self, rows: npt.NDArray[np.bool_]) -> RawBatch:
        """Returns the batch of some rows; of a batch without bursts, as logs make it."""

        def of(part: RawBatch | Side) -> dict[str, Any]:
            values = {field.name: getattr(part, field.name) for field in fields(part)}
            return {n: v[rows] if isinstance(v, np.ndarray) else v for n, v in values.items()}

        return RawBatch(**of(self) | {"a": Side(**of(self.a)), "b": Side(**of(self.b))})

    def check(self) -> None:
        """Refuses arrays of unequal length.

        Raises:
            PrivacyError: A reader handed over a malformed batch.
        """
        n = len(self)
        for part in (self, self.a, self.b):
            for field in fields(part):
                value = getattr(part, field.name)
                if isinstance(value, np.ndarray) and len(value) != n:
                    raise PrivacyError(f"A reader's field {field.name} has the wrong length.")
        for side in (self.a, self.b):
            if side.bursts is not None and len(side.bursts.offsets) != n + 1:
                raise PrivacyError("A reader's bursts have the wrong length.")
