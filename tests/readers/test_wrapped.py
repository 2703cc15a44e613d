"""Records inside another log's lines: what a shipper or syslog put around them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from capture_kit import border
from rows_kit import records_of

from telemetry.errors import SourceError
from telemetry.readers import Session, in_time_order, places

FLOW = {
    "timestamp": "2026-03-01T00:01:00.000000+0000", "event_type": "flow", "src_ip": "8.8.8.8",
    "src_port": 40000, "dest_ip": "133.11.0.1", "dest_port": 443, "proto": "TCP",
    "flow": {"pkts_toserver": 5, "pkts_toclient": 4, "bytes_toserver": 500, "bytes_toclient": 400,
             "start": "2026-03-01T00:00:00.000000+0000", "end": "2026-03-01T00:00:09.000000+0000"},
}  # fmt: skip
CONN = {
    "ts": 1772323200.5, "uid": "C1", "id.orig_h": "8.8.8.8", "id.orig_p": 40000,
    "id.resp_h": "133.11.0.1", "id.resp_p": 443, "proto": "tcp", "conn_state": "SF",
}  # fmt: skip
AWS = "2 1 eni-0a 8.8.8.8 133.11.0.1 443 50000 6 20 4249 1772323200 1772323259 ACCEPT OK"


def as_text(*keys: str) -> Callable[[Any], Any]:
    """Returns what puts a record as text under keys, one inside the other."""

    def wrap(record: Any) -> Any:
        value: Any = record if isinstance(record, str) else json.dumps(record)
        for key in reversed(keys):
            value = {"@timestamp": "2026-03-01T01:00:00Z", "host": {"name": "h"}, key: value}
        return json.dumps(value)

    return wrap


def as_object(*keys: str) -> Callable[[Any], Any]:
    """Returns what puts a record as an object under keys."""

    def wrap(record: Any) -> Any:
        for key in reversed(keys):
            record = {"shipper": "x", key: record}
        return json.dumps(record)

    return wrap


def behind(header: str) -> Callable[[Any], Any]:
    """Returns what puts a header before a record."""
    return lambda record: header + json.dumps(record)


@pytest.mark.parametrize(("name", "record"), [("suricata", FLOW), ("zeek", CONN)])
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(as_text("message"), id="filebeat"),
        pytest.param(as_text("event", "original"), id="logstash"),
        pytest.param(as_text("log"), id="fluent-bit"),
        pytest.param(as_text("result", "_raw"), id="splunk"),
        pytest.param(as_object("_source"), id="elasticsearch"),
        pytest.param(as_text("_source", "message"), id="elasticsearch-text"),
        pytest.param(as_object("event"), id="network-firewall"),
        pytest.param(as_object("conn"), id="kafka"),
        pytest.param(behind("<14>1 2026-03-01T00:00:00Z sensor zeek - - - "), id="syslog"),
        pytest.param(behind("Mar  1 00:00:00 fw suricata[12]: @cee: "), id="syslog-of-old"),
        pytest.param(behind("2026-03-01T00:00:00+00:00\tsuricata\t"), id="fluentd"),
    ],
)
def test_a_wrapped_record_is_the_record(
    name: str, record: dict[str, Any], wrap: Callable[[Any], str]
) -> None:
    plain, _ = records_of(json.dumps(record).encode(), name)
    text = "\n".join(wrap(record) for _ in range(3)) + "\n"
    rows, tally = records_of(text.encode(), name)
    assert rows == plain * 3
    assert (tally.read, tally.dropped) == (3, Counter())


def test_lines_of_text_in_messages_are_read_too() -> None:
    rows, _ = records_of(as_text("message")(AWS).encode(), "aws_vpc")
    assert rows == records_of(AWS.encode(), "aws_vpc")[0]


def test_lines_that_hold_no_record_are_counted_and_others_are_not_lost() -> None:
    wrap = as_text("message")
    lines = [
        json.dumps({"shipper": "started"}),
        wrap(FLOW),
        wrap({**FLOW, "event_type": "alert"}),
        "no object at all",
        wrap(FLOW)[:-9],
        "",
        wrap(FLOW),
    ]
    rows, tally = records_of("\n".join(lines).encode(), "suricata")
    assert len(rows) == 2
    assert (tally.read, tally.dropped) == (6, Counter(not_a_record=3, alert=1))


def test_a_wrapped_log_of_many_pieces_is_read_whole() -> None:
    wrap = as_text("message")
    text = "".join(wrap({**CONN, "id.orig_p": 1024 + n % 60000}) + "\n" for n in range(30_000))
    rows, tally = records_of(text.encode(), "zeek")
    assert len(rows) == tally.read == 30_000


def test_wrapped_snapshots_of_connections_are_counted_once() -> None:
    wrap = as_object("json")
    early = {**CONN, "_path": "conn_long", "duration": 60.0}
    rows, tally = records_of(
        "\n".join(wrap(row) for row in (early, {"x": 1}, {**early, "duration": 120.0})).encode(),
        "zeek",
    )
    assert len(rows) == 1
    assert tally.dropped == Counter(superseded=1, malformed_row=1)


def test_what_holds_no_record_of_a_known_format_is_refused() -> None:
    for text in ('{"message": "all is well"}\n', '{"message": "{\\"a\\": 1}"}\n', "Mar 1 x: {}\n"):
        with pytest.raises(SourceError, match="not recognised"):
            records_of(text.encode(), "zeek")


def test_wrapped_logs_are_read_in_time_order(tmp_path: Path) -> None:
    wrap = as_text("message")
    given = []
    for name, ts in (("a", 1772323900.5), ("b", 1772323200.5)):
        (tmp_path / name).write_text(wrap({**CONN, "ts": ts}))
        given += places(str(tmp_path / name))
    found = in_time_order(given, Session(border()))
    assert [Path(place.name).name for place in found] == ["b", "a"]
