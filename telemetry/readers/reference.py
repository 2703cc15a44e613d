"""The reference decoder: slow, obviously right, and none of the kernels' code.

It follows the rules that `decode` states, one packet at a time, in plain Python
on the header classes of dpkt; and it meters by definition: all packets of a key,
sorted, are cut at half-hour marks and at silences. Tests hold the kernels against
it; `--decoder dpkt` takes it instead of them. The whole capture and all of its
packets are held in memory.

dpkt is used header by header. Left to itself it opens what lies inside and hides
what it could not read; its pcap reader does not tell a cut file from a whole one,
and its pcapng reader knows one interface and fails on a comment that is not UTF-8.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import dpkt
import numpy as np

from telemetry.columns import BURST_US, CUT_US, IDLE_US
from telemetry.errors import SourceError
from telemetry.homeland import DOMESTIC, FOREIGN, IN_OUT, OUT_IN, OUT_OUT, SPECIAL, UNALLOCATED
from telemetry.homeland.border import Border
from telemetry.raw import NEVER, TUNNELS, UNKNOWN, Bursts, RawBatch, Side
from telemetry.readers.capture import CORRUPT_FROM_HERE, CUT_SHORT, LAST_TIME, LONGEST
from telemetry.readers.decode import LINK_NAMES
from telemetry.readers.source import Source
from telemetry.reasons import Reason
from telemetry.records import Tally

_VLAN = (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300)
_SNAP = b"\xaa\xaa\x03\0\0\0"
_EXTENSIONS = (0, 43, 44, 60)
_NOTHING = 59
_FRAGMENT = 44
_IPIP, _TCP, _IPV6, _GRE, _ICMP, _ICMP6 = 4, 6, 41, 47, 1, 58
_INSIDE = {_IPIP: 4, _IPV6: 6}
_PORT_HEADERS = {17: 8, 136: 8, 33: 12, 132: 12}  # UDP, UDP-Lite; DCCP, SCTP
_REQUEST_OF = {
    (_ICMP, 0): 8,
    (_ICMP, 14): 13,
    (_ICMP, 16): 15,
    (_ICMP, 18): 17,
    (_ICMP6, 129): 128,
    (_ICMP6, 140): 139,
}
_MOST_SIZE = 0xFFFF  # sizes of packets beyond this are stored as this
_MOST_INTERFACES = 4096


class _Drop(Exception):
    """A packet is not kept."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


class _Damaged(Exception):
    """The capture cannot be read on from here; holds the sentence that says so."""


class _Frame(NamedTuple):
    """One packet as a capture holds it.

    Attributes:
        data: Bytes captured.
        wire: Bytes it had on the wire.
        link: LINKTYPE_ number; None when the file does not say.
        time: Microseconds since 1970; None when out of range.
    """

    data: bytes
    wire: int
    link: int | None
    time: int | None


class _Part(NamedTuple):
    """What is left of a frame behind some header: bytes captured, and bytes on the wire."""

    data: bytes
    wire: int

    def after(self, size: int) -> _Part:
        return _Part(self.data[size:], self.wire - size)

    def until(self, size: int) -> _Part:
        return _Part(self.data[:size], min(self.wire, size))


class _Layer(NamedTuple):
    """One IP header. Addresses are 128-bit numbers, IPv4 under ::ffff:0:0/96."""

    version: int
    source: int
    target: int
    protocol: int
    total: int
    headers: int
    later_fragment: bool
    tunnel: str
    inside: _Part


class _Key(NamedTuple):
    """What packets of one record share; of the two sides, `a` is the endpoint."""

    a: int
    b: int
    a_port: int
    b_port: int
    protocol: int
    tunnel: str


class _Sent(NamedTuple):
    """One packet of a record: its time and what it adds to the side (0 or 1) that sent it."""

    time: int
    side: int
    bytes: int
    headers: int
    flags: int


