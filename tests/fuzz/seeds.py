"""What mutations begin with: samples by family of readers, and pieces of real captures."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import lz4.frame
import polars as pl
import pyarrow.parquet as pq
import zstandard
from harness import Given, record_sizes

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples"
FORMATS = SAMPLES / "formats"
LARGEST = 4096
"""Bytes of the longest seed: longer ones only slow the search."""
FAMILIES = {
    "captures": ("pcap", "pcapng", "snoop"),
    "exports": ("exports",),
    "texts": ("zeek", "argus", "silk", "aws_vpc"),
    "objects": ("suricata", "azure_flow", "gcp_vpc", "goflow2", "pmacct", "zeek"),
    "mapped": ("mapped",),
    "containers": (),
}
"""Readers by what they have in common; formats by name."""
_CORPUS = {
    "captures": ("formats/tunnels", "formats/linktypes", "formats/fragments", "formats/malformed"),
    "exports": ("records",),
    "texts": ("records",),
    "objects": ("records",),
    "containers": ("formats/containers",),
}


def given(family: str) -> Given:
    """Returns how the sources of a family are read."""
    if family == "captures":
        return Given(captures="traffic")
    if family == "exports":
        return Given(captures="exports")
    return Given(mapping=FORMATS / "mapped" / "flows.toml" if family == "mapped" else None)


@cache
def seeds(family: str) -> list[bytes]:
    """Returns samples of the project for a family of readers."""
    if family == "containers":
        return packed()
    paths = [path for name in FAMILIES[family] for path in sorted((FORMATS / name).iterdir())]
    others = ("expect.json", ".toml", "binary.argus", *((".json",) if family == "texts" else ()))
    found = [path.read_bytes() for path in paths if not path.name.endswith(others)]
    if family == "captures":
        found += [path.read_bytes() for path in sorted((SAMPLES / "captures").glob("*.pcap*"))]
    if family == "mapped":
        found += _other_tables(found[0])
    return [piece for data in found for piece in pieces(data)]


def _other_tables(text: bytes) -> list[bytes]:
    """Returns a CSV table as JSON Lines and as Parquet."""
    table = pl.read_csv(io.BytesIO(text))
    table.write_ndjson(lines := io.BytesIO())
    parquets = [io.BytesIO(), io.BytesIO()]
    pq.write_table(table.to_arrow(), parquets[0])
    pq.write_table(table.to_arrow(), parquets[1], compression="none", use_dictionary=False)
    return [lines.getvalue(), *(file.getvalue() for file in parquets)]


def packed() -> list[bytes]:
    """Returns a capture in each container."""
    plain = (FORMATS / "pcap" / "little_micro.pcap").read_bytes()
    archives = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile(archive := io.BytesIO(), "w", method) as file:
            file.writestr("a.pcap", plain)
            if method:
                file.writestr("b.pcap", plain)
        archives.append(archive.getvalue())
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w", format=form) as tarred:
            for name in ("a.pcap", "long/" * 30 + "b.pcap"):
                info = tarfile.TarInfo(name)
                info.size = len(plain)
                tarred.addfile(info, io.BytesIO(plain))
        archives += [archive.getvalue(), gzip.compress(archive.getvalue())]
    linked = lz4.frame.compress(plain, content_checksum=True, block_linked=True)
    streams = [gzip.compress(plain), zstandard.compress(plain), linked, bz2.compress(plain)]
    return [*archives, *streams, lzma.compress(plain), gzip.compress(zstandard.compress(plain))]


def pieces(data: bytes) -> Iterator[bytes]:
    """Yields a short source, or the beginning of a long one, cut between records."""
    sizes, end = list(record_sizes(data)), 0
    if data[:4] != b"\x0a\x0d\x0d\x0a":
        end = 24 if sizes else LARGEST
    for size in sizes:
        if end + size > LARGEST:
            break
        end += size
    yield data[:end]


def corpus_seeds(family: str) -> Iterator[bytes]:
    """Yields pieces of real sources of a family, where SEKISHO_CORPUS names their folder."""
    corpus = Path(os.environ.get("SEKISHO_CORPUS", "") or "/nonexistent")
    for folder in _CORPUS.get(family, ()):
        for path in sorted((corpus / folder).rglob("*")):
            if path.is_file() and path.stat().st_size < 1 << 22:
                yield from pieces(path.read_bytes())
