"""Crossing the border: directions, and what becomes of a packet or record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from numba import njit

from telemetry.errors import SettingsError
from telemetry.homeland.classes import FOREIGN, UNALLOCATED
from telemetry.homeland.policy import Homeland
from telemetry.reasons import Reason

OUT_IN: Final = 1
"""From a foreign to a domestic address."""
IN_OUT: Final = 2
"""From a domestic to a foreign address."""
OUT_OUT: Final = 4
"""Between foreign addresses."""

# Plain numbers, since numba takes no enum members.
_KEPT: Final = int(Reason.KEPT)
_DOMESTIC: Final = int(Reason.DOMESTIC)
_UNALLOCATED: Final = int(Reason.UNALLOCATED)
_NOT_ALLOWED: Final = int(Reason.DIRECTION_NOT_ALLOWED)


@dataclass(frozen=True)
class Border:
    """A homeland, and the directions that may be kept.

    Attributes:
        homeland: Which addresses are domestic.
        allowed: OR of OUT_IN, IN_OUT and OUT_OUT.

    Raises:
        SettingsError: `allowed` has other bits.
    """

    homeland: Homeland
    allowed: int

    def __post_init__(self) -> None:
        """Checks `allowed`."""
        if self.allowed & ~(OUT_IN | IN_OUT | OUT_OUT):
            raise SettingsError("Allowed directions are out_in, in_out and out_out; correct them.")


@njit(cache=True, nogil=True)
def direction_of(src_class: int, dst_class: int) -> int:
    """Returns the direction's bit, or 0 when neither end is foreign or one is unallocated."""
    if src_class == UNALLOCATED or dst_class == UNALLOCATED:
        return 0
    if src_class == FOREIGN:
        return OUT_OUT if dst_class == FOREIGN else OUT_IN
    return IN_OUT if dst_class == FOREIGN else 0


@njit(cache=True, nogil=True)
def verdict(src_class: int, dst_class: int, allowed: int) -> int:
    """Returns the `telemetry.reasons.Reason` of a packet between two classes.

    An unallocated end decides before all else, whatever the other end is: what
    cannot be classed may be domestic.

    Args:
        src_class: Class of the sender's address.
        dst_class: Class of the receiver's address.
        allowed: OR of the directions that may be kept.
    """
    if src_class == UNALLOCATED or dst_class == UNALLOCATED:
        return _UNALLOCATED
    direction = direction_of(src_class, dst_class)
    if direction == 0:
        return _DOMESTIC
    return _KEPT if direction & allowed else _NOT_ALLOWED
