"""Zeek's connection logs, as tab-separated text and as JSON.

Only the columns of `_WANTED` are looked at, so labels and names end here.

What a line cannot tell stays unknown:

* Zeek gives one start and one duration for both sides. Every side that sent
  something is given `first = ts` and `last = ts + duration`, the responder a
  microsecond later: its true first packet lies somewhere between, and who began
  must not be lost.
* Logs of snapshots (`open_conn`, `conn_long`) tell a connection again and again, each time
  with all it has sent so far: its last line in a source counts, the earlier ones are superseded.
  Other sources may tell the same connection, above all the conn.log written when it ends; then
  it counts twice, since a reader sees one source.
* A connection of which Zeek counts no packet on either side (bad checksums only)
  keeps the originator's times with counters of 0, so that it has a place in time.

A line of JSON that names no log (`_path`) is of another one where it lacks a protocol, or has a
field of another log and none of a conn log.

Sources: the conn.log fields, histories and states of Zeek's `base/protocols/conn`
and the header of its ASCII writer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import IO

import numpy as np

from telemetry.errors import SourceError
from telemetry.raw import I64, NEVER, U64, UNKNOWN, RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.numbers import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Addresses,
    Numbers,
    addresses,
    looked_up,
    version6,
)
from telemetry.readers.rows.objects import any_object, first_objects, object_lines
from telemetry.readers.rows.reader import finish
from telemetry.readers.rows.records import Columns, Sent, assembled, earliest, joined
from telemetry.readers.rows.texts import (
    BOM,
    Fields,
    Flags,
    Key,
    Table,
    chunks,
    drop,
    filled,
    json_object,
    json_value,
    table_of_json,
    table_of_lines,
)
from telemetry.readers.source import Source
from telemetry.reasons import Reason
from telemetry.records import Tally

_MAX_FIELDS = 1000
_SNAPSHOTS = ("open_conn", "conn_long")
"""Logs that tell of connections that go on."""
_SETTLE = 1 << 16
"""Snapshots gathered before the superseded ones among them are dropped."""
_MAX_CONNECTIONS = 1 << 19
"""Connections held in memory to find the last snapshot of each; 200 bytes each, twice."""

_MANDATORY = ("ts", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto")
_OPTIONAL = (
    "duration",
    "orig_bytes",
    "resp_bytes",
    "orig_pkts",
    "resp_pkts",
    "orig_ip_bytes",
    "resp_ip_bytes",
    "history",
    "conn_state",
    "ip_proto",
)
_WANTED = _MANDATORY + _OPTIONAL
_ENDS = ("orig_h", "orig_p", "resp_h", "resp_p")
_ALIASES = {f"id_{end}": f"id.{end}" for end in _ENDS}
_STATED = ("conn_state", "orig_pkts")
"""Fields that conn logs alone have."""
_ELSEWHERE = ("trans_id", "rejected", "analyzer", "facility", "note")
"""Fields of the other logs that tell a protocol: dns, dpd, analyzer, syslog and notice."""
_JSON: dict[str, tuple[Key, ...]] = {
    name: (name, name.replace(".", "_"), tuple(name.split("."))) if "." in name else (name,)
    for name in (*_WANTED, "_path", *_ELSEWHERE)
}
"""Where JSON holds a field: under its name, with `_` for the point, or nested."""

_LOGS = re.compile(
    r"analyzer|capture_loss|cluster|dce_rpc|dhcp|dnp3|dns|dpd|files|ftp|http|intel|irc|kerberos|"
    r"known_certs|known_hosts|known_services|ldap|loaded_scripts|modbus|mqtt|mysql|notice|ntlm|ntp|"
    r"ocsp|packet_filter|pe|postgresql|quic|radius|rdp|redis|reporter|rfb|sip|smb_files|"
    r"smb_mapping|smtp|snmp|socks|software|ssh|ssl|stats|syslog|telemetry|traceroute|tunnel|"
    r"websocket|weird|x509"
)
"""Zeek's other logs: only these names may stand in an error."""
_SIGNS = {
    "trans_id": "dns",
    "qtype": "dns",
    "request_body_len": "http",
    "established": "ssl",
    "auth_attempts": "ssh",
    "auth_success": "ssh",
    "mailfrom": "smtp",
    "fuid": "files",
    "tunnel_type": "tunnel",
    "assigned_addr": "dhcp",
    "peer_descr": "notice",
}
"""Fields that conn logs never have, and the log that has them."""

