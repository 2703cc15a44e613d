"""Encapsulations drawn at random: link layers and tunnels around an IP packet, for property tests.

Each strategy puts sensible headers around what it is given, with the options that its
standard allows; nonsense is made of them by cutting and breaking the frame afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from capture_kit import (
    GRE,
    IP6_TYPE,
    IPIP,
    IPV6,
    NULL,
    SLL,
    SLL2,
    UDP,
    ethernet,
    linked,
    type_of,
    udp,
)
from hypothesis import strategies as st

Draw = st.DrawFn
AH, ETHERIP, L2TP, MPLS_IN_IP, ETHERNET_IN_IP = 51, 97, 115, 137, 143


def _words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}H", *numbers)


# Behind an Ethernet type


def typed(draw: Draw, packet: bytes, depth: int = 2) -> tuple[int, bytes]:
    """Returns an Ethernet type, and what follows it, with the packet somewhere inside."""
    if not depth or draw(st.integers(0, 2)):
        return type_of(packet), packet
    kind = draw(st.sampled_from(sorted(_TYPED)))
    return _TYPED[kind](draw, packet, depth - 1)


def frame(draw: Draw, packet: bytes, depth: int = 2) -> bytes:
    """Returns an Ethernet frame, or one of IEEE 802.3 with SNAP."""
    ethertype, body = typed(draw, packet, depth)
    start = draw(st.sampled_from([2, 2, 0, 0x42, 0x60]))  # what a packet behind MPLS may be
    if draw(st.integers(0, 9)) == 0:
        body = snap(draw, ethertype, body)
        ethertype = min(len(body), 0x5FF)
    return bytes([start]) + ethernet(body, ethertype)[1:]


def snap(draw: Draw, ethertype: int, body: bytes) -> bytes:
    """Returns LLC before a body of an Ethernet type."""
    kind = draw(st.sampled_from(["snap"] * 4 + ["802.1H", "bridged", "ip", "nlpid", "other"]))
    if kind == "ip":
        return b"\x06\x06\x03" + body
    if kind == "nlpid":
        return b"\xfe\xfe\x03" + bytes([draw(st.sampled_from([0xCC, 0x8E, 0xCF, 0x81]))]) + body
    if kind == "bridged":
        pid = draw(st.sampled_from([1, 7, 0x0E]))
        return b"\xaa\xaa\x03\0\x80\xc2" + _words(pid) + ethernet(body, ethertype)
    organisation = {"snap": b"\0\0\0", "802.1H": b"\0\0\xf8", "other": b"\0\0\x0c"}[kind]
    return b"\xaa\xaa\x03" + organisation + _words(ethertype) + body


def mpls(draw: Draw, packet: bytes, depth: int = 1) -> bytes:
    """Returns a stack of labels over IP or an Ethernet pseudo-wire."""
    labels = draw(st.integers(0, 2))
    body = packet
    if draw(st.booleans()):
        body = draw(st.sampled_from([b"", b"\0\0\0\1"])) + frame(draw, packet, depth)
    return b"\0\1\0\x40" * labels + b"\0\1\1\x40" + body


def ppp(draw: Draw, packet: bytes) -> bytes:
    """Returns PPP, or Cisco HDLC."""
    six = type_of(packet) == IP6_TYPE
    kind = draw(st.sampled_from(["ip"] * 4 + ["short", "mpls", "multilink", "chdlc", "control"]))
    if kind == "chdlc":
        return draw(st.sampled_from([b"\x0f\0", b"\x8f\0"])) + _words(type_of(packet)) + packet
    body = {
        "ip": lambda: (b"\0\x57" if six else b"\0\x21") + packet,
        "short": lambda: (b"\x57" if six else b"\x21") + packet,
        "mpls": lambda: _words(draw(st.sampled_from([0x281, 0x283]))) + mpls(draw, packet, 0),
        "multilink": lambda: (
            b"\0\x3d" + draw(st.sampled_from([b"\xc0\0\0\1", b"\x80\0\0\1"])) + ppp(draw, packet)
        ),
        "control": lambda: b"\xc0\x21" + packet,
    }[kind]()
    return draw(st.sampled_from([b"", b"\xff\x03"])) + body


def nsh(draw: Draw, packet: bytes, depth: int = 1) -> bytes:
    """Returns a network service header."""
    words = draw(st.sampled_from([2, 6, 1]))
    protocol = draw(st.sampled_from([1, 2, 3, 4, 5, 9]))
    body = {
        3: lambda: frame(draw, packet, depth),
        4: lambda: nsh(draw, packet, 0),
        5: lambda: mpls(draw, packet, 0),
    }.get(protocol, lambda: packet)()
    if protocol in (1, 2) and draw(st.booleans()):
        protocol = 2 if type_of(packet) == IP6_TYPE else 1
    head = struct.pack(">HBB", words | 0x0FC0, 1, protocol)
    return head.ljust(4 * max(words, 1), b"\0") + body


def _tagged(size: int, kinds: tuple[int, ...]) -> Callable[[Draw, bytes, int], tuple[int, bytes]]:
    def tag(draw: Draw, packet: bytes, depth: int) -> tuple[int, bytes]:
        ethertype, body = typed(draw, packet, depth)
        return draw(st.sampled_from(kinds)), b"\0" * (size - 2) + _words(ethertype) + body

    return tag


def _macsec(draw: Draw, packet: bytes, depth: int) -> tuple[int, bytes]:
    ethertype, body = typed(draw, packet, depth)
    control = draw(st.sampled_from([0, 0x20, 0x2C, 0x80]))
    size = 14 if control & 0x20 else 6
    return 0x88E5, bytes([control]).ljust(size, b"\0") + _words(ethertype) + body


def _trill(draw: Draw, packet: bytes, depth: int) -> tuple[int, bytes]:
    options = draw(st.sampled_from([0, 1]))
    head = _words(options << 6 | draw(st.sampled_from([5, 5, 0x8005])), 1, 2)
    return 0x22F3, head + bytes(4 * options) + frame(draw, packet, depth)


def _pppoe(draw: Draw, packet: bytes, depth: int) -> tuple[int, bytes]:
    body = ppp(draw, packet)
    start = draw(st.sampled_from([b"\x11\0"] * 4 + [b"\x11\x09", b"\x12\0"]))
    return 0x8864, start + _words(7, len(body)) + body


_TYPED: dict[str, Callable[[Draw, bytes, int], tuple[int, bytes]]] = {
    "vlan": _tagged(4, (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300)),
    "six": _tagged(6, (0x8926, 0x892F, 0xF1C1)),
    "eight": _tagged(8, (0x893F, 0x8909)),
    "mac-in-mac": lambda draw, packet, depth: (0x88E7, bytes(4) + frame(draw, packet, depth)),
    "fabricpath": lambda draw, packet, depth: (0x8903, bytes(2) + frame(draw, packet, depth)),
    "ethernet": lambda draw, packet, depth: (0x6558, frame(draw, packet, depth)),
    "macsec": _macsec,
    "trill": _trill,
    "nsh": lambda draw, packet, depth: (0x894F, nsh(draw, packet, depth)),
    "mpls": lambda draw, packet, depth: (
        draw(st.sampled_from([0x8847, 0x8848])),
        mpls(draw, packet, depth),
    ),
    "ppp": lambda draw, packet, depth: (0x880B, ppp(draw, packet)),
    "pppoe": _pppoe,
    "other": lambda draw, packet, depth: (0x0806, packet),
}


# IEEE 802.11


def wlan(draw: Draw, packet: bytes, swapped: bool = False) -> bytes:
    """Returns an IEEE 802.11 data frame; Cisco swaps the first and last words in CAPWAP."""
    kind = draw(st.sampled_from([0x08, 0x08, 0x88, 0x88, 0x48, 0x80, 0xC8]))
    flags = draw(st.sampled_from([0, 1, 2, 3, 0x80, 0x83, 0x40]))
    control = draw(st.sampled_from([0, 0, 0, 1]))
    head = bytes([kind, flags]) + b"\0" * 20 + bytes([control, 7])
    if swapped:
        head = head[1::-1] + head[2:22] + head[:21:-1]
    if flags & 3 == 3:
        head += b"\2" * 6
    aggregate = 0
    if kind & 0x80:
        aggregate = draw(st.sampled_from([0, 0x80]))
        head += bytes([aggregate, 0])
        if flags & 0x80:
            head += bytes(4)
    body = snap(draw, type_of(packet), packet)
    if aggregate:
        body = b"\2" * 12 + _words(len(body)) + body
    return head + body


def radiotap(draw: Draw, packet: bytes) -> bytes:
    """Returns IEEE 802.11 behind radiotap."""
    words = draw(st.integers(1, 3))
    present = draw(st.sampled_from([0, 1, 2, 3]))
    fields = b""
    at = 4 + 4 * words
    if present & 1:
        fields += bytes(-at % 8 + 8)
    padded = draw(st.booleans())
    fields += bytes([0x20 if padded else 0]) if present & 2 else b""
    masks = [present] + [0] * (words - 1)
    masks = [mask | (0x80000000 if i < words - 1 else 0) for i, mask in enumerate(masks)]
    head = struct.pack(f"<BBH{words}I", 0, 0, at + len(fields), *masks)
    return head + fields + wlan(draw, packet)


# Tunnels


def tunnel(draw: Draw, packet: bytes) -> tuple[int, bytes]:
    """Returns a protocol number and what an IP header of it carries, the packet inside."""
    return _TUNNELS[draw(st.sampled_from(sorted(_TUNNELS)))](draw, packet)


def _number(packet: bytes) -> int:
    return IPV6 if type_of(packet) == IP6_TYPE else IPIP


def _gre(draw: Draw, packet: bytes) -> tuple[int, bytes]:
    flags = draw(st.sampled_from([0, 0, 0x2000, 0x3000, 0xB000, 0x1000, 0x8000, 0x4000, 2]))
    options = {
        "typed": lambda: typed(draw, packet),
        "erspan": lambda: (
            0x88BE,
            (draw(st.sampled_from([b"\x10", b"\x20"])).ljust(8, b"\0") if flags & 0x1000 else b"")
            + frame(draw, packet),
        ),
        "erspan3": lambda: (0x22EB, _erspan3(draw, packet)),
        "wccp": lambda: (0x883E, draw(st.sampled_from([b"", bytes(4)])) + packet),
        "metadata": lambda: (0x8909, _words(type_of(packet), 0x101, 1, 0) + packet),
        "aruba": lambda: (draw(st.sampled_from([0x8200, 0x83FF, 0x9000])), wlan(draw, packet)),
        "frame relay": lambda: (0x6559, frame_relay(draw, packet)),
        "other": lambda: (draw(st.sampled_from([0, 0x88CC, 0x2000])), packet),
    }
    kind, body = options[draw(st.sampled_from(sorted(options)))]()
    fields = bytes(4) if flags & 0xC000 else b""
    fields += bytes(4) * bool(flags & 0x2000) + bytes(4) * bool(flags & 0x1000)
    if flags & 0x4000:
        fields += draw(st.sampled_from([b"", b"\0\2\0\4abcd"])) + bytes(4)
    return GRE, _words(flags, kind) + fields + body


def _erspan3(draw: Draw, packet: bytes) -> bytes:
    flags = draw(st.sampled_from([0, 1]))
    kind = draw(st.sampled_from([0, 0, 2, 3]))
    head = draw(st.sampled_from([b"\x20", b"\x20", b"\x10"])).ljust(10, b"\0")
    body = packet if kind == 2 else frame(draw, packet)
    return head + bytes([kind << 2, flags]) + bytes(8 * flags) + body


def _pptp(draw: Draw, packet: bytes) -> tuple[int, bytes]:
    flags = draw(st.sampled_from([0x3001, 0x3081, 0x2081, 0x2001]))
    body = ppp(draw, packet)
    fields = _words(len(body), 9) + bytes(4) * bool(flags & 0x1000) + bytes(4) * bool(flags & 0x80)
    return GRE, _words(flags, draw(st.sampled_from([0x880B] * 3 + [0x0800]))) + fields + body


def _ah(draw: Draw, packet: bytes) -> tuple[int, bytes]:
    words = draw(st.sampled_from([4, 5, 1, 0]))
    following = draw(st.sampled_from([_number(packet), _number(packet), 17]))
    return AH, bytes([following, words]).ljust(4 * words + 8, b"\0") + packet


def _l2tp3_inside(draw: Draw, packet: bytes) -> bytes:
    gap = bytes(draw(st.sampled_from([0, 4, 8, 12])))
    inner = draw(st.sampled_from(["ethernet", "ppp", "ip"]))
    body = {
        "ethernet": lambda: frame(draw, packet, 1),
        "ppp": lambda: ppp(draw, packet),
        "ip": lambda: packet,
    }[inner]()
    return draw(st.sampled_from([b"\0\0\0\1", b"\0\0\0\1", bytes(4)])) + gap + body


_TUNNELS: dict[str, Callable[[Draw, bytes], tuple[int, bytes]]] = {
    "ip": lambda draw, packet: (_number(packet), packet),
    "gre": _gre,
    "pptp": _pptp,
    "ah": _ah,
    "etherip": lambda draw, packet: (
        ETHERIP,
        draw(st.sampled_from([b"\x30\0", b"\x30\0", b"\x40\0"])) + frame(draw, packet),
    ),
    "mpls": lambda draw, packet: (MPLS_IN_IP, mpls(draw, packet)),
    "l2tp3": lambda draw, packet: (L2TP, _l2tp3_inside(draw, packet)),
    "ethernet": lambda draw, packet: (ETHERNET_IN_IP, frame(draw, packet)),
    "udp": lambda draw, packet: _in_udp(draw, packet),
    "udp again": lambda draw, packet: _in_udp(draw, packet),
}


def _in_udp(draw: Draw, packet: bytes) -> tuple[int, bytes]:
    kind = draw(st.sampled_from(sorted(_UDP_TUNNELS)))
    port, make = _UDP_TUNNELS[kind]
    ports = [40000, port]
    if draw(st.integers(0, 3)) == 0:
        ports = draw(st.sampled_from([[port, 40000], [port, port], [port, 53], [4789, port]]))
    return UDP, udp(*ports, make(draw, packet))


def _teredo(draw: Draw, packet: bytes) -> bytes:
    lengths = draw(st.sampled_from([(0, 0), (3, 5)]))
    proof = bytes([0, 1, *lengths]) + bytes(sum(lengths) + 9)
    origin = bytes(8)
    return draw(st.sampled_from([b"", b"", proof, origin, proof + origin, origin * 2])) + packet


def _vxlan(draw: Draw, packet: bytes) -> bytes:
    flags = draw(st.sampled_from([b"\x08\0\0\0"] * 4 + [b"\x88\0\0\7", b"\0\0\0\0", b"\x0c\0\0\1"]))
    body = packet if flags[3] == 1 else frame(draw, packet)
    return flags + b"\0\0\1\0" + body


def _vxlan_gpe(draw: Draw, packet: bytes) -> bytes:
    protocol = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 6]))
    flags = draw(st.sampled_from([0x0C, 0x0C, 0x08, 0x0D, 0x04, 0x1C]))
    body = {
        0: lambda: frame(draw, packet),
        3: lambda: frame(draw, packet),
        4: lambda: nsh(draw, packet),
        5: lambda: mpls(draw, packet),
    }.get(protocol, lambda: packet)()
    return bytes([flags, 0, 0, protocol, 0, 0, 1, 0]) + body


def _geneve(draw: Draw, packet: bytes) -> bytes:
    words = draw(st.sampled_from([0, 0, 2]))
    flags = draw(st.sampled_from([0, 0, 0x40, 0x80, 1]))
    ethertype, body = typed(draw, packet)
    if draw(st.booleans()):
        ethertype, body = 0x6558, frame(draw, packet)
    return bytes([words, flags]) + _words(ethertype) + b"\0\0\1\0" + bytes(4 * words) + body


def _gtp_u(draw: Draw, packet: bytes) -> bytes:
    flags = draw(st.sampled_from([0x30, 0x30, 0x32, 0x34, 0x37, 0x38]))
    options = b""
    if flags & 7:
        options = b"\0\0\0" + (b"\x85\1\0\0\x40\2abcdef\0" if flags & 4 else b"\0")
    kind = draw(st.sampled_from([255, 255, 255, 1]))
    body = options + packet
    return bytes([flags, kind]) + _words(len(body)) + b"\0\0\0\1" + body


def _l2tp(draw: Draw, packet: bytes) -> bytes:
    flags = draw(st.sampled_from([2, 0x4002, 0x0802, 0x0202, 0x4A02, 0xC802, 0x0003, 0x0012]))
    if flags == 3:
        return _words(3, 0) + _l2tp3_inside(draw, packet)
    fields = b""
    body = ppp(draw, packet)
    if flags & 0x4000:
        fields += _words(40 + len(body))
    fields += _words(1, 2)
    if flags & 0x0800:
        fields += _words(3, 4)
    if flags & 0x0200:
        fields += _words(3) + b"pad"
    return _words(flags) + fields + body


def _ayiya(draw: Draw, packet: bytes) -> bytes:
    identity, signature = draw(st.sampled_from([(4, 5), (4, 5), (0, 0)]))
    code = draw(st.sampled_from([1, 1, 1, 0]))
    head = bytes([identity << 4 | 1, signature << 4 | 1, 0x10 | code, _number(packet)]) + bytes(4)
    return head + bytes((1 << identity) + 4 * signature) + packet


def _capwap(draw: Draw, packet: bytes) -> bytes:
    words = draw(st.sampled_from([2, 4]))
    native = draw(st.booleans())
    flags = draw(st.sampled_from([0, 0, 0x30, 0x80, 0x08]))
    radio = draw(st.sampled_from([1, 1, 3]))
    head = bytes([0, words << 3, radio << 1 | native, flags]).ljust(4 * words, b"\0")
    if native:
        return head + wlan(draw, packet, swapped=draw(st.booleans()))
    return head + frame(draw, packet)


def _tzsp(draw: Draw, packet: bytes) -> bytes:
    kind = draw(st.sampled_from([1, 18, 119]))
    tags = draw(st.sampled_from([b"\1", b"\0\x0a\1\xc4\1", b"\x29\2ab\0\0\1"]))
    body = wlan(draw, packet) if kind == 18 else frame(draw, packet)
    return bytes([1, draw(st.sampled_from([0, 1, 4]))]) + _words(kind) + tags + body


_UDP_TUNNELS: dict[str, tuple[int, Callable[[Draw, bytes], bytes]]] = {
    "teredo": (3544, _teredo),
    "vxlan": (4789, _vxlan),
    "vxlan of Linux": (8472, _vxlan),
    "vxlan_gpe": (4790, _vxlan_gpe),
    "geneve": (6081, _geneve),
    "gtp_u": (2152, _gtp_u),
    "l2tp": (1701, _l2tp),
    "ayiya": (5072, _ayiya),
    "capwap": (5247, _capwap),
    "tzsp": (37008, _tzsp),
    "mpls": (6635, mpls),
}


# Link layers


def frame_relay(draw: Draw, packet: bytes) -> bytes:
    """Returns frame relay of RFC 2427, or Cisco's."""
    address = draw(st.sampled_from([b"\x18\x41", b"\x18\x40\1", b"\x18\x40\0\1", b"\x19\x41"]))
    kind = draw(st.sampled_from(["cisco", "ip", "snap", "bridged", "ppp"]))
    six = type_of(packet) == IP6_TYPE
    body = {
        "cisco": lambda: _words(type_of(packet)) + packet,
        "ip": lambda: b"\x03" + (b"\x8e" if six else b"\xcc") + packet,
        "snap": lambda: b"\x03\0\x80\0\0\0" + _words(type_of(packet)) + packet,
        "bridged": lambda: b"\x03\0\x80\0\x80\xc2\0\7" + frame(draw, packet),
        "ppp": lambda: b"\x03\xcf" + ppp(draw, packet),
    }[kind]()
    return address + body


