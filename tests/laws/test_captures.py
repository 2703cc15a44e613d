"""Laws of reading captures: kernel = reference, and how a capture is cut does not show."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[1] / "readers"))

from capture_kit import (
    ALL,
    DOMESTIC4,
    DOMESTIC6,
    FOREIGN4,
    FOREIGN6,
    FRAGMENT,
    ICMP,
    ICMP6,
    IPIP,
    IPV6,
    LOOP,
    NOON,
    OTHER_FOREIGN4,
    OTHER_FOREIGN6,
    RAW,
    SECOND,
    SPECIAL4,
    SPECIAL6,
    TCP,
    UDP,
    UNALLOCATED4,
    UNALLOCATED6,
    Interface,
    Packet,
    assert_same,
    block,
    border,
    enhanced,
    ethernet,
    extension,
    fragment6,
    icmp,
    ip4,
    ip6,
    merged,
    obsolete,
    option,
    pcap,
    read,
    section,
    simple,
    tcp,
    udp,
)
from encapsulation_kit import FRAMES, framed, tunnel

from telemetry.columns import BURST_US, CUT_US, IDLE_US
from telemetry.errors import SourceError
from telemetry.readers.packets import capture
from telemetry.readers.packets.meter import BATCH, FlowTable

law = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])

V4 = (DOMESTIC4, "133.11.0.2", FOREIGN4, FOREIGN4, OTHER_FOREIGN4, SPECIAL4, UNALLOCATED4)
V6 = (
    DOMESTIC6,
    "2001:200::2",
    FOREIGN6,
    FOREIGN6,
    OTHER_FOREIGN6,
    SPECIAL6,
    UNALLOCATED6,
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:850b:1::1",
)
PORTS = st.sampled_from([0, 53, 443, 40000, 65535])
HOMES = st.sampled_from(
    [("JP", (), ALL), ("JP", (), 1), ("JP", (), 2), (None, ("192.168.0.0/16", "fd00::/8"), ALL)]
).map(lambda home: border(*home))
STEPS = [0, 0, 1, 30 * SECOND, 30 * SECOND + 1]
STEPS += [BURST_US - 1, BURST_US, IDLE_US, IDLE_US + 1, CUT_US, 7 * SECOND]
TIMES = st.sampled_from(STEPS).flatmap(lambda step: st.sampled_from([step, step, -step]))


# Packets, sensible and otherwise


@st.composite
def transports(draw: st.DrawFn) -> tuple[int, bytes]:
    """Draws a protocol number and what it carries."""
    payload = b"p" * draw(st.integers(0, 40))
    kind = draw(st.sampled_from(["tcp", "udp", "icmp", "icmp6", "other", "raw"]))
    if kind == "tcp":
        words = draw(st.sampled_from([5, 5, 8, 15]))
        return TCP, tcp(draw(PORTS), draw(PORTS), draw(st.integers(0, 511)), payload, words)
    if kind in ("icmp", "icmp6"):
        types = [0, 3, 8, 13, 14, 18, 128, 129, 139, 140]
        message = icmp(draw(st.sampled_from(types)), draw(st.integers(0, 2)), payload)
        return ICMP if kind == "icmp" else ICMP6, message
    number = draw(st.sampled_from([33, 132, 136, 50, 59, 0])) if kind == "other" else UDP
    return number, payload if kind == "raw" else udp(draw(PORTS), draw(PORTS), payload)


@st.composite
def ip_packets(draw: st.DrawFn, depth: int = 3) -> bytes:
    """Draws an IP packet, perhaps with others inside."""
    if depth and draw(st.integers(0, 2)) == 0:
        protocol, inner = tunnel(draw, draw(ip_packets(depth - 1)))
    else:
        protocol, inner = draw(transports())
    return draw(datagrams(protocol, inner))


@st.composite
def datagrams(draw: st.DrawFn, protocol: int, inner: bytes) -> bytes:
    """Draws an IP header before what it carries."""
    if draw(st.booleans()):
        return ip4(
            draw(st.sampled_from(V4)),
            draw(st.sampled_from(V4)),
            protocol,
            inner,
            options=b"\1" * (4 * draw(st.sampled_from([0, 0, 0, 1, 10]))),
            fragment=draw(st.sampled_from([0, 0, 0, 0x4000, 0x2000, 0x2003, 0x1FFF])),
            total=draw(st.sampled_from([None, None, None, None, 0, 20, 60, 65535])),
        )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        outer = draw(st.sampled_from([0, 43, 60, FRAGMENT]))
        if outer == FRAGMENT:
            more = draw(st.booleans())
            inner = fragment6(protocol, inner, draw(st.sampled_from([0, 0, 2])), more)
        elif outer == 43 and draw(st.booleans()):
            inner = bytes([protocol, 0, 4]).ljust(8, b"\0") + inner  # segment routing
        elif outer == 0 and draw(st.booleans()):
            length = draw(st.sampled_from([70_000, 65_535, 8]))
            inner = struct.pack(">BBBBI", protocol, 0, 0xC2, 4, length) + inner  # jumbo
        else:
            inner = extension(protocol, inner, draw(st.sampled_from([8, 16, 64])))
        protocol = outer
    length = draw(st.sampled_from([None, None, None, None, 0, 8, 65535]))
    pair = draw(st.sampled_from(V6)), draw(st.sampled_from(V6))
    return ip6(*pair, protocol, inner, length=length)


@st.composite
def fragment_sets(draw: st.DrawFn) -> list[bytes]:
    """Draws the fragments of one datagram, perhaps each in the same tunnel, in any order."""
    protocol, whole = draw(st.one_of(transports(), tunnelled()))
    cuts = sorted({8 * draw(st.integers(0, len(whole) // 8)) for _ in range(2)} - {0, len(whole)})
    pieces = list(pairwise([0, *cuts, len(whole)]))
    four = draw(st.booleans())
    addresses = V4 if four else V6
    pair = draw(st.sampled_from(addresses)), draw(st.sampled_from(addresses))
    packets = []
    for start, end in pieces:
        more = end < len(whole)
        if four:
            packets.append(ip4(*pair, protocol, whole[start:end], fragment=more << 13 | start // 8))
        else:
            piece = fragment6(protocol, whole[start:end], start // 8, more)
            packets.append(ip6(*pair, FRAGMENT, piece))
    if draw(st.integers(0, 2)) == 0:
        ends = draw(st.sampled_from([(SPECIAL4, SPECIAL4), (FOREIGN4, DOMESTIC4)]))
        packets = [ip4(*ends, IPV6 if p[0] >> 4 == 6 else IPIP, p) for p in packets]
    return draw(st.permutations(packets))


@st.composite
def tunnelled(draw: st.DrawFn) -> tuple[int, bytes]:
    """Draws a tunnel's protocol number, and its inside."""
    return tunnel(draw, draw(ip_packets(0)))