_LETTERS = {
    "S": SYN,
    "H": SYN | ACK,
    "A": ACK,
    "D": PSH | ACK,
    "F": FIN | ACK,
    "R": RST,
}
_ORIGINATOR, _RESPONDER = np.zeros((2, 256), dtype=np.int64)
"""Flags that a letter of the history shows: capitals are the originator's."""
for _letter, _bits in _LETTERS.items():
    _ORIGINATOR[ord(_letter)] = _bits
    _RESPONDER[ord(_letter.lower())] = _bits

_OPEN, _CLOSED = SYN | ACK, SYN | ACK | FIN
_STATES = {
    "S0": (SYN, 0),
    "S1": (_OPEN, _OPEN),
    "SF": (_CLOSED, _CLOSED),
    "REJ": (SYN, RST | ACK),
    "S2": (_CLOSED, _OPEN),
    "S3": (_OPEN, _CLOSED),
    "RSTO": (_OPEN | RST, _OPEN),
    "RSTR": (_OPEN, _OPEN | RST),
    "RSTOS0": (SYN | RST, 0),
    "RSTRH": (0, _OPEN | RST),
    "SH": (SYN | FIN, 0),
    "SHR": (0, _CLOSED),
}
"""Flags of both sides that a state implies, for logs without history."""


