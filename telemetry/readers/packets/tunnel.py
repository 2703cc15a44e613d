"""Encapsulations: what lies between a link layer and the IP header that decides."""

# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from telemetry.loads import be16, be32, u8
from telemetry.raw import TUNNELS
from telemetry.readers.packets.headers import (
    ANY_IP,
    ETHERNET,
    FRAME_RELAY,
    IP4,
    IP6,
    MPLS,
    NSH,
    PPP,
    TYPE,
    WLAN,
    WLAN_PLAIN,
    WLAN_SWAPPED,
    open_headers,
)
from telemetry.reasons import Reason

U64 = np.uint64
_LOW = U64(0xFFFFFFFF)

ENCAPSULATIONS: dict[str, str] = {
    "vlan": "VLAN tags, IEEE 802.1Q, in any number",
    "qinq": "stacked VLAN tags, IEEE 802.1ad and the types used before it",
    "mac_in_mac": "provider backbone bridges, IEEE 802.1ah",
    "vn_tag": "Cisco VN-Tag",
    "e_tag": "IEEE 802.1BR E-Tag",
    "r_tag": "redundancy tag, IEEE 802.1CB",
    "hsr": "HSR tag, IEC 62439-3",
    "macsec": "MACsec without encryption, IEEE 802.1AE",
    "cisco_metadata": "Cisco MetaData",
    "fabricpath": "Cisco FabricPath",
    "trill": "TRILL, RFC 6325",
    "llc": "LLC and SNAP, IEEE 802.2",
    "mpls_label": "MPLS labels, RFC 3032, and Ethernet pseudo-wires, RFC 4448",
    "pppoe": "PPPoE sessions, RFC 2516",
    "ppp": "PPP, RFC 1661, also in HDLC-like framing and unfragmented multilink",
    "nsh": "network service header, RFC 8300",
    "4in6": "IPv4 in IPv6, RFC 2473: DS-Lite, MAP-E, lw4o6",
    "6in4": "IPv6 in IPv4, RFC 4213: also 6rd",
    "ipip": "IPv4 in IPv4, RFC 2003",
    "6in6": "IPv6 in IPv6, RFC 2473",
    "gre": "GRE version 0, RFC 2784 and 2890: IP, PPP, MPLS, Ethernet, WCCP, IEEE 802.11",
    "pptp": "GRE version 1, RFC 2637",
    "nvgre": "NVGRE, RFC 7637",
    "erspan": "ERSPAN types I, II and III",
    "etherip": "EtherIP, RFC 3378",
    "6to4": "6to4, RFC 3056",
    "isatap": "ISATAP, RFC 5214",
    "teredo": "Teredo, RFC 4380",
    "vxlan": "VXLAN, RFC 7348",
    "vxlan_gpe": "VXLAN-GPE",
    "geneve": "Geneve, RFC 8926",
    "gtp_u": "GTP-U version 1, 3GPP TS 29.281",
    "l2tp": "L2TP versions 2 and 3, RFC 2661 and 3931",
    "ayiya": "AYIYA",
    "capwap": "CAPWAP data, RFC 5415, not encrypted",
    "tzsp": "TZSP",
    "srv6": "segment routing over IPv6, RFC 8986",
    "mpls": "MPLS in IP and in UDP, RFC 4023 and 7510",
    "ah": "AH in tunnel mode, RFC 4302",
}
"""What is opened, in words; the names from `4in6` on are those of `telemetry.raw.TUNNELS`."""

STANDS: Final = -int(Reason.NOT_IP)
"""Nothing of IP inside: the enclosing layer is the innermost one."""
UNREADABLE: Final = -int(Reason.UNREADABLE_INNER)
"""A tunnel that does not show what it carries."""

(
    NONE,
    T_4IN6,
    T_6IN4,
    T_IPIP,
    T_6IN6,
    T_GRE,
    T_PPTP,
    T_NVGRE,
    T_ERSPAN,
    T_ETHERIP,
    T_6TO4,
    T_ISATAP,
    T_TEREDO,
    T_VXLAN,
    T_VXLAN_GPE,
    T_GENEVE,
    T_GTP_U,
    T_L2TP,
    T_AYIYA,
    T_CAPWAP,
    T_TZSP,
    T_SRV6,
    T_MPLS,
    T_AH,
) = range(len(TUNNELS))

P_IPIP, P_IPV6, P_GRE, P_AH, P_ETHERIP, P_L2TP, P_MPLS, P_ETHERNET = (
    4,
    41,
    47,
    51,
    97,
    115,
    137,
    143,
)

