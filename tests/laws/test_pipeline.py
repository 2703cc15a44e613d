"""Laws of the whole pipeline: how files are cut, ordered, packed or read again does not show."""

from __future__ import annotations

import gzip
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from e2e import BROKEN, CAPTURES, LISTS, TRUTH, count, sample_run, settings_in, stored

from telemetry import pipeline
from telemetry.pipeline import intake
from telemetry.records import SourceReport

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


# --- cutting captures ----------------------------------------------------------------------------


def unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if data.startswith(GZIP):
        return gzip.decompress(data)
    if data.startswith(ZSTD):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def frames(data: bytes) -> tuple[bytes, list[bytes]]:
    """Returns what every piece must begin with, and each packet as it stands in the file."""
    if data[:4] == b"\x0a\x0d\x0d\x0a":
        return _blocks(data)
    order = "<" if data[0] in (0xD4, 0x4D) else ">"
    packets, position = [], 24
    while position < len(data):
        size = 16 + struct.unpack_from(order + "I", data, position + 8)[0]
        packets.append(data[position : position + size])
        position += size
    return data[:24], packets


def _blocks(data: bytes) -> tuple[bytes, list[bytes]]:
    head, packets, position = b"", [], 0
    while position < len(data):
        kind, size = struct.unpack_from("<II", data, position)
        if kind in (0x0A0D0D0A, 1):
            head += data[position : position + size]
        elif kind == 6:
            packets.append(data[position : position + size])
        position += size
    return head, packets


