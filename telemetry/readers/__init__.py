"""Readers: bytes of many formats in, raw batches out.

`READERS` is the ordered list of formats. A new one is a module with a `READER`
(see `contract.Reader`) and a line here.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from telemetry.errors import SourceError
from telemetry.readers.source import Source, open_source

if TYPE_CHECKING:
    from telemetry.readers.contract import Reader

__all__ = ["Source", "find_reader", "open_source", "reader_names"]

# Order matters where two formats could claim the same bytes: strict magic numbers first.
_MODULES = (
    "telemetry.readers.pcap",
    "telemetry.readers.pcapng",
    "telemetry.readers.zeek",
)


@cache
def _readers() -> tuple[Reader, ...]:
    # Imported on first use: compiled kernels and polars take a second to load.
    readers: list[Reader] = [import_module(name).READER for name in _MODULES]
    return tuple(readers)


def reader_names() -> list[str]:
    """Returns the names of all formats."""
    return [reader.name for reader in _readers()]


def find_reader(source: Source, decoder: str = "kernel") -> Reader:
    """Returns the reader that recognises a source by its content.

    Args:
        source: The opened input.
        decoder: `dpkt` takes the slow reference decoder for captures.

    Raises:
        SourceError: No reader does.
    """
    for reader in _readers():
        if reader.recognises(source.head):
            if decoder == "dpkt" and reader.gated:
                from telemetry.readers.reference import ReferenceReader

                return ReferenceReader(reader.name)
            return reader
    raise SourceError(
        "Its format is not recognised; `sekisho doctor` names the formats that are read."
    )
