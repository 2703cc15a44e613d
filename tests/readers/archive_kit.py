"""A capture in archives, and how it is read from there."""

from __future__ import annotations

import io
import zipfile

from capture_kit import (
    DOMESTIC4,
    FOREIGN4,
    NOON,
    UDP,
    Packet,
    Reading,
    border,
    ethernet,
    ip4,
    pcap,
    read_source,
    udp,
)

from telemetry.readers import open_source
from telemetry.readers.source import Place

PACKET = ethernet(ip4(DOMESTIC4, FOREIGN4, UDP, udp(40000, 53, b"q" * 20)))
CAPTURE = pcap([Packet(NOON + i, PACKET) for i in range(50)])


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, **more: int) -> bytes:
    """Makes a zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in members.items():
            made.writestr(name, data, **more)
    return file.getvalue()


def reading(place: str | Place) -> Reading:
    """Reads a source to its end, hashes included."""
    source = open_source(place)
    try:
        made = read_source(source, border())
        source.finish()
        return made
    finally:
        source.close()