def _family(draw: Draw, packet: bytes) -> int:
    return draw(st.sampled_from([10, 24, 30])) if type_of(packet) == IP6_TYPE else 2


def _llc(draw: Draw, packet: bytes) -> bytes:
    return snap(draw, *typed(draw, packet))


def _atm(draw: Draw, packet: bytes) -> bytes:
    if draw(st.booleans()):
        return b"\xaa\xaa\x03\0\x80\xc2\0\1\0\0" + frame(draw, packet)
    return _llc(draw, packet)


def _token_ring(draw: Draw, packet: bytes) -> bytes:
    route = draw(st.sampled_from([b"", b"\2\0", b"\6\0abcd", b"\1\0"]))
    control = draw(st.sampled_from([0x40, 0x40, 0]))
    head = bytes([0x10, control]) + b"\2" * 6 + (b"\x82" if route else b"\2") + b"\2" * 5
    return head + route + _llc(draw, packet)


def _arcnet(draw: Draw, packet: bytes, before: int) -> bytes:
    kind = draw(st.sampled_from([240, 212, 196, 213]))
    if kind == 240:
        return bytes(before) + b"\xf0" + packet
    flags = draw(st.sampled_from([b"\0", b"\3", b"\2", b"\xff"]))
    rest = b"\0\0" + b"\0\0\0" * (flags == b"\xff" and before == 2)
    return bytes(before) + bytes([kind]) + flags + rest + packet


