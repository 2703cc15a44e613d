"""Tables of texts: cut as the csv module cuts, read as Python reads, counted row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.raw import NEVER, UNKNOWN, RawBatch
from telemetry.readers.rows.numbers import Numbers
from telemetry.readers.rows.records import Layout, batch
from telemetry.readers.rows.texts import Fields, Table, Texts, table_of_json, table_of_lines
from telemetry.reasons import Reason
from telemetry.records import Tally


def column(values: Sequence[str]) -> Texts:
    encoded = [value.encode() for value in values]
    ends = np.cumsum([len(value) for value in encoded], dtype=np.int64)
    starts = ends - [len(value) for value in encoded]
    return Texts(np.frombuffer(b"".join(encoded), dtype=np.uint8), starts, ends)


def numbers(*values: str) -> Numbers:
    return Numbers(Table({"x": column(values)}, len(values)))


def texts(table: Table, name: str) -> list[str]:
    return [table.get(name).at(row) for row in range(len(table))]


# -- cutting

plain = st.text(alphabet='ab,;" ', max_size=6)


@settings(deadline=None)
@given(st.lists(st.lists(plain, min_size=3, max_size=3), min_size=1, max_size=6), st.booleans())
def test_quoted_fields_are_cut_as_the_csv_module_cuts(rows: list[list[str]], all_: bool) -> None:
    class Lines(list[str]):
        write = list.append

    lines = Lines()
    style = csv.QUOTE_ALL if all_ else csv.QUOTE_MINIMAL
    csv.writer(lines, lineterminator="\n", quoting=style).writerows(rows)
    tally = Tally()
    table = table_of_lines(
        "".join(lines).encode(), Fields(("a", "b", "c"), quoted=True), {"x": "a", "y": "c"}, tally
    )
    assert texts(table, "x") == [row[0].replace('"', '""') for row in rows]
    assert texts(table, "y") == [row[2].replace('"', '""') for row in rows]
    assert tally.read == 0


def test_lines_with_an_open_quote_lose_themselves_alone() -> None:
    tally = Tally()
    lines = b'1,"x,2\n3,"y",4\n5,z,6\n7,8\n'
    table = table_of_lines(lines, Fields(("a", "b", "c"), quoted=True), {"c": "c"}, tally)
    assert texts(table, "c") == ["4", "6"]
    assert dict(tally.dropped) == {Reason.MALFORMED_ROW.label: 2}


def test_blanks_around_a_text_are_no_part_of_it() -> None:
    fields = Fields(("a", "b", ""), separator=b"|", padded=True)
    table = table_of_lines(b"  1 | x  |\n|  |\n", fields, {"a": "a", "b": "b"}, Tally())
    assert (texts(table, "a"), texts(table, "b")) == (["1", ""], ["x", ""])


def test_one_name_may_fill_two_columns() -> None:
    table = table_of_lines(b"1,2\n", Fields(("a", "b")), {"x": "b", "y": "b"}, Tally())
    assert texts(table, "x") == texts(table, "y") == ["2"]


values = st.one_of(
    st.none(), st.booleans(), st.integers(0, 2**40), st.text(max_size=5), st.lists(st.integers())
)


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "b", "n"]),
            st.one_of(values, st.dictionaries(st.sampled_from(["c", "d"]), values, max_size=2)),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_json_is_found_under_its_keys(rows: list[dict[str, object]]) -> None:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    wanted = {"x": ("a", ("n", "c")), "y": (("n", "d"),)}
    for broken in (b"", b"no json\n"):  # polars, then line by line
        table = table_of_json(lines + broken, wanted)
        assert len(table) == len(rows) + bool(broken)
        for row, x in zip(rows, texts(table, "x"), strict=False):
            inner = row.get("n") if isinstance(row.get("n"), dict) else {}
            assert isinstance(inner, dict)
            told = row.get("a") if row.get("a") is not None else inner.get("c")
            if told is None:
                assert x == ""
            elif isinstance(told, str):
                assert x == told
            elif isinstance(told, int) and not isinstance(told, bool):
                assert x == str(told)
            else:
                assert numbers(x).counts("x")[0] == UNKNOWN


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"x\x9c", b"BZh9"])
def test_lines_that_look_compressed_are_lines(magic: bytes) -> None:
    table = table_of_json(magic + b'\n{"a":"b"}\n', {"x": ("a",)})
    assert texts(table, "x") == ["", "b"]


# -- numbers

zones = st.sampled_from([None, UTC, timezone(timedelta(hours=9)), timezone(-timedelta(minutes=90))])


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 3), datetime(9999, 12, 30)), zones, st.data())
def test_dates_are_read_as_python_reads_them(
    moment: datetime, zone: timezone | None, data: st.DataObject
) -> None:
    moment = moment.replace(tzinfo=zone)
    text = moment.isoformat(sep=data.draw(st.sampled_from("T ")))
    if zone is UTC and data.draw(st.booleans()):
        text = text.replace("+00:00", data.draw(st.sampled_from(["Z", "+0000", "+00", " UTC"])))
    if zone is None and data.draw(st.booleans()):
        text = text.replace("-", "/")
    expected = (moment.replace(tzinfo=zone or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )
    table = numbers(text)
    assert table.times("x")[0] == expected
    assert not table.bad[0]


@pytest.mark.parametrize(
    "text",
    [
        "2023-02-29T00:00:00", "2023-13-01T00:00:00", "2023-01-01T24:00:00", "2023-01/01 00:00:00",
        "2023-01-01T00:00:00.", "2023-01-01T00:00:00+", "1969-12-31T23:59:59Z",
        "2023-01-01T00:00:00+24:00", "never",
    ],
)  # fmt: skip
def test_what_is_no_date(text: str) -> None:
    table = numbers(text)
    assert table.times("x")[0] == UNKNOWN
    assert table.bad[0]


@pytest.mark.parametrize(
    ("unit", "text", "micros"),
    [
        ("s", "1672843056.9415419", 1_672_843_056_941_542),
        ("ms", "1672843056941", 1_672_843_056_941_000),
        ("us", "1672843056941541", 1_672_843_056_941_541),
        ("us", "1672843056941541.0", 1_672_843_056_941_541),
        ("ns", "1672843056941541999", 1_672_843_056_941_541),
        ("ns", "2023-01-04T14:37:36.941541999Z", 1_672_843_056_941_541),
        ("s", "Wed Jan  4 14:37:36 2023", 1_672_843_056_000_000),
    ],
)
def test_units_of_time(unit: str, text: str, micros: int) -> None:
    assert numbers(text).times("x", unit)[0] == micros  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.integers(0, 255))
def test_flags_are_read_in_every_spelling(flags: int) -> None:
    letters = "".join(
        letter if flags >> bit & 1 else "." for bit, letter in reversed([*enumerate("FSRPAUEC")])
    )
    for text in (str(flags), hex(flags), letters, letters.replace(".", "") or "."):
        assert numbers(text).tcp_flags("x")[0] == flags
    assert numbers(f"{flags:02x}").tcp_flags("x", hexadecimal=True)[0] == flags


def test_protocols_by_name_and_number() -> None:
    table = numbers("TCP", "Udp", "1", "132", "IPv6-ICMP", "-", "carrier pigeon", "256", "0x11")
    assert table.protocols("x").tolist()[:-2] == [6, 17, 1, 132, 58, UNKNOWN, UNKNOWN]
    assert table.bad.tolist() == [False] * 7 + [True, False]


def test_ports_in_hexadecimal() -> None:
    table = numbers("0x0008", "443", "0x1ffff", "http", "")
    assert table.ports("x").tolist()[:2] == [8, 443]
    assert table.bad.tolist() == [False, False, True, True, False]


# -- records

ROW = {
    "src_ip": "203.0.113.7",
    "dst_ip": "192.0.2.1",
    "src_port": "40000",
    "dst_port": "443",
    "protocol": "tcp",
    "start": "100",
    "end": "102.5",
    "src_packets": "3",
    "dst_packets": "2",
    "src_bytes": "180",
    "dst_bytes": "120",
    "src_tcp_flags": "S",
    "dst_tcp_flags": "SA",
}


PLAIN = Layout()


def made(
    *rows: Mapping[str, str | None], layout: Layout = PLAIN
) -> tuple[RawBatch, Tally]:  # fmt: skip
    full = [{k: v for k, v in (ROW | row).items() if v is not None} for row in rows]
    names = {name for row in full for name in row}
    tally = Tally()
    table = Table({n: column([row.get(n, "") for row in full]) for n in names}, len(full))
    out = batch(table, layout, tally)
    out.check()
    assert tally.read == len(full) == len(out) + sum(tally.dropped.values())
    return out, tally


def test_both_sides_and_their_times() -> None:
    record, _ = made({})
    assert (record.a.first[0], record.a.last[0]) == (100_000_000, 102_500_000)
    assert (record.b.first[0], record.b.last[0]) == (100_000_001, 102_500_000)
    assert (record.a.packets[0], record.b.bytes[0]) == (3, 120)
    assert (record.a.tcp_flags[0], record.b.tcp_flags[0]) == (2, 18)
    assert record.a.payload_bytes[0] == UNKNOWN
    assert (record.sampling_rate[0], record.active_timeout[0]) == (1, UNKNOWN)


def test_a_silent_side_has_no_time() -> None:
    record, _ = made({"dst_packets": "0"})
    assert (record.b.first[0], record.b.bytes[0], record.b.tcp_flags[0]) == (NEVER, 0, 0)


def test_one_direction_tells_nothing_of_the_other() -> None:
    record, _ = made({}, layout=Layout(one_way=True))
    assert record.b.packets[0] == record.b.bytes[0] == record.b.tcp_flags[0] == UNKNOWN
    assert (record.b.first[0], record.a.first[0]) == (NEVER, 100_000_000)


@pytest.mark.parametrize(
    ("changes", "first", "last"),
    [
        ({"start": None, "duration": "2"}, 100_500_000, 102_500_000),
        ({"end": None, "duration": "2"}, 100_000_000, 102_000_000),
        ({"end": None}, 100_000_000, 100_000_000),
        ({"start": None}, 102_500_000, 102_500_000),
        ({"end": "99"}, 100_000_000, 100_000_000),
    ],
)
def test_start_end_and_duration(changes: dict[str, str], first: int, last: int) -> None:
    record, _ = made(changes)
    assert (record.a.first[0], record.a.last[0]) == (first, last)


@pytest.mark.parametrize(
    ("changes", "layout", "ports"),
    [
        ({"src_port": "0", "dst_port": "2048"}, Layout(icmp_in_port=True), (8, 0)),
        ({"src_port": "0", "dst_port": "0"}, Layout(icmp_in_port=True), (8, 0)),
        ({"src_port": "", "dst_port": "", "icmp_type": "3", "icmp_code": "1"}, Layout(), (3, 1)),
        ({"src_port": "", "dst_port": "", "icmp_type": "14"}, Layout(), (13, 0)),
        ({"src_port": "8", "dst_port": "0"}, Layout(), (8, 0)),
        ({"src_port": "0", "dst_port": "771"}, Layout(), (3, 3)),
        ({"src_port": "8", "dst_port": "771"}, Layout(), (8, 0)),
        ({"src_port": "50000", "dst_port": "0"}, Layout(), (255, 0)),
        ({"src_port": "0", "dst_port": "0"}, Layout(icmp_zeros=False), (255, 255)),
        ({"src_port": "0", "dst_port": "0", "icmp_type": "0"}, Layout(icmp_zeros=False), (8, 0)),
        ({"src_port": "0", "dst_port": "5"}, Layout(icmp_in_port=True, icmp_zeros=False), (8, 5)),
    ],
)
def test_icmp_is_type_and_code(
    changes: dict[str, str], layout: Layout, ports: tuple[int, int]
) -> None:
    record, _ = made({"protocol": "1"} | changes, layout=layout)
    assert (record.a_port[0], record.b_port[0]) == ports


def test_sampling_and_timeouts_of_columns_and_of_the_layout() -> None:
    layout = Layout(sampling_rate=10, active_timeout=60)
    record, _ = made({"sampling_rate": "100"}, {"idle_timeout": "15"}, layout=layout)
    assert record.sampling_rate.tolist() == [100, 10]
    assert record.active_timeout.tolist() == [60, 60]
    assert record.idle_timeout.tolist() == [UNKNOWN, 15]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"src_port": ""}, Reason.MALFORMED_ROW),
        ({"start": "", "end": ""}, Reason.MALFORMED_ROW),
        ({"protocol": ""}, Reason.MALFORMED_ROW),
        ({"src_packets": "many"}, Reason.MALFORMED_ROW),
        ({"src_ip": "host"}, Reason.NO_ADDRESS),
    ],
)
def test_rows_that_are_not_whole_are_counted(changes: dict[str, str], reason: Reason) -> None:
    record, tally = made({}, changes, {})
    assert len(record) == 2
    assert dict(tally.dropped) == {reason.label: 1}
