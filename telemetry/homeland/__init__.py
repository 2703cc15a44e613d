"""Homeland: which addresses are domestic, and what crosses the border.

The homeland table of data/homeland, or one that `refresh` made from local files, is
compiled, with the special-purpose table and the user's prefixes above it, into
arrays that kernels look into. Below all other rooms.
"""

from telemetry.homeland.address import format_addresses, parse_address
from telemetry.homeland.border import IN_OUT, OUT_IN, OUT_OUT, Border, direction_of, verdict
from telemetry.homeland.classes import DOMESTIC, FOREIGN, NAMES, SPECIAL, UNALLOCATED
from telemetry.homeland.policy import SHIPPED, Homeland, Policy, borderless, load
from telemetry.homeland.tables import Tables, class_of

__all__ = [
    "DOMESTIC",
    "FOREIGN",
    "IN_OUT",
    "NAMES",
    "OUT_IN",
    "OUT_OUT",
    "SHIPPED",
    "SPECIAL",
    "UNALLOCATED",
    "Border",
    "Homeland",
    "Policy",
    "Tables",
    "borderless",
    "class_of",
    "direction_of",
    "format_addresses",
    "load",
    "parse_address",
    "verdict",
]