def _pktap(draw: Draw, packet: bytes) -> bytes:
    link = draw(st.sampled_from([1, 12, 0, 105, 230, 999]))
    size = draw(st.sampled_from([108, 108, 20, 8]))
    head = struct.pack("<III", size, draw(st.sampled_from([1, 1, 2])), link)
    return head.ljust(size, b"\0") + framed(draw, packet, link)


def _ppi(draw: Draw, packet: bytes) -> bytes:
    link = draw(st.sampled_from([1, 105, 127, 192, 195, 999]))
    size = draw(st.sampled_from([8, 8, 32, 4]))
    return struct.pack("<BBHI", 0, 0, size, link).ljust(size, b"\0") + framed(draw, packet, link)


def _nflog(draw: Draw, packet: bytes) -> bytes:
    order = draw(st.sampled_from(["<", "<", ">"]))
    family = draw(st.sampled_from([2, 10, 7]))
    if family != 7 and draw(st.booleans()):
        family = 10 if type_of(packet) == IP6_TYPE else 2
    first = draw(st.sampled_from([b"", struct.pack(order + "HHI", 8, 1, 0)]))
    odd = draw(st.sampled_from([b"", struct.pack(order + "HH", 6, 10) + b"ab\0\0"]))
    payload = struct.pack(order + "HH", 4 + len(packet) & 0xFFFF, 9) + packet
    return bytes([family, 0, 0, 1]) + first + odd + payload


