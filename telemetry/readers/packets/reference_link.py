"""The reference decoder's way over headers that are not IP, to the IP header behind them.

A *step* reads one header and tells which step reads what follows; a step that is a
number says that an IP header of this version follows, or of the version that its
first half-byte names when the number is 0. The same steps serve link layers and the
insides of tunnels. Formats are those of the registry of link types at tcpdump.org,
and of the RFC or IEEE standard named at each step.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import dpkt

from telemetry.readers.packets.link import LINKS, Sight

Step = int | Callable[["Part"], "tuple[Step, Part]"]
"""4, 6 or 0 for an IP header, or the reader of one other header."""


class NotIp(Exception):
    """What is carried is no IP."""


class Short(Exception):
    """A header that is needed was not captured whole."""


class Contradiction(Exception):
    """A header says what cannot be."""


class Unread(Exception):
    """This link type is not looked into."""


class Part(NamedTuple):
    """What is left of a frame behind some header: bytes captured, and bytes on the wire."""

    data: bytes
    wire: int

    def after(self, size: int) -> Part:
        """Returns what follows `size` bytes."""
        return Part(self.data[size:], self.wire - size)

    def until(self, size: int) -> Part:
        """Returns the first `size` bytes."""
        return Part(self.data[:size], min(self.wire, size))

    def need(self, size: int) -> bytes:
        """Returns the first `size` bytes.

        Raises:
            Short: Fewer were captured.
        """
        if len(self.data) < size:
            raise Short
        return self.data[:size]

    def u16(self, at: int) -> int:
        """Returns the big-endian number of 16 bits at an offset."""
        return int.from_bytes(self.need(at + 2)[at:], "big")

    def u32(self, at: int) -> int:
        """Returns the big-endian number of 32 bits at an offset."""
        return int.from_bytes(self.need(at + 4)[at:], "big")


@cache
def plain(kind: Any) -> Any:
    """Returns a dpkt class that reads its fixed header and leaves the rest alone."""
    return type(kind)(f"Plain{kind.__name__}", (kind,), {"unpack": dpkt.Packet.unpack})


def header(kind: Any, part: Part) -> Any:
    """Reads a header of dpkt.

    Raises:
        Short: It is not all there.
    """
    return plain(kind)(part.need(kind.__hdr_len__))


def walk(step: Step, part: Part) -> tuple[Part, int]:
    """Takes steps until an IP header; returns it and its version, 0 to look at it.

    Raises:
        NotIp, Short, Contradiction, Unread: There is none.
    """
    while not isinstance(step, int):
        step, part = step(part)
    return part, step


def link_step(link: int) -> Step:
    """Returns the first step into a frame of a LINKTYPE_ number.

    Raises:
        NotIp: It carries none.
        Unread: It is not looked into.
    """
    if link in LINKS and LINKS[link].sight is Sight.NO_IP:
        raise NotIp
    if link not in _LINKS:
        raise Unread
    return _LINKS[link]


# Steps that are the same wherever they are taken


def skip(size: int, step: Step) -> Step:
    """Returns a step over bytes that tell nothing."""

    def skipped(part: Part) -> tuple[Step, Part]:
        part.need(size)
        return step, part.after(size)

    return skipped


def typed(size: int, at: int) -> Step:
    """Returns a step over a header that has an Ethernet type at an offset, and no length."""

    def read(part: Part) -> tuple[Step, Part]:
        part.need(size)
        return by_type(part.u16(at)), part.after(size)

    return read


def by_type(ethertype: int) -> Step:
    """Returns the step for an Ethernet type."""
    if ethertype not in _TYPES:
        raise NotIp
    return _TYPES[ethertype]


def by_type_or_length(ethertype: int) -> Step:
    """Returns the step for an Ethernet type, or for a length of IEEE 802.3."""
    if ethertype < 0x600:
        return lambda part: _llc(part, ethertype)
    return by_type(ethertype)


def ethernet(part: Part) -> tuple[Step, Part]:
    """Reads an Ethernet header (IEEE 802.3)."""
    return by_type_or_length(header(dpkt.ethernet.Ethernet, part).type), part.after(14)


def llc(part: Part) -> tuple[Step, Part]:
    """Reads IEEE 802.2 LLC where no length stands before it."""
    return _llc(part)


def _llc(part: Part, length: int | None = None, padding: int = 0) -> tuple[Step, Part]:
    """Reads IEEE 802.2 LLC: SNAP (RFC 1042, IEEE 802.1H), IP's own service access point, or ISO's.

    Args:
        part: Where it begins.
        length: What the header before says that it has; too little for its kind is no IP.
        padding: Bytes before a bridged Ethernet frame.
    """
    try:
        start = part.need(3)
        if start == b"\x06\x06\x03":
            return 0, part.after(3)
        if start == b"\xfe\xfe\x03":
            return _NLPID.get(part.need(4)[3], _no_ip), part.after(4)
        if start != b"\xaa\xaa\x03":
            raise NotIp
        organisation, kind = part.need(8)[3:6], part.u16(6)
    except Short:
        if length is not None and length <= len(part.data):
            raise NotIp from None
        raise
    if organisation in (b"\0\0\0", b"\0\0\xf8"):
        return by_type(kind), part.after(8)
    if organisation == b"\0\x80\xc2" and kind in (1, 7):
        return skip(padding, ethernet), part.after(8)
    raise NotIp


def _no_ip(part: Part) -> tuple[Step, Part]:
    raise NotIp


def mpls(part: Part) -> tuple[Step, Part]:
    """Reads a stack of MPLS labels (RFC 3032) over IP or an Ethernet pseudo-wire (RFC 4448)."""
    bottom = 0
    while not bottom:
        bottom = part.u32(0) & 0x100
        part = part.after(4)
    nibble = part.need(1)[0] >> 4
    if nibble in (4, 6):
        return nibble, part
    for size in (4, 0) if nibble == 0 else (0,):  # with a control word, and without
        frame = part.after(size)
        if frame.u16(12) in _PLAUSIBLE:
            return ethernet, frame
    raise NotIp


def ppp(part: Part) -> tuple[Step, Part]:
    """Reads PPP (RFC 1661), in HDLC-like framing (1662) or not, and multilink PPP (1990).

    Cisco HDLC (RFC 1547, 4.3.1) is told by its address.
    """
    start = part.need(2)[:2]  # of one byte it cannot be told whether it is an address
    if start in (b"\x0f\0", b"\x8f\0"):
        return _CHDLC, part
    if start == b"\xff\x03":
        part = part.after(2)
    size = 1 if part.need(1)[0] & 1 else 2
    protocol = int.from_bytes(part.need(size), "big")
    part = part.after(size)
    if protocol == 0x3D:
        if part.need(4)[0] & 0xC0 != 0xC0:  # not both the beginning and the end of a packet
            raise NotIp
        return ppp, part.after(4)
    steps: dict[int, Step] = {0x21: 4, 0x57: 6, 0x281: mpls, 0x283: mpls}
    if protocol not in steps:
        raise NotIp
    return steps[protocol], part


def _pppoe(part: Part) -> tuple[Step, Part]:
    """Reads PPPoE (RFC 2516)."""
    version, code = part.need(2)
    if version != 0x11:
        raise Contradiction
    if code:
        raise NotIp
    part.need(6)
    return ppp, part.after(6)


def nsh(part: Part) -> tuple[Step, Part]:
    """Reads a network service header (RFC 8300)."""
    word = part.u32(0)
    words = word >> 16 & 63
    steps: dict[int, Step] = {1: 4, 2: 6, 3: ethernet, 4: nsh, 5: mpls}
    if word >> 30 or words < 2:
        raise Contradiction
    if word & 0xFF not in steps:
        raise NotIp
    part.need(4 * words)
    return steps[word & 0xFF], part.after(4 * words)


def _macsec(part: Part) -> tuple[Step, Part]:
    """Reads a MACsec tag (IEEE 802.1AE) that protects, but does not hide."""
    control = part.need(1)[0]
    if control & 0x8C:  # another version, encrypted, or changed
        raise NotIp
    size = 14 if control & 0x20 else 6
    return by_type_or_length(part.u16(size)), part.after(size + 2)


def _trill(part: Part) -> tuple[Step, Part]:
    """Reads a TRILL header (RFC 6325)."""
    word = part.u16(0)
    if word >> 14:
        raise Contradiction
    size = 6 + 4 * (word >> 6 & 31)
    part.need(size)
    return ethernet, part.after(size)


def _tag(size: int) -> Step:
    """Returns a step over a tag that ends with an Ethernet type or length."""

    def read(part: Part) -> tuple[Step, Part]:
        return by_type_or_length(part.u16(size - 2)), part.after(size)

    return read


_VLAN = (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300)

_TYPES: dict[int, Step] = {
    0x0800: 4,
    0x86DD: 6,
    **dict.fromkeys(_VLAN, _tag(4)),  # IEEE 802.1Q
    0x88E7: skip(4, ethernet),  # IEEE 802.1ah
    0x8926: _tag(6),  # VN-Tag
    0x893F: _tag(8),  # IEEE 802.1BR
    0x8909: _tag(8),  # Cisco MetaData
    0x8903: skip(2, ethernet),  # FabricPath
    0x88E5: _macsec,
    0x22F3: _trill,
    0x894F: nsh,
    **dict.fromkeys((0x892F, 0xF1C1), _tag(6)),  # HSR, IEEE 802.1CB
    0x8847: mpls,
    0x8848: mpls,
    0x8864: _pppoe,
    0x880B: ppp,
    0x6558: ethernet,
}
_PLAUSIBLE = (0x0800, 0x86DD, *_VLAN, 0x8847, 0x8848, 0x8864, 0x88E7)


# IEEE 802.11


def wlan(part: Part) -> tuple[Step, Part]:
    """Reads an IEEE 802.11 data frame."""
    return _wlan(part, padded=False)


def _wlan_padded(part: Part) -> tuple[Step, Part]:
    return _wlan(part, padded=True)


def _wlan(part: Part, padded: bool) -> tuple[Step, Part]:
    kind, flags = part.need(2)
    data_frame = kind & 0x0F == 0x08 and not kind & 0x40
    if not data_frame or flags & 0x40:  # protected
        raise NotIp
    if part.need(24)[22] & 0x0F:  # a later fragment
        raise NotIp
    size = 24
    if flags & 3 == 3:
        size += 6
    aggregate = False
    if kind & 0x80:
        aggregate = bool(part.need(size + 2)[size] & 0x80)
        size += 2
        if flags & 0x80:
            size += 4
    if padded:
        size += -size % 4
    if aggregate:
        size += 14
    part.need(size)
    return llc, part.after(size)


def _radiotap(part: Part) -> tuple[Step, Part]:
    """Reads a radiotap header (radiotap.org), and of its fields whether padding follows."""
    version, size, present = struct.unpack("<BxHI", part.need(8))
    if version or size < 8:
        raise Contradiction
    data = part.need(size)
    at, word = 8, present
    while word >> 31:
        if at + 4 > size:
            raise Contradiction
        word = int.from_bytes(data[at : at + 4], "little")
        at += 4
    if present & 1:  # a time of 64 bits
        at += -at % 8 + 8
    padded = bool(present & 2 and at < size and data[at] & 0x20)
    return (_wlan_padded if padded else wlan), part.after(size)


def _avs(part: Part) -> tuple[Step, Part]:
    size = part.u32(4)
    if size < 8:
        raise Contradiction
    part.need(size)
    return wlan, part.after(size)


def _prism(part: Part) -> tuple[Step, Part]:
    if part.u32(0) in (0x80211001, 0x80211002):
        return _avs, part
    return skip(144, wlan), part


def _ppi(part: Part) -> tuple[Step, Part]:
    """Reads CACE's per-packet information, which names the link type behind it."""
    version, size, link = struct.unpack("<BxHI", part.need(8))
    if version or size < 8:
        raise Contradiction
    step = link_step(link)
    part.need(size)
    return step, part.after(size)


