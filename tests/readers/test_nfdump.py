"""Files of nfdump: the same records that its JSON tells of, whatever their compression."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rows_kit import Save, read, saver

from telemetry.errors import SourceError
from telemetry.raw import NEVER, UNKNOWN
from telemetry.readers import nfdump, open_source
from telemetry.readers.rows import programs

needs_nfdump = pytest.mark.skipif(shutil.which("nfdump") is None, reason="nfdump is not installed")
EMPTY = bytes.fromhex("0ca50200") + bytes(200)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    return saver(tmp_path)


@pytest.fixture(
    params=[
        "derived/asyncrat-cd010953.nfcapd",
        "derived/ddos-tcp-reflection.nfcapd",
        "derived/quasarrat-09ffabf7.nfcapd",
        "nfdump/tcp902-scan.nfdump",
    ]
)
def file(request: pytest.FixtureRequest, corpus: Path) -> Path:  # fmt: skip
    return corpus / "records" / request.param


def as_json(path: Path) -> list[dict[str, Any]]:
    run = subprocess.run(
        ["nfdump", "-r", path, "-o", "json"], capture_output=True, check=True, env={"TZ": "UTC"}
    )
    rows = json.loads(run.stdout)
    assert isinstance(rows, list)
    return rows


def micros(text: str) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@needs_nfdump
def test_records_are_those_of_its_json(file: Path) -> None:
    columns, tally = read(nfdump.READER, open_source(str(file)))
    rows = as_json(file)
    assert not tally.dropped
    assert len(columns["a_hi"]) == len(rows)
    for name, key in (("a.packets", "in_packets"), ("a.bytes", "in_bytes"), ("protocol", "proto")):
        assert sorted(columns[name]) == sorted(row[key] for row in rows), name
    assert sorted(columns["a.first"]) == sorted(micros(row["first"]) for row in rows)
    assert sorted(columns["a.last"]) == sorted(micros(row["last"]) for row in rows)
    ported = [row for row in rows if row["proto"] in (6, 17)]
    found = zip(columns["protocol"], columns["a_port"], columns["b_port"], strict=True)
    assert sorted(f for f in found if f[0] in (6, 17)) == sorted(
        (row["proto"], row["src_port"], row["dst_port"]) for row in ported
    )
    letters = "FSRPAUEC"
    assert sorted(f for f, p in zip(columns["a.tcp_flags"], columns["protocol"], strict=True)
                  if p == 6) == sorted(
        sum(1 << letters.index(letter) for letter in row["tcp_flags"] if letter != ".")
        for row in ported if row["proto"] == 6
    )  # fmt: skip
    assert set(columns["b.packets"]) == {UNKNOWN}
    assert set(columns["b.first"]) == {NEVER}


@needs_nfdump
@pytest.mark.parametrize("option", ["-z", "-y", "-j"])
def test_compressed_files(corpus: Path, tmp_path: Path, option: str) -> None:
    file = corpus / "records" / "derived" / "asyncrat-cd010953.nfcapd"
    packed = tmp_path / "packed"
    subprocess.run(["nfdump", "-r", file, option, "-w", packed], check=True, capture_output=True)
    expected = read(nfdump.READER, open_source(str(file)))[0]
    assert read(nfdump.READER, open_source(str(packed)))[0] == expected
    around = tmp_path / "around.gz"
    around.write_bytes(gzip.compress(packed.read_bytes()))
    assert read(nfdump.READER, open_source(str(around)))[0] == expected


@needs_nfdump
def test_icmp_is_type_and_code(corpus: Path, tmp_path: Path) -> None:
    if shutil.which("nfpcapd") is None:
        pytest.skip("nfpcapd is not installed")
    capture = corpus / "attacks" / "icmp-sweep" / "icmp-sweep.pcap"
    subprocess.run(["nfpcapd", "-r", capture, "-w", tmp_path], check=True, capture_output=True)
    for file in tmp_path.glob("nfcapd.2*"):
        columns, _ = read(nfdump.READER, open_source(str(file)))
        icmp = [i for i, protocol in enumerate(columns["protocol"]) if protocol == 1]
        assert icmp
        # Echo replies stand under the type of their request.
        assert {(columns["a_port"][i], columns["b_port"][i]) for i in icmp} <= {(8, 0), (3, 1)}


def line(**changes: str) -> bytes:
    row = {
        "start": "2024-02-27 16:23:59.850", "end": "2024-02-27 16:24:00.850", "protocol": "TCP",
        "src_ip": "   203.0.113.7", "dst_ip": "192.0.2.1", "src_port": "40000", "dst_port": "443",
        "src_packets": " 10", "src_bytes": "1000", "dst_packets": "0", "dst_bytes": "0",
        "src_tcp_flags": "...AP.SF",
    }  # fmt: skip
    return "|".join((row | changes).values()).encode() + b"\n"


def printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: bytes, more: str = "") -> None:
    """Puts a program in nfdump's place that prints lines."""
    (tmp_path / "lines").write_bytes(lines)
    script = tmp_path / "nfdump"
    script.write_text(f"#!/bin/sh\ncat {tmp_path}/lines\n{more}\n")
    script.chmod(0o755)
    monkeypatch.setattr(programs.shutil, "which", lambda _: str(script))


