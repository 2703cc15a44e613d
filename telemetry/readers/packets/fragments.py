"""Fragments: those after the first are counted where the first one was.

Only the first fragment shows ports, or what a tunnel holds. It leaves an entry under
its addresses, protocol and identification (RFC 791, RFC 8200 section 4.5): the record
it was counted to, or the reason why it was dropped. The table is bounded: where it is
full, the oldest entry near the new one's place is given up.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from telemetry.loads import get, put
from telemetry.reasons import Reason

U64 = np.uint64

ENTRIES: Final = 1 << 16
"""First fragments that are remembered at a time."""
WORDS: Final = 16
LIFETIME_US: Final = 30_000_000
"""Time in microseconds, forwards or backwards, after which a first fragment is forgotten."""
UNKNOWN: Final = -1
"""No entry: the first fragment was not seen."""
OUTSIDE: Final = -2
"""The first fragment was counted by a layer around it, since it held nothing that decides."""

_PROBES: Final = 8
_NEVER: Final = (1 << 63) - 1
# Words of an entry: addresses and identity that it is found by, then the record's key as
# `decode` writes it, then when and how the first fragment went.
_IDENTITY, _RECORD, _TIME, _STATE = 4, 5, 10, 11
_USED: Final = 1 << 16
_IS_OUTSIDE: Final = 1 << 17
_KEPT: Final = int(Reason.KEPT)


@njit(cache=True, nogil=True)
def _is(entry, s_hi, s_lo, d_hi, d_lo, identity):
    return (
        get(entry, 0) == s_hi
        and get(entry, 1) == s_lo
        and get(entry, 2) == d_hi
        and get(entry, 3) == d_lo
        and get(entry, _IDENTITY) == identity
    )


@njit(cache=True, nogil=True)
def _entry(table, place, probe):
    at = (place & U64(ENTRIES - _PROBES)) | U64(probe)
    return table + at * U64(8 * WORDS)


@njit(cache=True, nogil=True)
def remember(table, place, s_hi, s_lo, d_hi, d_lo, identity, time, reason, outside, side, record):
    """Enters a first fragment.

    Args:
        table: Memory address of ENTRIES entries of WORDS uint64.
        place: Hash of the next five.
        s_hi: Addresses of the fragmented layer, as `decode` has them.
        s_lo: The same.
        d_hi: The same.
        d_lo: The same.
        identity: Identification, protocol and version.
        time: Microseconds since 1970.
        reason: What became of it, a `Reason`.
        outside: Whether a layer around it decided.
        side: Which side of the record sent it.
        record: Memory address of the record's key, if it was kept.
    """
    chosen = _entry(table, place, 0)
    oldest = _NEVER
    for probe in range(_PROBES):
        entry = _entry(table, place, probe)
        state = get(entry, _STATE)
        if state != U64(0) and _is(entry, s_hi, s_lo, d_hi, d_lo, identity):
            chosen = entry
            break
        age = np.int64(get(entry, _TIME)) if state else np.int64(-1)
        if age < oldest:
            oldest = int(age)
            chosen = entry
    put(chosen, 0, s_hi)
    put(chosen, 1, s_lo)
    put(chosen, 2, d_hi)
    put(chosen, 3, d_lo)
    put(chosen, _IDENTITY, identity)
    put(chosen, _TIME, U64(time))
    put(chosen, _STATE, U64(_USED | reason | (side << 8) | (_IS_OUTSIDE if outside else 0)))
    if reason == _KEPT:
        for word in range(5):
            put(chosen, _RECORD + word, get(record, word))


@njit(cache=True, nogil=True)
def recall(table, place, s_hi, s_lo, d_hi, d_lo, identity, time, record):
    """Looks for the first fragment of a later one; arguments as of `remember`.

    Returns:
        (outcome, side): the outcome is a `Reason`, UNKNOWN or OUTSIDE; with KEPT the
        record's key is written to `record`.
    """
    for probe in range(_PROBES):
        entry = _entry(table, place, probe)
        state = np.int64(get(entry, _STATE))
        if state != 0 and _is(entry, s_hi, s_lo, d_hi, d_lo, identity):
            if abs(time - np.int64(get(entry, _TIME))) > LIFETIME_US:
                return UNKNOWN, 0
            reason = state & 0xFF
            if reason != _KEPT:
                return reason, 0
            if state & _IS_OUTSIDE:
                return OUTSIDE, 0
            for word in range(5):
                put(record, word, get(entry, _RECORD + word))
            return reason, (state >> 8) & 1
    return UNKNOWN, 0
