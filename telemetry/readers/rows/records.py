"""From a table of records to a raw batch: what every such reader does the same way.

A reader that names its columns by the words of `MEANINGS` needs `batch` alone. One that
knows more hands its numbers to `assembled`.

What a row cannot tell stays unknown. One start and one end for both sides become the times of
every side that sent something, the answering side's start a microsecond later: its true
first packet lies somewhere between, and who began must not be lost. A row in which neither side
sent anything keeps the first side's times, so that it has a place in time. A row of one
direction tells nothing of side `b`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from telemetry.raw import (
    COUNTERS,
    I64,
    NEVER,
    NO_OUTER,
    PORTED,
    TUNNELS,
    UNKNOWN,
    RawBatch,
    Side,
)
from telemetry.readers.rows.numbers import (
    ICMP,
    ICMP6,
    NO_TYPE,
    REQUESTS,
    TCP,
    Addresses,
    Numbers,
    Unit,
    addresses,
    version6,
)
from telemetry.readers.rows.texts import Flags, Table, drop
from telemetry.reasons import Reason
from telemetry.records import Tally

MANDATORY = ("src_ip", "dst_ip", "src_port", "dst_port", "protocol")
MEANINGS = (
    *MANDATORY,
    "start",
    "end",
    "duration",
    *(f"{side}_{name}" for side in ("src", "dst") for name in (*COUNTERS, "initial_flags")),
    "icmp_type",
    "icmp_code",
    "sampling_rate",
    "active_timeout",
    "idle_timeout",
)
"""What a column may mean; `src` is who sent first. Of `start`, `end` and `duration` one time
must be there, with `end` alone or `end` and `duration` in place of `start`."""

_I32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns of a format do not say themselves.

    Attributes:
        time: Unit of `start` and `end`; dates are read whatever it is.
        duration: Unit of `duration`.
        one_way: Whether a row tells of the packets from `src` to `dst` alone.
        icmp_in_port: Whether `dst_port` holds 256 times the type and the code of ICMP, as in
            NetFlow; without it, and without `icmp_type`, the ports are type and code, unless
            only `dst_port` is told and is too large for a code.
        icmp_zeros: Whether ports of 0, with no `icmp_type`, are an echo reply; else no type is
            told.
        hex_flags: Whether TCP flags are hexadecimal without `0x`.
        sampling_rate: One packet in so many was seen, where no column tells.
        active_timeout: Seconds, or UNKNOWN, where no column tells.
        idle_timeout: The same.
    """

    time: Unit = "s"
    duration: Unit = "s"
    one_way: bool = False
    icmp_in_port: bool = False
    icmp_zeros: bool = True
    hex_flags: bool = False
    sampling_rate: int = 1
    active_timeout: int = UNKNOWN
    idle_timeout: int = UNKNOWN


@dataclass(slots=True)
class Sent:
    """What one side of each row sent; None for what no column tells.

    Attributes:
        counters: Arrays by the names of `raw.COUNTERS`; UNKNOWN where a row does not tell.
        seen: Rows in which something else than a counter shows that the side sent.
    """

    counters: dict[str, I64]
    seen: Flags | None = None


@dataclass(slots=True)
class Columns:
    """Numbers of all rows.

    Attributes:
        src: Addresses of side `a`.
        dst: Addresses of side `b`.
        src_port: Ports of side `a`, or types of ICMP; UNKNOWN is a fault.
        dst_port: Ports of side `b`, or codes of ICMP; UNKNOWN is a fault.
        protocol: IANA numbers; UNKNOWN is a fault.
        first: Starts in microseconds since 1970; UNKNOWN is a fault.
        last: Ends.
        a: What side `a` sent.
        b: What side `b` sent; None when rows tell of one direction.
        more: Other columns of the batch by name, where they are not those of `Layout()`.
    """

    src: Addresses
    dst: Addresses
    src_port: I64
    dst_port: I64
    protocol: I64
    first: I64
    last: I64
    a: Sent
    b: Sent | None
    more: dict[str, I64] = field(default_factory=dict)


