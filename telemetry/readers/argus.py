"""Argus: the text that `ra` prints with a delimiter (`.binetflow`), and its binary files.

Text may hold any columns in any order under `ra`'s titles; labels are never looked at. Binary
files pass the program `ra`, which prints the columns that are wanted.

What a row tells, and what it does not:

* Bytes are those of the whole frames: Argus counts the link layer too. They are stored as told.
* Times without a zone are UTC; Argus prints the local time of its host unless `-u` or `TZ`
  say otherwise, and a file does not tell.
* `Dir` tells who began: `<-` and `<?` the destination, all others the source. Apart from TCP it
  tells who sent, too: `->` the source alone.
* `TotPkts` and `TotBytes` are shared out where one side's count, a silent side or two packets
  in all leave no choice; else neither side's is known.
* `State` holds the TCP flags of both sides, parted by `_`, or a word for how far it came.
* Of ICMP the source port is the type, or in four digits code and type, and the destination
  port the code or, for echoes, an identifier.

Sources: the manual pages ra(1) and rarc(5), and argus-clients' `argus_util.h` for titles and
states.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np

from telemetry.errors import SourceError
from telemetry.raw import I64, UNKNOWN, RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.numbers import (
    ACK,
    FIN,
    ICMP,
    ICMP6,
    LETTERS,
    SYN,
    TCP,
    Addresses,
    Numbers,
    addresses,
    looked_up,
    version6,
)
from telemetry.readers.rows.programs import Program, output_of
from telemetry.readers.rows.reader import finish
from telemetry.readers.rows.records import Columns, Sent, assembled, earliest, ports_of
from telemetry.readers.rows.texts import (
    Fields,
    Flags,
    Table,
    Texts,
    chunks,
    drop,
    first_line,
    head_line,
    header_fields,
    table_of_lines,
)
from telemetry.readers.source import Source
from telemetry.reasons import Reason
from telemetry.records import Tally

_RA = Program(
    "ra",
    "argus-client",
    (
        *("-X", "-r", "-", "-c", ",", "-n", "-u", "-p", "6", "-Z", "b"),
        *("-s", "stime", "ltime", "proto", "saddr", "sport", "dir", "daddr", "dport", "state"),
        *("spkts", "dpkts", "sbytes", "dbytes"),
    ),
)
_TITLES = {
    "starttime": "start",
    "start": "start",
    "stime": "start",
    "lasttime": "end",
    "last": "end",
    "ltime": "end",
    "dur": "duration",
    "duration": "duration",
    "proto": "protocol",
    "srcaddr": "src_ip",
    "dstaddr": "dst_ip",
    "sport": "src_port",
    "dport": "dst_port",
    "dir": "dir",
    "state": "state",
    "totpkts": "packets",
    "totbytes": "bytes",
    "srcpkts": "src_packets",
    "dstpkts": "dst_packets",
    "srcbytes": "src_bytes",
    "dstbytes": "dst_bytes",
}
"""What `ra`'s titles mean here, in small letters."""
_MANDATORY = {
    "start": "StartTime",
    "protocol": "Proto",
    "src_ip": "SrcAddr",
    "src_port": "Sport",
    "dst_ip": "DstAddr",
    "dst_port": "Dport",
}

_NOTHING = "This Argus file holds nothing that ra can read; check the file."
_MAGICS = (b"\x83\x10\x00\x20", b"\x83\x20\x00\x20")
_LOOKED_AT, _STRAY = 1000, 0.02
"""Rows in which names of ports are looked for, and the share of them that is a broken row's."""
_NAME = re.compile(r"[a-z][a-z0-9_.+-]*[a-z][a-z0-9_.+-]*")
_FIRST_RECORD = 128  # bytes; of a file with less `ra` reads for ever
_NOT_IP = dict.fromkeys(("arp", "rarp", "llc", "man", "lldp", "stp", "loop", "eapol"), 1)
_BACKWARD, _FORWARD = 1, 2
_DIRECTIONS = {"<-": _BACKWARD, "<?": _BACKWARD, "->": _FORWARD, "who": _FORWARD}
_OPEN, _CLOSED = SYN | ACK, SYN | ACK | FIN
_STATES = {
    "REQ": (SYN, UNKNOWN),
    "ACC": (SYN, SYN | ACK),
    "EST": (_OPEN, _OPEN),
    "CON": (_OPEN, _OPEN),
    "FIN": (_CLOSED, _CLOSED),
    "CLO": (_CLOSED, _CLOSED),
}
"""Flags of both sides that a state without flags implies."""


