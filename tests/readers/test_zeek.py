"""Conn logs: the same records whatever the shape, nothing lost without being counted."""

from __future__ import annotations

import gzip
import io
import ipaddress
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.errors import SourceError
from telemetry.raw import NEVER, UNKNOWN, RawBatch, Side
from telemetry.readers import Session, zeek
from telemetry.readers.rows import numbers, texts
from telemetry.readers.source import Source, open_source
from telemetry.reasons import Reason
from telemetry.records import Tally

Save = Callable[[bytes], Source]
NO_SESSION = cast(Session, None)

FIELDS = [
    "ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "service",
    "duration", "orig_bytes", "resp_bytes", "conn_state", "local_orig", "local_resp",
    "missed_bytes", "history", "orig_pkts", "orig_ip_bytes", "resp_pkts", "resp_ip_bytes",
    "tunnel_parents",
]  # fmt: skip


def row(**changes: str) -> dict[str, str]:
    """A TCP connection in which both sides spoke, as Zeek writes it."""
    values = {
        "ts": "1672843056.941541",
        "uid": "CXHB1X22027MRWU6D",
        "id.orig_h": "203.0.113.7",
        "id.orig_p": "55548",
        "id.resp_h": "192.0.2.1",
        "id.resp_p": "443",
        "proto": "tcp",
        "service": "ssl",
        "duration": "2.500001",
        "orig_bytes": "719",
        "resp_bytes": "336",
        "conn_state": "SF",
        "local_orig": "F",
        "local_resp": "T",
        "missed_bytes": "0",
        "history": "ShADadfF",
        "orig_pkts": "10",
        "orig_ip_bytes": "1131",
        "resp_pkts": "4",
        "resp_ip_bytes": "508",
        "tunnel_parents": "(empty)",
    }
    return values | {name.replace("id_", "id."): value for name, value in changes.items()}


ROWS = [
    row(),
    row(ts="0.000001", duration="-", history="S", resp_pkts="0", resp_ip_bytes="0"),
    row(proto="udp", history="Dd", orig_bytes="-", resp_bytes="-", id_orig_h="2001:db8::1"),
    row(proto="icmp", history="-", id_orig_p="8", id_resp_p="0", conn_state="OTH"),
    row(
        proto="icmp", history="-", id_orig_h="fe80::1", id_resp_h="ff02::2", id_orig_p="133",
        id_resp_p="134",
    ),
    row(history="-", conn_state="REJ"),
]  # fmt: skip


def text_log(
    rows: Sequence[dict[str, str]] = ROWS,
    names: Sequence[str] = FIELDS,
    separator: str = "\t",
    path: str = "conn",
) -> bytes:
    head = [
        f"#separator \\x{ord(separator):02x}",
        separator.join(("#set_separator", ",")),
        separator.join(("#empty_field", "(empty)")),
        separator.join(("#unset_field", "-")),
        separator.join(("#path", path)),
        separator.join(("#open", "2023-01-05-18-51-06")),
        separator.join(("#fields", *names)),
        separator.join(("#types", *("string" for _ in names))),
    ]
    lines = [separator.join(r[name] for name in names) for r in rows]
    return "\n".join([*head, *lines, f"#close{separator}2023-01-05-19-00-00", ""]).encode()


def json_row(values: dict[str, str]) -> dict[str, Any]:
    texts = ("uid", "id.orig_h", "id.resp_h", "proto", "service", "conn_state", "history")
    numbers = (n for n in FIELDS if n.endswith(("_p", "bytes", "pkts")) or n in ("ts", "duration"))
    known = {n: v for n, v in values.items() if v != "-"}
    return {n: known[n] for n in texts if n in known} | {
        n: json.loads(known[n]) for n in numbers if n in known
    }


def json_log(rows: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in rows)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: bytes) -> Source:
        path = tmp_path / "source"
        path.write_bytes(content)
        return open_source(str(path))

    return write


