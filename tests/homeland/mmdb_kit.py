"""Writes small MMDB databases (MaxMind DB File Format Specification, 2.0), for tests alone."""

from __future__ import annotations

import ipaddress
from typing import Any

MARKER = b"\xab\xcd\xefMaxMind.com"


def _field(value: Any) -> bytes:
    if isinstance(value, dict):
        parts = [part for item in value.items() for part in item]
        return bytes([0xE0 | len(value)]) + b"".join(map(_field, parts))
    if isinstance(value, _Wide):
        return value.encoded(4 if value < 1 << 24 else 8)
    if isinstance(value, list):
        return bytes([len(value), 4]) + b"".join(map(_field, value))
    if isinstance(value, str):
        data = value.encode()
        assert len(data) < 285
        head = [0x40 | len(data)] if len(data) < 29 else [0x40 | 29, len(data) - 29]
        return bytes(head) + data
    size = (value.bit_length() + 7) // 8
    return bytes([0xA0 | size]) + value.to_bytes(size, "big")  # uint16


class _Wide(int):
    """A uint32 or, of the given number of bytes, a uint64."""

    def encoded(self, width: int) -> bytes:
        return bytes([0xC4] if width == 4 else [8, 2]) + self.to_bytes(width, "big")


def mmdb(
    networks: dict[str, Any], kind: str, version: int = 6, epoch: int = 1_780_000_000
) -> bytes:
    """Returns a database that gives a record to each network."""
    tree: list[list[Any]] = [[None, None]]
    data, places = b"", {}
    for text, record in networks.items():
        network = ipaddress.ip_network(text)
        number, length = int(network.network_address), network.prefixlen
        if version == 6 and network.version == 4:
            length += 96
        width = 32 if version == 4 else 128
        bits = [number >> (width - 1 - n) & 1 for n in range(length)]
        places[text] = len(data)
        data += _field(record)
        node = 0
        for bit in bits[:-1]:
            if tree[node][bit] is None:
                tree[node][bit] = ("node", len(tree))
                tree.append([None, None])
            node = tree[node][bit][1]
        tree[node][bits[-1]] = ("data", places[text])
    count = len(tree)

    def pointer(entry: Any) -> int:
        if entry is None:
            return count
        return entry[1] if entry[0] == "node" else entry[1] + count + 16

    nodes = b"".join(pointer(side).to_bytes(4, "big") for node in tree for side in node)
    about = {
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": _Wide(epoch),
        "database_type": kind,
        "description": {"en": "made by a test"},
        "ip_version": version,
        "languages": ["en"],
        "node_count": _Wide(count),
        "record_size": 32,
    }
    return nodes + b"\0" * 16 + data + MARKER + _field(about)
