"""Files of nfdump (nfcapd, nfpcapd, sfcapd), through the program `nfdump`.

Layouts 1 and 2 of the file and all its compressions are the program's business. It prints one
line a record in a format of its own choice of fields (`-o fmt:`), which versions 1.6 and 1.7
agree on; their CSV and JSON differ from version to version.

A record tells of the packets from source to destination; `out` counters, which few exporters
fill, are those of the other direction, as nfdump itself uses them for bidirectional flows. Times
are in milliseconds. When the collector knew the sampling rate it has scaled the counters
already, and the file does not tell the rate. For ICMP the destination port reads `type.code`.

Sources: the manual page nfdump(1) and nfdump's `nffile.h`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from telemetry.errors import SourceError
from telemetry.raw import RawBatch
from telemetry.readers.contract import Session
from telemetry.readers.rows.numbers import Numbers
from telemetry.readers.rows.programs import Program, output_of
from telemetry.readers.rows.reader import finish
from telemetry.readers.rows.records import Layout, batch
from telemetry.readers.rows.shaping import icmp_parted
from telemetry.readers.rows.texts import Fields, chunks, table_of_lines
from telemetry.readers.source import Source
from telemetry.records import Tally

_COLUMNS = {
    "start": "%ts",
    "end": "%te",
    "protocol": "%pr",
    "src_ip": "%sa",
    "dst_ip": "%da",
    "src_port": "%sp",
    "dst_port": "%dp",
    "src_packets": "%ipkt",
    "src_bytes": "%ibyt",
    "dst_packets": "%opkt",
    "dst_bytes": "%obyt",
    "src_tcp_flags": "%flg",
}
_NFDUMP = Program(
    "nfdump",
    "nfdump",
    ("-r", "/dev/stdin", "-q", "-N", "-6", "-o", "fmt:" + "|".join(_COLUMNS.values())),
    seeks=True,
)
_FIELDS = Fields(tuple(_COLUMNS), separator=b"|", padded=True)
_MAGIC = 0xA50C
_LAYOUTS = (1, 2)


class NfdumpReader:
    """Reads files of nfdump."""

    name = "nfdump"
    about = "nfdump files, layouts 1 and 2, any compression (through nfdump)"
    gated = False

    def recognises(self, head: bytes, session: Session) -> bool:
        """Returns whether this is a file of nfdump."""
        return any(
            head.startswith(struct.pack(order + "HH", _MAGIC, layout))
            for order in "<>"
            for layout in _LAYOUTS
        )

    def read(self, source: Source, session: Session, tally: Tally) -> Iterator[RawBatch]:
        """Yields the records; side `a` is the source.

        Raises:
            SourceError: `nfdump` is not installed or cannot read it.
        """
        tally.unit = "records"
        with output_of(_NFDUMP, source) as output:
            for piece in chunks(output.stream, tally):
                yield from _batches(_records(piece), tally)
            output.end()
            if output.complained and not tally.read:
                raise SourceError("nfdump cannot read it; check the file with `nfdump -v`.")
            if output.complained:
                tally.damage = "nfdump did not read it to its end"
        finish(source, tally)


READER = NfdumpReader()


def _records(lines: bytes) -> bytes:
    """Leaves out what is no record: nfdump says in words that a file holds none."""
    bar = lines.find(b"|")
    return lines[lines.rfind(b"\n", 0, bar) + 1 :] if bar >= 0 else b""


def _batches(lines: bytes, tally: Tally) -> Iterator[RawBatch]:
    table = table_of_lines(lines, _FIELDS, {name: name for name in _COLUMNS}, tally)
    if not len(table):
        return
    table, numbers = icmp_parted(table), Numbers(table)
    answered = (numbers.counts("dst_packets") > 0) | (numbers.counts("dst_bytes") > 0)
    for both in (False, True):
        if (answered == both).any():
            yield batch(table.only(answered == both), Layout(one_way=not both), tally)