def _juniper(make: Callable[[Draw, bytes], bytes]) -> Callable[[Draw, bytes], bytes]:
    def juniper(draw: Draw, packet: bytes) -> bytes:
        flags = draw(st.sampled_from([0x80, 0x81, 1, 3, 0x82]))
        extension = b"\0\4abcd" if flags & 0x80 else b""
        body = bytes(4) + packet if flags & 2 else make(draw, packet)
        return b"MGC" + bytes([flags]) + extension + body

    return juniper


def _erf(draw: Draw, packet: bytes) -> bytes:
    kind = draw(st.sampled_from([1, 2, 5, 16, 22, 23, 3]))
    extensions = draw(st.sampled_from([[], [b"\1"], [b"\x81", b"\1"]]))
    kind |= 0x80 if extensions else 0
    body = {
        1: lambda: ppp(draw, packet),
        2: lambda: bytes(2) + frame(draw, packet),
        5: lambda: bytes(4) + ppp(draw, packet),
        16: lambda: bytes(2) + frame(draw, packet),
    }.get(kind & 0x7F, lambda: packet)()
    more = b"".join(extension.ljust(8, b"\0") for extension in extensions)
    return bytes(8) + bytes([kind]) + bytes(7) + more + body


def _upper_pdu(draw: Draw, packet: bytes) -> bytes:
    name = draw(st.sampled_from([b"ip\0\0", b"ipv6", b"eth_withoutfcs\0\0", b"http"]))
    tag = _words(12, len(name)) + name
    body = frame(draw, packet) if name.startswith(b"eth") else packet
    return tag + draw(st.sampled_from([b"", _words(20, 4) + bytes(4)])) + _words(0, 0) + body


