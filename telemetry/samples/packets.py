"""From the description of a packet to its bytes, checksums included.

Layouts: Ethernet II with 802.1Q and 802.1ad tags; IPv4 (RFC 791) and IPv6 (RFC 8200);
TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792, RFC 4443); GRE (RFC 2784); IP in IP
(RFC 2003, RFC 2473, RFC 4213).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal

from telemetry.samples.plan import is_foreign, is_public

ICMP, TCP, UDP, GRE, ICMP6 = 1, 6, 17, 47, 58
IPV4_IN_IP, IPV6_IN_IP = 4, 41
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
SYN_OPTIONS = bytes.fromhex("020405780101 0402")
"""MSS 1400, two paddings, selective acknowledgement permitted."""
MACS = (bytes.fromhex("02cafe4a5001"), bytes.fromhex("02cafe4a5002"))
"""The border routers' link addresses (home side, far side): canaries too."""
MTU = 1500
HOP_LIMIT = 57


@dataclass(frozen=True, slots=True)
class Tunnel:
    """An outer header: `4in6`, `6in4` and the like follow from the versions."""

    src: str
    dst: str
    kind: Literal["ip", "gre"] = "ip"

    def back(self) -> Tunnel:
        """The same tunnel in the other direction."""
        return Tunnel(self.dst, self.src, self.kind)


@dataclass(frozen=True, slots=True)
class Packet:
    """One IP datagram before it is cut into fragments.

    Attributes:
        time: Microseconds since 1970.
        src: Source address of the innermost header.
        dst: Destination address of the innermost header.
        protocol: IANA number.
        src_port: Source port, or the ICMP type.
        dst_port: Destination port, or the ICMP code.
        length: Payload in bytes above the transport header.
        canary: What the payload repeats.
        flags: TCP flags.
        seq: TCP sequence number, or ICMP echo identifier and sequence.
        ack: TCP acknowledgement number.
        tunnels: Outer headers, outermost first.
        vlans: VLAN ids, outermost first.
    """

    time: int
    src: str
    dst: str
    protocol: int
    src_port: int
    dst_port: int
    length: int
    canary: bytes
    flags: int = 0
    seq: int = 0
    ack: int = 0
    tunnels: tuple[Tunnel, ...] = ()
    vlans: tuple[int, ...] = ()

    def deciding_pair(self) -> tuple[str, str]:
        """The innermost pair of addresses of which one is public, else the innermost."""
        pairs = [(t.src, t.dst) for t in self.tunnels] + [(self.src, self.dst)]
        for pair in reversed(pairs):
            if is_public(pair[0]) or is_public(pair[1]):
                return pair
        return pairs[-1]

    def direction(self) -> str:
        """`out_in`, `in_out`, `out_out` or `in_in`."""
        src, dst = self.deciding_pair()
        return f"{'out' if is_foreign(src) else 'in'}_{'out' if is_foreign(dst) else 'in'}"

    def addresses(self) -> set[str]:
        """All addresses of all headers."""
        return {self.src, self.dst} | {end for t in self.tunnels for end in (t.src, t.dst)}


@dataclass(frozen=True, slots=True)
class Noise:
    """A frame that is not IP, whole."""

    time: int
    kind: Literal["arp", "lldp"]
    frame: bytes


Item = Packet | Noise