_BAD: Final = -int(Reason.UNREADABLE_LINK)
_PORTS = {
    4789: T_VXLAN,
    8472: T_VXLAN,
    4790: T_VXLAN_GPE,
    6081: T_GENEVE,
    6635: T_MPLS,
    37008: T_TZSP,
    3544: T_TEREDO,
    1701: T_L2TP,
    2152: T_GTP_U,
    5072: T_AYIYA,
    5247: T_CAPWAP,
}
_TUNNEL_OF_PORT = np.zeros(1 << 16, np.uint8)
_TUNNEL_OF_PORT[list(_PORTS)] = list(_PORTS.values())


def _bucket(port: int) -> int:
    return (port * 5571 & 0xFFFF) >> 10


_BUCKETS: Final = sum({1 << _bucket(port) for port in _PORTS})


@njit(cache=True, nogil=True, inline="always")
def may_be_tunnel(source, target):
    """Returns whether one of two UDP ports might be a tunnel's; wrong for some, in few cycles."""
    one = U64(1) << U64((source * 5571 & 0xFFFF) >> 10)
    other = U64(1) << U64((target * 5571 & 0xFFFF) >> 10)
    return (one | other) & U64(_BUCKETS) != U64(0)


@njit(cache=True, nogil=True)
def holds_ip(version, protocol):
    """Returns whether a protocol over IP of a version is a tunnel, or may be one."""
    return protocol in (P_IPIP, P_IPV6, P_GRE, P_AH, P_ETHERIP, P_L2TP, P_MPLS) or (
        protocol == P_ETHERNET and version == IP6
    )


@njit(cache=True, nogil=True)
def open_protocol(base, offset, captured, wire, version, protocol, routed):
    """Opens a tunnel that a protocol number announces.

    Args:
        base: Memory address of the frame.
        offset: What follows the IP header and its extensions.
        captured: Bytes captured, up to the end of the IP datagram.
        wire: The same on the wire.
        version: Of the IP header.
        protocol: One of which `holds_ip` is true.
        routed: Whether the IPv6 header had a segment routing header (RFC 8754).

    Returns:
        (offset, version, tunnel): where the inner IP header is, 4, 6 or 0 for any; or
        STANDS or UNREADABLE in the place of the version.
    """
    value = 0
    if protocol == P_GRE:
        offset, header, value, tunnel = _gre(base, offset, captured)
    elif protocol == P_IPIP:
        header = IP4
        tunnel = T_SRV6 if routed else T_IPIP if version == IP4 else T_4IN6
    elif protocol == P_IPV6:
        header = IP6
        tunnel = T_SRV6 if routed else T_6IN4 if version == IP4 else T_6IN6
    elif protocol == P_AH:
        tunnel = T_AH
        offset, header = _ah(base, offset, captured)
    elif protocol == P_ETHERIP:
        tunnel = T_ETHERIP
        known = captured >= offset + 2 and u8(base + U64(offset)) >> 4 == 3
        offset, header = offset + 2, ETHERNET if known else _BAD
    elif protocol == P_MPLS:
        header, tunnel = MPLS, T_MPLS
    elif protocol == P_ETHERNET:
        header, tunnel = ETHERNET, T_SRV6
    else:
        tunnel = T_L2TP
        offset, header = _l2tp3(base, offset, captured, wire)
    offset, found = open_headers(base, offset, captured, header, value)
    return offset, found if found >= 0 or found == STANDS else UNREADABLE, tunnel


@njit(cache=True, nogil=True)
def _ah(base, offset, captured):
    """RFC 4302; what it carries in transport mode stays closed."""
    if captured < offset + 2:
        return offset, _BAD
    following = u8(base + U64(offset))
    size = (u8(base + U64(offset + 1)) + 2) * 4
    if following != P_IPIP and following != P_IPV6:
        return offset, STANDS
    if captured < offset + 12 or size < 12:
        return offset, _BAD
    return offset + size, IP4 if following == P_IPIP else IP6


# GRE