def read(source: Source) -> tuple[dict[str, list[Any]], Tally]:
    """Reads all rows, batches joined, one list for each column."""
    tally = Tally()
    columns: dict[str, list[Any]] = {}
    for batch in zeek.READER.read(source, NO_SESSION, tally):
        batch.check()
        for name, values in arrays(batch):
            columns.setdefault(name, []).extend(values.tolist())
    rows = len(columns.get("a_hi", []))
    assert tally.unit == "records"
    assert tally.read == rows + sum(tally.dropped.values())
    return columns, tally


def arrays(batch: RawBatch) -> Iterable[tuple[str, np.ndarray[Any, Any]]]:
    for field in fields(RawBatch):
        value = getattr(batch, field.name)
        if isinstance(value, Side):
            assert value.bursts is None
            for part in fields(Side):
                if part.name != "bursts":
                    yield f"{field.name}.{part.name}", getattr(value, part.name)
        else:
            yield field.name, value


def one(columns: dict[str, list[Any]]) -> dict[str, Any]:
    assert len(columns["a_hi"]) == 1
    return {name: values[0] for name, values in columns.items()}


def malformed(tally: Tally) -> int:
    return tally.dropped[Reason.MALFORMED_ROW.label]


def test_a_record_of_both_sides(save: Save) -> None:
    record = one(read(save(text_log([row()])))[0])
    start = 1_672_843_056_941_541
    assert record["a_hi"] == record["b_hi"] == 0
    assert record["a_lo"] == 0xFFFF_CB00_7107
    assert record["b_lo"] == 0xFFFF_C000_0201
    assert (record["a_port"], record["b_port"], record["protocol"]) == (55548, 443, 6)
    assert (record["tunnel"], record["sampling_rate"]) == (0, 1)
    assert (record["a.packets"], record["a.bytes"], record["a.payload_bytes"]) == (10, 1131, 719)
    assert (record["b.packets"], record["b.bytes"], record["b.payload_bytes"]) == (4, 508, 336)
    assert (record["a.min_bytes"], record["a.max_bytes"]) == (UNKNOWN, UNKNOWN)
    assert record["a.tcp_flags"] == record["b.tcp_flags"] == 0x1B
    assert (record["a.first"], record["b.first"]) == (start, start + 1)
    assert record["a.last"] == record["b.last"] == start + 2_500_001


def test_sides_that_sent_nothing(save: Save) -> None:
    lonely = row(history="S", resp_pkts="0", resp_ip_bytes="0", resp_bytes="-", duration="-")
    record = one(read(save(text_log([lonely])))[0])
    assert (record["b.first"], record["b.last"]) == (NEVER, NEVER)
    assert (record["b.packets"], record["b.bytes"], record["b.payload_bytes"]) == (0, 0, 0)
    assert (record["a.tcp_flags"], record["b.tcp_flags"]) == (0x02, 0)
    assert record["a.first"] == record["a.last"]


def test_a_connection_without_counted_packets_keeps_its_time(save: Save) -> None:
    ghost = row(history="C", conn_state="OTH", orig_pkts="0", resp_pkts="0", duration="-")
    record = one(read(save(text_log([ghost])))[0])
    assert record["a.first"] == record["a.last"] == 1_672_843_056_941_541
    assert (record["a.packets"], record["b.first"]) == (0, NEVER)


def test_unset_counters_are_unknown(save: Save) -> None:
    names = [n for n in FIELDS if "pkts" not in n and "ip_bytes" not in n]
    columns, _ = read(save(text_log([row(), row(resp_bytes="0", history="S")], names)))
    assert columns["a.packets"] == columns["a.bytes"] == [UNKNOWN] * 2
    assert columns["a.payload_bytes"] == [719, 719]
    assert columns["b.last"] == [1_672_843_059_441_542, NEVER]