class ArgusReader:
    """Reads records of Argus."""

    name = "argus"
    about = "Argus: binetflow and other delimited text of ra; binary files (through ra)"
    gated = False

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether these are records of Argus."""
        return _is_binary(head) or _is_text(head)

    def read(self, source: Source, session: Session, tally: Tally) -> Iterator[RawBatch]:
        """Yields the records; side `a` began.

        Raises:
            SourceError: Columns or dates are missing, or `ra` cannot read it.
        """
        tally.unit = "records"
        if not _is_binary(source.head):
            yield from _batches(chunks(source.stream(), tally), tally)
        elif len(source.head) < _FIRST_RECORD:
            raise SourceError(_NOTHING)
        else:
            with output_of(_RA, source) as output:
                yield from _batches(chunks(output.stream, tally), tally)
                output.end()
                if output.complained:
                    tally.damage = "ra did not read it to its end"
        finish(source, tally)

    def starts(self, head: bytes) -> int | None:
        """Returns the time of the first records of a text; see `contract.Dated`."""
        tally = Tally()
        return None if _is_binary(head) else earliest(_batches(chunks(BytesIO(head), tally), tally))


READER = ArgusReader()


def _is_binary(head: bytes) -> bool:
    return head.startswith(_MAGICS)


def _is_text(head: bytes) -> bool:
    line = head_line(head)
    found = {name.lower() for name in header_fields(line).names}
    return {"srcaddr", "dstaddr", "proto"} <= found


def _batches(pieces: Iterator[bytes], tally: Tally) -> Iterator[RawBatch]:
    header, pieces = first_line(pieces)
    if not header:
        raise SourceError(_NOTHING)
    fields = header_fields(header)
    if b"  " in header and fields.separator == b" ":
        raise SourceError(
            "This Argus text is laid out for the eye; print it again with `ra -c , -n -u`, which "
            "parts the columns by commas."
        )
    wanted = _wanted(fields)
    for piece in pieces:
        table = table_of_lines(piece, fields, wanted, tally)
        table = table.only(looked_up(table.get("src_ip"), {"SrcAddr": 1}) == UNKNOWN)
        not_ip = looked_up(table.get("protocol"), _NOT_IP) == 1
        drop(tally, Reason.NOT_IP, int(not_ip.sum()))
        table = table.only(~not_ip)
        if len(table):
            _refuse_undated(table)
            _refuse_named_ports(table)
            yield _batch(table, tally)


def _wanted(fields: Fields) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for name in fields.names:
        if meaning := _TITLES.get(name.lower()):
            wanted.setdefault(meaning, name)
    missing = [title for meaning, title in _MANDATORY.items() if meaning not in wanted]
    if missing:
        raise SourceError(
            f"This Argus text lacks the columns {', '.join(missing)}; print it again with them."
        )
    return wanted


def _refuse_undated(table: Table) -> None:
    if re.fullmatch(r"\d\d:\d\d:\d\d(\.\d+)?", table.get("start").at(0)):
        raise SourceError(
            "This Argus text has times without dates; print it again with `ra -u`, which prints "
            "seconds since 1970."
        )


def _refuse_named_ports(table: Table) -> None:
    """Refuses ports by name: what a name means is the business of the host that printed it."""
    few = range(min(len(table), _LOOKED_AT))
    for side in ("src_port", "dst_port"):
        texts = table.get(side)
        named = sum(_NAME.fullmatch(texts.at(row)) is not None for row in few)
        if named > len(few) * _STRAY:
            raise SourceError(
                "This Argus text names its ports; print it again with `ra -n`, which prints "
                "their numbers."
            )


def _batch(table: Table, tally: Tally) -> RawBatch:
    numbers = Numbers(table)
    start, end = numbers.times("start"), numbers.times("end")
    duration = np.maximum(numbers.durations("duration"), 0)
    src, dst = addresses(table.get("src_ip")), addresses(table.get("dst_ip"))
    protocol = numbers.protocols("protocol", version6(src))
    src_port, dst_port = _ports(numbers, protocol)
    direction = looked_up(table.get("dir"), _DIRECTIONS)
    sent = _sent(numbers, protocol, direction)
    columns = Columns(
        src=src,
        dst=dst,
        src_port=src_port,
        dst_port=dst_port,
        protocol=protocol,
        first=start,
        last=np.where(end == UNKNOWN, start + duration, end),
        a=sent[0],
        b=sent[1],
    )
    return assembled(numbers, _turned(columns, direction == _BACKWARD), tally)


def _ports(numbers: Numbers, protocol: I64) -> tuple[I64, I64]:
    table = numbers.table
    icmp = (protocol == ICMP) | (protocol == ICMP6)
    src, dst = numbers.ports("src_port"), numbers.ports("dst_port")
    texts = table.get("src_port")
    packed = icmp & (texts.ends - texts.starts == len("0x0303"))
    kind = np.where(packed, src & 0xFF, src)
    code = np.where(packed, src >> 8, np.where(dst > 0xFF, 0, dst))
    return ports_of(protocol, src, dst, np.where(icmp, kind, UNKNOWN), code)


def _sent(numbers: Numbers, protocol: I64, direction: I64) -> tuple[Sent, Sent]:
    """Returns what both sides sent, shared out as far as a row allows."""
    flags, silent = _flags(numbers, protocol)
    told = {
        name: (numbers.counts(f"src_{name}"), numbers.counts(f"dst_{name}"), numbers.counts(name))
        for name in ("packets", "bytes")
    }
    silent[1] |= (protocol != TCP) & (direction == _FORWARD)
    silent[0] |= (protocol != TCP) & (direction == _BACKWARD)
    sides = {name: list(_shared(*columns)) for name, columns in told.items()}
    for ours, other in ((0, 1), (1, 0)):
        # One side without bytes sent no packet, so that the other sent all.
        none = silent[ours] | (sides["bytes"][ours] == 0) | (sides["packets"][ours] == 0)
        for name, columns in sides.items():
            total = told[name][2]
            unknown = columns[ours] == UNKNOWN
            columns[other] = np.where(
                none & unknown & (columns[other] == UNKNOWN), total, columns[other]
            )
            columns[ours] = np.where(none & unknown, 0, columns[ours])
    both = (sides["bytes"][0] > 0) & (sides["bytes"][1] > 0) & (told["packets"][2] == 2)
    for columns in sides.values():
        numbers.bad |= (columns[0] < UNKNOWN) | (columns[1] < UNKNOWN)
    sides["packets"] = [np.where(both, 1, column) for column in sides["packets"]]
    first, second = (
        Sent({name: columns[side] for name, columns in sides.items()} | {"tcp_flags": flags[side]})
        for side in (0, 1)
    )
    return first, second


def _shared(src: I64, dst: I64, total: I64) -> tuple[I64, I64]:
    """Returns both sides' counts; one that is not told is what the other leaves of the total."""

    def rest(own: I64, other: I64) -> I64:
        return np.where((own == UNKNOWN) & (other >= 0) & (total >= 0), _less(total, other), own)

    return rest(src, dst), rest(dst, src)


