"""Mapping files: the same records from CSV, JSON Lines and Parquet, nothing but what is named."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from capture_kit import border
from rows_kit import Save, one, read, saver

from telemetry.errors import SettingsError, SourceError
from telemetry.raw import NEVER, UNKNOWN
from telemetry.readers import Session, find_reader, mapped, open_source
from telemetry.reasons import Reason

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = {
    "src_ip": "client", "src_port": "cport", "dst_ip": "server", "dst_port": "sport",
    "protocol": "proto", "start": "began", "end": "ended", "src_packets": "up",
    "dst_packets": "down",
}  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {
        "began": 1_672_843_056_941, "ended": 1_672_843_057_941, "client": "203.0.113.7",
        "cport": 40000, "server": "192.0.2.1", "sport": 443, "proto": "tcp", "up": 5, "down": 4,
        "host": "canary.example",
    },
    {
        "began": 1_672_843_056_941, "ended": 1_672_843_056_941, "client": "2001:db8::7",
        "cport": 1, "server": "2001:db8::1", "sport": 2, "proto": "17", "up": 1, "down": None,
        "host": None,
    },
]  # fmt: skip


@pytest.fixture
def save(tmp_path: Path) -> Save:
    return saver(tmp_path)


def toml(tmp_path: Path, columns: dict[str, Any] = COLUMNS, **keys: Any) -> Path:
    path = tmp_path / "mapping.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in keys.items()]
    lines += ["[columns]", *(f"{name} = {json.dumps(value)}" for name, value in columns.items())]
    path.write_text("\n".join(lines))
    return path


def text(separator: str = ",", rows: list[dict[str, Any]] = ROWS, header: bool = True) -> bytes:
    lines = [list(rows[0])] if header else []
    lines += [["" if value is None else str(value) for value in row.values()] for row in rows]
    return "".join(separator.join(line) + "\n" for line in lines).encode()


def lines_of(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(tmp_path: Path, rows: list[dict[str, Any]] = ROWS, **options: Any) -> bytes:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path.read_bytes()


def test_all_shapes_hold_the_same_records(save: Save, tmp_path: Path) -> None:
    ms = toml(tmp_path, time="ms")
    columns, tally = read(mapped.READER, save(text()), ms)
    assert columns["a_port"] == [40000, 1]
    assert columns["protocol"] == [6, 17]
    assert columns["b.packets"] == [4, UNKNOWN]
    assert columns["a.first"] == [1_672_843_056_941_000] * 2
    assert columns["a.last"] == [1_672_843_057_941_000, 1_672_843_056_941_000]
    assert "canary" not in repr(columns)
    assert not tally.dropped
    for content in (
        text("\t"), text(";"), text("|"), lines_of(ROWS), parquet(tmp_path),
        parquet(tmp_path, ROWS, row_group_size=1, compression="zstd"),
    ):  # fmt: skip
        assert read(mapped.READER, save(content), ms)[0] == columns
    for content in (json.dumps(ROWS), json.dumps(ROWS, indent=1), json.dumps([{}, *ROWS])[:-9]):
        rows = read(mapped.READER, save(content.encode()), ms)[0]["a_port"]
        assert rows == columns["a_port"][: len(rows)] and rows
    bare = toml(tmp_path, time="ms", names=list(ROWS[0]), delimiter="^")
    assert read(mapped.READER, save(text("^", header=False)), bare)[0] == columns


def test_nested_columns(save: Save, tmp_path: Path) -> None:
    nested = [
        {"flow": {"src": row["client"], "more": {"port": row["cport"]}}} | row for row in ROWS
    ]
    keys = COLUMNS | {"src_ip": ["flow", "src"], "src_port": ["flow", "more", "port"]}
    mapping = toml(tmp_path, keys, time="ms")
    expected = read(mapped.READER, save(text()), toml(tmp_path, time="ms"))[0]
    for content in (lines_of(nested), parquet(tmp_path, nested)):
        assert read(mapped.READER, save(content), toml(tmp_path, keys, time="ms"))[0] == expected
    assert mapping.exists()


def test_times_of_parquet(save: Save, tmp_path: Path) -> None:
    for kind in (
        pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "UTC"),
        pa.timestamp("ms", "Asia/Tokyo"),
    ):  # fmt: skip
        table = pa.Table.from_pylist(ROWS[:1])
        for name in ("began", "ended"):
            moments = table[name].cast(pa.timestamp("ms")).cast(kind)
            table = table.set_column(table.column_names.index(name), name, moments)
        pq.write_table(table, tmp_path / "t")
        content = (tmp_path / "t").read_bytes()
        row = one(read(mapped.READER, save(content), toml(tmp_path))[0])
        assert row["a.first"] == 1_672_843_056_941_000, kind


def test_one_way_and_what_no_column_tells(save: Save, tmp_path: Path) -> None:
    columns = {name: own for name, own in COLUMNS.items() if name != "dst_packets"}
    mapping = toml(tmp_path, columns, time="ms", one_way=True, sampling_rate=100,
                   active_timeout=60, idle_timeout=15)  # fmt: skip
    found, _ = read(mapped.READER, save(text()), mapping)
    assert found["b.packets"] == [UNKNOWN] * 2
    assert found["b.first"] == [NEVER] * 2
    assert (found["sampling_rate"], found["active_timeout"]) == ([100] * 2, [60] * 2)
    assert found["idle_timeout"] == [15] * 2


def test_types_of_icmp_in_the_port(save: Save, tmp_path: Path) -> None:
    """As NetFlow v5 has them, as nfdump prints them, and where an exporter knows none."""
    ports = {"2048": (8, 0), "771": (3, 3), "771.0": (3, 3), "8.0": (8, 0), "3.3": (3, 3),
             "0.0": (8, 0), "0": (255, 255)}  # fmt: skip
    rows = [ROWS[0] | {"proto": "icmp", "cport": 0, "sport": port} for port in ports]
    mapping = toml(tmp_path, time="ms", icmp_in_port=True)
    columns, _ = read(mapped.READER, save(text(rows=[*rows, ROWS[0]])), mapping)
    told = list(zip(columns["a_port"], columns["b_port"], strict=True))
    assert told == [*ports.values(), (40000, 443)]


def test_hexadecimal_flags(save: Save, tmp_path: Path) -> None:
    content = text(rows=[ROWS[0] | {"flags": "1b"}, ROWS[0] | {"flags": "12"}])
    columns = COLUMNS | {"src_tcp_flags": "flags"}
    for told, flags in (("hex", [0x1B, 0x12]), ("decimal", [12])):
        mapping = toml(tmp_path, columns, time="ms", tcp_flags=told)
        assert read(mapped.READER, save(content), mapping)[0]["a.tcp_flags"] == flags
    with pytest.raises(SettingsError, match=r"wrong at tcp_flags: Input should be 'decimal' or"):
        read(mapped.READER, save(content), toml(tmp_path, columns, tcp_flags="octal"))


def test_rows_that_do_not_parse_are_counted(save: Save, tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"began": "soon"}, ROWS[0] | {"client": "10.0.0"}]
    for content in (text(rows=rows), lines_of(rows)):
        columns, tally = read(mapped.READER, save(content), toml(tmp_path, time="ms"))
        assert len(columns["a_hi"]) == 2
        assert dict(tally.dropped) == {Reason.MALFORMED_ROW.label: 1, Reason.NO_ADDRESS.label: 1}


@pytest.mark.parametrize(
    ("columns", "keys", "sentence"),
    [
        (COLUMNS | {"host": "host"}, {}, "knows no meaning host; choose among src_ip"),
        ({"src_ip": "client"}, {}, "lacks the meanings dst_ip, src_port, dst_port, protocol;"),
        ({n: c for n, c in COLUMNS.items() if n not in ("start", "end")}, {}, "names no time"),
        (COLUMNS, {"one_way": True}, "one_way, so that dst_packets has no meaning"),
        (COLUMNS, {"tiem": "ms"}, "wrong at tiem"),
        (COLUMNS, {"time": "minutes"}, "wrong at time"),
        (COLUMNS, {"sampling_rate": 0}, "wrong at sampling_rate"),
        (COLUMNS, {"delimiter": ", "}, "wrong at delimiter"),
        (COLUMNS | {"src_ip": 5}, {}, "wrong at columns"),
    ],
)
def test_mappings_that_are_wrong(
    save: Save, tmp_path: Path, columns: dict[str, Any], keys: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        read(mapped.READER, save(text()), toml(tmp_path, columns, **keys))


def test_mappings_that_cannot_be_read(save: Save, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read(mapped.READER, save(text()), tmp_path / "none.toml")
    (tmp_path / "no.toml").write_bytes(b"\xff = ")
    with pytest.raises(SettingsError, match="is no TOML"):
        read(mapped.READER, save(text()), tmp_path / "no.toml")


def test_columns_that_the_source_lacks(save: Save, tmp_path: Path) -> None:
    columns = COLUMNS | {"src_port": "prot", "src_packets": "packets"}
    for content in (text(), lines_of(ROWS), parquet(tmp_path)):
        with pytest.raises(SourceError, match="names for src_port, src_packets; correct"):
            read(mapped.READER, save(content), toml(tmp_path, columns))


def test_a_mapping_under_which_nothing_parses_is_no_success(save: Save, tmp_path: Path) -> None:
    for content in (text(), lines_of(ROWS), parquet(tmp_path)):
        with pytest.raises(SourceError, match="None of its rows can be read"):
            mapping = toml(tmp_path, COLUMNS | {"start": "client"})
            read(mapped.READER, save(content), mapping)


def test_broken_parquet(save: Save, tmp_path: Path) -> None:
    mapping, whole = toml(tmp_path, time="ms"), parquet(tmp_path, ROWS * 100, row_group_size=50)
    for broken in (whole[:-20], b"PAR1" + bytes(100), whole[: len(whole) // 2] + whole[-40:]):
        with pytest.raises(SourceError, match="Parquet cannot be read"):
            read(mapped.READER, save(broken), mapping)
    middle = bytearray(whole)
    middle[len(whole) // 2 : len(whole) // 2 + 30] = b"\xff" * 30
    try:
        _, tally = read(mapped.READER, save(bytes(middle)), mapping)
    except SourceError:
        return
    assert tally.read <= 200


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()])
def test_a_long_text_of_many_rows_is_held_once(
    save: Save, tmp_path: Path, kind: pa.DataType
) -> None:
    """A few kilobytes of Parquet stand for gigabytes of text."""
    rows = 20_000
    long = pa.array(["x" * 100_000] * 9 + ["203.0.113.7"], pa.string()).cast(kind)
    path = tmp_path / "t"
    table = pa.Table.from_pylist(ROWS[:1] * 10).set_column(2, "client", long)
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(pa.concat_tables([table] * (rows // 10)), row_group_size=rows)
    assert path.stat().st_size < 20_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, tally = read(mapped.READER, save(path.read_bytes()), toml(tmp_path, time="ms"))
    assert (tally.read, sum(tally.dropped.values())) == (rows, rows * 9 // 10)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_wrapped_records_are_to_be_taken_out_first(save: Save, tmp_path: Path) -> None:
    for content in ({"hits": ROWS}, {"logEvents": [{"message": "2 1 eni-0a"}]}):
        source = save(json.dumps(content).encode())
        with pytest.raises(SourceError, match=r"wrapped in another object, take them out first"):
            read(mapped.READER, source, toml(tmp_path, time="ms"))


def test_lists_in_parquet_are_refused(save: Save, tmp_path: Path) -> None:
    content = parquet(tmp_path, [row | {"client": [row["client"]]} for row in ROWS])
    with pytest.raises(SourceError, match="holds no plain values"):
        read(mapped.READER, save(content), toml(tmp_path, time="ms"))


def test_without_a_mapping_or_in_binary_it_reads_nothing(save: Save, tmp_path: Path) -> None:
    source = save(text())
    assert not mapped.READER.recognises(source.head, Session(border()))
    capture = ROOT / "data" / "samples" / "formats" / "pcap" / "little_micro.pcap"
    session = Session(border(), mapping=toml(tmp_path))
    assert find_reader(open_source(str(capture)), session).name == "pcap"
    assert find_reader(source, session).name == "mapped"


def test_the_mapping_of_the_readme(save: Save, tmp_path: Path) -> None:
    block = re.search(r"```toml\n(# mapping\.toml.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block is not None
    (tmp_path / "mapping.toml").write_text(block[1])
    header = block[1].splitlines()[1].removeprefix("# ")
    row = "1672843056941,1500,203.0.113.7,40000,192.0.2.1,443,tcp,5,300,S"
    source = save(f"{header}\n{row}\n".encode())
    found = one(read(mapped.READER, source, tmp_path / "mapping.toml")[0])
    assert (found["a.packets"], found["a.bytes"], found["a.tcp_flags"]) == (5, 300, 2)
    assert (found["a.first"], found["a.last"]) == (1_672_843_056_941_000, 1_672_843_058_441_000)
    assert (found["a_port"], found["b_port"], found["b.packets"]) == (40000, 443, UNKNOWN)


@pytest.mark.parametrize(
    "held", [{"message": "x"}, {"events": [{"message": "2 1 eni-0a"}]}, {"a": {"log": "x"}}]
)
def test_who_brings_wrapped_records_is_told_to_take_them_out(
    save: Save, held: dict[str, Any]
) -> None:
    with pytest.raises(SourceError, match="take records that are wrapped in another log out"):
        find_reader(save(json.dumps(held).encode()), Session(border()))


def test_what_nfdump_prints_for_people_is_refused_by_name(save: Save) -> None:
    text = (
        "Date first seen          Duration Proto      Src IP Addr:Port          Dst IP Addr:Port\n"
        "2026-03-01 00:00:00.000     0.000 TCP        203.0.113.7:40000 ->       192.0.2.1:443\n"
    )
    with pytest.raises(SourceError, match=r"give nfdump's own file, or .* `nfdump -o csv`"):
        find_reader(save(text.encode()), Session(border()))


@pytest.mark.parametrize(
    "head", [b"a,b,c,d,e\n1,2,3,4,5\n", b"sa|da|sp|dp|pr\n1|2|3|4|5\n", b'{"a": 1}\n', b"PAR1xxxx"]
)
def test_who_brings_a_table_unmapped_is_told_of_mappings(save: Save, head: bytes) -> None:
    with pytest.raises(SourceError, match="--mapping FILE says which of its columns means what"):
        find_reader(save(head), Session(border()))