@pytest.mark.parametrize(
    ("changes", "a_flags", "b_flags"),
    [
        ({"history": "^hADR"}, 0x1C, 0x12),
        ({"history": "Sr"}, 0x02, 0x04),
        ({"history": "ShXTtCcGgWwIiQq"}, 0x02, 0x12),
        ({"history": "-", "conn_state": "REJ"}, 0x02, 0x14),
        ({"history": "-", "conn_state": "OTH"}, UNKNOWN, UNKNOWN),
        ({"history": "Dd", "proto": "udp"}, 0, 0),
    ],
)
def test_flags(save: Save, changes: dict[str, str], a_flags: int, b_flags: int) -> None:
    record = one(read(save(text_log([row(**changes)])))[0])
    assert (record["a.tcp_flags"], record["b.tcp_flags"]) == (a_flags, b_flags)


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"proto": "unknown_transport"}, 0),
        ({"proto": "icmp"}, 1),
        ({"proto": "icmp", "id_orig_h": "2001:db8::1", "id_resp_h": "2001:db8::2"}, 58),
        ({"proto": "udp"}, 17),
        ({"proto": "sctp"}, 132),
    ],
)
def test_protocols(save: Save, changes: dict[str, str], number: int) -> None:
    assert one(read(save(text_log([row(**changes)])))[0])["protocol"] == number


def test_ip_proto_names_what_zeek_does_not(save: Save) -> None:
    values = row(proto="unknown_transport") | {"ip_proto": "47"}
    assert one(read(save(text_log([values], [*FIELDS, "ip_proto"])))[0])["protocol"] == 47


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0.0", 0),
        ("1672843056.941541", 1_672_843_056_941_541),
        ("1672843056.9", 1_672_843_056_900_000),
        ("1672843056", 1_672_843_056_000_000),
        ("1672843056.9415414", 1_672_843_056_941_541),
        ("1672843056.9415415", 1_672_843_056_941_542),
        ("1672843056.9999999", 1_672_843_057_000_000),
        ("1672843056941", 1_672_843_056_941_000),
        ("1672843056941.541", 1_672_843_056_941_541),
        ("1.672843056e9", 1_672_843_056_000_000),
        ("2023-01-04T14:37:36.941541Z", 1_672_843_056_941_541),
        ("2023-01-04T23:37:36.941541+09:00", 1_672_843_056_941_541),
    ],
)
def test_times_are_read_exactly(save: Save, text: str, micros: int) -> None:
    assert one(read(save(text_log([row(ts=text)])))[0])["a.first"] == micros


@pytest.mark.parametrize(
    "changes",
    [
        {"ts": "-"},
        {"ts": "nan"},
        {"ts": "-5.0"},
        {"ts": "yesterday"},
        {"ts": "99999999999999999999"},
        {"duration": "-1.0"},
        {"duration": "2023-01-04T14:37:36Z"},
        {"id_orig_p": "70000"},
        {"id_resp_p": "-"},
        {"proto": "-"},
        {"proto": "carrier pigeon"},
        {"orig_pkts": "ten"},
        {"orig_ip_bytes": "1.5"},
        {"resp_bytes": "18446744073709551615"},
    ],
)
def test_fields_that_do_not_parse(save: Save, changes: dict[str, str]) -> None:
    columns, tally = read(save(text_log([row(), row(**changes), row()])))
    assert len(columns["a_hi"]) == 2
    assert (tally.read, malformed(tally)) == (3, 1)
    assert sum(tally.dropped.values()) == 1


@pytest.mark.parametrize("text", ["-", "", "host.example", "1.2.3", "1.2.3.256", "::1::", "1:2"])
def test_lines_without_an_address(save: Save, text: str) -> None:
    columns, tally = read(save(text_log([row(id_resp_h=text), row()])))
    assert len(columns["a_hi"]) == 1
    assert dict(tally.dropped) == {Reason.NO_ADDRESS.label: 1}