@cache
def _plain(kind: Any) -> Any:
    """Returns a dpkt class that reads its fixed header and leaves the rest alone."""
    return type(kind)(f"Plain{kind.__name__}", (kind,), {"unpack": dpkt.Packet.unpack})


def _header(kind: Any, data: bytes, reason: Reason) -> Any:
    """Reads a header of dpkt; drops the packet when it is not all there."""
    if len(data) < kind.__hdr_len__:
        raise _Drop(reason)
    return _plain(kind)(data[: kind.__hdr_len__])


# Link layers


def _network_layer(frame: _Frame) -> tuple[_Part, int]:
    """Returns what follows the link layer, and the IP version; 0 to look at the packet."""
    part = _Part(frame.data, frame.wire)
    link = frame.link
    if link in (12, 14, 101):
        return part, 0
    if link == 228:
        return part, 4
    if link == 229:
        return part, 6
    if link in (0, 108):
        return part.after(4), _version_of_family(part.data)
    kinds = {1: dpkt.ethernet.Ethernet, 113: dpkt.sll.SLL, 276: dpkt.sll2.SLL2}
    if link not in kinds:
        raise _Drop(Reason.LINK_TYPE_UNSUPPORTED)
    kind = kinds[link]
    header = _header(kind, part.data, Reason.UNREADABLE_LINK)
    part = part.after(kind.__hdr_len__)
    if link == 1:
        return _behind_tags(part, header.type)
    if header.ethtype < 0x600:  # no length there: numbers of Linux's own
        raise _Drop(Reason.NOT_IP)
    return _behind_tags(part, header.ethtype)


def _behind_tags(part: _Part, ethertype: int) -> tuple[_Part, int]:
    """Steps over VLAN tags and SNAP."""
    while True:
        if ethertype in _VLAN:
            tag = _header(dpkt.ethernet.VLANtag8021Q, part.data, Reason.UNREADABLE_LINK)
            part, ethertype = part.after(4), tag.type
        elif ethertype < 0x600:
            if len(part.data) < 8 or part.data[:6] != _SNAP:
                raise _Drop(Reason.NOT_IP)
            ethertype = int.from_bytes(part.data[6:8], "big")
            part = part.after(8)
            if ethertype < 0x600:
                raise _Drop(Reason.NOT_IP)
        elif ethertype == dpkt.ethernet.ETH_TYPE_IP:
            return part, 4
        elif ethertype == dpkt.ethernet.ETH_TYPE_IP6:
            return part, 6
        else:
            raise _Drop(Reason.NOT_IP)


def _version_of_family(data: bytes) -> int:
    """Reads the address family of BSD null/loop, written in either byte order."""
    if len(data) < 4:
        raise _Drop(Reason.UNREADABLE_LINK)
    family = int.from_bytes(data[:4], "big")
    if family > 0xFFFF:
        family = int.from_bytes(data[:4], "little")
    if family == 2:
        return 4
    if family in (10, 23, 24, 28, 30):  # AF_INET6 of Linux, Windows and the BSDs
        return 6
    raise _Drop(Reason.NOT_IP)


# IP and what it carries


def _ip4(part: _Part, tunnel: str) -> _Layer:
    header = _header(dpkt.ip.IP, part.data, Reason.UNREADABLE_IP)
    size = 4 * header.hl
    total = header.len or part.wire
    if header.v != 4 or size < 20 or total < size:
        raise _Drop(Reason.UNREADABLE_IP)
    part = part.until(total)
    return _Layer(
        version=4,
        source=_mapped(header.src),
        target=_mapped(header.dst),
        protocol=header.p,
        total=total,
        headers=size,
        later_fragment=header.offset > 0,
        tunnel=tunnel,
        inside=part.after(size),
    )


def _mapped(address: bytes) -> int:
    return 0xFFFF << 32 | int.from_bytes(address, "big")


