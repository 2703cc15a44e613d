"""Zeek's connection log, as tab-separated text and as JSON Lines.

Both shapes become columns of texts (`_Texts`: bytes, and where each text starts and
ends): text logs by a kernel of ours, since this reader was half as fast with polars'
CSV reader in its place; JSON by polars. From there on one path leads to the raw
batch. Only the columns of `_WANTED` are looked at, so labels and names end here.

What a line cannot tell stays unknown:

* Zeek gives one start and one duration for both sides. Every side that sent
  something is given `first = ts` and `last = ts + duration`, the responder a
  microsecond later: its true first packet lies somewhere between, and who began
  must not be lost.
* A connection of which Zeek counts no packet on either side (bad checksums only)
  keeps the originator's times with counters of 0, so that it has a place in time.

Sources: the conn.log fields, histories and states of Zeek's `base/protocols/conn`
and the header of its ASCII writer.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from telemetry.errors import SourceError
from telemetry.homeland import Border
from telemetry.raw import I64, NEVER, TUNNELS, U64, UNKNOWN, RawBatch, Side
from telemetry.readers.source import Source
from telemetry.reasons import Reason
from telemetry.records import Tally

Flags = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_CHUNK = 4 << 20  # bytes parsed at once; also the longest line that is read
_MAX_FIELDS = 1000
_BOM = b"\xef\xbb\xbf"

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

_PROTOCOLS = {
    "unknown_transport": 0,
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "udp": 17,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmp6": 58,
    "ospf": 89,
    "sctp": 132,
}
_ICMP, _TCP, _ICMP6 = 1, 6, 58

_FIN, _SYN, _RST, _PSH, _ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_HISTORY = np.zeros((2, 256), dtype=np.int64)
"""Flags by side (0 originator, upper case; 1 responder, lower case) and letter."""
for _letter, _bits in {
    "S": _SYN,
    "H": _SYN | _ACK,
    "A": _ACK,
    "D": _PSH | _ACK,
    "F": _FIN | _ACK,
    "R": _RST,
}.items():
    _HISTORY[0, ord(_letter)] = _bits
    _HISTORY[1, ord(_letter.lower())] = _bits

_OPEN, _CLOSED = _SYN | _ACK, _SYN | _ACK | _FIN
_STATES = {
    "S0": (_SYN, 0),
    "S1": (_OPEN, _OPEN),
    "SF": (_CLOSED, _CLOSED),
    "REJ": (_SYN, _RST | _ACK),
    "S2": (_CLOSED, _OPEN),
    "S3": (_OPEN, _CLOSED),
    "RSTO": (_OPEN | _RST, _OPEN),
    "RSTR": (_OPEN, _OPEN | _RST),
    "RSTOS0": (_SYN | _RST, 0),
    "RSTRH": (0, _OPEN | _RST),
    "SH": (_SYN | _FIN, 0),
    "SHR": (0, _CLOSED),
}
"""Flags of both sides that a state implies, for logs without history."""

_MILLISECONDS = 10**17  # larger times, in microseconds, are Zeek's JSON::TS_MILLIS
_LARGEST = 2**53  # no connection counts more


@dataclass(frozen=True, slots=True)
class _Texts:
    """A column of texts in one array of bytes; text i is `data[starts[i]:ends[i]]`."""

    data: Bytes
    starts: I64
    ends: I64

    def __len__(self) -> int:
        return len(self.starts)

    def at(self, row: int) -> str:
        """Returns one text."""
        return self.data[self.starts[row] : self.ends[row]].tobytes().decode("utf-8", "replace")

    def only(self, rows: Flags) -> _Texts:
        """Returns the column of some rows."""
        return _Texts(self.data, self.starts[rows], self.ends[rows])


@dataclass(frozen=True, slots=True)
class _Table:
    """Columns by name, of equal length; `unset` stands for no value, as does no text."""

    columns: Mapping[str, _Texts]
    unset: str

    def __len__(self) -> int:
        return len(self.columns["ts"])

    def get(self, name: str) -> _Texts:
        """Returns a column; one that the log lacks holds empty texts."""
        if name in self.columns:
            return self.columns[name]
        nothing = np.zeros(len(self), dtype=np.int64)
        return _Texts(np.frombuffer(b"", dtype=np.uint8), nothing, nothing)

    def only(self, rows: Flags) -> _Table:
        """Returns the table of some rows."""
        if rows.all():
            return self
        return _Table({name: texts.only(rows) for name, texts in self.columns.items()}, self.unset)


class ZeekReader:
    """Reads conn logs of Zeek (and Bro), rotated, concatenated or cut."""

    name = "zeek"
    gated = False

    def recognises(self, head: bytes) -> bool:
        """Returns whether this is a log of Zeek, of any kind."""
        return _is_json(head) or _is_text(head)

    def read(self, source: Source, border: Border, tally: Tally) -> Iterator[RawBatch]:
        """Yields the log's records; side `a` is the originator.

        Raises:
            SourceError: It is another log of Zeek, or mandatory fields are missing.
        """
        tally.unit = "records"
        chunks = _chunks(source.stream(), tally)
        if _is_json(source.head):
            _check_keys(source.head)
            tables: Iterable[_Table] = map(_json_table, chunks)
        else:
            tables = _text_tables(chunks, tally)
        for table in tables:
            if len(table):
                yield _batch(table, tally)
        tally.damage = source.damage or tally.damage


READER = ZeekReader()


# -- lines


def _chunks(stream: IO[bytes], tally: Tally) -> Iterator[bytes]:
    """Yields whole lines in chunks, the last line ended by a newline too.

    A line longer than a chunk is counted as malformed and skipped.
    """
    rest = b""
    skipping = False
    while block := stream.read(_CHUNK):
        if skipping:
            _, newline, block = block.partition(b"\n")
            skipping = not newline
        cut = block.rfind(b"\n") + 1
        if cut:
            yield (rest + block[:cut]).removeprefix(_BOM)
            rest = block[cut:]
        else:
            rest += block
        if len(rest) > _CHUNK:
            _malformed(tally, 1)
            rest, skipping = b"", True
    if rest:
        yield (rest + b"\n").removeprefix(_BOM)


def _filled(lines: bytes) -> int:
    """Returns the number of lines that are not blank."""
    return sum(1 for line in lines.split(b"\n") if line.strip())


def _malformed(tally: Tally, lines: int) -> None:
    tally.read += lines
    if lines:
        tally.dropped[Reason.MALFORMED_ROW.label] += lines


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
    """

    separator: bytes = b"\t"
    unset: str = "-"
    names: tuple[str, ...] | None = None
    spare: int = 0
    bare: bool = False