# Serial lines and ATM


def chdlc(part: Part) -> tuple[Step, Part]:
    """Reads Cisco HDLC, or PPP in its place."""
    return (ppp if part.data[:2] == b"\xff\x03" else _CHDLC), part


def _ppp_pppd(part: Part) -> tuple[Step, Part]:
    """Reads PPP whose address is a direction."""
    part.need(1)
    return ppp, part.after(2 if part.data[1:2] == b"\x03" else 1)


def _nlpid(part: Part) -> tuple[Step, Part]:
    """Reads a network layer protocol identifier (RFC 2427)."""
    kind = part.need(1)[0]
    if kind != 0x80:
        return _NLPID.get(kind, _no_ip), part.after(1)
    organisation, kind = part.need(6)[1:4], part.u16(4)
    if organisation == b"\0\0\0":
        return by_type(kind), part.after(6)
    if organisation == b"\0\x80\xc2" and kind in (1, 7):
        return ethernet, part.after(6)
    raise NotIp


_NLPID: dict[int, Step] = {0xCC: 4, 0x8E: 6, 0xCF: ppp}


def frame_relay(part: Part) -> tuple[Step, Part]:
    """Reads frame relay: RFC 2427, or Cisco's Ethernet type behind the address (Q.922)."""
    size = 1
    while not part.need(size)[size - 1] & 1:
        if size == 4:
            raise Contradiction
        size += 1
    if size == 1:
        raise Contradiction
    part = part.after(size)
    if part.need(1) == b"\x03":
        part = part.after(1)
        return _nlpid, part.after(1) if part.need(1) == b"\0" else part
    return by_type(part.u16(0)), part.after(2)