@njit(cache=True, nogil=True)
def _gre(base, offset, captured):
    """RFC 1701, 2637, 2784, 2890; returns (offset, header, value, tunnel)."""
    if captured < offset + 4:
        return offset, _BAD, 0, T_GRE
    flags = be16(base + U64(offset))
    kind = be16(base + U64(offset + 2))
    if flags & 7 == 1:
        return _pptp(offset, flags, kind)
    if flags & 7:
        return offset, _BAD, 0, T_GRE
    offset += 4
    if flags & 0xC000:
        offset += 4
    if flags & 0x2000:
        offset += 4
    if flags & 0x1000:
        offset += 4
    if flags & 0x4000:
        offset = _behind_routes(base, offset, captured)
        if offset < 0:
            return 0, _BAD, 0, T_GRE
    if kind == 0x88BE or kind == 0x22EB:
        offset, header = _erspan(base, offset, captured, kind, flags & 0x1000)
        return offset, header, 0, T_ERSPAN
    if kind == 0x6558:
        return offset, ETHERNET, 0, T_NVGRE if flags & 0x2000 else T_GRE
    if kind == 0x883E:  # WCCP: version 2 has a header of its own
        if captured < offset + 1:
            return offset, _BAD, 0, T_GRE
        return offset + (0 if u8(base + U64(offset)) >> 4 == 4 else 4), ANY_IP, 0, T_GRE
    if kind == 0x6559:
        return offset, FRAME_RELAY, 0, T_GRE
    if kind == 0x8909:  # MetaData after the Ethernet type that stands behind it elsewhere
        if captured < offset + 8:
            return offset, _BAD, 0, T_GRE
        return offset + 8, TYPE, be16(base + U64(offset)), T_GRE
    if 0x8200 <= kind <= 0x83FF or kind == 0x9000:  # Aruba's access points
        return offset, WLAN, WLAN_PLAIN, T_GRE
    return offset, TYPE if kind >= 0x600 else STANDS, kind, T_GRE


@njit(cache=True, nogil=True)
def _pptp(offset, flags, kind):
    if kind != 0x880B or not flags & 0x1000:
        return offset, STANDS, 0, T_PPTP
    return offset + (16 if flags & 0x80 else 12), PPP, 0, T_PPTP


@njit(cache=True, nogil=True)
def _behind_routes(base, offset, captured):
    """Steps over the source routes of RFC 1701; returns -1 when they are cut short."""
    while captured >= offset + 4:
        family = be16(base + U64(offset))
        size = u8(base + U64(offset + 3))
        offset += 4 + size
        if family == 0 and size == 0:
            return offset
    return -1


@njit(cache=True, nogil=True)
def _erspan(base, offset, captured, kind, numbered):
    """draft-foschiano-erspan; type I has no header of its own."""
    if kind == 0x88BE and not numbered:
        return offset, ETHERNET
    size = 8 if kind == 0x88BE else 12
    if captured < offset + size:
        return offset, _BAD
    if u8(base + U64(offset)) >> 4 != (1 if kind == 0x88BE else 2):
        return offset, _BAD
    if kind == 0x88BE:
        return offset + 8, ETHERNET
    word = be16(base + U64(offset + 10))
    if word & 1:  # platform-specific subheader
        size += 8
    frame = (word >> 10) & 31
    if frame == 0:
        return offset + size, ETHERNET
    return offset + size, ANY_IP if frame == 2 else STANDS


# L2TP version 3


@njit(cache=True, nogil=True)
def _l2tp3(base, offset, captured, wire):
    """RFC 3931: neither the cookie nor the kind of content is announced, so they are tried."""
    if captured < offset + 4:
        return offset, _BAD
    if be32(base + U64(offset)) == 0:  # control
        return offset, STANDS
    for size in (4, 8, 12, 16):
        for header in (ETHERNET, PPP, ANY_IP):
            at, version = open_headers(base, offset + size, captured, header, 0)
            if version >= 0 and _shows_ip(base, at, captured, wire, version):
                return at, version
    return offset, STANDS


@njit(cache=True, nogil=True)
def _shows_ip(base, offset, captured, wire, version):
    """Returns whether an IP header of the version stands there whose lengths make sense."""
    if captured < offset + 20:
        return False
    first = u8(base + U64(offset))
    if version != ANY_IP and first >> 4 != version:
        return False
    if first >> 4 == IP4:
        size = (first & 15) * 4
        total = be16(base + U64(offset + 2))
        return size >= 20 and total >= size and total <= wire - offset
    if first >> 4 != IP6 or captured < offset + 40:
        return False
    return be16(base + U64(offset + 4)) + 40 <= wire - offset


# Tunnels in UDP


