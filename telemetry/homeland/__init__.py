"""Homeland: which addresses are domestic, and what crosses the border.

The country tables in data/homeland are compiled, with the special-purpose
table and the user's prefixes above them, into arrays that kernels look into.
Below all other rooms. `build` makes the country tables from local files.
"""

from telemetry.homeland.address import format_addresses, parse_address
from telemetry.homeland.border import IN_OUT, OUT_IN, OUT_OUT, Border, direction_of, verdict
from telemetry.homeland.classes import DOMESTIC, FOREIGN, NAMES, SPECIAL, UNALLOCATED
from telemetry.homeland.policy import Homeland, load
from telemetry.homeland.tables import Tables, class_of

__all__ = [
    "DOMESTIC",
    "FOREIGN",
    "IN_OUT",
    "NAMES",
    "OUT_IN",
    "OUT_OUT",
    "SPECIAL",
    "UNALLOCATED",
    "Border",
    "Homeland",
    "Tables",
    "class_of",
    "direction_of",
    "format_addresses",
    "load",
    "parse_address",
    "verdict",
]
