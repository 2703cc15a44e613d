"""Makes export messages by hand: NetFlow v1, v5, v7, v9, IPFIX and sFlow v5."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from capture_kit import Packet, border, ethernet, ip, pcap, udp

from telemetry.raw import RawBatch
from telemetry.readers import Session, find_reader, open_source
from telemetry.records import Tally

NOW = 1_750_000_000
"""Second of export, unless a message says otherwise."""
UPTIME = 1_000_000
VARIABLE = 65535
EXPORTER, COLLECTOR = "192.0.2.1", "192.0.2.9"
OUT, HOME = "8.8.8.8", "133.11.0.1"
OUT6, HOME6 = "2a00:1450::1", "2400:4050::1"


@dataclass(frozen=True)
class Field:
    """A field of a template.

    Attributes:
        element: Its number.
        width: Bytes, or VARIABLE.
        enterprise: Whose element it is, 0 for IANA's.
    """

    element: int
    width: int
    enterprise: int = 0

    def specified(self) -> bytes:
        """Returns what stands in a template."""
        if not self.enterprise:
            return struct.pack(">HH", self.element, self.width)
        return struct.pack(">HHI", self.element | 0x8000, self.width, self.enterprise)

    def encode(self, value: bytes | int | str, long: bool = False) -> bytes:
        """Returns what stands in a record; `long` takes three bytes for a variable length."""
        if isinstance(value, str):
            value = ipaddress.ip_address(value).packed
        if isinstance(value, int):
            width = (value.bit_length() + 7) // 8 if self.width == VARIABLE else self.width
            value = value.to_bytes(width, "big")
        if self.width == VARIABLE:
            long |= len(value) > 254
            head = struct.pack(">BH", 255, len(value)) if long else bytes([len(value)])
            return head + value
        assert len(value) == self.width
        return value


@dataclass(frozen=True)
class Template:
    """A template; of options when `scope` says how many fields, from the first, are its scope."""

    number: int
    fields: Sequence[Field]
    scope: int = 0

    def announced(self, kind: int) -> bytes:
        """Returns the set that announces it, padded to four bytes."""
        specified = b"".join(f.specified() for f in self.fields)
        if kind == 9 and self.scope:
            sizes = 4 * self.scope, 4 * (len(self.fields) - self.scope)
            head, number = struct.pack(">HHH", self.number, *sizes), 1
        elif self.scope:
            head, number = struct.pack(">HHH", self.number, len(self.fields), self.scope), 3
        else:
            head, number = struct.pack(">HH", self.number, len(self.fields)), 0 if kind == 9 else 2
        return a_set(number, head + specified)

    def data(self, *records: Sequence[bytes | int | str]) -> bytes:
        """Returns a set of records."""
        rows = (zip(self.fields, record, strict=True) for record in records)
        return a_set(self.number, b"".join(f.encode(value) for row in rows for f, value in row))


def a_set(number: int, body: bytes, pad: bool = True) -> bytes:
    """Makes a set of v9 or IPFIX."""
    body += bytes(-len(body) % 4 if pad else 0)
    return struct.pack(">HH", number, 4 + len(body)) + body


def withdrawal(template: int, number: int = 2) -> bytes:
    """Makes a set that withdraws an IPFIX template, or all under the id of the set."""
    return a_set(number, struct.pack(">HH", template, 0))


def v9(*sets: bytes, second: int = NOW, uptime: int = UPTIME, domain: int = 7) -> bytes:
    """Makes a NetFlow v9 message."""
    return struct.pack(">HHIIII", 9, len(sets), uptime, second, 1, domain) + b"".join(sets)


def ipfix(*sets: bytes, second: int = NOW, domain: int = 7) -> bytes:
    """Makes an IPFIX message."""
    body = b"".join(sets)
    return struct.pack(">HHIII", 10, 16 + len(body), second, 1, domain) + body


def message(kind: int, *sets: bytes, second: int = NOW, domain: int = 7) -> bytes:
    """Makes a message of v9 or IPFIX."""
    return (v9 if kind == 9 else ipfix)(*sets, second=second, domain=domain)


@dataclass(frozen=True)
class Fixed:
    """A record of v1, v5 or v7."""

    source: str = OUT
    target: str = HOME
    packets: int = 3
    octets: int = 200
    first: int = UPTIME - 5000
    last: int = UPTIME - 1000
    ports: tuple[int, int] = (443, 50000)
    flags: int = 0x1B
    protocol: int = 6


def fixed(
    version: int,
    *records: Fixed,
    second: int = NOW,
    uptime: int = UPTIME,
    sampling: int = 0,
    short: bool = False,
) -> bytes:
    """Makes a message of v1, v5 or v7; a short one of v1 is as softflowd makes it."""
    head = struct.pack(">HHIII", version, len(records), uptime, second, 500_000_000)
    if version == 5:
        head += struct.pack(">IBBH", 1, 0, 0, sampling)
    elif version == 7:
        head += bytes(8)
    parts = []
    for r in records:
        ends = (ipaddress.ip_address(end).packed for end in (r.source, r.target))
        body = b"".join(ends) + bytes(8)
        body += struct.pack(">IIIIHH", r.packets, r.octets, r.first, r.last, *r.ports)
        if version == 1:
            body += struct.pack(">HBBB", 0, r.protocol, 0, r.flags) + bytes(7 if short else 11)
        else:
            body += struct.pack(">BBBB", 0, r.flags, r.protocol, 0)
            body += bytes(8 if version == 5 else 12)
        parts.append(body)
    return head + b"".join(parts)


def raw_header(frame: bytes, protocol: int = 1, wire: int | None = None) -> bytes:
    """Makes sFlow's record of a sampled header."""
    size = len(frame) if wire is None else wire
    return _xdr(1, struct.pack(">IIII", protocol, size, 0, len(frame)) + frame)