@given(
    st.one_of(
        st.ip_addresses().map(str),
        st.ip_addresses(v=6).map(lambda a: a.exploded.upper()),
        st.text(alphabet="01289afAFg.:%`@", max_size=20),
        st.lists(st.sampled_from(["", "0", "1", "ffff", "12345", "1.2.3.4"]), max_size=10).map(
            ":".join
        ),
    )
)
def test_addresses_are_read_as_python_reads_them(text: str) -> None:
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    column = texts.Texts(data, np.array([0]), np.array([len(data)]))
    hi, lo, known = numbers.addresses(column)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        assert not known[0]
        return
    mapped = 0xFFFF_0000_0000 if address.version == 4 else 0
    assert known[0]
    assert (int(hi[0]) << 64) + int(lo[0]) == int(address) + mapped


def test_json_holds_the_same_records(save: Save) -> None:
    expected = read(save(text_log()))[0]
    flat = [json_row(r) for r in ROWS]
    under = [{n.replace("id.", "id_"): v for n, v in r.items()} for r in flat]
    nested = [
        {n: v for n, v in r.items() if not n.startswith("id.")}
        | {"id": {n[3:]: v for n, v in r.items() if n.startswith("id.")}}
        for r in flat
    ]
    dated = [r | {"_path": "conn", "ts": iso(r["ts"])} for r in flat]
    for rows in (flat, under, nested, dated):
        source = save(json_log(rows))
        assert zeek.READER.recognises(source.head, NO_SESSION)
        assert read(source)[0] == expected


def iso(seconds: float) -> str:
    whole, micros = divmod(round(seconds * 1e6), 1_000_000)
    return f"{np.datetime64(whole, 's')}.{micros:06d}Z"


def test_broken_json_lines_are_counted_and_the_others_read(save: Save) -> None:
    good = json_row(row())
    bad = [
        b'{"ts":1672843056.9,"id.orig_h":"203.0.113.7"',
        b"junk",
        b"[1, 2]",
        b'"text"',
        b"[" * 5000,
        b'{"ts":1}',
        json_log([good | {"ts": None}]).strip(),
        json_log([good | {"ts": [1]}]).strip(),
        json_log([good | {"proto": {"a": 1}}]).strip(),
        json_log([good | {"orig_pkts": True}]).strip(),
    ]
    lines = json_log([good]) + b"\n".join(bad) + b"\n\n" + json_log([good | {"id.orig_h": None}])
    columns, tally = read(save(lines + json_log([good])))
    assert len(columns["a_hi"]) == 2
    assert dict(tally.dropped) == {
        Reason.MALFORMED_ROW.label: len(bad) - 1,
        Reason.NO_ADDRESS.label: 1,
        Reason.NOT_A_RECORD.label: 1,  # with a time alone
    }


def test_lines_of_other_logs_without_a_path_are_no_records(save: Save) -> None:
    good = json_row(row())
    ends = {name: good[name] for name in ("ts", "uid", *FIELDS) if name.startswith(("id", "ts"))}
    others = [
        ends | {"proto": "udp", "trans_id": 4242, "qtype_name": "A"},
        ends | {"method": "GET", "request_body_len": 0},
        ends | {"established": True},
        {"ts": good["ts"], "peer": "zeek", "metric_type": "gauge", "value": 0},
    ]
    bare = {name: good[name] for name in (*ends, "proto")}  # a conn log of few fields
    for log in ([good, *others], [*others, good], [good] * 3000 + others, [bare, *others]):
        columns, tally = read(save(json_log(log)))
        assert len(columns["a_hi"]) == len(log) - len(others)
        assert dict(tally.dropped) == {Reason.NOT_A_RECORD.label: len(others)}
    with pytest.raises(SourceError, match="This is a Zeek dns log"):
        read(save(json_log(others[:1])))


def test_json_of_any_layout_is_read(save: Save) -> None:
    rows = [json_row(r) for r in ROWS]
    expected = read(save(json_log(rows)))[0]
    nested = [r | {"id": {k: r[f"id.{k}"] for k in ("orig_h", "orig_p", "resp_h", "resp_p")}}
              for r in rows]  # fmt: skip
    spread = "\n".join(json.dumps(r, indent=2) for r in nested)
    lines = ",\n".join(json.dumps(r) for r in rows)
    for text in (json.dumps(rows), json.dumps(nested, indent=2), spread, f"[{lines}]"):
        assert read(save(text.encode()))[0] == expected
    with pytest.raises(SourceError, match="lacks the fields proto"):
        read(save(json.dumps([{k: v for k, v in rows[0].items() if k != "proto"}]).encode()))