@lru_cache(maxsize=65536)
def packed(address: str) -> bytes:
    """The address in network order, 4 or 16 bytes."""
    return ip_address(address).packed


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of whole data."""
    if len(data) % 2:
        data += b"\0"
    # One's complement addition of 16-bit words is addition modulo 65535.
    total = int.from_bytes(data, "big")
    return 0xFFFF - ((total % 0xFFFF) or (0xFFFF if total else 0))


def payload(packet: Packet) -> bytes:
    """The canary text repeated to the payload's length."""
    return (packet.canary * (packet.length // len(packet.canary) + 1))[: packet.length]


def _pseudo(src: bytes, dst: bytes, protocol: int, length: int) -> bytes:
    if len(src) == 4:
        return src + dst + struct.pack("!BBH", 0, protocol, length)
    return src + dst + struct.pack("!II", length, protocol)


def _transport(packet: Packet) -> bytes:
    src, dst, data = packed(packet.src), packed(packet.dst), payload(packet)
    if packet.protocol == TCP:
        options = SYN_OPTIONS if packet.flags & SYN else b""
        head = struct.pack(
            "!HHIIBBHHH",
            packet.src_port,
            packet.dst_port,
            packet.seq & 0xFFFFFFFF,
            packet.ack & 0xFFFFFFFF,
            (20 + len(options)) << 2,
            packet.flags,
            0xFAF0,
            0,
            0,
        )
        segment, where = head + options + data, 16
    elif packet.protocol == UDP:
        head = struct.pack("!HHHH", packet.src_port, packet.dst_port, 8 + len(data), 0)
        segment, where = head + data, 6
    else:
        head = struct.pack("!BBHI", packet.src_port, packet.dst_port, 0, packet.seq & 0xFFFFFFFF)
        segment, where = head + data, 2
    covered = b"" if packet.protocol == ICMP else _pseudo(src, dst, packet.protocol, len(segment))
    value = checksum(covered + segment)
    if packet.protocol == UDP and value == 0:
        value = 0xFFFF
    return segment[:where] + value.to_bytes(2, "big") + segment[where + 2 :]


def _ipv4(src: bytes, dst: bytes, protocol: int, body: bytes, ident: int, place: int) -> bytes:
    length = 20 + len(body)
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, ident, place, HOP_LIMIT, protocol, 0)
    value = checksum(head + src + dst)
    return head[:10] + value.to_bytes(2, "big") + src + dst + body


def _ip(src: bytes, dst: bytes, protocol: int, body: bytes, ident: int) -> list[bytes]:
    if len(src) == 16:
        head = struct.pack("!IHBB", 0x60000000, len(body), protocol, HOP_LIMIT)
        return [head + src + dst + body]
    step = (MTU - 20) // 8 * 8
    pieces = []
    for offset in range(0, max(1, len(body)), step):
        more = 0x2000 if offset + step < len(body) else 0
        part = body[offset : offset + step]
        pieces.append(_ipv4(src, dst, protocol, part, ident, more | offset >> 3))
    return pieces


def datagrams(packet: Packet) -> list[bytes]:
    """The IP packets on the wire: one, or the IPv4 fragments of a large datagram."""
    ident = (packet.time ^ packet.seq ^ packet.time >> 16) & 0xFFFF
    src, dst = packed(packet.src), packed(packet.dst)
    pieces = _ip(src, dst, packet.protocol, _transport(packet), ident)
    for tunnel in reversed(packet.tunnels):
        wrapped = []
        for piece in pieces:
            inner4 = piece[0] >> 4 == 4
            protocol, body = (IPV4_IN_IP if inner4 else IPV6_IN_IP), piece
            if tunnel.kind == "gre":
                protocol, body = GRE, struct.pack("!HH", 0, 0x0800 if inner4 else 0x86DD) + piece
            wrapped += _ip(packed(tunnel.src), packed(tunnel.dst), protocol, body, ident)
        pieces = wrapped
    return pieces


def ethernet(packet: Packet, datagram: bytes) -> bytes:
    """The frame, padded to the least length Ethernet carries."""
    kind = 0x0800 if datagram[0] >> 4 == 4 else 0x86DD
    inward = is_foreign(packet.deciding_pair()[0])
    head = MACS[0] + MACS[1] if inward else MACS[1] + MACS[0]
    for depth, vlan in enumerate(packet.vlans):
        tag = 0x88A8 if depth + 1 < len(packet.vlans) else 0x8100
        head += struct.pack("!HH", tag, vlan)
    return (head + struct.pack("!H", kind) + datagram).ljust(60, b"\0")


def cooked(packet: Packet, datagram: bytes) -> bytes:
    """The Linux cooked capture header (SLL, version 1) and the datagram."""
    kind = 0x0800 if datagram[0] >> 4 == 4 else 0x86DD
    inward = is_foreign(packet.deciding_pair()[0])
    head = struct.pack("!HHH", 0 if inward else 4, 1, 6) + MACS[1 if inward else 0] + b"\0\0"
    return head + struct.pack("!H", kind) + datagram


def arp(time: int, who: str, asks: str) -> Noise:
    """An ARP request (RFC 826) between the routers."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + MACS[0] + packed(who) + bytes(6)
    frame = b"\xff" * 6 + MACS[0] + b"\x08\x06" + body + packed(asks)
    return Noise(time, "arp", frame.ljust(60, b"\0"))


def lldp(time: int, name: bytes) -> Noise:
    """A link-layer discovery frame (IEEE 802.1AB) that tells the system's name."""

    def field(kind: int, value: bytes) -> bytes:
        return struct.pack("!H", kind << 9 | len(value)) + value

    body = field(1, b"\x04" + MACS[0]) + field(2, b"\x05" + b"xe-0/0/1") + field(3, b"\0\x78")
    frame = bytes.fromhex("0180c200000e") + MACS[0] + b"\x88\xcc" + body + field(5, name)
    return Noise(time, "lldp", (frame + field(0, b"")).ljust(60, b"\0"))
