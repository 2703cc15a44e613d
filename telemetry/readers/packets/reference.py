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
from typing import NamedTuple

import dpkt
import numpy as np

from telemetry.columns import BURST_US, CUT_US, IDLE_US
from telemetry.homeland import DOMESTIC, FOREIGN, IN_OUT, OUT_IN, OUT_OUT, SPECIAL, UNALLOCATED
from telemetry.homeland.border import Border
from telemetry.raw import NEVER, NO_OUTER, TUNNELS, UNKNOWN, Bursts, RawBatch, Side, outer_code
from telemetry.readers.contract import Reader, Session
from telemetry.readers.packets.capture import CORRUPT_FROM_HERE, CUT_SHORT, LAST_TIME, LONGEST
from telemetry.readers.packets.link import link_name
from telemetry.readers.packets.reference_link import (
    Contradiction,
    NotIp,
    Part,
    Short,
    Unread,
    link_step,
    plain,
    walk,
)
from telemetry.readers.packets.reference_tunnel import Drop, Layer, open_layers
from telemetry.readers.pcap import read_header as read_pcap_header
from telemetry.readers.snoop import read_header as read_snoop_header
from telemetry.readers.source import Source
from telemetry.reasons import Reason
from telemetry.records import Tally

_TCP, _ICMP, _ICMP6 = 6, 1, 58
_PORT_HEADERS = {17: 8, 136: 8, 33: 12, 132: 12}  # UDP, UDP-Lite; DCCP, SCTP
_REQUEST_OF = {
    (_ICMP, 0): 8,
    (_ICMP, 14): 13,
    (_ICMP, 16): 15,
    (_ICMP, 18): 17,
    (_ICMP6, 129): 128,
    (_ICMP6, 140): 139,
}
_FRAGMENT_US = 30_000_000  # as long as IPv4 hosts commonly wait for fragments
_MOST_HEADERS = 0xFFFF
_MOST_SIZE = 0xFFFF  # sizes of packets beyond this are stored as this
_MOST_INTERFACES = 4096


class _Damaged(Exception):
    """The capture cannot be read on from here; holds the sentence that says so."""


class Frame(NamedTuple):
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


class _Key(NamedTuple):
    """What packets of one record share; of the two sides, `a` is the endpoint."""

    a: int
    b: int
    a_port: int
    b_port: int
    protocol: int
    tunnel: str
    outer: int


class _Sent(NamedTuple):
    """One packet of a record: its time and what it adds to the side (0 or 1) that sent it."""

    time: int
    side: int
    bytes: int
    headers: int
    flags: int


# Headers


def layers_of(data: bytes, wire: int, link: int) -> tuple[list[Layer], Drop | None]:
    """Finds the IP headers of a frame.

    Args:
        data: Bytes captured.
        wire: Bytes it had on the wire.
        link: LINKTYPE_ number.

    Returns:
        The headers from the outermost to the innermost; and why there is none, or why the next
        one cannot be read.
    """
    layers: list[Layer] = []
    try:
        for layer in open_layers(*walk(link_step(link), Part(data, wire))):
            layers.append(layer)
    except Drop as drop:
        return layers, drop
    except Unread:
        return layers, Drop(Reason.LINK_TYPE_UNSUPPORTED)
    except NotIp:
        return layers, Drop(Reason.NOT_IP)
    except (Short, Contradiction):
        return layers, Drop(Reason.UNREADABLE_LINK)
    return layers, None


def transport(data: bytes, protocol: int) -> tuple[int, int, int, int]:
    """Returns (source port or type, target port or code, flags, header bytes)."""
    if protocol in (_ICMP, _ICMP6):
        if len(data) < 2:
            raise Drop(Reason.UNREADABLE_TRANSPORT)
        return _REQUEST_OF.get((protocol, data[0]), data[0]), data[1], 0, 8
    if protocol != _TCP and protocol not in _PORT_HEADERS:
        return 0, 0, 0, 0
    if len(data) < 4:
        raise Drop(Reason.UNREADABLE_TRANSPORT)
    source, target = struct.unpack(">HH", data[:4])
    if protocol != _TCP:
        return source, target, 0, _PORT_HEADERS[protocol]
    if len(data) < 14:  # the snap length cut the flags off
        return source, target, 0, 20
    tcp = plain(dpkt.tcp.TCP)(data[:20].ljust(20, b"\0"))
    return source, target, tcp.flags & 0xFF, max(20, 4 * tcp.off)