def test_fields_in_any_order(save: Save) -> None:
    assert read(save(text_log(names=FIELDS[::-1])))[0] == read(save(text_log()))[0]


def test_other_separators(save: Save) -> None:
    for separator in ("\x01", "|", ",", " "):
        log = text_log(separator=separator)
        assert read(save(log))[0] == read(save(text_log()))[0]


def test_windows_line_ends_blank_lines_and_a_mark_of_byte_order(save: Save) -> None:
    log = b"\xef\xbb\xbf" + text_log().replace(b"\n", b"\r\n").replace(b"ssl", b"\xff\xfe")
    source = save(log.replace(b"\r\n#close", b"\r\n\r\n\r\n#close"))
    assert zeek.READER.recognises(source.head, NO_SESSION)
    columns, tally = read(source)
    assert columns == read(save(text_log()))[0]
    assert not tally.dropped


def test_rotated_logs_in_one_file(save: Save) -> None:
    fewer = [n for n in FIELDS[::-1] if n != "history"]
    columns, tally = read(save(text_log() + text_log(names=fewer) + text_log(separator="|")))
    assert tally.read == len(columns["a_hi"]) == 3 * len(ROWS)
    assert sorted(columns["a.bytes"]) == sorted(read(save(text_log()))[0]["a.bytes"] * 3)


def test_a_header_that_lost_its_hash(save: Save) -> None:
    unset = [{n: "" if v in ("-", "(empty)") else v for n, v in r.items()} for r in ROWS]
    decimals = [r | {"orig_bytes": r["orig_bytes"] and r["orig_bytes"] + ".0"} for r in unset]
    plain = b"\n".join("\t".join(r[n] for n in FIELDS).encode() for r in decimals) + b"\n"
    header = "\t".join(FIELDS).encode() + b"\n"
    source = save(header + plain + header + plain)
    assert zeek.READER.recognises(source.head, NO_SESSION)
    columns, tally = read(source)
    expected = read(save(text_log()))[0]
    assert columns == {name: values * 2 for name, values in expected.items()}
    assert not tally.dropped


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ("label\tdetailedlabel", "Malicious-Canary\tC&C-Canary"),
        ("label   detailed-label", "Malicious-Canary   C&C-Canary"),
        ("label   detailed-label", "Malicious-Canary\tC&C-Canary"),
    ],
)
def test_labels_are_not_passed_on(save: Save, names: str, values: str) -> None:
    lines = text_log().decode().splitlines()
    labelled = [
        f"{line}\t{names}" if line.startswith("#fields") else
        line if line.startswith("#") else f"{line}\t{values}"
        for line in lines
    ]  # fmt: skip
    columns, tally = read(save("\n".join([*labelled, ""]).encode()))
    assert columns == read(save(text_log()))[0]
    assert not tally.dropped
    assert "Canary" not in repr(columns)


def test_a_last_line_cut_short(save: Save) -> None:
    log = text_log().partition(b"\n#close")[0]
    columns, tally = read(save(log[:-70]))
    assert (len(columns["a_hi"]), malformed(tally)) == (len(ROWS) - 1, 1)
    columns, tally = read(save(log))
    assert (len(columns["a_hi"]), malformed(tally)) == (len(ROWS), 0)


def test_a_broken_gzip_stream_is_stated(save: Save) -> None:
    columns, tally = read(save(gzip.compress(text_log(ROWS * 200))[:-400]))
    assert tally.damage is not None
    assert len(columns["a_hi"]) > 0


def test_lines_with_too_many_fields(save: Save) -> None:
    glued = text_log([row(tunnel_parents="-\tmore"), row()])
    assert malformed(read(save(glued))[1]) == 1