def _less(total: I64, part: I64) -> I64:
    """Returns total - part, and less than UNKNOWN where the part is more than all."""
    left = total - part
    return np.where(left < 0, UNKNOWN - 1, left)


def _flags(numbers: Numbers, protocol: I64) -> tuple[list[I64], list[Flags]]:
    """Returns the TCP flags of both sides, and which sides the state shows to be silent."""
    state = numbers.table.get("state")
    before, after, parted = state.parted("_")
    tcp = (protocol == TCP) & parted
    flags, silent = [], []
    for side, texts in enumerate((before, after)):
        implied = looked_up(state, {word: bits[side] for word, bits in _STATES.items()})
        shown = _letters(texts)
        flags.append(np.where(tcp, np.where(shown == 0, UNKNOWN, shown), implied))
        silent.append(tcp & (texts.starts == texts.ends))
    return flags, silent


def _letters(texts: Texts) -> I64:
    flags = Numbers(Table({"x": texts}, len(texts))).letters("x", np.maximum(LETTERS, 0))
    return np.maximum(flags, 0)


def _turned(columns: Columns, rows: Flags) -> Columns:
    """Returns the columns with both sides exchanged in some rows."""
    if not rows.any() or columns.b is None:
        return columns
    a, b = columns.a.counters, columns.b.counters
    icmp = (columns.protocol == ICMP) | (columns.protocol == ICMP6)
    ports = rows & ~icmp

    def of(own: Addresses, other: Addresses) -> Addresses:
        hi, lo, known = (np.where(rows, y, x) for x, y in zip(own, other, strict=True))
        return hi, lo, known

    return replace(
        columns,
        src=of(columns.src, columns.dst),
        dst=of(columns.dst, columns.src),
        src_port=np.where(ports, columns.dst_port, columns.src_port),
        dst_port=np.where(ports, columns.src_port, columns.dst_port),
        a=Sent({name: np.where(rows, b[name], a[name]) for name in a}),
        b=Sent({name: np.where(rows, a[name], b[name]) for name in b}),
    )