def _multilink_frame_relay(part: Part) -> tuple[Step, Part]:
    """Reads multilink frame relay (FRF.16) where a frame is not in pieces."""
    if part.need(2)[0] & 0xE0 != 0xC0:
        raise NotIp
    return frame_relay, part.after(2)


def _rfc1483(part: Part) -> tuple[Step, Part]:
    """Reads LLC over ATM's AAL5 (RFC 2684)."""
    return _llc(part, padding=2)


def _sunatm(part: Part) -> tuple[Step, Part]:
    steps: dict[int, Step] = {1: skip(2, ethernet), 2: _rfc1483}
    return steps.get(part.need(4)[0] & 0x0F, _no_ip), part.after(4)


def _clip(part: Part) -> tuple[Step, Part]:
    """Reads classical IP over ATM (RFC 2225), or bare IP."""
    return (_rfc1483 if part.data[:3] == b"\xaa\xaa\x03" else 0), part


# Other networks


def _arcnet_bsd(part: Part) -> tuple[Step, Part]:
    kind = part.need(3)[2]
    if kind == 240:
        return 4, part.after(3)
    size, flag = 6, part.need(4)[3]
    if flag == 0xFF:
        size, flag = 10, part.need(8)[7]
    if flag and not flag & 1:  # a later piece of a packet
        raise NotIp
    step = _arcnet_kind(kind)
    part.need(size)
    return step, part.after(size)


