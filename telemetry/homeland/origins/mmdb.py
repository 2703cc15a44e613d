"""MMDB databases of any vendor ("MaxMind DB File Format Specification", 2.0)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from telemetry.homeland.origins.claims import Origin
from telemetry.homeland.ranges import NOT_STATED

_MARKER: Final = b"\xab\xcd\xefMaxMind.com"
_MARKER_WITHIN: Final = 128 * 1024
"""Bytes from the end within which the metadata begins, by the specification."""
_MOST_NETWORKS: Final = 20_000_000
"""More come out of a broken tree only."""
_COUNTRY_PATHS: Final = (
    ("country", "iso_code"),
    ("country_code",),
    ("country",),
    ("countryCode",),
    ("country_iso_code",),
    ("registered_country", "iso_code"),
)
"""Where vendors write the country; the first that is there counts."""
_LICENCES: Final = {
    "GeoLite2": "GeoLite2 End User License Agreement",
    "GeoIP2": "GeoIP2 licence of the subscriber",
    "DBIP-Country-Lite": "CC BY 4.0, DB-IP",
}
"""Terms of vendors, by how the database's type begins."""


def recognises(content: bytes) -> bool:
    """Returns whether this is such a database."""
    return _MARKER in content[-_MARKER_WITHIN:]


def read(path: Path) -> Origin:
    """Reads a database of countries.

    Raises:
        ValueError: It is damaged, or tells no countries.
    """
    import maxminddb  # its mode MMAP is pure Python: the C reader crashes on damaged files

    try:
        with maxminddb.open_database(path, maxminddb.MODE_MMAP) as database:
            about = database.metadata()
            kind = re.sub(r"[^A-Za-z0-9._-]+", "-", about.database_type).strip("-._")[:48]
            origin = Origin("mmdb", kind or "mmdb", _day(about.build_epoch), _licence(kind))
            for number, (network, record) in enumerate(database):
                if number >= _MOST_NETWORKS:
                    raise ValueError("its tree has no end")
                origin.add(network[0], network[-1], _country(record))
    except Exception as error:  # a damaged tree makes the library raise nearly anything
        raise ValueError("the database is damaged") from error
    if not origin.claims:
        raise ValueError("the database tells no countries")
    return origin


def _country(record: object) -> str:
    for path in _COUNTRY_PATHS:
        value = record
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and len(value) <= 2:
            return value
    return ""


def _licence(kind: str) -> str:
    return next((text for start, text in _LICENCES.items() if kind.startswith(start)), NOT_STATED)


def _day(epoch: int) -> str:
    try:
        return datetime.fromtimestamp(epoch, UTC).date().isoformat() if epoch else NOT_STATED
    except (ValueError, OverflowError, OSError):
        return NOT_STATED
