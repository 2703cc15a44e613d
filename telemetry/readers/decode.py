"""The packet kernel: from a link-layer frame to the addresses that decide, and no further.

Rules, which the reference decoder follows too:

* Link layers: Ethernet (with any number of 802.1Q/802.1ad tags, and SNAP), raw
  IP, Linux cooked v1 and v2, BSD null and loop. A frame without IP is `not_ip`.
* IPv4 needs its 20 fixed bytes, IPv6 its 40, else `unreadable_ip`; so does a
  version, header length or total length that contradicts itself. A total length
  of zero (segmentation offload, jumbo) is taken from the frame. Lengths come
  from headers, so a short snap length loses no byte.
* IPv6 extension headers (hop-by-hop, routing, destination, fragment) are walked.
* IPv4 and IPv6 in IP and GRE are opened, nested to any depth the frame holds.
  The innermost pair of addresses of which at least one is not special decides;
  what it sends is counted with its own IP length. An inside that cannot be read
  drops the packet (`unreadable_inner`): the gate could not class it.
* Where the deciding pair has a special address (a customer behind DS-Lite, say)
  and the enclosing tunnel has a domestic address on the same side, that outer
  address is the subscriber and stands in its place.
* Nothing behind the end of the innermost datagram is looked at: it is padding, or
  content. Headers are counted with 65,535 bytes at most.
* TCP, UDP, UDP-Lite, DCCP and SCTP give ports; ICMP gives type and code, with
  replies under the type of their request; anything else has ports 0. Fragments
  after the first have ports 0. Ports cut off by the snap length drop the packet
  (`unreadable_transport`).
* Both ends special or domestic: `domestic`. An end in no registry's table:
  `unallocated`. Directions are the authority's.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from telemetry.homeland import DOMESTIC, FOREIGN, SPECIAL
from telemetry.homeland.border import verdict
from telemetry.homeland.tables import class_of
from telemetry.loads import be16, be32, be64, le32, put, u8
from telemetry.raw import TUNNELS
from telemetry.reasons import Reason

LINK_NAMES = {
    0: "null",
    1: "ethernet",
    12: "raw",
    14: "raw",
    101: "raw",
    108: "loop",
    113: "linux_sll",
    228: "ipv4",
    229: "ipv6",
    276: "linux_sll2",
}
"""Link types that are read, by LINKTYPE_ number."""

# Words of one row of a decoded batch. The first five are the record's key.
E_HI, E_LO, P_HI, P_LO, KEY, HASH, TIME, SIDE, FLAGS, HEADERS, LENGTH, WORDS = range(12)
"""KEY = endpoint port | peer port << 16 | protocol << 32 | tunnel << 40."""

U64 = np.uint64


class Seeds(NamedTuple):
    """Secret odd factors of the hash, uint64, drawn for each flow table."""

    s_hi: np.uint64
    s_lo: np.uint64
    d_hi: np.uint64
    d_lo: np.uint64
    key: np.uint64
    last: np.uint64


_KEPT = int(Reason.KEPT)
_DOMESTIC = int(Reason.DOMESTIC)
_NOT_IP = int(Reason.NOT_IP)
_LINK_UNSUPPORTED = int(Reason.LINK_TYPE_UNSUPPORTED)
_BAD_LINK = int(Reason.UNREADABLE_LINK)
_BAD_IP = int(Reason.UNREADABLE_IP)
_BAD_INNER = int(Reason.UNREADABLE_INNER)
_BAD_TRANSPORT = int(Reason.UNREADABLE_TRANSPORT)

_IP4, _IP6, _ANY_IP = 4, 6, 0
_T_4IN6 = TUNNELS.index("4in6")
_T_6IN4 = TUNNELS.index("6in4")
_T_IPIP = TUNNELS.index("ipip")
_T_6IN6 = TUNNELS.index("6in6")
_T_GRE = TUNNELS.index("gre")
_MOST_HEADERS = 0xFFFF  # so that a row's counters of 32 bits can be kept from running over
_V4_PREFIX = U64(0xFFFF00000000)
_P_IPIP, _P_TCP, _P_UDP, _P_DCCP, _P_IPV6, _P_GRE = 4, 6, 17, 33, 41, 47
_P_ICMP, _P_ICMP6, _P_NOTHING, _P_SCTP, _P_UDPLITE = 1, 58, 59, 132, 136


@njit(cache=True, nogil=True, inline="always")
def _ethertype(ethertype):
    """Returns 4 or 6 for IP, -1 for anything else."""
    if ethertype == 0x0800:
        return _IP4
    if ethertype == 0x86DD:
        return _IP6
    return -1


@njit(cache=True, nogil=True, inline="always")
def _after_tags(base, offset, captured, ethertype):
    """Walks VLAN tags and SNAP; returns (offset, 4 | 6 | -reason)."""
    while True:
        if ethertype in (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300):
            if captured < offset + 4:
                return offset, -_BAD_LINK
            ethertype = be16(base + U64(offset + 2))
            offset += 4
        elif ethertype < 0x600:
            # 802.3 length: only SNAP with an Ethernet type can hold IP
            if captured < offset + 8:
                return offset, -_NOT_IP
            if be32(base + U64(offset)) != 0xAAAA0300 or be16(base + U64(offset + 4)) != 0:
                return offset, -_NOT_IP
            ethertype = be16(base + U64(offset + 6))
            offset += 8
            if ethertype < 0x600:
                return offset, -_NOT_IP
        else:
            version = _ethertype(ethertype)
            return offset, version if version > 0 else -_NOT_IP


@njit(cache=True, nogil=True)
def _null_version(base):
    """Reads the address family of BSD null/loop in either byte order."""
    family = be32(base)
    if family > 0xFFFF:
        family = le32(base)
    if family == 2:
        return _IP4
    if family in (10, 23, 24, 28, 30):
        return _IP6
    return -1


@njit(cache=True, nogil=True, inline="always")
def link_payload(base, captured, link):
    """Finds the IP header behind the link layer.

    Args:
        base: Memory address of the frame.
        captured: Bytes captured of it.
        link: LINKTYPE_ number.

    Returns:
        (offset, version): the offset of the IP header and 4, 6 or 0 (look at the
        first nibble); or (0, -reason).
    """
    if link == 1:
        if captured < 14:
            return 0, -_BAD_LINK
        return _after_tags(base, 14, captured, be16(base + U64(12)))
    if link in (12, 14, 101):
        return 0, _ANY_IP
    if link == 228:
        return 0, _IP4
    if link == 229:
        return 0, _IP6
    if link == 113:
        if captured < 16:
            return 0, -_BAD_LINK
        return _after_tags(base, 16, captured, max(be16(base + U64(14)), 0x600))
    if link == 276:
        if captured < 20:
            return 0, -_BAD_LINK
        return _after_tags(base, 20, captured, max(be16(base), 0x600))
    if link in (0, 108):
        if captured < 4:
            return 0, -_BAD_LINK
        version = _null_version(base)
        return 4, version if version > 0 else -_NOT_IP
    return 0, -_LINK_UNSUPPORTED


@njit(cache=True, nogil=True, inline="always")
def _gre_inner(base, offset, captured):
    """Steps over a GRE header; returns (offset, 4 | 6 | -1), -1 for no IP or unreadable."""
    if captured < offset + 4:
        return offset, -1
    flags = be16(base + U64(offset))
    protocol = be16(base + U64(offset + 2))
    if flags & 0x4007:  # source routes (RFC 1701) or a version other than 0
        return offset, -1
    size = 4
    if flags & 0x8000:
        size += 4
    if flags & 0x2000:
        size += 4
    if flags & 0x1000:
        size += 4
    return offset + size, _ethertype(protocol)


@njit(cache=True, nogil=True, inline="always")
def _request_type(protocol, kind):
    """Returns the ICMP type under which a query and its reply are one record."""
    if protocol == _P_ICMP:
        if kind == 0:
            return 8
        if kind in (14, 16, 18):
            return kind - 1
    elif kind in (129, 140):
        return kind - 1
    return kind


@njit(cache=True, nogil=True, inline="always")
def _transport(base, offset, captured, protocol):
    """Reads ports, flags and header length.

    Returns:
        (source port or type, destination port or code, flags, header bytes);
        the first is -1 when the snap length cut them off.
    """
    if protocol == _P_TCP:
        if captured < offset + 4:
            return -1, 0, 0, 0
        ports = be32(base + U64(offset))
        if captured < offset + 14:
            return ports >> 16, ports & 0xFFFF, 0, 20
        word = be16(base + U64(offset + 12))
        return ports >> 16, ports & 0xFFFF, word & 0xFF, max((word >> 12) * 4, 20)
    if protocol in (_P_UDP, _P_UDPLITE, _P_DCCP, _P_SCTP):
        if captured < offset + 4:
            return -1, 0, 0, 0
        ports = be32(base + U64(offset))
        size = 12 if protocol in (_P_DCCP, _P_SCTP) else 8
        return ports >> 16, ports & 0xFFFF, 0, size
    if protocol in (_P_ICMP, _P_ICMP6):
        if captured < offset + 2:
            return -1, 0, 0, 0
        kind = be16(base + U64(offset))
        return _request_type(protocol, kind >> 8), kind & 0xFF, 0, 8
    return 0, 0, 0, 0


@njit(cache=True, nogil=True, inline="always")
def _ip4_header(base, offset, captured, wire):
    """Reads an IPv4 header; returns (header bytes, total bytes, protocol, fragment offset)."""
    if captured < offset + 20:
        return 0, 0, 0, 0
    first = u8(base + U64(offset))
    size = (first & 15) * 4
    if first >> 4 != 4 or size < 20:
        return 0, 0, 0, 0
    total = be16(base + U64(offset + 2))
    if total == 0:
        total = wire - offset
    if total < size:
        return 0, 0, 0, 0
    fragment = be16(base + U64(offset + 6)) & 0x1FFF
    return size, total, u8(base + U64(offset + 9)), fragment


@njit(cache=True, nogil=True, inline="always")
def _ip6_header(base, offset, captured, wire):
    """Reads an IPv6 header and its extensions.

    Returns:
        (header bytes, total bytes, protocol, fragment offset); protocol is -1
        when the snap length cut the chain.
    """
    if captured < offset + 40 or u8(base + U64(offset)) >> 4 != 6:
        return 0, 0, 0, 0
    payload = be16(base + U64(offset + 4))
    protocol = u8(base + U64(offset + 6))
    # Without a length the frame tells it (segmentation offload, jumbo), unless nothing follows.
    total = wire - offset if payload == 0 and protocol != _P_NOTHING else payload + 40
    if total < 40:
        return 0, 0, 0, 0
    captured = min(captured, offset + total)
    size = 40
    fragment = 0
    while fragment == 0 and protocol in (0, 43, 44, 60):
        at = offset + size
        if captured < at + 8:
            return size, total, -1, 0
        if protocol == 44:
            fragment = be16(base + U64(at + 2)) >> 3
            step = 8
        else:
            step = (u8(base + U64(at + 1)) + 1) * 8
        protocol = u8(base + U64(at))
        size += step
    return size, total, protocol, fragment


@njit(cache=True, nogil=True, inline="always")
def _hash(seeds, s_hi, s_lo, d_hi, d_lo, key):
    """Hashes a key; multilinear, so that without the secret seeds nobody finds collisions."""
    h = s_lo * seeds.s_lo + d_lo * seeds.d_lo + key * seeds.key
    h += s_hi * seeds.s_hi + d_hi * seeds.d_hi
    h = (h ^ (h >> U64(32))) * seeds.last
    return h ^ (h >> U64(29))


@njit(cache=True, nogil=True)
def decode(base, captured, wire, link, tables, allowed, seeds, packet):
    """Decodes one frame into one row of a batch.

    Args:
        base: Memory address of the frame.
        captured: Bytes captured, all of which may be read.
        wire: Bytes it had on the wire.
        link: LINKTYPE_ number.
        tables: Homeland look-up tables.
        allowed: Bit mask of allowed directions.
        seeds: Of the hash; see `Seeds`.
        packet: Memory address of WORDS uint64 to write; TIME is left alone.

    Returns:
        A value of `Reason`.
    """
    offset, version = link_payload(base, captured, link)
    if version < 0:
        return -version
    found = False
    enclosed = False
    tunnel = 0
    o_s_hi = o_s_lo = o_d_hi = o_d_lo = U64(0)
    o_s_class = o_d_class = SPECIAL
    s_hi = s_lo = d_hi = d_lo = U64(0)
    s_class = d_class = SPECIAL
    s_port = d_port = flags = protocol = headers = length = used_tunnel = 0
    while True:
        if version == _ANY_IP:
            version = u8(base + U64(offset)) >> 4 if captured > offset else 0
        if version == _IP4:
            size, total, proto, fragment = _ip4_header(base, offset, captured, wire)
        elif version == _IP6:
            size, total, proto, fragment = _ip6_header(base, offset, captured, wire)
        else:
            size = total = proto = fragment = 0
        if size == 0:
            return _BAD_INNER if enclosed else _BAD_IP
        # What lies behind the datagram is padding, or somebody's content: never looked at.
        captured = min(captured, offset + total)
        wire = min(wire, offset + total)
        at = base + U64(offset)
        if version == _IP4:
            a_hi = b_hi = U64(0)
            a_lo = _V4_PREFIX | U64(be32(at + U64(12)))
            b_lo = _V4_PREFIX | U64(be32(at + U64(16)))
        else:
            a_hi = be64(at + U64(8))
            a_lo = be64(at + U64(16))
            b_hi = be64(at + U64(24))
            b_lo = be64(at + U64(32))
        a_class = class_of(tables, a_hi, a_lo)
        b_class = class_of(tables, b_hi, b_lo)
        is_tunnel = proto in (_P_IPIP, _P_IPV6, _P_GRE)
        decides = a_class != SPECIAL or b_class != SPECIAL
        if decides:
            found = True
            s_hi, s_lo, d_hi, d_lo = a_hi, a_lo, b_hi, b_lo
            s_class, d_class = a_class, b_class
            if enclosed and s_class == SPECIAL and o_s_class == DOMESTIC:
                s_hi, s_lo, s_class = o_s_hi, o_s_lo, o_s_class
            if enclosed and d_class == SPECIAL and o_d_class == DOMESTIC:
                d_hi, d_lo, d_class = o_d_hi, o_d_lo, o_d_class
            protocol, length, used_tunnel = proto, total, tunnel
            s_port = d_port = flags = 0
            headers = min(size, total, _MOST_HEADERS)
        if proto < 0:
            return _BAD_TRANSPORT
        if not is_tunnel:
            break
        if fragment:
            return _BAD_INNER
        o_s_hi, o_s_lo, o_s_class = a_hi, a_lo, a_class
        o_d_hi, o_d_lo, o_d_class = b_hi, b_lo, b_class
        enclosed = True
        inner = offset + size
        if proto == _P_GRE:
            tunnel = _T_GRE
            inner, inner_version = _gre_inner(base, inner, captured)
            if inner_version < 0:
                return _BAD_INNER
        elif proto == _P_IPIP:
            tunnel = _T_IPIP if version == _IP4 else _T_4IN6
            inner_version = _IP4
        else:
            tunnel = _T_6IN4 if version == _IP4 else _T_6IN6
            inner_version = _IP6
        offset, version = inner, inner_version
    if not found:
        return _DOMESTIC
    reason = verdict(s_class, d_class, allowed)
    if reason != _KEPT:
        return reason
    if decides and not fragment:
        s_port, d_port, flags, transport = _transport(base, offset + size, captured, protocol)
        if s_port < 0:
            return _BAD_TRANSPORT
        headers = min(headers + transport, length, _MOST_HEADERS)
    # The foreign address is the endpoint; of two, the lower. For ICMP the type and code
    # belong to no side.
    has_ports = protocol != _P_ICMP and protocol != _P_ICMP6
    swap = bool(d_class == FOREIGN)
    if s_class == FOREIGN and d_class == FOREIGN:
        swap = bool(s_hi > d_hi)
        if s_hi == d_hi:
            swap = bool(s_lo > d_lo) if s_lo != d_lo else has_ports and s_port > d_port
    e_port, p_port = s_port, d_port
    if swap:
        s_hi, s_lo, d_hi, d_lo = d_hi, d_lo, s_hi, s_lo
        if has_ports:
            e_port, p_port = d_port, s_port
    key = U64(e_port | (p_port << 16) | (protocol << 32) | (used_tunnel << 40))
    put(packet, E_HI, s_hi)
    put(packet, E_LO, s_lo)
    put(packet, P_HI, d_hi)
    put(packet, P_LO, d_lo)
    put(packet, KEY, key)
    put(packet, HASH, _hash(seeds, s_hi, s_lo, d_hi, d_lo, key))
    put(packet, SIDE, U64(1 if swap else 0))
    put(packet, FLAGS, U64(flags))
    put(packet, HEADERS, U64(headers))
    put(packet, LENGTH, U64(length))
    return _KEPT
