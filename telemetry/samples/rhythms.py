"""Days of periodic calls: beacons over a grid, hidden among the rhythms of harmless software.

Flow records, not packets: a week of clocks, update checks, push, telemetry, mail and gadgets is
ten million calls. Nothing here looks at how anything is scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.samples.plan import HOME, HOSTILE, SERVERS, Network

Floats = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

DAY: Final = 86_400
BEGIN: Final = 1_791_936_000
"""2026-10-14 00:00 UTC, when all samples begin."""
INTERVALS: Final = (10, 60, 300, 900, 3600, 21_600)
JITTERS: Final = (0.0, 0.1, 0.2, 0.4)
LOSSES: Final = (0.0, 0.1, 0.3)
MAPPING: Final = """time = "us"
[columns]
src_ip = "src_ip"
src_port = "src_port"
dst_ip = "dst_ip"
dst_port = "dst_port"
protocol = "protocol"
start = "start"
end = "end"
src_packets = "src_packets"
src_bytes = "src_bytes"
dst_packets = "dst_packets"
dst_bytes = "dst_bytes"
src_tcp_flags = "tcp_flags"
dst_tcp_flags = "tcp_flags"
"""
"""How the files of `write_rhythms` are read."""
_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """One host that calls one address, again and again.

    Attributes:
        kind: `beacon`, or what harmless software it is.
        host: The inside host's address.
        endpoint: The foreign address.
        port: The port it calls.
        protocol: IANA number.
        interval: Seconds from call to call.
        jitter: How far a gap may differ, as a share of the interval.
        loss: Share of the calls that do not happen or are not seen.
        always_on: Whether the host runs at night and on weekends.
    """

    kind: str
    host: str
    endpoint: str
    port: int
    protocol: int
    interval: float
    jitter: float
    loss: float
    always_on: bool


@dataclass(frozen=True, slots=True)
class Calls:
    """What a pair does: starts in seconds since `BEGIN`, sorted, and bytes each way."""

    pair: Pair
    starts: Floats
    sent: I64
    got: I64


@dataclass(frozen=True, slots=True)
class _Software:
    """A kind of harmless software: what it calls, how often, and how many hosts run it."""

    kind: str
    share: float
    ports: tuple[int, ...]
    protocol: int
    intervals: tuple[float, ...]
    jitters: tuple[float, ...]
    users: tuple[float, float]
    sent: tuple[int, int]
    got: tuple[int, int]


_SOFTWARE: Final = (
    # NTP polls at powers of two seconds (RFC 5905); operating systems bring their servers along.
    _Software("clock", 0.15, (123,), 17, (1024, 2048), (0.0, 0.02),
              (0.05, 0.6), (76, 76), (76, 76)),
    # Update checks come by the hour or day, many spread out on purpose.
    _Software("update", 0.25, (443, 80), 6, (3600, 14_400, 21_600, 86_400), (0.0, 0.1, 0.3),
              (0.02, 0.6), (900, 1800), (4000, 9000)),
    # Push services hold a connection, and renew it before NATs forget it.
    _Software("push", 0.15, (443, 5223, 5228), 6, (900, 1680), (0.0, 0.05), (0.05, 0.5),
              (300, 700), (300, 900)),
    _Software("telemetry", 0.25, (443,), 6, (300, 900, 1800, 3600), (0.0, 0.1, 0.2),
              (0.02, 0.5), (1200, 6000), (600, 1500)),
    _Software("mail", 0.1, (993, 995), 6, (300, 600, 900), (0.0, 0.05), (0.005, 0.3),
              (800, 1500), (1500, 6000)),
    # What few hosts have: gadgets with a cloud of their own, monitoring of rented machines.
    _Software("gadget", 0.07, (443, 8883, 8443, 80), 6, (60, 300, 900), (0.0, 0.1), (0.0, 0.005),
              (200, 900), (200, 900)),
    _Software("monitor", 0.03, (443, 22, 80), 6, (60, 300), (0.0,), (0.0, 0.001),
              (300, 900), (300, 3000)),
)  # fmt: skip
_BEACON_PORTS: Final = (443, 443, 443, 80, 8080, 8443, 4433, 50_443)


def draw_pairs(pairs: int, hosts: int, each: int, seed: int) -> list[Pair]:
    """Draws who calls whom.

    Args:
        pairs: How many harmless pairs there are, at least.
        hosts: How many inside hosts.
        each: Beacons in each cell of interval, jitter and loss.
        seed: Any whole number from 0.

    Returns:
        The harmless pairs, then the beacons.
    """
    rng = np.random.default_rng(seed)
    inside = _addresses(rng, HOME, hosts)
    servers = iter(_addresses(rng, SERVERS, pairs + len(_SOFTWARE)))
    hostile = iter(_addresses(rng, HOSTILE, each * len(INTERVALS) * len(JITTERS) * len(LOSSES)))
    on = rng.random(hosts) < 0.4
    found: list[Pair] = []
    for software in _SOFTWARE:
        least = len(found) + software.share * pairs
        while len(found) < least:
            port, interval, jitter = (
                rng.choice(values).item()
                for values in (software.ports, software.intervals, software.jitters)
            )
            users = max(1, round(rng.uniform(*software.users) ** 2 * hosts))
            endpoint = next(servers)
            for host in rng.choice(hosts, users, replace=False).tolist():
                found.append(
                    Pair(software.kind, inside[host], endpoint, port, software.protocol,
                         interval, jitter, 0.02, bool(on[host]))
                )  # fmt: skip
    for interval in INTERVALS:
        for jitter in JITTERS:
            for loss in LOSSES:
                for _ in range(each):
                    host, port = rng.integers(hosts), rng.choice(_BEACON_PORTS).item()
                    found.append(
                        Pair("beacon", inside[host], next(hostile), port, 6,
                             interval, jitter, loss, bool(on[host]))
                    )  # fmt: skip
    return found


def play(pairs: list[Pair], days: int, seed: int) -> Iterator[Calls]:
    """Yields what each pair does in so many days."""
    software = {one.kind: one for one in _SOFTWARE}
    for number, pair in enumerate(pairs):
        rng = np.random.default_rng((seed, number))
        starts = _starts(pair, days, rng)
        kind = software.get(pair.kind)
        sent, got = (kind.sent, kind.got) if kind else ((250, 900), (200, 1500))
        # One kind of request, and what is filled in.
        noise = 1 + rng.uniform(0, 0.1) * rng.standard_normal((2, len(starts)))
        base = np.array([[rng.integers(*_wide(sent))], [rng.integers(*_wide(got))]])
        # No fewer bytes than the headers of all packets.
        sizes = np.maximum((base * noise).astype(np.int64), 260 if pair.protocol == 6 else 28)
        yield Calls(pair, starts, sizes[0], sizes[1])


def _wide(span: tuple[int, int]) -> tuple[int, int]:
    return span[0], span[1] + 1


def _starts(pair: Pair, days: int, rng: np.random.Generator) -> Floats:
    number = int(days * DAY / pair.interval * 1.2) + 20
    gaps = pair.interval * (1 + rng.uniform(-pair.jitter, pair.jitter, number))
    starts = np.cumsum(gaps) - gaps[0] + rng.uniform(0, pair.interval)
    starts = starts + rng.uniform(0, 0.05, number)  # what networks and schedulers add
    starts = starts[starts < days * DAY]
    starts = starts[rng.random(len(starts)) >= pair.loss]
    if not pair.always_on:  # eight to seven, on five days of seven
        hour, day = starts % DAY / 3600, starts // DAY
        starts = starts[(hour >= 8) & (hour < 19) & (day % 7 < 5)]
    return np.sort(starts)


def write_rhythms(calls: Iterator[Calls], folder: Path) -> list[Path]:
    """Writes flow records as Parquet files that `MAPPING` reads.

    Args:
        calls: From `play`.
        folder: Where to; made when missing.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    tables: list[pa.Table] = []
    for one in calls:
        tables.append(_table(one))
        if sum(table.num_rows for table in tables) >= _ROWS:
            files.append(_write(tables, folder / f"rhythms-{len(files)}.parquet"))
            tables = []
    if tables:
        files.append(_write(tables, folder / f"rhythms-{len(files)}.parquet"))
    return files