def _is_text(head: bytes) -> bool:
    return head.removeprefix(_BOM).lstrip().startswith(b"#separator ") or (
        re.search(rb"^(#fields\t|(.*\t)?id[._]orig_h\t)", head, re.MULTILINE) is not None
    )


def _text_tables(chunks: Iterable[bytes], tally: Tally) -> Iterator[_Table]:
    header = _Header()
    for chunk in chunks:
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
        _check_path(value.decode("utf-8", "replace"))
    if key == b"#fields":
        return _named(header, value)
    return header


def _unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda m: bytes.fromhex(m[1].decode()), text)


def _bare_header(header: _Header, run: bytes, tally: Tally) -> tuple[_Header, bytes]:
    """Looks for a header line without its `#`; lines before it cannot be read."""
    found = re.search(rb"^(.*\t)?id[._]orig_h\t.*$", run, re.MULTILINE)
    _malformed(tally, _filled(run[: found.start()] if found else run))
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


def _text_table(header: _Header, lines: bytes, tally: Tally) -> _Table:
    assert header.names is not None
    data = np.frombuffer(lines, dtype=np.uint8)
    names = [name for name in _WANTED if name in header.names]
    slots = np.full(len(header.names), -1)
    for slot, name in enumerate(names):
        slots[header.names.index(name)] = slot
    starts = np.zeros((len(names), lines.count(b"\n")), dtype=np.int64)
    ends = np.zeros_like(starts)
    whole = np.zeros(starts.shape[1], dtype=np.bool_)
    rows = _split(data, ord(header.separator), slots, header.spare, starts, ends, whole)
    table = _Table(
        {n: _Texts(data, starts[i, :rows], ends[i, :rows]) for i, n in enumerate(names)},
        header.unset,
    )
    _malformed(tally, rows - int(whole[:rows].sum()))
    table = table.only(whole[:rows])
    if header.bare:
        table = table.only(_looked_up(table.get("ts"), {"ts": 1}) == UNKNOWN)
    return table


# -- JSON Lines


def _is_json(head: bytes) -> bool:
    lines = (line for line in head.splitlines() if line.lstrip().startswith(b"{"))
    return any(
        re.search(rb'"(id[._])?orig_h"', line) or (b'"_path"' in line and b'"ts"' in line)
        for line in lines
    )