def _prism(draw: Draw, packet: bytes) -> bytes:
    head = draw(st.sampled_from([bytes(144), b"\x80\x21\x10\1\0\0\0\x40".ljust(64, b"\0")]))
    return head + wlan(draw, packet)


def _docsis(draw: Draw, packet: bytes) -> bytes:
    control = draw(st.sampled_from([b"\0\0", b"\1\4", b"\xc2\0"]))
    return control + bytes(4) + bytes(4) * (control[0] == 1) + frame(draw, packet)


def _cooked(link: int) -> Callable[[Draw, bytes], bytes]:
    def cooked(draw: Draw, packet: bytes) -> bytes:
        kind = draw(st.sampled_from(["typed"] * 4 + ["llc", "ppp", "other"]))
        if kind == "typed":
            ethertype, body = typed(draw, packet)
        else:
            ethertype = {"llc": 4, "ppp": 7, "other": 1}[kind]
            body = {"llc": _llc, "ppp": ppp}.get(kind, lambda _, packet: packet)(draw, packet)
        return linked(body, link, ethertype)

    return cooked


def _switch_tag(size: int) -> Callable[[Draw, bytes], bytes]:
    def tagged(draw: Draw, packet: bytes) -> bytes:
        plain = frame(draw, packet)
        return plain[:12] + bytes(size) + plain[12:]

    return tagged


