"""The card says what the scores reach on the real corpus; they still do."""

from __future__ import annotations

import csv
import json
import socket
from pathlib import Path

import dpkt
import pytest
from e2e import call

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
CARD = ROOT / "models" / "endpoint_risk" / "v1" / "CARD.md"
FOUND = "| role | found |"
BY_SET = "| dataset | endpoints |"
INFECTED = "iot23-slice-a"


def table(text: str, head: str) -> list[str]:
    return text[text.index(head) :].split("\n\n")[0].splitlines()


@pytest.mark.timeout(600)
def test_the_scores_are_worth_what_the_card_says(tmp_path: Path, corpus: Path) -> None:
    card, kept = tmp_path / "CARD.md", tmp_path / "lakes"
    done = call("model", "evaluate", "--corpus", corpus, "--keep", kept, "--card", card)
    assert done.code == 0, done.words
    now, then = card.read_text(encoding="utf-8"), CARD.read_text(encoding="utf-8")
    # Precision, the last two columns, rests on harmless addresses that the corpus does not hold.
    cut = [row.rsplit(" | ", 2)[0] for row in table(now, FOUND)]
    assert cut == [row.rsplit(" | ", 2)[0] for row in table(then, FOUND)]
    # The card also knows sets that are told of elsewhere.
    assert set(table(now, BY_SET)) <= set(table(then, BY_SET))
    _no_victim_is_listed(corpus / "attacks" / INFECTED / "victims.csv", kept / INFECTED)


FRAMEWORKS = {
    "otrf-covenant/*.pcap": "10.10.10.5",
    "otrf-empire/*.pcap": "10.10.10.5",
    "caldera-agents/*.pcap": "172.18.0.2",
}
TUNNELS = {
    "lab/ndpi_dns-tunnel-iodine.pcap": "10.0.2.20",
    "lab/ndpi_dns_exfiltration.pcap": "192.168.203.167",
    "lab/ndpi_bad-dns-traffic.pcap": "4.2.2.4",
    "lab/ndpi_icmp-tunnel.pcap": "192.168.154.132",
}
PUBLIC = "45.33.9.5"
HOMES = ["172.18.0.0/16", "10.0.2.0/24", "192.168.0.0/16"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("servers", "found"), [(FRAMEWORKS, "35 of 40"), (TUNNELS, "3 of 4")], ids=["c2", "tunnels"]
)
def test_what_private_servers_do_is_found_of_public_ones(
    servers: dict[str, str], found: str, tmp_path: Path, corpus: Path
) -> None:
    listed = [
        _is_listed(capture, server, tmp_path / str(number))
        for pattern, server in servers.items()
        for number, capture in enumerate(sorted((corpus / "attacks").glob(pattern)))
    ]
    assert f"{sum(listed)} of {len(listed)}" == found
    assert found in README.read_text(encoding="utf-8")


def _is_listed(capture: Path, server: str, folder: Path) -> bool:
    """Tells whether a server is listed that has a public address in place of its own."""
    folder = folder / capture.stem[:20]
    folder.mkdir(parents=True)
    moved = folder / "moved.pcap"
    own, public = socket.inet_aton(server), socket.inet_aton(PUBLIC)
    with capture.open("rb") as source, moved.open("wb") as target:
        packets = dpkt.pcap.Reader(source)
        writer = dpkt.pcap.Writer(target, linktype=packets.datalink())
        for at, packet in packets:
            writer.writepkt(packet.replace(own, public), at)
    homes = [word for home in HOMES for word in ("--home", home)]
    done = call("run", moved, "--lake", folder / "lake", "--json", *homes)
    assert done.code == 0, done.words
    return any(
        e["endpoint"] == PUBLIC and e["listed"] for e in json.loads(done.out)["score"]["endpoints"]
    )


def _no_victim_is_listed(victims: Path, lake: Path) -> None:
    """Whom an infected host attacks is met by it as its master is."""
    told = call("query", "SELECT endpoint FROM scores WHERE listed", "--lake", lake, "--json")
    listed = {json.loads(line)["endpoint"] for line in told.out.splitlines()}
    with victims.open() as file:
        attacked = {row["foreign_ip"] for row in csv.DictReader(file)}
    assert listed and attacked and not listed & attacked