def _check_keys(head: bytes) -> None:
    """Refuses another log, and lines that never hold what a record needs."""
    rows = [row for line in head.splitlines()[:200] if (row := _object(line))]
    if rows:
        for row in rows:
            _check_path(str(row.get("_path", "conn")))
        _check_fields({key for row in rows for key in row})


def _object(line: bytes) -> dict[str, Any] | None:
    """Returns the line's fields with the names of the text log, or None if it has none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    if isinstance(ends := row.get("id"), dict):
        row |= {f"id.{end}": ends[end] for end in _ENDS if end in ends}
    return row | {name: row[alias] for alias, name in _ALIASES.items() if alias in row}


def _json_table(lines: bytes) -> _Table:
    names = [*_WANTED, "_path"]
    if b'"id_orig_h"' in lines:
        for alias, name in _ALIASES.items():
            lines = lines.replace(f'"{alias}"'.encode(), f'"{name}"'.encode())
    frame = None
    with suppress(pl.exceptions.PolarsError):  # some line is broken
        frame = pl.read_ndjson(lines, schema=dict.fromkeys(names, pl.String()))
    if frame is None or frame["id.orig_h"].has_nulls() or frame.height != lines.count(b"\n"):
        frame = _slow_json_frame(lines, names)
    for path in frame["_path"].drop_nulls().unique():
        _check_path(path)
    return _Table({name: _texts(frame[name]) for name in _WANTED}, "-")


def _slow_json_frame(lines: bytes, names: list[str]) -> pl.DataFrame:
    """Reads line by line what polars cannot take at once: broken lines, other spellings."""
    rows = [_object(line) or {} for line in lines.split(b"\n") if line.strip()]
    return pl.DataFrame(
        {name: [_text(row.get(name)) for row in rows] for name in names},
        schema=dict.fromkeys(names, pl.String()),
    )


def _texts(column: pl.Series) -> _Texts:
    array = column.fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    first = array.offset
    # A copy is writable, as the kernels are compiled for.
    bounds = np.frombuffer(offsets, dtype=np.int64)[first : first + len(array) + 1].copy()
    return _Texts(np.frombuffer(data or b"", dtype=np.uint8), bounds[:-1], bounds[1:])


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # JSON can spell lone surrogates
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value) if abs(value) < _LARGEST else "overflow"
    return None if value is None else "no text"


# -- refusals


def _check_path(path: str) -> None:
    """Refuses another log by its name, if the name is one of Zeek's own."""
    name = path.rsplit("/", 1)[-1]
    if name.startswith("conn"):
        return
    if name.startswith("open_conn"):
        raise SourceError(
            "This is a Zeek open_conn log, snapshots of connections that go on; conn.log tells "
            "each of them once, when it ends."
        )
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


def _batch(table: _Table, tally: Tally) -> RawBatch:
    """Makes a raw batch of the readable rows and counts all."""
    numbers = _Numbers(table)
    first = numbers.times()
    last = first + numbers.durations()
    a_hi, a_lo, a_known = _addresses(table.get("id.orig_h"))
    b_hi, b_lo, b_known = _addresses(table.get("id.resp_h"))
    protocol = numbers.protocols((a_hi != 0) | (a_lo >> np.uint64(32) != 0xFFFF))
    seen, flags = numbers.flags(protocol)
    a = _side(numbers, "orig", first, last, seen[0], flags[0])
    b = _side(numbers, "resp", first + 1, np.maximum(last, first + 1), seen[1], flags[1])
    silent = (a.first == NEVER) & (b.first == NEVER)
    a.first[silent], a.last[silent] = first[silent], last[silent]
    rows = len(table)
    batch = RawBatch(
        a_hi=a_hi,
        a_lo=a_lo,
        b_hi=b_hi,
        b_lo=b_lo,
        a_port=numbers.ports("id.orig_p"),
        b_port=numbers.ports("id.resp_p"),
        protocol=protocol,
        tunnel=np.full(rows, TUNNELS.index("none")),
        sampling_rate=np.ones(rows, dtype=np.int64),
        a=a,
        b=b,
    )
    known = a_known & b_known
    _malformed(tally, int(numbers.bad.sum()))
    keep = known & ~numbers.bad
    tally.read += rows - int(numbers.bad.sum())
    if nowhere := int((~known & ~numbers.bad).sum()):
        tally.dropped[Reason.NO_ADDRESS.label] += nowhere
    return batch if keep.all() else _taken(batch, keep)


