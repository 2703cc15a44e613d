"""Origins: local files of many vendors in, claims on ranges out. Opens no connection."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from telemetry.errors import SettingsError
from telemetry.homeland.origins import cloud, mmdb, prefixes, registry
from telemetry.homeland.origins.claims import Claim, Origin

__all__ = ["Claim", "Origin", "read_origin"]

_MOST_BYTES: Final = 1 << 30


def read_origin(path: Path) -> tuple[Origin, bytes]:
    """Reads a file, whose format is recognised by its content.

    Returns:
        What it says, and its bytes.

    Raises:
        SettingsError: The file is missing, unknown, damaged or says nothing.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SettingsError(f"{path} is larger than a list of countries; name another file.")
        content = path.read_bytes()
    except OSError:
        raise SettingsError(f"{path} cannot be read; check its name and mode.") from None
    try:
        origin = _read(path, content)
    except ValueError as error:
        raise SettingsError(f"{path} cannot be used: {error}; get it again.") from None
    if not origin.claims:
        raise SettingsError(f"{path} gives no range to any country; name another file.")
    return origin, content


def _read(path: Path, content: bytes) -> Origin:
    if mmdb.recognises(content):
        return mmdb.read(path)
    if cloud.recognises(content):
        return cloud.read(content)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError("it is neither text nor a database that is known") from None
    return registry.read(lines) if registry.recognises(lines) else prefixes.read(lines)