# From a frame to a packet of a record


def _datagram(layer: Layer) -> tuple[int, int, int, int]:
    """Returns what the fragments of one datagram share."""
    assert layer.fragment is not None
    return layer.source, layer.target, layer.fragment.protocol, layer.fragment.identification


class _First(NamedTuple):
    """What is known of a datagram since its first fragment.

    Attributes:
        time: When that came, in microseconds since 1970.
        outcome: Its record and the side that sent it, or why it was dropped; None when a pair
            of addresses around the datagram decided.
    """

    time: int
    outcome: tuple[_Key, int] | Reason | None


class _Decoder:
    """Decodes the frames of one source under one border."""

    def __init__(self, border: Border) -> None:
        self._class_of: Callable[[int], int] = cache(border.homeland.rules.class_of)
        self._allowed = border.allowed
        self._firsts: dict[tuple[int, int, int, int], _First] = {}

    def packet(self, frame: Frame) -> tuple[_Key, _Sent]:
        """Returns the record that a frame belongs to, and what it adds to it.

        Raises:
            Drop: It is not kept.
        """
        if frame.time is None:
            raise Drop(Reason.BAD_TIME)
        if frame.link is None:
            raise Drop(Reason.LINK_TYPE_UNSUPPORTED)
        layers, failure = layers_of(frame.data, frame.wire, frame.link)
        at = next((i for i, layer in enumerate(layers) if layer.fragment), None)
        if at is None:
            return self._decided(layers, failure, frame.time)
        if not layers[at].later_fragment:
            return self._first_fragment(layers, failure, frame.time, at)
        return self._later_fragment(layers, failure, frame.time, at)

    def _first_fragment(
        self, layers: list[Layer], failure: Drop | None, time: int, at: int
    ) -> tuple[_Key, _Sent]:
        """Decides, and notes it for the fragments that follow."""
        outside = False
        outcome: tuple[_Key, int] | Reason | None = None
        try:
            outside = failure is None and self._deciding(layers) < at
            key, sent = self._decided(layers, failure, time)
            outcome = key, sent.side
        except Drop as drop:
            outcome = drop.reason
            raise
        finally:
            self._firsts[_datagram(layers[at])] = _First(time, None if outside else outcome)
        return key, sent

    def _later_fragment(
        self, layers: list[Layer], failure: Drop | None, time: int, at: int
    ) -> tuple[_Key, _Sent]:
        """Counts to the first fragment's record, or to the pair of addresses."""
        layer = layers[at]
        first = self._firsts.get(_datagram(layer))
        if first is None or abs(time - first.time) > _FRAGMENT_US:
            return self._decided(layers, failure, time)
        if first.outcome is None:
            return self._decided(layers, None, time)
        if isinstance(first.outcome, Reason):
            raise Drop(first.outcome)
        key, side = first.outcome
        headers = min(layer.headers, layer.total, _MOST_HEADERS)
        return key, _Sent(time, side, layer.total, headers, 0)

    def _decided(self, layers: list[Layer], failure: Drop | None, time: int) -> tuple[_Key, _Sent]:
        """Makes the packet of the deciding pair of addresses."""
        if failure is not None:
            raise failure
        at = self._deciding(layers)
        layer = layers[at]
        source, target = layer.source, layer.target
        if at > 0:
            source = self._subscriber(source, layers[at - 1].source, layer)
            target = self._subscriber(target, layers[at - 1].target, layer)
        self._judge(self._class_of(source), self._class_of(target))
        one = other = flags = above = 0
        if layer is layers[-1] and not layer.later_fragment:
            one, other, flags, above = transport(layer.inside.data, layer.protocol)
        headers = min(layer.headers + above, layer.total, _MOST_HEADERS)
        has_ports = layer.protocol not in (_ICMP, _ICMP6)
        swap = self._swaps(source, target, has_ports and one > other)
        if swap:
            source, target = target, source
        if swap and has_ports:
            one, other = other, one
        outer = self._outer(layers[0], swap) if at > 0 else NO_OUTER
        return (
            _Key(source, target, one, other, layer.protocol, layer.tunnel, outer),
            _Sent(time, int(swap), layer.total, headers, flags),
        )

    def _outer(self, layer: Layer, swap: bool) -> int:
        pair = self._class_of(layer.source), self._class_of(layer.target)
        return outer_code(*(pair[::-1] if swap else pair))

    def _deciding(self, layers: list[Layer]) -> int:
        """Returns the index of the innermost pair that is not special on both sides."""
        for at in reversed(range(len(layers))):
            pair = layers[at].source, layers[at].target
            if any(self._class_of(address) != SPECIAL for address in pair):
                return at
        raise Drop(Reason.DOMESTIC)

    def _subscriber(self, address: int, outer: int, layer: Layer) -> int:
        """Returns the tunnel's domestic end where an address behind it tells no subscriber.

        That is a special address, or one of IPv4 that subscribers of IPv6 share.
        """
        if self._class_of(outer) != DOMESTIC:
            return address
        shared = layer.tunnel == "4in6" and self._class_of(address) == DOMESTIC
        return outer if shared or self._class_of(address) == SPECIAL else address

    def _judge(self, source: int, target: int) -> None:
        if UNALLOCATED in (source, target):
            raise Drop(Reason.UNALLOCATED)
        directions = {(True, True): OUT_OUT, (True, False): OUT_IN, (False, True): IN_OUT}
        direction = directions.get((source == FOREIGN, target == FOREIGN))
        if direction is None:
            raise Drop(Reason.DOMESTIC)
        if not direction & self._allowed:
            raise Drop(Reason.DIRECTION_NOT_ALLOWED)

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
        outer=np.array([key.outer for key in keys], np.int64),
        sampling_rate=np.ones(len(keys), np.int64),
        active_timeout=np.full(len(keys), UNKNOWN),
        idle_timeout=np.full(len(keys), UNKNOWN),
        a=_side(segments, 0),
        b=_side(segments, 1),
    )


