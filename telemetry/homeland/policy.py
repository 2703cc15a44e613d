"""What is home: a country, prefixes, or both; and the homeland made of it."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from telemetry.errors import SettingsError
from telemetry.homeland import tables as kernels
from telemetry.homeland.address import MAPPED, to_number
from telemetry.homeland.classes import (
    DOMESTIC,
    FOREIGN,
    INSIDE_6TO4,
    INSIDE_LOW,
    INSIDE_TEREDO,
    SPECIAL,
    UNALLOCATED,
)
from telemetry.homeland.ranges import Ranges, read
from telemetry.homeland.special import SPECIALS
from telemetry.homeland.tables import Arrays, Paint, Steps, Tables
from telemetry.settings import ASSETS

DATA = ASSETS / "data" / "homeland"

Span = tuple[int, int]
"""First and last address as 128-bit numbers, IPv4 under ::ffff:0:0/96."""


_PUBLIC_V6 = (0x2000 << 112, 0x4000 << 112)
"""Where 2000::/3 begins and where it ends: all of IPv6 that is given out (RFC 4291, 2.4)."""


@dataclass(frozen=True)
class Rules:
    """What decides the class of an address, in the order in which it is asked.

    This is also the slow look-up, which shares nothing with the kernels.

    Attributes:
        prefixes: Home prefixes: domestic whatever else holds.
        country: Home country, if any.
        world: Who holds each range, all countries.
        home: Further ranges of the home country, if there is such a table.
    """

    prefixes: tuple[Span, ...] = field(repr=False)
    country: str | None
    world: Ranges
    home: Ranges | None

    def class_of(self, number: int) -> int:
        """Returns the class of an address given as a 128-bit number."""
        if any(first <= number <= last for first, last in self.prefixes):
            return DOMESTIC
        mark = next((m for (first, last), m in _specials() if first <= number <= last), None)
        is_v4 = number >> 32 == 0xFFFF
        if mark is None or (is_v4 and mark == INSIDE_LOW):
            return self._by_country(number - MAPPED, 4) if is_v4 else self._by_country(number, 6)
        if mark == SPECIAL:
            return SPECIAL
        return self.class_of(MAPPED + _inside(number, mark))

    def _by_country(self, number: int, family: int) -> int:
        holder = self.world.country_of(number, family)
        if self.country is not None and (
            holder == self.country or (self.home and self.home.country_of(number, family))
        ):
            return DOMESTIC
        if holder is not None:
            return FOREIGN
        # It may be a country's but not a prefix's; nobody can be behind reserved IPv6 space.
        public = family == 4 or _PUBLIC_V6[0] <= number < _PUBLIC_V6[1]
        return FOREIGN if self.country is None and public else UNALLOCATED


def _inside(number: int, mark: int) -> int:
    """Returns the IPv4 address inside an IPv6 address (RFC 6052, 3056, 4380)."""
    if mark == INSIDE_6TO4:
        return number >> 80 & 0xFFFFFFFF
    low = number & 0xFFFFFFFF
    return low ^ 0xFFFFFFFF if mark == INSIDE_TEREDO else low


@cache
def _specials() -> tuple[tuple[Span, int], ...]:
    """Returns the special-purpose prefixes and their marks, longest prefix first."""
    spans = [(_span(ipaddress.ip_network(row.prefix)), row.mark) for row in SPECIALS]
    return tuple(sorted(spans, key=lambda item: item[0][1] - item[0][0]))


def _span(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Span:
    return to_number(network[0]), to_number(network[-1])


@dataclass(frozen=True)
class Homeland:
    """Which addresses are domestic.

    Attributes:
        arrays: The compiled tables.
        policy_sha256: SHA-256 of the country and the sorted prefixes.
        table_sha256: SHA-256 over the data: country tables and special-purpose table.
        rules: The same knowledge, uncompiled.
    """

    arrays: Arrays = field(repr=False)
    policy_sha256: str
    table_sha256: str
    rules: Rules = field(repr=False)

    @property
    def tables(self) -> Tables:
        """What kernels look into, see `class_of`; valid as long as this object lives."""
        return self.arrays.tables()

    def classify(
        self, hi: npt.NDArray[np.uint64], lo: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.uint8]:
        """Returns the class of each address.

        Args:
            hi: Upper 64 bits, shape (n,).
            lo: Lower 64 bits, shape (n,); IPv4 stands as ::ffff:a.b.c.d.

        Returns:
            DOMESTIC, SPECIAL, FOREIGN or UNALLOCATED, shape (n,).
        """
        out = np.empty(len(hi), np.uint8)
        kernels.classify(self.tables, hi, lo, out)
        return out

    def describe(self) -> dict[str, object]:
        """Returns what says what is domestic; prefixes only by their number, they are domestic.

        Not the hash of the policy either: whoever tries all prefixes finds them by it.
        """
        rules = self.rules
        return {
            "country": rules.country or "none",
            "home_prefixes": len(rules.prefixes),
            "ranges": len(rules.world.v4.country) + len(rules.world.v6.country),
            "countries": len(rules.world.countries),
            "table_sha256": self.table_sha256,
        }

    def class_of_text(self, address: str) -> int:
        """Returns the class of an address in text; slow, and independent of the kernels.

        Raises:
            SettingsError: It is not an address.
        """
        try:
            number = to_number(ipaddress.ip_address(address))
        except ValueError:
            raise SettingsError(
                "That is not an IP address; write one such as 192.0.2.1 or 2001:db8::1."
            ) from None
        return self.rules.class_of(number)


def load(country: str | None, prefixes: Sequence[str] = (), data: Path = DATA) -> Homeland:
    """Makes the homeland.

    Args:
        country: Two-letter code; None when the prefixes alone are home, so that all
            other public space (IPv4, and 2000::/3 of IPv6) is foreign, allocated or not.
        prefixes: Prefixes in CIDR notation, IPv4 or IPv6. They win over everything,
            the special-purpose table included, since home networks are often private.
        data: Folder of the country tables: `countries.parquet`, and for a home country
            `<code>.parquet` with more of its ranges (policy `any`: one source is enough).

    Raises:
        SettingsError: Nothing is named, the country is unknown, a prefix is wrong, or
            the tables cannot be read.
    """
    if country is None and not prefixes:
        raise SettingsError(
            "Nothing is domestic yet; name a home country (--country JP) or prefix (--home)."
        )
    networks = [_network(text, nth) for nth, text in enumerate(prefixes, start=1)]
    world = read(data / "countries.parquet")
    code = country.upper() if country is not None else None
    if code is not None and code not in world.countries:
        raise SettingsError(
            f"No country '{country}' in the homeland tables; use a two-letter code such as JP."
        )
    more = data / f"{code}.parquet".lower()
    home = read(more) if code is not None and more.is_file() else None
    spans = tuple(sorted({_span(network) for network in networks}))
    rules = Rules(spans, code, world, home)
    return Homeland(
        arrays=_compiled(rules),
        policy_sha256=_policy_sha256(code, spans),
        table_sha256=_table_sha256([world, *([home] if home else [])]),
        rules=rules,
    )


def _network(text: str, nth: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    # The messages do not repeat the prefix: it is domestic, and errors get logged.
    try:
        if "/" not in text:
            raise ValueError("a forgotten mask would make one address home")
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise SettingsError(
            f"Home prefix number {nth} is not a prefix; write it like 192.0.2.0/24."
        ) from None
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError:
        raise SettingsError(
            f"Home prefix number {nth} has bits set behind its /{network.prefixlen}; "
            "write its first address."
        ) from None


def _compiled(rules: Rules) -> Arrays:
    specials = [Paint(*span, mark) for span, mark in reversed(_specials())]
    homes = [Paint(*span, DOMESTIC) for span in rules.prefixes]
    # Under ::ffff:0:0/96 the kernel goes to the IPv4 table itself, so its mark must not cover it.
    v4 = [paint for paint in specials if paint.first >> 32 == 0xFFFF and paint.value == SPECIAL]
    return kernels.compile_tables(
        _country_steps(rules, 4), v4 + homes, _country_steps(rules, 6), specials + homes
    )


def _country_steps(rules: Rules, family: int) -> Steps:
    world = rules.world.v4 if family == 4 else rules.world.v6
    if rules.country is None:
        return kernels.over(world, FOREIGN, _public_steps(family))
    is_home = np.array([code == rules.country for code in rules.world.countries])
    by_country = np.where(is_home, DOMESTIC, FOREIGN).astype(np.uint8)
    held = kernels.steps(world, by_country[world.country], UNALLOCATED)
    if rules.home is None:
        return held
    return kernels.over(rules.home.v4 if family == 4 else rules.home.v6, DOMESTIC, held)


def _public_steps(family: int) -> Steps:
    """Returns foreign where addresses are public, in the numbers of `Steps`."""
    if family == 4:
        return Steps(np.zeros(1, np.uint64), np.array([FOREIGN], np.uint8))
    begin, end = (number >> 64 for number in _PUBLIC_V6)
    return Steps(
        np.array([0, begin, end], np.uint64),
        np.array([UNALLOCATED, FOREIGN, UNALLOCATED], np.uint8),
    )


def _policy_sha256(country: str | None, spans: Sequence[Span]) -> str:
    lines = [f"country {country or '-'}", *(f"prefix {a:032x}-{z:032x}" for a, z in spans)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _table_sha256(tables: Sequence[Ranges]) -> str:
    lines = [*(table.sha256 for table in tables), *(repr(tuple(row)) for row in SPECIALS)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
