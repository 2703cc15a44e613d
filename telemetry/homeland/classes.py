"""The classes of an address, as the small numbers that kernels pass around."""

from __future__ import annotations

from typing import Final

DOMESTIC: Final = 0
SPECIAL: Final = 1
"""Private, shared, multicast, documentation…: counts as domestic, is never listed."""
FOREIGN: Final = 2
UNALLOCATED: Final = 3
"""Public, but in no table: cannot be classed, so it is dropped."""

NAMES: Final = ("domestic", "special", "foreign", "unallocated")
"""Names of the classes, in the order of the numbers."""

# Marks inside the tables: the class is that of an IPv4 address inside the IPv6 address.
# They never leave the look-up.
INSIDE_LOW: Final = 4  # the last 32 bits: IPv4-mapped, NAT64
INSIDE_6TO4: Final = 5  # bits 16 to 47
INSIDE_TEREDO: Final = 6  # the last 32 bits, inverted