class ZeekReader:
    """Reads conn logs of Zeek (and Bro), rotated, concatenated or cut."""

    name = "zeek"
    about = "Zeek conn.log and open_conn.log: TSV and JSON"
    gated = False

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether this is a log of Zeek, of any kind."""
        return _is_json(head) or _is_text(head)

    def read(self, source: Source, session: Session, tally: Tally) -> Iterator[RawBatch]:
        """Yields the log's records; side `a` is the originator.

        Raises:
            SourceError: It is another log of Zeek, or mandatory fields are missing.
        """
        tally.unit = "records"
        if _holds_snapshots(source.head):
            yield from _last_snapshots(source, tally)
        else:
            yield from _batches(source.head, source.stream(), tally, snapshots=False)
        finish(source, tally)

    def starts(self, head: bytes) -> int | None:
        """Returns the time of the first records; see `contract.Dated`."""
        return earliest(_batches(head, BytesIO(head), Tally(), _holds_snapshots(head)))


READER = ZeekReader()


def _batches(head: bytes, stream: IO[bytes], tally: Tally, snapshots: bool) -> Iterator[RawBatch]:
    """Yields the records of all lines of a stream that begins with `head`."""
    if _is_json(head):
        _check_keys(head, snapshots)
        # Behind a line that is no JSON, objects stand a line each.
        whole = head.removeprefix(BOM).lstrip().startswith((b"{", b"["))
        pieces = object_lines(head, stream, tally) if whole else chunks(stream, tally)
        tables: Iterable[Table] = (_json_table(piece, snapshots, tally) for piece in pieces)
    else:
        tables = _text_tables(chunks(stream, tally), snapshots, tally)
    for table in tables:
        if len(table):
            yield _batch(table, tally)


# -- snapshots of connections that go on


def _holds_snapshots(head: bytes) -> bool:
    names = "|".join(_SNAPSHOTS).encode()
    paths = rb'^#path.(?:[^\n]*/)?|"_path"\s*:\s*"(?:[^"\n]*/)?'
    return re.search(rb"(?m:%b)(%b)" % (paths, names), head) is not None


def _last_snapshots(source: Source, tally: Tally) -> Iterator[RawBatch]:
    """Yields the last line of each connection.

    Memory is bounded: when more than `_MAX_CONNECTIONS` are found, the source is read again from
    the start for each of several shares of them.

    Raises:
        SourceError: A pipe, which can be read once only, holds more.
    """
    share, shares = 0, 1
    while share < shares:
        counts = Tally(unit="records")
        latest = _latest(
            _batches(source.head, source.stream(), counts, snapshots=True), share, shares
        )
        if latest is None:
            if source.is_pipe:
                raise SourceError(
                    "This Zeek log of snapshots holds too many connections for a pipe; give a file."
                )
            share, shares = 2 * share, 2 * shares
            continue
        batches, superseded = latest
        if share == 0:
            tally.read += counts.read
            tally.dropped.update(counts.dropped)
        tally.dropped.update({Reason.SUPERSEDED.label: superseded} if superseded else {})
        share += 1
        yield from batches


def _latest(
    batches: Iterable[RawBatch], share: int, shares: int
) -> tuple[list[RawBatch], int] | None:
    """Returns the last rows of a share of the connections, and how many rows they superseded.

    None when they are more than memory should hold.
    """
    held: list[RawBatch] = []
    found, rows, limit = 0, 0, _SETTLE
    for batch in batches:
        mine = batch.only(_connections(batch) // np.uint64(2**63 // shares) == share)
        held.append(mine)
        found += len(mine)
        rows += len(mine)
        if rows > limit:
            held = [_last_only(joined(held))]
            rows = len(held[0])
            limit = max(limit, 2 * rows)
            if rows > _MAX_CONNECTIONS:
                return None
    held = [_last_only(joined(held))] if held else []
    return held, found - sum(map(len, held))


def _last_only(batch: RawBatch) -> RawBatch:
    """Returns, of each connection, the row that tells of the longest time; the last of equals."""
    keys = _connections(batch)
    order = np.lexsort((np.arange(len(keys)), np.maximum(batch.a.last, batch.b.last), keys))
    last = np.ones(len(keys), dtype=np.bool_)
    last[order[:-1]] = keys[order[1:]] != keys[order[:-1]]
    return batch.only(last)


def _connections(batch: RawBatch) -> U64:
    """Returns a 63-bit hash of the addresses, ports, protocol and start, which no snapshot alters.

    It serves where a log has no uid, too.
    """
    start = np.where(batch.a.first != NEVER, batch.a.first, batch.b.first - 1)
    value = np.full(len(batch), 0xCBF29CE484222325, np.uint64)
    for part in (
        batch.a_hi,
        batch.a_lo,
        batch.b_hi,
        batch.b_lo,
        batch.a_port,
        batch.b_port,
        batch.protocol,
        start,
    ):
        value = (value ^ part.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(29)
    hashes: U64 = value >> np.uint64(1)
    return hashes


# -- tab-separated text


@dataclass(frozen=True, slots=True)
class _Header:
    """What the header lines met so far say about the lines that follow.

    Attributes:
        separator: Between fields.
        unset: Text of a field without a value.
        names: Fields in order; None before the first header.
        spare: How many of the last names may be missing. Labelled logs name three columns in
            one, parted by spaces, and fill them either way.
        bare: The header had lost its `#`, and may return among the lines.
        snapshots: Whether the source is read as snapshots of connections.
    """

    separator: bytes = b"\t"
    unset: str = "-"
    names: tuple[str, ...] | None = None
    spare: int = 0
    bare: bool = False
    snapshots: bool = False


def _is_text(head: bytes) -> bool:
    return head.removeprefix(BOM).lstrip().startswith(b"#separator ") or (
        re.search(rb"^(#fields\t|(.*\t)?id[._]orig_h\t)", head, re.MULTILINE) is not None
    )


def _text_tables(pieces: Iterable[bytes], snapshots: bool, tally: Tally) -> Iterator[Table]:
    header = _Header(snapshots=snapshots)
    for chunk in pieces:
        # Lines of equal header are gathered, so that a log of thousands of rotated parts
        # costs no more than one.
        runs: dict[_Header, list[bytes]] = {}
        for run in _runs(chunk):
            if run.startswith(b"#"):
                header = _after(header, run.rstrip(b"\r\n"))
                continue
            if header.names is None:
                header, run = _bare_header(header, run, tally)
            if header.names is not None:
                runs.setdefault(header, []).append(run)
        for run_header, parts in runs.items():
            yield _text_table(run_header, b"".join(parts), tally)
    if header.names is None:
        raise SourceError("This Zeek log has no #fields line; give the log with its header.")


def _runs(chunk: bytes) -> Iterator[bytes]:
    """Yields header lines one by one, and the lines between them together."""
    data = np.frombuffer(chunk, dtype=np.uint8)
    hashes = np.flatnonzero(data == ord("#"))
    start = 0
    for at in hashes[(hashes == 0) | (data[hashes - 1] == ord("\n"))]:
        if at > start:
            yield chunk[start:at]
        start = chunk.index(b"\n", at) + 1
        yield chunk[at:start]
    if start < len(chunk):
        yield chunk[start:]


def _after(header: _Header, line: bytes) -> _Header:
    if line.startswith(b"#separator "):
        separator = _unescaped(line.removeprefix(b"#separator "))
        if len(separator) != 1 or separator in b"\r\n#":
            raise SourceError(
                "The #separator line names no single character; export the log with one."
            )
        return replace(header, separator=separator)
    key, _, value = line.partition(header.separator)
    if key == b"#unset_field":
        return replace(header, unset=value.decode("utf-8", "replace"))
    if key == b"#path":
        _check_path(value.decode("utf-8", "replace"), header.snapshots)
    if key == b"#fields":
        return _named(header, value)
    return header


def _unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda m: bytes.fromhex(m[1].decode()), text)


def _bare_header(header: _Header, run: bytes, tally: Tally) -> tuple[_Header, bytes]:
    """Looks for a header line without its `#`; lines before it cannot be read."""
    found = re.search(rb"^(.*\t)?id[._]orig_h\t.*$", run, re.MULTILINE)
    drop(tally, Reason.MALFORMED_ROW, filled(run[: found.start()] if found else run))
    if found is None:
        return header, b""
    return replace(_named(header, found[0].rstrip(b"\r")), bare=True), run[found.end() + 1 :]


def _named(header: _Header, value: bytes) -> _Header:
    names = [name.decode("utf-8", "replace") for name in value.split(header.separator)]
    last = names.pop().split()
    names = [_ALIASES.get(name, name) for name in names + last]
    if len(names) > _MAX_FIELDS:
        raise SourceError(f"The #fields line names more than {_MAX_FIELDS} fields; mend it.")
    _check_fields(set(names))
    return replace(header, names=tuple(names), spare=max(len(last) - 1, 0), bare=False)


def _text_table(header: _Header, lines: bytes, tally: Tally) -> Table:
    assert header.names is not None
    fields = Fields(header.names, header.separator, spare=header.spare, unset=header.unset)
    wanted = {name: name for name in _WANTED if name in header.names}
    table = table_of_lines(lines, fields, wanted, tally)
    if header.bare:
        table = table.only(looked_up(table.get("ts"), {"ts": 1}) == UNKNOWN)
    return table


# -- JSON Lines


def _is_json(head: bytes) -> bool:
    return any(
        (row := json_object(line)) is None or _is_row(row)
        for line in head.splitlines()
        if line.lstrip().startswith(b"{") and (b'orig_h"' in line or b'"_path"' in line)
    ) or any_object(head, _is_row)


def _is_row(row: Mapping[str, object]) -> bool:
    """Returns whether an object is a line of a log, and does not only hold one."""
    ends = any(json_value(row, key) is not None for key in ("orig_h", *_JSON["id.orig_h"]))
    return ends or {"_path", "ts"} <= row.keys()


def _check_keys(head: bytes, snapshots: bool) -> None:
    """Refuses another log, and lines that never hold what a record needs."""
    rows = [row for line in head.splitlines() if (row := json_object(line))]
    rows = rows or list(first_objects(head))
    # Who ships logs to a collector mixes all kinds in one stream.
    rows = [row for row in rows if _is_of_connections(_path_of(row))] or rows
    rows = [row for row in rows if not _is_of_another_log(row)] or rows
    if rows:
        for row in rows:
            _check_path(_path_of(row), snapshots)
        found = {
            name
            for name, keys in _JSON.items()
            if any(json_value(row, key) is not None for row in rows for key in keys)
        }
        _check_fields(found | {name for row in rows for name in row})


def _path_of(row: Mapping[str, object]) -> str:
    return str(row.get("_path", "conn"))


def _json_table(lines: bytes, snapshots: bool, tally: Tally) -> Table:
    table = table_of_json(lines, _JSON)
    other = _told(table, ("ts",)) & ~_told(table, ("_path", *_STATED))
    other &= _told(table, _ELSEWHERE) | ~_told(table, ("proto",))
    drop(tally, Reason.NOT_A_RECORD, int(other.sum()))
    table = table.only(~other)
    others = {}
    for path in table.get("_path").distinct():
        if _is_of_connections(path or "conn"):
            _check_path(path or "conn", snapshots)
        else:
            others[path] = 1
    if others:
        other = looked_up(table.get("_path"), others) == 1
        drop(tally, Reason.NOT_A_RECORD, int(other.sum()))
        table = table.only(~other)
    return table


def _is_of_another_log(row: Mapping[str, object]) -> bool:
    """Returns whether a row without a path is of another log; `_json_table` asks the same."""

    def told(names: tuple[str, ...]) -> bool:
        return any(row.get(name) is not None for name in names)

    return (
        told(("ts",))
        and not told(("_path", *_STATED))
        and (told(_ELSEWHERE) or not told(("proto",)))
    )


def _told(table: Table, names: tuple[str, ...]) -> Flags:
    """Returns the rows in which one of some fields has a value."""
    columns = [table.get(name) for name in names]
    told: Flags = np.any([column.ends > column.starts for column in columns], axis=0)
    return told


# -- refusals


def _is_of_connections(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(("conn", *_SNAPSHOTS))


def _check_path(path: str, snapshots: bool = True) -> None:
    """Refuses another log by its name, if the name is one of Zeek's own."""
    name = path.rsplit("/", 1)[-1]
    if name.startswith(_SNAPSHOTS) and not snapshots:
        raise SourceError(
            "This Zeek log mixes connections and snapshots of them; give each as a file of its own."
        )
    if _is_of_connections(path):
        return
    kind = f"a Zeek {name} log" if _LOGS.fullmatch(name) else "another log of Zeek"
    raise SourceError(f"This is {kind}; only conn logs hold records.")


