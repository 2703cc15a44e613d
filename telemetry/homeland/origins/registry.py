"""The regional registries' statistics: `delegated-extended`, of all five registries.

    2|apnic|20260627|98765|19830613|20260626|+1000                  version line
    apnic|*|ipv4|*|54321|summary
    apnic|JP|ipv4|133.11.0.0|65536|19890101|allocated|A91A7381

`value` is a number of addresses for IPv4, not always a power of two, and a prefix
length for IPv6 (NRO, "RIR statistics exchange format"). Only what is `allocated` or
`assigned` is somebody's.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from datetime import UTC, datetime

from telemetry.homeland.origins.claims import Origin
from telemetry.homeland.ranges import NOT_STATED

_VERSION_LINE = re.compile(r"2(\.\d+)?\|(afrinic|apnic|arin|lacnic|ripencc)\|")
_HELD = {"allocated", "assigned"}
_FREE = {"available", "reserved"}


def recognises(lines: list[str]) -> bool:
    """Returns whether these are a registry's statistics."""
    first = next((line for line in lines if line.strip() and line[0] != "#"), "")
    return _VERSION_LINE.match(first) is not None


def read(lines: list[str]) -> Origin:
    """Reads a registry's statistics.

    Raises:
        ValueError: A line is not of the format, with its number; or lines are missing.
    """
    rows = [
        (number, line.strip().split("|"))
        for number, line in enumerate(lines, start=1)
        if line.strip() and line[0] != "#"
    ]
    origin = Origin("registry", rows[0][1][1], _day(rows[0][1][2]))
    promised: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for number, row in rows[1:]:
        try:
            if row[-1] == "summary":
                promised[row[2]] += int(row[4])
                continue
            found[row[2]] += 1
            _add(origin, row)
        except (ValueError, IndexError, TypeError) as error:
            raise ValueError(f"line {number} is not of the format") from error
    if any(found[kind] < number for kind, number in promised.items()):
        raise ValueError("it holds fewer lines than it says")
    return origin


def _add(origin: Origin, row: list[str]) -> None:
    _, country, kind, start, value, _, status = row[:7]
    if kind == "asn" or status in _FREE:
        return
    if status not in _HELD:
        raise ValueError("unknown status")
    if kind == "ipv6":
        origin.add_network(f"{start}/{value}", country)
    elif kind == "ipv4":
        first = ipaddress.IPv4Address(start)
        origin.add(first, first + (int(value) - 1), country)
    else:
        raise ValueError("unknown kind of number")


def _day(serial: str) -> str:
    """Reads the serial, which is a date for four registries and seconds since 1970 for one."""
    try:
        if len(serial) == 8:
            return datetime.strptime(serial, "%Y%m%d").date().isoformat()
        return datetime.fromtimestamp(int(serial), UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return NOT_STATED