def _write(tables: list[pa.Table], path: Path) -> Path:
    pq.write_table(pa.concat_tables(tables), path, compression="zstd")
    return path


def _table(calls: Calls) -> pa.Table:
    pair, number = calls.pair, len(calls.starts)
    rng = np.random.default_rng(number)
    begin = ((BEGIN + calls.starts) * 1e6).astype(np.int64)
    tcp = pair.protocol == 6

    def same(value: object, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), number)

    return pa.table(
        {
            "src_ip": same(pair.host, pa.string()),
            "src_port": pa.array(rng.integers(32_768, 61_000, number), pa.int32()),
            "dst_ip": same(pair.endpoint, pa.string()),
            "dst_port": same(pair.port, pa.int32()),
            "protocol": same(pair.protocol, pa.int32()),
            "start": pa.array(begin),
            "end": pa.array(begin + rng.integers(20_000, 900_000, number)),
            "src_packets": same(6 if tcp else 1, pa.int64()),
            "src_bytes": pa.array(calls.sent),
            "dst_packets": same(5 if tcp else 1, pa.int64()),
            "dst_bytes": pa.array(calls.got),
            "tcp_flags": same(27 if tcp else None, pa.int32()),
        }
    )


def _addresses(rng: np.random.Generator, pools: tuple[Network, ...], count: int) -> list[str]:
    """Draws different IPv4 addresses of the pools."""
    found: dict[str, None] = {}
    while len(found) < count:
        pool = pools[int(rng.integers(len(pools)))]
        found[str(pool[int(rng.integers(1, pool.num_addresses - 1))])] = None
    return list(found)
