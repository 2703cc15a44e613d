"""The benchmark capture: exact counts, its mix, and the same bytes for a seed."""

from __future__ import annotations

import io
from collections import Counter
from hashlib import sha256
from pathlib import Path

import dpkt
import numpy as np
import pytest

from telemetry.samples import bulk, generate_packets
from telemetry.samples.plan import is_foreign


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("bulk") / "bulk.pcap"
    return generate_packets(path, packets=60_000, flows=4_000, seed=5).read_bytes()


def test_counts_mix_and_order(capture: bytes) -> None:
    flows: Counter[tuple[object, ...]] = Counter()
    times, tcp, six, domestic = [], 0, 0, 0
    for time, frame in dpkt.pcap.Reader(io.BytesIO(capture)):
        times.append(time)
        assert len(frame) <= 96
        version6 = frame[12:14] == b"\x86\xdd"
        width, at, top = (16, 22, 54) if version6 else (4, 26, 34)
        ends = [dpkt.utils.inet_to_str(frame[at + i : at + i + width]) for i in (0, width)]
        ports = [int.from_bytes(frame[top + i : top + i + 2], "big") for i in (0, 2)]
        protocol = frame[20 if version6 else 23]
        flows[(protocol, *sorted(zip(ends, ports, strict=True)))] += 1
        tcp += protocol == 6
        six += version6
        domestic += not any(is_foreign(end) for end in ends)
    assert len(times) == 60_000 and len(flows) == 4_000
    assert times == sorted(times) and times[-1] - times[0] <= 600
    assert 0.6 < tcp / 60_000 < 0.95
    assert 0.03 < six / 60_000 < 0.25
    assert 0.08 < domestic / 60_000 < 0.35
    # Heavy tail: a hundredth of the flows holds far more than its share.
    assert sum(sorted(flows.values())[-40:]) > 0.15 * 60_000
    assert min(flows.values()) == 1


def test_ipv4_header_checksums_and_lengths(capture: bytes) -> None:
    seen = 0
    for at, length in _records(capture):
        frame = capture[at : at + min(length, 96)]
        if frame[12:14] == b"\x08\x00":
            words = np.frombuffer(frame[14:34], ">u2").astype(int)
            assert words.sum() % 0xFFFF == 0
            total = int.from_bytes(frame[16:18], "big")
            assert max(60, 14 + total) == length
            seen += 1
    assert seen > 40_000


def _records(data: bytes) -> list[tuple[int, int]]:
    found, at = [], 24
    while at < len(data):
        kept = int.from_bytes(data[at + 8 : at + 12], "little")
        found.append((at + 16, int.from_bytes(data[at + 12 : at + 16], "little")))
        at += 16 + kept
    return found


def test_tcp_flows_begin_with_a_handshake(capture: bytes) -> None:
    first: dict[tuple[object, ...], int] = {}
    for _, frame in dpkt.pcap.Reader(io.BytesIO(capture)):
        if frame[12:14] == b"\x08\x00" and frame[23] == 6:
            key = tuple(sorted((frame[26:30] + frame[34:36], frame[30:34] + frame[36:38])))
            first.setdefault(key, frame[47])
    assert set(first.values()) == {0x02}


def test_canary_in_payload_and_none_in_padding(capture: bytes) -> None:
    assert b"CANARY-b01dface" in capture
    for at, length in _records(capture):
        if length == 60:
            assert capture[at + 54 : at + 60] == bytes(6)


def test_same_seed_same_bytes(capture: bytes, tmp_path: Path) -> None:
    again = generate_packets(tmp_path / "again.pcap", packets=60_000, flows=4_000, seed=5)
    other = generate_packets(tmp_path / "other.pcap", packets=60_000, flows=4_000, seed=6)
    assert sha256(again.read_bytes()).digest() == sha256(capture).digest()
    assert other.read_bytes() != capture


@pytest.mark.parametrize("flows", [1, 3_000, 50_001])
def test_many_slices_keep_the_exact_count(
    flows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "TARGET", 1_700)
    path = generate_packets(tmp_path / "x.pcap", packets=50_000, flows=flows, seed=2)
    data = path.read_bytes()
    assert len(_records(data)) == 50_000
    times = [time for time, _ in dpkt.pcap.Reader(io.BytesIO(data))]
    assert times == sorted(times)