def _ip6(part: _Part, tunnel: str) -> _Layer:
    header = _header(dpkt.ip6.IP6, part.data, Reason.UNREADABLE_IP)
    total = header.plen + 40
    if header.plen == 0 and header.nxt != _NOTHING:
        total = part.wire
    if header.v != 6 or total < 40:
        raise _Drop(Reason.UNREADABLE_IP)
    part = part.until(total)
    inside, protocol, later = _behind_extensions(part.after(40), header.nxt)
    return _Layer(
        version=6,
        source=int.from_bytes(header.src, "big"),
        target=int.from_bytes(header.dst, "big"),
        protocol=protocol,
        total=total,
        headers=part.wire - inside.wire,
        later_fragment=later,
        tunnel=tunnel,
        inside=inside,
    )


def _behind_extensions(inside: _Part, protocol: int) -> tuple[_Part, int, bool]:
    """Returns (what follows, its protocol, whether this is a fragment after the first)."""
    while protocol in _EXTENSIONS:
        if len(inside.data) < 8:
            raise _Drop(Reason.UNREADABLE_TRANSPORT)
        if protocol == _FRAGMENT:
            fragment = _plain(dpkt.ip6.IP6FragmentHeader)(inside.data[:8])
            inside, protocol = inside.after(8), fragment.nxt
            if fragment.frag_off:
                return inside, protocol, True
        else:
            extension = _plain(dpkt.ip6.IP6OptsHeader)(inside.data[:2])
            inside, protocol = inside.after(8 * extension.len + 8), extension.nxt
    return inside, protocol, False


def _layers(part: _Part, version: int) -> list[_Layer]:
    """Opens tunnels; returns their IP headers from the outermost to the innermost."""
    layers = [_ip(part, version, "none")]
    while layers[-1].protocol in (_IPIP, _IPV6, _GRE):
        try:
            layers.append(_opened(layers[-1]))
        except _Drop as drop:
            if drop.reason is Reason.UNREADABLE_IP:
                raise _Drop(Reason.UNREADABLE_INNER) from None
            raise
    return layers


def _ip(part: _Part, version: int, tunnel: str) -> _Layer:
    if version == 0:
        version = part.data[0] >> 4 if part.data else 0
    if version == 4:
        return _ip4(part, tunnel)
    if version == 6:
        return _ip6(part, tunnel)
    raise _Drop(Reason.UNREADABLE_IP)


def _opened(outer: _Layer) -> _Layer:
    """Reads the IP header inside a tunnel."""
    if outer.later_fragment:
        raise _Drop(Reason.UNREADABLE_INNER)
    if outer.protocol == _GRE:
        return _ip(*_behind_gre(outer.inside), "gre")
    version = _INSIDE[outer.protocol]
    names = {(4, 4): "ipip", (6, 4): "4in6", (4, 6): "6in4", (6, 6): "6in6"}
    return _ip(outer.inside, version, names[outer.version, version])


def _behind_gre(part: _Part) -> tuple[_Part, int]:
    gre = _header(dpkt.gre.GRE, part.data, Reason.UNREADABLE_INNER)
    if gre.flags & dpkt.gre.GRE_RP or gre.v != 0:
        raise _Drop(Reason.UNREADABLE_INNER)
    size = 4
    for option in (dpkt.gre.GRE_CP, dpkt.gre.GRE_KP, dpkt.gre.GRE_SP):
        if gre.flags & option:
            size += 4
    versions = {dpkt.ethernet.ETH_TYPE_IP: 4, dpkt.ethernet.ETH_TYPE_IP6: 6}
    if gre.p not in versions:
        raise _Drop(Reason.UNREADABLE_INNER)
    return part.after(size), versions[gre.p]


