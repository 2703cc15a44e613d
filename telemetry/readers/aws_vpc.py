"""VPC flow logs of AWS: default and own formats with a header, as text or CSV.

* A record tells one direction. What was rejected had no answer: the other side sent nothing.
* Without a header only the default format (version 2) is read, also with the time before each
  line that CloudWatch Logs adds on export. NODATA and SKIPDATA are no records.
* Flags are those that AWS keeps: SYN, SYN-ACK, FIN and RST, never ACK alone. A SYN that more
  packets follow looks like one that nobody answered, and 0 like a scan; such flags are unknown.
* ICMP types are not told. `srcaddr` and `dstaddr` are those of the interface; where a format
  has only `pkt-srcaddr` and `pkt-dstaddr`, these are taken.
* A record covers ten minutes at most (the aggregation interval, one or ten minutes).

A flow that passes two interfaces with logs, such as a NAT gateway's, counts at both.

Source: Amazon VPC User Guide, Flow log records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import IO

from telemetry.errors import SourceError
from telemetry.raw import UNKNOWN, RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.numbers import ACK, RST, SYN, Numbers, looked_up
from telemetry.readers.rows.reader import RowsReader
from telemetry.readers.rows.records import MANDATORY, Layout, batch
from telemetry.readers.rows.shaping import NOT_TOLD, blanked, constant, with_columns
from telemetry.readers.rows.texts import (
    Fields,
    Table,
    Texts,
    chunks,
    drop,
    first_line,
    head_line,
    table_of_lines,
)
from telemetry.reasons import Reason
from telemetry.records import Tally

_DEFAULT = (
    *("version", "account-id", "interface-id", "srcaddr", "dstaddr", "srcport", "dstport"),
    *("protocol", "packets", "bytes", "start", "end", "action", "log-status"),
)
_DEFAULT_LINE = re.compile(
    rb"(\d{4}-\d\d-\d\dT\S+ )?2 \S+ (?:eni-\S+|-) \S+ \S+ (?:(?:\d+|-) ){5}\d+ \d+ "
    rb"(?:ACCEPT|REJECT|-) (?:OK|NODATA|SKIPDATA)\r?(?:\n|$)"
)
_COLUMNS = {
    "src_ip": ("srcaddr", "sourceaddress", "pkt-srcaddr"),
    "dst_ip": ("dstaddr", "destinationaddress", "pkt-dstaddr"),
    "src_port": ("srcport", "sourceport"),
    "dst_port": ("dstport", "destinationport"),
    "protocol": ("protocol",),
    "src_packets": ("packets", "numpackets"),
    "src_bytes": ("bytes", "numbytes"),
    "src_tcp_flags": ("tcp-flags",),
    "start": ("start", "starttime"),
    "end": ("end", "endtime"),
    "action": ("action",),
    "status": ("log-status", "logstatus"),
}
"""Names in a header: AWS's, and those of the first tables that its manual made for Athena."""
_TIMES = ("start", "end")
_LAYOUT = Layout(one_way=True, active_timeout=600)
_REJECTED = Layout(active_timeout=600)


class AwsVpcReader(RowsReader):
    """Reads VPC flow logs of AWS."""

    name = "aws_vpc"
    about = "AWS VPC flow logs, versions 2 to 5 (text, CSV)"

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether a header of flow logs, or a line of the default format, comes first."""
        return _fields(head) is not None

    def batches(self, head: bytes, stream: IO[bytes], tally: Tally) -> Iterator[RawBatch]:
        """Yields the records; side `a` sent.

        Raises:
            SourceError: The format lacks addresses, ports, the protocol or times.
        """
        fields = _fields(head)
        assert fields is not None  # recognised by it
        wanted = _wanted(fields)
        if not {*MANDATORY} <= set(wanted) or not set(_TIMES) & set(wanted):
            raise SourceError(
                "Its format lacks addresses, ports, the protocol or times; add them to the flow "
                "log's format."
            )
        line, pieces = first_line(chunks(stream, tally))
        if _DEFAULT_LINE.match(line) is not None:
            pieces = chain([line + b"\n"], pieces)
        for piece in pieces:
            yield from _of_table(table_of_lines(piece, fields, wanted, tally), tally)


READER = AwsVpcReader()


def _wanted(fields: Fields) -> dict[str, str]:
    """Returns the header's name for each meaning that it has."""
    names = {_plain(name): name for name in reversed(fields.names)}
    return {
        meaning: names[next(own for own in options if own in names)]
        for meaning, options in _COLUMNS.items()
        if set(options) & set(names)
    }


def _plain(name: str) -> str:
    """Returns AWS's own spelling.

    Athena and Parquet write `_` for `-`; who sets a format names a field `${srcaddr}`.
    """
    return name.strip().removeprefix("${").removesuffix("}").lower().replace("_", "-")


def _fields(head: bytes) -> Fields | None:
    """Returns how lines are cut, or None if these are no flow logs."""
    line = head_line(head)
    if (found := _DEFAULT_LINE.match(line)) is not None:
        return Fields((("exported",) if found[1] else ()) + _DEFAULT, b" ")
    separator = next((mark for mark in (b",", b"\t") if mark in line), b" ")
    parted = separator != b" "
    names = tuple(line.decode("utf-8", "replace").replace('"', "").split(separator.decode()))
    known = set(map(_plain, names))
    if any(
        {src, dst} <= known for src, dst in zip(_COLUMNS["src_ip"], _COLUMNS["dst_ip"], strict=True)
    ):
        return Fields(names, separator, quoted=parted, padded=parted)
    return None


def _of_table(table: Table, tally: Tally) -> Iterator[RawBatch]:
    status = table.get("status")
    record = (looked_up(status, {"OK": 0}) == 0) | (status.ends == status.starts)
    drop(tally, Reason.NOT_A_RECORD, int((~record).sum()))
    table = table.only(record)
    table = with_columns(table, {**NOT_TOLD, "src_tcp_flags": _sure_flags(table)})
    rejected = looked_up(table.get("action"), {"REJECT": 1}) == 1
    if not rejected.all():
        yield batch(table.only(~rejected), _LAYOUT, tally)
    if rejected.any():
        rows = table.only(rejected)
        none = {name: constant("0", len(rows)) for name in ("dst_packets", "dst_bytes")}
        yield batch(with_columns(rows, none), _REJECTED, tally)


def _sure_flags(table: Table) -> Texts:
    numbers = Numbers(table)
    flags, packets = numbers.tcp_flags("src_tcp_flags"), numbers.counts("src_packets")
    rejected = looked_up(table.get("action"), {"REJECT": 1}) == 1
    alone = (flags & SYN > 0) & ((packets == 1) | rejected)
    sure = (flags != UNKNOWN) & ((flags & (ACK | RST) > 0) | alone)
    return blanked(table.get("src_tcp_flags"), ~sure & ~numbers.bad)