def _side(numbers: _Numbers, name: str, first: I64, last: I64, seen: Flags, flags: I64) -> Side:
    """Returns what one side sent; `seen` tells whether history or state show it."""
    packets = numbers.counts(f"{name}_pkts")
    octets = numbers.counts(f"{name}_ip_bytes")
    payload = numbers.counts(f"{name}_bytes")
    sent = (packets > 0) | ((packets == UNKNOWN) & ((octets > 0) | (payload > 0) | seen))
    none = packets == 0
    rows = len(packets)
    return Side(
        packets=packets,
        bytes=np.where(none, 0, octets),
        payload_bytes=np.where(none, 0, payload),
        min_bytes=np.full(rows, UNKNOWN),
        max_bytes=np.full(rows, UNKNOWN),
        tcp_flags=np.where(none, 0, flags),
        first=np.where(sent, first, NEVER),
        last=np.where(sent, last, NEVER),
    )


def _taken(batch: RawBatch, keep: Flags) -> RawBatch:
    def of(part: RawBatch | Side) -> dict[str, Any]:
        values = {field.name: getattr(part, field.name) for field in fields(part)}
        return {n: v[keep] if isinstance(v, np.ndarray) else v for n, v in values.items()}

    return RawBatch(**of(batch) | {"a": Side(**of(batch.a)), "b": Side(**of(batch.b))})


class _Numbers:
    """Turns the columns of a table into numbers.

    Attributes:
        bad: Rows in which some field did not parse; grows with every conversion.
    """

    def __init__(self, table: _Table) -> None:
        self._table = table
        self._unset = np.frombuffer(table.unset.encode(), dtype=np.uint8)
        self.bad: Flags = np.zeros(len(table), dtype=np.bool_)

    def times(self) -> I64:
        """Returns `ts` in microseconds since 1970; rows without one are bad.

        It is read as seconds, as Zeek's JSON::TS_MILLIS, or as ISO 8601.
        """
        micros = self._decimals("ts", 6)
        late = micros >= _MILLISECONDS
        micros[late] = (micros[late] + 500) // 1000
        self.bad |= micros == UNKNOWN
        return micros

    def durations(self) -> I64:
        """Returns durations in microseconds, 0 where unset."""
        micros = self._decimals("duration", 6)
        self.bad |= micros >= _MILLISECONDS
        return np.where(micros == UNKNOWN, 0, micros)

    def counts(self, name: str) -> I64:
        """Returns whole numbers, UNKNOWN where unset."""
        counts = self._decimals(name, 0)
        self.bad |= counts > _LARGEST
        return counts

    def ports(self, name: str) -> I64:
        """Returns ports, or types and codes of ICMP; rows without are bad."""
        ports = self._decimals(name, 0)
        self.bad |= (ports < 0) | (ports > 0xFFFF)
        return ports

    def protocols(self, version6: Flags) -> I64:
        """Returns IANA numbers; ICMP is that of the address family."""
        protocol = _looked_up(self._table.get("proto"), _PROTOCOLS)
        if "ip_proto" in self._table.columns:
            told = self.counts("ip_proto")
            self.bad |= told > 0xFF
            protocol = np.where((protocol <= 0) & (told >= 0), told, protocol)
        self.bad |= protocol == UNKNOWN
        return np.where((protocol == _ICMP) & version6, _ICMP6, protocol)

    def flags(self, protocol: I64) -> tuple[list[Flags], list[I64]]:
        """Returns, for both sides, whether they are seen to send, and their TCP flags.

        Both come from the history, or from the state where a log has no history.
        Flags are 0 for other protocols, and UNKNOWN where neither tells.
        """
        history = self._table.get("history")
        letters = np.zeros((2, len(history)), dtype=np.int64)
        told = _letter_flags(history.data, history.starts, history.ends, self._unset, letters)
        seen, flags = [], []
        for side, found in enumerate(letters):
            implied = np.full(len(history), UNKNOWN)
            if not told.all():
                states = {state: bits[side] for state, bits in _STATES.items()}
                implied = _looked_up(self._table.get("conn_state"), states)
            known = np.where(told, np.where(found > 0, found, UNKNOWN), implied)
            seen.append(known > 0)
            flags.append(np.where(protocol == _TCP, known, 0))
        return seen, flags

    def _decimals(self, name: str, places: int) -> I64:
        """Returns numbers of 0 or more times 10**places, UNKNOWN where unset or bad."""
        texts = self._table.get(name)
        values = np.zeros(len(texts), dtype=np.int64)
        odd = _decimals(texts.data, texts.starts, texts.ends, self._unset, places, values)
        for row in np.flatnonzero(odd):
            value = _odd_number(texts.at(int(row)), places, dated=name == "ts")
            self.bad[row] |= value == _UNREADABLE
            values[row] = max(value, UNKNOWN)
        return values


