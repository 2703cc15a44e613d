"""Golden cases of every link type and encapsulation, which both decoders must meet."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from capture_kit import (
    DOMESTIC4,
    DOMESTIC6,
    ETHERNET,
    FOREIGN4,
    FOREIGN6,
    GRE,
    IP4_TYPE,
    IP6_TYPE,
    IPIP,
    IPV6,
    NOON,
    OTHER_FOREIGN4,
    RAW,
    SECOND,
    SPECIAL4,
    SPECIAL6,
    TCP,
    UDP,
    Decoder,
    Packet,
    border,
    ethernet,
    extension,
    fragment6,
    gre,
    icmp,
    ip,
    ip4,
    ip6,
    linked,
    tcp,
    udp,
)

from telemetry.raw import TUNNELS
from telemetry.readers.packets.decode import WORDS, decode
from telemetry.readers.packets.link import LINKS, Sight
from telemetry.readers.packets.meter import FlowTable
from telemetry.readers.packets.tunnel import ENCAPSULATIONS

DNS = udp(40000, 53, b"q" * 20)
PACKET = ip4(DOMESTIC4, FOREIGN4, UDP, DNS)
PACKET6 = ip6(DOMESTIC6, FOREIGN6, UDP, DNS)
PRIVATE = ip4(SPECIAL4, "10.0.0.1", UDP, DNS)
SNAP = b"\xaa\xaa\x03\0\0\0\x08\0"
WLAN = b"\x08\x01" + bytes(22)
FRAME = ethernet(PACKET)


def key(row: dict) -> tuple:
    names = ("endpoint_ip", "endpoint_port", "peer_port", "protocol", "tunnel", "outer_class")
    return tuple(row[name] for name in names)


# Link types


def le(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


LINKED = {
    "radiotap with a time and padding": (
        127,
        b"\0\0\x19\0\3\0\0\x80" + bytes(4) + bytes(4) + bytes(8) + b"\x20"
        b"\x88\x01" + bytes(22) + bytes(2) + bytes(2) + SNAP + PACKET,
    ),
    "token ring with source routing": (
        6,
        b"\x10\x40" + bytes(6) + b"\x80" + bytes(5) + b"\6" + bytes(5) + SNAP + PACKET,
    ),
    "ARCNET of BSD, RFC 1201": (7, b"\1\2\xd4\0\0\7" + PACKET),
    "ARCNET of BSD, exception": (7, b"\1\2\xd4\xff" + bytes(6) + PACKET),
    "ARCNET of BSD, RFC 1051": (7, b"\1\2\xf0" + PACKET),
    "SLIP": (8, bytes(16) + PACKET),
    "SLIP of BSD/OS": (102, bytes(24) + PACKET),
    "PPP": (9, b"\0\x21" + PACKET),
    "PPP, compressed": (9, b"\x21" + PACKET),
    "PPP, framed": (50, b"\xff\3\0\x21" + PACKET),
    "PPP, multilink": (9, b"\0\x3d\xc0\0\0\1\0\x21" + PACKET),
    "PPP, IPv6": (9, b"\xff\3\0\x57" + PACKET6),
    "PPP that is Cisco HDLC": (9, b"\x0f\0\x08\0" + PACKET),
    "PPP with a direction": (204, b"\0\xff\3\0\x21" + PACKET),
    "PPP of pppd": (166, b"\1\3\0\x21" + PACKET),
    "PPPoE": (51, b"\x11\0\0\7\0\x40\0\x21" + PACKET),
    "FDDI": (10, b"\x50" + bytes(12) + SNAP + PACKET),
    "ATM, Linux, LLC": (19, SNAP + PACKET),
    "ATM, Linux, bare": (106, PACKET),
    "ATM, LLC": (100, SNAP + PACKET),
    "ATM, bridged": (100, b"\xaa\xaa\3\0\x80\xc2\0\1\0\0" + FRAME),
    "ATM, NLPID": (100, b"\xfe\xfe\3\xcc" + PACKET),
    "ATM of Solaris": (123, b"\2\0\0\7" + SNAP + PACKET),
    "ATM of Solaris, LAN emulation": (123, b"\1\0\0\7\0\1" + FRAME),
    "Cisco HDLC": (104, b"\x0f\0\x08\0" + PACKET),
    "Cisco HDLC that is PPP": (104, b"\xff\3\0\x21" + PACKET),
    "Cisco HDLC with a direction": (205, b"\1\x0f\0\x86\xdd" + PACKET6),
    "IEEE 802.11": (105, WLAN + SNAP + PACKET),
    "IEEE 802.11, four addresses, QoS, high throughput": (
        105,
        b"\x88\x83" + bytes(28) + b"\0\0" + bytes(4) + SNAP + PACKET,
    ),
    "IEEE 802.11, aggregate": (
        105,
        b"\x88\2" + bytes(22) + b"\x80\0" + bytes(12) + b"\0\x40" + SNAP + PACKET,
    ),
    "Prism": (119, bytes(144) + WLAN + SNAP + PACKET),
    "AVS": (163, b"\x80\x21\x10\1\0\0\0\x40".ljust(64, b"\0") + WLAN + SNAP + PACKET),
    "frame relay": (107, b"\x18\x41\3\xcc" + PACKET),
    "frame relay, IPv6, long address": (107, b"\x18\x40\0\1\3\x8e" + PACKET6),
    "frame relay, SNAP": (107, b"\x18\x41\3\0\x80\0\0\0\x08\0" + PACKET),
    "frame relay, bridged": (107, b"\x18\x41\3\0\x80\0\x80\xc2\0\7" + FRAME),
    "frame relay of Cisco": (206, b"\0\x18\x41\x08\0" + PACKET),
    "multilink frame relay": (182, b"\xc0\1\x18\x41\3\xcc" + PACKET),
    "OpenBSD IPsec": (109, le(2, 7, 1) + PACKET),
    "packet filter": (117, b"\x3d\2".ljust(64, b"\0") + PACKET),
    "Fibre Channel": (122, bytes(16) + SNAP + PACKET),
    "ARCNET of Linux": (129, bytes(4) + b"\xd4\0\0\7" + PACKET),
    "FireWire": (138, bytes(16) + b"\x08\0" + PACKET),
    "DOCSIS": (143, b"\1\2\0\0ab\0\0" + FRAME),
    "PKTAP by a private number": (149, le(108, 1, 1).ljust(108, b"\0") + FRAME),
    "PKTAP": (258, le(108, 1, 12).ljust(108, b"\0") + PACKET),
    "ERF, Ethernet": (197, bytes(8) + b"\2" + bytes(7) + bytes(2) + FRAME),
    "ERF, extension, SONET": (
        175,
        bytes(8) + b"\x81" + bytes(7) + bytes(8) + b"\xff\3\0\x21" + PACKET,
    ),
    "ERF, IP": (176, bytes(8) + b"\x16" + bytes(7) + PACKET),
    "Juniper, Ethernet": (178, b"MGC\x80\0\2ab" + FRAME),
    "Juniper, bare": (178, b"MGC\3" + bytes(4) + PACKET),
    "Juniper, PPP": (179, b"MGC\1\0\x21" + PACKET),
    "Juniper, frame relay": (180, b"MGC\1\x18\x41\3\xcc" + PACKET),
    "Juniper, Cisco HDLC": (181, b"MGC\1\x0f\0\x08\0" + PACKET),
    "PPI": (192, b"\0\0\x08\0" + le(105) + WLAN + SNAP + PACKET),
    "MPLS": (219, b"\0\1\1\x40" + PACKET),
    "Solaris ipnet": (226, b"\1\2" + bytes(22) + PACKET),
    "Solaris ipnet, IPv6": (226, b"\1\x1a" + bytes(22) + PACKET6),
    "netfilter": (239, b"\2\0\0\1" + b"\5\0\x0a\0e\0\0\0" + b"\x40\0\x09\0" + PACKET),
    "netfilter, the other byte order": (239, b"\x0a\0\0\1" + b"\0\x40\0\x09" + PACKET6),
    "netANALYZER": (240, bytes(4) + FRAME),
    "netANALYZER with preamble": (241, bytes(12) + FRAME),
    "InfiniBand": (242, bytes(40) + b"\x08\0\0\0" + PACKET),
    "Wireshark, IP": (252, b"\0\x0c\0\4ip\0\0\0\0\0\0" + PACKET),
    "Wireshark, IPv6": (252, b"\0\x0c\0\4ipv6\0\0\0\0" + PACKET6),
    "Wireshark, Ethernet": (252, b"\0\x0c\0\x10eth_withoutfcs\0\0\0\0\0\0" + FRAME),
    "Linux cooked, LLC": (113, bytes(14) + b"\0\4" + SNAP + PACKET),
    "Linux cooked, PPP": (276, b"\0\7" + bytes(18) + b"\0\x21" + PACKET),
    "Broadcom tag": (281, FRAME[:12] + bytes(4) + FRAME[12:]),
    "Broadcom tag before": (282, bytes(4) + FRAME),
    "DSA": (284, FRAME[:12] + bytes(4) + FRAME[12:]),
    "EDSA": (285, FRAME[:12] + bytes(8) + FRAME[12:]),
    **{f"link {n}": (n, linked(PACKET, n)) for n in (0, 1, 12, 14, 101, 108, 113, 228, 276)},
    "link 229": (229, PACKET6),
}
"""What is in front of an IP packet, by a name: the link type and the frame."""


def inside(frame: bytes) -> bytes:
    return PACKET6 if frame.endswith(PACKET6) else PACKET


@pytest.mark.parametrize("name", LINKED)
def test_every_link_layer_leads_to_the_same_record(decoder: Decoder, name: str) -> None:
    link, frame = LINKED[name]
    assert decoder.row(frame, link=link) == decoder.row(inside(frame), link=RAW)


def test_every_link_type_that_is_read_has_a_case() -> None:
    read = {number for number, link in LINKS.items() if link.sight is Sight.READ}
    assert read == {link for link, _ in LINKED.values()}


@pytest.mark.parametrize(
    ("link", "frame", "reason"),
    [
        (105, b"\x08\x41" + bytes(22) + SNAP + PACKET, "not_ip"),
        (105, b"\x48\1" + bytes(22), "not_ip"),
        (105, b"\x80\0" + bytes(40), "not_ip"),
        (105, WLAN[:22] + b"\1\0" + SNAP + PACKET, "not_ip"),
        (127, b"\1\0\x08\0" + bytes(4) + WLAN + SNAP + PACKET, "unreadable_link"),
        (127, b"\0\0\x08\0\0\0\0\x80" + WLAN + SNAP + PACKET, "unreadable_link"),
        (51, b"\x11\x09\0\0\0\0", "not_ip"),
        (9, b"\xc0\x21\1\1\0\4", "not_ip"),
        (9, b"\0\x3d\x80\0\0\1\0\x21" + PACKET, "not_ip"),
        (107, b"\x19\x41\3\xcc" + PACKET, "unreadable_link"),
        (107, b"\x18\x40\0\0\3\xcc" + PACKET, "unreadable_link"),
        (6, b"\x10\0" + bytes(12) + SNAP + PACKET, "not_ip"),
        (7, b"\1\2\xd4\2\0\7" + PACKET, "not_ip"),
        (143, b"\xc2\0" + bytes(20), "not_ip"),
        (149, le(20, 1, 1) + bytes(8) + FRAME, "link_type_unsupported"),
        (192, b"\0\0\x08\0" + le(195) + PACKET, "not_ip"),
        (192, b"\0\0\x08\0" + le(999) + PACKET, "link_type_unsupported"),
        (192, b"\0\0\4\0" + le(1) + FRAME, "unreadable_link"),
        (239, b"\2\0\0\1\3\0\x09\0", "unreadable_link"),
        (239, b"\2\0\0\1", "not_ip"),
        (252, b"\0\x0c\0\4http\0\0\0\0" + PACKET, "not_ip"),
        (195, PACKET, "not_ip"),
        (103, PACKET, "link_type_unsupported"),
        (999, PACKET, "link_type_unsupported"),
    ],
)
def test_links_without_ip(decoder: Decoder, link: int, frame: bytes, reason: str) -> None:
    assert decoder.reason(frame, link=link) == reason


# Between the link and the first IP header


def typed(ethertype: int, body: bytes) -> bytes:
    return b"\2" * 12 + struct.pack(">H", ethertype) + body


TYPE = struct.pack(">H", IP4_TYPE)
BETWEEN = {
    "vlan": typed(0x8100, b"\0\7" + TYPE + PACKET),
    "qinq": typed(0x88A8, b"\0\7\x81\0\0\7" + TYPE + PACKET),
    "mac_in_mac": typed(0x88E7, bytes(4) + FRAME),
    "vn_tag": typed(0x8926, bytes(4) + b"\x81\0\0\7" + TYPE + PACKET),
    "e_tag": typed(0x893F, bytes(6) + TYPE + PACKET),
    "r_tag": typed(0xF1C1, bytes(4) + TYPE + PACKET),
    "hsr": typed(0x892F, bytes(4) + TYPE + PACKET),
    "macsec": typed(0x88E5, b"\x20" + bytes(13) + TYPE + PACKET),
    "cisco_metadata": typed(0x8909, b"\1\1\0\1\0\7" + TYPE + PACKET),
    "fabricpath": typed(0x8903, bytes(2) + FRAME),
    "trill": typed(0x22F3, b"\0\x45" + bytes(8) + FRAME),
    "llc": ethernet(SNAP + PACKET, len(SNAP + PACKET)),
    "mpls_label": typed(0x8847, b"\0\1\0\x40\0\1\1\x40" + PACKET),
    "mpls_label, control word": typed(0x8847, b"\0\1\1\x40\0\0\0\1" + FRAME),
    "mpls_label, bare Ethernet": typed(0x8848, b"\0\1\1\x40" + FRAME),
    "pppoe": typed(0x8864, b"\x11\0\0\7\0\x40\0\x21" + PACKET),
    "ppp": typed(0x880B, b"\xff\3\0\x21" + PACKET),
    "nsh": typed(0x894F, b"\x0f\xc6\1\3" + bytes(20) + FRAME),
    "nsh in nsh": typed(0x894F, b"\x0f\xc2\2\4" + bytes(4) + b"\x0f\xc2\2\1" + bytes(4) + PACKET),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_lies_below_the_first_ip_header_is_no_tunnel(decoder: Decoder, name: str) -> None:
    assert decoder.row(BETWEEN[name]) == decoder.row(PACKET, link=RAW)
    below = list(ENCAPSULATIONS)[: list(ENCAPSULATIONS).index("4in6")]
    assert set(below) == {name.split(",")[0].split(" ")[0] for name in BETWEEN}


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (typed(0x88E5, b"\x2c" + bytes(13) + PACKET), "not_ip"),
        (typed(0x8863, b"\x11\x09\0\0\0\0"), "not_ip"),
        (typed(0x8864, b"\x21\0\0\7\0\x40\0\x21" + PACKET), "unreadable_link"),
        (typed(0x894F, b"\x4f\xc2\2\1" + bytes(4) + PACKET), "unreadable_link"),
        (typed(0x8847, b"\0\1\1\x40\x10\0\0\0" + bytes(20)), "not_ip"),
        (typed(0x8847, b"\0\1\0\x40" * 9), "unreadable_link"),
        (typed(0x22F3, b"\x40\5" + bytes(4) + FRAME), "unreadable_link"),
    ],
)
def test_below_the_first_ip_header_without_ip(decoder: Decoder, frame: bytes, reason: str) -> None:
    assert decoder.reason(frame) == reason


# Tunnels

ENDS4, ENDS6 = (FOREIGN4, OTHER_FOREIGN4), (FOREIGN6, "2a00:1450::2")
SEGMENTS = b"\x29\2\4\0" + bytes(20)  # a segment routing header that says IPv6 follows


def carried(port: int, body: bytes) -> bytes:
    return ip4(*ENDS4, UDP, udp(40000, port, body))


def through_gre(kind: int, body: bytes, flags: int = 0) -> bytes:
    return ip4(*ENDS4, GRE, gre(kind, body, flags))


IN_6TO4 = ip6("2002:808:808::1", DOMESTIC6, UDP, DNS)
IN_ISATAP = ip6(DOMESTIC6, "2a00:1450::200:5efe:909:909", UDP, DNS)
TUNNELLED = {
    "4in6": ip6(*ENDS6, IPIP, PACKET),
    "6in4": ip4(*ENDS4, IPV6, PACKET6),
    "ipip": ip4(*ENDS4, IPIP, PACKET),
    "6in6": ip6(*ENDS6, IPV6, PACKET6),
    "gre": through_gre(IP4_TYPE, PACKET),
    "gre with all fields": through_gre(IP6_TYPE, PACKET6, 0xB000),
    "gre with source routes": ip4(
        *ENDS4, GRE, b"\x40\0\x08\0" + bytes(4) + b"\0\2\0\4abcd" + bytes(4) + PACKET
    ),
    "gre, Ethernet": through_gre(0x6558, FRAME),
    "gre, PPP": through_gre(0x880B, b"\0\x21" + PACKET),
    "gre, MPLS": through_gre(0x8847, b"\0\1\1\x40" + PACKET),
    "gre, WCCP": through_gre(0x883E, PACKET),
    "gre, WCCP version 2": through_gre(0x883E, bytes(4) + PACKET),
    "gre, frame relay": through_gre(0x6559, b"\x18\x41\3\xcc" + PACKET),
    "gre, IEEE 802.11": through_gre(0x8200, WLAN + SNAP + PACKET),
    "gre, MetaData": through_gre(0x8909, b"\x08\0\1\1\0\1\0\7" + PACKET),
    "pptp": through_gre(0x880B, b"\xff\3\0\x21" + PACKET, 0x3001),
    "pptp with acknowledgement": through_gre(0x880B, bytes(4) + b"\0\x21" + PACKET, 0x3081),
    "nvgre": through_gre(0x6558, FRAME, 0x2000),
    "erspan": through_gre(0x88BE, FRAME),
    "erspan, type II": through_gre(0x88BE, b"\x10" + bytes(7) + FRAME, 0x1000),
    "erspan, type III": through_gre(0x22EB, b"\x20" + bytes(11) + FRAME, 0x1000),
    "erspan, type III, subheader": through_gre(
        0x22EB, b"\x20" + bytes(9) + b"\x08\1" + bytes(8) + PACKET, 0x1000
    ),
    "etherip": ip4(*ENDS4, 97, b"\x30\0" + FRAME),
    "6to4": ip4(*ENDS4, IPV6, IN_6TO4),
    "isatap": ip4(*ENDS4, IPV6, IN_ISATAP),
    "teredo": carried(3544, PACKET6),
    "teredo, both indications": carried(3544, b"\0\1\1\2" + bytes(12) + bytes(8) + PACKET6),
    "vxlan": carried(4789, b"\x08" + bytes(7) + FRAME),
    "vxlan on Linux's port": carried(8472, b"\x88\0\0\7" + bytes(4) + FRAME),
    "vxlan with a protocol": carried(4789, b"\x0c\0\0\1" + bytes(4) + PACKET),
    "vxlan_gpe": carried(4790, b"\x0c\0\0\1" + bytes(4) + PACKET),
    "vxlan_gpe, NSH": carried(4790, b"\x0c\0\0\4" + bytes(4) + b"\x0f\xc2\2\1" + bytes(4) + PACKET),
    "geneve": carried(6081, b"\0\0\x65\x58" + bytes(4) + FRAME),
    "geneve, options": carried(6081, b"\2\x40\x86\xdd" + bytes(12) + PACKET6),
    "gtp_u": carried(2152, b"\x30\xff\0\x40\0\0\0\1" + PACKET),
    "gtp_u, extension": carried(
        2152, b"\x34\xff\0\x40\0\0\0\1\0\0\0\x85\1\0\0\xc0\2abcdef\0" + PACKET
    ),
    "l2tp": carried(1701, b"\0\2\0\1\0\2\xff\3\0\x21" + PACKET),
    "l2tp, all fields": carried(1701, b"\x4a\2\0\x50\0\1\0\2\0\3\0\4\0\2ab\0\x21" + PACKET),
    "l2tp, version 3 over IP": ip4(*ENDS4, 115, b"\0\0\0\1" + FRAME),
    "l2tp, version 3, cookie": ip4(*ENDS4, 115, b"\0\0\0\1" + b"\x9c" * 8 + FRAME),
    "l2tp, version 3 over UDP": carried(1701, b"\0\3\0\0\0\0\0\1" + bytes(4) + FRAME),
    "ayiya": carried(5072, b"\x42\x52\x11\x29" + bytes(4 + 16 + 20) + PACKET6),
    "capwap": carried(5247, b"\0\x10\2\0" + bytes(4) + FRAME),
    "capwap, IEEE 802.11": carried(5247, b"\0\x10\3\0" + bytes(4) + WLAN + SNAP + PACKET),
    "capwap, swapped": carried(
        5247, b"\0\x10\3\0" + bytes(4) + b"\1\x08" + bytes(22) + SNAP + PACKET
    ),
    "tzsp": carried(37008, b"\1\0\0\1\x0a\1\xc4\0\1" + FRAME),
    "tzsp, IEEE 802.11": carried(37008, b"\1\1\0\x12\1" + WLAN + SNAP + PACKET),
    "srv6": ip6(*ENDS6, 43, SEGMENTS + PACKET6),
    "srv6, Ethernet": ip6(*ENDS6, 143, FRAME),
    "mpls": ip4(*ENDS4, 137, b"\0\1\1\x40" + PACKET),
    "mpls over UDP": carried(6635, b"\0\1\1\x40" + PACKET),
    "ah": ip4(*ENDS4, 51, b"\4\4" + bytes(22) + PACKET),
}
"""A packet between two foreign addresses, with a packet from a domestic one inside."""
CONTENTS = (PACKET, PACKET6, IN_6TO4, IN_ISATAP)
BY_NUMBER = tuple(
    name for name, packet in TUNNELLED.items() if packet[9 if packet[0] >> 4 == 4 else 6] != UDP
)


def kind_of(name: str) -> str:
    return name.split(",")[0].split(" ")[0]


@pytest.mark.parametrize("name", TUNNELLED)
def test_every_tunnel_is_opened(decoder: Decoder, name: str) -> None:
    row = decoder.row(TUNNELLED[name], link=RAW)
    (content,) = (packet for packet in CONTENTS if TUNNELLED[name].endswith(packet))
    plain = decoder.row(content, link=RAW)
    assert (row.pop("tunnel"), row.pop("outer_class")) == (kind_of(name), "foreign-foreign")
    assert (plain.pop("tunnel"), plain.pop("outer_class")) == ("none", "none")
    assert row == plain


def test_every_kind_of_tunnel_has_a_case() -> None:
    assert {kind_of(name) for name in TUNNELLED} == set(TUNNELS) - {"none"}
    assert list(ENCAPSULATIONS)[-len(TUNNELS) + 1 :] == list(TUNNELS[1:])


@pytest.mark.parametrize("outer", TUNNELLED)
def test_tunnels_nest(decoder: Decoder, outer: str) -> None:
    (content,) = (packet for packet in CONTENTS if TUNNELLED[outer].endswith(packet))
    for name in ("gre", "vxlan", "6in6"):
        inner = TUNNELLED[name]
        six = inner[0] >> 4 == 6
        around = ip6(SPECIAL6, SPECIAL6, IPV6, inner) if six else inner
        if (content[0] >> 4 == 6) != six:
            continue
        head = TUNNELLED[outer][: -len(content)]
        grown = grow(head, len(around) - len(content)) + around
        assert key(decoder.row(grown, link=RAW))[4] == kind_of(name)


def grow(head: bytes, by: int) -> bytes:
    """Adds to the length in an IP header."""
    at = 4 if head[0] >> 4 == 6 else 2
    length = struct.unpack_from(">H", head, at)[0] + by
    return head[:at] + struct.pack(">H", length) + head[at + 2 :]


@pytest.mark.parametrize(
    "packet",
    [
        through_gre(0, b""),
        through_gre(0x2001, bytes(40)),
        through_gre(0x6558, typed(0x0806, bytes(28))),
        through_gre(0x880B, b"\xc0\x21\1\1\0\4", 0x3001),
        ip4(*ENDS4, GRE, b"\x20\x81\x88\x0b" + bytes(8)),
        through_gre(0x22EB, b"\x20" + bytes(9) + b"\x0c\0" + PACKET, 0x1000),
        ip4(*ENDS4, 97, b"\x30\0" + typed(0x88CC, bytes(20))),
        ip4(*ENDS4, 115, bytes(12)),
        ip4(*ENDS4, 115, b"\0\0\0\1" + b"\x9c" * 40),
        ip4(*ENDS4, 51, b"\x06\4" + bytes(42)),
        ip4(*ENDS4, 50, bytes(40)),
        ip4(*ENDS4, 143, FRAME),
    ],
    ids=[
        "GRE keep-alive",
        "NHRP",
        "ARP in GRE",
        "LCP in PPTP",
        "PPTP acknowledgement",
        "ERSPAN of another frame type",
        "LLDP in EtherIP",
        "L2TP control",
        "L2TP of something else",
        "AH in transport mode",
        "ESP",
        "Ethernet in IPv4",
    ],
)
def test_a_tunnel_that_carries_no_ip_stands_for_itself(decoder: Decoder, packet: bytes) -> None:
    row = decoder.row(packet, link=RAW)
    assert key(row) == (FOREIGN4, 0, 0, packet[9], "none", "none")
    assert row["endpoint_bytes"] == len(packet)


@pytest.mark.parametrize(
    ("port", "body"),
    [
        (3544, bytes(40)),
        (3544, PACKET),
        (4789, bytes(8) + FRAME),
        (4789, b"\x08" + bytes(6) + b"\1" + FRAME),
        (4789, b"\x08" + bytes(7) + typed(0x0806, bytes(28))),
        (4790, b"\x0d\0\0\1" + bytes(4) + PACKET),
        (4790, b"\x0c\0\0\x09" + bytes(4) + PACKET),
        (6081, b"\x40\0\x65\x58" + bytes(4) + FRAME),
        (6081, b"\0\x80\x65\x58" + bytes(4) + FRAME),
        (2152, b"\x30\1\0\x40\0\0\0\1" + PACKET),
        (2152, b"\x50\xff\0\x40\0\0\0\1" + PACKET),
        (2152, b"\x30\xff\0\x40\0\0\0\1" + b"\x55" * 40),
        (2152, b"\x34\xff\0\x40\0\0\0\1\0\0\0\x85\0" + PACKET),
        (1701, b"\xc8\2\0\x40" + bytes(40)),
        (1701, b"\0\2\0\1\0\2\xc0\x21\1\1\0\4"),
        (5072, b"\x42\x52\x10\x29" + bytes(40) + PACKET6),
        (5247, b"\0\x10\2\x80" + bytes(4) + FRAME),
        (5247, b"\1" + bytes(40)),
        (37008, b"\1\4\0\1\1" + FRAME),
        (37008, b"\1\0\0\1" + b"\x0a\1" * 3),
        (6635, b"\0\1\1\x40\x50" + bytes(40)),
        (53, b"\x08" + bytes(7) + FRAME),
    ],
)
def test_what_is_not_wholly_a_tunnel_is_ordinary_udp(
    decoder: Decoder, port: int, body: bytes
) -> None:
    row = decoder.row(carried(port, body), link=RAW)
    assert key(row) == (FOREIGN4, 40000, port, UDP, "none", "none")


@pytest.mark.parametrize("name", ["vxlan", "geneve", "gtp_u", "l2tp", "teredo", "tzsp", "capwap"])
def test_an_ip_header_in_udp_that_cannot_be_read_drops_the_packet(
    decoder: Decoder, name: str
) -> None:
    packet = TUNNELLED[name]
    header = len(packet) - len(PACKET6 if packet.endswith(PACKET6) else PACKET)
    cut = Packet(NOON, packet[: header + 19], len(packet))
    assert decoder.reason(cut, link=RAW) == "unreadable_inner"
    closed = Packet(NOON, packet[:header], len(packet))
    assert key(decoder.row(closed, link=RAW))[3:] == (UDP, "none", "none")


@pytest.mark.parametrize("name", BY_NUMBER)
def test_a_tunnel_by_number_that_is_cut_short_drops_the_packet(decoder: Decoder, name: str) -> None:
    packet = TUNNELLED[name]
    if name.startswith("l2tp"):  # what it carries is not announced
        return
    shape = packet[0] >> 4
    start = 20 if shape == 4 else 40
    for size in range(start, len(packet) - len(DNS) - 1):
        cut = Packet(NOON, packet[:size], len(packet))
        reasons = {"unreadable_inner", "unreadable_transport"}
        assert decoder.reason(cut, link=RAW) in reasons


# Nothing is read beyond what was captured


def rows_of(frame: bytes, behind: bytes, link: int, wire: int, table: FlowTable) -> list[int]:
    """Decodes a frame that lies in memory before other bytes."""
    memory = np.frombuffer(frame + behind, np.uint8)
    packet = np.zeros(WORDS, np.uint64)
    home = border()
    reason = decode(
        np.uint64(memory.ctypes.data),
        len(frame),
        wire,
        link,
        NOON,
        home.homeland.tables,
        home.allowed,
        table.flows.seeds,
        table.flows.fragments,
        np.uint64(packet.ctypes.data),
    )
    return [reason, *packet.tolist()] if reason == 0 else [reason]


ALL_CASES = (
    *LINKED.values(),
    *((ETHERNET, frame) for frame in BETWEEN.values()),
    *((RAW, packet) for packet in TUNNELLED.values()),
    (RAW, ip6(DOMESTIC6, FOREIGN6, 0, extension(44, fragment6(UDP, DNS, 0), 16))),
    (RAW, ip6(DOMESTIC6, FOREIGN6, 0, b"\x11\0\xc2\4\0\1\0\0" + DNS, length=0)),
    (RAW, ip4(DOMESTIC4, FOREIGN4, TCP, tcp(1, 2), options=b"\1" * 8, fragment=0x2000)),
)


@pytest.mark.parametrize("case", range(len(ALL_CASES)))
def test_bytes_behind_a_frame_change_nothing(case: int) -> None:
    link, frame = ALL_CASES[case]
    for size in range(len(frame) + 1):
        table = FlowTable(256)
        found = [
            rows_of(frame[:size], behind, link, len(frame), table)
            for behind in (bytes(128), b"\xff" * 128, (frame[size:] + bytes(128))[:128])
        ]
        assert found[0] == found[1] == found[2]


# Names, subscribers, classes around


def test_6to4_and_isatap_are_told_by_the_outer_address_of_the_same_side(decoder: Decoder) -> None:
    turned = ip4(OTHER_FOREIGN4, FOREIGN4, IPV6, IN_6TO4)
    assert decoder.row(turned, link=RAW)["tunnel"] == "6in4"
    turned = ip4(OTHER_FOREIGN4, FOREIGN4, IPV6, IN_ISATAP)
    assert decoder.row(turned, link=RAW)["tunnel"] == "6in4"
    both = ip4(
        "133.11.0.1", FOREIGN4, IPV6, ip6("2002:850b:1::1", "2a00:1450::5efe:808:808", UDP, DNS)
    )
    assert decoder.row(both, link=RAW)["tunnel"] == "6to4"


def test_the_subscriber_of_a_shared_address_is_the_softwire(decoder: Decoder) -> None:
    """MAP-E and lw4o6: many customers send from one domestic address."""
    relay = "2001:200:ffff::1"
    out = ip4(DOMESTIC4, FOREIGN4, TCP, tcp(40000, 443, 2))
    back = ip4(FOREIGN4, DOMESTIC4, TCP, tcp(443, 40000, 18))
    one = decoder.row(ip6(DOMESTIC6, relay, IPIP, out), ip6(relay, DOMESTIC6, IPIP, back), link=RAW)
    other = decoder.row(ip6("2001:200::2", relay, IPIP, out), link=RAW)
    native = decoder.row(ip6(DOMESTIC6, FOREIGN6, TCP, tcp(40000, 443, 2)), link=RAW)
    assert one["endpoint_packets"] == one["peer_packets"] == 1
    assert one["peer_pid"] == native["peer_pid"] != other["peer_pid"]
    assert one["outer_class"] == "domestic-domestic"
    other_tunnel = decoder.row(ip4("133.11.0.9", "133.11.0.8", IPIP, out), link=RAW)
    assert other_tunnel["peer_pid"] == decoder.row(out, link=RAW)["peer_pid"]
    abroad = decoder.row(ip6(FOREIGN6, relay, IPIP, out), link=RAW)
    assert abroad["peer_pid"] == decoder.row(out, link=RAW)["peer_pid"]


@pytest.mark.parametrize(
    ("outer", "named"),
    [
        ((SPECIAL4, FOREIGN4), "foreign-special"),
        ((FOREIGN4, SPECIAL4), "special-foreign"),
        ((DOMESTIC4, DOMESTIC4), "domestic-domestic"),
        ((OTHER_FOREIGN4, DOMESTIC4), "domestic-foreign"),
    ],
)
def test_the_outer_class_is_told_from_the_side_of_the_endpoint(
    decoder: Decoder, outer: tuple[str, str], named: str
) -> None:
    row = decoder.row(ip4(*outer, IPIP, ip4(SPECIAL4, "10.0.0.1", IPIP, PACKET)), link=RAW)
    assert key(row) == (FOREIGN4, 53, 40000, UDP, "ipip", named)


def test_no_outer_class_where_the_outermost_layer_decides(decoder: Decoder) -> None:
    row = decoder.row(ip4(DOMESTIC4, FOREIGN4, IPIP, PRIVATE), link=RAW)
    assert key(row) == (FOREIGN4, 0, 0, IPIP, "none", "none")
    between = ip4(SPECIAL4, SPECIAL4, IPIP, ip4(DOMESTIC4, FOREIGN4, GRE, gre(IP4_TYPE, PRIVATE)))
    row = decoder.row(between, link=RAW)
    assert key(row) == (FOREIGN4, 0, 0, GRE, "ipip", "special-special")


# Lengths


def test_a_jumbo_payload_option_gives_the_length(decoder: Decoder) -> None:
    options = b"\x11\0\xc2\4" + struct.pack(">I", 100_000)
    packet = ip6(DOMESTIC6, FOREIGN6, 0, options + DNS, length=0)
    row = decoder.row(Packet(NOON, packet, 66_000), link=RAW)
    assert row["peer_bytes"] == 100_040
    small = options[:4] + struct.pack(">I", 100)
    packet = ip6(DOMESTIC6, FOREIGN6, 0, small + DNS, length=0)
    assert decoder.row(Packet(NOON, packet, 66_000), link=RAW)["peer_bytes"] == 66_000
    late = b"\x11\1\0\1\2ab\0\xc2\4" + struct.pack(">I", 100_000) + bytes(2)
    packet = ip6(DOMESTIC6, FOREIGN6, 0, late + DNS, length=0)
    assert decoder.row(Packet(NOON, packet, 66_000), link=RAW)["peer_bytes"] == 100_040


# Fragments

MORE = 0x2000


def first4(
    payload: bytes, protocol: int = UDP, ends: tuple[str, str] = (DOMESTIC4, FOREIGN4)
) -> bytes:
    return ip4(*ends, protocol, payload, fragment=MORE)


def later4(
    protocol: int = UDP, ends: tuple[str, str] = (DOMESTIC4, FOREIGN4), size: int = 100
) -> bytes:
    return ip4(*ends, protocol, b"\xff" * size, fragment=20)


def at(seconds: float, packet: bytes) -> Packet:
    return Packet(NOON + int(seconds * SECOND), packet)


def test_later_fragments_are_counted_where_the_first_one_was(decoder: Decoder) -> None:
    row = decoder.row(at(1, first4(DNS)), at(1, later4()), at(2, later4(size=50)), link=RAW)
    assert key(row) == (FOREIGN4, 53, 40000, UDP, "none", "none")
    assert row["peer_bytes"] == len(first4(DNS)) + 120 + 70
    assert row["peer_payload_bytes"] == 20 + 100 + 50
    pair = DOMESTIC6, FOREIGN6
    first = ip6(*pair, 44, fragment6(60, extension(UDP, DNS), 0))
    later = ip6(*pair, 44, fragment6(60, b"\xff" * 80, 5, more=False))
    row = decoder.row(first, later, link=RAW)
    assert key(row) == (FOREIGN6, 53, 40000, UDP, "none", "none")
    assert row["peer_payload_bytes"] == 20 + 80


def test_a_fragment_without_its_first_is_of_the_address_pair(decoder: Decoder) -> None:
    for packets in (
        (at(1, later4()), at(2, first4(DNS))),
        (at(1, first4(DNS)), at(32, later4())),
        (at(40, first4(DNS)), at(9, later4())),
        (at(1, first4(DNS)), at(2, later4(TCP))),
        (at(1, first4(DNS)), at(2, later4(ends=(DOMESTIC4, OTHER_FOREIGN4)))),
        (at(1, first4(DNS)), at(2, later4(ends=(FOREIGN4, DOMESTIC4)))),
    ):
        found = decoder.rows(*packets, link=RAW)
        assert sorted(row["endpoint_port"] for row in found) == [0, 53]
    for second in (131, 71):
        assert (
            decoder.row(at(101, first4(DNS)), at(second, later4()), link=RAW)["peer_packets"] == 2
        )


def test_an_atomic_fragment_is_whole(decoder: Decoder) -> None:
    pair = DOMESTIC6, FOREIGN6
    whole = ip6(*pair, 44, fragment6(UDP, DNS, 0, more=False))
    later = ip6(*pair, 44, fragment6(UDP, b"\xff" * 80, 5))
    found = decoder.rows(whole, later, link=RAW)
    assert sorted(row["endpoint_port"] for row in found) == [0, 53]


@pytest.mark.parametrize("protocol", [4, 41, 47, 51, 97, 115, 137])
def test_later_fragments_of_tunnels_follow_the_first(decoder: Decoder, protocol: int) -> None:
    assert decoder.reason(later4(protocol), link=RAW) == "unreadable_inner"


def dropped(decoder: Decoder, *packets: bytes) -> dict[str, int]:
    from capture_kit import pcap, read

    timed = [at(i, packet) for i, packet in enumerate(packets)]
    return dict(read(pcap(timed, RAW), decoder=decoder.name).tally.dropped)


def test_fragments_of_a_tunnel_belong_to_the_record_inside(decoder: Decoder) -> None:
    ends = SPECIAL4, "10.0.0.1"
    row = decoder.row(first4(PACKET, IPIP, ends), later4(IPIP, ends), link=RAW)
    assert key(row) == (FOREIGN4, 53, 40000, UDP, "ipip", "special-special")
    assert row["peer_bytes"] == len(PACKET) + 120
    body = udp(40000, 4789, b"\x08" + bytes(7) + FRAME)
    row = decoder.row(first4(body, UDP, ends), later4(UDP, ends), link=RAW)
    assert key(row) == (FOREIGN4, 53, 40000, UDP, "vxlan", "special-special")
    inner = first4(DNS), later4()
    row = decoder.row(*(ip4(*ends, IPIP, packet) for packet in inner), link=RAW)
    assert key(row) == (FOREIGN4, 53, 40000, UDP, "ipip", "special-special")
    assert row["peer_bytes"] == len(inner[0]) + len(inner[1])


def test_fragments_of_a_dropped_first_are_dropped_alike(decoder: Decoder) -> None:
    home = ip4(DOMESTIC4, "133.11.0.2", UDP, DNS)
    assert dropped(decoder, first4(home, IPIP), later4(IPIP)) == {"domestic": 2}
    cut = first4(b"\x07", UDP)
    assert dropped(decoder, cut, later4()) == {"unreadable_transport": 2}
    assert dropped(decoder, first4(b"\x45", IPIP), later4(IPIP)) == {"unreadable_inner": 2}
    other = first4(home, IPIP), later4(IPIP, (FOREIGN4, DOMESTIC4))
    assert dropped(decoder, *other) == {"domestic": 1, "unreadable_inner": 1}


def test_private_fragments_in_a_public_tunnel_are_the_tunnels(decoder: Decoder) -> None:
    ends = SPECIAL4, "10.0.0.1"
    inner = first4(ip4("10.0.0.2", "10.0.0.3", UDP, DNS), IPIP, ends), later4(IPIP, ends)
    packets = [ip4(DOMESTIC4, FOREIGN4, GRE, gre(IP4_TYPE, packet)) for packet in inner]
    row = decoder.row(*packets, link=RAW)
    assert key(row) == (FOREIGN4, 0, 0, GRE, "none", "none")
    assert row["peer_bytes"] == sum(map(len, packets))


def test_first_fragments_outlive_the_emptying_of_the_flow_table() -> None:
    table = FlowTable(256)
    assert rows_of(first4(DNS), b"", RAW, 48, table)[0] == 0
    assert not list(table.drain())
    found = rows_of(later4(), b"", RAW, 120, table)
    assert found[5] == rows_of(PACKET, b"", RAW, 48, table)[5]


def test_more_first_fragments_than_the_table_holds() -> None:
    """The newest ones are found again; none of the rest is a wrong record."""
    table = FlowTable(256)
    ends = [(DOMESTIC4, f"8.{i >> 16}.{i >> 8 & 255}.{i & 255}") for i in range(100_000)]
    firsts = [first4(DNS, UDP, pair) for pair in ends]
    for packet in firsts:
        rows_of(packet, b"", RAW, 48, table)
    found = [rows_of(later4(UDP, pair), b"", RAW, 120, table) for pair in ends]
    known = [row[5] & 0xFFFF == 53 for row in found]
    assert 50_000 < sum(known) <= 65_536
    assert all(
        row[2] & 0xFFFFFFFF == int.from_bytes(first[16:20], "big")
        for row, first in zip(found, firsts, strict=True)
    )


def test_icmp_errors_never_open_what_they_quote(decoder: Decoder) -> None:
    quoted = icmp(3, 4, bytes(4) + TUNNELLED["gre"])
    row = decoder.row(ip(FOREIGN4, DOMESTIC4, 1, quoted), link=RAW)
    assert key(row) == (FOREIGN4, 3, 4, 1, "none", "none")
