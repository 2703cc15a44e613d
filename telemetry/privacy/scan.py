"""Kernels of the search for leaks: needles and IPv4 addresses in bytes, in one pass.

Needles are given as arrays, sorted by their first six bytes in small letters: a bit for each
hash of six such bytes; the six bytes as numbers; where the needles of each begin; all needles
in a row; where each begins there; and whether its letters match in their own case alone.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

HEAD: Final = 6
"""Bytes that say where to look for a needle, and so of the shortest."""
_FACTOR: Final = 0x9E3779B97F4A7C15
_SLOT_BITS: Final = 22


def marks_of(prefixes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Returns a bit for each hash of six bytes that some needle begins with."""
    marks = np.zeros(1 << (_SLOT_BITS - 3), np.uint8)
    slots = (prefixes * np.uint64(_FACTOR)) >> np.uint64(64 - _SLOT_BITS)
    bits = np.uint8(1) << (slots & np.uint64(7)).astype(np.uint8)
    np.bitwise_or.at(marks, (slots >> np.uint64(3)).astype(np.intp), bits)
    return marks


@njit(cache=True, nogil=True)
def _holds(v4, number):
    low, high = 0, len(v4)
    while low < high:
        middle = (low + high) // 2
        if v4[middle] < number:
            low = middle + 1
        else:
            high = middle
    return low < len(v4) and v4[low] == number


@njit(cache=True, nogil=True)
def _number_at(data, at, end, swapped):
    number = np.uint32(0)
    if at < 0 or at + 4 > end:
        return number
    for i in range(4):
        number = np.uint32(number << np.uint32(8)) | np.uint32(data[at + (3 - i if swapped else i)])
    return number


@njit(cache=True, nogil=True)
def _mapped(data, at, end, v4, mirrored):
    """Whether a domestic IPv4 address stands in 16 or 8 bytes around ff ff at a place."""
    before = at >= 10
    for i in range(10):
        before = before and data[at - 1 - i] == 0
    if before and at + 6 <= end:
        if _holds(v4, _number_at(data, at + 2, end, False)):
            return True
        if _holds(mirrored, _number_at(data, at + 2, end, True)):
            return True
    if at >= 4 and at + 4 <= end and data[at + 2] == 0 and data[at + 3] == 0:
        return _holds(v4, _number_at(data, at - 4, end, True))
    return False


@njit(cache=True, nogil=True)
def _dotted(data, at, end, v4):
    """Whether four decimal octets that start at a place are a domestic address."""
    number = 0
    for part in range(4):
        octet, digits = 0, 0
        while digits < 3 and at < end and 48 <= data[at] <= 57:
            octet = 10 * octet + data[at] - 48
            digits, at = digits + 1, at + 1
        if digits == 0 or octet > 255:
            return False
        number = number << 8 | octet
        if part < 3:
            if at >= end or data[at] != 46:
                return False
            at += 1
    return _holds(v4, number)


@njit(cache=True, nogil=True)
def _needle(data, at, end, group, lower, blob, offsets, exact, counts):
    first, last = group
    for needle in range(first, last):
        size = offsets[needle + 1] - offsets[needle]
        if at + size > end:
            continue
        same = True
        for i in range(size):
            byte = data[at + i] if exact[needle] else lower[data[at + i]]
            if byte != blob[offsets[needle] + i]:
                same = False
                break
        if same:
            counts[needle + 1] += 1


@njit(cache=True, nogil=True)
def scan(data, until, addresses, needles, lower, counts, numbers):
    """Searches bytes for needles and addresses.

    Args:
        data: The bytes.
        until: What starts from there on is not looked at.
        addresses: Sorted IPv4 addresses, found in dotted text and in 16 and 8 bytes; and those of
            them that are found in 16 bytes with the last octet first, too.
        needles: See above.
        lower: Each byte in small letters.
        counts: Added to: addresses at 0, then each needle.
        numbers: Takes decimal numbers of 8 to 10 digits below 2**32.

    Returns:
        How many numbers were noted.
    """
    marks, prefixes, starts, blob, offsets, exact = needles
    v4, mirrored = addresses
    end, window, noted = len(data), np.uint64(0), 0
    shift = np.uint64(64 - _SLOT_BITS)
    for at in range(end + 5):
        byte = lower[data[at]] if at < end else np.uint8(0)
        window = (window << np.uint64(8) | np.uint64(byte)) & np.uint64(0xFFFFFFFFFFFF)
        start = at - 5
        if start < 0 or start >= until:
            continue
        slot = (window * np.uint64(_FACTOR)) >> shift
        if at < end and marks[slot >> np.uint64(3)] >> (slot & np.uint64(7)) & 1:
            group = np.searchsorted(prefixes, window)
            if group < len(prefixes) and prefixes[group] == window:
                span = starts[group], starts[group + 1]
                _needle(data, start, end, span, lower, blob, offsets, exact, counts)
        if len(v4) == 0:
            continue
        first = data[start]
        if first == 255 and start + 1 < end and data[start + 1] == 255:
            counts[0] += _mapped(data, start, end, v4, mirrored)
        elif 48 <= first <= 57 and (start == 0 or not 48 <= data[start - 1] <= 57):
            digits, number = 0, 0
            while digits < 11 and start + digits < end and 48 <= data[start + digits] <= 57:
                number = 10 * number + data[start + digits] - 48
                digits += 1
            if digits <= 3:
                counts[0] += _dotted(data, start, end, v4)
            elif 8 <= digits <= 10 and number < 1 << 32:
                numbers[noted] = number
                noted += 1
    return noted
