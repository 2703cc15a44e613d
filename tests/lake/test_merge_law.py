"""File cuts and order do not show: the laws of the merge."""

import tempfile
import zlib
from pathlib import Path
from random import Random
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lake_segments import NOON, SIDES, Packet, Row, in_order, key, merged, meter, rows_of, table

from telemetry.columns import BURST_US, CUT_US, IDLE_US, Layer, schema
from telemetry.errors import SourceError
from telemetry.lake import files
from telemetry.lake.files import encode_records, read_records, write_records
from telemetry.lake.merge import bucket_of, by_partition, check_times, merge_segments, ranges

# Steps that meet each limit exactly, a little before it and a little after it.
STEPS = [
    step + slack
    for step in (0, BURST_US, IDLE_US, CUT_US // 2, CUT_US)
    for slack in (-1, 0, 1)
    if step + slack >= 0
]


@st.composite
def packets(draw: st.DrawFn) -> list[tuple[Packet, int]]:
    """Packets of a few keys, each with the number of the file it is in."""
    time, found = NOON - CUT_US, []
    for _ in range(draw(st.integers(0, 30))):
        time += draw(st.sampled_from(STEPS))
        packet = Packet(
            draw(st.integers(0, 5)),
            draw(st.sampled_from(SIDES)),
            time,
            draw(st.integers(20, 1500)),
            draw(st.integers(0, 255)),
        )
        found.append((packet, draw(st.integers(0, 2))))
    return found


@given(packets(), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_a_cut_capture_gives_the_records_of_the_whole(
    found: list[tuple[Packet, int]], chance: Random
) -> None:
    chance.shuffle(found)
    cuts = [meter([p for p, file in found if file == number]) for number in range(3)]
    whole = merge_segments(table(meter([p for p, _ in found])))
    parts = [table(rows) for rows in cuts]
    assert merge_segments(pa.concat_tables(parts)).equals(whole)
    assert rows_of(whole) == in_order(meter([p for p, _ in found]))
    ahead = merge_segments(pa.concat_tables(parts[:2]))
    assert merge_segments(pa.concat_tables([parts[2], ahead])).equals(whole)


@st.composite
def segments(draw: st.DrawFn) -> Row:
    """Any segment, as logs may give them: long, with unknown counters."""
    row = key(draw(st.integers(0, 2)))
    row["first_seen"] = NOON + draw(st.sampled_from(STEPS)) + draw(st.sampled_from(STEPS))
    row["last_seen"] = row["first_seen"] + draw(st.sampled_from(STEPS))
    number = st.none() | st.integers(0, 1000)
    for side in SIDES:
        for name in ("packets", "bytes", "payload_bytes", "min_bytes", "max_bytes"):
            row[f"{side}_{name}"] = draw(number)
        row[f"{side}_tcp_flags"] = draw(st.none() | st.integers(0, 255))
        sent = draw(st.booleans())
        row[f"{side}_first"] = row["first_seen"] if sent else None
        row[f"{side}_last"] = row["last_seen"] if sent else None
        long = sent and row["last_seen"] - row["first_seen"] >= BURST_US
        bursts = long and draw(st.booleans())
        row[f"{side}_burst_starts"] = [row["first_seen"], row["last_seen"]] if bursts else None
        row[f"{side}_burst_ends"] = [row["first_seen"], row["last_seen"]] if bursts else None
    return row


@given(st.lists(segments(), max_size=9), st.integers(0, 9), st.randoms(use_true_random=False))
@settings(max_examples=120, deadline=None)
def test_any_segments_merge_like_the_reference(rows: list[Row], cut: int, chance: Random) -> None:
    whole = merge_segments(table(rows))
    assert rows_of(whole) == merged(rows)
    assert merge_segments(whole).equals(whole)
    chance.shuffle(rows)
    ahead = merge_segments(table(rows[:cut]))
    again = merge_segments(pa.concat_tables([ahead, table(rows[cut:])]))
    assert again.equals(whole)
    assert encode_records(again).equals(encode_records(whole))


def test_a_partition_holds_its_day_and_bucket_and_nothing_else() -> None:
    times = [NOON + day * 86_400_000_000 for day in (-40_000, 0, 0, 1)]  # before 1970 too
    rows = meter([Packet(k, "peer", t, 60, 2) for k in range(6) for t in times])
    parts = [(p, merge_segments(part)) for p, part in by_partition(table(rows), 4)]
    assert [p for p, _ in parts] == sorted({p for p, _ in parts})
    for (day, bucket), part in parts:
        for row in part.to_pylist():
            assert row["first_seen"].date() == day
            assert zlib.crc32(row["endpoint_addr"]) % 4 == bucket
    together = [row for _, part in parts for row in rows_of(part)]
    assert in_order(together) == in_order(rows_of(merge_segments(table(rows))))


@given(st.lists(segments(), min_size=1, max_size=12), st.integers(1, 5), st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_a_partition_merged_piece_by_piece_is_the_merged_whole(
    rows: list[Row], piece: int, cut: int
) -> None:
    cuts = [table(part) for part in (rows[:cut], rows[cut:]) if part]
    parted = [part for one in cuts for _, part in by_partition(one, 1)]
    pieces = list(ranges(parted, piece))
    whole = merge_segments(table(rows))
    assert rows_of(pa.concat_tables(pieces)) == rows_of(whole)
    with tempfile.TemporaryDirectory() as folder, patch.object(files, "ROW_GROUP", 3):
        paths = Path(folder, "pieces"), Path(folder, "whole")
        asides = write_records(pieces, paths[0], ""), write_records([whole], paths[1], "")
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert asides[0].sha256 == asides[1].sha256


def test_buckets_are_crc32_of_the_address() -> None:
    octets = np.random.default_rng(3).bytes(16 * 500)
    addresses = [octets[i : i + 16] for i in range(0, len(octets), 16)]
    expected = [zlib.crc32(address) % 16 for address in addresses]
    assert bucket_of(pa.array(addresses, pa.binary(16)), 16).tolist() == expected


def test_parquet_gives_back_what_it_was_given(tmp_path: Path) -> None:
    rows = meter(
        [
            Packet(k, s, NOON + i * 900_000, 60 + i, 18)
            for k in range(6)
            for s in SIDES
            for i in range(0, 9, k + 1)
        ]
    )
    records = merge_segments(table(rows))
    path = tmp_path / "x.parquet"
    path.write_bytes(encode_records(records))
    back = read_records(path)
    assert back.schema.equals(schema(Layer.RECORD), check_metadata=True)
    assert rows_of(back) == rows_of(records)
    assert bytes.fromhex("20010db8000000000000000000000005") in back["endpoint_addr"].to_pylist()


def test_values_of_other_rows_do_not_ride_along() -> None:
    rows = meter([Packet(k, "peer", NOON, 60, 2) for k in (0, 6)])
    both = table(rows)
    one = merge_segments(both.filter(pa.array([True, False])))
    assert one["peer_pid"].chunk(0).dictionary.to_pylist() == ["host0"]


@pytest.mark.parametrize("time", [400_000_000_000_000_000, -100_000_000_000_000_000])
def test_a_time_no_calendar_holds_is_refused(time: int) -> None:
    check_times(table(meter([Packet(0, "peer", NOON, 60, 2)])))
    check_times(table([]))
    with pytest.raises(SourceError, match="clock"):
        check_times(table(meter([Packet(0, "peer", time, 60, 2)])))
