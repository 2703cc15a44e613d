"""Tar files: each member is a source, whoever wrote them; what is broken is refused whole."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from archive_kit import CAPTURE, PACKET, packed, reading
from capture_kit import NOON, Packet, border, pcap, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.errors import SourceError
from telemetry.readers import Session, in_time_order, open_source, places
from telemetry.readers.archives import MOST_MEMBERS, members

LATER = pcap([Packet(NOON + 10**9, PACKET)])
LONG = "long/" * 60 + "a.pcap"
PACKS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}
FORMATS = {"gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Makes a tar file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as made:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("form", FORMATS)
def test_each_member_is_a_source_in_time_order(
    saved: Callable[[bytes], str], form: str, pack: str
) -> None:
    files = {"./2": LATER, "1": CAPTURE, "./._1": b"x", "none/": b"", "no": b"no capture"}
    path = saved(PACKS[pack](tar(files, FORMATS[form])))
    found = in_time_order(places(path), Session(border()))
    assert [place.name for place in found] == [f"{path}/1", f"{path}/./2", f"{path}/no"]
    assert [reading(place).tally.read for place in found[:2]] == [50, 1]
    assert reading(found[0]).tally == read(CAPTURE).tally
    with pytest.raises(SourceError, match="not recognised"):
        reading(found[2])
    with pytest.raises(SourceError, match="several files"):
        open_source(path)


@pytest.mark.parametrize("pack", PACKS)
def test_an_only_member_is_the_source_and_known_by_its_content(
    saved: Callable[[bytes], str], pack: str
) -> None:
    hashes = set()
    for data in (CAPTURE, gzip.compress(CAPTURE)):
        source = open_source(saved(PACKS[pack](tar({LONG: data}, tarfile.GNU_FORMAT))))
        assert source.containers[: len(pack and [pack]) + 1] == [*(pack and [pack]), "tar"]
        source.finish()
        hashes.add(source.content_sha256)
        source.close()
    plain = open_source(saved(CAPTURE))
    assert hashes == {plain.sha256}
    plain.close()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_told(saved: Callable[[bytes], str], form: int) -> None:
    path = saved(tar({LONG: CAPTURE, "y": LATER}, form))
    assert [place.name for place in places(path)] == [f"{path}/{LONG}", f"{path}/y"]


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar: install it")
@pytest.mark.parametrize("form", ["gnu", "ustar", "posix", "oldgnu"])
def test_what_the_tar_program_writes(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "captures"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.pcap").write_bytes(CAPTURE)
    (folder / "inner" / "b.pcap").write_bytes(LATER)
    (folder / "link").symlink_to("a.pcap")
    (folder / "twin").hardlink_to(folder / "a.pcap")
    path = tmp_path / "made.tar"
    subprocess.run(["tar", "-c", f"--format={form}", "-f", path, "-C", folder, "."], check=True)
    found = in_time_order(places(str(path)), Session(border()))
    assert [reading(place).tally.read for place in found] == [50, 1], "a file once, links never"


def test_tar_files_one_behind_the_other_are_read_all(saved: Callable[[bytes], str]) -> None:
    path = saved(tar({"a": CAPTURE}) + tar({"b": LATER}))
    assert [reading(place).tally.read for place in places(path)] == [50, 1]


def test_an_end_without_zeros_is_no_damage(saved: Callable[[bytes], str]) -> None:
    whole = tar({"a": CAPTURE, "b": LATER})
    cut = whole.rstrip(b"\0")
    path = saved(cut + bytes(-len(cut) % 512))
    assert len(places(path)) == 2


def test_what_stands_behind_the_end_is_left_alone(saved: Callable[[bytes], str]) -> None:
    for behind in (b"x", b"x" * 600, b"x" * 512):
        path = saved(tar({"a": CAPTURE, "b": LATER}) + behind)
        assert [reading(place).tally.read for place in places(path)] == [50, 1]


def test_zeros_without_end_end_it(saved: Callable[[bytes], str]) -> None:
    path = saved(gzip.compress(tar({"a": CAPTURE, "b": LATER}) + bytes(64 << 20), 1))
    assert [reading(place).tally.read for place in places(path)] == [50, 1]


def test_names_may_be_of_any_script(saved: Callable[[bytes], str]) -> None:
    whole = tar({"XXXX.pcap": CAPTURE, "b": LATER}).replace(b"XXXX", "関所".encode("shift_jis"), 1)
    path = saved(_repaired(whole))
    assert [reading(place).tally.read for place in places(path)] == [50, 1]


def test_names_that_lead_out_are_names_too(saved: Callable[[bytes], str]) -> None:
    path = saved(tar({"../a": CAPTURE, "/b": LATER}))
    assert [reading(place).tally.read for place in places(path)] == [50, 1]


def _with_header(**fields: object) -> bytes:
    info = tarfile.TarInfo("a")
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def _notes(text: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return _with_header(type=kind, size=len(text)) + text + bytes(-len(text) % 512)


def _pax(*pairs: tuple[str, str]) -> bytes:
    text = b""
    for key, value in pairs:
        record = f" {key}={value}\n".encode()
        length = len(record) + len(str(len(record)))
        length += len(str(length)) - len(str(len(record)))
        text += str(length).encode() + record
    return _notes(text)


def _repaired(data: bytes | bytearray) -> bytes:
    """Returns a tar file whose first header has the sum of its bytes."""
    header = bytearray(data[:512])
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + bytes(data[512:])


def test_a_capture_is_no_tar_file_whatever_is_sent_in_it(saved: Callable[[bytes], str]) -> None:
    """Its first packet can hold what a header does, and make up the sum too."""
    frame = bytearray(PACKET + bytes(700))
    frame[14 + 2 : 14 + 4] = (len(frame) - 14).to_bytes(2, "big")
    header = _with_header(size=0)
    frame[100 - 40 : 512 - 40] = header[100:]
    data = bytearray(pcap([Packet(NOON, bytes(frame))]))
    assert data[257:262] == b"ustar"
    forged = _repaired(data)
    assert tarfile.TarInfo.frombuf(forged[:512], "utf-8", "replace").size == 0
    assert places(path := saved(forged)) and reading(path).tally.read == 1


WHOLE = tar({"a": CAPTURE, "b": LATER})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (WHOLE[:2000], "ends early"),
        (gzip.compress(WHOLE)[:-20], "gzip stream"),
        (WHOLE[:512] + CAPTURE.ljust(-(-len(CAPTURE) // 512) * 512) + b"x" * 600, "broken"),
        (WHOLE[:512] + WHOLE[512:].replace(b"ustar", b"xstar"), "broken"),
        (tar({"a/.b": b""}), "holds no file"),
        (_with_header(size=1 << 60), "ends early"),
        *((_with_header() + _with_header(size=1 << n), "broken") for n in (62, 63, 64, 70, 86)),
        (_with_header(size=-512), "or broken"),
        (_with_header(type=tarfile.GNUTYPE_SPARSE), "parts of files"),
        (_with_header(type=b"M"), "parts of files"),
        (_pax(("GNU.sparse.major", "1")) + _with_header(), "parts of files"),
        (_pax(("size", "1" + "0" * 30)) + _with_header(), "broken"),
        (_pax(("size", "-5")) + _with_header(), "broken"),
        (_pax(("size", "x")) + _with_header(), "broken"),
        (_pax(("path", "x" * 5000)) + _with_header(), "far too long names"),
        (_notes(b"x" * 5000, tarfile.GNUTYPE_LONGNAME) + _with_header(), "far too long names"),
        (_with_header(type=tarfile.XHDTYPE, size=1 << 30), "far too long names"),
        (_pax(("comment", "x" * 8000)) * 1050, "far too long names"),
        (_notes(b"0 size=1\n"), "broken"),
        (_notes(b"9 size1 \n"), "broken"),
        (_with_header(type=tarfile.XHDTYPE, size=600) + b"x" * 512, "ends early"),
        (_with_header(size=0) * (MOST_MEMBERS + 1), "far too many"),
        (
            gzip.compress(tar({"a": bytes(64 << 20)}) + _with_header() * 600, 1),
            "would take too long",
        ),
        (packed({"x": tar({"y": CAPTURE})}), "tar file in a pipe, in another archive"),
        (tar({"x": tar({"y": CAPTURE})}), "tar file in a pipe, in another archive"),
        (tar({"x": packed({"y": CAPTURE})}), "zip file in a pipe or in another container"),
    ],
)
def test_what_cannot_be_unpacked_says_why(
    saved: Callable[[bytes], str], data: bytes, says: str
) -> None:
    (place,) = places(saved(data))
    with pytest.raises(SourceError, match=says):
        reading(place)


def test_what_changes_while_it_is_read_is_refused(saved: Callable[[bytes], str]) -> None:
    path = saved(gzip.compress(WHOLE))
    found = places(path)
    saved(gzip.compress(WHOLE[:1000]))
    with pytest.raises(SourceError, match="ends early"):
        reading(found[1])


@given(st.integers(0), st.integers(0), st.integers(0, 255), st.sampled_from(["", "gzip"]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_tar_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, at: int, byte: int, pack: str
) -> None:
    whole = bytearray(PACKS[pack](WHOLE))
    whole[at % min(len(whole), 2048)] = byte
    if not pack:
        whole = bytearray(_repaired(whole))
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(whole[: len(whole) - cut % 40])
    for place in places(str(path)):
        try:
            reading(place)
        except SourceError:
            continue


def test_memory_stays_bounded_whatever_is_inside(saved: Callable[[bytes], str]) -> None:
    bomb = gzip.compress(tar({"a": bytes(256 << 20), "b": b""}), 1)
    path = saved(bomb)
    tracemalloc.start()
    try:
        with Path(path).open("rb", buffering=0) as file:
            found = members(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is not None and [member.size for member in found] == [256 << 20, 0]
    assert peak < 40 << 20