def _arcnet_linux(part: Part) -> tuple[Step, Part]:
    kind = part.need(5)[4]
    if kind == 240:
        return 4, part.after(5)
    part.need(6)
    step = _arcnet_kind(kind)
    part.need(8)
    return step, part.after(8)


def _arcnet_kind(kind: int) -> Step:
    """Returns the step for a system code of ARCNET (RFC 1201)."""
    if kind not in (212, 196):
        raise NotIp
    return 4 if kind == 212 else 6


def _fddi(part: Part) -> tuple[Step, Part]:
    if part.need(1)[0] & 0x70 != 0x50:
        raise NotIp
    part.need(13)
    return llc, part.after(13)


def _token_ring(part: Part) -> tuple[Step, Part]:
    data = part.need(14)
    if data[1] & 0xC0 != 0x40:
        raise NotIp
    size = 14
    if data[8] & 0x80:  # source routing
        route = part.need(15)[14] & 31
        if route < 2:
            raise Contradiction
        size += route
    part.need(size)
    return llc, part.after(size)


def _family_word(part: Part) -> tuple[Step, Part]:
    """Reads the address family of BSD null/loop, written in either byte order."""
    data = part.need(4)
    family = int.from_bytes(data, "big")
    if family > 0xFFFF:
        family = int.from_bytes(data, "little")
    return _FAMILIES.get(family, _no_ip), part.after(4)


