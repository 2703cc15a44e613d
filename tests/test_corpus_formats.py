"""Every file of the corpus is read, or refused by name, and no packet of it is lost.

A capture's packets are those that its manifest counts; where they are not, `OTHER_COUNTS` says why.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from telemetry.errors import SourceError
from telemetry.homeland import IN_OUT, OUT_IN, OUT_OUT, Border, load
from telemetry.privacy import Gate, Keys
from telemetry.raw import RawBatch, Side
from telemetry.readers import Session, find_reader, open_source
from telemetry.records import Tally

FOLDERS = (
    "formats/containers",
    "formats/fragments",
    "formats/linktypes",
    "formats/malformed",
    "formats/protocols",
    "formats/tunnels",
    "records",
    "attacks",
    "benign",
)
OTHER_COUNTS: dict[str, tuple[int, str]] = {}
"""Captures of which another number of packets is read than the manifest counts: it, and why."""
NOT_RECORDS: dict[str, str] = {
    "attacks/ctu50-normal40-day1/labels.config.gz": "rules that say how flows were labelled",
    "attacks/ctu50-normal42-day2/labels.config.gz": "rules that say how flows were labelled",
    "attacks/iot23-slice-a/victims.csv": "a list of addresses",
}
"""Files that may be refused as unknown, and what they are."""
UNKNOWN = "Its format is not recognised"


class Entry(NamedTuple):
    """A row of the manifest: path inside the corpus, and packets, if it counts them."""

    path: str
    packets: int | None


class Outcome(NamedTuple):
    """What became of a file: the reader, its counts, items handed over; or why it was refused."""

    reader: str
    tally: Tally
    handed_over: int
    refusal: str


def entries(corpus: Path, folder: str) -> list[Entry]:
    with (corpus / "MANIFEST.csv").open() as manifest:
        return [
            # Other units than packets are named: `36 flows`.
            Entry(row["path"], int(row["packets"]) if row["packets"].isdigit() else None)
            for row in csv.DictReader(manifest)
            if row["path"].startswith(f"{folder}/")
        ]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    border = Border(load("JP", ()), OUT_IN | IN_OUT | OUT_OUT)
    return Gate(border, Keys.create(tmp_path_factory.mktemp("key") / "key"), "link")


@pytest.fixture(scope="module")
def border() -> Border:
    return Border(load("JP", ()), OUT_IN | IN_OUT | OUT_OUT)


def outcome(path: Path, gate: Gate, border: Border) -> Outcome:
    """Reads a file as an ingest does."""
    tally = Tally()
    handed_over = 0
    try:
        source = open_source(str(path))
    except SourceError as error:
        return Outcome("", tally, 0, str(error))
    try:
        session = Session(border)
        reader = find_reader(source, session)
        for batch in reader.read(source, session, tally):
            batch.check()
            handed_over += packets(batch) if reader.gated else len(batch)
            gate.admit(batch, tally, reader.gated)
        source.finish()
    except SourceError as error:
        return Outcome("", tally, 0, str(error))
    finally:
        source.close()
    return Outcome(reader.name, tally, handed_over, "")


def packets(batch: RawBatch) -> int:
    def sent(side: Side) -> int:
        return int(side.packets.sum())

    return sent(batch.a) + sent(batch.b)


def faults(entry: Entry, found: Outcome) -> Iterator[str]:
    """Yields what is wrong with the reading of a file."""
    if found.refusal:
        named = not found.refusal.startswith(UNKNOWN)
        if not named and entry.path not in NOT_RECORDS:
            yield "refused without a name"
        if entry.path in NOT_RECORDS and named:
            yield "refused by name: take it off NOT_RECORDS"
        if not found.refusal.endswith("."):
            yield "refused without a sentence"
        return
    tally = found.tally
    dropped = sum(tally.dropped.values())
    if min([*tally.dropped.values(), tally.kept]) < 0 or tally.read != tally.kept + dropped:
        yield f"counts do not add up: {tally}"
    if found.reader in CAPTURES and found.handed_over != tally.kept:
        yield f"{found.handed_over} packets handed over, {tally.kept} kept"
    if entry.packets is None:
        return
    expected, _ = OTHER_COUNTS.get(entry.path, (entry.packets, ""))
    # Of a capture of exports, records are read; of its packets only the number is told.
    read = tally.read if tally.unit == "packets" else tally.packets
    if read != expected and entry.path.endswith((".pcap", ".pcapng", ".cap", ".pcap.gz")):
        yield f"{read} packets read, {expected} are there"


CAPTURES = ("pcap", "pcapng", "snoop")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_read_or_refused_by_name(
    corpus: Path, gate: Gate, border: Border, folder: str
) -> None:
    listed = entries(corpus, folder)
    assert listed
    wrong = []
    readers: Counter[str] = Counter()
    for entry in listed:
        found = outcome(corpus / entry.path, gate, border)
        readers[found.reader or "refused"] += 1
        wrong += [f"{entry.path}: {fault}" for fault in faults(entry, found)]
    assert not wrong, "\n".join(wrong)
    assert readers.total() == len(listed)


def test_exceptions_are_of_files_that_are_there(corpus: Path) -> None:
    for path in (*OTHER_COUNTS, *NOT_RECORDS):
        assert (corpus / path).is_file(), path
