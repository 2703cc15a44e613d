"""Traffic between addresses on which two homeland tables disagree as planned."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from telemetry.homeland.origins import Claim
from telemetry.homeland.ranges import SourceFact, write
from telemetry.homeland.refresh import compile_table

ADDRESSES = 200_000
"""Addresses from 9.0.0.0 on; one in a hundred is disputed."""
FIRST = 0x09000000
SLICE = 1_000_000
HOME, ABROAD, LEAKY, LOST = range(4)
"""Home to both tables; foreign to both; home to theirs alone; home to ours alone."""
RECORD = np.dtype(
    [("seconds", "<u4"), ("micros", "<u4"), ("captured", "<u4"), ("wire", "<u4"),
     ("version", "u1"), ("tos", "u1"), ("length", ">u2"), ("rest", ">u4"),
     ("ttl", "u1"), ("protocol", "u1"), ("checksum", ">u2"), ("source", ">u4"),
     ("destination", ">u4"), ("ports", ">u4"), ("udp_length", ">u2"), ("udp_sum", ">u2")]
)  # fmt: skip


class Planted(NamedTuple):
    """Packets by what both tables make of them: ours first, kept or domestic."""

    kept_kept: int
    leaks: int
    over_drop: int
    domestic_domestic: int


def kinds(seed: int) -> np.ndarray:
    """Returns the kind of each address: one in a hundred is disputed."""
    drawn = np.random.default_rng(seed).random(ADDRESSES)
    found = np.where(drawn < 0.5, HOME, ABROAD)
    found[drawn < 0.005] = LEAKY
    found[drawn > 0.995] = LOST
    return found


def write_tables(folder: Path, seed: int) -> tuple[Path, Path]:
    """Writes our table and theirs."""
    kind = kinds(seed)
    paths = folder / "ours.parquet", folder / "theirs.parquet"
    for path, also_home in zip(paths, (LOST, LEAKY), strict=True):
        is_home = (kind == HOME) | (kind == also_home)
        edges = np.flatnonzero(np.append(True, is_home[1:] != is_home[:-1]))
        ends = np.append(edges[1:], ADDRESSES) - 1
        claims = [
            Claim(4, FIRST + int(a), FIRST + int(z), "JP" if is_home[a] else "US", False)
            for a, z in zip(edges, ends, strict=True)
        ]
        fact = SourceFact("made", "csv", "0" * 64, "not stated", len(claims), "not stated")
        write(compile_table([fact], [claims]), path)
    return paths


def write_capture(path: Path, packets: int, seed: int) -> Planted:
    """Writes a capture of raw IP with one packet a pair, and returns what was planted in it."""
    kind, rng = kinds(seed), np.random.default_rng(seed + 1)
    planted = np.zeros(4, np.int64)
    with path.open("wb") as file:
        file.write(np.array([0xA1B2C3D4, 0x00040002, 0, 0, 65535, 101], "<u4").tobytes())
        for at in range(0, packets, SLICE):
            size = min(SLICE, packets - at)
            source, destination = rng.integers(ADDRESSES, size=(2, size))
            rows = np.zeros(size, RECORD)
            rows["seconds"] = 1_800_000_000 + np.arange(at, at + size) // 20_000
            rows["captured"] = rows["wire"] = rows["length"] = 28
            rows["version"], rows["ttl"], rows["protocol"] = 0x45, 64, 17
            rows["source"], rows["destination"] = FIRST + source, FIRST + destination
            rows["ports"], rows["udp_length"] = (5000 << 16) + 53, 8
            rows["wire"] = 28
            file.write(rows.tobytes())
            home = {}
            for name, also in (("ours", LOST), ("theirs", LEAKY)):
                is_home = (kind == HOME) | (kind == also)
                home[name] = is_home[source] & is_home[destination]
            planted += np.bincount(home["ours"] * 2 + home["theirs"], minlength=4)
    return Planted(*map(int, planted))
