"""Suricata's eve.json: events of kind flow and netflow.

* A flow event tells both sides. A netflow event tells one; when there are both kinds in a
  source, they tell the same, and netflow events are superseded.
* Alerts are counted and go no further: what a signature says never reaches a score. Events of
  other kinds (dns, http, tls, stats …) are no records.
* AWS Network Firewall writes the same events, each inside an object of its own.
* Bytes are those of whole frames, with the header of the link, as Suricata counts them.
* Flags `00` stand for a connection that Suricata did not follow: unknown.

Sources: Suricata's user guide, EVE JSON format; `output-json-netflow.c` and
`output-json-flow.c` of its sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from telemetry.raw import RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.numbers import looked_up
from telemetry.readers.rows.objects import any_object, object_lines
from telemetry.readers.rows.reader import RowsReader
from telemetry.readers.rows.records import Layout, batch
from telemetry.readers.rows.shaping import blanked, with_columns
from telemetry.readers.rows.texts import Key, Table, drop, table_of_json
from telemetry.reasons import Reason
from telemetry.records import Tally

_FLOW, _NETFLOW, _ALERT = range(3)
_KINDS = {"flow": _FLOW, "netflow": _NETFLOW, "alert": _ALERT}
_SHARED: dict[str, tuple[Key, ...]] = {
    "kind": ("event_type",),
    "src_ip": ("src_ip",),
    "dst_ip": ("dest_ip",),
    "src_port": ("src_port",),
    "dst_port": ("dest_port",),
    "protocol": ("proto",),
    "icmp_type": ("icmp_type",),
    "icmp_code": ("icmp_code",),
    "start": (("flow", "start"), ("netflow", "start")),
    "end": (("flow", "end"), ("netflow", "end")),
    "src_packets": (("flow", "pkts_toserver"), ("netflow", "pkts")),
    "src_bytes": (("flow", "bytes_toserver"), ("netflow", "bytes")),
    "dst_packets": (("flow", "pkts_toclient"),),
    "dst_bytes": (("flow", "bytes_toclient"),),
    "src_tcp_flags": (("tcp", "tcp_flags_ts"),),
    "dst_tcp_flags": (("tcp", "tcp_flags_tc"),),
    "tcp_flags": (("tcp", "tcp_flags"),),
}
_INSIDE: dict[str, tuple[Key, ...]] = {
    name: tuple(("event", *((key,) if isinstance(key, str) else key)) for key in keys)
    for name, keys in _SHARED.items()
}
"""Where AWS Network Firewall has them."""


class SuricataReader(RowsReader):
    """Reads eve.json, rotated or cut."""

    name = "suricata"
    about = "Suricata eve.json: flow and netflow events, also of AWS Network Firewall"

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether events of Suricata stand at the start."""
        return any_object(head, _is_event) or any_object(head, _holds_event)

    def batches(self, head: bytes, stream: IO[bytes], tally: Tally) -> Iterator[RawBatch]:
        """Yields the records of flow events, or of netflow events where there are no others."""
        told: int | None = None
        keys = _SHARED if any_object(head, _is_event) else _INSIDE
        for piece in object_lines(head, stream, tally):
            table = table_of_json(piece, keys)
            kind = looked_up(table.get("kind"), _KINDS)
            if told is None:
                told = _FLOW if (kind == _FLOW).any() else None
                told = _NETFLOW if told is None and (kind == _NETFLOW).any() else told
            empty = table.get("kind").ends == table.get("kind").starts
            drop(tally, Reason.MALFORMED_ROW, int(empty.sum()))
            drop(tally, Reason.ALERT, int((kind == _ALERT).sum()))
            drop(tally, Reason.NOT_A_RECORD, int(((kind < 0) & ~empty).sum()))
            superseded = np.isin(kind, (_FLOW, _NETFLOW)) & (kind != told)
            drop(tally, Reason.SUPERSEDED, int(superseded.sum()))
            if (kind == told).any():
                yield _batch(table.only(kind == told), told == _NETFLOW, tally)


READER = SuricataReader()


def _is_event(row: dict[str, Any]) -> bool:
    # Logstash renames the time.
    return isinstance(row.get("event_type"), str) and bool({"timestamp", "@timestamp"} & set(row))


def _holds_event(row: dict[str, Any]) -> bool:
    event = row.get("event")
    return isinstance(event, dict) and _is_event(event)


def _batch(table: Table, one_way: bool, tally: Tally) -> RawBatch:
    flags = {"src_tcp_flags": "tcp_flags" if one_way else "src_tcp_flags"}
    if not one_way:
        flags["dst_tcp_flags"] = "dst_tcp_flags"
    columns = {name: table.get(own) for name, own in flags.items()}
    known = {
        name: blanked(texts, looked_up(texts, {"00": 0}) == 0) for name, texts in columns.items()
    }
    return batch(with_columns(table, known), Layout(one_way=one_way, hex_flags=True), tally)
