"""Zip files, bounded memory and what is refused by name; streams are in the laws of captures."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from archive_kit import CAPTURE, PACKET, packed, reading
from capture_kit import (
    NOON,
    Packet,
    border,
    pcap,
    read,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.errors import SourceError
from telemetry.readers import Session, find_reader, in_time_order, open_source, places
from telemetry.readers.archives import zip_members
from telemetry.readers.containers import BLOCK, Unpacked, unpack
from telemetry.readers.formats import names
from telemetry.readers.source import Place


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_the_only_member_of_a_zip_file_is_the_source(
    saved: Callable[[bytes], str], method: int
) -> None:
    path = saved(packed({"a/b.pcap": CAPTURE, "a/.hidden": b"x", "__MACOSX/b.pcap": b"x"}, method))
    assert places(path) == [Place(path, None, path)]
    assert reading(path).tally == read(CAPTURE).tally


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress, lz4.frame.compress]
)
def test_a_packed_member_is_opened(
    saved: Callable[[bytes], str], pack: Callable[[bytes], bytes]
) -> None:
    path = saved(packed({"x": pack(CAPTURE)}))
    source = open_source(path)
    assert len(source.containers) == 2 and set(source.containers) <= set(names("container"))
    source.close()
    assert reading(path).tally == read(CAPTURE).tally


def test_a_zip_file_written_to_a_pipe_has_sizes_behind_its_members(
    saved: Callable[[bytes], str],
) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("x", CAPTURE)
    assert reading(saved(pipe.getvalue())).tally == read(CAPTURE).tally


def test_each_member_of_a_zip_file_is_a_source_of_its_own(saved: Callable[[bytes], str]) -> None:
    later = pcap([Packet(NOON + 10**9, PACKET)])
    members = {"1": b"no capture", "2": later, "3": CAPTURE, "d/": b""}
    path = saved(packed(members))
    found = in_time_order(places(path), Session(border()))
    assert [place.name for place in found] == [f"{path}/3", f"{path}/2", f"{path}/1"]
    assert [reading(place).tally.read for place in found[:2]] == [50, 1]
    with pytest.raises(SourceError, match="not recognised"):
        reading(found[2])
    with pytest.raises(SourceError, match="several files"):
        open_source(path)


def test_a_terminal_obeys_no_name(saved: Callable[[bytes], str]) -> None:
    path = saved(packed({"\x1b[2J\n": CAPTURE, "b": CAPTURE}))
    assert [place.name for place in places(path)] == [f"{path}/?[2J?", f"{path}/b"]


def test_a_member_is_known_by_its_own_content(saved: Callable[[bytes], str]) -> None:
    hashes = set()
    for members in ({"a": CAPTURE}, {"b": CAPTURE, "c": b"x"}, {"d": gzip.compress(CAPTURE)}):
        place = places(saved(packed(members)))[0]
        source = open_source(place)
        before = source.sha256
        source.finish()
        assert source.sha256 == before is not None
        hashes.add(source.content_sha256)
        source.close()
    plain = open_source(saved(CAPTURE))
    assert hashes == {plain.sha256}
    plain.close()


def test_a_changed_member_is_damaged(saved: Callable[[bytes], str]) -> None:
    data = bytearray(packed({"x": CAPTURE}))
    at = data.index(b"PK\1\2")
    data[at + 16] ^= 1  # the CRC in the directory
    assert "not what was packed" in str(reading(saved(bytes(data))).tally.damage)


def test_a_member_without_a_name_is_read(saved: Callable[[bytes], str]) -> None:
    data = bytearray(packed({"x": CAPTURE}))
    data[data.index(b"PK\1\2") + 46] = 0
    assert reading(saved(bytes(data))).tally == read(CAPTURE).tally


def _altered(offset: int, value: int) -> bytes:
    data = bytearray(packed({"x": CAPTURE}))
    at = data.index(b"PK\1\2") + offset
    data[at : at + 2] = struct.pack("<H", value)
    return bytes(data)


def _overlapping() -> bytes:
    data = bytearray(packed({"x": CAPTURE, "y": CAPTURE}))
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (_altered(8, 1), "encrypted"),
        (_altered(10, 9), "packed in a way that is not read"),
        (_altered(42, 7), "broken where it should begin"),
        (_overlapping(), "overlap"),
        (packed({}), "holds no file"),
        (packed({"x": CAPTURE})[:-30], "directory is missing"),
        (b"PK\3\4" + b"x" * 5000, "directory is missing"),
        (packed({"x": packed({"y": CAPTURE})}), "zip file in a pipe or in another container"),
        (gzip.compress(packed({"y": CAPTURE})), "zip file in a pipe or in another container"),
        (gzip.compress(b"", mtime=0), "Nothing is in its container"),
    ],
)
def test_what_cannot_be_unpacked_says_why(
    saved: Callable[[bytes], str], data: bytes, says: str
) -> None:
    with pytest.raises(SourceError, match=says):
        reading(places(saved(data))[0])


@given(
    data=st.binary(max_size=200), cut=st.integers(0), at=st.integers(0), byte=st.integers(0, 255)
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_zip_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int, at: int, byte: int
) -> None:
    whole = bytearray(packed({"x": CAPTURE, "y": data}))
    whole[at % len(whole)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(whole[: len(whole) - cut % 40])
    for place in places(str(path)):
        try:
            reading(place)
        except SourceError:
            continue


ZEROS = bytes(128 << 20)
BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": zstandard.compress,
    "lz4": lz4.frame.compress,
}


@pytest.mark.parametrize("name", BOMBS)
def test_memory_stays_bounded_whatever_comes_out(name: str) -> None:
    bomb = BOMBS[name](ZEROS)
    buffer = bytearray(BLOCK)
    total = 0
    tracemalloc.start()
    try:
        names, stream = unpack(io.BufferedReader(io.BytesIO(bomb)), pytest.fail)
        while n := stream.readinto(buffer):
            total += n
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (names, total) == ([name], len(ZEROS))
    assert peak < 80 << 20


def test_containers_are_opened_three_deep_and_no_further() -> None:
    data = CAPTURE
    for _ in range(3):
        data = gzip.compress(data)
    assert read(data).tally == read(CAPTURE).tally
    with pytest.raises(SourceError, match="not recognised"):
        read(gzip.compress(data))


def test_frames_that_are_skipped_may_come_first() -> None:
    skipped = b"\x5a\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    for pack in (zstandard.compress, lz4.frame.compress):
        tally = read(skipped + pack(CAPTURE[:1000]) + skipped * 2 + pack(CAPTURE[1000:])).tally
        assert tally == read(CAPTURE).tally


def test_many_frames_that_are_skipped_take_no_time() -> None:
    """A mebibyte of them, each of which was cut off the rest by a copy, took seconds."""
    frames = struct.pack("<II", 0x184D2A50, 0) * (BLOCK // 8)
    stream = io.BufferedReader(io.BytesIO(frames), BLOCK)  # type: ignore[arg-type]
    before = time.process_time()
    assert unpack(stream, lambda why: None)[0][0] == "zstd"
    assert time.process_time() - before < 3


def test_padding_behind_a_container_is_no_damage() -> None:
    for pack in (gzip.compress, bz2.compress, lzma.compress, zstandard.compress):
        assert read(pack(CAPTURE) + bytes(1 << 17)).tally.damage is None


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"GMBU\x00\x02", "Microsoft Network Monitor 2"),
        (b"RTSS\x00\x02", "Microsoft Network Monitor 1"),
        (b"TRSNIFF data    \x1a", "Sniffer"),
        (b"iptrace 2.0", "iptrace"),
        (b"\x7fver\0\0\0\x09", "Peek"),
        (b"\xde\xad\xbe\xef", "SiLK"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (bytes(257) + b"ustar\x0000", "tar file in a pipe"),
        (b"\x0a\x0d\x0d\x0a" + b"x" * 24, "pcapng"),
        (
            b"".join(
                struct.pack("<QBB", 1_700_000_000 + i << 32, 2, 4)
                + struct.pack(">HHH", 64, 0, 60)
                + bytes(48)
                for i in range(4)
            ),
            "Endace ERF",
        ),
    ],
)
def test_a_known_format_that_is_not_read_is_refused_by_name(head: bytes, name: str) -> None:
    with pytest.raises(SourceError, match=name) as error:
        read(head + bytes(100))
    assert str(error.value).endswith(".") and ";" in str(error.value)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_a_stream_in_pieces_is_the_same_stream(pack: Callable[[bytes], bytes]) -> None:
    packed_stream = io.BufferedReader(io.BytesIO(pack(CAPTURE)), 16)
    _, stream = unpack(packed_stream, pytest.fail, 16)
    assert isinstance(stream.raw, Unpacked)
    assert b"".join(iter(lambda: stream.read(7), b"")) == CAPTURE


def test_members_come_in_the_order_of_the_file() -> None:
    members = zip_members(io.BytesIO(packed({"b": b"1", "a": b"2"})))
    assert [member.name for member in members] == ["b", "a"]


def test_the_first_packet_tells_when_a_capture_starts() -> None:
    session = Session(border())
    for name in ("pcap/little_micro.pcap", "pcap/big_nano.pcap", "pcapng/two_sections.pcapng"):
        path = Path(__file__).parents[2] / "data" / "samples" / "formats" / name
        source = open_source(str(path))
        reader = find_reader(source, session)
        assert reader.starts(source.head) == NOON
        source.close()