def batch(table: Table, layout: Layout, tally: Tally) -> RawBatch:
    """Makes a raw batch of a table whose columns are named by `MEANINGS`; counts every row."""
    numbers = Numbers(table)
    first, last = _times(numbers, layout)
    src = addresses(table.get("src_ip"))
    protocol = numbers.protocols("protocol", version6(src))
    src_port, dst_port = _ports(numbers, layout, protocol)
    columns = Columns(
        src=src,
        dst=addresses(table.get("dst_ip")),
        src_port=src_port,
        dst_port=dst_port,
        protocol=protocol,
        first=first,
        last=last,
        a=_sent(numbers, "src", layout),
        b=None if layout.one_way else _sent(numbers, "dst", layout),
        more=_more(numbers, layout),
    )
    return assembled(numbers, columns, tally)


def assembled(numbers: Numbers, columns: Columns, tally: Tally) -> RawBatch:
    """Makes a raw batch of the rows that are whole, and counts all.

    Rows that do not parse are malformed, others may lack an address; neither is handed over.
    """
    a_hi, a_lo, a_known = columns.src
    b_hi, b_lo, b_known = columns.dst
    for told in (columns.protocol, columns.first, columns.src_port, columns.dst_port):
        numbers.bad |= told < 0
    first, last = columns.first, np.maximum(columns.first, columns.last)
    rows = len(first)
    one_way = columns.b is None
    a = _side(columns.a, first, last, columns.protocol, one_way)
    if columns.b is None:
        b = Side.unknown(rows)
    else:
        b = _side(columns.b, first + 1, np.maximum(last, first + 1), columns.protocol, False)
        silent = (a.first == NEVER) & (b.first == NEVER)
        a.first[silent], a.last[silent] = first[silent], last[silent]
    constants = {
        "tunnel": TUNNELS.index("none"),
        "outer": NO_OUTER,
        "sampling_rate": 1,
        "active_timeout": UNKNOWN,
        "idle_timeout": UNKNOWN,
    }
    whole = RawBatch(
        a_hi=a_hi,
        a_lo=a_lo,
        b_hi=b_hi,
        b_lo=b_lo,
        a_port=columns.src_port,
        b_port=columns.dst_port,
        protocol=columns.protocol,
        a=a,
        b=b,
        **{name: np.full(rows, value) for name, value in constants.items()} | columns.more,
    )
    known = a_known & b_known
    bad = int(numbers.bad.sum())
    drop(tally, Reason.MALFORMED_ROW, bad)
    keep = known & ~numbers.bad
    tally.read += rows - bad
    if nowhere := rows - bad - int(keep.sum()):
        tally.dropped[Reason.NO_ADDRESS.label] += nowhere
    return whole if keep.all() else whole.only(keep)


def earliest(batches: Iterable[RawBatch]) -> int | None:
    """Returns the earliest time of the first batch that has a row, in microseconds since 1970."""
    for batch in batches:
        if len(batch):
            first = np.minimum(batch.a.first.view(np.uint64), batch.b.first.view(np.uint64))
            return int(first.min())  # NEVER is the largest of unsigned numbers from 1970 on
    return None


def joined(batches: Sequence[RawBatch]) -> RawBatch:
    """Returns the rows of all batches, which are one or more and without bursts."""

    def of(parts: Sequence[Any]) -> dict[str, Any]:
        names = [field.name for field in fields(parts[0]) if field.name not in ("a", "b", "bursts")]
        return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}

    a, b = (Side(**of([getattr(batch, name) for batch in batches])) for name in ("a", "b"))
    return RawBatch(**of(batches), a=a, b=b)


def _side(sent: Sent, first: I64, last: I64, protocol: I64, always: bool) -> Side:
    rows = len(first)
    told = {name: sent.counters.get(name, np.full(rows, UNKNOWN)) for name in COUNTERS}
    packets, octets, payload = told["packets"], told["bytes"], told["payload_bytes"]
    if always:
        spoke = np.ones(rows, dtype=np.bool_)
    else:
        seen = sent.seen if sent.seen is not None else told["tcp_flags"] > 0
        spoke = (packets > 0) | ((packets == UNKNOWN) & ((octets > 0) | (payload > 0) | seen))
        none = packets == 0
        for name in ("bytes", "payload_bytes", "tcp_flags"):
            told[name] = np.where(none, 0, told[name])
    told["tcp_flags"] = np.where(protocol == TCP, told["tcp_flags"], 0)
    return Side(
        bursts=None, **told, first=np.where(spoke, first, NEVER), last=np.where(spoke, last, NEVER)
    )


