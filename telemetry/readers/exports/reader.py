"""Reads flow exports, wherever they are carried."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from telemetry.raw import RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.exports.carriers import (
    capture_of,
    carries_exports,
    datagrams_in_capture,
    datagrams_in_file,
    exported_at,
    holds_messages,
)
from telemetry.readers.exports.flows import FlowDecoder
from telemetry.readers.exports.samples import SampleDecoder
from telemetry.readers.exports.templates import Templates
from telemetry.readers.packets.capture import count
from telemetry.readers.source import HEAD, Source
from telemetry.reasons import Reason
from telemetry.records import Tally


class ExportsReader:
    """Reads NetFlow, IPFIX and sFlow."""

    name = "exports"
    about = (
        "NetFlow v1, v5, v7, v9, IPFIX and sFlow v5: captures of their datagrams, files of raw "
        "datagrams, IPFIX files"
    )
    gated = False

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether the source is a capture of exports, or a file of messages.

        A capture is one if the session says so, or, where it leaves that to the captures, if
        at least half of the packets in its first bytes are valid export messages.
        """
        capture = capture_of(head)
        if capture is None:
            return holds_messages(head, whole=len(head) < HEAD)
        if session.captures == "auto":
            return carries_exports(head, capture)
        return session.captures == "exports"

    def starts(self, head: bytes) -> int | None:
        """Returns when the first packet was captured, or the first message exported."""
        capture = capture_of(head)
        return exported_at(head) if capture is None else capture.starts(head)

    def read(self, source: Source, session: Session, tally: Tally) -> Iterator[RawBatch]:
        """Yields the records that were exported; see `contract.Reader`.

        Packets without an export message are counted as `not_an_export`, sets of data whose
        template never came as `no_template` each, what is left of a message that breaks off
        or makes no sense as one `malformed_row`.
        """
        tally.unit = "records"
        templates = session.carried.setdefault(self.name, Templates())
        capture, stream = capture_of(source.head), source.stream()
        if capture is None:
            messages = datagrams_in_file(stream, tally)
        else:
            messages = datagrams_in_capture(stream, capture.walker(stream, tally), tally)
        counts = np.zeros(len(Reason), np.int64)
        flows = FlowDecoder(templates, counts, transient=capture is not None)
        samples = SampleDecoder(session.border, counts)
        for datagrams, n in messages:
            yield from flows.decode(datagrams, n)
            yield from samples.decode(datagrams, n)
        yield from flows.finish()
        yield from samples.finish()
        count(counts, tally)
        tally.damage = source.damage or tally.damage


READER = ExportsReader()
