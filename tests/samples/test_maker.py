"""The generated samples: the same bytes for a seed, readable, truthful, labelled."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import struct
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import dpkt
import pytest
import zstandard

from telemetry import homeland
from telemetry.samples import containers, maker, packets
from telemetry.samples.maker import SEED, make
from telemetry.samples.plan import HOUR, Plan
from telemetry.settings import ASSETS

COMMITTED = ASSETS / "data" / "samples"
LINK_LAYERS = {"frame", "eth", "ethertype", "sll", "raw", "vlan", "ieee8021ad", "arp", "lldp"}
LAYERS = LINK_LAYERS | {"ip", "ipv6", "gre", "tcp", "udp", "icmp", "icmpv6", "data"}
"""What tshark dissects in the test; the payloads are canary text, not real DNS or TLS."""


def plain(name: str, data: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.decompress(data)
    if name.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompress(data)
    return data


@cache
def content(name: str) -> bytes:
    return plain(name, (COMMITTED / name).read_bytes())


@cache
def truth() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(content("truth.json"))
    return facts


def labels() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content("labels.csv").decode())))


def captures() -> list[str]:
    return [name for name, fact in truth()["files"].items() if "kinds" in fact]


def logs() -> list[str]:
    return [name for name, fact in truth()["files"].items() if "records" in fact]


def frames(name: str) -> list[bytes]:
    kind = dpkt.pcapng.Reader if name.endswith(".pcapng") else dpkt.pcap.Reader
    return [frame for _, frame in kind(io.BytesIO(content(name)))]


def test_committed_samples_are_what_make_writes_today(tmp_path: Path) -> None:
    written = make(tmp_path)
    for path in written:
        name = path.relative_to(tmp_path).as_posix()
        # Compressed bytes may change with the compressor's version, content may not.
        assert plain(name, path.read_bytes()) == content(name), name
    known = {path.relative_to(tmp_path).as_posix() for path in written}
    for folder in ("captures", "broken"):
        there = {f"{folder}/{path.name}" for path in (COMMITTED / folder).iterdir()}
        assert there <= known, "a committed sample that make() does not write"


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    runs = [
        {path.name: path.read_bytes() for path in make(tmp_path / str(run), seed, hours=0.3)}
        for run, seed in enumerate((7, 7, 8))
    ]
    assert runs[0] == runs[1]
    same = {name for name in runs[0] if runs[0][name] == runs[2][name]}
    assert same == {"empty.pcap", "no_packets.pcap", "not_a_capture.txt"}


def test_committed_size_is_small() -> None:
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*")) < 5.5e6


@pytest.mark.parametrize("name", captures())
def test_packets_and_kinds_are_as_told(name: str) -> None:
    fact = truth()["files"][name]
    found = frames(name)
    assert len(found) == fact["packets"] == sum(fact["kinds"].values())
    assert sum(fact["directions"].values()) == fact["kinds"]["ip"]
    assert sum(frame[12:14] == b"\x88\xcc" for frame in found) == fact["kinds"].get("lldp", 0)
    assert sum(frame[12:14] == b"\x08\x06" for frame in found) == fact["kinds"].get("arp", 0)


@pytest.mark.parametrize("name", captures())
def test_times_ascend_within_the_hours(name: str) -> None:
    data = content(name)
    times = pcapng_times(data) if name.endswith(".pcapng") else pcap_times(data)
    assert times == sorted(times)
    assert len(times) == truth()["files"][name]["packets"]
    assert times[0] >= maker.START and times[-1] < maker.START + 6.1 * HOUR


def pcap_times(data: bytes) -> list[int]:
    return [round(time * 1_000_000) for time, _ in dpkt.pcap.Reader(io.BytesIO(data))]


def pcapng_times(data: bytes) -> list[int]:
    """Microseconds of each packet; interface 1 of the sample counts nanoseconds.

    Read by hand: dpkt takes one interface's time unit for all of them.
    """
    times, at = [], 0
    while at < len(data):
        kind, length, interface, high, low = struct.unpack_from("<IIIII", data, at)
        if kind == 6:
            times.append((high << 32 | low) // (1000 if interface == 1 else 1))
        at += length
    return times


@pytest.mark.parametrize("name", ["captures/border-a.pcap.zst", "captures/ddos.pcap.gz"])
def test_directions_agree_with_homeland(name: str) -> None:
    """Counted anew from the bytes, with the embedded table instead of the plan."""
    home = homeland.load("JP")
    ways: Counter[str] = Counter()
    classes: dict[str, str] = {}
    for frame in frames(name):
        if frame[12:14] == b"\x08\x00":
            ends = [dpkt.utils.inet_to_str(frame[at : at + 4]) for at in (26, 30)]
        elif frame[12:14] == b"\x86\xdd":
            ends = [dpkt.utils.inet_to_str(frame[at : at + 16]) for at in (22, 38)]
        else:
            continue
        for end in ends:
            if end not in classes:
                foreign = home.class_of_text(end) == homeland.FOREIGN
                classes[end] = "out" if foreign else "in"
        ways[f"{classes[ends[0]]}_{classes[ends[1]]}"] += 1
    assert ways == truth()["files"][name]["directions"]


@pytest.mark.parametrize("name", captures() + logs())
def test_addresses_are_registered_where_the_plan_says(name: str) -> None:
    home = homeland.load("JP")
    fact = truth()["files"][name]
    assert {home.class_of_text(address) for address in fact["foreign"]} == {homeland.FOREIGN}
    domestic = {home.class_of_text(address) for address in fact["domestic"]}
    assert domestic <= {homeland.DOMESTIC, homeland.SPECIAL}


@pytest.mark.parametrize("name", captures() + logs())
def test_every_foreign_endpoint_is_labelled(name: str) -> None:
    labelled = {row["foreign_ip"] for row in labels() if row["file"] == name}
    assert labelled == set(truth()["files"][name]["foreign"])


def test_an_endpoint_has_one_role() -> None:
    roles: dict[str, set[str]] = {}
    for row in labels():
        roles.setdefault(row["foreign_ip"], set()).add(row["role"])
    assert all(len(found) == 1 for found in roles.values())
    wanted = {"benign", "c2", "scanner", "bruteforce", "ddos", "reflector", "spam", "spoofed"}
    assert wanted == {role for found in roles.values() for role in found}


@pytest.mark.parametrize("name", captures() + logs())
def test_canaries_stand_in_every_capture(name: str) -> None:
    data = content(name)
    assert truth()["files"][name]["canaries"]
    for canary in truth()["files"][name]["canaries"]:
        assert canary.encode() in data


def test_every_payload_begins_with_its_marker() -> None:
    plan = Plan.draw(SEED)
    for name in maker.SHAPES:
        played = maker._play(name, plan, SEED, 1.0)
        for item, _ in played.items:
            if isinstance(item, packets.Packet) and item.length:
                assert item.length >= 16
                assert packets.payload(item).startswith(b"CANARY-")


def test_names_stand_in_pcapng_comments_and_interfaces() -> None:
    data = content("captures/border-b.pcapng")
    for text in (b"tap.canary.example", b"kyoto-core1.canary.example", b"wan0", b"tap1"):
        assert text in data


@pytest.mark.parametrize("name", [name for name in truth()["files"] if "broken" in name])
def test_broken_inputs_are_broken_as_told(name: str) -> None:
    fact, data = truth()["files"][name], content(name)
    if not fact["readable"]:
        with pytest.raises((ValueError, dpkt.NeedData)):
            dpkt.pcap.Reader(io.BytesIO(data))
        return
    count, at = 0, 24
    while at + 16 <= len(data):
        kept = int.from_bytes(data[at + 8 : at + 12], "little")
        at += 16 + kept
        count += at <= len(data)
    assert count == fact["packets"]
    assert (at > len(data)) == ("truncated" in name)


def test_zeek_text_and_json_rows_add_up() -> None:
    files = truth()["files"]
    lines = content("captures/conn.log").decode().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    fields = next(line for line in lines if line.startswith("#fields")).split("\t")[1:]
    assert len(rows) == files["captures/conn.log"]["records"]
    assert {len(row) for row in rows} == {len(fields)}
    objects = [json.loads(line) for line in content("captures/conn.json.log").splitlines()]
    assert len(objects) == files["captures/conn.json.log"]["records"]
    states = {row[fields.index("conn_state")] for row in rows}
    assert {"SF", "S0", "REJ"} <= states
    assert {"RSTR", "SF"} <= {row["conn_state"] for row in objects}
    complete = [row for row in objects if row["conn_state"] == "SF"]
    assert all(row["history"].startswith("ShA") for row in complete if row["proto"] == "tcp")


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_finds_nothing_malformed_and_no_bad_checksum(tmp_path: Path) -> None:
    """Whole packets of all captures, uncut, so that every checksum can be tested."""
    settings = _only_layers(tmp_path)
    plan = Plan.draw(SEED)
    for name, shape in maker.SHAPES.items():
        whole = maker._frames(maker._play(name, plan, SEED, 0.7).items, shape)
        path = tmp_path / "whole.pcapng"
        path.write_bytes(containers.pcapng(whole, shape.interfaces, 65535, "x"))
        wrong = " || ".join(
            ["_ws.malformed"]
            + [f"{p}.checksum.status == 0" for p in ("ip", "tcp", "udp", "icmp", "icmpv6")]
        )
        command = ["tshark", "-n", "-r", str(path), "-Y", wrong]
        for protocol in ("ip", "tcp", "udp"):
            command += ["-o", f"{protocol}.check_checksum:TRUE"]
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, env=settings, timeout=60
        )
        assert answer.stdout == "", name


def test_tshark_check_would_notice_a_bad_checksum(tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    frame = maker._frames(
        maker._play("ddos.pcap.gz", Plan.draw(SEED), SEED, 0.2).items, maker.Shape()
    )
    bad = bytearray(frame[0].data)
    bad[40] ^= 1
    path = tmp_path / "bad.pcap"
    path.write_bytes(
        containers.pcap([containers.Frame(0, bytes(bad))], containers.Interface(), 65535)
    )
    command = ["tshark", "-n", "-r", str(path), "-o", "tcp.check_checksum:TRUE"]
    command += ["-o", "udp.check_checksum:TRUE"]
    command += ["-Y", "tcp.checksum.status == 0 || udp.checksum.status == 0"]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, env=_only_layers(tmp_path)
    )
    assert answer.stdout


def _only_layers(folder: Path) -> dict[str, str]:
    """An environment in which tshark dissects the layers we build, nothing above."""
    listed = subprocess.run(
        ["tshark", "-G", "protocols"], capture_output=True, text=True, check=True
    )
    names = [line.split("\t")[2] for line in listed.stdout.splitlines()]
    off = [name for name in names if name not in LAYERS and not name.startswith("_ws")]
    (folder / "disabled_protos").write_text("\n".join(off) + "\n")
    return {**os.environ, "WIRESHARK_CONFIG_DIR": str(folder)}
