"""The reference decoder's IP headers, and its way from one of them to the next inside."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

import dpkt

from telemetry.readers.packets.reference_link import (
    Contradiction,
    NotIp,
    Part,
    Short,
    Step,
    by_type,
    ethernet,
    frame_relay,
    header,
    mpls,
    nsh,
    plain,
    ppp,
    skip,
    typed,
    walk,
    wlan,
)
from telemetry.reasons import Reason

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION, _NOTHING = 0, 43, 44, 60, 59
_EXTENSIONS = (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION)
_SEGMENT_ROUTING = 4
_JUMBO = 0xC2
_IPIP, _UDP, _IPV6, _GRE, _AH = 4, 17, 41, 47, 51
_ETHERIP, _L2TP, _MPLS, _ETHERNET = 97, 115, 137, 143
_MAY_HOLD_IP = (_IPIP, _IPV6, _GRE, _AH, _ETHERIP, _L2TP, _MPLS)
_MOST_LAYERS = 16
_CUT = -1


class Drop(Exception):
    """A packet is not kept."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


class Fragment(NamedTuple):
    """That a layer holds a piece of a datagram, and of which: protocol and identification."""

    first: bool
    protocol: int
    identification: int


class Layer(NamedTuple):
    """One IP header. Addresses are 128-bit numbers, IPv4 under ::ffff:0:0/96.

    Attributes:
        protocol: What follows; -1 when the snap length cut the headers that tell.
        total: Bytes of the datagram.
        headers: Bytes of its header, extensions included.
        fragment: None when it holds a whole datagram.
        segments: Whether a segment routing header (RFC 8754) stood there.
        tunnel: What carries it, a name of `telemetry.raw.TUNNELS`.
        inside: What follows the header.
    """

    version: int
    source: int
    target: int
    protocol: int
    total: int
    headers: int
    fragment: Fragment | None
    segments: bool
    tunnel: str
    inside: Part

    @property
    def later_fragment(self) -> bool:
        """Whether the datagram began in another packet."""
        return self.fragment is not None and not self.fragment.first

    @property
    def may_hold_ip(self) -> bool:
        """Whether its protocol is a tunnel by its number."""
        return self.protocol in _MAY_HOLD_IP or (self.protocol == _ETHERNET and self.version == 6)


def open_layers(part: Part, version: int) -> Iterator[Layer]:
    """Yields IP headers from the outermost to the innermost.

    Args:
        part: Begins with the outermost.
        version: Its version, or 0 to look at it.

    Raises:
        Drop: The next one should be there, and cannot be read.
    """
    layer = _ip(part, version, "none")
    for depth in count(1):
        yield layer
        if layer.protocol == _CUT:
            raise Drop(Reason.UNREADABLE_TRANSPORT)
        if layer.later_fragment:
            if layer.may_hold_ip:
                raise Drop(Reason.UNREADABLE_INNER)
            return
        found = _inside_udp(layer) if layer.protocol == _UDP else _inside(layer)
        if found is None:
            return
        kind, part, version = found
        if depth == _MOST_LAYERS:
            raise Drop(Reason.UNREADABLE_INNER)
        try:
            inner = _ip(part, version, kind)
        except Drop:
            raise Drop(Reason.UNREADABLE_INNER) from None
        layer = inner._replace(tunnel=_automatic(layer, inner) or kind)


# IP headers


def _ip(part: Part, version: int, tunnel: str) -> Layer:
    if version == 0:
        version = part.data[0] >> 4 if part.data else 0
    try:
        if version == 4:
            return _ip4(part, tunnel)
        if version == 6:
            return _ip6(part, tunnel)
    except (Short, Contradiction):
        pass
    raise Drop(Reason.UNREADABLE_IP)


def _ip4(part: Part, tunnel: str) -> Layer:
    ip = header(dpkt.ip.IP, part)
    size = 4 * ip.hl
    total = ip.len or part.wire
    if ip.v != 4 or size < 20 or total < size:
        raise Contradiction
    part = part.until(total)
    fragment = None
    if ip.offset or ip.mf:
        fragment = Fragment(ip.offset == 0, ip.p, ip.id)
    return Layer(
        version=4,
        source=_mapped(ip.src),
        target=_mapped(ip.dst),
        protocol=ip.p,
        total=total,
        headers=size,
        fragment=fragment,
        segments=False,
        tunnel=tunnel,
        inside=part.after(size),
    )