def test_out_counters_are_the_other_direction(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    printed(monkeypatch, tmp_path, line() + line(dst_packets="3", dst_bytes="200"))
    columns, _ = read(nfdump.READER, save(EMPTY))
    assert sorted(columns["b.packets"]) == [UNKNOWN, 3]
    assert columns["a.tcp_flags"] == [0x1B, 0x1B]


def test_lines_that_do_not_parse_are_counted(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bad = line(src_packets="1.2 M") + line(dst_port="3.1") + line(src_ip="")
    printed(monkeypatch, tmp_path, line() + bad + line(protocol="1", dst_port="3.1"))
    columns, tally = read(nfdump.READER, save(EMPTY))
    assert sorted(zip(columns["a_port"], columns["b_port"], strict=True)) == [(3, 1), (40000, 443)]
    assert dict(tally.dropped) == {"malformed_row": 2, "no_address": 1}


def test_a_file_without_records(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    printed(monkeypatch, tmp_path, b"No matching flows\n")
    assert read(nfdump.READER, save(EMPTY))[1].read == 0


def test_words_before_the_records_are_left_out(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    printed(monkeypatch, tmp_path, b"Skip a block\n" * 5000 + line() + b"no record\n")
    columns, tally = read(nfdump.READER, save(EMPTY))
    assert len(columns["a_hi"]) == 1
    assert dict(tally.dropped) == {"malformed_row": 1}


@needs_nfdump
def test_broken_files_are_refused_without_a_word_of_theirs(corpus: Path, save: Save) -> None:
    content = (corpus / "records" / "derived" / "asyncrat-cd010953.nfcapd").read_bytes()
    for broken in (content[: len(content) // 2], content[:600] + bytes(100)):
        with pytest.raises(SourceError, match="nfdump cannot read it; check"):
            read(nfdump.READER, save(broken))


def test_a_program_that_fails_on_the_way_is_told(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    printed(monkeypatch, tmp_path, line(), "echo canary >&2")
    columns, tally = read(nfdump.READER, save(EMPTY))
    assert len(columns["a_hi"]) == 1
    assert tally.damage == "nfdump did not read it to its end"


def test_without_the_program_its_package_is_named(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match="needs the program nfdump; install the Debian package"):
        read(nfdump.READER, save(EMPTY))


def test_compressed_sources_are_held_within_bounds(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    printed(monkeypatch, tmp_path, line())
    monkeypatch.setattr(programs, "_IN_MEMORY", 100)
    with pytest.raises(SourceError, match="unpack it"):
        read(nfdump.READER, save(gzip.compress(EMPTY)))


def test_a_program_that_goes_astray_is_stopped(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    printed(monkeypatch, tmp_path, line(), "while :; do :; done")
    monkeypatch.setattr(programs, "_SECONDS", 1)
    columns, tally = read(nfdump.READER, save(EMPTY))
    assert len(columns["a_hi"]) == 1
    assert tally.damage == "nfdump did not read it to its end"


def test_a_program_that_complains_for_ever_is_stopped(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    printed(monkeypatch, tmp_path, b"", "while :; do echo canary >&2; done")
    with pytest.raises(SourceError, match="nfdump cannot read it; check"):
        read(nfdump.READER, save(EMPTY))
