"""Addresses as text and as two 64-bit halves; IPv4 stands as ::ffff:a.b.c.d."""

from __future__ import annotations

import ipaddress
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

U64 = npt.NDArray[np.uint64]

MAPPED: Final = 0xFFFF << 32
"""The number of ::ffff:0.0.0.0, under which IPv4 addresses stand."""
_LOW_64: Final = (1 << 64) - 1
_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
_DOTTED: Final = np.array(
    [list(b"%d%d%d." % (n // 100, n // 10 % 10, n % 10)) for n in range(256)], np.uint8
)
"""The three digits of each octet and a dot."""
_SHOWN: Final = np.array([[n > 99, n > 9, True, True] for n in range(256)])
"""Which of them are written."""


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


def format_addresses(hi: U64, lo: U64) -> pa.StringArray:
    """Writes addresses in canonical text.

    Args:
        hi: Upper halves, shape (n,).
        lo: Lower halves, shape (n,).

    Returns:
        n texts: dotted quad for ::ffff:0:0/96, otherwise RFC 5952.
    """
    hi = np.asarray(hi, np.uint64)
    lo = np.asarray(lo, np.uint64)
    is_v4 = (hi == 0) & (lo >> np.uint64(32) == np.uint64(0xFFFF))
    texts = [_format_v4(lo[is_v4]), _format_v6(hi[~is_v4], lo[~is_v4])]
    if not len(texts[1]):
        return texts[0]
    place = np.where(is_v4, np.cumsum(is_v4), len(texts[0]) + np.cumsum(~is_v4)) - 1
    return pa.concat_arrays(texts).take(pa.array(place))


def _format_v4(lo: U64) -> pa.StringArray:
    octets = lo.astype(">u4").view(np.uint8).reshape(-1, 4)
    shown = _SHOWN[octets].reshape(-1, 16)
    shown[:, -1] = False  # no dot at the end
    return _strings(_DOTTED[octets].reshape(-1, 16), shown)


def _format_v6(hi: U64, lo: U64) -> pa.StringArray:
    """Writes RFC 5952: no leading zeros, the first longest run of zero groups as `::`."""
    groups = np.column_stack((hi, lo)).astype(">u8").view(">u2").astype(np.uint16).reshape(-1, 8)
    run, longest, end = (np.zeros(len(groups), np.int64) for _ in range(3))
    for number in range(8):
        run = np.where(groups[:, number] == 0, run + 1, 0)
        end = np.where(run > longest, number + 1, end)
        longest = np.maximum(run, longest)
    start = np.where(longest > 1, end - longest, 8)  # a single zero group is written out
    at = np.arange(8)
    in_run = (at >= start[:, None]) & (at < end[:, None])

    # A colon and four digits a group.
    text = np.full((len(groups), 8, 5), ord(":"), np.uint8)
    shown = np.ones(text.shape, bool)
    for digit, shift in enumerate((12, 8, 4, 0), 1):
        text[:, :, digit] = _DIGITS[(groups >> shift) & 15]
        shown[:, :, digit] = (groups >> shift != 0) | (shift == 0)
    shown[:, 0, 0] = False
    shown[in_run] = False
    starts = start < 8
    shown[starts, start[starts], 0] = True  # the other colon is that of the group behind the run
    last = starts & (end == 8)
    text[last, start[last], 1] = ord(":")
    shown[last, start[last], 1] = True
    return _strings(text.reshape(-1, 40), shown.reshape(-1, 40))


def _strings(text: npt.NDArray[np.uint8], shown: npt.NDArray[np.bool_]) -> pa.StringArray:
    """Returns the shown letters of each row."""
    offsets = np.zeros(len(text) + 1, np.int32)
    np.cumsum(np.count_nonzero(shown, axis=1), out=offsets[1:])
    return pa.StringArray.from_buffers(len(text), pa.py_buffer(offsets), pa.py_buffer(text[shown]))
