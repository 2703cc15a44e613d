"""Frames, capture files and their reading, for the tests of packet readers.

Header fields can be set to anything, sense or nonsense, which no packet library allows.
"""

from __future__ import annotations

import io
import ipaddress
import struct
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa

from telemetry.columns import Layer, schema
from telemetry.homeland import IN_OUT, OUT_IN, OUT_OUT, Border, load
from telemetry.lake.merge import merge_segments
from telemetry.privacy import Gate, Keys
from telemetry.readers import Session, find_reader
from telemetry.readers.source import Source
from telemetry.records import Tally

ALL = OUT_IN | IN_OUT | OUT_OUT
TCP, UDP, ICMP, ICMP6, IPIP, IPV6, GRE, FRAGMENT = 6, 17, 1, 58, 4, 41, 47, 44
ETHERNET, RAW, NULL, LOOP, SLL, SLL2 = 1, 101, 0, 108, 113, 276
IP4_TYPE, IP6_TYPE = 0x0800, 0x86DD

# What these addresses are when home is Japan.
DOMESTIC4, DOMESTIC6 = "133.11.0.1", "2001:200::1"
FOREIGN4, FOREIGN6 = "8.8.8.8", "2a00:1450::1"
OTHER_FOREIGN4, OTHER_FOREIGN6 = "9.9.9.9", "2a00:1450::2"
SPECIAL4, SPECIAL6 = "192.168.1.2", "fd00::1"
UNALLOCATED4, UNALLOCATED6 = "5.249.168.1", "4000::1"

SECOND = 1_000_000
NOON = 1_760_011_200 * SECOND
"""A half-hour mark, in microseconds since 1970."""


class Packet(NamedTuple):
    """A packet of a capture: microseconds since 1970, bytes captured, bytes on the wire."""

    time: int
    data: bytes
    wire: int | None = None

    @property
    def length(self) -> int:
        return len(self.data) if self.wire is None else self.wire


# Headers


def ip4(
    source: str,
    target: str,
    protocol: int,
    payload: bytes = b"",
    *,
    total: int | None = None,
    fragment: int = 0,
    options: bytes = b"",
    first: int | None = None,
) -> bytes:
    """Makes an IPv4 packet; `fragment` holds the flags, too."""
    size = 20 + len(options)
    return (
        struct.pack(
            ">BBHHHBBH4s4s",
            0x40 | size // 4 if first is None else first,
            0,
            size + len(payload) if total is None else total,
            0,
            fragment,
            64,
            protocol,
            0,
            ipaddress.IPv4Address(source).packed,
            ipaddress.IPv4Address(target).packed,
        )
        + options
        + payload
    )


def ip6(
    source: str, target: str, following: int, payload: bytes = b"", *, length: int | None = None
) -> bytes:
    """Makes an IPv6 packet."""
    return (
        struct.pack(">IHBB", 6 << 28, len(payload) if length is None else length, following, 64)
        + ipaddress.IPv6Address(source).packed
        + ipaddress.IPv6Address(target).packed
        + payload
    )


def ip(source: str, target: str, protocol: int, payload: bytes = b"") -> bytes:
    """Makes a packet of the addresses' family."""
    return (ip6 if ":" in source else ip4)(source, target, protocol, payload)


