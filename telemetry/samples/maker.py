"""Plays the scenarios and writes captures, labels and what is true about them."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from telemetry.samples import zeek
from telemetry.samples.containers import (
    ETHERNET,
    LINUX_COOKED,
    RAW_IP,
    Frame,
    Interface,
    compress,
    pcap,
    pcapng,
)
from telemetry.samples.packets import MACS, Item, Noise, Packet, cooked, datagrams, ethernet
from telemetry.samples.plan import HOUR, Dice, Plan, World, is_foreign
from telemetry.samples.scenarios import (
    COOKED,
    DDOS,
    DSLITE,
    RAW,
    SCENARIOS,
    A,
    B,
    C,
    Scenario,
)

SEED = 20261123
START = 1_791_936_000_000_000
"""2026-10-14 00:00 UTC in microseconds since 1970."""
CANARY_WORDS = ("canary.example", "taro.yamada", "hanako.sato", "sakura2026")
"""Invented personal words that stand in payloads and comments beside the markers."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a capture is written.

    Attributes:
        interfaces: Its interfaces.
        snaplen: Bytes kept of each frame.
        order: Byte order in `struct`'s notation.
    """

    interfaces: tuple[Interface, ...] = (Interface(),)
    snaplen: int = 512
    order: str = "<"


SHAPES: dict[str, Shape] = {
    A: Shape(),
    B: Shape(
        (
            Interface(name="wan0", description="to kyoto-core1.canary.example"),
            Interface(RAW_IP, True, "tap1", "mirror of osaka-edge2.canary.example"),
        ),
        snaplen=112,
    ),
    C: Shape(snaplen=96),
    DSLITE: Shape(snaplen=128),
    COOKED: Shape((Interface(LINUX_COOKED),), snaplen=96, order=">"),
    RAW: Shape((Interface(RAW_IP, nanoseconds=True),), snaplen=160),
    DDOS: Shape(snaplen=256),
}
"""Captures in the order they are written; the Zeek logs follow."""


@dataclass(slots=True)
class _Played:
    """What the scenarios of one capture gave."""

    items: list[tuple[Item, int]] = field(default_factory=list)
    labels: dict[str, tuple[str, str]] = field(default_factory=dict)
    canaries: list[str] = field(default_factory=list)


def _play(name: str, plan: Plan, seed: int, hours: float) -> _Played:
    played = _Played()
    for scenario in SCENARIOS:
        if scenario.capture == name:
            _play_one(scenario, plan, seed, hours, played)
    played.items.sort(key=lambda entry: entry[0].time)
    return played


def _play_one(scenario: Scenario, plan: Plan, seed: int, hours: float, played: _Played) -> None:
    stream = crc32(f"{scenario.capture}/{scenario.name}".encode())
    marker = f"CANARY-{crc32(f'{seed}/{stream}'.encode()):08x}"
    host = f"pc-{stream % 90:02d}.{CANARY_WORDS[0]}"
    text = (
        f"{marker} user={CANARY_WORDS[2]} pass={CANARY_WORDS[3]} "
        f"mail={CANARY_WORDS[1]}@{CANARY_WORDS[0]} host={host} "
    )
    end = START + int(hours * HOUR)
    world = World(plan, Dice(seed, stream), START, end, text.encode())
    played.items += [(item, scenario.interface) for item in scenario.play(world)]
    played.canaries.append(marker)
    for address, role in world.labels.items():
        played.labels.setdefault(address, (role, scenario.name))


def _frames(items: list[tuple[Item, int]], shape: Shape) -> list[Frame]:
    frames = []
    for item, interface in items:
        if isinstance(item, Noise):
            frames.append(Frame(item.time, item.frame, interface))
            continue
        link = shape.interfaces[interface].link
        for number, piece in enumerate(datagrams(item)):
            data = piece
            if link == ETHERNET:
                data = ethernet(item, piece)
            elif link == LINUX_COOKED:
                data = cooked(item, piece)
            # Fragments leave the wire one after the other, 12 µs each at 1 Gbit/s.
            frames.append(Frame(item.time + 12 * number, data, interface))
    frames.sort(key=lambda frame: frame.time)
    return frames


def _capture(name: str, frames: list[Frame], shape: Shape) -> bytes:
    if name.endswith(".pcapng"):
        return pcapng(frames, shape.interfaces, shape.snaplen, f"tap.{CANARY_WORDS[0]}")
    return compress(name, pcap(frames, shape.interfaces[0], shape.snaplen, shape.order))


def _addresses(packets: list[Packet]) -> dict[str, list[str]]:
    found = {address for packet in packets for address in packet.addresses()}
    return {
        "domestic": sorted(address for address in found if not is_foreign(address)),
        "foreign": sorted(address for address in found if is_foreign(address)),
    }


def _truth(played: _Played) -> dict[str, object]:
    """What is true of a capture: counts by kind and direction, addresses, canaries."""
    kinds: Counter[str] = Counter()
    ways: Counter[str] = Counter()
    packets = []
    for item, _ in played.items:
        if isinstance(item, Noise):
            kinds[item.kind] += 1
            continue
        pieces = len(datagrams(item))
        kinds["ip"] += pieces
        ways[item.direction()] += pieces
        packets.append(item)
    return {
        "packets": kinds.total(),
        "kinds": dict(sorted(kinds.items())),
        "directions": dict(sorted(ways.items())),
        "canaries": _spoken(played),
        **_addresses(packets),
    }


def _spoken(played: _Played) -> list[str]:
    """The markers that stand in the capture; a scan of bare SYNs has no payload."""
    texts = {
        item.frame if isinstance(item, Noise) else item.canary
        for item, _ in played.items
        if isinstance(item, Noise) or item.length
    }
    return [mark for mark in played.canaries if any(mark.encode() in text for text in texts)]


def _log(played: _Played) -> tuple[list[dict[str, object]], dict[str, object]]:
    packets = [item for item, _ in played.items if isinstance(item, Packet)]
    table = zeek.rows(packets)
    ways = Counter(
        f"{'out' if is_foreign(str(row['id.orig_h'])) else 'in'}"
        f"_{'out' if is_foreign(str(row['id.resp_h'])) else 'in'}"
        for row in table
    )
    truth: dict[str, object] = {
        "records": len(table),
        "directions": dict(sorted(ways.items())),
        "canaries": played.canaries,
        **_addresses(packets),
    }
    return table, truth


def _broken(played: _Played) -> tuple[dict[str, bytes], dict[str, dict[str, object]]]:
    """Inputs that are wrong in the way their names say, and what can be read of them."""
    frames = _frames(played.items[:200], Shape())
    whole = pcap(frames, Interface(), 512)
    letter = f"This is a letter from {CANARY_WORDS[1]}@{CANARY_WORDS[0]}.\n"
    files = {
        "empty.pcap": b"",
        "no_packets.pcap": pcap([], Interface(), 512),
        "not_a_capture.txt": letter.encode(),
        "truncated_tail.pcap": whole[:-21],
        "snaplen_cut_headers.pcap": b"".join(
            pcap(frames[at : at + 1], Interface(), snap)[0 if at == 0 else 24 :]
            for at, snap in enumerate((10, 14, 20, 30, 34, 36, 40, 54) * 12)
        ),
    }
    truth: dict[str, dict[str, object]] = {
        "empty.pcap": {"packets": 0, "readable": False},
        "no_packets.pcap": {"packets": 0, "readable": True},
        "not_a_capture.txt": {"packets": 0, "readable": False},
        "truncated_tail.pcap": {"packets": len(frames) - 1, "readable": True},
        "snaplen_cut_headers.pcap": {"packets": 96, "readable": True},
    }
    return files, truth


def make(folder: Path, seed: int = SEED, hours: float = 6.0) -> list[Path]:
    """Writes the labelled samples; the same arguments always give the same bytes.

    Good captures and logs go to `captures/`, broken ones to `broken/`; `labels.csv`
    names the role of every foreign endpoint, as `telemetry.scoring.evaluation` reads it
    (`spoofed` marks forged sources, which must never be listed), `truth.json` what a
    reader must find. Files that are there already are replaced.

    Args:
        folder: Where to write; made when missing.
        seed: Any whole number from 0.
        hours: How much time the captures cover, from 2026-10-14 00:00 UTC.

    Returns:
        The files written.
    """
    plan = Plan.draw(seed)
    files: dict[str, bytes] = {}
    truths: dict[str, object] = {}
    labels: list[tuple[str, ...]] = []
    for name in dict.fromkeys(scenario.capture for scenario in SCENARIOS):
        played = _play(name, plan, seed, hours)
        path = f"captures/{name}"
        if name in SHAPES:
            shape = SHAPES[name]
            files[path] = _capture(name, _frames(played.items, shape), shape)
            truths[path] = _truth(played)
        else:
            table, truths[path] = _log(played)
            files[path] = zeek.as_json(table) if "json" in name else zeek.as_text(table)
        labels += [
            (name, "", address, role, scenario, "strict", path)
            for address, (role, scenario) in sorted(played.labels.items())
        ]
        if name == A:
            broken, broken_truths = _broken(played)
            files.update({f"broken/{key}": data for key, data in broken.items()})
            truths.update({f"broken/{key}": fact for key, fact in broken_truths.items()})
    files["labels.csv"] = _labels(labels)
    files["truth.json"] = _truths(truths, seed, hours)
    return [_write(folder / name, data) for name, data in files.items()]


def _labels(labels: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = "dataset,home_prefixes,foreign_ip,role,evidence,confidence,file"
    writer.writerow(columns.split(","))
    writer.writerows(labels)
    return text.getvalue().encode()


def _truths(truths: dict[str, object], seed: int, hours: float) -> bytes:
    facts = {
        "seed": seed,
        "hours": hours,
        "canary_words": CANARY_WORDS,
        "macs": [mac.hex(":") for mac in MACS],
        "files": truths,
    }
    return (json.dumps(facts, indent=1) + "\n").encode()


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
