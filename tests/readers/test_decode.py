"""What becomes of one frame: golden cases that both decoders must meet."""

from __future__ import annotations

import struct

import pytest
from capture_kit import (
    DOMESTIC4,
    DOMESTIC6,
    ETHERNET,
    FOREIGN4,
    FOREIGN6,
    GRE,
    ICMP,
    ICMP6,
    IP4_TYPE,
    IP6_TYPE,
    IPIP,
    IPV6,
    LOOP,
    NOON,
    NULL,
    OTHER_FOREIGN4,
    RAW,
    SLL,
    SLL2,
    SPECIAL4,
    SPECIAL6,
    TCP,
    UDP,
    UNALLOCATED4,
    UNALLOCATED6,
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

from telemetry.homeland import FOREIGN, IN_OUT, OUT_IN, OUT_OUT
from telemetry.readers.packets.decode import request_type
from telemetry.readers.rows.numbers import REQUESTS

DNS = udp(40000, 53, b"q" * 20)
IN_TO_OUT = ip4(DOMESTIC4, FOREIGN4, UDP, DNS)
IN_TO_OUT6 = ip6(DOMESTIC6, FOREIGN6, UDP, DNS)


def key(row: dict) -> tuple:
    names = ("endpoint_ip", "endpoint_port", "peer_port", "protocol", "tunnel")
    return tuple(row[name] for name in names)


# Link layers


@pytest.mark.parametrize("link", [ETHERNET, RAW, 12, 14, SLL, SLL2, NULL, LOOP])
@pytest.mark.parametrize("packet", [IN_TO_OUT, IN_TO_OUT6], ids=["IPv4", "IPv6"])
def test_link_layers_lead_to_the_same_record(decoder: Decoder, link: int, packet: bytes) -> None:
    plain = decoder.row(packet, link=RAW)
    assert decoder.row(linked(packet, link), link=link) == plain
    assert plain["peer_bytes"] == len(packet)


@pytest.mark.parametrize(("link", "packet"), [(228, IN_TO_OUT), (229, IN_TO_OUT6)])
def test_links_of_one_ip_version(decoder: Decoder, link: int, packet: bytes) -> None:
    other = IN_TO_OUT if link == 229 else IN_TO_OUT6
    assert decoder.row(packet, link=link)["peer_packets"] == 1
    assert decoder.reason(other, link=link) == "unreadable_ip"


@pytest.mark.parametrize("family", [2, 10, 23, 24, 28, 30])
@pytest.mark.parametrize("order", "<>")
def test_null_in_both_byte_orders(decoder: Decoder, family: int, order: str) -> None:
    packet = IN_TO_OUT if family == 2 else IN_TO_OUT6
    frame = struct.pack(order + "I", family) + packet
    assert decoder.row(frame, link=NULL)["peer_bytes"] == len(packet)


@pytest.mark.parametrize("tags", [(0x8100,), (0x88A8, 0x8100), (0x9100, 0x9200, 0x8100, 0x8100)])
def test_vlan_and_qinq(decoder: Decoder, tags: tuple[int, ...]) -> None:
    assert decoder.row(ethernet(IN_TO_OUT, tags=tags)) == decoder.row(ethernet(IN_TO_OUT))
    cut = ethernet(IN_TO_OUT, tags=tags)[: 12 + 4 * len(tags)]
    assert decoder.reason(cut) == "unreadable_link"


def test_snap_may_hold_ip_and_other_llc_never_does(decoder: Decoder) -> None:
    def llc(header: bytes, payload: bytes = IN_TO_OUT) -> bytes:
        body = header + payload
        return ethernet(body, len(body))

    snap = b"\xaa\xaa\x03\0\0\0" + struct.pack(">H", IP4_TYPE)
    assert decoder.row(llc(snap)) == decoder.row(ethernet(IN_TO_OUT))
    tagged = b"\xaa\xaa\x03\0\0\0\x81\0\0\7" + struct.pack(">H", IP4_TYPE)
    assert decoder.row(llc(tagged)) == decoder.row(ethernet(IN_TO_OUT))
    assert decoder.reason(llc(b"\xaa\xaa\x03\0\0\x0c\x20\x00")) == "not_ip"
    assert decoder.reason(llc(b"\x42\x42\x03" + b"\0" * 5)) == "not_ip"
    assert decoder.reason(llc(b"\xaa\xaa\x03", b"")) == "not_ip"


def test_frames_without_ip(decoder: Decoder) -> None:
    assert decoder.reason(ethernet(b"\0" * 28, 0x0806)) == "not_ip"
    assert decoder.reason(linked(b"\0" * 28, SLL, 4), link=SLL) == "not_ip"
    assert decoder.reason(linked(b"\0" * 28, SLL2, 0x88CC), link=SLL2) == "not_ip"
    assert decoder.reason(struct.pack("<I", 7) + b"\0" * 28, link=NULL) == "not_ip"


@pytest.mark.parametrize(
    ("link", "size"), [(ETHERNET, 13), (SLL, 15), (SLL2, 19), (NULL, 3), (LOOP, 0)]
)
def test_cut_link_headers(decoder: Decoder, link: int, size: int) -> None:
    assert decoder.reason(linked(IN_TO_OUT, link)[:size], link=link) == "unreadable_link"


def test_a_link_type_that_is_not_read(decoder: Decoder) -> None:
    assert decoder.reason(IN_TO_OUT, link=103) == "link_type_unsupported"


# IP headers


def test_ipv6_cut_by_the_snap_length_keeps_its_full_length(decoder: Decoder) -> None:
    packet = ip6(DOMESTIC6, FOREIGN6, TCP, tcp(40000, 443, 0x18, b"x" * 1360))
    row = decoder.row(Packet(NOON, ethernet(packet)[:96], 14 + len(packet)))
    assert row["peer_bytes"] == 1420
    assert row["peer_payload_bytes"] == 1360
    assert row["peer_tcp_flags"] == 0x18


def test_lengths_come_from_headers_and_not_from_padding(decoder: Decoder) -> None:
    packet = ip4(DOMESTIC4, FOREIGN4, TCP, tcp(40000, 443, 0x10))
    row = decoder.row(ethernet(packet).ljust(60, b"\0"))
    assert (row["peer_bytes"], row["peer_payload_bytes"]) == (40, 0)


@pytest.mark.parametrize("version", [4, 6])
def test_a_length_of_zero_is_taken_from_the_frame(decoder: Decoder, version: int) -> None:
    segment = tcp(40000, 443, 0x10, b"x" * 100)
    if version == 4:
        packet = ip4(DOMESTIC4, FOREIGN4, TCP, segment, total=0)
    else:
        packet = ip6(DOMESTIC6, FOREIGN6, TCP, segment, length=0)
    row = decoder.row(Packet(NOON, ethernet(packet), 14 + 70_000))
    assert row["peer_bytes"] == 70_000
    assert row["peer_payload_bytes"] == 70_000 - 20 - (20 if version == 4 else 40)
    assert row["peer_max_bytes"] == 0xFFFF  # all that a size can say


def test_what_lies_behind_the_datagram_is_never_read(decoder: Decoder) -> None:
    ends = [(DOMESTIC4, FOREIGN4), (DOMESTIC6, FOREIGN6)]
    for cut in (ip(*pair, protocol, b"x") for pair in ends for protocol in (TCP, UDP, ICMP)):
        assert decoder.reason(cut + b"SECRET PASSWORD", link=RAW) == "unreadable_transport"
    short_tunnel = ip4(DOMESTIC4, FOREIGN4, IPIP, b"", total=20) + IN_TO_OUT
    assert decoder.reason(short_tunnel, link=RAW) == "unreadable_inner"
    row = decoder.row(ip6(DOMESTIC6, FOREIGN6, 59) + bytes(6), link=RAW)
    assert row["peer_bytes"] == 40  # no next header: nothing follows, whatever the frame holds


def test_a_wire_length_below_the_captured_one_is_not_believed(decoder: Decoder) -> None:
    packet = ip4(DOMESTIC4, FOREIGN4, TCP, tcp(40000, 443), total=0)
    assert decoder.row(Packet(NOON, packet, 10), link=RAW)["peer_bytes"] == 40


@pytest.mark.parametrize(
    "packet",
    [
        IN_TO_OUT[:19],
        IN_TO_OUT6[:39],
        ip4(DOMESTIC4, FOREIGN4, UDP, DNS, first=0x44),
        ip4(DOMESTIC4, FOREIGN4, UDP, DNS, total=19),
        b"\x75" + IN_TO_OUT[1:],
        b"",
    ],
    ids=["IPv4 cut", "IPv6 cut", "header too short", "total too short", "version 7", "nothing"],
)
def test_unreadable_ip(decoder: Decoder, packet: bytes) -> None:
    assert decoder.reason(packet, link=RAW) == "unreadable_ip"
    ethertype = IP6_TYPE if packet[:1] == b"\x60" else IP4_TYPE
    assert decoder.reason(ethernet(packet, ethertype)) == "unreadable_ip"


def test_the_version_must_be_the_announced_one(decoder: Decoder) -> None:
    assert decoder.reason(ethernet(IN_TO_OUT, IP6_TYPE)) == "unreadable_ip"
    assert decoder.reason(ethernet(IN_TO_OUT6, IP4_TYPE)) == "unreadable_ip"


def test_ipv4_options_are_stepped_over(decoder: Decoder) -> None:
    packet = ip4(DOMESTIC4, FOREIGN4, UDP, DNS, options=b"\1" * 40)
    row = decoder.row(packet, link=RAW)
    assert key(row) == (FOREIGN4, 53, 40000, UDP, "none")
    assert (row["peer_bytes"], row["peer_payload_bytes"]) == (88, 20)


def test_ipv6_extension_headers_are_stepped_over(decoder: Decoder) -> None:
    chain = extension(43, extension(60, extension(44, fragment6(UDP, DNS, 0), 264), 8), 16)
    packet = ip6(DOMESTIC6, FOREIGN6, 0, chain)
    row = decoder.row(packet, link=RAW)
    assert key(row) == (FOREIGN6, 53, 40000, UDP, "none")
    assert row["peer_bytes"] == len(packet)
    assert row["peer_payload_bytes"] == 20
    cut = packet[: 40 + 16 + 8 + 263]
    assert decoder.reason(Packet(NOON, cut, len(packet)), link=RAW) == "unreadable_transport"


# Transport


@pytest.mark.parametrize(("protocol", "header"), [(17, 8), (136, 8), (33, 12), (132, 12)])
def test_ports_and_header_sizes(decoder: Decoder, protocol: int, header: int) -> None:
    row = decoder.row(ip4(DOMESTIC4, FOREIGN4, protocol, DNS), link=RAW)
    assert key(row) == (FOREIGN4, 53, 40000, protocol, "none")
    assert row["peer_payload_bytes"] == len(DNS) - header


def test_tcp_header_length_and_flags(decoder: Decoder) -> None:
    segment = tcp(40000, 443, 0x1C2, b"x" * 10, words=8)  # 0x100 was a flag once: not kept
    row = decoder.row(ip4(DOMESTIC4, FOREIGN4, TCP, segment), link=RAW)
    assert row["peer_tcp_flags"] == 0xC2
    assert row["peer_payload_bytes"] == 10


def test_a_header_longer_than_its_packet_leaves_no_payload(decoder: Decoder) -> None:
    segment = tcp(40000, 443, 2, words=5)
    segment = segment[:12] + b"\xf0" + segment[13:]  # says 60 bytes
    row = decoder.row(ip4(DOMESTIC4, FOREIGN4, TCP, segment), link=RAW)
    assert (row["peer_bytes"], row["peer_payload_bytes"]) == (40, 0)


@pytest.mark.parametrize(("kept", "flags"), [(4, 0), (13, 0), (14, 0x12)])
def test_tcp_cut_behind_its_ports(decoder: Decoder, kept: int, flags: int) -> None:
    packet = ip4(DOMESTIC4, FOREIGN4, TCP, tcp(40000, 443, 0x12, words=6))
    row = decoder.row(Packet(NOON, packet[: 20 + kept], len(packet)), link=RAW)
    assert key(row) == (FOREIGN4, 443, 40000, TCP, "none")
    assert row["peer_tcp_flags"] == flags


@pytest.mark.parametrize(("protocol", "needed"), [(TCP, 4), (UDP, 4), (132, 4), (ICMP, 2)])
def test_cut_ports_drop_the_packet(decoder: Decoder, protocol: int, needed: int) -> None:
    packet = ip4(DOMESTIC4, FOREIGN4, protocol, tcp(1, 2))
    cut = Packet(NOON, packet[: 20 + needed - 1], len(packet))
    assert decoder.reason(cut, link=RAW) == "unreadable_transport"
    whole = Packet(NOON, packet[: 20 + needed], len(packet))
    assert decoder.row(whole, link=RAW)["peer_packets"] == 1
    domestic = ip4(DOMESTIC4, SPECIAL4, protocol, b"")
    assert decoder.reason(domestic, link=RAW) == "domestic"


@pytest.mark.parametrize(
    ("protocol", "request_", "reply"),
    [(ICMP, 8, 0), (ICMP, 13, 14), (ICMP, 15, 16), (ICMP, 17, 18), (ICMP6, 128, 129)],
)
@pytest.mark.parametrize("inbound", [True, False])
def test_icmp_request_and_reply_are_one_record(
    decoder: Decoder, protocol: int, request_: int, reply: int, inbound: bool
) -> None:
    home, away = (DOMESTIC4, FOREIGN4) if protocol == ICMP else (DOMESTIC6, FOREIGN6)
    asker, asked = (away, home) if inbound else (home, away)
    row = decoder.row(
        ip(asker, asked, protocol, icmp(request_)),
        ip(asked, asker, protocol, icmp(reply)),
        link=RAW,
    )
    assert key(row) == (away, request_, 0, protocol, "none")
    assert row["endpoint_packets"] == row["peer_packets"] == 1


def test_icmp_error_keeps_type_and_code_whoever_sends_it(decoder: Decoder) -> None:
    row = decoder.row(ip4(FOREIGN4, DOMESTIC4, ICMP, icmp(3, 1)), link=RAW)
    assert key(row) == (FOREIGN4, 3, 1, ICMP, "none")
    row = decoder.row(ip4(DOMESTIC4, FOREIGN4, ICMP, icmp(3, 1)), link=RAW)
    assert key(row) == (FOREIGN4, 3, 1, ICMP, "none")


def test_other_protocols_have_ports_0(decoder: Decoder) -> None:
    row = decoder.row(ip4(DOMESTIC4, FOREIGN4, 50, b"\xff" * 40), link=RAW)
    assert key(row) == (FOREIGN4, 0, 0, 50, "none")
    assert row["peer_payload_bytes"] == 40


# Tunnels


def test_the_innermost_public_pair_decides(decoder: Decoder) -> None:
    inside = ip4(FOREIGN4, DOMESTIC4, UDP, DNS)
    for packet, tunnel in (
        (ip4(SPECIAL4, SPECIAL4, IPIP, inside), "ipip"),
        (ip6(SPECIAL6, SPECIAL6, IPIP, inside), "4in6"),
        (ip4(DOMESTIC4, DOMESTIC4, GRE, gre(IP4_TYPE, inside)), "gre"),
        (ip6(SPECIAL6, SPECIAL6, IPV6, ip6(SPECIAL6, SPECIAL6, IPIP, inside)), "4in6"),
    ):
        row = decoder.row(packet, link=RAW)
        assert key(row) == (FOREIGN4, 40000, 53, UDP, tunnel)
        assert row["endpoint_bytes"] == len(inside)
    inside = ip6(FOREIGN6, DOMESTIC6, UDP, DNS)
    for packet, tunnel in (
        (ip4(SPECIAL4, SPECIAL4, IPV6, inside), "6in4"),
        (ip6(SPECIAL6, SPECIAL6, IPV6, inside), "6in6"),
        (ip4(SPECIAL4, SPECIAL4, GRE, gre(IP6_TYPE, inside)), "gre"),
    ):
        assert key(decoder.row(packet, link=RAW)) == (FOREIGN6, 40000, 53, UDP, tunnel)


def test_a_tunnel_between_private_ends_counts_with_its_own_addresses(decoder: Decoder) -> None:
    inside = ip4(SPECIAL4, "10.0.0.1", TCP, tcp(1, 2))
    packet = ip4(FOREIGN4, DOMESTIC4, GRE, gre(IP4_TYPE, inside))
    row = decoder.row(packet, link=RAW)
    assert key(row) == (FOREIGN4, 0, 0, GRE, "none")
    assert row["endpoint_bytes"] == len(packet)
    assert row["endpoint_tcp_flags"] == 0


def test_a_domestic_pair_inside_a_foreign_tunnel_is_domestic(decoder: Decoder) -> None:
    inside = ip4(DOMESTIC4, "133.11.0.9", UDP, DNS)
    assert decoder.reason(ip4(FOREIGN4, DOMESTIC4, IPIP, inside), link=RAW) == "domestic"


def test_ds_lite_subscriber_is_the_b4(decoder: Decoder) -> None:
    """Customers share inner addresses; the tunnel's domestic end tells them apart."""
    other_b4 = "2001:200::2"
    aftr = "2001:200:ffff::1"
    out = ip4("192.0.0.2", FOREIGN4, TCP, tcp(40000, 443, 2))
    back = ip4(FOREIGN4, "192.0.0.2", TCP, tcp(443, 40000, 18))
    of_b4 = decoder.row(ip6(DOMESTIC6, aftr, IPIP, out), ip6(aftr, DOMESTIC6, IPIP, back), link=RAW)
    of_other = decoder.row(ip6(other_b4, aftr, IPIP, out), link=RAW)
    native = decoder.row(ip6(DOMESTIC6, FOREIGN6, TCP, tcp(40000, 443, 2)), link=RAW)
    assert key(of_b4) == (FOREIGN4, 443, 40000, TCP, "4in6")
    assert of_b4["endpoint_packets"] == of_b4["peer_packets"] == 1
    assert of_b4["peer_pid"] == native["peer_pid"] != of_other["peer_pid"]


def test_no_subscriber_behind_a_foreign_tunnel_end(decoder: Decoder) -> None:
    inside = ip4(SPECIAL4, FOREIGN4, UDP, DNS)
    from_foreign = decoder.row(ip6(FOREIGN6, DOMESTIC6, IPIP, inside), link=RAW)
    from_domestic = decoder.row(ip6(DOMESTIC6, FOREIGN6, IPIP, inside), link=RAW)
    plain = decoder.row(inside, link=RAW)
    assert from_foreign["peer_pid"] == plain["peer_pid"] != from_domestic["peer_pid"]


@pytest.mark.parametrize("flags", [0x2000, 0x3000, 0xB000, 0x8000])
def test_gre_with_key_sequence_and_checksum(decoder: Decoder, flags: int) -> None:
    inside = ip4(FOREIGN4, DOMESTIC4, UDP, DNS)
    packet = ip4(SPECIAL4, SPECIAL4, GRE, gre(IP4_TYPE, inside, flags))
    assert key(decoder.row(packet, link=RAW)) == (FOREIGN4, 40000, 53, UDP, "gre")


@pytest.mark.parametrize(
    "packet",
    [
        ip4(DOMESTIC4, FOREIGN4, GRE, gre(IP4_TYPE, IN_TO_OUT, 0x4000)),
        ip4(DOMESTIC4, FOREIGN4, GRE, gre(IP4_TYPE, IN_TO_OUT, 2)),
        ip4(DOMESTIC4, FOREIGN4, 97, b"\x40\0" + ethernet(IN_TO_OUT)),
        ip4(DOMESTIC4, FOREIGN4, GRE, gre(IP4_TYPE, b"")[:3]),
        ip4(DOMESTIC4, FOREIGN4, IPIP, IN_TO_OUT[:19]),
        ip4(DOMESTIC4, FOREIGN4, IPIP, IN_TO_OUT6),
        ip4(DOMESTIC4, FOREIGN4, IPV6, IN_TO_OUT),
        ip4(DOMESTIC4, FOREIGN4, IPIP, IN_TO_OUT, fragment=3),
        ip6(DOMESTIC6, FOREIGN6, 44, fragment6(IPV6, IN_TO_OUT6, 3)),
    ],
    ids=[
        "GRE with source routes that do not end",
        "GRE of an unknown version",
        "EtherIP of an unknown version",
        "GRE cut",
        "inner IP cut",
        "IPv6 where IPv4 is announced",
        "IPv4 where IPv6 is announced",
        "later fragment of a tunnel",
        "later fragment of a tunnel, IPv6",
    ],
)
def test_unreadable_inside_of_a_tunnel_drops_the_packet(decoder: Decoder, packet: bytes) -> None:
    assert decoder.reason(packet, link=RAW) == "unreadable_inner"


def test_sixteen_ip_headers_are_looked_into(decoder: Decoder) -> None:
    packet = ip4(FOREIGN4, DOMESTIC4, UDP, DNS)
    for _ in range(15):
        packet = ip4(SPECIAL4, SPECIAL4, IPIP, packet)
    assert key(decoder.row(packet, link=RAW)) == (FOREIGN4, 40000, 53, UDP, "ipip")
    assert decoder.reason(packet[:300], link=RAW) == "unreadable_inner"
    packet = ip4(SPECIAL4, SPECIAL4, IPIP, packet)
    assert decoder.reason(packet, link=RAW) == "unreadable_inner"


# The border


@pytest.mark.parametrize("other", [DOMESTIC4, FOREIGN4, SPECIAL4, UNALLOCATED4])
def test_an_unallocated_end_drops_the_packet(decoder: Decoder, other: str) -> None:
    assert decoder.reason(ip4(UNALLOCATED4, other, UDP, DNS), link=RAW) == "unallocated"
    assert decoder.reason(ip4(other, UNALLOCATED4, UDP, DNS), link=RAW) == "unallocated"


def test_unallocated_ipv6_and_domestic_pairs(decoder: Decoder) -> None:
    assert decoder.reason(ip6(UNALLOCATED6, FOREIGN6, UDP, DNS), link=RAW) == "unallocated"
    for pair in ((DOMESTIC4, SPECIAL4), (SPECIAL4, SPECIAL4), (DOMESTIC4, "133.11.0.2")):
        assert decoder.reason(ip4(*pair, UDP, DNS), link=RAW) == "domestic"


@pytest.mark.parametrize(
    ("pair", "direction"),
    [
        ((FOREIGN4, DOMESTIC4), OUT_IN),
        ((FOREIGN4, SPECIAL4), OUT_IN),
        ((DOMESTIC4, FOREIGN4), IN_OUT),
        ((SPECIAL4, FOREIGN4), IN_OUT),
        ((FOREIGN4, OTHER_FOREIGN4), OUT_OUT),
    ],
)
def test_directions_are_the_authoritys(
    decoder: Decoder, pair: tuple[str, str], direction: int
) -> None:
    packet = ip4(*pair, UDP, DNS)
    alone = decoder.row(packet, link=RAW, home=border(allowed=direction))
    assert alone["endpoint_packets"] + alone["peer_packets"] == 1
    others = border(allowed=(OUT_IN | IN_OUT | OUT_OUT) & ~direction)
    assert decoder.reason(packet, link=RAW, home=others) == "direction_not_allowed"


def test_of_two_foreign_addresses_the_lower_is_the_endpoint(decoder: Decoder) -> None:
    row = decoder.row(
        ip4(OTHER_FOREIGN4, FOREIGN4, UDP, udp(1, 2)),
        ip4(FOREIGN4, OTHER_FOREIGN4, UDP, udp(2, 1)),
        link=RAW,
    )
    assert key(row) == (FOREIGN4, 2, 1, UDP, "none")
    assert row["peer_ip"] == OTHER_FOREIGN4
    mixed = decoder.row(ip6("64:ff9b::808:808", FOREIGN6, UDP, udp(1, 2)), link=RAW)
    assert mixed["endpoint_ip"] == "64:ff9b::808:808"


def test_land_attack(decoder: Decoder) -> None:
    """Same address and port at both ends; of two ports, the lower is the endpoint's."""
    row = decoder.row(ip4(FOREIGN4, FOREIGN4, TCP, tcp(139, 139, 2)), link=RAW)
    assert key(row) == (FOREIGN4, 139, 139, TCP, "none")
    assert (row["endpoint_packets"], row["peer_packets"]) == (1, 0)
    row = decoder.row(
        ip4(FOREIGN4, FOREIGN4, TCP, tcp(140, 139, 2)),
        ip4(FOREIGN4, FOREIGN4, TCP, tcp(139, 140, 18)),
        link=RAW,
    )
    assert key(row) == (FOREIGN4, 139, 140, TCP, "none")
    assert (row["endpoint_tcp_flags"], row["peer_tcp_flags"]) == (18, 2)


@pytest.mark.parametrize(("kind", "code"), [(8, 0), (3, 13), (0, 0)])
def test_type_and_code_tell_no_sides_apart(decoder: Decoder, kind: int, code: int) -> None:
    row = decoder.row(ip4(FOREIGN4, FOREIGN4, ICMP, icmp(kind, code)), link=RAW)
    assert (row["endpoint_packets"], row["peer_packets"]) == (1, 0)


def test_home_prefixes_may_be_private(decoder: Decoder) -> None:
    home = border(None, ("192.168.0.0/16",))
    row = decoder.row(ip4(SPECIAL4, FOREIGN4, UDP, DNS), link=RAW, home=home)
    assert key(row) == (FOREIGN4, 53, 40000, UDP, "none")
    assert home.homeland.class_of_text(DOMESTIC4) == FOREIGN
    assert decoder.reason(ip4(SPECIAL4, "10.0.0.1", UDP, DNS), link=RAW, home=home) == "domestic"


def test_replies_of_icmp_stand_under_the_same_request_in_packets_and_in_rows() -> None:
    for protocol in (ICMP, ICMP6):
        for kind in range(256):
            assert request_type.py_func(protocol, kind) == REQUESTS.get((protocol, kind), kind)
