"""JSON of Suricata, GoFlow2 and pmacct: what each field means, and what is no record."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rows_kit import records_of

US = 1_000_000
START = 1_772_323_200
FLOW = {
    "timestamp": "2026-03-01T09:01:00.000000+0900",
    "event_type": "flow",
    "src_ip": "133.11.0.1",
    "src_port": 50000,
    "dest_ip": "8.8.8.8",
    "dest_port": 443,
    "proto": "TCP",
    "flow": {
        "pkts_toserver": 10,
        "pkts_toclient": 4,
        "bytes_toserver": 1271,
        "bytes_toclient": 564,
        "start": "2026-03-01T09:00:00.000001+0900",
        "end": "2026-03-01T09:00:10.400000+0900",
    },
    "tcp": {"tcp_flags": "1b", "tcp_flags_ts": "1b", "tcp_flags_tc": "12"},
}


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_a_flow_event_tells_both_sides() -> None:
    (row,), _ = records_of(lines(FLOW), "suricata")
    assert (row["a_packets"], row["a_bytes"], row["a_tcp_flags"]) == (10, 1271, 0x1B)
    assert (row["b_packets"], row["b_bytes"], row["b_tcp_flags"]) == (4, 564, 0x12)
    assert (row["a_first"], row["a_last"]) == (START * US + 1, START * US + 10_400_000)
    assert (row["protocol"], row["a_port"], row["b_port"]) == (6, 50000, 443)


def test_flags_of_a_flow_that_was_not_followed_are_unknown() -> None:
    (row,), _ = records_of(
        lines({**FLOW, "tcp": {"tcp_flags_ts": "00", "tcp_flags_tc": "02"}}), "suricata"
    )
    assert (row["a_tcp_flags"], row["b_tcp_flags"]) == (None, 2)


def test_a_netflow_event_tells_one_side() -> None:
    netflow = {**FLOW["flow"], "pkts": 7, "bytes": 700}  # type: ignore[dict-item]
    event = {**FLOW, "event_type": "netflow", "netflow": netflow}
    del event["flow"]
    (row,), _ = records_of(lines(event), "suricata")
    assert (row["a_packets"], row["a_bytes"], row["a_tcp_flags"]) == (7, 700, 0x1B)
    assert (row["b_packets"], row["b_first"]) == (None, None)
    both, tally = records_of(lines(event, FLOW, event), "suricata")
    assert len(both) == 1
    assert tally.dropped == Counter(superseded=2)


@pytest.mark.parametrize("indent", [None, 1])
def test_events_of_aws_network_firewall_are_the_same(indent: int | None) -> None:
    plain, _ = records_of(lines(FLOW), "suricata")
    held = json.dumps({"firewall_name": "f", "event": FLOW}, indent=indent).encode()
    rows, tally = records_of(held + b"\n" + held, "suricata")
    assert (rows, tally.read) == (plain * 2, 2)


def test_logstash_may_have_renamed_the_time() -> None:
    renamed = {"@timestamp" if key == "timestamp" else key: value for key, value in FLOW.items()}
    assert records_of(lines(renamed), "suricata")[0] == records_of(lines(FLOW), "suricata")[0]


def test_alerts_and_other_events_are_counted_and_go_no_further() -> None:
    alert = {**FLOW, "event_type": "alert", "alert": {"signature": "bad", "severity": 1}}
    dns = {**FLOW, "event_type": "dns", "dns": {"rrname": "example.com"}}
    rows, tally = records_of(lines(alert, dns, FLOW), "suricata")
    assert len(rows) == 1
    assert tally.dropped == Counter(alert=1, not_a_record=1)


def test_icmp_has_its_type_and_code() -> None:
    event = {**FLOW, "proto": "ICMP", "icmp_type": 3, "icmp_code": 1}
    del event["src_port"], event["dest_port"], event["tcp"]
    (row,), _ = records_of(lines(event), "suricata")
    assert (row["protocol"], row["a_port"], row["b_port"]) == (1, 3, 1)


def test_the_corpus_log_of_suricata(corpus: Path) -> None:
    path = corpus / "attacks" / "iot-suricata-2021-06" / "eve.json.gz"
    data = gzip.decompress(path.read_bytes())
    events = [json.loads(line) for line in data.splitlines()]
    kinds = Counter(event["event_type"] for event in events)
    rows, tally = records_of(data, "suricata")
    assert len(rows) == kinds["flow"] and tally.read == len(events)
    assert tally.dropped["alert"] == kinds["alert"]
    flows = [event["flow"] for event in events if event["event_type"] == "flow"]
    for name, key in (("packets", "pkts"), ("bytes", "bytes")):
        assert sum(r[f"a_{name}"] for r in rows) == sum(f[f"{key}_toserver"] for f in flows)
        assert sum(r[f"b_{name}"] for r in rows) == sum(f[f"{key}_toclient"] for f in flows)
    starts = sorted(datetime.fromisoformat(f["start"]).timestamp() for f in flows)
    first = sorted(min(r[f"{s}_first"] for s in "ab" if r[f"{s}_first"]) for r in rows)
    assert first == pytest.approx([s * US for s in starts], abs=1)


V2 = {
    "type": "IPFIX",
    "time_received_ns": (START + 60) * 10**9,
    "sampling_rate": 10,
    "sampler_address": "133.11.0.254",
    "time_flow_start_ns": START * 10**9 + 125_000_000,
    "time_flow_end_ns": START * 10**9 + 250_000_000,
    "bytes": 900,
    "packets": 12,
    "src_addr": "8.8.8.8",
    "dst_addr": "133.11.0.1",
    "proto": "TCP",
    "src_port": 443,
    "dst_port": 50000,
    "tcp_flags": 27,
}
V1 = {
    "Type": "IPFIX",
    "TimeReceived": START + 60,
    "SamplingRate": 10,
    "SamplerAddress": "133.11.0.254",
    "TimeFlowStart": START,
    "TimeFlowEnd": START,
    "TimeFlowStartMs": START * 1000 + 125,
    "TimeFlowEndMs": START * 1000 + 250,
    "Bytes": 900,
    "Packets": 12,
    "SrcAddr": "8.8.8.8",
    "DstAddr": "133.11.0.1",
    "Proto": 6,
    "SrcPort": 443,
    "DstPort": 50000,
    "TcpFlags": 27,
}


def test_both_spellings_of_goflow2_are_one() -> None:
    (new,), _ = records_of(lines(V2), "goflow2")
    (old,), _ = records_of(lines(V1), "goflow2")
    assert new == old
    assert (new["a_packets"], new["a_bytes"], new["a_tcp_flags"]) == (12, 900, 27)
    assert (new["a_first"], new["a_last"]) == (START * US + 125_000, START * US + 250_000)
    assert (new["sampling_rate"], new["b_packets"], new["b_first"]) == (10, None, None)


@pytest.mark.parametrize(
    ("message", "micros"),
    [
        pytest.param({**V1, "TimeFlowStartMs": 0, "TimeFlowEndMs": 0}, START * US, id="seconds"),
        pytest.param(
            {**V2, "time_flow_start_ns": 0, "time_flow_end_ns": 0}, (START + 60) * US, id="received"
        ),
        pytest.param(
            {
                **V2,
                "time_flow_start_ns": 0,
                "time_flow_end_ns": 0,
                "time_received_ns": "2026-03-01T00:00:01.000002999Z",
            },
            (START + 1) * US + 2,
            id="received-as-date",
        ),
    ],
)
def test_a_time_of_zero_is_none(message: dict[str, Any], micros: int) -> None:
    (row,), _ = records_of(lines(message), "goflow2")
    assert row["a_first"] == micros


def test_a_message_without_any_time_is_malformed() -> None:
    bare = {k: v for k, v in V2.items() if not k.startswith("time_")}
    rows, tally = records_of(lines(bare, V2), "goflow2")
    assert len(rows) == 1
    assert tally.dropped == Counter(malformed_row=1)


PURGE = {
    "event_type": "purge",
    "ip_src": "8.8.8.8",
    "ip_dst": "133.11.0.1",
    "port_src": 443,
    "port_dst": 50000,
    "tcp_flags": "27",
    "ip_proto": "tcp",
    "packets": 12,
    "bytes": 900,
}


def test_pmacct_keeps_times_of_flows_or_bins() -> None:
    flow = {"timestamp_start": "2026-03-01 00:00:00.000125", "timestamp_end": f"{START + 2}.5"}
    bins = {"stamp_inserted": "2026-03-01 00:00:00", "stamp_updated": "2026-03-01T00:01:01Z"}
    rows, _ = records_of(lines({**PURGE, **bins, **flow}, {**PURGE, **bins}), "pmacct")
    assert [(row["a_first"], row["a_last"]) for row in rows] == [
        (START * US + 125, START * US + 2_500_000),
        (START * US, (START + 61) * US),
    ]
    assert (rows[0]["a_packets"], rows[0]["a_tcp_flags"], rows[0]["b_packets"]) == (12, 27, None)


@pytest.mark.parametrize("zero", ["0000-00-00 00:00:00.000000", "0000-00-00T00:00:00-00:00"])
def test_pmacct_tells_no_time_by_a_year_0(zero: str) -> None:
    told = {**PURGE, "timestamp_start": f"{START}.5", "timestamp_end": f"{START + 2}.5"}
    rows, tally = records_of(
        lines(
            {**told, "timestamp_end": zero},
            {**told, "timestamp_start": zero},
            {**told, "timestamp_start": zero, "timestamp_end": zero},
        ),
        "pmacct",
    )
    assert [(row["a_first"], row["a_last"]) for row in rows] == [
        (START * US + 500_000, START * US + 500_000),
        (START * US + 2_500_000, START * US + 2_500_000),
    ]
    assert tally.dropped == Counter(malformed_row=1)


@pytest.mark.parametrize(
    ("port", "type_and_code"), [(2048, (8, 0)), (771, (3, 3)), (0, (255, 255))]
)
def test_the_port_of_icmp_is_type_and_code(port: int, type_and_code: tuple[int, int]) -> None:
    bare = {**PURGE, "ip_proto": "icmp", "port_src": 0, "port_dst": port}
    v5 = {**V2, "type": "NETFLOW_V5", "proto": "ICMP", "src_port": 0, "dst_port": port}
    for row, name in (
        ({**bare, "stamp_inserted": str(START)}, "pmacct"),
        ({**v5, "icmp_type": 0, "icmp_code": 0}, "goflow2"),
    ):
        (read,), _ = records_of(lines(row), name)
        assert (read["a_port"], read["b_port"]) == type_and_code


def test_goflow2_tells_the_types_of_icmp_that_it_knows() -> None:
    icmp = {**V2, "proto": "ICMP", "src_port": 0, "dst_port": 0, "icmp_code": 0}
    rows, _ = records_of(
        lines({**icmp, "icmp_type": 11}, {**icmp, "type": "SFLOW_5", "icmp_type": 0}), "goflow2"
    )
    assert [(row["a_port"], row["b_port"]) for row in rows] == [(11, 0), (8, 0)]


def test_the_ends_of_a_purge_are_no_records() -> None:
    flow = {**PURGE, "stamp_inserted": str(START), "stamp_updated": str(START)}
    rows, tally = records_of(
        lines({"event_type": "purge_init"}, flow, {"event_type": "purge_close"}), "pmacct"
    )
    assert len(rows) == 1
    assert tally.dropped == Counter(not_a_record=2)


@pytest.mark.parametrize(
    ("name", "row"),
    [("suricata", FLOW), ("goflow2", V2), ("pmacct", {**PURGE, "stamp_inserted": str(START)})],
)
def test_broken_lines_and_arrays(name: str, row: dict[str, Any]) -> None:
    data = lines(row) + b'{"broken"\n\n' + lines(row) + b"[1]\n" + lines(row)[:-5]
    rows, tally = records_of(data, name)
    assert len(rows) == 2
    assert tally.dropped == Counter(malformed_row=3)
    rows, tally = records_of(json.dumps([row, row], indent=1).encode(), name)
    assert (len(rows), tally.read) == (2, 2)