def _transport(data: bytes, protocol: int) -> tuple[int, int, int, int]:
    """Returns (source port or type, target port or code, flags, header bytes)."""
    if protocol in (_ICMP, _ICMP6):
        if len(data) < 2:
            raise _Drop(Reason.UNREADABLE_TRANSPORT)
        return _REQUEST_OF.get((protocol, data[0]), data[0]), data[1], 0, 8
    if protocol != _TCP and protocol not in _PORT_HEADERS:
        return 0, 0, 0, 0
    if len(data) < 4:
        raise _Drop(Reason.UNREADABLE_TRANSPORT)
    source, target = struct.unpack(">HH", data[:4])
    if protocol != _TCP:
        return source, target, 0, _PORT_HEADERS[protocol]
    if len(data) < 14:  # the snap length cut the flags off
        return source, target, 0, 20
    tcp = _plain(dpkt.tcp.TCP)(data[:20].ljust(20, b"\0"))
    return source, target, tcp.flags & 0xFF, max(20, 4 * tcp.off)


# From a frame to a packet of a record


class _Decoder:
    """Decodes frames under one border."""

    def __init__(self, border: Border) -> None:
        self._class_of: Callable[[int], int] = cache(border.homeland.rules.class_of)
        self._allowed = border.allowed

    def packet(self, frame: _Frame) -> tuple[_Key, _Sent]:
        """Returns the record that a frame belongs to, and what it adds to it.

        Raises:
            _Drop: It is not kept.
        """
        if frame.time is None:
            raise _Drop(Reason.BAD_TIME)
        layers = _layers(*_network_layer(frame))
        at = self._deciding(layers)
        layer = layers[at]
        source, target = layer.source, layer.target
        if at > 0:
            source = self._subscriber(source, layers[at - 1].source)
            target = self._subscriber(target, layers[at - 1].target)
        self._judge(self._class_of(source), self._class_of(target))
        one = other = flags = transport = 0
        if layer is layers[-1] and not layer.later_fragment:
            one, other, flags, transport = _transport(layer.inside.data, layer.protocol)
        headers = min(layer.headers + transport, layer.total, 0xFFFF)
        has_ports = layer.protocol not in (_ICMP, _ICMP6)
        swap = self._swaps(source, target, has_ports and one > other)
        a, b = (target, source) if swap else (source, target)
        if swap and has_ports:
            one, other = other, one
        return (
            _Key(a, b, one, other, layer.protocol, layer.tunnel),
            _Sent(frame.time, int(swap), layer.total, headers, flags),
        )

    def _deciding(self, layers: list[_Layer]) -> int:
        """Returns the index of the innermost pair that is not special on both sides."""
        for at in reversed(range(len(layers))):
            pair = layers[at].source, layers[at].target
            if any(self._class_of(address) != SPECIAL for address in pair):
                return at
        raise _Drop(Reason.DOMESTIC)

    def _subscriber(self, address: int, outer: int) -> int:
        """Returns the tunnel's domestic end where an address behind it tells nothing."""
        behind = self._class_of(address) == SPECIAL and self._class_of(outer) == DOMESTIC
        return outer if behind else address

    def _judge(self, source: int, target: int) -> None:
        if UNALLOCATED in (source, target):
            raise _Drop(Reason.UNALLOCATED)
        directions = {(True, True): OUT_OUT, (True, False): OUT_IN, (False, True): IN_OUT}
        direction = directions.get((source == FOREIGN, target == FOREIGN))
        if direction is None:
            raise _Drop(Reason.DOMESTIC)
        if not direction & self._allowed:
            raise _Drop(Reason.DIRECTION_NOT_ALLOWED)

    def _swaps(self, source: int, target: int, to_lower_port: bool) -> bool:
        """Returns whether the target is the endpoint: the foreign address, or the lower one."""
        if self._class_of(target) != FOREIGN:
            return False
        if self._class_of(source) != FOREIGN:
            return True
        return to_lower_port if source == target else source > target


# From packets to records