@njit(cache=True, nogil=True)
def open_udp(base, offset, captured, wire):
    """Opens a UDP datagram whose ports and content are those of a tunnel.

    Args:
        base: Memory address of the frame.
        offset: Of the UDP header.
        captured: Bytes captured, up to the end of the IP datagram.
        wire: The same on the wire.

    Returns:
        As `open_protocol`; whatever does not look like a tunnel STANDS.
    """
    if captured < offset + 8:
        return offset, STANDS, NONE
    tunnel = _tunnel_of(be16(base + U64(offset)), be16(base + U64(offset + 2)))
    if tunnel == NONE:
        return offset, STANDS, NONE
    offset += 8
    value = 0
    if tunnel in (T_VXLAN, T_VXLAN_GPE, T_GENEVE):
        offset, header, value = _virtual_network(base, offset, captured, tunnel)
    elif tunnel == T_TEREDO:
        offset, header = _teredo(base, offset, captured)
    elif tunnel == T_GTP_U:
        offset, header = _gtp(base, offset, captured)
    elif tunnel == T_L2TP:
        offset, header = _l2tp(base, offset, captured, wire)
    elif tunnel == T_MPLS:
        header = MPLS
    elif tunnel == T_AYIYA:
        offset, header = _ayiya(base, offset, captured)
    elif tunnel == T_CAPWAP:
        offset, header = _capwap(base, offset, captured)
        value = WLAN_SWAPPED
    else:
        offset, header = _tzsp(base, offset, captured)
    offset, version = open_headers(base, offset, captured, header, value)
    if version < 0 or captured < offset + 1:
        return offset, STANDS, NONE
    nibble = u8(base + U64(offset)) >> 4
    if nibble != IP4 and nibble != IP6:
        return offset, STANDS, NONE
    return offset, version, tunnel


@njit(cache=True, nogil=True)
def _tunnel_of(source, target):
    tunnel = np.int64(_TUNNEL_OF_PORT[target])
    if tunnel == NONE:
        tunnel = np.int64(_TUNNEL_OF_PORT[source])
        if tunnel == T_MPLS:  # labels validate too little for answers from the port
            return NONE
    return tunnel


@njit(cache=True, nogil=True)
def _virtual_network(base, offset, captured, tunnel):
    """VXLAN (RFC 7348), VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe), Geneve (RFC 8926)."""
    if captured < offset + 8:
        return offset, STANDS, 0
    word = be32(base + U64(offset))
    if u8(base + U64(offset + 7)):
        return offset, STANDS, 0
    if tunnel == T_GENEVE:
        kind = word & 0xFFFF
        # Version 0, not control, reserved bits clear.
        known = word & 0xC0BF0000 == 0 and kind in (0x0800, 0x86DD, 0x6558)
        return offset + 8 + 4 * (word >> 24), TYPE if known else STANDS, kind
    flags = word >> 24
    following = word & 0xFF
    if tunnel == T_VXLAN:
        # Other flags are ignored, but some senders name a protocol as VXLAN-GPE does.
        if flags & 0x84 != 0x04:
            following = 0
        known = flags & 0x08 != 0
    else:
        known = flags & 0xF9 == 0x08 and word & 0xFFFF00 == 0
    if not known:
        return offset, STANDS, 0
    offset += 8
    if following == 0 and (tunnel == T_VXLAN or not flags & 0x04):
        return offset, ETHERNET, 0
    if following == 1:
        return offset, IP4, 0
    if following == 2:
        return offset, IP6, 0
    if following == 3:
        return offset, ETHERNET, 0
    if following == 4:
        return offset, NSH, 0
    return offset, MPLS if following == 5 else STANDS, 0


@njit(cache=True, nogil=True)
def _teredo(base, offset, captured):
    """RFC 4380, section 5.1.1: authentication, then origin, each of which may be absent."""
    if captured >= offset + 4 and be16(base + U64(offset)) == 1:
        lengths = be16(base + U64(offset + 2))
        offset += 13 + (lengths >> 8) + (lengths & 0xFF)
    if captured >= offset + 2 and be16(base + U64(offset)) == 0:
        offset += 8
    six = captured > offset and u8(base + U64(offset)) >> 4 == IP6
    return offset, IP6 if six else STANDS