def contiguous(packets: list[bytes], rng: random.Random) -> list[list[bytes]]:
    cuts = sorted(rng.sample(range(1, len(packets)), 5))
    return [packets[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]


def dealt(packets: list[bytes], rng: random.Random) -> list[list[bytes]]:
    """Deals single packets to four files, as four taps of one link would."""
    hands: list[list[bytes]] = [[], [], [], []]
    for packet in packets:
        rng.choice(hands).append(packet)
    return hands


def pack(data: bytes, rng: random.Random) -> bytes:
    """Packs a piece in one of the containers; gzip in two members, as rotating tools leave it."""
    middle = len(data) // 2
    return rng.choice(
        [
            data,
            gzip.compress(data[:middle]) + gzip.compress(data[middle:]),
            zstandard.compress(data[:middle]) + zstandard.compress(data[middle:]),
        ]
    )


@pytest.mark.parametrize(
    ("name", "cut", "seed"),
    [
        ("ddos.pcap.gz", contiguous, 1),  # fragments, and many packets in the same instant
        ("isp-dslite.pcap", contiguous, 2),  # tunnels
        ("border-b.pcapng", contiguous, 3),  # two interfaces with two clocks
        ("border-c.pcap.gz", dealt, 4),
        ("border-b.pcapng", dealt, 5),
    ],
)
def test_how_a_capture_was_cut_does_not_show(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    cut: Callable[[list[bytes], random.Random], list[list[bytes]]],
    seed: int,
) -> None:
    rng = random.Random(seed)
    head, packets = frames(unpacked(CAPTURES / name))
    assert len(packets) == TRUTH["files"][f"captures/{name}"]["packets"]
    pieces = []
    for number, piece in enumerate(cut(packets, rng)):
        pieces.append(tmp_path / str(number))
        pieces[-1].write_bytes(pack(head + b"".join(piece), rng))
    rng.shuffle(pieces)

    whole = settings_in(tmp_path / "whole")
    one_go = pipeline.ingest(whole, [str(CAPTURES / name)])
    parts = settings_in(tmp_path / "parts")
    monkeypatch.setattr(intake, "COMMIT_SOURCES", 2)  # several commits a run as well
    reports: list[SourceReport] = []
    for run in (pieces[:1], pieces[1:]):
        reports += pipeline.ingest(parts, [str(piece) for piece in run]).sources

    assert all(report.status == "ingested" and report.error is None for report in reports)
    assert sum(r.packets_read for r in reports) == one_go.sources[0].packets_read
    assert sum(r.kept for r in reports) == one_go.sources[0].kept
    assert stored(parts.lake).equals(stored(whole.lake))


def test_containers_do_not_show(tmp_path: Path) -> None:
    plain = (CAPTURES / "cooked.pcap").read_bytes()
    tables = {}
    for name, data in {
        "plain": plain,
        "gzip": gzip.compress(plain),
        "zstd": zstandard.compress(plain),
        "gzip members": b"".join(
            gzip.compress(plain[start : start + 99_999]) for start in range(0, len(plain), 99_999)
        ),
        "gzip and padding": gzip.compress(plain) + bytes(512),
        "zstd without size": zstandard.ZstdCompressor(write_content_size=False).compress(plain),
    }.items():
        (tmp_path / name).write_bytes(data)
        settings = settings_in(tmp_path / f"{name}.d")
        [report] = pipeline.ingest(settings, [str(tmp_path / name)]).sources
        assert (report.format, report.packets_read, report.error) == ("pcap", 4297, None)
        tables[name] = stored(settings.lake)
    assert all(table.equals(tables["plain"]) for table in tables.values())


# --- order and repetition ------------------------------------------------------------------------


def listed_bytes(lake: Path) -> dict[str, bytes]:
    """Returns the list files; the plain one names its run in a comment, the others do not."""
    files = {name: (lake / "lists" / name).read_bytes() for name in LISTS}
    plain = files["list.txt"].splitlines()
    assert sum(line.startswith(b"# run: ") for line in plain) == 1
    files["list.txt"] = b"\n".join(line for line in plain if not line.startswith(b"# run: "))
    return files


def test_the_order_of_sources_does_not_show(tmp_path: Path) -> None:
    once = sample_run()
    settings = settings_in(tmp_path)
    sources = sorted(CAPTURES.iterdir(), reverse=True)
    report = pipeline.run(settings, [str(source) for source in sources])
    assert stored(settings.lake).equals(stored(once.settings.lake))
    assert [*report.endpoints] == [*once.report.endpoints]
    assert listed_bytes(settings.lake) == listed_bytes(once.settings.lake)


def test_a_rerun_changes_nothing(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    sources = [str(CAPTURES / name) for name in ("ddos.pcap.gz", "conn.log", "conn.json.log")]
    first = pipeline.run(settings, sources)
    endpoints = [*first.endpoints]
    assert len(endpoints) == len(first.endpoints)
    rows, files = stored(settings.lake), listed_bytes(settings.lake)
    parquet = {p: p.read_bytes() for p in (settings.lake / "records").rglob("*.parquet")}
    again = pipeline.run(settings, sources)
    assert {source.status for source in first.ingest.sources} == {"ingested"}
    assert {source.status for source in again.ingest.sources} == {"already_ingested"}
    assert stored(settings.lake).equals(rows)
    assert [*again.endpoints] == endpoints
    assert listed_bytes(settings.lake) == files
    assert {p: p.read_bytes() for p in (settings.lake / "records").rglob("*.parquet")} == parquet
    assert count(settings.lake, "sources") == len(sources)


# --- conservation --------------------------------------------------------------------------------


def test_every_source_balances_and_agrees_with_the_truth() -> None:
    reports = {Path(r.path).name: r for r in sample_run().report.ingest.sources}
    captures = {
        name.removeprefix("captures/"): truth
        for name, truth in TRUTH["files"].items()
        if name.startswith("captures/")
    }
    assert set(reports) == set(captures)
    for name, truth in captures.items():
        report, directions = reports[name], truth["directions"]
        assert report.packets_read == truth.get("packets", 0), name
        assert report.records_read == truth.get("records", 0), name
        not_ip = sum(n for kind, n in truth.get("kinds", {}).items() if kind != "ip")
        expected = {"domestic": directions.get("in_in", 0), "not_ip": not_ip}
        assert report.dropped == {reason: n for reason, n in expected.items() if n}, name
        assert report.kept == sum(n for way, n in directions.items() if way != "in_in"), name
        read = report.packets_read + report.records_read
        assert read == report.kept + sum(report.dropped.values()), name


def test_packets_kept_are_packets_stored(tmp_path: Path) -> None:
    for name in ("border-c.pcap.gz", "isp-dslite.pcap", "rawip.pcap"):
        settings = settings_in(tmp_path / name)
        [report] = pipeline.ingest(settings, [str(CAPTURES / name)]).sources
        rows = stored(settings.lake)
        packets = sum(
            value
            for side in ("endpoint", "peer")
            for value in rows[f"{side}_packets"].to_pylist()
            if value is not None
        )
        assert packets == report.kept
        assert len(rows) <= report.records_written


@pytest.mark.parametrize("name", [name for name in TRUTH["files"] if name.startswith("broken/")])
def test_broken_inputs_balance_too(tmp_path: Path, name: str) -> None:
    truth = TRUTH["files"][name]
    [report] = pipeline.ingest(
        settings_in(tmp_path), [str(BROKEN / name.removeprefix("broken/"))]
    ).sources
    assert (report.status != "refused") == truth["readable"]
    assert report.packets_read == truth["packets"]
    assert report.packets_read == report.kept + sum(report.dropped.values())


def test_what_the_authority_does_not_allow_is_counted(tmp_path: Path) -> None:
    """Fewer directions: fewer kept, the same read, and nothing stored of the forbidden ones."""
    text = (CAPTURES.parent / "authority.toml").read_text()
    wide = ("out_in", "in_out", "out_out")
    kept = {}
    for way in wide:
        narrow = tmp_path / f"{way}.toml"
        narrow.write_text(text.replace(str(list(wide)).replace("'", '"'), f'["{way}"]'))
        assert narrow.read_text() != text
        settings = settings_in(tmp_path / way, authority=narrow)
        [report] = pipeline.ingest(settings, [str(CAPTURES / "border-b.pcapng")]).sources
        assert report.packets_read == report.kept + sum(report.dropped.values()) == 8771
        kept[way] = report.kept
        rows = stored(settings.lake)
        if way == "out_in":
            assert set(rows["peer_packets"].to_pylist()) <= {0, None}
        assert all((ip is not None) == (way == "out_out") for ip in rows["peer_ip"].to_pylist())
    assert kept == TRUTH["files"]["captures/border-b.pcapng"]["directions"]


# --- the reference decoder -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["rawip.pcap", "isp-dslite.pcap", "cooked.pcap", "border-b.pcapng", "ddos.pcap.gz"]
)
def test_the_reference_decoder_fills_an_equal_lake(tmp_path: Path, name: str) -> None:
    pytest.importorskip("telemetry.readers.packets.reference", exc_type=ModuleNotFoundError)
    reports, tables = [], []
    for decoder in ("kernel", "dpkt"):
        settings = settings_in(tmp_path / decoder, decoder=decoder)
        [report] = pipeline.ingest(settings, [str(CAPTURES / name)]).sources
        reports.append((report.packets_read, report.kept, report.dropped, report.linktypes))
        tables.append(stored(settings.lake))
    assert reports[0] == reports[1]
    assert tables[0].equals(tables[1])
