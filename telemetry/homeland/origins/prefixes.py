"""Text with a range and a country on each line: CSV of many vendors, and geofeeds (RFC 8805).

    203.0.113.0,203.0.113.255,JP        first address, last address, country
    203.0.113.0/24,JP                   prefix, country
    203.0.113.0/24,JP,JP-13,Tokyo,      a geofeed: region, city and postal code follow

Addresses may stand as decimal numbers. A first line that begins with a word is a header.
"""

from __future__ import annotations

import csv
import re

from telemetry.homeland.origins.claims import Origin, to_address

_HEADER = re.compile(r"[A-Za-z_ ]+")
"""What a column is called, and no address."""


def read(lines: list[str]) -> Origin:
    """Reads such text.

    Raises:
        ValueError: A line is not of either form, with its number.
    """
    origin = Origin("csv", "csv")
    try:
        rows = [
            (number, [cell.strip() for cell in row])
            for number, row in enumerate(csv.reader(lines), start=1)
            if row and "".join(row).strip() and not row[0].lstrip().startswith("#")
        ]
    except csv.Error as error:
        raise ValueError("it is no CSV") from error
    if rows and _HEADER.fullmatch(rows[0][1][0]):
        rows = rows[1:]
    if rows and all(len(row) >= 4 and _is_prefix_line(row) for _, row in rows):
        origin = Origin("geofeed", "geofeed")
    for number, row in rows:
        try:
            if _is_prefix_line(row):
                origin.add_network(row[0], row[1])
            else:
                first, last, country = row[:3]
                origin.add(to_address(first), to_address(last), country)
        except (ValueError, IndexError) as error:
            raise ValueError(f"line {number} is not of the format") from error
    return origin


def _begins_with_address(row: list[str]) -> bool:
    try:
        to_address(row[0].partition("/")[0])
    except ValueError:
        return False
    return True


def _is_prefix_line(row: list[str]) -> bool:
    """Whether the second cell is a country, so that the first is all of the range."""
    return "/" in row[0] or len(row) < 3 or not _begins_with_address(row[1:])