def _check_fields(names: set[str]) -> None:
    for sign, log in _SIGNS.items():
        if sign in names:
            _check_path(log)
    missing = [name for name in _MANDATORY if name not in names]
    if missing:
        raise SourceError(
            f"This Zeek log lacks the fields {', '.join(missing)}; give a conn log that has them."
        )


# -- from text to numbers


def _batch(table: Table, tally: Tally) -> RawBatch:
    """Makes a raw batch of the readable rows and counts all."""
    numbers = Numbers(table)
    first = numbers.times("ts")
    src = addresses(table.get("id.orig_h"))
    protocol = _protocols(numbers, src)
    columns = Columns(
        src=src,
        dst=addresses(table.get("id.resp_h")),
        src_port=numbers.ports("id.orig_p"),
        dst_port=numbers.ports("id.resp_p"),
        protocol=protocol,
        first=first,
        last=first + np.maximum(numbers.durations("duration"), 0),
        a=_sent(numbers, "orig", 0, _ORIGINATOR),
        b=_sent(numbers, "resp", 1, _RESPONDER),
    )
    return assembled(numbers, columns, tally)


def _protocols(numbers: Numbers, src: Addresses) -> I64:
    """Returns IANA numbers; `ip_proto` tells what `proto` has no name for."""
    protocol = numbers.protocols("proto", version6(src))
    if "ip_proto" not in numbers.table.columns:
        return protocol
    told = numbers.counts("ip_proto", 0xFF)
    return np.where((protocol <= 0) & (told >= 0), told, protocol)


def _sent(numbers: Numbers, name: str, side: int, letters: I64) -> Sent:
    """Returns what one side sent; flags come from the history, or else from the state."""
    found = numbers.letters("history", letters)
    told = found != UNKNOWN
    flags = np.where(found > 0, found, UNKNOWN)
    if not told.all():
        states = {state: bits[side] for state, bits in _STATES.items()}
        flags = np.where(told, flags, looked_up(numbers.table.get("conn_state"), states))
    return Sent(
        {
            "packets": numbers.counts(f"{name}_pkts"),
            "bytes": numbers.counts(f"{name}_ip_bytes"),
            "payload_bytes": numbers.counts(f"{name}_bytes"),
            "tcp_flags": flags,
        }
    )
