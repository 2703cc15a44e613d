"""A large capture for the benchmark, written in slices with numpy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from telemetry.samples.containers import Interface, pcap
from telemetry.samples.packets import ACK, FIN, MACS, PSH, SYN
from telemetry.samples.plan import HOME, HOME6, SECOND, SERVERS, SERVERS6, Network

START = 1_791_936_000_000_000
SPAN = 600 * SECOND
"""The capture covers ten minutes, in microseconds."""
TARGET = 250_000
"""Packets of one slice, about; what bounds the memory used."""
RECORD_HEADER = 16
CANARY = b"CANARY-b01dface user=hanako.sato mail=taro.yamada@canary.example "
PORTS = np.array([443, 443, 443, 80, 8080, 22, 993, 5228])
UDP_PORTS = np.array([443, 443, 53, 53, 53, 123, 3478, 51820])
SINGLES = 0.35
"""Share of flows that hold one packet, as look-ups and probes do."""

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


@dataclass(slots=True)
class _Flows:
    """All flows; arrays of one entry a flow, addresses of 16 bytes each."""

    size: I64
    start: F64
    length: F64
    six: Flags
    udp: Flags
    ends: tuple[U8, U8]
    ports: tuple[I64, I64]

    def sent_before(self, moment: float) -> I64:
        """Packets each flow has sent before a moment in microseconds from the start."""
        share = np.clip((moment - self.start) / self.length, 0.0, 1.0)
        sent: I64 = np.floor(share * self.size + 1e-9).astype(np.int64)
        return sent


def _pool(rng: np.random.Generator, networks: tuple[Network, ...], count: int) -> U8:
    """So many addresses from the networks, as rows of 16 bytes (IPv4 in the last four)."""
    rows = np.zeros((count, 16), np.uint8)
    which = rng.integers(len(networks), size=count)
    for index, network in enumerate(networks):
        chosen = np.flatnonzero(which == index)
        base = network.network_address.packed
        width = len(base)
        rows[chosen, 16 - width :] = rng.integers(256, size=(len(chosen), width), dtype=np.uint8)
        mask = np.frombuffer(network.netmask.packed, np.uint8)
        kept = rows[chosen, 16 - width :] & ~mask
        rows[chosen, 16 - width :] = kept | np.frombuffer(base, np.uint8)
    return rows


def _sizes(rng: np.random.Generator, packets: int, flows: int) -> I64:
    """Heavy-tailed flow sizes (Pareto, shape 1.1) that add up to `packets`."""
    weight = (1.0 - rng.random(flows)) ** (-1 / 1.1)
    weight[rng.random(flows) < SINGLES] = 0.0
    spare = packets - flows
    size: I64 = 1 + np.floor(weight / max(weight.sum(), 1.0) * spare).astype(np.int64)
    size[np.argmax(size)] += packets - int(size.sum())
    return size


def _draw(rng: np.random.Generator, packets: int, flows: int, ipv6: float) -> _Flows:
    six, udp = rng.random(flows) < ipv6, rng.random(flows) < 0.2
    inside = rng.random(flows) < 0.2
    hosts, servers = max(2, flows // 15), max(2, flows // 6)
    popular = np.minimum(servers - 1, (servers * rng.random(flows) ** 3).astype(np.int64))
    client, far, near = (np.zeros((flows, 16), np.uint8) for _ in range(3))
    # The client's port counts up over its flows, so that no two flows are the same.
    turn = np.arange(flows)
    for chosen, home, abroad in ((~six, HOME, SERVERS), (six, HOME6, SERVERS6)):
        client[chosen] = _pool(rng, home, hosts)[turn[chosen] % hosts]
        far[chosen] = _pool(rng, abroad, servers)[popular[chosen]]
        near[chosen] = _pool(rng, home, servers)[popular[chosen]]
    server = np.where(inside[:, None], near, far)
    size = _sizes(rng, packets, flows)
    length = np.minimum(SPAN * 0.9, size * 10 ** (3.5 + 2.0 * rng.random(flows)))
    return _Flows(
        size=size,
        start=rng.random(flows) * (SPAN - length),
        length=length,
        six=six,
        udp=udp,
        ends=(client, server),
        ports=(
            10_000 + turn // hosts % 55_000,
            np.where(udp, rng.choice(UDP_PORTS, flows), rng.choice(PORTS, flows)),
        ),
    )


def _big(rows: U8, column: int, width: int, values: I64 | int) -> None:
    """Writes big-endian numbers of `width` bytes into a column of all rows."""
    for byte in range(width):
        rows[:, column + byte] = (values >> (8 * (width - 1 - byte))) & 0xFF


def _templates(flows: _Flows, chosen: I64, snaplen: int) -> U8:
    """Frames of the chosen flows, both directions: row 2i from the client, 2i + 1 back."""
    rows = np.zeros((2 * len(chosen), RECORD_HEADER + snaplen), np.uint8)
    text = np.frombuffer(CANARY * (snaplen // len(CANARY) + 1), np.uint8)
    for side in (0, 1):
        part = rows[side::2]
        routers = MACS[1] + MACS[0] if side == 0 else MACS[0] + MACS[1]
        part[:, 16:28] = np.frombuffer(routers, np.uint8)
        six, udp = flows.six[chosen], flows.udp[chosen]
        addresses = flows.ends[side][chosen], flows.ends[1 - side][chosen]
        ports = flows.ports[side][chosen], flows.ports[1 - side][chosen]
        for version6 in (False, True):
            for datagram in (False, True):
                here = np.flatnonzero((six == version6) & (udp == datagram))
                block = part[here]
                _fill(block, version6, datagram, addresses, ports, here, text)
                part[here] = block
    return rows


def _fill(
    block: U8,
    six: bool,
    udp: bool,
    addresses: tuple[U8, U8],
    ports: tuple[I64, I64],
    here: I64,
    text: U8,
) -> None:
    """Writes what all packets of one kind of flow have in common."""
    at = RECORD_HEADER + 14
    protocol = 17 if udp else 6
    if six:
        block[:, at - 2 : at + 1] = (0x86, 0xDD, 0x60)
        block[:, at + 6 : at + 8] = (protocol, 57)
        block[:, at + 8 : at + 24] = addresses[0][here]
        block[:, at + 24 : at + 40] = addresses[1][here]
        at += 40
    else:
        block[:, at - 2 : at + 1] = (0x08, 0x00, 0x45)
        block[:, at + 8 : at + 10] = (57, protocol)
        block[:, at + 12 : at + 16] = addresses[0][here, 12:]
        block[:, at + 16 : at + 20] = addresses[1][here, 12:]
        at += 20
    _big(block, at, 2, ports[0][here])
    _big(block, at + 2, 2, ports[1][here])
    if not udp:
        block[:, at + 12] = 0x50
        block[:, at + 14 : at + 16] = (0xFA, 0xF0)
    start = at + (8 if udp else 20)
    block[:, start:] = text[: block.shape[1] - start]


def _slice(
    rng: np.random.Generator, flows: _Flows, before: I64, after: I64, low: float, high: float
) -> tuple[I64, I64, I64]:
    """Packets between two moments in time order: flow, number within the flow, time."""
    counts = after - before
    flow = np.repeat(np.arange(len(counts)), counts)
    begin, end = flows.start, flows.start + flows.length
    # A flow whose last packet was rounded into this slice may already be over.
    early = np.minimum(np.maximum(low, begin), high)[flow]
    late = np.maximum(np.minimum(high, end)[flow], early)
    moment = (early + (late - early) * rng.random(len(flow))).astype(np.int64)
    moment = moment[np.lexsort((moment, flow))]
    number = np.arange(len(flow)) - np.repeat(np.cumsum(counts) - counts, counts) + before[flow]
    order = np.argsort(moment, kind="stable")
    return flow[order], number[order], START + moment[order]


def _packets(
    rng: np.random.Generator, flows: _Flows, slice_: tuple[I64, I64, I64], snaplen: int
) -> bytes:
    """The records of one slice as they stand in the file."""
    flow, number, time = slice_
    chosen, place = np.unique(flow, return_inverse=True)
    udp, six = flows.udp[flow], flows.six[flow]
    last = number + 1 == flows.size[flow]
    back = np.where(number < 3, number == 1, rng.random(len(flow)) < 0.55)
    shake = ~udp & (number < 3)
    full = rng.random(len(flow)) < 0.5
    data = np.where(full, 1400, rng.integers(24, 700, len(flow)))
    bare = shake | (~udp & (last | (rng.random(len(flow)) < 0.3)))
    data[bare] = 0
    rows = _templates(flows, chosen, snaplen)[2 * place + back]
    ip = np.where(six, 40, 20) + np.where(udp, 8, 20) + data
    wire = np.maximum(60, 14 + ip)
    kept = np.minimum(snaplen, wire)
    head = np.stack([time // SECOND, time % SECOND, kept, wire], axis=1).astype("<u4")
    rows[:, :RECORD_HEADER] = head.view(np.uint8)
    flags = np.where(number == 0, SYN, np.where(shake & (number == 1), SYN | ACK, ACK))
    flags |= np.where(data > 0, PSH, 0) | np.where(last & (number > 2), FIN, 0)
    _finish(rows, six, udp, ip, number, flags)
    cells = np.arange(RECORD_HEADER + snaplen) < (RECORD_HEADER + kept)[:, None]
    records: bytes = rows[cells].tobytes()
    return records


def _finish(rows: U8, six: Flags, udp: Flags, ip: I64, number: I64, flags: I64) -> None:
    """Writes lengths, sequence numbers, flags and the IPv4 checksum of each packet."""
    at = RECORD_HEADER + 14
    for version6 in (False, True):
        for datagram in (False, True):
            here = np.flatnonzero((six == version6) & (udp == datagram))
            block = rows[here]
            above = at + (40 if version6 else 20)
            if version6:
                _big(block, at + 4, 2, ip[here] - 40)
            else:
                _big(block, at + 2, 2, ip[here])
                _big(block, at + 4, 2, number[here])
                words = block[:, at : at + 20].astype(np.int64)
                total = (words[:, 0::2] * 256 + words[:, 1::2]).sum(axis=1)
                _big(block, at + 10, 2, 0xFFFF - ((total - 1) % 0xFFFF + 1))
            if datagram:
                _big(block, above + 4, 2, ip[here] - (above - at))
            else:
                _big(block, above + 4, 4, number[here] * 1400)
                block[:, above + 13] = flags[here]
            # A frame shorter than Ethernet's least is padded with zeros.
            end = at + (above - at) + (8 if datagram else 20)
            block[ip[here] + 14 < 60, end:] = 0
            rows[here] = block


def generate_packets(
    path: Path,
    packets: int = 5_000_000,
    flows: int = 300_000,
    ipv6: float = 0.1,
    snaplen: int = 96,
    seed: int = 1,
) -> Path:
    """Writes a classic capture of many packets, the same bytes for the same arguments.

    Ethernet over ten minutes in time order; flow sizes are heavy-tailed (Pareto, shape
    1.1, a third of the flows single packets), a fifth of the flows UDP, a fifth between
    domestic hosts. Packets are cut to the snap length, so their TCP and UDP checksums
    are left zero.

    Args:
        path: File to write.
        packets: How many packets, exactly.
        flows: How many flows, exactly; at most `packets`.
        ipv6: Share of flows over IPv6.
        snaplen: Bytes kept of a packet, at least 74 (Ethernet, IPv6 and TCP headers).
        seed: Any whole number from 0.

    Returns:
        The path.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    flows = min(flows, packets)
    drawn = _draw(rng, packets, flows, ipv6)
    slices = max(1, round(packets / TARGET))
    with path.open("wb") as file:
        file.write(pcap([], Interface(), snaplen))
        _write_slices(file, rng, drawn, slices, snaplen)
    return path


def _write_slices(
    file: BinaryIO, rng: np.random.Generator, flows: _Flows, slices: int, snaplen: int
) -> None:
    edges = np.linspace(0.0, SPAN, slices + 1)
    before = np.zeros(len(flows.size), np.int64)
    for low, high in pairwise(edges.tolist()):
        after = flows.size if high == SPAN else flows.sent_before(high)
        part = _slice(rng, flows, before, after, low, high)
        file.write(_packets(rng, flows, part, snaplen))
        before = after