def test_chunks_and_long_lines(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = read(save(text_log(ROWS * 20)))
    lines, _ = read(save(json_log([json_row(r) for r in ROWS * 20])))
    monkeypatch.setattr(texts, "CHUNK", 1000)
    assert read(save(text_log(ROWS * 20)))[0] == whole
    assert read(save(json_log([json_row(r) for r in ROWS * 20])))[0] == lines == whole
    log = text_log(ROWS * 20).replace(b"ssl", b"x" * 5000, 2)
    columns, tally = read(save(log))
    assert (len(columns["a_hi"]), malformed(tally)) == (20 * len(ROWS) - 2, 2)


def snapshots(connections: int, times: int) -> list[dict[str, str]]:
    """Snapshots of connections that send ten packets between any two."""
    return [
        row(id_orig_p=str(1000 + port), orig_pkts=str(10 * time), duration=f"{time}.5")
        for time in range(1, times + 1)
        for port in range(connections)
    ]


def open_logs(rows: list[dict[str, str]]) -> list[bytes]:
    return [
        text_log(rows, path="open_conn"),
        text_log(rows, path="conn_long"),
        json_log([json_row(r) | {"_path": "open_conn", "_write_ts": r["ts"]} for r in rows]),
    ]


def test_the_last_snapshot_of_a_connection_counts(save: Save) -> None:
    for content in open_logs(snapshots(30, 4)):
        columns, tally = read(save(content))
        assert columns["a.packets"] == [40] * 30
        assert columns["a.last"] == [1_672_843_056_941_541 + 4_500_000] * 30
        assert sorted(columns["a_port"]) == list(range(1000, 1030))
        assert dict(tally.dropped) == {Reason.SUPERSEDED.label: 90}


@pytest.mark.parametrize("large", [False, True])
def test_many_snapshots_are_read_in_shares(
    save: Save, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr("telemetry.readers.source.LARGE", 0)
    rows = [*snapshots(300, 2), row(orig_pkts="1.5"), row(id_orig_h="none")]
    contents = open_logs(rows)
    whole = [sorted(read(save(content))[0]["a_port"]) for content in contents]
    monkeypatch.setattr(zeek, "_MAX_CONNECTIONS", 50)
    monkeypatch.setattr(zeek, "_SETTLE", 60)
    monkeypatch.setattr(texts, "CHUNK", 3000)
    for content, ports in zip(contents, whole, strict=True):
        columns, tally = read(save(gzip.compress(content) if large else content))
        assert sorted(columns["a_port"]) == ports == list(range(1000, 1300))
        assert dict(tally.dropped) == {
            Reason.SUPERSEDED.label: 300,
            Reason.MALFORMED_ROW.label: 1,
            Reason.NO_ADDRESS.label: 1,
        }


def test_too_many_snapshots_in_a_pipe(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeek, "_MAX_CONNECTIONS", 50)
    monkeypatch.setattr(zeek, "_SETTLE", 60)
    source = save(text_log(snapshots(300, 1), path="open_conn"))
    source.is_pipe = True
    with pytest.raises(SourceError, match="give a file"):
        read(source)


def test_snapshots_among_connections_are_refused(save: Save) -> None:
    first = text_log(ROWS * 200)
    for content in (
        first * 4 + text_log(path="open_conn"),
        json_log([json_row(row())] * 400 + [json_row(row()) | {"_path": "open_conn"}]),
    ):
        with pytest.raises(SourceError, match="mixes connections and snapshots"):
            read(save(content))


@pytest.mark.parametrize("log", ["dns", "http", "ssl", "ssh"])
def test_other_logs_are_refused_by_name(save: Save, log: str) -> None:
    as_json = json_log([json_row(row()) | {"_path": log}])
    for content in (text_log(path=log), as_json):
        source = save(content)
        assert zeek.READER.recognises(source.head, NO_SESSION)
        with pytest.raises(SourceError, match=f"This is a Zeek {log} log; only conn logs hold"):
            read(source)


def test_names_of_unknown_logs_stay_out_of_errors(save: Save) -> None:
    with pytest.raises(SourceError) as error:
        read(save(text_log(path="canary")))
    assert "canary" not in str(error.value)


def test_missing_fields_are_named(save: Save) -> None:
    names = [n for n in FIELDS if n not in ("id.resp_h", "proto")]
    with pytest.raises(SourceError, match=r"lacks the fields id\.resp_h, proto;"):
        read(save(text_log(names=names)))
    rows = [{n: v for n, v in json_row(r).items() if n in names} for r in ROWS]
    with pytest.raises(SourceError, match=r"lacks the fields id\.resp_h, proto;"):
        read(save(json_log(rows)))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\n" * 60_000,
        b"{" * 60_000,
        b"\xd4\xc3\xb2\xa1" + bytes(100),
        b"StartTime,Dur,Proto,SrcAddr,Sport\n",
        b'{"timestamp":"2021-06-01T00:00:00","event_type":"flow","src_ip":"203.0.113.7"}\n',
        b"2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 20641 22 6 20\n",
    ],
)
def test_other_formats_are_not_recognised(head: bytes) -> None:
    assert not zeek.READER.recognises(head, NO_SESSION)