def _mapped(address: bytes) -> int:
    return 0xFFFF << 32 | int.from_bytes(address, "big")


def _ip6(part: Part, tunnel: str) -> Layer:
    ip = header(dpkt.ip6.IP6, part)
    total = ip.plen + 40
    if ip.plen == 0 and ip.nxt != _NOTHING:
        total = _jumbo(part.after(40), ip.nxt) or part.wire
    if ip.v != 6 or total < 40:
        raise Contradiction
    part = part.until(total)
    chain = _Chain(part.after(40), ip.nxt)
    return Layer(
        version=6,
        source=int.from_bytes(ip.src, "big"),
        target=int.from_bytes(ip.dst, "big"),
        protocol=chain.protocol,
        total=total,
        headers=part.wire - chain.rest.wire,
        fragment=chain.fragment,
        segments=chain.segments,
        tunnel=tunnel,
        inside=chain.rest,
    )


def _jumbo(part: Part, following: int) -> int | None:
    """Returns the length that a jumbo payload option (RFC 2675) gives the whole packet."""
    if following != _HOP_BY_HOP or len(part.data) < 2:
        return None
    options = part.data[2 : 8 * part.data[1] + 8]
    while options:
        if options[0] == 0:  # one byte of padding
            options = options[1:]
            continue
        if options[0] == _JUMBO and len(options) >= 6 and options[1] == 4:
            length = int.from_bytes(options[2:6], "big")
            return length + 40 if length > 0xFFFF else None
        options = options[2 + options[1] :] if len(options) > 1 else b""
    return None


class _Chain:
    """The extension headers of an IPv6 packet, and what they lead to."""

    def __init__(self, part: Part, protocol: int) -> None:
        self.rest = part
        self.protocol = protocol
        self.fragment: Fragment | None = None
        self.segments = False
        while self.protocol in _EXTENSIONS and not (self.fragment and not self.fragment.first):
            if len(self.rest.data) < 8:
                self.protocol = _CUT
                return
            self._step()

    def _step(self) -> None:
        data = self.rest.data
        if self.protocol == _FRAGMENT:
            self.fragment = None
            (word,) = struct.unpack(">H", data[2:4])
            if word & 0xFFF9:
                identification = int.from_bytes(data[4:8], "big")
                self.fragment = Fragment(word >> 3 == 0, data[0], identification)
            self.rest, self.protocol = self.rest.after(8), data[0]
            return
        if self.protocol == _ROUTING and data[2] == _SEGMENT_ROUTING:
            self.segments = True
        extension = plain(dpkt.ip6.IP6OptsHeader)(data[:2])
        self.rest, self.protocol = self.rest.after(8 * extension.len + 8), extension.nxt


def _automatic(outer: Layer, inner: Layer) -> str | None:
    """Returns which tunnel it is whose ends IPv6 addresses name: RFC 3056, RFC 5214."""
    if inner.tunnel != "6in4":
        return None
    sides = ((inner.source, outer.source), (inner.target, outer.target))
    low = 0xFFFFFFFF
    if any(a >> 112 == 0x2002 and a >> 80 & low == end & low for a, end in sides):
        return "6to4"
    if any(a >> 32 & low in (0x00005EFE, 0x02005EFE) and a & low == end & low for a, end in sides):
        return "isatap"
    return None


# Tunnels known by a protocol number


def _inside(layer: Layer) -> tuple[str, Part, int] | None:
    """Returns (kind of tunnel, its inside, IP version or 0); None when there is no IP inside."""
    if not layer.may_hold_ip:
        return None
    try:
        kind, step, part = _TUNNELS[layer.protocol](layer)
        return kind, *walk(step, part)
    except NotIp:
        return None
    except (Short, Contradiction):
        raise Drop(Reason.UNREADABLE_INNER) from None


def _ip_in_ip(layer: Layer) -> tuple[str, Step, Part]:
    version = 4 if layer.protocol == _IPIP else 6
    names = {(4, 4): "ipip", (6, 4): "4in6", (4, 6): "6in4", (6, 6): "6in6"}
    kind = "srv6" if layer.segments else names[layer.version, version]
    return kind, version, layer.inside


