"""SiLK's `rwcut` and YAF's `yafscii --tabular`: delimited text of flow records.

A title line names the columns, in any order; text of `rwcut` without one has its twelve default
fields. Columns that are cut to their width keep their meaning (`pro`, `durat`).

SiLK's records tell of one direction: the packets from `sIP` to `dIP`; YAF's of both. For ICMP
the destination port is 256 times the type plus the code. Times are UTC, as dates or as seconds
since 1970, whatever `--timestamp-format` was. Addresses may be padded with zeros.

Sources: the manual pages rwcut(1), rwfilter(1) and yafscii(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from telemetry.errors import SourceError
from telemetry.raw import UNKNOWN, RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.numbers import looked_up
from telemetry.readers.rows.reader import RowsReader
from telemetry.readers.rows.records import MANDATORY, Layout, batch
from telemetry.readers.rows.texts import (
    Fields,
    chunks,
    first_line,
    head_line,
    header_fields,
    table_of_lines,
)
from telemetry.records import Tally

_RWCUT = {
    "sip": "src_ip",
    "dip": "dst_ip",
    "sport": "src_port",
    "dport": "dst_port",
    "pro": "protocol",
    "protocol": "protocol",
    "packets": "src_packets",
    "pkts": "src_packets",
    "bytes": "src_bytes",
    "flags": "src_tcp_flags",
    "stime": "start",
    "stime+msec": "start",
    "etime": "end",
    "etime+msec": "end",
    "durat": "duration",
    "duration": "duration",
    "dur": "duration",
    "dur+msec": "duration",
    "duration+msec": "duration",
    "ity": "icmp_type",
    "itype": "icmp_type",
    "ico": "icmp_code",
    "icode": "icmp_code",
}
"""What `rwcut`'s titles mean, in small letters."""
_YAF = {
    "start-time": "start",
    "end-time": "end",
    "duration": "duration",
    "proto": "protocol",
    "sip": "src_ip",
    "sp": "src_port",
    "dip": "dst_ip",
    "dp": "dst_port",
    "iflags": "src_initial_flags",
    "uflags": "src_tcp_flags",
    "riflags": "dst_initial_flags",
    "ruflags": "dst_tcp_flags",
    "pkt": "src_packets",
    "oct": "src_bytes",
    "rpkt": "dst_packets",
    "roct": "dst_bytes",
}
_DEFAULT = (
    *("sIP", "dIP", "sPort", "dPort", "protocol", "packets", "bytes", "flags"),
    *("sTime", "duration", "eTime", "sensor", ""),
)
"""The fields of `rwcut` unless `--fields` names others; the last is what its final `|` ends."""
_UNTITLED = re.compile(
    rb" *[0-9a-fA-F.:]+\| *[0-9a-fA-F.:]+\| *\d+\| *\d+\| *\d+\| *\d+\| *\d+\|[FSRPAUEC ]*\|"
    rb" *[\d/T:. -]+\| *[\d.]+\| *[\d/T:. -]+\|[^|\n]*\|?\r?"
)
_REWRITTEN = (
    # With --zero-pad-ips numbers stay decimal.
    (re.compile(rb"(?<![\d.:])" + rb"\.".join([rb"0*(\d{1,3})"] * 4) + rb"(?![\d.])"),
     rb"\1.\2.\3.\4"),
    # With --legacy-timestamps the month comes first.
    (re.compile(rb"(?<!\d)(\d\d)/(\d\d)/(\d{4}) (?=\d\d:)"), rb"\3/\1/\2 "),
)  # fmt: skip
"""What is spelt as nowhere else: addresses and dates, and their common spelling."""


class SilkReader(RowsReader):
    """Reads text of SiLK and YAF."""

    name = "silk"
    about = "SiLK rwcut and YAF yafscii text"

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether this is text of `rwcut` or `yafscii`."""
        line = head_line(head)
        return _titles(line) is not None or _UNTITLED.fullmatch(line) is not None

    def batches(self, head: bytes, stream: IO[bytes], tally: Tally) -> Iterator[RawBatch]:
        """Yields the records; side `a` is the source.

        Raises:
            SourceError: Columns that a record needs are missing.
        """
        line, pieces = first_line(chunks(stream, tally))
        titles = _titles(line)
        if titles is None:
            titles = _RWCUT
            fields = Fields(_DEFAULT, b"|", padded=True, spare=1)
            pieces = _with(line, pieces)
        else:
            fields = header_fields(line)
        wanted = _wanted(fields, titles)
        layout = Layout(one_way=titles is _RWCUT, icmp_in_port=True)
        odd = [(old, new) for old, new in _REWRITTEN if old.sub(new, head) != head]
        for piece in pieces:
            for old, new in odd:
                piece = old.sub(new, piece)
            table = table_of_lines(piece, fields, wanted, tally)
            table = table.only(looked_up(table.get("src_ip"), {"sip": 1}) == UNKNOWN)
            if len(table):
                yield batch(table, layout, tally)


READER = SilkReader()


def _titles(line: bytes) -> dict[str, str] | None:
    """Returns the meanings of a title line's names, or None if it is none."""
    names = {name.lower() for name in header_fields(line).names}
    if not {"sip", "dip"} <= names:
        return None
    return _YAF if "start-time" in names else _RWCUT


def _wanted(fields: Fields, titles: dict[str, str]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for name in fields.names:
        if meaning := titles.get(name.lower()):
            wanted.setdefault(meaning, name)
    missing = [name for name in MANDATORY if name not in wanted]
    if "start" not in wanted and "end" not in wanted:
        missing.append("start")
    if missing:
        named = {meaning: title for title, meaning in reversed(titles.items())}
        raise SourceError(
            f"This text lacks the columns {', '.join(named[name] for name in missing)}; "
            "print it again with them."
        )
    return wanted


def _with(line: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield line + b"\n"
    yield from pieces