def _segments(packets: list[_Sent]) -> Iterator[list[_Sent]]:
    """Cuts the packets of a key at half-hour marks and at silences."""
    packets = sorted(packets)
    cuts = [
        i
        for i, (one, other) in enumerate(pairwise(packets), start=1)
        if one.time // CUT_US != other.time // CUT_US or other.time - one.time > IDLE_US
    ]
    for start, end in pairwise([0, *cuts, len(packets)]):
        yield packets[start:end]


def _bursts(times: list[int]) -> list[tuple[int, int]]:
    """Returns first and last time of each group that no silence of `BURST_US` parts."""
    cuts = [i for i, (a, b) in enumerate(pairwise(times), start=1) if b - a >= BURST_US]
    return [(times[start], times[end - 1]) for start, end in pairwise([0, *cuts, len(times)])]


def _side(segments: list[list[_Sent]], side: int) -> Side:
    """Adds up what one side sent in each segment."""
    rows = []
    intervals: list[tuple[int, int]] = []
    offsets = [0]
    for segment in segments:
        sent = [packet for packet in segment if packet.side == side]
        times = [packet.time for packet in sent]
        sizes = [min(packet.bytes, _MOST_SIZE) for packet in sent]
        flags = 0
        for packet in sent:
            flags |= packet.flags
        rows.append(
            (
                len(sent),
                sum(packet.bytes for packet in sent),
                sum(packet.bytes - packet.headers for packet in sent),
                min(sizes, default=UNKNOWN),
                max(sizes, default=UNKNOWN),
                flags,
                min(times, default=NEVER),
                max(times, default=NEVER),
            )
        )
        if sent and len(bursts := _bursts(times)) > 1:
            intervals += bursts
        offsets.append(len(intervals))
    starts, ends = np.array(intervals, np.int64).reshape(-1, 2).T.copy()
    packets, size, payload, least, most, flag_bits, first, last = np.array(rows, np.int64).T.copy()
    bursts_of_all = Bursts(np.array(offsets, np.int64), starts, ends)
    return Side(packets, size, payload, least, most, flag_bits, first, last, bursts_of_all)


def _batch(records: dict[_Key, list[_Sent]]) -> RawBatch | None:
    """Makes one batch of all records; None when there are none."""
    pairs = [(key, segment) for key in records for segment in _segments(records[key])]
    if not pairs:
        return None
    segments = [segment for _, segment in pairs]
    keys = [key for key, _ in pairs]
    low = (1 << 64) - 1
    return RawBatch(
        a_hi=np.array([key.a >> 64 for key in keys], np.uint64),
        a_lo=np.array([key.a & low for key in keys], np.uint64),
        b_hi=np.array([key.b >> 64 for key in keys], np.uint64),
        b_lo=np.array([key.b & low for key in keys], np.uint64),
        a_port=np.array([key.a_port for key in keys], np.int64),
        b_port=np.array([key.b_port for key in keys], np.int64),
        protocol=np.array([key.protocol for key in keys], np.int64),
        tunnel=np.array([TUNNELS.index(key.tunnel) for key in keys], np.int64),
        sampling_rate=np.ones(len(keys), np.int64),
        a=_side(segments, 0),
        b=_side(segments, 1),
    )


# Captures


def _pcap_frames(data: bytes, tally: Tally) -> Iterator[_Frame]:
    """Yields the packets of a classic pcap file.

    Raises:
        SourceError: There is no whole header.
        _Damaged: The file is cut or corrupt behind the packets yielded.
    """
    pcap = dpkt.pcap
    if len(data) < 24:
        raise SourceError("The pcap file ends inside its header; there is nothing to read.")
    magic = int.from_bytes(data[:4], "big")
    kind = pcap.MAGIC_TO_PKT_HDR[magic]
    little = kind.__hdr_fmt__.startswith("<")
    link = (pcap.LEFileHdr if little else pcap.FileHdr)(data[:24]).linktype & 0xFFFF
    tally.linktypes.add(LINK_NAMES.get(link, f"linktype_{link}"))
    nano = magic in (pcap.TCPDUMP_MAGIC_NANO, pcap.PMUDPCT_MAGIC_NANO)
    at = 24
    while at < len(data):
        size = kind.__hdr_len__
        if len(data) - at < size:
            raise _Damaged(CUT_SHORT)
        header = kind(data[at : at + size])
        if header.caplen > LONGEST:
            raise _Damaged(CORRUPT_FROM_HERE)
        body = data[at + size : at + size + header.caplen]
        if len(body) < header.caplen:
            raise _Damaged(CUT_SHORT)
        at += size + header.caplen
        fraction = header.tv_usec // 1000 if nano else header.tv_usec
        time = header.tv_sec * 1_000_000 + fraction
        yield _Frame(body, max(header.len, header.caplen), link, time)