def _ethernet_in_ip6(layer: Layer) -> tuple[str, Step, Part]:
    """Opens Ethernet in segment routing (RFC 8986)."""
    return "srv6", ethernet, layer.inside


def _ah(layer: Layer) -> tuple[str, Step, Part]:
    """Opens IPsec's authentication header in tunnel mode (RFC 4302)."""
    following, words = layer.inside.need(2)
    if following not in (_IPIP, _IPV6):
        raise NotIp
    if words == 0:  # less than its fixed part
        raise Contradiction
    size = 4 * words + 8
    layer.inside.need(size)
    return "ah", 4 if following == _IPIP else 6, layer.inside.after(size)


def _etherip(layer: Layer) -> tuple[str, Step, Part]:
    """Opens EtherIP (RFC 3378)."""
    if layer.inside.need(2)[0] >> 4 != 3:
        raise Contradiction
    return "etherip", ethernet, layer.inside.after(2)


def _mpls_in_ip(layer: Layer) -> tuple[str, Step, Part]:
    """Opens MPLS in IP (RFC 4023)."""
    return "mpls", mpls, layer.inside


def _l2tp3_in_ip(layer: Layer) -> tuple[str, Step, Part]:
    """Opens L2TPv3 over IP (RFC 3931)."""
    return "l2tp", *_l2tp3(layer.inside)


def _gre(layer: Layer) -> tuple[str, Step, Part]:
    """Opens GRE, version 0 (RFC 2784, 2890; routing of RFC 1701) or 1 (RFC 2637)."""
    part = layer.inside
    gre = header(dpkt.gre.GRE, part)
    if gre.v == 1:
        return _pptp(part, gre)
    if gre.v != 0:
        raise Contradiction
    size = 4
    if gre.flags & (dpkt.gre.GRE_CP | dpkt.gre.GRE_RP):
        size += 4
    if gre.flags & dpkt.gre.GRE_KP:
        size += 4
    if gre.flags & dpkt.gre.GRE_SP:
        size += 4
    part.need(size)
    part = part.after(size)
    if gre.flags & dpkt.gre.GRE_RP:
        part = _behind_routes(part)
    return _in_gre(part, gre)


def _behind_routes(part: Part) -> Part:
    """Steps over source routes: family, offset, length, route; family and length 0 end them."""
    while True:
        family, _, length = struct.unpack(">HBB", part.need(4))
        if family == 0 and length == 0:
            return part.after(4)
        part.need(4 + length)
        part = part.after(4 + length)


def _pptp(part: Part, gre: Any) -> tuple[str, Step, Part]:
    if gre.p != 0x880B or not gre.flags & dpkt.gre.GRE_SP:  # else an acknowledgement alone
        raise NotIp
    return "pptp", skip(16 if gre.flags & 0x80 else 12, ppp), part


def _in_gre(part: Part, gre: Any) -> tuple[str, Step, Part]:
    if gre.p == 0x6558:
        return "nvgre" if gre.flags & dpkt.gre.GRE_KP else "gre", ethernet, part
    if gre.p == 0x88BE and not gre.flags & dpkt.gre.GRE_SP:
        return "erspan", ethernet, part
    if gre.p == 0x88BE:
        if part.need(8)[0] >> 4 != 1:
            raise Contradiction
        return "erspan", ethernet, part.after(8)
    if gre.p == 0x22EB:
        return "erspan", *_erspan3(part)
    if gre.p == 0x883E:  # WCCP, of which version 2 has a header of its own
        return "gre", 0, part if part.need(1)[0] >> 4 == 4 else part.after(4)
    if gre.p == 0x8909:  # Cisco MetaData, which begins with the type here
        return "gre", typed(8, 0), part
    if gre.p == 0x6559:
        return "gre", frame_relay, part
    if gre.p >> 9 == 0x8200 >> 9 or gre.p == 0x9000:  # Aruba
        return "gre", wlan, part
    return "gre", by_type(gre.p), part


def _erspan3(part: Part) -> tuple[Step, Part]:
    """Reads the third type's header (draft-foschiano-erspan)."""
    data = part.need(12)
    if data[0] >> 4 != 2:
        raise Contradiction
    size = 20 if data[11] & 1 else 12
    steps: dict[int, Step] = {0: ethernet, 2: 0}
    frame_type = data[10] >> 2 & 31
    if frame_type not in steps:
        raise NotIp
    part.need(size)
    return steps[frame_type], part.after(size)


