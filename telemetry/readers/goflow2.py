"""JSON of GoFlow2 and of its like, in the spellings of its versions 1 and 2.

A message tells one direction. A sampling rate of 0 is one that the exporter does not tell. A
time of 0 is none; then the time of its arrival at the collector stands for it. An ICMP type of 0
is none either, but in sFlow; of NetFlow v5 the destination port holds type and code.

Sources: `format/common/text.go`, `pb/flow.proto` and the README of GoFlow2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from telemetry.raw import RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.numbers import Unit, looked_up
from telemetry.readers.rows.objects import any_object, object_lines
from telemetry.readers.rows.reader import RowsReader
from telemetry.readers.rows.records import Layout, batch
from telemetry.readers.rows.shaping import blanked, with_columns, zeros_blanked
from telemetry.readers.rows.texts import Key, Table, Texts, table_of_json
from telemetry.records import Tally

_KEYS: dict[str, tuple[Key, ...]] = {
    "kind": ("type", "Type"),
    "src_ip": ("src_addr", "SrcAddr"),
    "dst_ip": ("dst_addr", "DstAddr"),
    "src_port": ("src_port", "SrcPort"),
    "dst_port": ("dst_port", "DstPort"),
    "protocol": ("proto", "Proto"),
    "src_packets": ("packets", "Packets"),
    "src_bytes": ("bytes", "Bytes"),
    "src_tcp_flags": ("tcp_flags", "TcpFlags", "TCPFlags"),
    "icmp_type": ("icmp_type", "IcmpType"),
    "icmp_code": ("icmp_code", "IcmpCode"),
    "sampling_rate": ("sampling_rate", "SamplingRate"),
    "start_ns": ("time_flow_start_ns", "TimeFlowStartNs"),
    "end_ns": ("time_flow_end_ns", "TimeFlowEndNs"),
    "start_ms": ("TimeFlowStartMs",),
    "end_ms": ("TimeFlowEndMs",),
    "start_s": ("time_flow_start", "TimeFlowStart"),
    "end_s": ("time_flow_end", "TimeFlowEnd"),
    "received_ns": ("time_received_ns", "TimeReceivedNs"),
    "received_s": ("time_received", "TimeReceived"),
}
_TIMES: tuple[tuple[str, str, Unit], ...] = (
    ("start_ns", "end_ns", "ns"),
    ("start_ms", "end_ms", "ms"),
    ("start_s", "end_s", "s"),
    ("received_ns", "received_ns", "ns"),
    ("received_s", "received_s", "s"),
)
"""Where the times of a message may stand, the best first."""
_ENDS = (("src_addr", "dst_addr"), ("SrcAddr", "DstAddr"))
_SIGNS = ("time_", "Time", "sampler_address", "SamplerAddress")


class GoFlow2Reader(RowsReader):
    """Reads messages of GoFlow2, one JSON object each."""

    name = "goflow2"
    about = "GoFlow2 JSON, in the spellings of versions 1 and 2"

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether messages of GoFlow2 stand at the start."""
        return any_object(head, _is_message)

    def batches(self, head: bytes, stream: IO[bytes], tally: Tally) -> Iterator[RawBatch]:
        """Yields the records of all messages; side `a` sent."""
        for piece in object_lines(head, stream, tally):
            table = table_of_json(piece, _KEYS)
            told = {name: zeros_blanked(table.get(name)) for pair in _TIMES for name in pair[:2]}
            sampled = looked_up(table.get("kind"), {"SFLOW_5": 1}) == 1
            kind = table.get("icmp_type")
            told["icmp_type"] = blanked(kind, (looked_up(kind, {"0": 1}) == 1) & ~sampled)
            rest = with_columns(table, told)
            for start, end, unit in _TIMES:
                here = rest.get(start).ends > rest.get(start).starts
                if here.any():
                    yield _batch(rest.only(here), start, end, unit, tally)
                rest = rest.only(~here)
            if len(rest):  # counted as malformed: it has no time
                yield _batch(rest, *_TIMES[0], tally)


READER = GoFlow2Reader()


def _is_message(row: dict[str, Any]) -> bool:
    ends = any(src in row and dst in row for src, dst in _ENDS)
    return ends and any(name.startswith(_SIGNS) for name in row)


def _batch(table: Table, start: str, end: str, unit: Unit, tally: Tally) -> RawBatch:
    times: dict[str, Texts | str] = {"start": table.get(start), "end": table.get(end)}
    return batch(
        with_columns(table, times), Layout(time=unit, one_way=True, icmp_zeros=False), tally
    )
