"""Stored records written down by hand: the input of golden cases and of other tests.

A row names its two sides and what each sent; times are seconds since START. All that is
left out has a default, so that a case shows only what it is about:

    - endpoint: {ip: 198.51.100.7, port: 443, packets: 2, bytes: 120, flags: SA, at: 0.1}
      peer: {host: a, port: 50000, packets: 3, bytes: 160, flags: SA, at: 0, until: 5}
      protocol: tcp
      repeat: {times: 10, every: 60}

`flags` holds letters of F, S, R, P, A and U; `bursts` lists [start, end] pairs. A side with
`packets: 0` was silent; one with `unknown: true` was not visible. `exported: true` is a row
of an exporter, which knows neither payload nor sizes of packets. `peer: {ip: …}` is a foreign
peer. `repeat` shifts the row in time, and moves the higher port up by one each time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from telemetry.columns import Layer, schema

START = datetime(2026, 1, 1)
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58}
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32}

Row = Mapping[str, Any]


def connect(rows: Iterable[Row]) -> duckdb.DuckDBPyConnection:
    """Returns a connection on which `stored_records` holds the rows."""
    connection = duckdb.connect()
    connection.register("given", stored_records(rows))
    connection.execute(
        "CREATE TABLE stored_records AS "
        "SELECT *, first_seen::DATE AS day, 0::INTEGER AS bucket FROM given"
    )
    return connection


def stored_records(rows: Iterable[Row]) -> pa.Table:
    """Returns the rows as a table of Layer.RECORD."""
    written = [_record(row) for whole in rows for row in _repeated(whole)]
    return pa.Table.from_pylist(written, schema=schema(Layer.RECORD))


def _repeated(row: Row) -> Iterable[dict[str, Any]]:
    repeat = row.get("repeat", {"times": 1, "every": 0})
    for n in range(repeat["times"]):
        shift = n * repeat["every"]
        sides = {side: _shifted(row[side], shift) for side in ("endpoint", "peer")}
        caller = max(sides.values(), key=lambda side: int(side["port"]))
        caller["port"] += n
        yield {**row, **sides}


def _shifted(side: Row, seconds: float) -> dict[str, Any]:
    moved = dict(side)
    moved["at"] = side.get("at", 0) + seconds
    moved["until"] = side.get("until", side.get("at", 0)) + seconds
    if "bursts" in side:
        moved["bursts"] = [[a + seconds, b + seconds] for a, b in side["bursts"]]
    return moved


def _record(row: Row) -> dict[str, Any]:
    endpoint, peer = row["endpoint"], row["peer"]
    protocol = row.get("protocol", "tcp")
    sides = {**_side("endpoint", endpoint, protocol), **_side("peer", peer, protocol)}
    times = [
        sides[f"{side}_{end}"]
        for side in ("endpoint", "peer")
        for end in ("first", "last")
        if sides[f"{side}_{end}"] is not None
    ]
    if row.get("exported"):
        for name in ("payload_bytes", "min_bytes", "max_bytes"):
            sides |= {f"{side}_{name}": None for side in ("endpoint", "peer")}
    host = peer.get("host")
    return {
        "sensor": row.get("sensor", "link"),
        "endpoint_ip": endpoint["ip"],
        "endpoint_addr": _sixteen(endpoint["ip"]),
        "endpoint_port": endpoint["port"],
        "peer_ip": peer.get("ip"),
        "peer_pid": host,
        "peer_net_pid": None if host is None else f"net-{host[0]}",
        "peer_port": peer["port"],
        "protocol": PROTOCOLS[protocol],
        "tunnel": row.get("tunnel", "none"),
        "pair_class": "foreign-domestic" if host else "foreign-foreign",
        "outer_class": "none",
        "sampling_rate": row.get("sampling_rate", 1),
        "active_timeout_s": row.get("active_timeout_s"),
        "idle_timeout_s": row.get("idle_timeout_s"),
        "first_seen": min(times),
        "last_seen": max(times),
        **sides,
    }


def _side(name: str, side: Row, protocol: str) -> dict[str, Any]:
    packets = None if side.get("unknown") else side.get("packets", 1)
    sent = packets is None or packets > 0
    sent = sent and not side.get("unknown", False)
    size = side.get("bytes", 40 * (packets or 0))
    bursts = side.get("bursts")
    first = bursts[0][0] if bursts else side.get("at", 0)
    last = bursts[-1][1] if bursts else side.get("until", side.get("at", 0))
    flags = sum(FLAGS[letter] for letter in side.get("flags", ""))
    values = {
        "packets": packets,
        "bytes": None if packets is None else (size if packets else 0),
        "payload_bytes": None if packets is None else side.get("payload", 0),
        "min_bytes": size // packets if packets else None,
        "max_bytes": side.get("max_bytes", size // packets) if packets else None,
        "tcp_flags": flags if protocol == "tcp" and packets is not None else None,
        "first": _time(first) if sent else None,
        "last": _time(last) if sent else None,
        "burst_starts": [_time(a) for a, _ in bursts] if bursts else None,
        "burst_ends": [_time(b) for _, b in bursts] if bursts else None,
    }
    return {f"{name}_{key}": value for key, value in values.items()}


def _time(seconds: float) -> datetime:
    return START + timedelta(microseconds=round(seconds * 1_000_000))


def _sixteen(address: str) -> bytes:
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