@njit(cache=True, nogil=True)
def _gtp(base, offset, captured):
    """3GPP TS 29.281: user data of version 1, with its chain of extension headers."""
    if captured < offset + 8:
        return offset, STANDS
    word = be16(base + U64(offset))
    if word & 0xF8FF != 0x30FF:
        return offset, STANDS
    if not word & 0x700:
        return offset + 8, ANY_IP
    if captured < offset + 12:
        return offset, STANDS
    following = u8(base + U64(offset + 11)) if word & 0x400 else 0
    offset += 12
    while following:
        if captured < offset + 1:
            return offset, STANDS
        size = 4 * u8(base + U64(offset))
        if size == 0 or captured < offset + size:
            return offset, STANDS
        following = u8(base + U64(offset + size - 1))
        offset += size
    return offset, ANY_IP


@njit(cache=True, nogil=True)
def _l2tp(base, offset, captured, wire):
    """RFC 2661 (PPP) and RFC 3931, section 4.1.2."""
    if captured < offset + 2:
        return offset, STANDS
    word = be16(base + U64(offset))
    if word == 3:
        return _l2tp3(base, offset + 4, captured, wire)
    if word & 0xB4FF != 2:  # control, reserved bits, version
        return offset, STANDS
    size = 6
    if word & 0x4000:
        size += 2
    if word & 0x0800:
        size += 4
    if word & 0x0200:
        if captured < offset + size + 2:
            return offset, STANDS
        size += 2 + be16(base + U64(offset + size))
    return offset + size, PPP


@njit(cache=True, nogil=True)
def _ayiya(base, offset, captured):
    """draft-massar-v6ops-ayiya: forwarded packets."""
    if captured < offset + 8:
        return offset, STANDS
    word = be32(base + U64(offset))
    identity, hashing, signing = (word >> 24) & 15, (word >> 16) & 15, (word >> 12) & 15
    if identity > 2 or hashing > 3 or signing > 2 or (word >> 8) & 15 != 1:
        return offset, STANDS
    offset += 8 + (1 << (word >> 28)) + 4 * ((word >> 20) & 15)
    version = IP4 if word & 0xFF == P_IPIP else IP6
    if word & 0xFF not in (P_IPIP, P_IPV6) or captured <= offset:
        return offset, STANDS
    return offset, version if u8(base + U64(offset)) >> 4 == version else STANDS


@njit(cache=True, nogil=True)
def _capwap(base, offset, captured):
    """RFC 5415, section 4.3: data without DTLS, whole, of one wireless binding."""
    if captured < offset + 8:
        return offset, STANDS
    word = be32(base + U64(offset))
    words = (word >> 19) & 31
    if word >> 24 or words < 2 or word & 0x8F:
        return offset, STANDS
    if not word & 0x100:
        return offset + 4 * words, ETHERNET
    return offset + 4 * words, WLAN if (word >> 9) & 31 == 1 else STANDS


@njit(cache=True, nogil=True)
def _tzsp(base, offset, captured):
    """TaZmen Sniffer Protocol: tagged fields up to an end tag."""
    if captured < offset + 4:
        return offset, STANDS
    word = be32(base + U64(offset))
    kind = word & 0xFFFF
    if word >> 24 != 1 or (word >> 16) & 0xFF > 1 or kind not in (1, 18):
        return offset, STANDS
    offset += 4
    while captured > offset:
        tag = u8(base + U64(offset))
        offset += 1
        if tag == 1:
            return offset, ETHERNET if kind == 1 else WLAN
        if tag > 1:
            if captured <= offset:
                return offset, STANDS
            offset += 1 + u8(base + U64(offset))
    return offset, STANDS


@njit(cache=True, nogil=True)
def name_of_6in4(source, target, s_hi, s_lo, d_hi, d_lo):
    """Tells 6to4 (RFC 3056) and ISATAP (RFC 5214) from other IPv6 in IPv4.

    Args:
        source: The outer source, in the low 32 bits.
        target: The outer target.
        s_hi: Upper half of the inner source.
        s_lo: Lower half.
        d_hi: Upper half of the inner target.
        d_lo: Lower half.
    """
    if _is_6to4(source, s_hi) or _is_6to4(target, d_hi):
        return T_6TO4
    if _is_isatap(source, s_lo) or _is_isatap(target, d_lo):
        return T_ISATAP
    return T_6IN4


@njit(cache=True, nogil=True)
def _is_6to4(outer, hi):
    return hi >> U64(48) == U64(0x2002) and (hi >> U64(16)) & _LOW == outer & _LOW


@njit(cache=True, nogil=True)
def _is_isatap(outer, lo):
    # The universal bit is set where the IPv4 address is unique in the world.
    return (lo >> U64(32)) & U64(0xFDFFFFFF) == U64(0x5EFE) and lo & _LOW == outer & _LOW
