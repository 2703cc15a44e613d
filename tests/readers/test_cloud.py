"""Flow logs of clouds: what each field means, and what is no record."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from capture_kit import border
from rows_kit import Row, records_of

from telemetry.errors import SourceError
from telemetry.readers import Session, all_readers, azure_flow
from telemetry.readers.contract import Dated

US = 1_000_000
START = 1_772_323_200
DEFAULT = (
    "2 123456789010 eni-0a {src} {dst} 443 50000 6 {packets} {octets} {start} {end} {action} OK"
)


def aws_line(**changes: Any) -> str:
    values = {
        "src": "8.8.8.8", "dst": "133.11.0.1", "packets": 20, "octets": 4249, "start": START,
        "end": START + 59, "action": "ACCEPT",
    }  # fmt: skip
    return DEFAULT.format(**values | changes) + "\n"


def aws(text: str) -> tuple[list[Row], Counter[str]]:
    rows, tally = records_of(text.encode(), "aws_vpc")
    return rows, tally.dropped


def test_the_default_format_of_aws_needs_no_header() -> None:
    (row,), _ = aws(aws_line())
    assert (row["a_packets"], row["a_bytes"], row["a_tcp_flags"]) == (20, 4249, None)
    assert (row["a_first"], row["a_last"]) == (START * US, (START + 59) * US)
    assert (row["protocol"], row["a_port"], row["b_port"]) == (6, 443, 50000)
    assert (row["b_packets"], row["active_timeout"]) == (None, 600)


def test_what_aws_rejected_had_no_answer() -> None:
    (row,), _ = aws(aws_line(action="REJECT"))
    assert (row["b_packets"], row["b_bytes"], row["b_first"]) == (0, 0, None)


def test_lines_without_data_are_no_records() -> None:
    none = f"2 123456789010 eni-0a - - - - - - - {START} {START} - NODATA\n"
    rows, dropped = aws(aws_line() + none + none.replace("NODATA", "SKIPDATA"))
    assert (len(rows), dropped) == (1, Counter(not_a_record=2))


def test_the_corpus_sample_of_aws(corpus: Path) -> None:
    text = (corpus / "records" / "aws-vpc" / "vpc-v2-samples.log").read_text()
    rows, dropped = aws(text)
    assert (len(rows), dropped) == (5, Counter(not_a_record=2))
    assert sum(row["a_packets"] for row in rows) == 54 + 20 + 20 + 4 + 4
    assert sum(row["a_bytes"] for row in rows) == 8855 + 4249 + 4249 + 336 + 336


OWN = "srcaddr dstaddr srcport dstport protocol packets bytes start end tcp-flags action log-status"


@pytest.mark.parametrize(
    ("flags", "packets", "action", "known"),
    [
        ("2", 1, "ACCEPT", 2),  # a SYN alone
        ("2", 9, "ACCEPT", None),  # acknowledgements are not told
        ("3", 9, "ACCEPT", None),
        ("2", 3, "REJECT", 2),
        ("18", 9, "ACCEPT", 18),
        ("19", 9, "ACCEPT", 19),
        ("4", 1, "ACCEPT", 4),
        ("0", 9, "ACCEPT", None),
        ("-", 9, "ACCEPT", None),
    ],
)
def test_flags_of_aws_are_known_where_they_do_not_mislead(
    flags: str, packets: int, action: str, known: int | None
) -> None:
    line = f"8.8.8.8 133.11.0.1 443 5 6 {packets} 400 {START} {START} {flags} {action} OK\n"
    (row,), _ = aws(f"{OWN}\n{line}")
    assert row["a_tcp_flags"] == known


def test_headers_of_aws_in_any_order_spelling_and_shape() -> None:
    names = OWN.split()
    values = f"8.8.8.8 133.11.0.1 443 5 6 9 400 {START} {START} 19 ACCEPT OK".split()
    (plain,), _ = aws(f"{' '.join(names)}\n{' '.join(values)}\n")
    turned = f"{' '.join(reversed(names))}\r\n{' '.join(reversed(values))}\r\n"
    quoted = ",".join(f'"{name.replace("-", "_")}"' for name in names)
    commas = f"{quoted}\n" + ",".join(f'"{value}"' for value in values) + "\n"
    tabs = "\t".join(names) + "\n" + "\t".join(values) + "\n"
    as_set = " ".join(f"${{{name}}}" for name in names) + f"\n{' '.join(values)}\n"
    first = {"srcaddr": "sourceaddress", "dstaddr": "destinationaddress", "srcport": "sourceport",
             "dstport": "destinationport", "packets": "numpackets", "bytes": "numbytes",
             "start": "starttime", "end": "endtime", "log-status": "logstatus"}  # fmt: skip
    athena = " ".join(first.get(name, name) for name in names) + f"\n{' '.join(values)}\n"
    bare = f"{OWN}\n{' '.join(values)}"
    for text in (turned, commas, tabs, as_set, athena, bare, f"\n\r\n{bare}"):
        assert aws(text)[0] == [plain]
    assert aws(aws_line().replace("eni-0a", "-"))[0] == aws(aws_line())[0]
    exported = "2026-03-01T00:01:00.000Z " + aws_line()
    assert aws(exported)[0] == aws(aws_line())[0]
    repeated, dropped = aws(f"{OWN}\n{' '.join(values)}\n{OWN}\n{' '.join(values)}\n")
    assert (repeated, dropped) == ([plain] * 2, Counter(not_a_record=1))
    packet = f"pkt-{OWN}".replace(" dst", " pkt-dst", 1)
    assert aws(f"{packet}\n{' '.join(values)}\n")[0] == [plain]


def test_a_format_of_aws_without_ports_is_refused() -> None:
    with pytest.raises(SourceError, match="add them to the flow log's format"):
        aws("version srcaddr dstaddr bytes\n2 8.8.8.8 133.11.0.1 40\n")


def test_icmp_of_aws_has_no_type() -> None:
    (row,), _ = aws(aws_line().replace(" 443 50000 6 ", " 0 0 1 "))
    assert (row["protocol"], row["a_port"], row["b_port"]) == (1, 255, 255)


ENTRY = {
    "insertId": "x",
    "jsonPayload": {
        "bytes_sent": "564",
        "connection": {
            "dest_ip": "133.11.0.1",
            "dest_port": 50000,
            "protocol": 6,
            "src_ip": "8.8.8.8",
            "src_port": 443,
        },
        "end_time": "2026-03-01T00:00:10.400000999Z",
        "packets_sent": "4",
        "reporter": "DEST",
        "start_time": "2026-03-01T00:00:00.000001Z",
    },
    "logName": "projects/x/logs/compute.googleapis.com%2Fvpc_flows",
}


def test_an_entry_of_google_tells_one_side() -> None:
    (row,), _ = records_of(json.dumps(ENTRY).encode(), "gcp_vpc")
    assert (row["a_packets"], row["a_bytes"], row["b_packets"]) == (4, 564, None)
    assert (row["a_first"], row["a_last"]) == (START * US + 1, START * US + 10_400_000)
    assert (row["protocol"], row["a_port"], row["b_port"]) == (6, 443, 50000)


def test_google_in_other_shapes() -> None:
    alone = ENTRY["jsonPayload"]
    (row,), _ = records_of(json.dumps(ENTRY).encode(), "gcp_vpc")
    for data in (alone, [ENTRY], [alone]):
        assert records_of(json.dumps(data, indent=2).encode(), "gcp_vpc")[0] == [row]


def test_other_entries_are_no_records_and_broken_ones_are_malformed() -> None:
    other = {"insertId": "y", "textPayload": "x", "logName": "projects/x/logs/syslog"}
    text = "\n".join([json.dumps(ENTRY), json.dumps(other), '{"insertId":', "{}"])
    rows, tally = records_of(text.encode(), "gcp_vpc")
    assert len(rows) == 1
    assert tally.dropped == Counter(not_a_record=1, malformed_row=2)


def azure(*tuples: str, indent: int | None = None) -> bytes:
    group = {"rule": "r]", "flows": [{"mac": "000000000000", "flowTuples": list(tuples)}]}
    record = {"time": "x", "properties": {"Version": 2, "flows": [group, group]}}
    return json.dumps({"records": [record]}, indent=indent).encode()


ENDS = "133.11.0.1,8.8.8.8,59831,443"


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        pytest.param(
            f"{START},{ENDS},T,O,A",
            {"a_first": 0, "a_packets": None, "b_packets": None, "b_first": None, "protocol": 6},
            id="v1-allowed",
        ),
        pytest.param(
            f"{START},{ENDS},U,I,D",
            {"a_first": 0, "a_packets": None, "b_packets": 0, "protocol": 17},
            id="v1-denied",
        ),
        pytest.param(
            f"{START},{ENDS},T,O,A,B,,,,",
            {"a_first": 0, "a_last": 0, "a_packets": None, "b_packets": None},
            id="v2-begun",
        ),
        pytest.param(
            f"{START},{ENDS},T,O,A,C,30,16978,24,14008",
            {"a_first": -300, "a_last": 0, "a_packets": 30, "b_packets": 24, "b_bytes": 14008},
            id="v2-going-on",
        ),
        pytest.param(
            f"{START},{ENDS},T,O,A,E,15,8489,0,0",
            {"a_first": 0, "a_last": 0, "a_bytes": 8489, "b_packets": 0, "b_first": None},
            id="v2-ended",
        ),
        pytest.param(
            f"{START},{ENDS},T,I,D,B,,,,", {"a_packets": None, "b_packets": 0}, id="v2-denied"
        ),
        pytest.param(
            f"{START}000,{ENDS},6,O,B,NX,0,0,0,0",
            {"a_first": 0, "a_packets": None, "b_packets": None},
            id="network-begun",
        ),
        pytest.param(
            f"{START}250,{ENDS},17,O,E,NX_HW_NOT_SUPPORTED,3,767,2,1580",
            {"a_first": 0.25, "a_packets": 3, "b_bytes": 1580, "protocol": 17},
            id="network-ended",
        ),
        pytest.param(
            f"{START}000,{ENDS},6,I,D,NX,0,0,0,0",
            {"a_packets": None, "b_packets": 0},
            id="network-denied",
        ),
        pytest.param(
            f"{START}000,133.11.0.1,8.8.8.8,0,0,1,I,E,X,1,84,1,84",
            {"protocol": 1, "a_port": 255, "b_port": 255},
            id="network-icmp",
        ),
    ],
)
def test_each_tuple_of_azure(flow: str, expected: Row) -> None:
    rows, tally = records_of(azure(flow), "azure_flow")
    assert len(rows) == tally.read == 2 and rows[0] == rows[1]
    assert (rows[0]["active_timeout"], rows[0]["a_tcp_flags"]) in ((300, None), (300, 0))
    for name, value in expected.items():
        if name.endswith(("first", "last")) and value is not None:
            value = round((START + value) * US)
        assert rows[0][name] == value, name


FLOWS = [f"{START + n},133.11.0.1,8.8.8.{n % 250},{n},443,T,O,A,E,1,{n},2,4" for n in range(500)]


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("block", [64, 1000, 1 << 20])
def test_azure_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, indent: int | None, block: int
) -> None:
    monkeypatch.setattr(azure_flow, "_BLOCK", block)
    rows, tally = records_of(azure(*FLOWS, indent=indent), "azure_flow")
    assert Counter(row["a_bytes"] for row in rows) == Counter([*range(500)] * 2)
    assert (tally.read, tally.damage) == (1000, None)


def test_azure_cut_anywhere_loses_no_whole_tuple() -> None:
    data = azure(*FLOWS[:6])
    first = data.index(FLOWS[0].encode()) + len(FLOWS[0]) + 1  # with less it is refused
    for cut in range(first, len(data)):
        whole = sum(data[:cut].count(f'"{flow}"'.encode()) for flow in FLOWS[:6])
        rows, tally = records_of(data[:cut], "azure_flow")
        assert whole <= len(rows) <= whole + 1, cut
        assert len(rows) + tally.dropped["malformed_row"] <= whole + 1


def test_an_endless_tuple_is_given_up() -> None:
    data = azure(FLOWS[0], "x" * 3_000_000, FLOWS[1])
    rows, tally = records_of(data, "azure_flow")
    assert len(rows) >= 2
    assert tally.dropped["malformed_row"] >= 1


def test_tuples_that_fit_no_version_are_malformed() -> None:
    odd = [f"{START},{ENDS},T,O,Z,E,1,66,1,66", f"{START},{ENDS}", "", f"{START},{ENDS},6,O,Z,NX,1"]
    rows, tally = records_of(azure(*odd, FLOWS[0]), "azure_flow")
    assert len(rows) == 2
    assert tally.dropped["malformed_row"] == 6


@pytest.mark.parametrize(
    ("head", "start"),
    [
        (aws_line().encode(), START),
        (json.dumps(ENTRY).encode(), START + 1e-6),
        (azure(FLOWS[3]), START + 3),
        (azure(FLOWS[3])[:-60], START + 3),
        (f"{OWN}\n".encode(), None),
    ],
)
def test_the_time_of_the_first_record(head: bytes, start: float | None) -> None:
    session = Session(border())
    reader = next(reader for reader in all_readers() if reader.recognises(head, session))
    assert isinstance(reader, Dated)
    assert reader.starts(head) == (None if start is None else round(start * US))