def _times(numbers: Numbers, layout: Layout) -> tuple[I64, I64]:
    start = numbers.times("start", layout.time)
    end = numbers.times("end", layout.time)
    duration = numbers.durations("duration", layout.duration)
    some = np.maximum(duration, 0)
    # An end sooner after 1970 than the record lasted leaves the row without a start.
    first = np.where(start != UNKNOWN, start, np.where(end >= some, end - some, UNKNOWN))
    return first, np.where(end != UNKNOWN, end, first + some)


def _ports(numbers: Numbers, layout: Layout, protocol: I64) -> tuple[I64, I64]:
    src, dst = numbers.ports("src_port"), numbers.ports("dst_port")
    kind, code = numbers.counts("icmp_type", 0xFF), numbers.counts("icmp_code", 0xFF)
    if not layout.icmp_zeros:
        untold = (kind == UNKNOWN) & (src <= 0) & (dst <= 0)
        kind, code = np.where(untold, NO_TYPE, kind), np.where(untold, NO_TYPE, code)
    if layout.icmp_in_port:
        as_ports = (src > 0) & (src <= 0xFF) & (dst <= 0xFF)  # as `rwcut` prints on demand
        told = (dst >= 0) & (kind == UNKNOWN) & ~as_ports
        kind, code = np.where(told, dst >> 8, kind), np.where(told, dst & 0xFF, code)
    return ports_of(protocol, src, dst, kind, code)


def ports_of(protocol: I64, src: I64, dst: I64, kind: I64, code: I64) -> tuple[I64, I64]:
    """Returns the ports of both sides, or of ICMP the type of the request and the code.

    A port that is not told is 0 in protocols without ports. No code is above 255: alone, such a
    port is type and code in one, as in NetFlow v5; beside a type it is an identifier.

    Args:
        protocol: IANA numbers.
        src: Ports of side `a`, or types of ICMP.
        dst: Ports of side `b`, or codes of ICMP.
        kind: Types of ICMP, UNKNOWN where `src` and `dst` hold type and code.
        code: Codes of ICMP.
    """
    ported = np.isin(protocol, PORTED)
    src, dst = (np.where(~ported & (port == UNKNOWN), 0, port) for port in (src, dst))
    icmp = (protocol == ICMP) | (protocol == ICMP6)
    if not icmp.any():
        return src, dst
    packed = (kind == UNKNOWN) & (src == 0) & (dst > 0xFF)
    kind, code = np.where(packed, dst >> 8, kind), np.where(packed, dst & 0xFF, code)
    told = icmp & (kind != UNKNOWN)
    src, dst = np.where(told, kind, src), np.where(told, np.maximum(code, 0), dst)
    src, dst = np.where(icmp & (src > 0xFF), NO_TYPE, src), np.where(icmp & (dst > 0xFF), 0, dst)
    for (number, reply), request in REQUESTS.items():
        src = np.where((protocol == number) & (src == reply), request, src)
    return src, dst


def _sent(numbers: Numbers, side: str, layout: Layout) -> Sent:
    columns = numbers.table.columns
    told = {
        name: numbers.counts(f"{side}_{name}")
        for name in COUNTERS
        if name != "tcp_flags" and f"{side}_{name}" in columns
    }
    flags = [
        numbers.tcp_flags(name, layout.hex_flags)
        for name in (f"{side}_tcp_flags", f"{side}_initial_flags")
        if name in columns
    ]
    if flags:
        known = np.maximum(flags[0], 0) | np.maximum(flags[-1], 0)
        told["tcp_flags"] = np.where(np.maximum(flags[0], flags[-1]) < 0, UNKNOWN, known)
    return Sent(told)


def _more(numbers: Numbers, layout: Layout) -> dict[str, I64]:
    def told(name: str, otherwise: int) -> I64:
        values = numbers.counts(name, _I32_MAX)
        return np.where(values == UNKNOWN, otherwise, values)

    return {
        "sampling_rate": np.maximum(told("sampling_rate", layout.sampling_rate), 1),
        "active_timeout": told("active_timeout", layout.active_timeout),
        "idle_timeout": told("idle_timeout", layout.idle_timeout),
    }
