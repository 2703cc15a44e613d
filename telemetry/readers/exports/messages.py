"""Kinds and lengths of export messages: what can be told without templates.

Formats: Cisco's NetFlow v1, v5 and v7 (fixed records), NetFlow v9 (RFC 3954), IPFIX
(RFC 7011), sFlow v5 (sflow.org, sflow_version_5.txt).
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from telemetry.loads import be16, be32, u8
from telemetry.raw import I64, U64

NO_EXPORT = 0
V1, V5, V7, V9, IPFIX = 1, 5, 7, 9, 10
SFLOW = 105
"""Kinds of messages: the version of NetFlow and IPFIX, another number for sFlow v5."""
V9_HEADER, IPFIX_HEADER = 20, 16
FIRST_DATA = 256
"""Ids of sets from here on are those of templates, and hold data."""
LONGEST = 65535
"""Bytes of the longest message: what fits a UDP datagram, and IPFIX's length field."""
NEED_MORE, NO_MESSAGE = -2, -1
_u = np.uint64


class Datagrams(NamedTuple):
    """Messages found by a carrier: arrays of equal length.

    Attributes:
        address: Memory address of the message.
        captured: Bytes that are there.
        size: Bytes that were sent.
        time: When it was captured, in microseconds since 1970; below 0 when nobody tells.
        hi: Upper half of the exporter's address, 0 when nobody tells.
        lo: Lower half.
        port: The exporter's port.
        kind: NO_EXPORT or what it is.
    """

    address: U64
    captured: I64
    size: I64
    time: I64
    hi: U64
    lo: U64
    port: I64
    kind: I64

    @classmethod
    def empty(cls, n: int) -> Datagrams:
        """Returns arrays for `n` messages."""
        address, hi, lo = np.zeros((3, n), np.uint64)
        captured, size, time, port, kind = np.zeros((5, n), np.int64)
        return cls(address, captured, size, time, hi, lo, port, kind)


@njit(cache=True, nogil=True, inline="always")
def is_set(kind, number, length):
    """Returns whether the header of a set of v9 or IPFIX makes sense."""
    templates = number == 2 or number == 3 if kind == IPFIX else number == 0 or number == 1
    return length >= 4 and (templates or number >= FIRST_DATA)


@njit(cache=True, nogil=True, inline="always")
def fixed_size(kind, count):
    """Returns the bytes of a message of v1, v5 or v7 that holds `count` records."""
    if kind == V1:
        return 16 + 52 * count
    return 24 + (48 if kind == V5 else 52) * count


@njit(cache=True, nogil=True, inline="always")
def short_v1(count):
    """Returns the bytes of a message of v1 as softflowd writes it: four a record fewer."""
    return 16 + 48 * count


@njit(cache=True, nogil=True, inline="always")
def samples_at(base):
    """Returns where the samples of an sFlow message begin: agents are of IPv4 or IPv6."""
    return 28 if be32(base + _u(4)) == 1 else 40


@njit(cache=True, nogil=True)
def kind_of(base, captured, size):
    """Tells what a message is by its header.

    Args:
        base: Memory address.
        captured: Bytes that are there.
        size: Bytes that were sent.

    Returns:
        Its kind, NO_EXPORT when the header contradicts itself or the size.
    """
    if captured < 16:
        return NO_EXPORT
    version = be16(base)
    if version == V1 or version == V5 or version == V7:
        count = be16(base + _u(2))
        whole = size == fixed_size(version, count) or (version == V1 and size == short_v1(count))
        return version if count > 0 and whole else NO_EXPORT
    if version == V9 and captured >= V9_HEADER + 4:
        length = be16(base + _u(V9_HEADER + 2))
        fits = is_set(V9, be16(base + _u(V9_HEADER)), length) and length <= size - V9_HEADER
        return V9 if fits else NO_EXPORT
    if version == IPFIX and be16(base + _u(2)) == size:
        if size == IPFIX_HEADER:
            return IPFIX
        if min(captured, size) < IPFIX_HEADER + 4:
            return NO_EXPORT
        length = be16(base + _u(IPFIX_HEADER + 2))
        fits = is_set(IPFIX, be16(base + _u(IPFIX_HEADER)), length)
        return IPFIX if fits else NO_EXPORT
    if version == 0 and captured >= 28 and be32(base) == 5:
        agent = be32(base + _u(4))
        first = samples_at(base)
        if (agent == 1 or agent == 2) and captured >= first:
            count = be32(base + _u(first - 4))
            return SFLOW if 8 * count <= size - first else NO_EXPORT
    return NO_EXPORT


@njit(cache=True, nogil=True)
def _after_sets(base, available, kind):
    """Walks the sets of a v9 or IPFIX message, and zeros that pad it.

    Returns:
        (position behind the last set that begins in what is available, number of sets).
    """
    position = V9_HEADER if kind == V9 else IPFIX_HEADER
    sets = 0
    while position + 4 <= available:
        at = base + _u(position)
        word = be32(at)
        if word == 0:
            position += 4
            continue
        if word == 5 or not is_set(kind, word >> 16, word & 0xFFFF):
            break  # five alone: an sFlow message begins
        position += word & 0xFFFF
        sets += 1
        if position > LONGEST:
            break
    return position, sets


@njit(cache=True, nogil=True)
def _after_samples(base, available):
    """Walks the samples of an sFlow message; returns (position, samples not walked)."""
    position = samples_at(base)
    left = be32(base + _u(position - 4))
    while left > 0 and position + 8 <= available:
        position += 8 + be32(base + _u(position + 4))
        left -= 1
    return position, left


@njit(cache=True, nogil=True)
def is_whole(base, size):
    """Returns whether a message is an export whose parts fill it exactly.

    Args:
        base: Memory address; all of it is there.
        size: Bytes.
    """
    kind = kind_of(base, size, size)
    if kind == V9 or kind == IPFIX:
        position, sets = _after_sets(base, size, kind)
        while position < size and u8(base + _u(position)) == 0:
            position += 1
        return position == size and sets > 0
    if kind == SFLOW:
        position, left = _after_samples(base, size)
        return position == size and left == 0
    return kind != NO_EXPORT


@njit(cache=True, nogil=True)
def extent(base, available, at_end):
    """Finds how long the message is that begins here, of many that stand one after another.

    NetFlow v9 tells no length: it ends where what follows is no set. Ids 2 to 255 are
    reserved, so that the version number of the next message is none.

    Args:
        base: Memory address.
        available: Bytes from there on.
        at_end: Whether nothing follows them.

    Returns:
        Its bytes, which may exceed those available at the end; NEED_MORE or NO_MESSAGE.
    """
    if available < 28:
        if not at_end:
            return NEED_MORE
        if available < 16:
            return NO_MESSAGE
    version = be16(base)
    if version == V1 or version == V5 or version == V7:
        size = fixed_size(version, be16(base + _u(2)))
    elif version == IPFIX:
        size = be16(base + _u(2))
    elif version == V9:
        size, _ = _after_sets(base, available, V9)
        if size + 4 > available and not at_end:
            return NEED_MORE
    elif version == 0 and available >= 28 and be32(base) == 5:
        if available < samples_at(base):
            return NO_MESSAGE if at_end else NEED_MORE
        size, left = _after_samples(base, available)
        if left and not at_end and size <= LONGEST:
            return NEED_MORE
    else:
        return NO_MESSAGE
    if size > LONGEST or kind_of(base, available, size) == NO_EXPORT:
        return NO_MESSAGE
    if size > available and not at_end:
        return NEED_MORE
    return size
