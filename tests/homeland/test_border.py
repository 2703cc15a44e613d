"""Directions and verdicts, over all cases."""

from __future__ import annotations

from itertools import product

import pytest

from telemetry.errors import SettingsError
from telemetry.homeland import (
    FOREIGN,
    IN_OUT,
    OUT_IN,
    OUT_OUT,
    UNALLOCATED,
    Border,
    Homeland,
    direction_of,
    verdict,
)
from telemetry.reasons import Reason

BY_FOREIGN_ENDS = {
    (True, False): OUT_IN,
    (False, True): IN_OUT,
    (True, True): OUT_OUT,
    (False, False): 0,
}


@pytest.mark.parametrize(("src", "dst", "allowed"), list(product(range(4), range(4), range(8))))
def test_every_case(src: int, dst: int, allowed: int) -> None:
    direction = BY_FOREIGN_ENDS[src == FOREIGN, dst == FOREIGN]
    if UNALLOCATED in (src, dst):
        expected, direction = Reason.UNALLOCATED, 0
    elif not direction:
        expected = Reason.DOMESTIC
    else:
        expected = Reason.KEPT if allowed & direction else Reason.DIRECTION_NOT_ALLOWED
    assert direction_of(src, dst) == direction
    assert verdict(src, dst, allowed) == expected


def test_border_takes_the_three_bits_only(japan: Homeland) -> None:
    assert Border(japan, OUT_IN | IN_OUT | OUT_OUT).allowed == 7
    for wrong in (8, -1):
        with pytest.raises(SettingsError, match="out_in, in_out and out_out"):
            Border(japan, wrong)
