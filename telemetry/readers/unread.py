"""What is known by its first bytes but not read: the refusal names it and says what to do.

Numbers are those by which Wireshark's wiretap library and the `file` program know the formats.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from telemetry.readers.rows.objects import first_objects

_CAPTURE = "It is {} capture, which is not read; convert it with `editcap -F pcapng`."
_ARCHIVE = "It is {}, which is not read here; unpack it first."


_ENOUGH = 4
"""Records in a row that make it no accident."""


class _Unread(NamedTuple):
    """A format: the bytes at an offset that show it, what it is, and what to do with it."""

    magic: bytes
    name: str
    refusal: str = _CAPTURE
    offset: int = 0


_FORMATS = (
    _Unread(b"RTSS", "a Microsoft Network Monitor 1"),
    _Unread(b"GMBU", "a Microsoft Network Monitor 2"),
    _Unread(b"TRSNIFF data    \x1a", "a Sniffer"),
    _Unread(b"XCP\0", "a NetXray or Windows Sniffer"),
    _Unread(b"VL\0\0", "a NetXray"),
    _Unread(b"ObserverPktBuffe", "a Network Instruments Observer"),
    _Unread(b"iptrace 1.0", "an AIX iptrace"),
    _Unread(b"iptrace 2.0", "an AIX iptrace"),
    _Unread(b"\x54\x52\x00\x64\x00", "an HP-UX nettl"),
    _Unread(b"\x05VNF", "a Visual Networks"),
    _Unread(b"\x7fver\0\0\0", "a Savvius or WildPackets Peek"),
    _Unread(b"\x00\x00\x02\x00\x12\x05\x00\x10", "a Tektronix K12"),
    _Unread(b"+---------+---------------+----------+", "a Tektronix K12 text"),
    _Unread(b"\x01\x10\x4c\0", "a Novell LANalyzer"),
    _Unread(b"\x07\x10\x4c\0", "a Novell LANalyzer"),
    _Unread(b"\xaa\xaa\xaa\xaa", "an InfoVista 5View"),
    _Unread(b"btsnoop\0", "a Bluetooth btsnoop"),
    _Unread(b"cpse", "a Colasoft Capsa"),
    _Unread(b"EyeSDN", "an EyeSDN"),
    _Unread(b"LOGG", "a Vector BLF"),
    _Unread(
        b"\xde\xad\xbe\xef",
        "a SiLK flow file",
        "It is {}, which is not read; convert it with `rwcut`.",
    ),
    _Unread(b"PK\3\4", "a zip file in a pipe or in another container", _ARCHIVE),
    _Unread(b"PK\7\x08", "a zip file in several parts", _ARCHIVE),
    _Unread(b"PK\5\6", "a zip file in a pipe or in another container", _ARCHIVE),
    _Unread(b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _ARCHIVE),
    _Unread(b"Rar!\x1a\x07", "a RAR archive", _ARCHIVE),
    _Unread(b"ustar", "a tar file in a pipe, in another archive or broken", _ARCHIVE, 257),
    _Unread(b"\x1f\x9d", "a file of compress", _ARCHIVE),
    _Unread(b"\x02\x21\x4c\x18", "a file in lz4's legacy format", _ARCHIVE),
    _Unread(b"LZIP", "an lzip file", _ARCHIVE),
    _Unread(b"\xff\x06\0\0sNaPpY", "a snappy file", _ARCHIVE),
    _Unread(
        b"\x0a\x0d\x0d\x0a",
        "a pcapng capture",
        "It begins as {}, but its byte order is not stated; record it anew.",
    ),
)


_HOLDERS = ("message", "@message", "_raw", "log", "line", "msg")
"""Where programs that ship logs put a line of one."""
_COLUMNS = 4
"""Separators in a line that make it a table's."""


def refusal(head: bytes) -> str | None:
    """Returns the sentence that refuses a source, if its format is known at all.

    Args:
        head: First bytes, after decompression.
    """
    if not head:
        return "Nothing is in its container."
    for known in _FORMATS:
        if head.startswith(known.magic, known.offset):
            return known.refusal.format(known.name)
    if _is_erf(head):
        return _CAPTURE.format("an Endace ERF")
    if _is_commview(head):
        return _CAPTURE.format("a TamoSoft CommView")
    if _is_printed(head):
        return (
            "It is text that nfdump printed for people; give nfdump's own file, or print it with "
            "`nfdump -o csv` and give a mapping (--mapping FILE)."
        )
    if _is_wrapped(head):
        return (
            "Its format is not recognised; take records that are wrapped in another log out first, "
            "a line each (such as with `jq -r .message`), or say with --mapping FILE what its "
            "columns mean."
        )
    if _is_table(head):
        return (
            "Its format is not recognised; --mapping FILE says which of its columns means what, if "
            "it is a table of flow records (README, Any table of records)."
        )
    return None


def _is_printed(head: bytes) -> bool:
    """Returns whether it begins as `nfdump -o line`, `long` or `extended` does."""
    line = head.lstrip().split(b"\n", 1)[0]
    return line.startswith(b"Date ") and b"Src IP Addr:Port" in line


def _is_wrapped(head: bytes) -> bool:
    """Returns whether a text in one of the first JSON objects, at any depth, may be a record."""
    found: list[Any] = list(first_objects(head))
    while found:
        value = found.pop()
        if isinstance(value, dict):
            if any(isinstance(value.get(key), str) for key in _HOLDERS):
                return True
            found += value.values()
        elif isinstance(value, list):
            found += value
    return False


def _is_table(head: bytes) -> bool:
    """Returns whether it may be CSV, JSON Lines or Parquet."""
    if head.startswith((b"PAR1", b"{")):
        return True
    lines = head.splitlines()[:3]
    return len(lines) > 1 and any(
        lines[0].count(mark) >= _COLUMNS and lines[0].count(mark) == lines[1].count(mark)
        for mark in (b",", b";", b"\t", b"|")
    )


def _is_commview(head: bytes) -> bool:
    """Returns whether it begins with a record of CommView, by the date that stands there."""
    for at in (4, 5):  # behind one length of 4 bytes, or two of 2 bytes and a version
        if len(head) < at + 11:
            return False
        year, month, day, hour, minute, second, micro = struct.unpack("<H5BI", head[at : at + 11])
        is_date = 1990 <= year < 2100 and 1 <= month <= 12 and 1 <= day <= 31
        if is_date and hour < 24 and minute < 60 and second <= 60 and micro < 1_000_000:
            return True
    return False


def _is_erf(head: bytes) -> bool:
    """Returns whether it is Endace's format, by its records, since it has no magic number."""
    records = at = 0
    while records < _ENOUGH and len(head) >= at + 16:
        kind, size, wire = struct.unpack(">BxHxxH", head[at + 8 : at + 16])
        if not 1 <= kind & 0x7F <= 48 or size < 16 or (size == 16 and wire):
            return False
        records += 1
        at += size
    return records == _ENOUGH or (records > 0 and at == len(head))
