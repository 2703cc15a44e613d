"""VPC flow logs of Google Cloud, as Cloud Logging exports them: objects a line each, or an array.

A record tells one direction, from the side that reports it. Google looks at a sample of the
packets and multiplies its counts itself; how large the sample was is not told. ICMP types are
not told either.

Source: Google Cloud, About VPC Flow Logs records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from telemetry.raw import RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.objects import any_object, object_lines
from telemetry.readers.rows.reader import RowsReader
from telemetry.readers.rows.records import Layout, batch
from telemetry.readers.rows.shaping import NOT_TOLD, with_columns
from telemetry.readers.rows.texts import Key, drop, json_value, table_of_json
from telemetry.reasons import Reason
from telemetry.records import Tally

_FIELDS: dict[str, tuple[str, ...]] = {
    "src_ip": ("connection", "src_ip"),
    "dst_ip": ("connection", "dest_ip"),
    "src_port": ("connection", "src_port"),
    "dst_port": ("connection", "dest_port"),
    "protocol": ("connection", "protocol"),
    "src_packets": ("packets_sent",),
    "src_bytes": ("bytes_sent",),
    "start": ("start_time",),
    "end": ("end_time",),
    "reporter": ("reporter",),
}
_KEYS: dict[str, tuple[Key, ...]] = {
    name: (("jsonPayload", *path), path) for name, path in _FIELDS.items()
} | {"entry": ("logName", "insertId", "timestamp")}
"""A record stands in an entry of Cloud Logging, or by itself."""


class GcpVpcReader(RowsReader):
    """Reads VPC flow logs of Google Cloud."""

    name = "gcp_vpc"
    about = "Google Cloud VPC flow logs (JSON)"

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether records of Google's flow logs stand at the start."""
        return any_object(head, _is_record)

    def batches(self, head: bytes, stream: IO[bytes], tally: Tally) -> Iterator[RawBatch]:
        """Yields the records; side `a` sent. Entries of other logs are no records."""
        for piece in object_lines(head, stream, tally):
            table = with_columns(table_of_json(piece, _KEYS), NOT_TOLD)
            entry, src = table.get("entry"), table.get("src_ip")
            other = (entry.ends > entry.starts) & (src.ends == src.starts)
            drop(tally, Reason.NOT_A_RECORD, int(other.sum()))
            if not other.all():
                yield batch(table.only(~other), Layout(one_way=True), tally)


READER = GcpVpcReader()


def _is_record(row: dict[str, Any]) -> bool:
    return any(
        all(json_value(row, (*path, *_FIELDS[name])) is not None for name in ("src_ip", "dst_ip"))
        and any(json_value(row, (*path, *_FIELDS[name])) for name in ("reporter", "start"))
        for path in (("jsonPayload",), ())
    )
