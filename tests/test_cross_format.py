"""The same traffic, seen as a capture and in other formats, gives the same endpoints and sums."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest
from e2e import call, fixed_key

from telemetry.lake import query

Sent: TypeAlias = tuple[int | None, int | None]
"""Packets and IP bytes that one side sent; None where a source does not tell."""
Endpoints: TypeAlias = dict[str, tuple[Sent, Sent]]
"""What each endpoint and its peers sent."""


@dataclass(frozen=True)
class Pair:
    """A file of records/derived and what it was computed from.

    Attributes:
        derived: Its name.
        original: The capture or log below attacks/.
        home: What is domestic there.
        reader: The reader that must take it.
        differs: Which of `DIFFERENCES` its format makes.
    """

    derived: str
    original: str
    home: str
    reader: str
    differs: str = "nothing"


DIFFERENCES = {
    "nothing": "packets and IP bytes of each side are those of the capture",
    "one way": "a side that sent nothing has no record, and so nothing is told of it",
    "frames": (
        "Argus counts bytes from the Ethernet header on, with the padding of short frames (14 to "
        "32 bytes a packet); these columns hold the packets of both sides in one sum, so that a "
        "side's are known only where the other was silent"
    ),
}
"""What a format cannot express as the capture does, and why."""
FRAME = range(14, 33)
"""Bytes of a frame that are not IP's: the header, and padding up to 46 bytes for 28 of IP."""

SANDBOX, LAB = "192.168.100.0/24", "147.32.80.37/32"
ASYNCRAT = "asyncrat-cd010953/asyncrat-cd010953.pcap"
QUASARRAT = "quasarrat-09ffabf7/quasarrat-09ffabf7.pcap"
SSH = "ssh-bruteforce-lab/ssh-bruteforce.pcap"
REFLECTION = "ddos-tcp-reflection/tcp-reflection.pcap"
ICEDID = "icedid-2020-12/conn.log.gz"
PAIRS = [
    Pair("asyncrat-cd010953.binetflow", ASYNCRAT, SANDBOX, "argus", "frames"),
    Pair("asyncrat-cd010953.netflow-v5.pcap", ASYNCRAT, SANDBOX, "exports", "one way"),
    Pair("asyncrat-cd010953.netflow-v9.pcap", ASYNCRAT, SANDBOX, "exports", "one way"),
    Pair("asyncrat-cd010953.nfcapd", ASYNCRAT, SANDBOX, "nfdump", "one way"),
    Pair("ddos-tcp-reflection.nfcapd", REFLECTION, "10.10.10.0/24", "nfdump", "one way"),
    Pair("icedid-2020-12.conn.log.gz", ICEDID, "10.12.1.0/24", "zeek"),
    Pair("quasarrat-09ffabf7.netflow-v9.pcap", QUASARRAT, SANDBOX, "exports", "one way"),
    Pair("quasarrat-09ffabf7.nfcapd", QUASARRAT, SANDBOX, "nfdump", "one way"),
    Pair("ssh-bruteforce-lab.binetflow", SSH, LAB, "argus", "frames"),
    Pair("ssh-bruteforce-lab.netflow-v5.pcap", SSH, LAB, "exports", "one way"),
]

REASSEMBLED = {("ddos-tcp-reflection.nfcapd", "113.9.163.216"): (1, 20)}
"""Where the exporter put fragments together before it counted: packets and bytes (of IP
headers) that the endpoint's capture has more."""


def test_each_derived_file_is_compared(corpus: Path) -> None:
    files = {path.name for path in (corpus / "records" / "derived").iterdir()}
    assert files == {pair.derived for pair in PAIRS}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.derived)
def test_the_same_traffic_gives_the_same_endpoints(
    corpus: Path, tmp_path: Path, pair: Pair
) -> None:
    if pair.reader == "nfdump" and not shutil.which("nfdump"):
        pytest.skip("nfdump is not installed")
    derived = endpoints(
        corpus / "records" / "derived" / pair.derived, pair.home, tmp_path / "a", pair.reader
    )
    original = endpoints(corpus / "attacks" / pair.original, pair.home, tmp_path / "b")
    assert set(derived) == set(original) and original
    for (file, address), (packets, octets) in REASSEMBLED.items():
        if file == pair.derived:
            (sent, size), peer = original[address]
            assert sent is not None and size is not None
            original[address] = (sent - packets, size - octets), peer
    for address, sides in original.items():
        for told, (packets, octets) in zip(derived[address], sides, strict=True):
            assert packets is not None and octets is not None
            if pair.differs == "one way":
                assert told == ((packets, octets) if packets else (None, None)), address
            elif pair.differs == "nothing":
                assert told == (packets, octets), address
            else:
                assert (told[0] or 0) <= packets and told[1] is not None, address
                least, most = (octets + packets * more for more in (FRAME[0], FRAME[-1]))
                assert least <= told[1] <= most, address


def endpoints(source: Path, home: str, folder: Path, reader: str | None = None) -> Endpoints:
    """Takes a source in; returns what the lake's records sum up to."""
    folder.mkdir()
    answer = call(
        "ingest", source, "--home", home,
        "--lake", folder / "lake", "--key", fixed_key(folder / "key"), "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (told,) = answer.json["sources"]
    assert told["status"] == "ingested"
    assert reader is None or told["format"] == reader
    sums = query(
        folder / "lake",
        "SELECT endpoint_ip, sum(endpoint_packets)::BIGINT, sum(endpoint_bytes)::BIGINT, "
        "sum(peer_packets)::BIGINT, sum(peer_bytes)::BIGINT FROM records GROUP BY endpoint_ip",
        unselected=True,
    )
    rows = zip(*(column.to_pylist() for column in sums.columns), strict=True)
    return {address: ((a, b), (c, d)) for address, a, b, c, d in rows}
