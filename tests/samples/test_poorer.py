"""Poorer views of the same records: what is gone is gone, what stays is as it was."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import stored_rows

from telemetry.columns import Layer, schema
from telemetry.samples.poorer import VIEWS


def _records() -> pa.Table:
    """Conversations of up to 4,000 packets, calls in vain, and records of one side."""
    rows = []
    for n in range(300):
        flags = "SAF" if n % 3 else "S"
        endpoint = {"ip": f"198.51.100.{n % 250}", "port": 443, "flags": "SAF", "at": n + 0.1}
        host = {"host": f"h{n % 7}", "port": 20000 + n, "flags": flags, "at": n, "until": n + 9}
        if n % 3 == 0:
            endpoint |= {"packets": 0}
        else:
            endpoint |= {"packets": 1 + 13 * n, "bytes": 900 + 9000 * n, "until": n + 8}
            host |= {"unknown": n % 5 == 0}
        rows.append({"endpoint": endpoint, "peer": host})
    return stored_rows.stored_records(rows)


RECORDS = _records()


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_keeps_the_table_and_adds_nothing(view: str) -> None:
    seen = VIEWS[view](RECORDS, np.random.default_rng(3))
    assert seen.schema.names == RECORDS.schema.names
    assert 0 < seen.num_rows <= RECORDS.num_rows
    for name in ("endpoint_packets", "peer_packets", "endpoint_bytes", "peer_bytes"):
        assert (pc.sum(seen[name]).as_py() or 0) <= pc.sum(RECORDS[name]).as_py()
    for side in ("endpoint", "peer"):
        there = seen.filter(pc.is_valid(seen[f"{side}_first"]))
        assert pc.all(pc.greater_equal(there[f"{side}_last"], there[f"{side}_first"])).as_py() in (
            True,
            None,
        )
        assert pc.all(pc.greater_equal(there[f"{side}_first"], there["first_seen"])).as_py() in (
            True,
            None,
        )
    again = VIEWS[view](RECORDS, np.random.default_rng(3))
    assert again.equals(seen)


def test_an_exporter_knows_no_payload_sizes_or_bursts() -> None:
    seen = VIEWS["as an exporter tells"](RECORDS, np.random.default_rng(3))
    for side in ("endpoint", "peer"):
        for name in ("payload_bytes", "min_bytes", "max_bytes", "burst_starts", "burst_ends"):
            assert seen[f"{side}_{name}"].null_count == RECORDS.num_rows
    for name in ("first_seen", "endpoint_packets", "peer_tcp_flags"):
        assert seen[name].equals(RECORDS[name])


def test_one_direction_tells_nothing_of_the_other() -> None:
    seen = VIEWS["only what hosts send"](RECORDS, np.random.default_rng(3))
    assert seen.num_rows == pc.sum(pc.is_valid(RECORDS["peer_first"])).as_py()
    told = [name for name in schema(Layer.RECORD).names if name.startswith("endpoint_")]
    for name in set(told) - {"endpoint_ip", "endpoint_addr", "endpoint_port"}:
        assert seen[name].null_count == seen.num_rows, name
    assert seen["first_seen"].equals(seen["peer_first"])


@pytest.mark.parametrize("rate", [10, 100])
def test_samples_are_so_many_and_keep_the_rate(rate: int) -> None:
    seen = VIEWS[f"one packet in {rate}"](RECORDS, np.random.default_rng(3))
    for name in ("endpoint_packets", "endpoint_bytes"):
        wanted = pc.sum(RECORDS[name]).as_py() / rate
        assert pc.sum(seen[name]).as_py() == pytest.approx(wanted, rel=0.1)
    assert set(seen["sampling_rate"].to_pylist()) == {rate}
    single = seen.filter(pc.equal(seen["peer_packets"], 1))
    assert single.num_rows
    assert single["peer_first"].equals(single["peer_last"])
