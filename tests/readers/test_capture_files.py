"""Capture files and metering: golden cases that both decoders must meet."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_kit import (
    DOMESTIC4,
    ETHERNET,
    FOREIGN4,
    NOON,
    RAW,
    SECOND,
    TCP,
    UDP,
    Decoder,
    Interface,
    Packet,
    assert_same,
    block,
    border,
    enhanced,
    ethernet,
    ip4,
    merged,
    obsolete,
    option,
    pcap,
    read,
    rows,
    section,
    simple,
    tcp,
    udp,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.columns import BURST_US, CUT_US, IDLE_US
from telemetry.errors import SourceError
from telemetry.raw import RawBatch
from telemetry.readers.packets import capture
from telemetry.readers.packets.capture import CORRUPT_FROM_HERE, CUT_SHORT, LAST_TIME, LONGEST
from telemetry.readers.packets.meter import BATCH, FlowTable

OUT = ethernet(ip4(DOMESTIC4, FOREIGN4, UDP, udp(40000, 53, b"q" * 20)))
BACK = ethernet(ip4(FOREIGN4, DOMESTIC4, UDP, udp(53, 40000, b"r" * 200)))


def at(time: int) -> datetime:
    return datetime(1970, 1, 1) + timedelta(microseconds=time)


def only(data: bytes, decoder: Decoder) -> Any:
    """Returns the one record of a file that is whole."""
    reading = read(data, decoder=decoder.name)
    assert reading.tally.damage is None
    (row,) = rows(reading)
    return row


# Classic pcap


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("form", ["micro", "nano", "modified"])
def test_pcap_variants(decoder: Decoder, order: str, form: str) -> None:
    packets = [Packet(NOON + 123_456, OUT), Packet(NOON + 654_321, BACK, 900)]
    options = {} if form == "micro" else {form: True}
    row = only(pcap(packets, order=order, **options), decoder)
    assert (row["first_seen"], row["last_seen"]) == (at(NOON + 123_456), at(NOON + 654_321))
    assert (row["endpoint_packets"], row["peer_packets"]) == (1, 1)


def test_frame_check_sequence_bits_in_the_link_field(decoder: Decoder) -> None:
    reading = read(pcap([Packet(NOON, OUT)], link=0x24000001), decoder=decoder.name)
    assert reading.tally.linktypes == {"ethernet"}
    assert reading.tally.kept == 1


def test_pcap_cut_in_its_header(decoder: Decoder) -> None:
    with pytest.raises(SourceError, match="inside its header"):
        read(pcap([])[:23], decoder=decoder.name)
    empty = read(pcap([]), decoder=decoder.name)
    assert (empty.tally.read, empty.tally.damage) == (0, None)


def test_damaged_tails(decoder: Decoder) -> None:
    data = pcap([Packet(NOON, OUT), Packet(NOON + 1, BACK)])
    record = 16 + len(BACK)
    for size in range(len(data) - record, len(data) + 1):
        tally = read(data[:size], decoder=decoder.name).tally
        whole = size in (len(data) - record, len(data))
        assert tally.damage == (None if whole else CUT_SHORT)
        assert tally.read == (2 if size == len(data) else 1)
    absurd = data + struct.pack("<IIII", 1, 2, LONGEST + 1, 60) + b"x" * 60
    tally = read(absurd, decoder=decoder.name).tally
    assert (tally.read, tally.damage) == (2, CORRUPT_FROM_HERE)


def test_a_packet_larger_than_the_read_buffer(decoder: Decoder) -> None:
    jumbo = ethernet(ip4(DOMESTIC4, FOREIGN4, UDP, udp(40000, 53)) + b"\0" * (20 << 20))
    data = pcap([Packet(NOON, OUT), Packet(NOON + 1, jumbo), Packet(NOON + 2, BACK)])
    row = only(data, decoder)
    assert (row["peer_packets"], row["endpoint_packets"]) == (2, 1)
    assert read(data[:-70], decoder=decoder.name).tally.damage == CUT_SHORT


# Variants of classic pcap


def variant(
    magic: int,
    order: str,
    version: tuple[int, int] = (2, 4),
    extra: bytes = b"",
    swap: bool = False,
) -> bytes:
    """Makes a capture of three packets with `extra` behind each record's header."""
    scale = 1000 if magic in (0xA1B23C4D, 0x1C0001AC) else 1
    data = struct.pack(order + "IHHiIII", magic, *version, 0, 0, 65535, ETHERNET)
    if magic in (0x1C0001AC, 0x1C0001AB):
        data += struct.pack(order + "I", 12345)
    for number, frame in enumerate((OUT, BACK, OUT)):
        seconds, micro = divmod(NOON + number, SECOND)
        lengths = [len(frame), len(frame) + 7]
        if swap:
            lengths.reverse()
        data += struct.pack(order + "4I", seconds, micro * scale, *lengths) + extra + frame
    return data


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("magic", "version", "extra", "swap"),
    [
        (0x1C0001AC, (2, 4), b"", False),
        (0x1C0001AB, (2, 4), b"", False),
        (0xA1B2C3D4, (2, 2), b"", True),
        (0xA1B2C3D4, (543, 0), b"", True),
        (0xA1B2C3D4, (2, 3), b"", True),
        (0xA1B2C3D4, (2, 3), b"", False),
        (0xA1B2C3D4, (2, 4), b"\0\0\0\0\0\x08\0\0", False),
        (0xA1B2CD34, (2, 4), b"\0\0\0\0\0\x08\0\0", False),
        (0xA1B2CD34, (2, 4), b"\0\0\0\0\0\x08\0\1\2\3\4\5", False),
        (0xA1B2C3D4, (2, 4), b"nokia", False),
    ],
)
def test_variants_of_pcap(
    decoder: Decoder, order: str, magic: int, version: tuple[int, int], extra: bytes, swap: bool
) -> None:
    if extra == b"nokia":
        extra = struct.pack(order + "I", 0x9FBFB601)
    row = only(variant(magic, order, version, extra, swap), decoder)
    assert (row["first_seen"], row["last_seen"]) == (at(NOON), at(NOON + 2))
    assert (row["endpoint_packets"], row["peer_packets"]) == (1, 2)


