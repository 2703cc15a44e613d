"""The gate against a slow one that is obviously right, and against canaries."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import columns
from telemetry.columns import Layer
from telemetry.errors import PrivacyError
from telemetry.homeland import Border, Homeland, load
from telemetry.privacy import Gate, Keys, Pseudonyms
from telemetry.raw import NEVER, TUNNELS, UNKNOWN, Bursts, RawBatch, Side
from telemetry.records import Tally

Row = dict[str, Any]

KEYS = Keys(bytes(range(32)))
HOMES = ["198.51.100.0/24", "203.0.113.0/24", "2001:db8:77::/48"]
DOMESTIC = ["198.51.100.17", "198.51.100.99", "203.0.113.201", "2001:db8:77:9::abcd", "10.11.12.13"]
FOREIGN = ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "2400:cb00::1"]
UNALLOCATED = ["4000::1"]
OUT_IN, IN_OUT, OUT_OUT = 1, 2, 4
MASKS = range(8)
COUNTERS = ("packets", "bytes", "payload_bytes", "min_bytes", "max_bytes", "tcp_flags")
T0 = 1_775_000_000_000_000  # 2026-03-31T23:33:20Z


@pytest.fixture(scope="module")
def homeland() -> Homeland:
    """Documentation prefixes are home, private addresses special, the rest as registered."""
    return load(None, HOMES)


def number(text: str) -> int:
    """Returns an address as 128 bits, IPv4 as ::ffff:a.b.c.d."""
    address = ipaddress.ip_address(text)
    return int(address) | (0xFFFF << 32 if address.version == 4 else 0)


def side(**changes: Any) -> Row:
    """Returns one half of a row."""
    values = dict(
        packets=3,
        bytes=300,
        payload_bytes=180,
        min_bytes=60,
        max_bytes=140,
        tcp_flags=0x12,
        first=T0,
        last=T0 + 5_000_000,
        bursts=[],
    )
    return values | changes


SILENT: Row = dict(
    packets=0,
    bytes=0,
    payload_bytes=0,
    min_bytes=UNKNOWN,
    max_bytes=UNKNOWN,
    tcp_flags=0,
    first=NEVER,
    last=NEVER,
    bursts=[],
)
MUTE: Row = dict.fromkeys(COUNTERS, UNKNOWN) | dict(first=NEVER, last=NEVER, bursts=[])


def row(a_ip: str, b_ip: str, **changes: Any) -> Row:
    """Returns one raw row."""
    values = dict(
        a_ip=a_ip,
        b_ip=b_ip,
        a_port=50_000,
        b_port=443,
        protocol=6,
        tunnel=0,
        outer=0,
        sampling_rate=1,
        active_timeout=UNKNOWN,
        idle_timeout=UNKNOWN,
        a=side(),
        b=side(first=T0 + 20_000, last=T0 + 6_000_000),
    )
    return values | changes


def make(rows: list[Row]) -> RawBatch:
    """Makes a batch of rows."""

    def column(name: str) -> np.ndarray:
        return np.array([r[name] for r in rows], np.int64)

    def half(name: str) -> Side:
        sides = [r[name] for r in rows]
        numbers = {
            f.name: np.array([s[f.name] for s in sides], np.int64)
            for f in fields(Side)
            if f.name != "bursts"
        }
        spans = [span for s in sides for span in s["bursts"]]
        bursts = Bursts(
            np.cumsum([0, *(len(s["bursts"]) for s in sides)]).astype(np.int64),
            np.array([start for start, _ in spans], np.int64),
            np.array([end for _, end in spans], np.int64),
        )
        return Side(**numbers, bursts=bursts if spans else None)

    def halves(name: str) -> tuple[np.ndarray, np.ndarray]:
        numbers = [number(r[name]) for r in rows]
        return (
            np.array([n >> 64 for n in numbers], np.uint64),
            np.array([n & (1 << 64) - 1 for n in numbers], np.uint64),
        )

    (a_hi, a_lo), (b_hi, b_lo) = halves("a_ip"), halves("b_ip")
    names = ("a_port", "b_port", "protocol", "tunnel", "outer", "sampling_rate")
    names += ("active_timeout", "idle_timeout")
    return RawBatch(
        a_hi, a_lo, b_hi, b_lo, **{n: column(n) for n in names}, a=half("a"), b=half("b")
    )


def admit(
    homeland: Homeland, rows: list[Row], mask: int = 7, gated: bool = False
) -> tuple[list[Row], Counter[str]]:
    """Sends rows through the gate; returns what came out and what was dropped."""
    tally = Tally("records", read=len(rows))
    table = Gate(Border(homeland, mask), KEYS, "sample").admit(make(rows), tally, gated)
    table.validate(full=True)
    assert table.schema.equals(columns.schema(Layer.RECORD))
    assert tally.read == table.num_rows + sum(tally.dropped.values())
    return table.to_pylist(), tally.dropped


# ---- the slow gate -------------------------------------------------------------------


def klass(ip: str) -> str:
    return "u" if ip in UNALLOCATED else "f" if ip in FOREIGN else "d"


def spoke(half: Row) -> bool:
    if half["packets"] != UNKNOWN:
        return bool(half["packets"] > 0)
    return bool(half["bytes"] > 0 or half["first"] != NEVER)


def direction(sender: str, receiver: str) -> int:
    return {"fd": OUT_IN, "df": IN_OUT, "ff": OUT_OUT}[klass(sender) + klass(receiver)]


def expected(raw: Row, mask: int) -> Row | str:
    """Returns the record of a raw row, or the reason of its drop."""
    classes = {klass(raw["a_ip"]), klass(raw["b_ip"])}
    if "u" in classes:
        return "unallocated"
    if "f" not in classes:
        return "domestic"
    denied = {
        "a": not direction(raw["a_ip"], raw["b_ip"]) & mask,
        "b": not direction(raw["b_ip"], raw["a_ip"]) & mask,
    }
    speakers = [name for name in "ab" if spoke(raw[name])] or ["a"]
    if all(denied[name] for name in speakers):
        return "direction_not_allowed"
    halves = {name: SILENT if denied[name] else raw[name] for name in "ab"}
    firsts = [h["first"] for h in halves.values() if h["first"] != NEVER]
    if not firsts:
        return "malformed_row"
    endpoint, peer = "ab"
    if classes == {"f"}:
        keys = {n: (number(raw[f"{n}_ip"]), raw[f"{n}_port"]) for n in "ab"}
        if raw["protocol"] in (1, 58):
            keys = {n: (key[0], 0) for n, key in keys.items()}
        if keys["a"] > keys["b"]:
            endpoint, peer = "ba"
    elif klass(raw["a_ip"]) == "d":
        endpoint, peer = "ba"
    ports = "ab" if raw["protocol"] in (1, 58) else endpoint + peer
    foreign_peer = raw[f"{peer}_ip"] if classes == {"f"} else None
    pids = (None, None) if foreign_peer else pids_of(raw[f"{peer}_ip"], min(firsts))
    return {
        "sensor": "sample",
        "endpoint_ip": raw[f"{endpoint}_ip"],
        "endpoint_addr": number(raw[f"{endpoint}_ip"]).to_bytes(16, "big"),
        "endpoint_port": raw[f"{ports[0]}_port"],
        "peer_ip": foreign_peer,
        "peer_pid": pids[0],
        "peer_net_pid": pids[1],
        "peer_port": raw[f"{ports[1]}_port"],
        "protocol": raw["protocol"],
        "tunnel": TUNNELS[raw["tunnel"]],
        "pair_class": "foreign-" + class_name(raw[f"{peer}_ip"]),
        "outer_class": outer_of(raw["outer"], endpoint == "b"),
        "sampling_rate": raw["sampling_rate"],
        "active_timeout_s": None if raw["active_timeout"] == UNKNOWN else raw["active_timeout"],
        "idle_timeout_s": None if raw["idle_timeout"] == UNKNOWN else raw["idle_timeout"],
        "first_seen": at(min(firsts)),
        "last_seen": at(max(h["last"] for h in halves.values())),
        **side_of("endpoint", halves[endpoint]),
        **side_of("peer", halves[peer]),
    }


def class_name(ip: str) -> str:
    return "foreign" if ip in FOREIGN else "special" if ip.startswith("10.") else "domestic"


def outer_of(code: int, turned: bool) -> str:
    if code == 0:
        return "none"
    names = ("domestic", "special", "foreign", "unallocated")
    pair = [names[(code - 1) // 4], names[(code - 1) % 4]]
    return "-".join(reversed(pair) if turned else pair)


def at(microseconds: int) -> datetime | None:
    if microseconds == NEVER:
        return None
    return datetime(1970, 1, 1) + timedelta(microseconds=microseconds)


def side_of(name: str, half: Row) -> Row:
    out = {c: None if half[c] == UNKNOWN else half[c] for c in COUNTERS}
    if half["packets"] == 0:
        out |= {"min_bytes": None, "max_bytes": None}
    out |= {"first": at(half["first"]), "last": at(half["last"])}
    bursts = half["bursts"] if len(half["bursts"]) > 1 else None
    out["burst_starts"] = bursts and [at(start) for start, _ in bursts]
    out["burst_ends"] = bursts and [at(end) for _, end in bursts]
    return {f"{name}_{key}": value for key, value in out.items()}


def pids_of(ip: str, first: int) -> tuple[str, str]:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=first)
    month = (moment.year - 1970) * 12 + moment.month - 1
    hi, lo = divmod(number(ip), 1 << 64)
    host, net = Pseudonyms(KEYS).hosts(
        np.array([hi], np.uint64), np.array([lo], np.uint64), np.array([month], np.int64)
    )
    return host[0].as_py(), net[0].as_py()


# ---- laws ----------------------------------------------------------------------------


@st.composite
def a_half(draw: st.DrawFn) -> Row:
    kind = draw(st.sampled_from(["full", "silent", "mute", "times only", "bursts"]))
    if kind == "silent":
        return dict(SILENT)
    if kind == "mute":
        return dict(MUTE)
    first = T0 + draw(st.integers(0, 3_000_000_000))
    times = {"first": first, "last": first + draw(st.integers(0, 10_000_000))}
    if kind == "times only":
        return MUTE | times
    counters = {c: draw(st.integers(UNKNOWN, 200)) for c in COUNTERS}
    spans = draw(st.lists(st.integers(0, 10_000_000), max_size=6)) if kind == "bursts" else []
    bursts = [(first + start, first + start + 1) for start in sorted(spans)]
    return side(**counters, **times, bursts=bursts)


a_row = st.builds(
    row,
    st.sampled_from(DOMESTIC + FOREIGN + UNALLOCATED),
    st.sampled_from(DOMESTIC + FOREIGN * 2),
    a_port=st.integers(0, 3),
    b_port=st.integers(0, 65535),
    protocol=st.sampled_from([1, 6, 17, 58]),
    tunnel=st.integers(0, len(TUNNELS) - 1),
    outer=st.integers(0, 16),
    sampling_rate=st.sampled_from([1, 1000]),
    active_timeout=st.sampled_from([UNKNOWN, 0, 60]),
    idle_timeout=st.sampled_from([UNKNOWN, 15]),
    a=a_half(),
    b=a_half(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(a_row, max_size=12), st.sampled_from(MASKS))
def test_equals_the_slow_gate(homeland: Homeland, rows: list[Row], mask: int) -> None:
    wanted = [expected(r, mask) for r in rows]
    records, dropped = admit(homeland, rows, mask)
    assert records == [w for w in wanted if isinstance(w, dict)]
    assert dropped == Counter(w for w in wanted if isinstance(w, str))


@settings(max_examples=60, deadline=None)
@given(st.lists(a_row, min_size=1, max_size=12), st.integers(0, 12))
def test_batching_does_not_show(homeland: Homeland, rows: list[Row], cut: int) -> None:
    whole, dropped = admit(homeland, rows)
    head, dropped_head = admit(homeland, rows[:cut])
    tail, dropped_tail = admit(homeland, rows[cut:])
    assert whole == head + tail
    assert dropped == dropped_head + dropped_tail


def buffers(array: pa.Array) -> bytes:
    """Returns every byte an array refers to, those of children and dictionaries included."""
    found = b"".join(buffer.to_pybytes() for buffer in array.buffers() if buffer is not None)
    if pa.types.is_dictionary(array.type):
        found += buffers(array.dictionary)
    return found


def test_no_domestic_address_in_any_byte(homeland: Homeland) -> None:
    """Text, and binary in both byte orders; dropped rows, nulls and padding included."""
    rows = [row(a, b) for a in DOMESTIC + FOREIGN for b in DOMESTIC + FOREIGN + UNALLOCATED]
    tally = Tally("records", read=len(rows))
    table = Gate(Border(homeland, 7), KEYS, "sample").admit(make(rows), tally, False)
    assert table.num_rows > 50
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes() + b"".join(
        buffers(chunk) for column in table.columns for chunk in column.chunks
    )
    assert FOREIGN[2].encode() in data, "the search itself works"
    assert number(FOREIGN[0]).to_bytes(16, "big") in data
    for ip in DOMESTIC + UNALLOCATED:
        packed = ipaddress.ip_address(ip).packed
        mapped = number(ip).to_bytes(16, "big")
        halves = b"".join(mapped[i : i + 8][::-1] for i in (0, 8))
        for needle in (ip.encode(), packed, packed[::-1], mapped, mapped[::-1], halves):
            assert needle not in data


def test_table_shares_no_memory_with_the_batch(homeland: Homeland) -> None:
    batch = make([row(FOREIGN[0], DOMESTIC[0]), row(FOREIGN[0], FOREIGN[1])])
    table = Gate(Border(homeland, 7), KEYS, "sample").admit(batch, Tally(), False)
    before = table.to_pylist()
    for part in (batch, batch.a, batch.b):
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, np.ndarray):
                value[:] = 99
    assert table.to_pylist() == before


# ---- single cases --------------------------------------------------------------------


def test_empty_batch(homeland: Homeland) -> None:
    assert admit(homeland, []) == ([], Counter())
    assert admit(homeland, [], gated=True) == ([], Counter())


def test_same_address_twice_is_ordered_by_port(homeland: Homeland) -> None:
    [record], _ = admit(homeland, [row(FOREIGN[0], FOREIGN[0], a_port=9, b_port=2)])
    assert (record["endpoint_port"], record["peer_port"]) == (2, 9)


@pytest.mark.parametrize(("mask", "blank"), [(OUT_IN, "peer"), (IN_OUT, "endpoint")])
def test_half_of_a_denied_direction_is_blanked(homeland: Homeland, mask: int, blank: str) -> None:
    spans = [(T0, T0 + 1), (T0 + 2_000_000, T0 + 3_000_000)]
    rows = [row(FOREIGN[0], DOMESTIC[0], a=side(bursts=spans), b=side(bursts=spans))]
    [record], _ = admit(homeland, rows, mask)
    other = {"peer": "endpoint", "endpoint": "peer"}[blank]
    assert [record[f"{blank}_{c}"] for c in COUNTERS] == [0, 0, 0, None, None, 0]
    assert all(record[f"{blank}_{c}"] is None for c in ("first", "last", "burst_starts"))
    assert record[f"{other}_packets"] == 3
    assert len(record[f"{other}_burst_starts"]) == 2
    assert record["first_seen"] == record[f"{other}_first"]


@pytest.mark.parametrize(
    "change",
    [
        dict(a_port=65536),
        dict(b_port=-1),
        dict(protocol=256),
        dict(tunnel=len(TUNNELS)),
        dict(tunnel=-1),
        dict(sampling_rate=0),
        dict(sampling_rate=2**31),
        dict(a=side(packets=-2)),
        dict(a=side(tcp_flags=256)),
        dict(b=side(max_bytes=2**31)),
        dict(b=side(bytes=2**48 + 1)),
        dict(a=side(packets=2**48 + 1)),
        dict(b=side(first=T0 + 9_000_000)),
        dict(b=side(first=NEVER)),
        dict(a=side(last=NEVER)),
        dict(a=MUTE, b=MUTE),
    ],
)
def test_numbers_that_no_column_can_hold(homeland: Homeland, change: Row) -> None:
    good = row(FOREIGN[0], DOMESTIC[0])
    records, dropped = admit(homeland, [good, good | change, good])
    assert (len(records), dropped) == (2, Counter(malformed_row=1))
    with pytest.raises(PrivacyError, match="1 rows that must not pass"):
        admit(homeland, [good, good | change], gated=True)


def test_gated_rows_equal_those_of_logs(homeland: Homeland) -> None:
    rows = [row(FOREIGN[i % 4], DOMESTIC[i % 5]) for i in range(20)]
    assert admit(homeland, rows, gated=True) == admit(homeland, rows, gated=False)


@pytest.mark.parametrize(
    ("bad", "mask"),
    [
        (row(DOMESTIC[0], DOMESTIC[1]), 7),
        (row(DOMESTIC[0], FOREIGN[0]), 7),  # turned the wrong way
        (row(FOREIGN[0], UNALLOCATED[0]), 7),
        (row(FOREIGN[0], FOREIGN[1]), OUT_IN | IN_OUT),
        (row(FOREIGN[0], DOMESTIC[0], b=SILENT), IN_OUT),
        (row(FOREIGN[0], DOMESTIC[0]), OUT_IN),  # a half of a denied direction
    ],
)
def test_gated_row_that_must_not_pass_stops_all(homeland: Homeland, bad: Row, mask: int) -> None:
    with pytest.raises(PrivacyError) as caught:
        admit(homeland, [bad], mask, gated=True)
    shown = str(caught.value)
    assert not any(ip in shown for ip in DOMESTIC + FOREIGN + UNALLOCATED)


def damage_type(batch: RawBatch) -> None:
    batch.a.packets = batch.a.packets.astype(np.int32)


def damage_shape(batch: RawBatch) -> None:
    batch.a.packets = batch.a.packets.reshape(-1, 1)


def damage_object(batch: RawBatch) -> None:
    batch.a_port = np.array([b"payload"], object)


def damage_list(batch: RawBatch) -> None:
    batch.a_port = [1]  # type: ignore[assignment]


def damage_length(batch: RawBatch) -> None:
    batch.b_lo = batch.b_lo[:0]


def damage_bursts(offsets: list[int], starts: list[int], ends: list[int]) -> Callable[..., None]:
    def damage(batch: RawBatch) -> None:
        batch.a.bursts = Bursts(*(np.array(v, np.int64) for v in (offsets, starts, ends)))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        damage_type,
        damage_shape,
        damage_object,
        damage_list,
        damage_length,
        damage_bursts([0], [], []),
        damage_bursts([0, 3], [1, 2], [1, 2]),
        damage_bursts([-1, 1], [1, 2], [1, 2]),
        damage_bursts([1, 0], [1, 2], [1, 2]),
        damage_bursts([0, 2], [1, 2], [1]),
        damage_bursts([0, 2], [1, 2], [1, 1]),
    ],
)
def test_malformed_batches_are_refused(
    homeland: Homeland, damage: Callable[[RawBatch], None]
) -> None:
    batch = make([row(FOREIGN[0], DOMESTIC[0])])
    damage(batch)
    with pytest.raises(PrivacyError, match="A reader's"):
        Gate(Border(homeland, 7), KEYS, "sample").admit(batch, Tally(), False)
