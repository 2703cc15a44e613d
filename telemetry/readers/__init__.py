"""Readers: bytes of many formats in, raw batches out.

`READERS` is the ordered list of formats. A new one is a module with a `READER`
(see `contract.Reader`) and a line here.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from telemetry.errors import SourceError
from telemetry.readers.contract import Dated, Reader, Session
from telemetry.readers.source import Place, Source, head_of, open_source, places
from telemetry.readers.unread import refusal

__all__ = [
    "Place",
    "Session",
    "Source",
    "all_readers",
    "find_reader",
    "in_time_order",
    "open_source",
    "places",
    "reader_names",
]

# Order matters where two formats could claim the same bytes: strict magic numbers first.
_MODULES = (
    "telemetry.readers.mapped",
    "telemetry.readers.exports.reader",
    "telemetry.readers.pcap",
    "telemetry.readers.pcapng",
    "telemetry.readers.snoop",
    "telemetry.readers.zeek",
    "telemetry.readers.argus",
    "telemetry.readers.nfdump",
    "telemetry.readers.silk",
    "telemetry.readers.suricata",
    "telemetry.readers.azure_flow",
    "telemetry.readers.gcp_vpc",
    "telemetry.readers.goflow2",
    "telemetry.readers.pmacct",
    "telemetry.readers.aws_vpc",
)


@cache
def all_readers() -> tuple[Reader, ...]:
    """Returns the readers of all formats, in the order they are asked."""
    # Imported on first use: compiled kernels and polars take a second to load.
    readers: list[Reader] = [import_module(name).READER for name in _MODULES]
    return tuple(readers)


def reader_names() -> list[str]:
    """Returns the names of all formats."""
    return [reader.name for reader in all_readers()]


def find_reader(source: Source, session: Session) -> Reader:
    """Returns the reader that recognises a source by its content.

    Args:
        source: The opened input.
        session: What the readings of this run share.

    Raises:
        SourceError: No reader does.
    """
    if (reader := _reader_of(source.head, session)) is not None:
        if session.decoder == "dpkt" and reader.gated:
            from telemetry.readers.packets.reference import ReferenceReader

            return ReferenceReader(reader)
        return reader
    raise SourceError(
        refusal(source.head)
        or "Its format is not recognised; `sekisho doctor` names the formats that are read."
    )


def _reader_of(head: bytes, session: Session) -> Reader | None:
    """Returns the reader that recognises the first bytes, also inside another log's lines."""
    from telemetry.readers.wrapped import WrappedReader, ways_to_unwrap

    for reader in all_readers():
        if reader.recognises(head, session):
            return reader
    for unwrap, inside in ways_to_unwrap(head):
        for reader in all_readers():
            if not reader.gated and reader.recognises(inside, session):
                return WrappedReader(reader, unwrap)
    return None


def in_time_order(found: list[Place], session: Session) -> list[Place]:
    """Sorts sources by the time of their first packet or record.

    What tells no time, or cannot be looked into, comes after the rest, by name.

    Args:
        found: Sources, in any order.
        session: What the readings of this run share.
    """

    def key(place: Place) -> tuple[bool, int, str]:
        start = _start(place, session)
        return start is None, start or 0, place.name

    return sorted(found, key=key) if len(found) > 1 else found


def _start(place: Place, session: Session) -> int | None:
    try:
        head = head_of(place)
        reader = _reader_of(head, session)
        return reader.starts(head) if isinstance(reader, Dated) else None
    except SourceError:
        pass  # reading it will say why
    return None
