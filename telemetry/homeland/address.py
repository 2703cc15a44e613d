"""Addresses as text and as two 64-bit halves; IPv4 stands as ::ffff:a.b.c.d."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

MAPPED: Final = 0xFFFF << 32
"""The number of ::ffff:0.0.0.0, under which IPv4 addresses stand."""
_LOW_64: Final = (1 << 64) - 1
_OCTETS: Final = tuple(str(n) for n in range(256))


def to_number(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    """Returns an address of either family as one 128-bit number."""
    return int(address) + (MAPPED if address.version == 4 else 0)


def parse_address(text: str) -> tuple[int, int]:
    """Reads an address.

    Args:
        text: IPv4 or IPv6 in any valid spelling.

    Returns:
        The upper and the lower 64 bits of its 16 bytes in network order.

    Raises:
        ValueError: It is not an address; the message does not repeat it.
    """
    try:
        number = to_number(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("not an IP address") from None
    return number >> 64, number & _LOW_64


def format_addresses(hi: U64, lo: U64) -> list[str]:
    """Writes addresses in canonical text; meant for distinct values.

    Args:
        hi: Upper halves, shape (n,).
        lo: Lower halves, shape (n,).

    Returns:
        n texts: dotted quad for ::ffff:0:0/96, otherwise RFC 5952.
    """
    hi = np.asarray(hi, np.uint64)
    lo = np.asarray(lo, np.uint64)
    is_v4 = (hi == 0) & (lo >> np.uint64(32) == np.uint64(0xFFFF))
    texts = np.empty(len(hi), object)
    texts[is_v4] = _format_v4(lo[is_v4])
    texts[~is_v4] = _format_v6(hi[~is_v4], lo[~is_v4])
    return [str(text) for text in texts]


def _format_v4(lo: U64) -> list[str]:
    octets = lo.astype(">u4").view(np.uint8).reshape(-1, 4)
    name = _OCTETS
    return [f"{name[a]}.{name[b]}.{name[c]}.{name[d]}" for a, b, c, d in octets.tolist()]


def _format_v6(hi: U64, lo: U64) -> list[str]:
    packed = np.column_stack((hi, lo)).astype(">u8").tobytes()
    # C libraries disagree on ::/64 (some write ::1.2.3.4), so those take the slow, sure way.
    return [
        str(ipaddress.IPv6Address(packed[at : at + 16]))
        if packed[at : at + 8] == b"\0" * 8
        else socket.inet_ntop(socket.AF_INET6, packed[at : at + 16])
        for at in range(0, len(packed), 16)
    ]
