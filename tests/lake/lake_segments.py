"""Segments for tests: packets in plain Python, metered and merged the obvious way."""

import hashlib
import ipaddress
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from telemetry.columns import BURST_US, CUT_US, IDLE_US, RECORD, Layer, Merge, schema
from telemetry.lake import StoredSource

NOON = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000
SIDES = ("endpoint", "peer")
KEYS = [column.name for column in RECORD if column.merge is Merge.KEY]
NUMBERS_FIRST = sorted(
    KEYS, key=lambda name: pa.types.is_dictionary(schema(Layer.RECORD).field(name).type)
)
Row = dict[str, Any]
RULES: dict[Merge | None, Callable[[list[int]], int]] = {
    Merge.SUM: sum,
    Merge.MIN: min,
    Merge.MAX: max,
    Merge.OR: lambda known: known[0] | known[-1],
}


class Packet(NamedTuple):
    key: int
    side: str
    time: int
    size: int
    flags: int


def key(number: int) -> Row:
    """Keys that differ in one column each, IPv4 and IPv6, with and without a pseudonym."""
    plain = ipaddress.ip_address("2001:db8::5") if number == 1 else ipaddress.ip_address("9.1.2.3")
    packed = plain.packed if plain.version == 6 else bytes(10) + b"\xff\xff" + plain.packed
    return {
        "sensor": "ix2" if number == 2 else "ix1",
        "endpoint_ip": str(plain),
        "endpoint_addr": packed,
        "endpoint_port": 443 if number == 3 else 80,
        "peer_ip": "8.8.4.4" if number == 4 else None,
        "peer_pid": None if number == 4 else f"host{number // 6}",
        "peer_net_pid": None if number == 4 else "net",
        "peer_port": 50000,
        "protocol": 17 if number == 5 else 6,
        "tunnel": "none",
        "pair_class": "foreign-foreign" if number == 4 else "foreign-domestic",
        "outer_class": "none",
        "sampling_rate": 1,
        "active_timeout_s": 60 if number == 2 else None,
        "idle_timeout_s": None,
    }


def table(rows: Iterable[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema(Layer.RECORD))


def rows_of(records: pa.Table) -> list[Row]:
    """Rows with times as integers, so that they compare with what `meter` gives."""
    plain = [
        pa.list_(pa.int64()) if pa.types.is_list(f.type) else pa.int64() for f in records.schema
    ]
    columns = [
        column.cast(kind) if "timestamp" in str(column.type) else column
        for column, kind in zip(records.columns, plain, strict=True)
    ]
    found: list[Row] = pa.table(columns, names=records.column_names).to_pylist()
    return found


def in_order(rows: Iterable[Row]) -> list[Row]:
    def text(row: Row) -> tuple[Any, ...]:
        others = [(row[k] is not None, row[k]) for k in NUMBERS_FIRST if k != "endpoint_addr"]
        return (row["endpoint_addr"], row["first_seen"], *others)

    return sorted(rows, key=text)


def meter(packets: Iterable[Packet]) -> list[Row]:
    """Cuts packets into records: by key, by half hour, at silences longer than IDLE_US."""
    groups: dict[tuple[int, int], list[Packet]] = {}
    for packet in packets:
        groups.setdefault((packet.key, packet.time // CUT_US), []).append(packet)
    rows = []
    for (number, _), group in groups.items():
        group.sort(key=lambda packet: packet.time)
        part: list[Packet] = []
        for packet in group:
            if part and packet.time - part[-1].time > IDLE_US:
                rows.append(record(number, part))
                part = []
            part.append(packet)
        rows.append(record(number, part))
    return rows


def record(number: int, packets: list[Packet]) -> Row:
    row = key(number)
    row["first_seen"] = min(p.time for p in packets)
    row["last_seen"] = max(p.time for p in packets)
    for side in SIDES:
        sent = [p for p in packets if p.side == side]
        times = sorted(p.time for p in sent)
        starts = [t for i, t in enumerate(times) if not i or t - times[i - 1] >= BURST_US]
        ends = [t for i, t in enumerate(times) if t == times[-1] or times[i + 1] - t >= BURST_US]
        ends = sorted(set(ends))
        values: Row = {
            "packets": len(sent),
            "bytes": sum(p.size for p in sent),
            "payload_bytes": None,
            "min_bytes": min((p.size for p in sent), default=None),
            "max_bytes": max((p.size for p in sent), default=None),
            "tcp_flags": None if not sent else 0,
            "first": times[0] if sent else None,
            "last": times[-1] if sent else None,
            "burst_starts": starts if len(starts) > 1 else None,
            "burst_ends": ends if len(starts) > 1 else None,
        }
        for packet in sent:
            values["tcp_flags"] |= packet.flags
        row |= {f"{side}_{name}": value for name, value in values.items()}
    return row


def merged(rows: list[Row]) -> list[Row]:
    """Joins parts of one record until none are left: slow and obviously right."""
    rows = [dict(row) for row in rows]
    while True:
        pair = next(
            ((a, b) for i, a in enumerate(rows) for b in rows[i + 1 :] if _one_record(a, b)), None
        )
        if pair is None:
            return in_order(rows)
        rows = [row for row in rows if row is not pair[0] and row is not pair[1]]
        rows.append(_joined(*pair))


def _one_record(a: Row, b: Row) -> bool:
    return (
        all(a[k] == b[k] for k in KEYS)
        and a["first_seen"] // CUT_US == b["first_seen"] // CUT_US
        and b["first_seen"] - a["last_seen"] <= IDLE_US
        and a["first_seen"] - b["last_seen"] <= IDLE_US
    )


def _joined(a: Row, b: Row) -> Row:
    row = dict(a)
    for column in RECORD:
        known = [r[column.name] for r in (a, b) if r[column.name] is not None]
        if column.merge in RULES:
            row[column.name] = RULES[column.merge](known) if known else None
    for side in SIDES:
        bursts = sorted(_bursts(side, a) + _bursts(side, b))
        done: list[tuple[int, int]] = []
        for start, end in bursts:
            if done and start - done[-1][1] < BURST_US:
                done[-1] = (done[-1][0], max(done[-1][1], end))
            else:
                done.append((start, end))
        many = len(done) > 1
        row[f"{side}_burst_starts"] = [s for s, _ in done] if many else None
        row[f"{side}_burst_ends"] = [e for _, e in done] if many else None
    return row


def _bursts(side: str, row: Row) -> list[tuple[int, int]]:
    if row[f"{side}_burst_starts"] is not None:
        return list(zip(row[f"{side}_burst_starts"], row[f"{side}_burst_ends"], strict=True))
    first = row[f"{side}_first"]
    return [] if first is None else [(first, row[f"{side}_last"])]


def traffic(seed: int, packets: int, days: int = 1) -> list[Packet]:
    """Random packets of a few keys, in clusters, over some days."""
    chance = random.Random(seed)
    return [
        Packet(
            chance.randrange(12),
            chance.choice(SIDES),
            NOON + chance.randrange(days) * 86_400_000_000 + chance.randrange(4_000) * 700_000,
            chance.randrange(40, 1500),
            chance.randrange(32),
        )
        for _ in range(packets)
    ]


def source(number: int, rows: int = 0) -> StoredSource:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    at = datetime(2026, 3, 2, tzinfo=UTC) + timedelta(seconds=number)
    return StoredSource(
        *(digest, digest, "ix1", "law-1"),
        "pcap",
        "packets",
        100,
        90,
        {"domestic": 10},
        rows,
        "r1",
        at,
        365,
    )