# Captures


def _pcap_frames(data: bytes, tally: Tally) -> Iterator[Frame]:
    """Yields the packets of a classic pcap file.

    Raises:
        SourceError: There is no whole header.
        _Damaged: The file is cut or corrupt behind the packets yielded.
    """
    file = read_pcap_header(data)
    tally.linktypes.add(link_name(file.link))
    at = file.size
    while at < len(data):
        header = data[at : at + file.record]
        if len(header) < file.record:
            raise _Damaged(CUT_SHORT)
        seconds, fraction, captured, wire = struct.unpack(file.order + "IIII", header[:16])
        if file.swap == 1 or (file.swap == 2 and captured > wire):
            captured, wire = wire, captured
        if captured > LONGEST:
            raise _Damaged(CORRUPT_FROM_HERE)
        at += file.record
        body = data[at : at + captured]
        if len(body) < captured:
            raise _Damaged(CUT_SHORT)
        at += captured
        time = seconds * 1_000_000 + fraction // file.divisor
        wire = max(wire, captured) - min(file.padding, captured)
        yield Frame(body[file.padding :], wire, file.link, time)


def _snoop_frames(data: bytes, tally: Tally) -> Iterator[Frame]:
    """Yields the packets of a snoop file.

    Raises:
        SourceError: There is no whole header.
        _Damaged: The file is cut or corrupt behind the packets yielded.
    """
    file = read_snoop_header(data)
    tally.linktypes.add(file.name)
    at = 16
    while at < len(data):
        if len(data) - at < 24:
            raise _Damaged(CUT_SHORT)
        wire, captured, size, _, seconds, micro = struct.unpack(">6I", data[at : at + 24])
        if size > LONGEST or size < 24 + captured:
            raise _Damaged(CORRUPT_FROM_HERE)
        if len(data) - at < size:
            raise _Damaged(CUT_SHORT)
        body = data[at + 24 : at + 24 + captured]
        link = None if file.link < 0 else file.link
        yield Frame(body, max(wire, captured), link, seconds * 1_000_000 + micro)
        at += size


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
    units, offset, at = 1_000_000, 0, 8
    while len(body) - at >= 4:
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == dpkt.pcapng.PCAPNG_OPT_ENDOFOPT:
            break
        if code == dpkt.pcapng.PCAPNG_OPT_IF_TSRESOL and len(value) == 1:
            units = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
        if code == dpkt.pcapng.PCAPNG_OPT_IF_TSOFFSET and len(value) == 8:
            (offset,) = struct.unpack(order + "q", value)
        at += 4 + length + -length % 4
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


