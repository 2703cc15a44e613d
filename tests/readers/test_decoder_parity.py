"""Kernel = reference decoder, record for record, over real captures and our own samples."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import pytest
from capture_kit import assert_conserved, border, merged, read_source

from telemetry.readers import open_source

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples" / "captures"
HOMES = (border, lambda: border(None, ("192.168.0.0/16", "10.0.0.0/8", "2001:db8::/32")))
FOLDERS = (
    "formats/containers",
    "formats/fragments",
    "formats/linktypes",
    "formats/malformed",
    "formats/protocols",
    "formats/tunnels",
    "benign",
    "attacks",
)


def assert_parity(paths: Iterable[Path], counts: dict[Path, int], home: int) -> int:
    """Reads every capture with both decoders; returns the packets kept."""
    border_ = HOMES[home]()
    kernel, reference = [], []
    for path in paths:
        for decoder, readings in (("kernel", kernel), ("dpkt", reference)):
            source = open_source(str(path))
            # One sensor a file: sensors are never merged, so that one merge serves a folder.
            readings.append(read_source(source, border_, decoder, path.name))
            source.close()
        tally = kernel[-1].tally
        assert tally == reference[-1].tally, path
        assert tally.read == counts.get(path, tally.read), path
        assert_conserved(kernel[-1])
    ours, theirs = merged(kernel), merged(reference)
    if not ours.equals(theirs):
        assert ours.to_pylist() == theirs.to_pylist()
    assert ours.schema == theirs.schema
    return sum(reading.tally.kept for reading in kernel)


# The long ones at the home that they were taken in alone: half a minute of Python each.
@pytest.mark.parametrize(
    ("folder", "home"),
    [
        pytest.param(folder, home, id=f"{folder}-{name}")
        for folder in FOLDERS
        for home, name in enumerate(("JP", "private"))
        if name == "private" or folder not in ("attacks", "benign")
    ],
)
def test_corpus(folder: str, home: int, corpus: Path) -> None:
    with (corpus / "MANIFEST.csv").open(newline="") as file:
        counts = {
            corpus / row["path"]: int(row["packets"])
            for row in csv.DictReader(file)
            if row["path"].startswith(folder + "/") and row["packets"].isdigit()
        }
    assert len(counts) > 20
    assert assert_parity(counts, counts, home) > 0


@pytest.mark.parametrize("home", range(len(HOMES)), ids=["JP", "private"])
def test_samples(home: int) -> None:
    paths = sorted(path for path in SAMPLES.iterdir() if ".pcap" in path.name)
    assert len(paths) >= 6
    kept = assert_parity(paths, {}, home)
    assert kept > 10_000 or home == 1
