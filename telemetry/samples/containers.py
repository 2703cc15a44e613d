"""Small writers of pcap and pcapng, plain or compressed.

Layouts: libpcap's savefile format and the pcapng draft (draft-ietf-opsawg-pcapng).
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import zstandard

ETHERNET, RAW_IP, LINUX_COOKED = 1, 101, 113
"""Link-type numbers of the tcpdump registry."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A captured frame.

    Attributes:
        time: Microseconds since 1970.
        data: The whole frame; the writer cuts it to the snap length.
        interface: Index of the interface it was taken from.
    """

    time: int
    data: bytes
    interface: int = 0


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a capture, with the names a capture can betray.

    Attributes:
        link: Link-type number.
        nanoseconds: Whether times are written in nanoseconds.
        name: Interface name (pcapng).
        description: What the operator calls it (pcapng).
    """

    link: int = ETHERNET
    nanoseconds: bool = False
    name: str = ""
    description: str = ""


def pcap(frames: Sequence[Frame], interface: Interface, snaplen: int, order: str = "<") -> bytes:
    """A classic capture; `order` is the byte order in `struct`'s notation."""
    magic, unit = (0xA1B23C4D, 1000) if interface.nanoseconds else (0xA1B2C3D4, 1)
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, interface.link)
    parts = [head]
    for frame in frames:
        seconds, rest = divmod(frame.time, 1_000_000)
        kept = frame.data[:snaplen]
        parts.append(
            struct.pack(order + "IIII", seconds, rest * unit, len(kept), len(frame.data)) + kept
        )
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


_END = _option(0, b"")


def pcapng(
    frames: Sequence[Frame], interfaces: Sequence[Interface], snaplen: int, comment: str
) -> bytes:
    """A pcapng capture with comments, interface names and a name table.

    Args:
        frames: In time order.
        interfaces: Those the frames point at.
        snaplen: Bytes kept of each frame.
        comment: Text planted in the section, in the name table and in every 50th packet.
    """
    text = comment.encode()
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    section += _option(1, text) + _option(2, b"probe " + text) + _option(4, text) + _END
    parts = [_block(0x0A0D0D0A, section)]
    for interface in interfaces:
        body = struct.pack("<HHI", interface.link, 0, snaplen)
        body += _option(2, interface.name.encode()) + _option(3, interface.description.encode())
        parts.append(
            _block(1, body + _option(9, b"\x09" if interface.nanoseconds else b"\x06") + _END)
        )
    name = bytes([10, 255, 0, 1]) + text + b"\0"
    parts.append(_block(4, struct.pack("<HH", 1, len(name)) + _padded(name) + bytes(4)))
    for number, frame in enumerate(frames):
        time = frame.time * (1000 if interfaces[frame.interface].nanoseconds else 1)
        kept = frame.data[:snaplen]
        body = struct.pack(
            "<IIIII", frame.interface, time >> 32, time & 0xFFFFFFFF, len(kept), len(frame.data)
        )
        options = _option(1, text) + _END if number % 50 == 0 else b""
        parts.append(_block(6, body + _padded(kept) + options))
    for number in range(len(interfaces)):
        parts.append(_block(5, struct.pack("<III", number, 0, 0)))
    return b"".join(parts)


def compress(name: str, data: bytes) -> bytes:
    """The data compressed as the file name's ending asks, always to the same bytes."""
    if name.endswith(".gz"):
        return gzip.compress(data, 9, mtime=0)
    if name.endswith(".zst"):
        return zstandard.ZstdCompressor(level=19).compress(data)
    return data