def sampled_ip(
    source: str, target: str, octets: int = 100, protocol: int = 6, flags: int = 2
) -> bytes:
    """Makes sFlow's record of the header fields of a sampled packet."""
    ends = [ipaddress.ip_address(end) for end in (source, target)]
    body = struct.pack(">II", octets, protocol) + b"".join(end.packed for end in ends)
    return _xdr(ends[0].version - 1 if ends[0].version == 4 else 4, body + _ports(flags))


def _ports(flags: int) -> bytes:
    return struct.pack(">IIII", 443, 50000, flags, 0)


def flow_sample(*records: bytes, rate: int = 1, expanded: bool = False) -> bytes:
    """Makes an sFlow flow sample."""
    if expanded:
        head = struct.pack(">IIIIIIIIIII", 1, 0, 3, rate, 10, 0, 0, 1, 0, 2, len(records))
    else:
        head = struct.pack(">IIIIIIII", 1, 3, rate, 10, 0, 1, 2, len(records))
    return _xdr(3 if expanded else 1, head + b"".join(records))


def counter_sample() -> bytes:
    """Makes an sFlow counter sample."""
    return _xdr(2, struct.pack(">III", 1, 3, 1) + _xdr(1, bytes(88)))


def sflow(*samples: bytes, agent: str = EXPORTER) -> bytes:
    """Makes an sFlow v5 message."""
    address = ipaddress.ip_address(agent)
    head = struct.pack(">II", 5, 1 if address.version == 4 else 2) + address.packed
    return head + struct.pack(">IIII", 0, 1, UPTIME, len(samples)) + b"".join(samples)


def _xdr(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(">II", kind, len(body)) + body


def carried(
    messages: Iterable[bytes],
    exporters: Sequence[str] = (EXPORTER,),
    time: int = NOW * 1_000_000,
    port: int = 2055,
) -> bytes:
    """Puts messages into a capture, from the exporters in turn."""
    packets = []
    for i, payload in enumerate(messages):
        source = exporters[i % len(exporters)]
        target = COLLECTOR if ":" not in source else "2001:db8::9"
        datagram = ip(source, target, 17, udp(40000, port, payload))
        packets.append(Packet(time + i, ethernet(datagram)))
    return pcap(packets)


@dataclass
class Read:
    """What the reader made of a source."""

    batches: list[RawBatch] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    name: str = ""

    def rows(self) -> list[dict[str, object]]:
        """Returns rows as dictionaries, `a.…` and `b.…` for the sides, addresses as text."""
        found = []
        for batch in self.batches:
            for i in range(len(batch)):
                row: dict[str, object] = {
                    "source": _text(batch.a_hi[i], batch.a_lo[i]),
                    "target": _text(batch.b_hi[i], batch.b_lo[i]),
                }
                for name in (
                    "a_port",
                    "b_port",
                    "protocol",
                    "sampling_rate",
                    "active_timeout",
                    "idle_timeout",
                ):
                    row[name] = int(getattr(batch, name)[i])
                for side in ("a", "b"):
                    for name in (
                        "packets",
                        "bytes",
                        "min_bytes",
                        "max_bytes",
                        "tcp_flags",
                        "first",
                        "last",
                    ):
                        row[f"{side}.{name}"] = int(getattr(getattr(batch, side), name)[i])
                found.append(row)
        return found

    def one(self) -> dict[str, object]:
        """Returns the only row."""
        (row,) = self.rows()
        return row


def _text(hi: int, lo: int) -> str:
    address = ipaddress.IPv6Address(int(hi) << 64 | int(lo))
    return str(address.ipv4_mapped or address)


def read(path: Path, data: bytes, session: Session | None = None) -> Read:
    """Reads a source with the reader that recognises it, and checks the counts."""
    path.write_bytes(data)
    return read_file(path, session)


def read_file(path: Path, session: Session | None = None) -> Read:
    """Reads a file with the reader that recognises it, and checks the counts."""
    session = session or Session(border())
    source, result = open_source(str(path)), Read()
    try:
        reader = find_reader(source, session)
        result.name = reader.name
        for batch in reader.read(source, session, result.tally):
            batch.check()
            assert len(batch)
            result.batches.append(batch)
    finally:
        source.close()
    return result