_UNREADABLE = -2


def _odd_number(text: str, places: int, dated: bool) -> int:
    """Reads what is no plain decimal: exponents, ISO 8601, `(empty)`, or no number."""
    if text in ("-", "(empty)"):
        return UNKNOWN
    try:
        value = float(text) * 10**places
    except ValueError:
        value = _moment(text) if dated else -1.0
    whole = round(value) if 0 <= value < 2**62 else _UNREADABLE
    return _UNREADABLE if places == 0 and whole != value else whole


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return -1.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _looked_up(texts: _Texts, table: Mapping[str, int]) -> I64:
    """Returns what the table says of each text, UNKNOWN for others."""
    hashes = {int(_hash(np.frombuffer(k.encode(), np.uint8), 0, len(k))): k for k in table}
    keys = np.array(sorted(hashes), dtype=np.uint64)
    values = np.array([table[hashes[int(key)]] for key in keys], dtype=np.int64)
    found = _hashes(texts.data, texts.starts, texts.ends)
    places = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
    return np.where(keys[places] == found, values[places], UNKNOWN)


def _addresses(texts: _Texts) -> tuple[U64, U64, Flags]:
    """Returns both halves of each address and whether it is one.

    Kernels read a.b.c.d and plain IPv6; what is left is read by `ipaddress`.
    """
    hi = np.zeros(len(texts), dtype=np.uint64)
    lo = np.zeros(len(texts), dtype=np.uint64)
    known = _parse_addresses(texts.data, texts.starts, texts.ends, hi, lo)
    for row in np.flatnonzero(~known):
        try:
            value = int(ipaddress.IPv6Address(texts.at(int(row))))
        except ValueError:
            continue
        hi[row], lo[row], known[row] = value >> 64, value & (1 << 64) - 1, True
    return hi, lo, known


# -- kernels


@njit(cache=True, nogil=True)
def _split(
    data: Bytes,
    separator: int,
    slots: I64,
    spare: int,
    starts: I64,
    ends: I64,
    whole: Flags,
) -> int:
    """Finds the fields of each line that is not blank; returns the number of lines.

    Args:
        data: Lines, each ended by a newline.
        separator: Byte between fields.
        slots: For each field its row in `starts` and `ends`, or -1.
        spare: How many of the last fields may be missing.
        starts: Written: where the field of a line starts, by slot and line.
        ends: Written: where it ends.
        whole: Written: whether the line has its number of fields.
    """
    line, field, start = 0, 0, 0
    for at in range(len(data)):
        byte = data[at]
        if byte != separator and byte != 10:
            continue
        end = at
        if byte == 10 and at > start and data[at - 1] == 13:
            end -= 1
        if field < len(slots) and slots[field] >= 0:
            starts[slots[field], line] = start
            ends[slots[field], line] = end
        field += 1
        first, start = start, at + 1
        if byte == 10:
            if field > 1 or end > first:
                whole[line] = len(slots) - spare <= field <= len(slots)
                line += 1
            field = 0
    return line


@njit(cache=True, nogil=True)
def _letter_flags(data: Bytes, starts: I64, ends: I64, unset: Bytes, flags: I64) -> Flags:
    """ORs what each letter stands for into `flags[side]`; returns which texts are set."""
    told = np.ones(len(starts), dtype=np.bool_)
    for row in range(len(starts)):
        if _is_unset(data, starts[row], ends[row], unset):
            told[row] = False
            continue
        for at in range(starts[row], ends[row]):
            flags[0, row] |= _HISTORY[0, data[at]]
            flags[1, row] |= _HISTORY[1, data[at]]
    return told


@njit(cache=True, nogil=True, inline="always")
def _is_unset(data: Bytes, start: int, end: int, unset: Bytes) -> bool:
    if start == end:
        return True
    if end - start != len(unset):
        return False
    same = True
    for i in range(len(unset)):
        same &= data[start + i] == unset[i]
    return same


