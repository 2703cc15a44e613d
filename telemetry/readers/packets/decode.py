"""The packet kernel: from a link-layer frame to the addresses that decide, and no further.

Rules, which the reference decoder follows too:

* Link layers are those of `link`; a frame without IP is `not_ip`, a link header that is
  cut short or contradicts itself `unreadable_link`. Tags, labels and their like before
  the first IP header (`headers`) are no tunnel.
* IPv4 needs its 20 fixed bytes, IPv6 its 40, else `unreadable_ip`; so does a
  version, header length or total length that contradicts itself. A total length
  of zero (segmentation offload) is taken from the frame, or from a jumbo payload
  option. Lengths come from headers, so a short snap length loses no byte.
* IPv6 extension headers (hop-by-hop, routing, destination, fragment) are walked.
* Tunnels (`tunnel`) are opened, 16 IP headers deep. The innermost pair of addresses of
  which at least one is not special decides; what it sends is counted with its own IP
  length, under the tunnel around that layer and the classes of the outermost pair.
  A tunnel by protocol number that does not show what it carries drops the packet
  (`unreadable_inner`): the gate could not class it. One that carries something else
  than IP stands for itself. UDP is a tunnel where port and every field of the
  encapsulation say so, and ordinary UDP otherwise; but an IP header that begins and
  cannot be read is `unreadable_inner`.
* Where the deciding pair has a special address (a customer behind DS-Lite, say), or in
  IPv4 over IPv6 a domestic one that others may share (MAP-E, lw4o6), and the enclosing
  layer has a domestic address on the same side, that outer address is the subscriber
  and stands in its place.
* Nothing behind the end of the innermost datagram is looked at: it is padding, or
  content. Headers are counted with 65,535 bytes at most.
* TCP, UDP, UDP-Lite, DCCP and SCTP give ports; ICMP gives type and code, with
  replies under the type of their request; anything else has ports 0. What an ICMP error
  quotes is not read. Ports cut off by the snap length drop the packet
  (`unreadable_transport`).
* Fragments after the first are what the first one was (`fragments`), kept or dropped,
  with the length of their own layer, if it was seen within 30 s; the outermost
  fragmented layer tells. Where a layer around it decided, a later fragment is decided
  by that layer, too. Without a first one it has ports 0, or is `unreadable_inner`
  where its protocol may be a tunnel. The protocol of an IPv6 fragment is the one that
  its fragment header names; of several fragment headers the last counts.
* Both ends special or domestic: `domestic`. An end in no registry's table:
  `unallocated`. Directions are the authority's.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit

from telemetry.homeland import DOMESTIC, FOREIGN, SPECIAL
from telemetry.homeland.border import verdict
from telemetry.homeland.tables import class_of
from telemetry.loads import be16, be32, be64, get, put, u8
from telemetry.raw import CLASSES, NO_OUTER
from telemetry.readers.packets.fragments import OUTSIDE, UNKNOWN, recall, remember
from telemetry.readers.packets.headers import ANY_IP, IP4, IP6, link_payload
from telemetry.readers.packets.tunnel import (
    NONE,
    STANDS,
    T_4IN6,
    T_6IN4,
    holds_ip,
    may_be_tunnel,
    name_of_6in4,
    open_protocol,
    open_udp,
)
from telemetry.reasons import Reason

MOST_LAYERS: Final = 16
"""IP headers of one packet that are looked into."""

# Words of one row of a decoded batch. The first five are the record's key.
E_HI, E_LO, P_HI, P_LO, KEY, HASH, TIME, SIDE, FLAGS, HEADERS, LENGTH, WORDS = range(12)
"""KEY = endpoint port | peer port << 16 | protocol << 32 | tunnel << 40 | outer << 48;
the upper byte is for the number of a sampling rate, see `meter.FlowTable`."""

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
_BAD_IP = int(Reason.UNREADABLE_IP)
_BAD_INNER = int(Reason.UNREADABLE_INNER)
_BAD_TRANSPORT = int(Reason.UNREADABLE_TRANSPORT)

_MOST_HEADERS = 0xFFFF  # so that a row's counters of 32 bits can be kept from running over
_V4_PREFIX = U64(0xFFFF00000000)
_P_TCP, _P_UDP, _P_DCCP = 6, 17, 33
_P_ICMP, _P_ICMP6, _P_NOTHING, _P_SCTP, _P_UDPLITE = 1, 58, 59, 132, 136
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_SEGMENT_ROUTING, _JUMBO = 4, 0xC2


@njit(cache=True, nogil=True, inline="always")
def request_type(protocol, kind):
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
        return request_type(protocol, kind >> 8), kind & 0xFF, 0, 8
    return 0, 0, 0, 0


# IP headers


@njit(cache=True, nogil=True, inline="always")
def _ip4_header(base, offset, captured, wire):
    """Reads an IPv4 header; returns (header bytes, total bytes, protocol, fragment).

    Header bytes are 0 when it contradicts itself; `fragment` is the offset in units of 8
    bytes, times 8, plus 1 when more follow: 0 for a whole datagram, below 8 for a first one.
    """
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
    word = be16(base + U64(offset + 6)) & 0x3FFF
    fragment = ((word << 3) & 0xFFF8) | (word >> 13)
    return size, total, u8(base + U64(offset + 9)), fragment


@njit(cache=True, nogil=True, inline="always")
def _ip6_header(base, offset, captured, wire):
    """Reads an IPv6 header; returns (header bytes, total bytes, following), 0 if contradictory."""
    if captured < offset + 40 or u8(base + U64(offset)) >> 4 != 6:
        return 0, 0, 0
    payload = be16(base + U64(offset + 4))
    following = u8(base + U64(offset + 6))
    total = payload + 40
    # Without a length the frame tells it (segmentation offload), unless nothing follows.
    if payload == 0 and following != _P_NOTHING:
        total = wire - offset
        if following == _HOP_BY_HOP:
            total = _jumbo(base, offset + 40, captured, total)
    if total < 40:
        return 0, 0, 0
    return 40, total, following


@njit(cache=True, nogil=True)
def _jumbo(base, offset, captured, otherwise):
    """Returns the total length that a jumbo payload option (RFC 2675) gives."""
    if captured < offset + 2:
        return otherwise
    end = min(captured, offset + (u8(base + U64(offset + 1)) + 1) * 8)
    offset += 2
    while offset < end:
        kind = u8(base + U64(offset))
        if kind == 0:
            offset += 1
            continue
        if kind == _JUMBO and offset + 6 <= end and u8(base + U64(offset + 1)) == 4:
            length = be32(base + U64(offset + 2))
            return length + 40 if length > 0xFFFF else otherwise
        if offset + 2 > end:
            break
        offset += 2 + u8(base + U64(offset + 1))
    return otherwise


@njit(cache=True, nogil=True)
def _extensions(base, offset, captured, protocol):
    """Walks IPv6 extension headers.

    Returns:
        (bytes, protocol, fragment, identity, routed): `fragment` as of `_ip4_header`; the
        identity holds identification and protocol of the fragment header; whether there
        was a segment routing header. The protocol is -1 when the snap length cut the chain.
    """
    size = fragment = identity = 0
    routed = False
    while fragment < 8 and protocol in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION):
        at = base + U64(offset + size)
        if captured < offset + size + 8:
            return size, -1, 0, 0, False
        following = u8(at)
        step = (u8(at + U64(1)) + 1) * 8
        if protocol == _FRAGMENT:
            fragment = be16(at + U64(2)) & 0xFFF9
            identity = be32(at + U64(4)) | (following << 32)
            step = 8
        elif protocol == _ROUTING and u8(at + U64(2)) == _SEGMENT_ROUTING:
            routed = True
        protocol = following
        size += step
    return size, protocol, fragment, identity, routed


@njit(cache=True, nogil=True, inline="always")
def _addresses(base, offset, version):
    """Returns both addresses of an IP header as two halves each."""
    at = base + U64(offset)
    if version == IP4:
        source = _V4_PREFIX | U64(be32(at + U64(12)))
        return U64(0), source, U64(0), _V4_PREFIX | U64(be32(at + U64(16)))
    return be64(at + U64(8)), be64(at + U64(16)), be64(at + U64(24)), be64(at + U64(32))


@njit(cache=True, nogil=True, inline="always")
def _hash(seeds, s_hi, s_lo, d_hi, d_lo, key):
    """Hashes a key; multilinear, so that without the secret seeds nobody finds collisions."""
    h = s_lo * seeds.s_lo + d_lo * seeds.d_lo + key * seeds.key
    h += s_hi * seeds.s_hi + d_hi * seeds.d_hi
    h = (h ^ (h >> U64(32))) * seeds.last
    return h ^ (h >> U64(29))


@njit(cache=True, nogil=True, inline="always")
def _write(seeds, packet, s_hi, s_lo, d_hi, d_lo, s_class, d_class, ports, protocol, kind):
    """Writes the record's key, its hash and the side that sent the packet.

    Args:
        seeds: Of the hash.
        packet: Memory address of the row.
        s_hi: Addresses, the sender's first.
        s_lo: The same.
        d_hi: The same.
        d_lo: The same.
        s_class: Their classes.
        d_class: The same.
        ports: The sender's port or the ICMP type, the other's or the code.
        protocol: IANA number.
        kind: Tunnel; class of the outermost sender's address, of the other's, or -1 for none.
    """
    s_port, d_port = ports
    tunnel, outer_s, outer_d = kind
    # The foreign address is the endpoint; of two, the lower. For ICMP the type and code
    # belong to no side.
    has_ports = protocol != _P_ICMP and protocol != _P_ICMP6
    swap = bool(d_class == FOREIGN)
    if s_class == FOREIGN and d_class == FOREIGN:
        swap = bool(s_hi > d_hi)
        if s_hi == d_hi:
            swap = bool(s_lo > d_lo) if s_lo != d_lo else has_ports and s_port > d_port
    if swap:
        s_hi, s_lo, d_hi, d_lo = d_hi, d_lo, s_hi, s_lo
        outer_s, outer_d = outer_d, outer_s
        if has_ports:
            s_port, d_port = d_port, s_port
    outer = NO_OUTER if outer_s < 0 else 1 + CLASSES * outer_s + outer_d
    key = U64(s_port | (d_port << 16) | (protocol << 32) | (tunnel << 40) | (outer << 48))
    put(packet, E_HI, s_hi)
    put(packet, E_LO, s_lo)
    put(packet, P_HI, d_hi)
    put(packet, P_LO, d_lo)
    put(packet, KEY, key)
    put(packet, HASH, _hash(seeds, s_hi, s_lo, d_hi, d_lo, key))
    put(packet, SIDE, U64(1 if swap else 0))


@njit(cache=True, nogil=True)
def decode(base, captured, wire, link, time, tables, allowed, seeds, fragments, packet):
    """Decodes one frame into one row of a batch.

    Args:
        base: Memory address of the frame.
        captured: Bytes captured, all of which may be read.
        wire: Bytes it had on the wire.
        link: LINKTYPE_ number.
        time: Microseconds since 1970, which only fragments need.
        tables: Homeland look-up tables.
        allowed: Bit mask of allowed directions.
        seeds: Of the hash; see `Seeds`.
        fragments: Memory address of the table of first fragments.
        packet: Memory address of WORDS uint64 to write; TIME is left alone.

    Returns:
        A value of `Reason`.
    """
    offset, version = link_payload(base, captured, link)
    if version < 0:
        return -version
    if version == ANY_IP:
        version = u8(base + U64(offset)) >> 4 if captured > offset else 0
    fragment = 0
    if version == IP4:
        size, total, protocol, fragment = _ip4_header(base, offset, captured, wire)
    elif version == IP6:
        size, total, protocol = _ip6_header(base, offset, captured, wire)
    else:
        return _BAD_IP
    if size == 0:
        return _BAD_IP
    # What lies behind the datagram is padding, or somebody's content: never looked at.
    end = min(captured, offset + total)
    at = offset + size
    rare = fragment != 0
    if protocol == _P_UDP:
        if end >= at + 4:
            ports = be32(base + U64(at))
            rare |= may_be_tunnel(ports >> 16, ports & 0xFFFF)
    elif protocol != _P_TCP and protocol != _P_ICMP6:
        rare |= holds_ip(version, protocol)
        rare |= version == IP6 and protocol in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION)
    if rare:
        return _decode_layers(
            base,
            offset,
            captured,
            wire,
            version,
            time,
            tables,
            allowed,
            seeds,
            fragments,
            packet,
        )
    # The straight way: one IP header, nothing around the transport header.
    s_hi, s_lo, d_hi, d_lo = _addresses(base, offset, version)
    s_class = class_of(tables, s_hi, s_lo)
    d_class = class_of(tables, d_hi, d_lo)
    reason = verdict(s_class, d_class, allowed)
    if reason != _KEPT:
        return reason
    s_port, d_port, flags, transport = _transport(base, at, end, protocol)
    if s_port < 0:
        return _BAD_TRANSPORT
    pair = s_port, d_port
    _write(
        seeds,
        packet,
        s_hi,
        s_lo,
        d_hi,
        d_lo,
        s_class,
        d_class,
        pair,
        protocol,
        (NONE, -1, -1),
    )
    put(packet, FLAGS, U64(flags))
    put(packet, HEADERS, U64(min(size + transport, total, _MOST_HEADERS)))
    put(packet, LENGTH, U64(total))
    return _KEPT


@njit(cache=True, nogil=True)
def _decode_layers(
    base, offset, captured, wire, version, time, tables, allowed, seeds, fragments, packet
):
    """Decodes what may have tunnels, extension headers or fragments; arguments as of `decode`.

    `offset` and `version` are those of the first IP header.
    """
    reason, at, version, identity, outside = _walk(
        base, offset, captured, wire, version, time, tables, allowed, seeds, fragments, packet
    )
    if at >= 0:
        s_hi, s_lo, d_hi, d_lo = _addresses(base, at, version)
        place = _hash(seeds, s_hi, s_lo, d_hi, d_lo, identity)
        side = np.int64(get(packet, SIDE)) if reason == _KEPT else 0
        remember(
            fragments,
            place,
            s_hi,
            s_lo,
            d_hi,
            d_lo,
            identity,
            time,
            reason,
            outside,
            side,
            packet,
        )
    return reason


@njit(cache=True, nogil=True)
def _walk(base, offset, captured, wire, version, time, tables, allowed, seeds, fragments, packet):
    """Goes from one IP header to the next inside it, and decides.

    Returns:
        (reason, offset, version, identity, outside): after the reason what there is to
        remember of the outermost layer that is fragmented, if this is a first fragment:
        where its header is (else -1), and whether a layer around it decided.
    """
    first, first_version, first_layer, identity = -1, 0, 0, U64(0)
    found = fragmented = known = False
    layer = decided = tunnel = 0
    outer_s = outer_d = -1
    o_s_hi = o_s_lo = o_d_hi = o_d_lo = U64(0)
    o_s_class = o_d_class = SPECIAL
    s_hi = s_lo = d_hi = d_lo = U64(0)
    s_class = d_class = SPECIAL
    of_record = 0, NONE, 0, 0  # protocol, tunnel, length, header bytes
    while True:
        if version == ANY_IP:
            version = u8(base + U64(offset)) >> 4 if captured > offset else 0
        size = total = protocol = fragment = own = 0
        routed = False
        if version == IP4:
            size, total, protocol, fragment = _ip4_header(base, offset, captured, wire)
            if fragment:
                own = be16(base + U64(offset + 4)) | (protocol << 32)
        elif version == IP6:
            size, total, protocol = _ip6_header(base, offset, captured, wire)
            if size:
                more, protocol, fragment, own, routed = _extensions(
                    base, offset + 40, min(captured, offset + total), protocol
                )
                size += more
        if size == 0 or layer == MOST_LAYERS:
            reason = _BAD_INNER if layer else _BAD_IP
            return reason, first, first_version, identity, False
        # What lies behind the datagram is padding, or somebody's content: never looked at.
        captured = min(captured, offset + total)
        wire = min(wire, offset + total)
        a_hi, a_lo, b_hi, b_lo = _addresses(base, offset, version)
        a_class = class_of(tables, a_hi, a_lo)
        b_class = class_of(tables, b_hi, b_lo)
        if tunnel == T_6IN4 and version == IP6:
            tunnel = name_of_6in4(o_s_lo, o_d_lo, a_hi, a_lo, b_hi, b_lo)
        if layer == 0:
            outer_s, outer_d = int(a_class), int(b_class)
        decides = a_class != SPECIAL or b_class != SPECIAL
        if decides:
            found = True
            decided = layer
            s_hi, s_lo, d_hi, d_lo = a_hi, a_lo, b_hi, b_lo
            s_class, d_class = a_class, b_class
            if _stands_for(s_class, o_s_class, tunnel):
                s_hi, s_lo, s_class = o_s_hi, o_s_lo, o_s_class
            if _stands_for(d_class, o_d_class, tunnel):
                d_hi, d_lo, d_class = o_d_hi, o_d_lo, o_d_class
            of_record = protocol, tunnel, total, min(size, total, _MOST_HEADERS)
        later = fragment >= 8
        if fragment and not fragmented:
            fragmented = True
            identity = U64(own | (version << 40))
            if later:
                outcome, side = recall(
                    fragments,
                    _hash(seeds, a_hi, a_lo, b_hi, b_lo, identity),
                    a_hi,
                    a_lo,
                    b_hi,
                    b_lo,
                    identity,
                    time,
                    packet,
                )
                if outcome == _KEPT:
                    _write_again(seeds, packet, side, total, min(size, total, _MOST_HEADERS))
                known = outcome == OUTSIDE
                if outcome != UNKNOWN and not known:
                    return outcome, -1, 0, identity, False
            else:
                first, first_version, first_layer = offset, version, layer
        if protocol < 0:
            return _BAD_TRANSPORT, first, first_version, identity, False
        if later:
            if holds_ip(version, protocol) and not known:
                return _BAD_INNER, first, first_version, identity, False
            break
        if protocol == _P_UDP:
            inner, following, opened = open_udp(base, offset + size, captured, wire)
        elif holds_ip(version, protocol):
            inner, following, opened = open_protocol(
                base, offset + size, captured, wire, version, protocol, routed
            )
        else:
            break
        if following == STANDS:
            break
        if following < 0:
            return _BAD_INNER, first, first_version, identity, False
        o_s_hi, o_s_lo, o_s_class = a_hi, a_lo, a_class
        o_d_hi, o_d_lo, o_d_class = b_hi, b_lo, b_class
        offset, version, tunnel = inner, following, opened
        layer += 1
    if not found:
        return _DOMESTIC, first, first_version, identity, False
    reason = verdict(s_class, d_class, allowed)
    if reason != _KEPT:
        return reason, first, first_version, identity, False
    protocol, tunnel, length, headers = of_record
    s_port = d_port = flags = 0
    if decides and not later:
        s_port, d_port, flags, transport = _transport(base, offset + size, captured, protocol)
        if s_port < 0:
            return _BAD_TRANSPORT, first, first_version, identity, False
        headers = min(headers + transport, length, _MOST_HEADERS)
    if decided == 0:
        outer_s = outer_d = -1
    pair, kind = (s_port, d_port), (tunnel, outer_s, outer_d)
    _write(seeds, packet, s_hi, s_lo, d_hi, d_lo, s_class, d_class, pair, protocol, kind)
    put(packet, FLAGS, U64(flags))
    put(packet, HEADERS, U64(headers))
    put(packet, LENGTH, U64(length))
    return _KEPT, first, first_version, identity, decided < first_layer


@njit(cache=True, nogil=True, inline="always")
def _stands_for(inner, outer, tunnel):
    """Returns whether the tunnel's end is the subscriber, by the classes of both addresses.

    It is where the inner address means nothing outside the tunnel, and in IPv4 over IPv6
    also where it is domestic: many may share that one (RFC 7596, 7597).
    """
    shared = tunnel == T_4IN6 and inner == DOMESTIC
    return outer == DOMESTIC and (inner == SPECIAL or shared)


@njit(cache=True, nogil=True)
def _write_again(seeds, packet, side, length, headers):
    """Completes the row of a later fragment, whose key is that of the first one."""
    s_hi, s_lo = get(packet, E_HI), get(packet, E_LO)
    d_hi, d_lo = get(packet, P_HI), get(packet, P_LO)
    put(packet, HASH, _hash(seeds, s_hi, s_lo, d_hi, d_lo, get(packet, KEY)))
    put(packet, SIDE, U64(side))
    put(packet, FLAGS, U64(0))
    put(packet, HEADERS, U64(headers))
    put(packet, LENGTH, U64(length))
