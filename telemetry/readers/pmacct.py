"""JSON that pmacct's programs write to files and message queues (print, kafka and amqp plugins).

A line tells one direction. Where the flow's own times are not kept, a line stands for a bin
of time: from its start (`stamp_inserted`) to when it was written (`stamp_updated`), so that
bins that follow each other touch. Dates without a zone are taken for UTC (`timestamps_utc`).
Events that begin and end a purge are no records. The destination port of ICMP is type and code
in one, as in NetFlow v5, or 0 where none is told.

Sources: `plugin_cmn_json.c` of pmacct 1.7, and its CONFIG-KEYS.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from telemetry.raw import RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.numbers import looked_up
from telemetry.readers.rows.objects import any_object, object_lines
from telemetry.readers.rows.reader import RowsReader
from telemetry.readers.rows.records import Layout, batch
from telemetry.readers.rows.shaping import blanked, with_columns
from telemetry.readers.rows.texts import Key, Table, Texts, drop, table_of_json
from telemetry.reasons import Reason
from telemetry.records import Tally

_KEYS: dict[str, tuple[Key, ...]] = {
    "kind": ("event_type",),
    "src_ip": ("ip_src",),
    "dst_ip": ("ip_dst",),
    "src_port": ("port_src",),
    "dst_port": ("port_dst",),
    "protocol": ("ip_proto",),
    "src_packets": ("packets",),
    "src_bytes": ("bytes",),
    "src_tcp_flags": ("tcp_flags",),
    "sampling_rate": ("sampling_rate",),
    "start": ("timestamp_start", "timestamp_min", "stamp_inserted"),
    "end": ("timestamp_end", "timestamp_max", "stamp_updated"),
}
_LAYOUT = Layout(one_way=True, icmp_zeros=False)
_NO_RECORDS = {"purge_init": 0, "purge_close": 0, "log_init": 0, "log_close": 0}


class PmacctReader(RowsReader):
    """Reads the JSON of pmacctd, nfacctd, sfacctd and uacctd."""

    name = "pmacct"
    about = "pmacct JSON (print, Kafka and AMQP plugins)"

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether flows of pmacct stand at the start."""
        return any_object(head, _is_line)

    def batches(self, head: bytes, stream: IO[bytes], tally: Tally) -> Iterator[RawBatch]:
        """Yields the records of all flows; side `a` sent."""
        for piece in object_lines(head, stream, tally):
            table = table_of_json(piece, _KEYS)
            other = looked_up(table.get("kind"), _NO_RECORDS) == 0
            drop(tally, Reason.NOT_A_RECORD, int(other.sum()))
            if not other.all():
                yield batch(_dated(table.only(~other)), _LAYOUT, tally)


READER = PmacctReader()


def _dated(table: Table) -> Table:
    """Returns the table without the dates of a year 0, by which times are not told."""

    def told(texts: Texts) -> Texts:
        year, _, _ = texts.parted("-")
        return blanked(texts, looked_up(year, {"0000": 1}) == 1)

    return with_columns(table, {name: told(table.get(name)) for name in ("start", "end")})


def _is_line(row: dict[str, Any]) -> bool:
    if row.get("event_type") in _NO_RECORDS:
        return "writer_id" in row
    return {"ip_src", "ip_dst"} <= set(row) and bool({"packets", "bytes"} & set(row))