_FAMILIES: dict[int, Step] = {2: 4, **dict.fromkeys((10, 23, 24, 28, 30), 6)}
"""AF_INET, and AF_INET6 of Linux, Windows and the BSDs."""


def _enc(part: Part) -> tuple[Step, Part]:
    step, _ = _family_word(part)
    part.need(12)
    return step, part.after(12)


def _pflog(part: Part) -> tuple[Step, Part]:
    size, family = part.need(2)
    if size < 4:
        raise Contradiction
    size += -size % 4
    part.need(size)
    return _FAMILIES.get(family, _no_ip), part.after(size)


def _ipnet(part: Part) -> tuple[Step, Part]:
    families: dict[int, Step] = {2: 4, 26: 6}
    return families.get(part.need(24)[1], _no_ip), part.after(24)


def _nflog(part: Part) -> tuple[Step, Part]:
    """Reads the attributes of a packet from Linux's netfilter, up to the payload."""
    families: dict[int, Step] = {2: 4, 10: 6}
    family, version = part.need(4)[:2]
    if version:
        raise Contradiction
    part = part.after(4)
    while part.data:
        size, kind = struct.unpack("<HH", part.need(4))
        if kind > 0xFF:
            size, kind = struct.unpack(">HH", part.data[:4])
        if size < 4:
            raise Contradiction
        if kind == 9:
            return families.get(family, _no_ip), part.until(size).after(4)
        part = part.after(size + -size % 4)
    raise NotIp


def _pktap(part: Part) -> tuple[Step, Part]:
    """Reads Apple's header, which names the link type behind it."""
    size, record, link = struct.unpack("<III", part.need(12))
    if size < 12:
        raise Contradiction
    if record != 1:
        raise NotIp
    step = link_step(link)
    part.need(size)
    return step, part.after(size)


def _old_pktap(part: Part) -> tuple[Step, Part]:
    """Reads the user's link type that Apple took for PKTAP at first."""
    if part.data[:4] != struct.pack("<I", 108):
        raise Unread
    return _pktap, part


def _juniper(link: Step) -> Step:
    """Returns the step over what Juniper's routers put before a link layer, if there is one."""

    def read(part: Part) -> tuple[Step, Part]:
        magic, flags = part.need(4)[:3], part.data[3]
        if magic != b"MGC":
            raise Contradiction
        size = 6 + part.u16(4) if flags & 0x80 else 4
        if flags & 2:  # no link layer
            size += 4
        part.need(size)
        return (0 if flags & 2 else link), part.after(size)

    return read