def _pcapng_frames(data: bytes, tally: Tally) -> Iterator[Frame]:
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
            tally.linktypes.add(link_name(interface.link))
            if len(interfaces) < _MOST_INTERFACES:
                interfaces.append(interface)
        elif kind == pcapng.PCAPNG_BT_SPB:
            yield _simple_packet(order, body, interfaces)
        elif kind in (pcapng.PCAPNG_BT_EPB, pcapng.PCAPNG_BT_PB):
            # The obsolete block has 16 bits of interface, then 16 bits of dropped packets.
            number = "I" if kind == pcapng.PCAPNG_BT_EPB else "Hxx"
            yield _packet(order, number, body, interfaces)


def _packet(order: str, number: str, body: bytes, interfaces: list[_Interface]) -> Frame:
    if len(body) < 20:
        raise _Damaged(CORRUPT_FROM_HERE)
    which, high, low, captured, wire = struct.unpack(f"{order}{number}IIII", body[:20])
    data = body[20 : 20 + captured]
    if len(data) < captured:
        raise _Damaged(CORRUPT_FROM_HERE)
    if which >= len(interfaces):
        return Frame(data, max(wire, captured), None, 0)
    interface = interfaces[which]
    return Frame(data, max(wire, captured), interface.link, interface.time(high << 32 | low))


def _simple_packet(order: str, body: bytes, interfaces: list[_Interface]) -> Frame:
    """Reads a packet of the first interface; it has no time."""
    if len(body) < 4:
        raise _Damaged(CORRUPT_FROM_HERE)
    (wire,) = struct.unpack(order + "I", body[:4])
    data = body[4 : 4 + wire]
    if not interfaces:
        return Frame(data, wire, None, 0)
    if interfaces[0].snaplen:
        data = data[: interfaces[0].snaplen]
    return Frame(data, wire, interfaces[0].link, None)


def frames_of(data: bytes, tally: Tally) -> Iterator[Frame]:
    """Yields the packets of a capture file; damage behind them is told to the tally.

    Raises:
        SourceError: It is no such file.
    """
    kinds = {b"\n\r\r\n": _pcapng_frames, b"snoo": _snoop_frames}
    frames = kinds.get(data[:4], _pcap_frames)
    try:
        yield from frames(data, tally)
    except _Damaged as damage:
        tally.damage = str(damage)


class ReferenceReader:
    """Reads captures as the kernels do, slowly; see `contract.Reader`."""

    about = "captures, by the slow reference decoder"
    gated = True

    def __init__(self, reader: Reader) -> None:
        """Stands in for the reader of one format of captures."""
        self.name = reader.name
        self._reader = reader

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether the source's first bytes are of this format."""
        return self._reader.recognises(head, session)

    def read(self, source: Source, session: Session, tally: Tally) -> Iterator[RawBatch]:
        """Yields all records of the capture in one batch; see `contract.Reader`."""
        decoder = _Decoder(session.border)
        records: dict[_Key, list[_Sent]] = defaultdict(list)
        for frame in frames_of(source.stream().read(), tally):
            tally.read += 1
            try:
                key, packet = decoder.packet(frame)
                records[key].append(packet)
            except Drop as drop:
                tally.dropped[drop.reason.label] += 1
        tally.damage = source.damage or tally.damage
        batch = _batch(records)
        if batch is not None:
            yield batch