_TUNNELS: dict[int, Callable[[Layer], tuple[str, Step, Part]]] = {
    _IPIP: _ip_in_ip,
    _IPV6: _ip_in_ip,
    _GRE: _gre,
    _AH: _ah,
    _ETHERIP: _etherip,
    _L2TP: _l2tp3_in_ip,
    _MPLS: _mpls_in_ip,
    _ETHERNET: _ethernet_in_ip6,
}


# L2TPv3, whose cookie and sublayer only its ends know


def _l2tp3(part: Part) -> tuple[Step, Part]:
    """Looks for IP behind a session's number, a cookie and a sublayer."""
    if part.u32(0) == 0:  # control
        raise NotIp
    for size in (4, 8, 12, 16):
        for step in (ethernet, ppp, 0):
            try:
                inside, version = walk(step, part.after(size))
            except (NotIp, Short, Contradiction):
                continue
            if _is_shown(inside, version):
                return version, inside
    raise NotIp


def _is_shown(part: Part, version: int) -> bool:
    """Tells whether an IP header stands there, complete, consistent, no longer than its packet."""
    data = part.data
    shown = data[0] >> 4 if data else 0
    if version not in (0, shown):
        return False
    if shown == 4 and len(data) >= 20:
        return 20 <= 4 * (data[0] & 15) <= part.u16(2) <= part.wire
    return shown == 6 and len(data) >= 40 and part.u16(4) + 40 <= part.wire


# Tunnels known by a UDP port


def _inside_udp(layer: Layer) -> tuple[str, Part, int] | None:
    """Returns (kind of tunnel, its inside, IP version or 0); None for any doubt."""
    data = layer.inside.data
    if len(data) < 8:
        return None
    source, target = struct.unpack(">HH", data[:4])
    kind = _TO_PORT.get(target) or _FROM_PORT.get(source)
    if kind is None:
        return None
    try:
        part, version = walk(_UDP_TUNNELS[kind], layer.inside.after(8))
    except (NotIp, Short, Contradiction):
        return None
    if not part.data or part.data[0] >> 4 not in (4, 6):
        return None
    return kind, part, version


def _teredo(part: Part) -> tuple[Step, Part]:
    """Reads Teredo's indications (RFC 4380, 5.1.1)."""
    if part.data[:2] == b"\0\1":
        part = part.after(13 + part.need(4)[2] + part.data[3])
    if part.data[:2] == b"\0\0":
        part.need(8)
        part = part.after(8)
    if part.need(1)[0] >> 4 != 6:
        raise NotIp
    return 6, part


def _vxlan(part: Part) -> tuple[Step, Part]:
    """Reads VXLAN (RFC 7348), perhaps with a group policy or a next protocol."""
    data = part.need(8)
    if not data[0] & 0x08 or data[7]:
        raise Contradiction
    names_protocol = data[0] & 0x84 == 0x04 and data[3]
    return _next_protocol(data[3] if names_protocol else 3), part.after(8)


def _vxlan_gpe(part: Part) -> tuple[Step, Part]:
    """Reads VXLAN with a next protocol (draft-ietf-nvo3-vxlan-gpe)."""
    data = part.need(8)
    if data[0] & 0xF9 != 0x08 or data[1] or data[2] or data[7]:  # version 0, no control message
        raise Contradiction
    # Some senders name a protocol without the flag that says so.
    return _next_protocol(data[3] if data[0] & 0x04 or data[3] else 3), part.after(8)


def _next_protocol(number: int) -> Step:
    """Returns the step for a protocol number of VXLAN-GPE, which NSH has, too."""
    steps: dict[int, Step] = {1: 4, 2: 6, 3: ethernet, 4: nsh, 5: mpls}
    if number not in steps:
        raise NotIp
    return steps[number]


def _geneve(part: Part) -> tuple[Step, Part]:
    """Reads Geneve (RFC 8926)."""
    data = part.need(8)
    if data[0] >> 6 or data[1] & 0xBF or data[7]:  # control messages, too
        raise Contradiction
    size = 8 + 4 * (data[0] & 63)
    part.need(size)
    kind = part.u16(2)
    if kind not in (0x0800, 0x86DD, 0x6558):
        raise NotIp
    return by_type(kind), part.after(size)


