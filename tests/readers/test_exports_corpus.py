"""Exports of real devices, beside what other tools make of the same datagrams.

nfcapd gets the messages over the loopback interface, each exporter from an address of its own;
nfdump then tells records and sums. Flow samples of sFlow are held against tshark's.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from capture_kit import border
from export_kit import Read, read_file

from telemetry.readers import Session

Message = tuple[int, bytes]  # number of the exporter, datagram


class Sums(NamedTuple):
    """What the records of some messages come to; `back` is the other direction."""

    records: int
    packets: int
    octets: int
    back_packets: int
    back_octets: int


CAPTURES = (
    "derived/asyncrat-cd010953.netflow-v5.pcap",
    "derived/asyncrat-cd010953.netflow-v9.pcap",
    "derived/quasarrat-09ffabf7.netflow-v9.pcap",
    "derived/ssh-bruteforce-lab.netflow-v5.pcap",
    "exports/ndpi_netflow-fritz.pcap",
    "exports/ndpi_netflowv9.pcap",
    "exports/pmacct_100-IPFIXv10-CISCO_traffic-00.pcap",
    "exports/pmacct_101-NFv9-CISCO-cust_primitives_traffic-00.pcap",
    "exports/pmacct_111-IPFIXv10-NFv9-IPv6-IPv4-mix_sources_traffic-01.pcap",
    "exports/pmacct_112-IPFIXv10-CISCO-options-map-reassignment_traffic-00.pcap",
    "exports/pmacct_400-IPFIXv10-BMP-CISCO-SRv6-multiple-sources_traffic-00.pcap",
    "exports/pmacct_500-IPFIXv10-BGP-CISCO-SRv6_traffic-00.pcap",
)
"""Captures of NetFlow and IPFIX."""
DEVICES = (
    "ipfix_test_barracuda_extended_uniflow",
    "ipfix_test_ixia",
    "ipfix_test_juniper_mx240_junos151r6s3",
    "ipfix_test_mikrotik",
    "ipfix_test_nokia_bras",
    "ipfix_test_openbsd_pflow",
    "ipfix_test_procera",
    "ipfix_test_viptela",
    "ipfix_test_yaf",
    "netflow5",
    "netflow5_test_microtik",
    "netflow9_test_0length_fields",
    "netflow9_test_cisco_1941K9",
    "netflow9_test_cisco_aci",
    "netflow9_test_cisco_wlc",
    "netflow9_test_field_layer2segmentid",
    "netflow9_test_h3c",
    "netflow9_test_h3c_netstream_varstring",
    "netflow9_test_huawei_netstream",
    "netflow9_test_invalid01",
    "netflow9_test_iptnetflow_reduced_size_encoding",
    "netflow9_test_juniper_srx",
    "netflow9_test_macaddr",
    "netflow9_test_nprobe",
    "netflow9_test_softflowd",
    "netflow9_test_ubnt_edgerouter",
    "netflow9_test_unknown",
)
"""Devices whose templates and data are files of raw datagrams."""
DROPPED = {
    # Its template is in none of its datagrams.
    "exports/ndpi_netflowv9.pcap": {"no_template": 23},
    "exports/pmacct_112-IPFIXv10-CISCO-options-map-reassignment_traffic-00.pcap": {
        "no_template": 6
    },
    "netflow9_test_iptnetflow_reduced_size_encoding": {"no_template": 6},
    # BMP and BGP sessions of the same routers.
    "exports/pmacct_400-IPFIXv10-BMP-CISCO-SRv6-multiple-sources_traffic-00.pcap": {
        "not_an_export": 23
    },
    "exports/pmacct_500-IPFIXv10-BGP-CISCO-SRv6_traffic-00.pcap": {"not_an_export": 3},
    # Stations by their MAC address, with an access point's address and no second one.
    "netflow9_test_cisco_wlc": {"no_address": 19},
}
DIFFERENCES = {
    # nfdump keeps records without addresses, as from 0.0.0.0 to 0.0.0.0; they say nothing of a
    # pair of hosts.
    "netflow9_test_cisco_wlc": (
        Sums(19, 133_708, 142_991_108, 0, 0),
        Sums(0, 0, 0, 0, 0),
    ),
    # Records of what leaves count in OUT_PKTS and OUT_BYTES alone. To nfdump these are the
    # other direction; to RFC 3954 they are the packets of the flow, from its source on.
    "netflow9_test_0length_fields": (Sums(10, 2, 64, 3, 96), Sums(10, 5, 160, 0, 0)),
}
"""(nfdump's sums, ours) where they differ, and why."""


def files_of(corpus: Path, device: str) -> list[Path]:
    """Returns the files of a device, those with templates first."""
    suffix = re.compile(re.escape(device) + r"(_(opttpl|tpl|data)[^_]*(_.*)?)?")
    folder = corpus / "records" / f"{device.partition('_')[0]}-datagrams"
    files = [path for path in folder.iterdir() if suffix.fullmatch(path.stem)]
    return sorted(files, key=lambda path: ("tpl" not in path.name, path.name))


def read_all(paths: Iterable[Path]) -> Read:
    """Reads sources one after another in one session."""
    session, whole = Session(border()), Read()
    for path in paths:
        one = read_file(path, session)
        assert one.name == "exports"
        assert one.tally.read == sum(map(len, one.batches)) + one.tally.dropped.total()
        whole.batches += one.batches
        whole.tally.read += one.tally.read
        whole.tally.packets += one.tally.packets
        whole.tally.dropped += one.tally.dropped
    return whole


def sums_of(got: Read) -> Sums:
    """Returns the sums of what was read."""

    def total(side: str, name: str) -> int:
        values = (getattr(getattr(batch, side), name) for batch in got.batches)
        return sum(int(np.maximum(value, 0).sum()) for value in values)

    counters = (total(side, name) for side in "ab" for name in ("packets", "bytes"))
    return Sums(sum(map(len, got.batches)), *counters)


# nfcapd


def replayed(messages: Sequence[Message], folder: Path) -> Sums:
    """Sends messages to an nfcapd, and asks nfdump what it stored."""
    port = free_port()
    command = ["nfcapd", "-w", str(folder), "-b", "127.0.0.1", "-p", str(port), "-t", "3600"]
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        sockets: dict[int, socket.socket] = {}
        for exporter, data in messages:
            if exporter not in sockets:
                sockets[exporter] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sockets[exporter].bind((f"127.0.1.{1 + exporter}", 0))
            sockets[exporter].sendto(data, ("127.0.0.1", port))
            time.sleep(0.001)
        time.sleep(0.5)
        for one in sockets.values():
            one.close()
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
    form = "fmt:%ipkt,%ibyt,%opkt,%obyt,%sa"
    told = subprocess.run(
        ["nfdump", "-R", str(folder), "-q", "-N", "-o", form],
        capture_output=True,
        text=True,
        check=False,  # an empty file is an error to it
    )
    rows = [line.split(",") for line in told.stdout.splitlines() if line.count(",") == 4]
    return Sums(len(rows), *(sum(int(row[i]) for row in rows) for i in range(4)))


def free_port() -> int:
    """Returns a UDP port that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(port: int) -> None:
    """Waits until somebody listens."""
    for _ in range(400):
        if f":{port:04X} " in Path("/proc/net/udp").read_text():
            return
        time.sleep(0.05)
    pytest.fail("nfcapd does not listen")


def datagrams_of(capture: Path) -> list[Message]:
    """Returns the UDP payloads of a capture, as tshark finds them."""
    fields = ("ip.src", "ipv6.src", "udp.srcport", "udp.payload")
    exporters: dict[tuple[str, ...], int] = {}
    found = []
    for *exporter, payload in tshark(capture, fields):
        if payload:
            number = exporters.setdefault(tuple(exporter), len(exporters))
            found.append((number, bytes.fromhex(payload)))
    return found


def tshark(capture: Path, fields: Sequence[str], *options: str) -> list[list[str]]:
    """Returns fields of each packet."""
    asked = [part for name in fields for part in ("-e", name)]
    told = subprocess.run(
        ["tshark", "-r", str(capture), *options, "-T", "fields", *asked],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("\t") for line in told.stdout.splitlines()]


def needs(*programs: str) -> None:
    """Skips a test whose programs are not installed."""
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize("name", CAPTURES)
def test_captures_agree_with_nfdump(corpus: Path, tmp_path: Path, name: str) -> None:
    needs("nfcapd", "nfdump", "tshark")
    path = corpus / "records" / name
    got = read_all([path])
    assert dict(got.tally.dropped) == DROPPED.get(name, {})
    assert sums_of(got) == replayed(datagrams_of(path), tmp_path)


@pytest.mark.parametrize("name", DEVICES)
def test_devices_agree_with_nfdump(corpus: Path, tmp_path: Path, name: str) -> None:
    needs("nfcapd", "nfdump")
    paths = files_of(corpus, name)
    got = read_all(paths)
    assert dict(got.tally.dropped) == DROPPED.get(name, {})
    theirs = replayed([(0, part) for path in paths for part in parts_of(path)], tmp_path)
    assert (theirs, sums_of(got)) == DIFFERENCES.get(name, (theirs, theirs))


def parts_of(path: Path) -> list[bytes]:
    """Returns the datagrams of a file; only one of the corpus holds several, all of v5."""
    data, parts = path.read_bytes(), []
    while data[:2] == b"\x00\x05":
        size = 24 + 48 * int.from_bytes(data[2:4])
        parts.append(data[:size])
        data = data[size:]
    return parts or [data]


def test_every_file_is_looked_at(corpus: Path) -> None:
    folders = ("ipfix", "netflow5", "netflow9")
    every = {p for f in folders for p in (corpus / "records" / f"{f}-datagrams").iterdir()}
    assert {path for device in DEVICES for path in files_of(corpus, device)} == every
    captures = {str(p.relative_to(corpus / "records")) for p in corpus.glob("records/*/*.pcap")}
    assert captures == {*CAPTURES, *SFLOW, BROKEN}


# tshark

SFLOW = {
    "exports/ndpi_sflow.pcap": ({"domestic": 1}, 0),
    # Five of its datagrams are NetFlow v5, sent to sFlow's port.
    "exports/tcpdump_sflow_multiple_counter_30_pdus.pcap": ({}, 7),
}
"""What is dropped, and how many records are not of sFlow."""
BROKEN = "exports/tcpdump_sflow_print-segv.pcap"


@pytest.mark.parametrize("name", SFLOW)
def test_flow_samples_agree_with_tshark(corpus: Path, name: str) -> None:
    needs("tshark")
    path = corpus / "records" / name
    got = read_all([path])
    dropped, others = SFLOW[name]
    assert dict(got.tally.dropped) == dropped
    asked = tshark(path, ["sflow_245.sampletype"], "-d", "udp.port==1-65535,sflow")
    samples = [kind for (kinds,) in asked for kind in kinds.split(",")]
    assert got.tally.read == samples.count("1") + samples.count("3") + others


def test_a_broken_message_is_read_as_far_as_it_goes(corpus: Path) -> None:
    session = Session(border(), captures="exports")
    got = read_file(corpus / "records" / BROKEN, session)
    assert (got.tally.packets, got.tally.read) == (1, got.tally.dropped.total())


@pytest.mark.parametrize("name", [name for name in CAPTURES if "derived" not in name])
def test_counters_agree_with_tshark(corpus: Path, name: str) -> None:
    """Sums over all data records that tshark finds a template for."""
    needs("tshark")
    path = corpus / "records" / name
    ports = "udp.port==1-65535,cflow"
    asked = tshark(path, ["cflow.octets", "cflow.packets"], "-d", ports)
    octets, packets = (
        sum(int(value) for row in asked for value in row[i].split(",") if value) for i in (0, 1)
    )
    sums = sums_of(read_all([path]))
    assert (sums.octets, sums.packets) == (octets, packets)