def test_captures_of_aix(decoder: Decoder) -> None:
    data = struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 2, 0, 0, 65535, 6)
    data += struct.pack(">4I", NOON // SECOND, 5000, len(OUT), len(OUT)) + OUT
    assert only(data, decoder)["first_seen"] == at(NOON + 5)


@given(
    fraction=st.integers(0, 2**32 - 1),
    wires=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3),
)
@settings(max_examples=50, deadline=None)
def test_nonsense_in_a_record_does_not_turn_pcap_into_a_variant(
    fraction: int, wires: list[int]
) -> None:
    data = pcap([])
    for wire in wires:
        data += struct.pack("<4I", NOON // SECOND, fraction, len(OUT), wire) + OUT
    assert assert_same(data).tally.read == len(wires)


def editcap_types() -> list[str]:
    """Returns the names of the file types that editcap can write."""
    if not shutil.which("editcap"):
        return []
    listed = subprocess.run(["editcap", "-F"], capture_output=True, text=True, check=False)
    return re.findall(r"(?m)^    (\S+) - ", listed.stdout + listed.stderr)


def test_what_editcap_writes_is_read_alike_or_refused_by_name(tmp_path: Path) -> None:
    if not editcap_types():
        pytest.skip("editcap is not installed")
    packets = [Packet(NOON + i * 1000, OUT if i % 3 else BACK) for i in range(9)]
    (tmp_path / "in.pcap").write_bytes(pcap(packets))
    expected = assert_same(pcap(packets))
    was_read, was_refused = set(), set()
    for kind in editcap_types():
        made = tmp_path / kind
        command = ["editcap", "-F", kind, tmp_path / "in.pcap", made]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            continue  # it cannot hold Ethernet
        try:
            found = read(made.read_bytes())
        except SourceError as error:
            assert "which is not read; convert it with" in str(error), kind
            was_refused.add(kind)
            continue
        assert found.tally == expected.tally, kind
        assert merged([found]).equals(merged([expected])), kind
        was_read.add(kind)
    ours = {"pcap", "pcapng", "nsecpcap", "modpcap", "nokiapcap", "rh6_1pcap", "suse6_3pcap"}
    assert was_read == ours | {"snoop"}
    assert was_refused > {"netmon1", "netmon2", "ngsniffer"}


# snoop


def snoop(packets: list[bytes], link: int = 4, trailer: bytes = b"", version: int = 2) -> bytes:
    """Makes a snoop file."""
    data = b"snoop\0\0\0" + struct.pack(">II", version, link)
    for number, frame in enumerate(packets):
        padded = frame + b"\0" * (-len(frame) % 4) + trailer
        data += struct.pack(">5I", len(frame), len(frame), 24 + len(padded), 0, NOON // SECOND)
        data += struct.pack(">I", number) + padded
    return data


def test_snoop(decoder: Decoder) -> None:
    row = only(snoop([OUT, BACK, OUT]), decoder)
    assert (row["first_seen"], row["last_seen"]) == (at(NOON), at(NOON + 2))
    assert (row["endpoint_packets"], row["peer_packets"]) == (1, 2)


def test_snoop_of_surveyor_counts_links_its_own_way(decoder: Decoder) -> None:
    assert only(snoop([OUT], 12, bytes(16), version=4), decoder)["peer_packets"] == 1
    tally = read(snoop([OUT], 12), decoder=decoder.name).tally
    assert dict(tally.dropped) == {"link_type_unsupported": 1}
    assert tally.linktypes == {"snoop_12"}


def test_damaged_snoop(decoder: Decoder) -> None:
    data = snoop([OUT, BACK])
    for size in range(16 + 24 + len(OUT) + 3, len(data)):
        tally = read(data[:size], decoder=decoder.name).tally
        assert tally.read == 1
    assert tally.damage == CUT_SHORT
    for lengths in ((60, 60, 80, 0), (60, 60, LONGEST + 1, 0), (60, 2**32 - 1, 2**32 - 1, 0)):
        absurd = data + struct.pack(">4I", *lengths) + b"x" * 80
        tally = read(absurd, decoder=decoder.name).tally
        assert (tally.read, tally.damage) == (2, CORRUPT_FROM_HERE)
    for head, says in ((data[:15], "inside its header"), (snoop([], version=6), "version")):
        with pytest.raises(SourceError, match=says):
            read(head, decoder=decoder.name)


# pcapng


@pytest.mark.parametrize("order", "<>")
def test_pcapng_interfaces_have_their_own_clock_and_link(decoder: Decoder, order: str) -> None:
    interfaces = [
        Interface(ETHERNET),
        Interface(RAW, resolution=9),
        Interface(ETHERNET, resolution=0x80 | 20, offset=3600),
        Interface(ETHERNET, resolution=3, offset=-3600),
    ]
    data = section(order) + b"".join(interface.block(order) for interface in interfaces)
    for number, interface in enumerate(interfaces):
        packet = Packet(NOON, OUT[14:] if interface.link == RAW else OUT)
        data += enhanced(order, number, interface.ticks(NOON + number * SECOND), packet)
    row = only(data, decoder)
    assert row["peer_packets"] == 4
    assert (row["first_seen"], row["last_seen"]) == (at(NOON), at(NOON + 3 * SECOND))
    assert len(row["peer_burst_starts"]) == 4


@pytest.mark.parametrize("resolution", [0x80 | 44, 0x80 | 52, 0x80 | 60, 0x80 | 63, 13, 19])
def test_fine_clocks_are_read_to_the_microsecond(decoder: Decoder, resolution: int) -> None:
    interface = Interface(RAW, resolution=resolution)
    units = (2 if resolution & 0x80 else 10) ** (resolution & 0x7F)
    for micro in (1, 3, 999_999):
        ticks = -(-micro * units // SECOND)  # the first tick within the microsecond
        data = section() + interface.block("<")
        data += enhanced("<", 0, ticks, Packet(0, OUT[14:]))
        data += enhanced("<", 0, ticks - 1, Packet(0, BACK[14:]))
        row = only(data, decoder)
        assert row["peer_first"] == at(micro)
        assert row["endpoint_first"] == at(micro - 1)


def test_other_blocks_and_options_are_stepped_over(decoder: Decoder) -> None:
    comment = option("<", 1, b"\xff\xfe not UTF-8") + option("<", 0, b"")
    data = (
        section(options=comment)
        + block("<", 0x0BAD, b"x" * 13)
        + block("<", 0x40000BAD, b"\0\0\x1e\x8e" + b"x" * 40)
        + Interface().block("<")
        + block("<", 10, b"secrets")
        + enhanced("<", 0, NOON, Packet(0, OUT), comment)
        + block("<", 5, b"\0" * 12)
        + obsolete("<", 0, NOON + 5, Packet(0, BACK))
        + block("<", 4, b"")
    )
    row = only(data, decoder)
    assert (row["first_seen"], row["last_seen"]) == (at(NOON), at(NOON + 5))


@pytest.mark.parametrize("length", [-1, 0, 3, 10**12, -7])
def test_a_section_is_as_long_as_its_blocks_whatever_it_says(decoder: Decoder, length: int) -> None:
    first = block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, length))
    first += Interface().block("<") + enhanced("<", 0, NOON, Packet(0, OUT))
    assert only(first + first, decoder)["peer_packets"] == 2


@pytest.mark.timeout(60)
def test_an_interface_with_a_million_options(decoder: Decoder) -> None:
    body = struct.pack("<HHI", RAW, 0, 0) + option("<", 2, b"") * 1_000_000
    data = section() + block("<", 1, body) + enhanced("<", 0, NOON, Packet(NOON, OUT[14:]))
    assert read(data, decoder=decoder.name).tally.kept == 1


def test_an_interface_may_say_how_long_its_check_sequences_are(decoder: Decoder) -> None:
    described = struct.pack("<HHI", ETHERNET, 0, 0) + option("<", 13, b"\4") + option("<", 0, b"")
    data = section() + block("<", 1, described) + enhanced("<", 0, NOON, Packet(0, OUT + b"\0" * 4))
    assert only(data, decoder)["peer_bytes"] == 48


def test_sections_forget_interfaces_and_may_change_byte_order(decoder: Decoder) -> None:
    data = b""
    for order in "<><":
        data += section(order) + Interface(RAW).block(order)
        data += enhanced(order, 0, NOON, Packet(0, OUT[14:]))
    data += section() + enhanced("<", 0, NOON, Packet(0, OUT[14:]))
    tally = read(data, decoder=decoder.name).tally
    assert (tally.read, dict(tally.dropped)) == (4, {"link_type_unsupported": 1})


def test_simple_packets_have_no_time_and_are_counted(decoder: Decoder) -> None:
    for snaplen in (20, 0):
        data = section() + Interface(RAW, snaplen, offset=1).block("<")
        tally = read(data + simple("<", Packet(0, OUT[14:])), decoder=decoder.name).tally
        assert (tally.read, dict(tally.dropped)) == (1, {"bad_time": 1})
    headless = section() + simple("<", Packet(0, OUT[14:]))
    assert dict(read(headless, decoder=decoder.name).tally.dropped) == {"link_type_unsupported": 1}


def test_times_outside_the_calendar(decoder: Decoder) -> None:
    for interface, ticks in (
        (Interface(), LAST_TIME),
        (Interface(resolution=0), 2**64 - 1),
        (Interface(offset=-1), SECOND - 1),
        (Interface(offset=2**62), 0),
        (Interface(resolution=20), 0),
        (Interface(resolution=0xFF), 0),
    ):
        data = section() + interface.block("<") + enhanced("<", 0, ticks, Packet(0, OUT))
        assert dict(read(data, decoder=decoder.name).tally.dropped) == {"bad_time": 1}, interface
    data = section() + Interface().block("<") + enhanced("<", 0, LAST_TIME - 1, Packet(0, OUT))
    assert only(data, decoder)["last_seen"] == datetime.max


def test_corrupt_blocks_end_the_reading(decoder: Decoder) -> None:
    good = section() + Interface().block("<") + enhanced("<", 0, NOON, Packet(0, OUT))
    size = struct.pack("<I", 16)
    for tail in (
        struct.pack("<II", 0x0BAD, 18) + b"x" * 6 + struct.pack("<I", 18),
        struct.pack("<II", 0x0BAD, 8) + b"x" * 8,
        struct.pack("<II", 0x0BAD, LONGEST + 4) + b"x" * 8,
        struct.pack("<I", 0x0BAD) + size + b"xxxx" + struct.pack("<I", 20),
        block("<", 6, struct.pack("<5I", 0, 0, 0, 60, 60) + b"x" * 56),
        block("<", 6, b"x" * 16),
        block("<", 3, b""),
        block("<", 1, b"xxxx"),
        block("<", 0x0A0D0D0A, struct.pack("<I", 0x1A2B3C4E) + b"x" * 12),
    ):
        tally = read(good + tail + good, decoder=decoder.name).tally
        assert (tally.read, tally.damage) == (1, CORRUPT_FROM_HERE)
        assert read(good + tail[:7], decoder=decoder.name).tally.damage == CUT_SHORT


def test_more_interfaces_than_are_believed(decoder: Decoder) -> None:
    data = section() + Interface(RAW).block("<") * 4097
    for number in (4095, 4096, 2**32 - 1):
        data += enhanced("<", number, NOON, Packet(0, OUT[14:]))
    tally = read(data, decoder=decoder.name).tally
    assert (tally.kept, dict(tally.dropped)) == (1, {"link_type_unsupported": 2})


# Records


def spans(decoder: Decoder, times: list[int]) -> list[tuple[int, int]]:
    """Returns first and last time of each record, since NOON."""
    found = decoder.rows(*(Packet(NOON + time, OUT) for time in times))
    microsecond = timedelta(microseconds=1)
    return [
        tuple((row[name] - at(NOON)) // microsecond for name in ("first_seen", "last_seen"))
        for row in found
    ]


def test_a_silence_ends_a_record(decoder: Decoder) -> None:
    assert spans(decoder, [0, IDLE_US]) == [(0, IDLE_US)]
    assert spans(decoder, [0, IDLE_US + 1]) == [(0, 0), (IDLE_US + 1, IDLE_US + 1)]


def test_records_are_cut_at_half_hour_marks(decoder: Decoder) -> None:
    assert spans(decoder, [-1, 0, CUT_US - 1, CUT_US]) == [
        (-1, -1),
        (0, 0),
        (CUT_US - 1, CUT_US - 1),
        (CUT_US, CUT_US),
    ]


def test_a_clock_that_goes_back_joins_what_belongs_together(decoder: Decoder) -> None:
    times = [2 * IDLE_US, 0, IDLE_US, 3 * IDLE_US + 1]
    assert spans(decoder, times) == [(0, 2 * IDLE_US), (3 * IDLE_US + 1, 3 * IDLE_US + 1)]


def test_bursts_of_each_side(decoder: Decoder) -> None:
    peer = [0, BURST_US - 1, 2 * BURST_US - 1, 5 * BURST_US]
    row = decoder.row(
        *(Packet(NOON + time, OUT) for time in peer), Packet(NOON + 3 * BURST_US, BACK)
    )
    bursts = [(0, BURST_US - 1), (2 * BURST_US - 1,) * 2, (5 * BURST_US,) * 2]
    assert row["peer_burst_starts"] == [at(NOON + start) for start, _ in bursts]
    assert row["peer_burst_ends"] == [at(NOON + end) for _, end in bursts]
    assert row["endpoint_burst_starts"] is row["endpoint_burst_ends"] is None


def test_a_silent_side_has_no_sizes_and_no_times(decoder: Decoder) -> None:
    row = decoder.row(OUT, OUT)
    silent = {name: row[f"endpoint_{name}"] for name in ("packets", "bytes", "payload_bytes")}
    assert set(silent.values()) == {0}
    for name in ("min_bytes", "max_bytes", "first", "last"):
        assert row[f"endpoint_{name}"] is None


def test_counters_of_both_sides(decoder: Decoder) -> None:
    def segment(size: int, flags: int) -> bytes:
        return ethernet(ip4(FOREIGN4, DOMESTIC4, TCP, tcp(443, 40000, flags, b"x" * size)))

    row = decoder.row(segment(0, 2), segment(1000, 0x18), segment(7, 1), OUT_TCP)
    assert (row["endpoint_packets"], row["peer_packets"]) == (3, 1)
    assert (row["endpoint_bytes"], row["endpoint_payload_bytes"]) == (1127, 1007)
    assert (row["endpoint_min_bytes"], row["endpoint_max_bytes"]) == (40, 1040)
    assert (row["endpoint_tcp_flags"], row["peer_tcp_flags"]) == (0x1B, 0x10)


OUT_TCP = ethernet(ip4(DOMESTIC4, FOREIGN4, TCP, tcp(40000, 443, 0x10)))


class SmallTable(FlowTable):
    """A table that is full after two batches, and tells when it was overfilled."""

    def __init__(self, _: int) -> None:
        super().__init__(2 * BATCH)

    def drain(self) -> Iterator[RawBatch]:
        assert len(self) <= 2 * BATCH
        return super().drain()


def many_flows(flows: int, packets: int, repeat: int = 1) -> bytes:
    """Makes a capture of flows in turns, silent for two bursts between turns."""
    frames = [
        ethernet(ip4(DOMESTIC4, FOREIGN4, UDP, udp(1024 + i, 53, b"q" * (i % 7))))
        for i in range(flows)
    ]
    return pcap(
        Packet(NOON + (n // flows) * 2 * SECOND + n, frames[n // repeat % flows])
        for n in range(packets)
    )


@pytest.mark.parametrize("repeat", [1, 2, 3])
def test_a_full_table_is_emptied_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, repeat: int
) -> None:
    data = many_flows(flows=300, packets=5000, repeat=repeat)
    whole = assert_same(data)
    assert len(whole.segments) == 300
    monkeypatch.setattr(capture, "FlowTable", SmallTable)
    pieces = read(data)
    assert len(pieces.segments) > 1500
    assert merged([pieces]).equals(merged([whole]))
    assert pieces.tally == whole.tally


def test_bursts_fill_the_table_before_rows_do(monkeypatch: pytest.MonkeyPatch) -> None:
    data = many_flows(flows=1, packets=5000)
    whole = read(data)
    monkeypatch.setattr(capture, "FlowTable", SmallTable)
    pieces = read(data)
    assert len(pieces.segments) > len(whole.segments)
    assert merged([pieces]).equals(merged([whole]))


def test_no_address_outside_the_border_enters_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is dropped is dropped before the table: its rows hold foreign endpoints only."""
    tables: list[FlowTable] = []

    def keep(*args: Any) -> FlowTable:
        tables.append(FlowTable(1 << 12))
        return tables[-1]

    monkeypatch.setattr(capture, "FlowTable", keep)
    inner = ethernet(ip4(DOMESTIC4, "133.11.0.77", UDP, udp(40000, 53)))
    read(pcap([Packet(NOON, inner)] * 3))
    assert len(tables[0]) == 0
    secret = np.uint64(0xFFFF00000000 | int.from_bytes(bytes([133, 11, 0, 77]), "big"))
    # The batch keeps no address of a dropped packet either.
    assert not (tables[0]._batch == secret).any()


def test_unallowed_directions_leave_the_other_half() -> None:
    inbound = border(allowed=1)
    data = pcap([Packet(NOON, OUT), Packet(NOON + 1, BACK)])
    reading = assert_same(data, inbound)
    (row,) = rows(reading)
    assert (row["endpoint_packets"], row["peer_packets"]) == (1, 0)
    assert dict(reading.tally.dropped) == {"direction_not_allowed": 1}