def _gtp_u(part: Part) -> tuple[Step, Part]:
    """Reads GTP-U (3GPP TS 29.281) that carries a user's packet."""
    flags, kind = part.need(8)[:2]
    if flags & 0xF8 != 0x30 or kind != 255:
        raise NotIp
    if not flags & 7:
        return 0, part.after(8)
    following = part.need(12)[11] if flags & 4 else 0
    part.need(12)
    part = part.after(12)
    while following:
        size = 4 * part.need(1)[0]
        if size == 0:
            raise Contradiction
        following = part.need(size)[-1]
        part = part.after(size)
    return 0, part


def _l2tp(part: Part) -> tuple[Step, Part]:
    """Reads L2TP over UDP: version 2 (RFC 2661) or 3 (RFC 3931, 4.1.2)."""
    word = part.u16(0)
    if word & 0x8000:  # control
        raise NotIp
    if word == 3:
        part.need(4)
        return _l2tp3, part.after(4)
    if word & 0xF != 2 or word & 0x34F0:
        raise Contradiction
    size = 6
    for bit, more in ((0x4000, 2), (0x0800, 4)):
        if word & bit:
            size += more
    if word & 0x0200:
        size += 2 + part.u16(size)
    part.need(size)
    return ppp, part.after(size)


def _ayiya(part: Part) -> tuple[Step, Part]:
    """Reads AYIYA (draft-massar-v6ops-ayiya) that forwards."""
    data = part.need(8)
    versions = {_IPIP: 4, _IPV6: 6}
    if data[2] & 15 != 1 or data[3] not in versions:
        raise NotIp
    if data[0] & 15 > 2 or data[1] & 15 > 3 or data[2] >> 4 > 2:  # unknown kinds of proof
        raise Contradiction
    size = 8 + (1 << (data[0] >> 4)) + 4 * (data[1] >> 4)
    if part.need(size + 1)[size] >> 4 != versions[data[3]]:
        raise Contradiction
    return versions[data[3]], part.after(size)


def _capwap(part: Part) -> tuple[Step, Part]:
    """Reads CAPWAP (RFC 5415) that carries a whole frame, not encrypted."""
    preamble, length, kind, flags = part.need(8)[:4]
    size = 4 * (length >> 3)
    if preamble or size < 8 or flags & 0x8F:
        raise NotIp
    part.need(size)
    part = part.after(size)
    if not kind & 1:
        return ethernet, part
    if kind >> 1 & 31 != 1:  # no IEEE 802.11
        raise NotIp
    return _perhaps_swapped, part


def _perhaps_swapped(part: Part) -> tuple[Step, Part]:
    """Reads IEEE 802.11 whose first and last words may be in Cisco's byte order."""
    data = part.need(2)
    if data[0] & 15 == 8 or data[1] & 15 != 8:
        return wlan, part
    swapped = data[1::-1] + part.data[2:22] + part.data[22:24][::-1] + part.data[24:]
    return wlan, Part(swapped, part.wire)


def _tzsp(part: Part) -> tuple[Step, Part]:
    """Reads TZSP, which carries what a sensor received."""
    version, kind, protocol = struct.unpack(">BBH", part.need(4))
    steps: dict[int, Step] = {1: ethernet, 18: wlan}
    if version != 1 or kind > 1 or protocol not in steps:
        raise NotIp
    part = part.after(4)
    while (tag := part.need(1)[0]) != 1:
        size = 2 + part.need(2)[1] if tag else 1
        part.need(size)
        part = part.after(size)
    return steps[protocol], part.after(1)


_UDP_TUNNELS: dict[str, Step] = {
    "teredo": _teredo,
    "vxlan": _vxlan,
    "vxlan_gpe": _vxlan_gpe,
    "geneve": _geneve,
    "gtp_u": _gtp_u,
    "l2tp": _l2tp,
    "ayiya": _ayiya,
    "capwap": _capwap,
    "tzsp": _tzsp,
    "mpls": mpls,
}
_FROM_PORT = {
    1701: "l2tp",
    2152: "gtp_u",
    3544: "teredo",
    4789: "vxlan",
    4790: "vxlan_gpe",
    5072: "ayiya",
    5247: "capwap",
    6081: "geneve",
    8472: "vxlan",
    37008: "tzsp",
}
"""Ports whose answers are looked at, too."""
_TO_PORT = _FROM_PORT | {6635: "mpls"}