def _chdlc(draw: Draw, packet: bytes) -> bytes:
    if draw(st.integers(0, 4)) == 0:
        return ppp(draw, packet)
    ethertype, body = typed(draw, packet)
    return b"\x0f\0" + _words(ethertype) + body


def _after(
    size: int, make: Callable[[Draw, bytes], bytes], start: bytes = b""
) -> Callable[[Draw, bytes], bytes]:
    return lambda draw, packet: start.ljust(size, b"\0") + make(draw, packet)


def _typed_after(size: int, at: int) -> Callable[[Draw, bytes], bytes]:
    def make(draw: Draw, packet: bytes) -> bytes:
        ethertype, body = typed(draw, packet)
        return (bytes(at) + _words(ethertype)).ljust(size, b"\0") + body

    return make


def _bare(draw: Draw, packet: bytes) -> bytes:
    return packet


FRAMES: dict[int, Callable[[Draw, bytes], bytes]] = {
    0: lambda draw, packet: linked(packet, NULL),
    1: frame,
    6: _token_ring,
    7: lambda draw, packet: _arcnet(draw, packet, 2),
    8: _after(16, _bare),
    9: ppp,
    10: lambda draw, packet: (
        bytes([draw(st.sampled_from([0x50, 0x54, 0x41]))]) + bytes(12) + _llc(draw, packet)
    ),
    12: _bare,
    19: _llc,
    50: ppp,
    51: lambda draw, packet: _pppoe(draw, packet, 0)[1],
    100: _atm,
    102: _after(24, _bare),
    104: _chdlc,
    105: wlan,
    106: lambda draw, packet: packet if draw(st.booleans()) else _llc(draw, packet),
    107: frame_relay,
    109: lambda draw, packet: struct.pack("<I", _family(draw, packet)) + bytes(8) + packet,
    113: _cooked(SLL),
    117: lambda draw, packet: bytes([61, _family(draw, packet)]).ljust(64, b"\0") + packet,
    119: _prism,
    122: _after(16, _llc),
    123: lambda draw, packet: (
        b"\2\0\0\0" + _atm(draw, packet)
        if draw(st.booleans())
        else b"\1\0\0\0\0\0" + frame(draw, packet)
    ),
    127: radiotap,
    129: lambda draw, packet: _arcnet(draw, packet, 4),
    138: _typed_after(18, 16),
    143: _docsis,
    149: _pktap,
    163: _after(64, wlan, b"\x80\x21\x10\1\0\0\0\x40"),
    166: lambda draw, packet: draw(st.sampled_from([b"\1\3", b"\0"])) + b"\0\x21" + packet,
    175: _erf,
    176: _erf,
    178: _juniper(frame),
    179: _juniper(ppp),
    180: _juniper(frame_relay),
    181: _juniper(_chdlc),
    182: lambda draw, packet: (
        draw(st.sampled_from([b"\xc0\1", b"\x80\1"])) + frame_relay(draw, packet)
    ),
    192: _ppi,
    197: _erf,
    204: _after(1, ppp),
    205: _after(1, _chdlc),
    206: _after(1, frame_relay),
    219: mpls,
    226: lambda draw, packet: (
        bytes([1, 26 if type_of(packet) == IP6_TYPE else 2]).ljust(24, b"\0") + packet
    ),
    228: _bare,
    229: _bare,
    230: _bare,
    239: _nflog,
    240: _after(4, frame),
    241: _after(12, frame),
    242: _typed_after(44, 40),
    252: _upper_pdu,
    258: _pktap,
    276: _cooked(SLL2),
    281: _switch_tag(4),
    282: _after(4, frame),
    284: _switch_tag(4),
    285: _switch_tag(8),
    999: _bare,
}
"""What makes a frame of a link type around an IP packet, by LINKTYPE_ number."""


def framed(draw: Draw, packet: bytes, link: int) -> bytes:
    """Returns a frame of a link type."""
    return FRAMES[link](draw, packet) if link in FRAMES else linked(packet, link)