def _erf(part: Part) -> tuple[Step, Part]:
    """Reads Endace's extensible record format."""
    kind = part.need(16)[8]
    size, more = 16, kind & 0x80
    while more:
        more = part.need(size + 8)[size] & 0x80
        size += 8
    steps: dict[int, Step] = {
        **dict.fromkeys((1, 10, 15, 19), ppp),
        **dict.fromkeys((5, 17), skip(4, ppp)),
        **dict.fromkeys((2, 11, 16, 20), skip(2, ethernet)),
        22: 4,
        23: 6,
    }
    if kind & 0x7F not in steps:
        raise Unread
    return steps[kind & 0x7F], part.after(size)


def _upper_pdu(part: Part) -> tuple[Step, Part]:
    """Reads the tags that Wireshark puts before a layer it exports, one of which names it."""
    step: Step = _no_ip
    while True:
        kind, size = part.u16(0), part.u16(2)
        if kind == 0:
            return step, part.after(4)
        value = part.need(4 + size)[4:]
        part = part.after(4 + size)
        if kind == 12:
            step = _exported(value.rstrip(b"\0"))


def _exported(dissector: bytes) -> Step:
    if dissector in (b"ip", b"ipv6"):
        return 0 if dissector == b"ip" else 6
    return ethernet if dissector == b"eth" or dissector.startswith(b"eth_") else _no_ip


def _docsis(part: Part) -> tuple[Step, Part]:
    control, extended = part.need(2)
    if control >> 6:  # no packet, but management
        raise NotIp
    size = 6 + (extended if control & 1 else 0)
    part.need(size)
    return ethernet, part.after(size)


def _cooked(size: int, at: int) -> Step:
    """Returns the step over a header of Linux, whose low types are Linux's own numbers."""

    def read(part: Part) -> tuple[Step, Part]:
        part.need(size)
        kind = part.u16(at)
        return {4: llc, 7: ppp}.get(kind) or by_type(kind), part.after(size)

    return read


def _switch_tag(size: int) -> Step:
    """Returns the step for Ethernet with a switch's tag between addresses and type."""

    def read(part: Part) -> tuple[Step, Part]:
        return by_type_or_length(part.u16(12 + size)), part.after(14 + size)

    return read


_CHDLC = typed(4, 2)

_LINKS: dict[int, Step] = {
    0: _family_word,
    1: ethernet,
    6: _token_ring,
    7: _arcnet_bsd,
    8: skip(16, 0),  # SLIP, with what libpcap puts before it
    9: ppp,
    10: _fddi,
    12: 0,
    14: 0,
    19: _clip,
    50: ppp,
    51: _pppoe,
    100: _rfc1483,
    101: 0,
    102: skip(24, 0),
    104: chdlc,
    105: wlan,
    106: _clip,
    107: frame_relay,
    108: _family_word,
    109: _enc,
    113: _cooked(16, 14),  # Linux cooked
    117: _pflog,
    119: _prism,
    122: skip(16, llc),  # IP over Fibre Channel (RFC 2625)
    123: _sunatm,
    127: _radiotap,
    129: _arcnet_linux,
    138: typed(18, 16),  # IP over IEEE 1394
    143: _docsis,
    149: _old_pktap,
    163: _avs,
    166: _ppp_pppd,
    175: _erf,
    176: _erf,
    178: _juniper(ethernet),
    179: _juniper(ppp),
    180: _juniper(frame_relay),
    181: _juniper(chdlc),
    182: _multilink_frame_relay,
    192: _ppi,
    197: _erf,
    204: skip(1, ppp),
    205: skip(1, chdlc),
    206: skip(1, frame_relay),
    219: mpls,
    226: _ipnet,
    228: 4,
    229: 6,
    239: _nflog,
    240: skip(4, ethernet),  # netANALYZER
    241: skip(12, ethernet),  # the same, with preamble
    242: typed(44, 40),  # IP over InfiniBand (RFC 4391)
    252: _upper_pdu,
    258: _pktap,
    276: _cooked(20, 0),  # Linux cooked, second version
    281: _switch_tag(4),  # Broadcom
    282: skip(4, ethernet),
    284: _switch_tag(4),  # Marvell
    285: _switch_tag(8),
}