def extension(following: int, payload: bytes, size: int = 8) -> bytes:
    """Makes a hop-by-hop, routing or destination header before the payload."""
    return bytes([following, size // 8 - 1]).ljust(size, b"\0") + payload


def fragment6(following: int, payload: bytes, offset: int, more: bool = True) -> bytes:
    """Makes an IPv6 fragment header; `offset` counts 8 bytes."""
    return struct.pack(">BxHI", following, offset << 3 | more, 7) + payload


def tcp(source: int, target: int, flags: int = 0x10, payload: bytes = b"", words: int = 5) -> bytes:
    """Makes a TCP segment whose header has `words` words."""
    header = struct.pack(">HHIIHHHH", source, target, 1, 2, words << 12 | flags, 512, 0, 0)
    return header.ljust(4 * words, b"\0") + payload


def udp(source: int, target: int, payload: bytes = b"") -> bytes:
    """Makes a UDP datagram."""
    return struct.pack(">HHHH", source, target, 8 + len(payload), 0) + payload


def icmp(kind: int, code: int = 0, payload: bytes = b"\0\1\0\1") -> bytes:
    """Makes an ICMP message."""
    return struct.pack(">BBH", kind, code, 0) + payload


def gre(ethertype: int, payload: bytes, flags: int = 0) -> bytes:
    """Makes a GRE header with the fields that its flags ask for."""
    fields = sum(4 for bit in (0x8000, 0x2000, 0x1000) if flags & bit)
    return struct.pack(">HH", flags, ethertype) + b"\1" * fields + payload


def ethernet(payload: bytes, ethertype: int | None = None, tags: Sequence[int] = ()) -> bytes:
    """Makes an Ethernet frame with VLAN tags of the types in `tags`."""
    types = [*tags, type_of(payload) if ethertype is None else ethertype]
    inner = b"".join(struct.pack(">HH", 7, kind) for kind in types[1:])
    return b"\2" * 12 + struct.pack(">H", types[0]) + inner + payload


def type_of(packet: bytes) -> int:
    """Returns the Ethernet type of an IP packet."""
    return IP6_TYPE if packet[0] >> 4 == 6 else IP4_TYPE


def linked(payload: bytes, link: int, ethertype: int | None = None) -> bytes:
    """Puts a link layer before a packet."""
    ethertype = type_of(payload) if ethertype is None else ethertype
    if link == ETHERNET:
        return ethernet(payload, ethertype)
    if link == SLL:
        return struct.pack(">HHH8sH", 0, 1, 6, b"\2" * 6, ethertype) + payload
    if link == SLL2:
        return struct.pack(">HHIHBB8s", ethertype, 0, 3, 1, 0, 6, b"\2" * 6) + payload
    if link in (NULL, LOOP):
        family = 30 if ethertype == IP6_TYPE else 2
        return struct.pack("<I" if link == NULL else ">I", family) + payload
    return payload


# Capture files


def pcap(
    packets: Iterable[Packet],
    link: int = ETHERNET,
    order: str = "<",
    nano: bool = False,
    modified: bool = False,
) -> bytes:
    """Makes a classic pcap file."""
    magic = 0xA1B23C4D if nano else 0xA1B2CD34 if modified else 0xA1B2C3D4
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)]
    for packet in packets:
        seconds, micro = divmod(packet.time, SECOND)
        fraction = 1000 * micro + 999 if nano else micro
        parts.append(
            struct.pack(order + "IIII", seconds, fraction, len(packet.data), packet.length)
            + b"\0" * (8 if modified else 0)
            + packet.data
        )
    return b"".join(parts)


def block(order: str, kind: int, body: bytes) -> bytes:
    """Makes a pcapng block."""
    body += b"\0" * (-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def option(order: str, code: int, value: bytes) -> bytes:
    """Makes a pcapng option."""
    return struct.pack(order + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def section(order: str = "<", options: bytes = b"") -> bytes:
    """Makes a section header."""
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + options)


class Interface(NamedTuple):
    """An interface of a pcapng section.

    Attributes:
        link: LINKTYPE_ number.
        snaplen: 0 for no limit.
        resolution: The byte of if_tsresol, or None to leave it out.
        offset: Seconds of if_tsoffset, or None to leave it out.
    """

    link: int = ETHERNET
    snaplen: int = 0
    resolution: int | None = None
    offset: int | None = None

    def block(self, order: str) -> bytes:
        """Makes the interface description."""
        options = option(order, 2, b"eth\xff0")
        if self.resolution is not None:
            options += option(order, 9, bytes([self.resolution]))
        if self.offset is not None:
            options += option(order, 14, struct.pack(order + "q", self.offset))
        body = struct.pack(order + "HHI", self.link, 0, self.snaplen)
        return block(order, 1, body + options + option(order, 0, b""))

    def ticks(self, time: int) -> int:
        """Returns what its clock shows, within 64 bits."""
        resolution = 6 if self.resolution is None else self.resolution
        units = (2 if resolution & 0x80 else 10) ** (resolution & 0x7F)
        ticks = (time - (self.offset or 0) * SECOND) * units // SECOND
        return min(max(ticks, 0), 2**64 - 1)


def enhanced(order: str, interface: int, ticks: int, packet: Packet, options: bytes = b"") -> bytes:
    """Makes an enhanced packet block."""
    words = (interface, ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), packet.length)
    padding = b"\0" * (-len(packet.data) % 4)
    return block(order, 6, struct.pack(order + "5I", *words) + packet.data + padding + options)