@st.composite
def plain_tunnels(draw: st.DrawFn) -> bytes:
    """Draws a packet in one or two tunnels that hold nothing to be dropped for."""
    pair = draw(st.permutations([(DOMESTIC4, DOMESTIC6), (FOREIGN4, FOREIGN6)]))
    six = draw(st.booleans())
    protocol, inner = UDP, udp(40000, 53, b"query")
    packet = (ip6 if six else ip4)(*(addresses[six] for addresses in pair), protocol, inner)
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        protocol, inner = tunnel(draw, packet)
        six = draw(st.booleans())
        ends = draw(st.sampled_from([(SPECIAL4, SPECIAL6), (DOMESTIC4, DOMESTIC6)]))
        packet = (ip6 if six else ip4)(ends[six], ends[six], protocol, inner)
    return packet


@st.composite
def frames(draw: st.DrawFn, link: int, packets: st.SearchStrategy[bytes]) -> tuple[bytes, int]:
    """Draws a frame as captured, and its length on the wire."""
    frame = framed(draw, draw(packets), link)
    wire = draw(st.sampled_from([len(frame)] * 4 + [len(frame) + 46, len(frame) + 2000, 10]))
    if draw(st.integers(0, 4)) == 0:
        frame = frame[: draw(st.integers(0, len(frame)))]
    if frame and draw(st.integers(0, 3)) == 0:
        broken = bytearray(frame)
        for _ in range(draw(st.integers(1, 3))):
            broken[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
        frame = bytes(broken)
    return frame, wire


@st.composite
def packet_lists(draw: st.DrawFn, link: int) -> list[Packet]:
    """Draws packets, some of which come several times, with a clock that jumps both ways."""
    pool = draw(st.lists(frames(link, ip_packets()), min_size=1, max_size=4))
    if draw(st.booleans()):
        pieces = draw(fragment_sets())
        pool += [draw(frames(link, st.just(piece))) for piece in pieces]
    time = NOON + draw(st.sampled_from([0, -1, 17 * SECOND]))
    packets = []
    for frame, wire in draw(st.lists(st.sampled_from(pool), min_size=1, max_size=10)):
        packets.append(Packet(time, frame, wire))
        time += draw(TIMES)
    return packets


LINKS = st.sampled_from([1] * 20 + [RAW] * 8 + sorted(FRAMES) + [LOOP, 12, 14])


@st.composite
def pcap_files(draw: st.DrawFn) -> bytes:
    """Draws a classic pcap file."""
    link = draw(LINKS)
    form = draw(st.sampled_from([{}, {"nano": True}, {"modified": True}]))
    return pcap(draw(packet_lists(link)), link, draw(st.sampled_from("<>")), **form)


@st.composite
def pcapng_files(draw: st.DrawFn) -> bytes:
    """Draws a pcapng file of one or two sections with one to three interfaces."""
    return b"".join(draw(sections()) for _ in range(draw(st.integers(1, 2))))


@st.composite
def sections(draw: st.DrawFn) -> bytes:
    """Draws a pcapng section."""
    order = draw(st.sampled_from("<>"))
    comment = option(order, 1, b"\xffcomment") + option(order, 0, b"")
    resolution = st.sampled_from([None, None, 3, 6, 9, 0, 12, 20, 0x8A, 0xA0, 0xAC, 0xBF])
    offset = st.sampled_from([None] * 6 + [0, 3600, -3600, 2**40])
    interfaces = [
        Interface(draw(LINKS), draw(st.sampled_from([0, 0, 60])), draw(resolution), draw(offset))
        for _ in range(draw(st.integers(1, 3)))
    ]
    parts = [section(order, draw(st.sampled_from([b"", comment])))]
    parts += [interface.block(order) for interface in interfaces]
    for number, interface in enumerate(interfaces):
        for packet in draw(packet_lists(interface.link)):
            ticks = interface.ticks(packet.time) + draw(st.sampled_from([0, 0, 0, 1]))
            which = draw(st.sampled_from([number] * 9 + [7]))
            kind = draw(st.sampled_from(["enhanced"] * 5 + ["simple", "obsolete", "unknown"]))
            if kind == "enhanced":
                notes = draw(st.sampled_from([b"", comment]))
                parts.append(enhanced(order, which, min(ticks, 2**64 - 1), packet, notes))
            elif kind == "simple":
                parts.append(simple(order, packet))
            elif kind == "obsolete":
                parts.append(obsolete(order, which, min(ticks, 2**64 - 1), packet))
            else:
                parts.append(block(order, draw(st.sampled_from([5, 10, 0x0BAD])), packet.data))
    return b"".join(parts)


@st.composite
def snoop_files(draw: st.DrawFn) -> bytes:
    """Draws a snoop file, with padding behind the packets, of Ethernet or of ATM."""
    link, number = draw(st.sampled_from([(1, 4), (123, 18), (0, 14)]))
    data = b"snoop\0\0\0" + struct.pack(">II", draw(st.integers(2, 5)), number)
    for packet in draw(packet_lists(link)):
        padding = bytes(draw(st.integers(0, 7)))
        seconds, micro = divmod(packet.time, SECOND)
        lengths = (packet.length, len(packet.data), 24 + len(packet.data) + len(padding), 0)
        data += struct.pack(">6I", *lengths, min(seconds, 2**32 - 1), micro) + packet.data + padding
    return data


@given(data=snoop_files(), home=HOMES)
@law(max_examples=60)
def test_kernel_equals_reference_on_snoop(data: bytes, home) -> None:
    assert_same(data, home)


@given(data=pcap_files(), version=st.sampled_from([(2, 0), (2, 2), (2, 3), (543, 0), (2, 4)]))
@law(max_examples=80)
def test_kernel_equals_reference_on_old_pcap(data: bytes, version: tuple[int, int]) -> None:
    order = "<" if data[3:4] == b"\xa1" else ">"
    assert_same(data[:4] + struct.pack(order + "HH", *version) + data[8:])


@given(data=pcap_files(), home=HOMES)
@law(max_examples=150)
def test_kernel_equals_reference_on_pcap(data: bytes, home) -> None:
    assert_same(data, home)


@given(packets=st.lists(plain_tunnels(), min_size=8, max_size=8))
@law(max_examples=100)
def test_kernel_equals_reference_on_tunnels(packets: list[bytes]) -> None:
    assert_same(pcap([Packet(NOON, packet) for packet in packets], RAW))


@given(data=pcapng_files(), home=HOMES)
@law(max_examples=100)
def test_kernel_equals_reference_on_pcapng(data: bytes, home) -> None:
    assert_same(data, home)


@given(
    data=pcap_files() | pcapng_files() | snoop_files(),
    cut=st.integers(0),
    junk=st.binary(max_size=80),
)
@law(max_examples=100)
def test_a_capture_cut_anywhere_with_junk_behind(data: bytes, cut: int, junk: bytes) -> None:
    damaged = data[: cut % (len(data) + 1)] + junk
    try:
        assert_same(damaged)
    except SourceError:
        assert len(damaged) < 24 or damaged[:12] != data[:12]


# Cuts and order


def conversation(seed: int) -> list[Packet]:
    """Makes a few hundred packets of a few flows in both directions, with a bad clock."""
    rng = random.Random(seed)
    pairs = [(f"133.11.0.{i}", rng.choice([FOREIGN4, OTHER_FOREIGN4])) for i in range(3)]
    pairs.append((FOREIGN4, OTHER_FOREIGN4))
    steps = [0, 0, 1, 200, 30_000, BURST_US - 1, BURST_US, 5 * SECOND, IDLE_US, IDLE_US + 1]
    time = NOON - rng.randrange(CUT_US)
    packets = []
    for _ in range(rng.randrange(20, 400)):
        source, target = rng.choice(pairs)
        ports = [40000 + rng.randrange(2), 443]
        if rng.random() < 0.5:
            source, target, ports = target, source, ports[::-1]
        segment = tcp(*ports, rng.choice([2, 16, 18, 24, 17]), b"x" * rng.randrange(100))
        packets.append(Packet(time, ethernet(ip4(source, target, TCP, segment))))
        time += rng.choice(steps)
        if rng.random() < 0.03:
            time -= rng.choice([1, BURST_US, IDLE_US, CUT_US])
    return packets


@given(seed=st.integers(0, 2**32), small=st.booleans())
@law(max_examples=60)
def test_cuts_and_order_do_not_show(seed: int, small: bool) -> None:
    packets = conversation(seed)
    at_once = read(pcap(packets))
    rng = random.Random(seed)
    cuts = sorted(rng.randrange(len(packets) + 1) for _ in range(rng.randrange(6)))
    bounds = [0, *cuts, len(packets)]
    pieces = [packets[start:end] for start, end in pairwise(bounds)]
    rng.shuffle(pieces)
    if rng.random() < 0.5:
        rng.shuffle(pieces[0])
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(capture, "FlowTable", lambda _: FlowTable(2 * BATCH))
        readings = [read(pcap(piece, order=rng.choice("<>"))) for piece in pieces]
    assert merged(readings).equals(merged([at_once]))
    assert sum(reading.tally.read for reading in readings) == at_once.tally.read == len(packets)


@given(seed=st.integers(0, 2**32))
@law(max_examples=15)
def test_merging_in_any_grouping_gives_what_the_reference_finds(seed: int) -> None:
    packets = conversation(seed)[:25]
    singles = [read(pcap([packet])) for packet in packets]
    whole = read(pcap(packets), decoder="dpkt")
    random.Random(seed).shuffle(singles)
    assert merged(singles).equals(merged([whole]))


# Containers


def gzip_members(data: bytes, cuts: list[int]) -> bytes:
    return b"".join(gzip.compress(part, 1, mtime=0) for part in _parts(data, cuts))


def zstd_frames(data: bytes, cuts: list[int]) -> bytes:
    return b"".join(zstandard.compress(part, 1) for part in _parts(data, cuts))


def _parts(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


def lz4_frames(data: bytes, cuts: list[int]) -> bytes:
    options = {"content_checksum": True, "block_linked": bool(cuts)}
    return b"".join(lz4.frame.compress(part, **options) for part in _parts(data, cuts))


def bzip2_streams(data: bytes, cuts: list[int]) -> bytes:
    return b"".join(bz2.compress(part, 1) for part in _parts(data, cuts))


def xz_streams(data: bytes, cuts: list[int]) -> bytes:
    return b"".join(lzma.compress(part, preset=0) for part in _parts(data, cuts))


CONTAINERS = st.sampled_from([gzip_members, zstd_frames, lz4_frames, bzip2_streams, xz_streams])
PLAIN = pcap(conversation(1), order=">")


@given(pack=CONTAINERS, cuts=st.lists(st.integers(0), max_size=5))
@law(max_examples=40)
def test_containers_of_several_members_hold_the_same_capture(
    pack: Callable[[bytes, list[int]], bytes], cuts: list[int]
) -> None:
    plain, packed = read(PLAIN), read(pack(PLAIN, cuts))
    assert packed.tally == plain.tally
    assert packed.tally.damage is None
    assert merged([packed]).equals(merged([plain]))


@given(pack=CONTAINERS, cuts=st.lists(st.integers(0), max_size=2), cut=st.integers(1))
@law(max_examples=50)
def test_a_truncated_container_gives_its_readable_part_or_says_so(
    pack: Callable[[bytes, list[int]], bytes], cuts: list[int], cut: int
) -> None:
    packed = pack(PLAIN, cuts)
    packed = packed[: max(4, cut % len(packed))]
    whole = read(PLAIN)
    try:
        part = assert_same(packed)
    except SourceError:
        return  # nothing, or too little, could be decompressed
    assert part.tally.read <= whole.tally.read
    assert part.tally.damage is not None or part.tally.read < whole.tally.read


@given(pack=CONTAINERS, junk=st.binary(min_size=1, max_size=50))
@law(max_examples=40)
def test_junk_behind_a_container_loses_no_packet(
    pack: Callable[[bytes, list[int]], bytes], junk: bytes
) -> None:
    plain, packed = read(PLAIN), read(pack(PLAIN, []) + junk)
    assert packed.tally.read == plain.tally.read
    assert merged([packed]).equals(merged([plain]))
    assert packed.tally.damage is not None or not junk.strip(b"\0")


@given(outer=CONTAINERS, inner=CONTAINERS)
@law(max_examples=15)
def test_a_container_in_a_container(
    outer: Callable[[bytes, list[int]], bytes], inner: Callable[[bytes, list[int]], bytes]
) -> None:
    plain, packed = read(PLAIN), read(outer(inner(PLAIN, []), []))
    assert packed.tally == plain.tally
    assert merged([packed]).equals(merged([plain]))


@given(pack=CONTAINERS, at=st.integers(0), bit=st.integers(0, 7))
@law(max_examples=100)
def test_a_flipped_bit_is_survived_and_counted(
    pack: Callable[[bytes, list[int]], bytes], at: int, bit: int
) -> None:
    packed = bytearray(pack(PLAIN, [1000]))
    packed[at % len(packed)] ^= 1 << bit
    try:
        tally = read(bytes(packed)).tally
    except SourceError:
        return
    assert tally.read == tally.kept + sum(tally.dropped.values())