class _Interface(NamedTuple):
    """An interface of a pcapng section.

    Attributes:
        link: LINKTYPE_ number.
        snaplen: Most bytes captured of a packet; 0 for no limit.
        units: Ticks of its clock in a second; 0 when that makes no sense.
        offset: Seconds to add.
    """

    link: int
    snaplen: int
    units: int
    offset: int

    def time(self, ticks: int) -> int | None:
        """Returns microseconds since 1970, or None when out of range."""
        if not self.units:
            return None
        seconds, rest = divmod(ticks, self.units)
        if seconds > LAST_TIME // 1_000_000:
            return None
        time = (seconds + self.offset) * 1_000_000 + rest * 1_000_000 // self.units
        return time if 0 <= time < LAST_TIME else None


def _interface(order: str, body: bytes) -> _Interface:
    link, _, snaplen = struct.unpack(order + "HHI", body[:8])
    units, offset = 1_000_000, 0
    options = body[8:]
    while len(options) >= 4:
        code, length = struct.unpack(order + "HH", options[:4])
        value = options[4 : 4 + length]
        if code == dpkt.pcapng.PCAPNG_OPT_ENDOFOPT:
            break
        if code == dpkt.pcapng.PCAPNG_OPT_IF_TSRESOL and len(value) == 1:
            units = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
        if code == dpkt.pcapng.PCAPNG_OPT_IF_TSOFFSET and len(value) == 8:
            (offset,) = struct.unpack(order + "q", value)
        options = options[4 + length + -length % 4 :]
    if units >= 2**64 or abs(offset) > LAST_TIME // 1_000_000:
        return _Interface(link, snaplen, 0, 0)
    return _Interface(link, snaplen, units, offset)


