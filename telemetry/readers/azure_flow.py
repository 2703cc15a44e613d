"""Flow logs of Azure: network security groups (versions 1 and 2) and virtual networks.

A file is one JSON document for an hour, nested five deep, and all that counts stands in texts
in its arrays `flowTuples`. They are cut out as the bytes pass; the rest, with names of rules,
resources and hardware addresses, is never taken apart.

* Version 1 names a flow once and counts nothing: both sides unknown but for the time.
* Later logs tell the start of a flow (B, no counts), what both sides sent since the last
  tuple every five minutes (C), and the rest at its end (E). C reaches back five minutes; B and E
  are given their own time alone.
* A denied flow had no answer: the other side sent nothing.
* Neither flags nor ICMP types are told. Who stands first called.

A flow that passes two network interfaces, or two groups, with logs of their own counts twice.

Sources: Microsoft Learn, flow logging for network security groups; virtual network flow logs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

import numpy as np

from telemetry.raw import I64, RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.numbers import looked_up
from telemetry.readers.rows.reader import RowsReader
from telemetry.readers.rows.records import Layout, batch
from telemetry.readers.rows.shaping import NOT_TOLD, blanked, constant, with_columns
from telemetry.readers.rows.texts import BOM, Fields, Flags, Table, Texts, drop, table_of_lines
from telemetry.reasons import Reason
from telemetry.records import Tally

_KEY = b'"flowTuples"'
_OPENS = re.compile(rb'"flowTuples"\s*:\s*\[')
_BLOCK = 1 << 20
_LONGEST = 1 << 12
"""Bytes that a tuple takes at most, and what may stand between the key and its array."""
_UPDATE_S = 300
"""Seconds between two tuples of a flow that goes on."""
_COUNTERS = ("src_packets", "src_bytes", "dst_packets", "dst_bytes")
_NAMES = ("time", "src_ip", "dst_ip", "src_port", "dst_port", "protocol", "way", "eighth", "ninth")
_FIELDS = Fields(names=(*_NAMES, *_COUNTERS), spare=5)
"""Version 1 has eight fields. The eighth is the decision of a group (A, D), with the state (B,
C, E) in the ninth; in logs of virtual networks it is the state (B, C, E, D), then encryption."""
_WANTED = {name: name for name in _FIELDS.names if name != "way"}
_BEGUN, _GOING_ON, _ENDED, _DENIED = range(4)
_STATES = {"B": _BEGUN, "C": _GOING_ON, "E": _ENDED}


class AzureFlowReader(RowsReader):
    """Reads flow logs of Azure, whole or cut."""

    name = "azure_flow"
    about = "Azure flow logs: network security groups v1 and v2, virtual networks"

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether this is JSON with flow tuples."""
        starts = head.removeprefix(BOM).lstrip()[:1] in (b"{", b"[")
        return starts and _KEY in head

    def batches(self, head: bytes, stream: IO[bytes], tally: Tally) -> Iterator[RawBatch]:
        """Yields the records of all tuples; side `a` called."""
        for lines in _tuples(stream, tally):
            table = table_of_lines(lines, _FIELDS, _WANTED, tally)
            state = _states(table)
            drop(tally, Reason.MALFORMED_ROW, int((state < 0).sum()))
            for kind in (_BEGUN, _GOING_ON, _ENDED, _DENIED):
                if (state == kind).any():
                    rows = with_columns(table.only(state == kind), NOT_TOLD)
                    yield batch(_shaped(rows, kind), _LAYOUT, tally)


READER = AzureFlowReader()
_LAYOUT = Layout(active_timeout=_UPDATE_S)


def _tuples(stream: IO[bytes], tally: Tally) -> Iterator[bytes]:
    """Yields the texts of all arrays of tuples, a line each."""
    rest, inside = b"", False
    while block := stream.read(_BLOCK):
        text, at, lines = rest + block, 0, []
        while True:
            if not inside:
                if (opens := _OPENS.search(text, at)) is None:
                    rest = text[max(at, len(text) - _LONGEST) :]
                    break
                at, inside = opens.end(), True
            end = text.find(b"]", at)
            if end < 0:
                whole = _whole(text, at)
                lines.append(_lines(text[at:whole]))
                rest = text[whole:]
                if len(rest) > _LONGEST:
                    drop(tally, Reason.MALFORMED_ROW, 1)
                    rest = b'"'
                break
            lines.append(_lines(text[at:end]))
            at, inside = end, False
        yield b"".join(lines)
    if inside:
        yield _lines(rest)
        tally.damage = "it ends within an array of flows"


def _whole(text: bytes, at: int) -> int:
    """Returns where the last text ends that is closed."""
    last = text.rfind(b'"', at)
    return at if last < 0 else last + (text.count(b'"', at) % 2 == 0)


def _lines(array: bytes) -> bytes:
    """Returns the texts within an array, a line each, with protocols as numbers."""
    flat = array.translate(None, b" \t\r\n").strip(b",")
    if not flat:
        return b""
    lines = flat.removeprefix(b'"').removesuffix(b'"').replace(b'","', b"\n") + b"\n"
    return lines.replace(b",T,", b",6,").replace(b",U,", b",17,")


def _states(table: Table) -> I64:
    """Returns what each tuple tells; -1 for what fits no version."""
    eighth, ninth = table.get("eighth"), table.get("ninth")
    state = looked_up(ninth, _STATES)
    of_network = (state < 0) & (ninth.ends > ninth.starts)
    first = ninth.ends == ninth.starts  # version 1
    state = np.where(of_network, looked_up(eighth, _STATES), np.where(first, _BEGUN, state))
    denied = looked_up(eighth, {"D": 1}) == 1
    allowed = looked_up(eighth, {"A": 1}) == 1
    fits = of_network | allowed | denied
    return np.where(denied, _DENIED, np.where(fits, state, -1))


def _shaped(table: Table, kind: int) -> Table:
    rows: Flags = np.ones(len(table), dtype=np.bool_)
    more: dict[str, Texts | str] = {"end": table.get("time")}
    if kind == _GOING_ON:
        more["duration"] = str(_UPDATE_S)
    if kind in (_BEGUN, _DENIED):
        more |= {name: blanked(table.get(name), rows) for name in _COUNTERS}
    if kind == _DENIED:
        more |= {name: constant("0", len(table)) for name in ("dst_packets", "dst_bytes")}
    return with_columns(table, more)
