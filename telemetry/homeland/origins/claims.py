"""Claims: what one file says, range by range, before sources are put together."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from telemetry.homeland.ranges import LAST_V4, NOT_STATED, PUBLIC_V6, Kind

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NOBODY: Final = frozenset({"", "-", "ZZ", "XX", "NONE", "EU", "AP", "A1", "A2", "O1", "T1"})
"""Codes of no country: unknown, regions wider than a country, proxies, satellites."""
_COUNTRY = re.compile(r"[A-Z]{2}")
_LOW_64: Final = (1 << 64) - 1


class Claim(NamedTuple):
    """A range of addresses that a file gives to a country.

    Attributes:
        family: 4 or 6.
        start: First address: 32 bits (IPv4) or the upper 64 bits (IPv6).
        end: Last address, in the same form.
        country: Two capital letters.
        finer: Whether it was finer than a /64, and widened to whole ones.
    """

    family: int
    start: int
    end: int
    country: str
    finer: bool


@dataclass(slots=True)
class Origin:
    """One file of claims.

    Attributes:
        kind: What it is.
        name: What it calls itself, in a word or two.
        date: Day it was made, if it says.
        licence: Its terms, if it says.
        claims: What it says.
    """

    kind: Kind
    name: str
    date: str = NOT_STATED
    licence: str = NOT_STATED
    claims: list[Claim] = field(default_factory=list)

    def add(self, first: Address, last: Address, country: str) -> None:
        """Adds a claim, unless it names no country or no public space.

        Raises:
            ValueError: The range runs backwards, or the country is not two letters.
        """
        if first.version != last.version or int(first) > int(last):
            raise ValueError("the range runs backwards")
        country = country.strip().upper()
        if country in NOBODY:
            return
        if not _COUNTRY.fullmatch(country):
            raise ValueError("the country is not two letters")
        if first.version == 4:
            self.claims.append(Claim(4, int(first), int(last), country, False))
            return
        start, end = max(int(first) >> 64, PUBLIC_V6[0]), min(int(last) >> 64, PUBLIC_V6[1])
        finer = int(first) & _LOW_64 != 0 or int(last) & _LOW_64 != _LOW_64
        if start <= end:
            self.claims.append(Claim(6, start, end, country, finer))

    def add_network(self, prefix: str, country: str) -> None:
        """Adds a claim on a prefix, or on one address.

        Raises:
            ValueError: It is no prefix, or the country is not two letters.
        """
        network = ipaddress.ip_network(prefix.strip())
        self.add(network[0], network[-1], country)


def to_address(text: str) -> Address:
    """Reads an address, also as the decimal number that some vendors write.

    Raises:
        ValueError: It is neither.
    """
    text = text.strip()
    if not text.isdecimal():
        return ipaddress.ip_address(text)
    number = int(text)
    if number >> 32 == 0xFFFF:
        number &= LAST_V4
    return ipaddress.ip_address(number)