def _pcapng_blocks(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yields (byte order, type, body) of each block of a pcapng file.

    Raises:
        _Damaged: The file is cut or corrupt behind the blocks yielded.
    """
    order = "<"
    at = 0
    while at < len(data):
        if len(data) - at < 12:
            raise _Damaged(CUT_SHORT)
        kind, size = struct.unpack(order + "II", data[at : at + 8])
        if kind == dpkt.pcapng.PCAPNG_BT_SHB:
            (magic,) = struct.unpack(">I", data[at + 8 : at + 12])
            if magic not in (dpkt.pcapng.BYTE_ORDER_MAGIC, dpkt.pcapng.BYTE_ORDER_MAGIC_LE):
                raise _Damaged(CORRUPT_FROM_HERE)
            order = ">" if magic == dpkt.pcapng.BYTE_ORDER_MAGIC else "<"
            (size,) = struct.unpack(order + "I", data[at + 4 : at + 8])
        least = 20 if kind in (dpkt.pcapng.PCAPNG_BT_SHB, dpkt.pcapng.PCAPNG_BT_IDB) else 12
        if size < least or size % 4 or size > LONGEST:
            raise _Damaged(CORRUPT_FROM_HERE)
        if len(data) - at < size:
            raise _Damaged(CUT_SHORT)
        if struct.unpack(order + "I", data[at + size - 4 : at + size])[0] != size:
            raise _Damaged(CORRUPT_FROM_HERE)
        yield order, kind, data[at + 8 : at + size - 4]
        at += size


def _pcapng_frames(data: bytes, tally: Tally) -> Iterator[_Frame]:
    """Yields the packets of a pcapng file.

    Raises:
        _Damaged: The file is cut or corrupt behind the packets yielded.
    """
    pcapng = dpkt.pcapng
    interfaces: list[_Interface] = []
    for order, kind, body in _pcapng_blocks(data):
        if kind == pcapng.PCAPNG_BT_SHB:
            interfaces = []
        elif kind == pcapng.PCAPNG_BT_IDB:
            interface = _interface(order, body)
            tally.linktypes.add(LINK_NAMES.get(interface.link, f"linktype_{interface.link}"))
            if len(interfaces) < _MOST_INTERFACES:
                interfaces.append(interface)
        elif kind == pcapng.PCAPNG_BT_SPB:
            yield _simple_packet(order, body, interfaces)
        elif kind in (pcapng.PCAPNG_BT_EPB, pcapng.PCAPNG_BT_PB):
            # The obsolete block has 16 bits of interface, then 16 bits of dropped packets.
            number = "I" if kind == pcapng.PCAPNG_BT_EPB else "Hxx"
            yield _packet(order, number, body, interfaces)


def _packet(order: str, number: str, body: bytes, interfaces: list[_Interface]) -> _Frame:
    if len(body) < 20:
        raise _Damaged(CORRUPT_FROM_HERE)
    which, high, low, captured, wire = struct.unpack(f"{order}{number}IIII", body[:20])
    data = body[20 : 20 + captured]
    if len(data) < captured:
        raise _Damaged(CORRUPT_FROM_HERE)
    if which >= len(interfaces):
        return _Frame(data, max(wire, captured), None, 0)
    interface = interfaces[which]
    return _Frame(data, max(wire, captured), interface.link, interface.time(high << 32 | low))


def _simple_packet(order: str, body: bytes, interfaces: list[_Interface]) -> _Frame:
    """Reads a packet of the first interface; it has no time."""
    if len(body) < 4:
        raise _Damaged(CORRUPT_FROM_HERE)
    (wire,) = struct.unpack(order + "I", body[:4])
    data = body[4 : 4 + wire]
    if not interfaces:
        return _Frame(data, wire, None, 0)
    if interfaces[0].snaplen:
        data = data[: interfaces[0].snaplen]
    return _Frame(data, wire, interfaces[0].link, None)


class ReferenceReader:
    """Reads pcap or pcapng as the kernels do, slowly; see `contract.Reader`."""

    gated = True

    def __init__(self, name: str) -> None:
        """Makes the reader of one format.

        Args:
            name: `pcap` or `pcapng`.
        """
        self.name = name
        self._frames = {"pcap": _pcap_frames, "pcapng": _pcapng_frames}[name]

    def recognises(self, head: bytes) -> bool:
        """Returns whether the source's first bytes are of this format."""
        if self.name == "pcap":
            return int.from_bytes(head[:4], "big") in dpkt.pcap.MAGIC_TO_PKT_HDR
        return head[:4] == b"\n\r\r\n" and head[8:12] in (b"\x1a+<M", b"M<+\x1a")

    def read(self, source: Source, border: Border, tally: Tally) -> Iterator[RawBatch]:
        """Yields all records of the capture in one batch; see `contract.Reader`."""
        decoder = _Decoder(border)
        records: dict[_Key, list[_Sent]] = defaultdict(list)
        try:
            for frame in self._frames(source.stream().read(), tally):
                tally.read += 1
                try:
                    key, packet = decoder.packet(frame)
                    records[key].append(packet)
                except _Drop as drop:
                    tally.dropped[drop.reason.label] += 1
        except _Damaged as damage:
            tally.damage = str(damage)
        tally.damage = source.damage or tally.damage
        batch = _batch(records)
        if batch is not None:
            yield batch
