"""The reference decoder against tshark: what both find innermost in every packet."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from capture_kit import Interface, Packet, enhanced, section

from telemetry.readers import open_source
from telemetry.readers.packets.reference import Frame, frames_of, layers_of, transport
from telemetry.readers.packets.reference_tunnel import Drop, Layer
from telemetry.records import Tally

FOLDERS = ("formats", "benign")
UNKNOWN_LINKS = (281, 284, 285)
"""Ethernet with a switch's tag, which tshark 4.0 does not know."""
PORTS = {"tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136}
HEADER = {"ip": ("src", "dst", "proto"), "ipv6": ("src", "dst", "nxt")}
EXTENSIONS = {0: "hopopts", 43: "routing", 44: "fraghdr", 60: "dstopts"}
FIELDS = (
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.nxt",
    *(f"ipv6.{name}.nxt" for name in EXTENSIONS.values()),
    *(f"{name}.{side}port" for name in ("tcp", "udp", "dccp", "sctp") for side in ("src", "dst")),
)


NAMES = {
    "gre": "gre",
    "pptp": "gre",
    "nvgre": "gre",
    "erspan": "erspan",
    "teredo": "teredo",
    "vxlan": "vxlan",
    "geneve": "geneve",
    "gtp_u": "gtp",
    "ayiya": "ayiya",
    "capwap": "capwap.data",
    "srv6": "ipv6.routing",
    "mpls": "mpls",
    "ah": "ah",
}
"""What tshark calls a kind of tunnel."""


class Found(NamedTuple):
    """What a decoder found innermost: addresses, protocol, and ports where it has them."""

    source: str
    target: str
    protocol: int
    ports: tuple[int, int] | None


class Case(NamedTuple):
    """One packet, as both see it."""

    path: Path
    number: int
    link: int
    layers: list[Layer]
    drop: str
    ours: Found | None
    protocols: list[str]
    theirs: list[Found]


def ours(layers: list[Layer]) -> Found | None:
    """Returns what the reference decoder finds innermost."""
    if not layers:
        return None
    layer = layers[-1]
    ports = None
    if layer.protocol in PORTS.values() and not layer.later_fragment:
        with suppress(Drop):
            ports = transport(layer.inside.data, layer.protocol)[:2]
    pair = (address(layer.version, end) for end in (layer.source, layer.target))
    return Found(*pair, layer.protocol, ports)


def address(version: int, number: int) -> str:
    """Returns the text of an address."""
    if version == 4:
        return str(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(number))


def theirs(protocols: list[str], values: dict[str, list[str]]) -> list[Found]:
    """Returns the IP layers that tshark shows, but for those that ICMP quotes."""
    values = {name: list(reversed(column)) for name, column in values.items()}
    found: list[Found] = []
    for name in protocols:
        if name in ("icmp", "icmpv6"):
            break
        if name in ("ip", "ipv6"):
            header = [values[f"{name}.{field}"] for field in HEADER[name]]
            if not all(header):
                break  # cut off, or the caller of a dissector that refused
            source, target, protocol = (column.pop() for column in header)
            while name == "ipv6" and int(protocol) in EXTENSIONS:
                following = values[f"ipv6.{EXTENSIONS[int(protocol)]}.nxt"]
                if not following:
                    break
                protocol = following.pop()
            pair = (str(ipaddress.ip_address(end)) for end in (source, target))
            found.append(Found(*pair, int(protocol), None))
        elif name in PORTS and found and found[-1].protocol == PORTS[name]:
            column = name.replace("udplite", "udp")
            sides = [values[f"{column}.{side}port"] for side in ("src", "dst")]
            if found[-1].ports is None and all(sides):
                ports = int(sides[0].pop()), int(sides[1].pop())
                found[-1] = found[-1]._replace(ports=ports)
    return found


def stops_short(case: Case) -> bool:
    """Whether tshark finds the same addresses, but not what follows them."""
    same = case.ours and case.theirs and case.ours[:2] == case.theirs[-1][:2]
    return bool(same and case.theirs[-1].ports is None)


ARGUED: dict[str, Callable[[Case], bool]] = {
    "A PIM Register quotes a multicast packet; the routers talk, and PIM is what is recorded": (
        lambda case: "pim" in case.protocols and case.ours is not None and case.ours.protocol == 103
    ),
    "GTP version 0 and its charging messages, port 3386, were withdrawn and are not opened": (
        lambda case: "gtpprime" in case.protocols
    ),
    "An IP header contradicts itself or its announcement: tshark shows it, we call it unreadable": (
        lambda case: case.drop.startswith("unreadable_i") and len(case.theirs) > len(case.layers)
    ),
    "BIG TCP leaves UDP's length at zero: tshark stops there, we do not read that length": (
        lambda case: len(case.layers) == 2 and bytes(2) == case.layers[0].inside.data[4:6]
    ),
    "Linux's old port of VXLAN is not in tshark's table": (
        lambda case: len(case.layers) == 2 and 8472 in (case.theirs[-1].ports or ())
    ),
    "tshark has no dissector for SLIP": lambda case: case.link == 8,
    "tshark does not go behind an option or a transport header that contradicts itself": (
        lambda case: stops_short(case) and case.ours.protocol == case.theirs[-1].protocol
    ),
    "Extension headers that run out of the packet: tshark names the last, we drop the packet, "
    "or find it to be a later fragment": (
        lambda case: stops_short(case) and case.theirs[-1].protocol in EXTENSIONS
    ),
    "IPv4 options are cut off: tshark shows no target, we have it and drop for want of ports": (
        lambda case: bool(case.layers) and not case.theirs and case.layers[-1].headers > 20
    ),
}
"""Why the two may differ: a sentence, and what a case that it explains looks like."""


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_finds_the_same_innermost_layer(corpus: Path, tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    links, kinds = set(), set()
    unexplained = []
    for case in cases(corpus, tmp_path):
        links.add(case.link)
        if case.ours == (case.theirs[-1] if case.theirs else None):
            counts["agree, IP" if case.ours else "agree, no IP"] += 1
            kinds |= named(case)
            continue
        reasons = [reason for reason, explains in ARGUED.items() if explains(case)]
        counts.update(reasons[:1])
        if not reasons:
            where = case.path.name, case.number, case.protocols
            unexplained.append((*where, case.ours, case.theirs))
    print(*(f"{count:7,} {what}" for what, count in counts.most_common()), sep="\n")
    assert not unexplained
    assert counts["agree, IP"] > 80_000
    assert counts["agree, no IP"] > 1_000
    assert set(ARGUED) <= set(counts)
    assert len(links) > 15
    assert len(kinds) > 15


def named(case: Case) -> set[str]:
    """Returns the kinds of a packet's tunnels, which tshark must show where it has a name."""
    starts = [at for at, name in enumerate(case.protocols) if name in HEADER]
    for layer, (start, end) in zip(case.layers[1:], pairwise(starts), strict=False):
        name = NAMES.get(layer.tunnel)
        assert name is None or name in case.protocols[start:end], (layer.tunnel, case.protocols)
    return {layer.tunnel for layer in case.layers}


def cases(corpus: Path, folder: Path) -> Iterator[Case]:
    """Decodes the packets of the corpus with both; tshark runs once, on all of them."""
    known = [frame for frame in frames(corpus) if frame[2].link not in UNKNOWN_LINKS]
    capture = folder / "all.pcapng"
    capture.write_bytes(in_one([frame for _, _, frame in known]))
    lines = tshark(capture)
    for (path, number, frame), row in zip(known, lines, strict=True):
        assert frame.link is not None
        layers, drop = layers_of(frame.data, frame.wire, frame.link)
        reason = drop.reason.label if drop else ""
        protocols = row["frame.protocols"]
        both = ours(layers), protocols, theirs(protocols, row)
        yield Case(path, number, frame.link, layers, reason, *both)


def frames(corpus: Path) -> Iterator[tuple[Path, int, Frame]]:
    """Yields all packets of a known link type, with file and number."""
    for path in sorted(path for folder in FOLDERS for path in (corpus / folder).rglob("*.pcap*")):
        source = open_source(str(path))
        for number, frame in enumerate(frames_of(source.stream().read(), Tally()), 1):
            if frame.link is not None:
                yield path, number, frame
        source.close()


def in_one(frames: list[Frame]) -> bytes:
    """Returns a capture of all frames, without their times."""
    links = sorted({frame.link for frame in frames if frame.link is not None})
    parts = [section(), *(Interface(link).block("<") for link in links)]
    for frame in frames:
        assert frame.link is not None
        packet = Packet(0, frame.data, frame.wire)
        parts.append(enhanced("<", links.index(frame.link), 0, packet))
    return b"".join(parts)


def tshark(capture: Path) -> list[dict[str, list[str]]]:
    """Returns what tshark finds in each packet: for each field, all of its values."""
    options = [part for name in FIELDS for part in ("-e", name)]
    for switch in ("ip.defragment", "ipv6.defragment", "tcp.desegment_tcp_streams"):
        options += ["-o", f"{switch}:FALSE"]
    command = ["tshark", "-n", "-r", str(capture), "-T", "fields", "-E", "occurrence=a", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = []
    for line in done.stdout.splitlines():
        row = {}
        for name, value in zip(FIELDS, line.split("\t"), strict=True):
            row[name] = value.split(":" if name == "frame.protocols" else ",") if value else []
        rows.append(row)
    return rows