@njit(cache=True, nogil=True)
def _decimals(data: Bytes, starts: I64, ends: I64, unset: Bytes, places: int, values: I64) -> Flags:
    """Writes plain decimals times 10**places, rounded, half up; UNKNOWN where unset.

    Returns:
        Texts that are no plain decimal, or, when `places` is 0, no whole number.
    """
    odd = np.zeros(len(starts), dtype=np.bool_)
    for row in range(len(starts)):
        if _is_unset(data, starts[row], ends[row], unset):
            values[row] = UNKNOWN
            continue
        value = np.int64(0)
        digits = 0
        after = -1  # decimals met; -1 before the point
        up = False
        for at in range(starts[row], ends[row]):
            digit = np.int64(data[at]) - 48
            if digit == -2 and after < 0 and digits > 0:
                after = 0
            elif digit < 0 or digit > 9:
                odd[row] = True
                break
            elif after < 0 or after < places:
                value = value * 10 + digit
                digits += 1
                if after >= 0:
                    after += 1
            else:
                up = up or bool(after == places and digit >= 5)
                odd[row] |= places == 0 and digit != 0
                after += 1
        after = max(after, 0)
        for _ in range(after, places):
            value *= 10
            digits += 1
        values[row] = value + (1 if up else 0)
        # 19 digits, for milliseconds with six places, may overflow to a negative number.
        odd[row] |= digits == 0 or digits > 19 or value < 0
    return odd


@njit(cache=True, nogil=True)
def _hash(data: Bytes, start: int, end: int) -> np.uint64:
    """Returns the 64-bit FNV-1a hash of a text."""
    value = np.uint64(0xCBF29CE484222325)
    for at in range(start, end):
        value = (value ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
    return value


@njit(cache=True, nogil=True)
def _hashes(data: Bytes, starts: I64, ends: I64) -> U64:
    hashes = np.empty(len(starts), dtype=np.uint64)
    for row in range(len(starts)):
        hashes[row] = _hash(data, starts[row], ends[row])
    return hashes


@njit(cache=True, nogil=True)
def _parse_addresses(data: Bytes, starts: I64, ends: I64, hi: U64, lo: U64) -> Flags:
    """Writes the halves of each address; returns which texts were read."""
    known = np.zeros(len(starts), dtype=np.bool_)
    groups = np.zeros(8, dtype=np.uint64)
    for row in range(len(starts)):
        value = _version4(data, starts[row], ends[row])
        if value >= 0:
            lo[row] = np.uint64(0xFFFF00000000 | value)
            known[row] = True
        elif _version6(data, starts[row], ends[row], groups):
            for i in range(4):
                hi[row] = hi[row] << np.uint64(16) | groups[i]
                lo[row] = lo[row] << np.uint64(16) | groups[i + 4]
            known[row] = True
    return known


@njit(cache=True, nogil=True)
def _version4(data: Bytes, start: int, end: int) -> np.int64:
    """Returns a.b.c.d without leading zeros as a number, or -1."""
    value, octet, dots = np.int64(0), np.int64(-1), 0  # octet -1: no digit yet
    if end - start > 15:
        return np.int64(-1)
    for at in range(start, end):
        digit = np.int64(data[at]) - 48
        if digit == -2 and octet >= 0:
            value = value * 256 + octet
            octet = np.int64(-1)
            dots += 1
        elif 0 <= digit <= 9 and octet != 0:
            octet = digit if octet < 0 else octet * 10 + digit
            if octet > 255:
                return np.int64(-1)
        else:
            return np.int64(-1)
    return value * 256 + octet if dots == 3 and octet >= 0 else np.int64(-1)


@njit(cache=True, nogil=True)
def _version6(data: Bytes, start: int, end: int, groups: U64) -> bool:
    """Writes the eight groups of an address in hexadecimal; returns whether it is one."""
    groups[:] = 0
    count, gap, digits = 0, -1, 0
    for at in range(start, end):
        byte = np.int64(data[at])
        if byte == 58:
            if digits > 0:
                count += 1
            elif at > start and data[at - 1] == 58 and gap < 0:
                gap = count
            elif at > start or at + 1 == end or data[at + 1] != 58:
                return False
            digits = 0
            continue
        if digits == 4 or count == 8:
            return False
        if 48 <= byte <= 57:
            digit = byte - 48
        elif 97 <= byte | 32 <= 102:
            digit = (byte | 32) - 87
        else:
            return False
        groups[count] = groups[count] << np.uint64(4) | np.uint64(digit)
        digits += 1
    if digits > 0:
        count += 1
    elif gap != count:
        return False
    if gap < 0:
        return count == 8
    if count == 8:
        return False
    for i in range(count - gap):
        groups[7 - i] = groups[count - 1 - i]
        groups[count - 1 - i] = 0
    return True