def obsolete(order: str, interface: int, ticks: int, packet: Packet) -> bytes:
    """Makes an obsolete packet block, with 9 packets dropped."""
    words = (interface, 9, ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), packet.length)
    return block(order, 2, struct.pack(order + "HH4I", *words) + packet.data)


def simple(order: str, packet: Packet) -> bytes:
    """Makes a simple packet block."""
    return block(order, 3, struct.pack(order + "I", packet.length) + packet.data)


# Reading


@cache
def border(
    country: str | None = "JP", prefixes: tuple[str, ...] = (), allowed: int = ALL
) -> Border:
    """Returns a border; country tables are read once."""
    return Border(load(country, prefixes), allowed)


@cache
def _keys() -> Keys:
    return Keys(bytes(range(32)))


class Reading(NamedTuple):
    """What came of a source: record segments as the lake would stage them, and counts."""

    segments: pa.Table
    tally: Tally


def read_source(
    source: Source, home: Border, decoder: str = "kernel", sensor: str = "link"
) -> Reading:
    """Reads a capture through the privacy gate."""
    tally = Tally()
    session = Session(home, decoder)
    reader = find_reader(source, session)
    gate = Gate(home, _keys(), sensor)
    tables = [gate.admit(batch, tally, True) for batch in reader.read(source, session, tally)]
    return Reading(pa.concat_tables([schema(Layer.RECORD).empty_table(), *tables]), tally)


def read(data: bytes, home: Border | None = None, decoder: str = "kernel") -> Reading:
    """Reads the bytes of a capture file."""
    with tempfile.TemporaryFile(buffering=0) as file:
        assert isinstance(file, io.FileIO)
        file.write(data)
        return read_source(Source("-", file), home or border(), decoder)


def merged(readings: Iterable[Reading]) -> pa.Table:
    """Merges segments as the lake does."""
    return merge_segments(pa.concat_tables([reading.segments for reading in readings]))


def rows(reading: Reading) -> list[dict[str, Any]]:
    """Returns the merged records of one reading."""
    return merged([reading]).to_pylist()


def assert_same(data: bytes, home: Border | None = None) -> Reading:
    """Asserts that kernel and reference decoder agree, and returns the kernel's reading."""
    kernel, reference = read(data, home), read(data, home, "dpkt")
    assert kernel.tally == reference.tally
    assert rows(kernel) == rows(reference)
    assert_conserved(kernel)
    return kernel


def assert_conserved(reading: Reading) -> None:
    """Asserts that every packet read is counted in a record or under a reason."""
    sent = (reading.segments[f"{side}_packets"].to_pylist() for side in ("endpoint", "peer"))
    dropped = sum(reading.tally.dropped.values())
    assert reading.tally.read == sum(map(sum, sent)) + dropped, reading.tally


class Decoder:
    """Reads frames with one of the two decoders."""

    def __init__(self, name: str) -> None:
        """Takes `kernel` or `dpkt`."""
        self.name = name

    def rows(self, *frames: bytes | Packet, home: Border | None = None, **file: Any) -> list[Any]:
        """Returns the records of frames, all of which must be kept."""
        reading = read(pcap(_timed(frames), **file), home, self.name)
        assert reading.tally.read == reading.tally.kept == len(frames), reading.tally
        return rows(reading)

    def row(self, *frames: bytes | Packet, home: Border | None = None, **file: Any) -> Any:
        """Returns the one record that frames make."""
        (row,) = self.rows(*frames, home=home, **file)
        return row

    def reason(self, frame: bytes | Packet, home: Border | None = None, **file: Any) -> str:
        """Returns why a frame is dropped."""
        reading = read(pcap(_timed([frame]), **file), home, self.name)
        assert reading.tally.read == 1
        assert not len(reading.segments)
        ((reason, count),) = reading.tally.dropped.items()
        assert count == 1
        return reason


def _timed(frames: Iterable[bytes | Packet]) -> list[Packet]:
    """Puts bare frames a second apart."""
    return [
        frame if isinstance(frame, Packet) else Packet(NOON + i * SECOND, frame)
        for i, frame in enumerate(frames)
    ]