SAMPLES = [text_log(), text_log() + text_log(names=FIELDS[::-1]), json_log(map(json_row, ROWS))]


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_input_gives_records_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    sample = data.draw(st.sampled_from(SAMPLES))
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(sample))] * 2)))
    junk = st.one_of(
        st.binary(max_size=200),
        st.text(alphabet='#\t\n\r{}",:.-0', max_size=60).map(str.encode),
        st.sampled_from([b"#fields\t", b"#separator ", b"#path\tconn\n", b"\x00", b"\xff\n", b""]),
    )
    content = sample[:start] + data.draw(junk) + sample[end:] + data.draw(junk)
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content or b"\n")
    source = open_source(str(path))
    zeek.READER.recognises(source.head, NO_SESSION)
    try:
        read(source)  # asserts that read = rows + dropped
    except SourceError as error:
        assert "203.0.113.7" not in str(error)
    finally:
        source.close()


def logs_of(corpus: Path) -> list[Path]:
    found = [*corpus.glob("attacks/**/*.log*"), *corpus.glob("records/*/*.log*")]
    return sorted(p for p in found if "aws" not in p.as_posix())


def test_every_log_of_the_corpus_is_read_or_refused_by_name(corpus: Path) -> None:
    read_logs = 0
    for path in logs_of(corpus):
        source = open_source(str(path))
        assert zeek.READER.recognises(source.head, NO_SESSION), path
        if "conn" not in path.name:
            with pytest.raises(SourceError, match=r"This is a Zeek \w+ log; only conn"):
                read(source)
            continue
        columns, tally = read(source)
        assert tally.read == data_lines(path), path
        assert len(columns["a_hi"]) == tally.read - ("truncated" in path.name), path
        read_logs += 1
    assert read_logs >= 40


def data_lines(path: Path) -> int:
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    lines = [line for line in io.BytesIO(content) if line.strip() and not line.startswith(b"#")]
    return len(lines) - lines[0].startswith(b"ts\t")


def test_its_first_time_is_told() -> None:
    later = row(ts="1672843057.0")
    for log in (text_log([later, row(), later]), text_log([later, row(), row()])):
        assert zeek.READER.starts(log[:-100]) == 1_672_843_056_941_541
    assert zeek.READER.starts(json_log([json_row(later)])) == 1_672_843_057_000_000
    assert zeek.READER.starts(text_log([])) is None


def test_a_stream_of_all_logs_gives_its_connections_and_counts_the_rest(save: Save) -> None:
    conn, dns, weird = (json_row(row()) | {"_path": path} for path in ("conn", "dns", "weird"))
    columns, tally = read(save(json_log([dns, conn, weird, conn, dns])))
    assert len(columns["a_hi"]) == 2
    assert (tally.read, dict(tally.dropped)) == (5, {"not_a_record": 3})
