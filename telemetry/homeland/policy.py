"""What is home: a country, prefixes, or both; and the homeland made of it."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal

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
from telemetry.homeland.ranges import LAST_V4, PUBLIC_V6, U32, HomelandTable, no_rows, read
from telemetry.homeland.special import SPECIALS, Special
from telemetry.homeland.tables import Arrays, Paint, Steps, Tables
from telemetry.settings import ASSETS

SHIPPED = ASSETS / "data" / "homeland" / "homeland.parquet"
"""The table that comes with the program."""

Span = tuple[int, int]
"""First and last address as 128-bit numbers, IPv4 under ::ffff:0:0/96."""


Policy = Literal["any", "majority", "primary"]
"""Whose word counts when sources disagree: `any` source that says home makes it home;
`majority` does when at least half of the sources that say anything say home; `primary`
asks the first source of the table that says anything."""


@dataclass(frozen=True)
class Rules:
    """What decides the class of an address, in the order in which it is asked.

    This is also the slow look-up, which shares nothing with the kernels.

    Attributes:
        prefixes: Home prefixes: domestic whatever else holds.
        country: Home country, if any.
        policy: Whose word counts when sources disagree.
        table: What sources say of each range.
    """

    prefixes: tuple[Span, ...] = field(repr=False)
    country: str | None
    policy: Policy
    table: HomelandTable = field(repr=False)

    def class_of(self, number: int) -> int:
        """Returns the class of an address given as a 128-bit number."""
        if any(first <= number <= last for first, last in self.prefixes):
            return DOMESTIC
        special = special_of(number)
        if special is None:
            is_v4 = number >> 32 == 0xFFFF
            return self._by_country(number - MAPPED, 4) if is_v4 else self._by_country(number, 6)
        if special.mark == SPECIAL:
            return SPECIAL
        return self.class_of(MAPPED + inside(number, special.mark))

    def _by_country(self, number: int, family: int) -> int:
        said = self.table.said_of(number, family)
        if self.country is not None and self.is_home(said):
            return DOMESTIC
        if said:
            return FOREIGN
        # It may be a country's but not a prefix's; nobody can be behind reserved IPv6 space.
        public = family == 4 or PUBLIC_V6[0] <= number >> 64 <= PUBLIC_V6[1]
        return FOREIGN if self.country is None and public else UNALLOCATED

    def is_home(self, said: Mapping[str, int]) -> bool:
        """Whether an address is home by the policy, by the masks of sources for each country."""
        home = said.get(self.country or "", 0)
        spoken = reduce(or_, said.values(), 0)
        if self.policy == "any":
            return home != 0
        if self.policy == "majority":
            return home != 0 and 2 * home.bit_count() >= spoken.bit_count()
        return home & spoken & -spoken != 0


def inside(number: int, mark: int) -> int:
    """Returns the IPv4 address inside an IPv6 address (RFC 6052, 3056, 4380)."""
    if mark == INSIDE_6TO4:
        return number >> 80 & 0xFFFFFFFF
    low = number & 0xFFFFFFFF
    return low ^ 0xFFFFFFFF if mark == INSIDE_TEREDO else low


@cache
def _specials() -> tuple[tuple[Span, Special], ...]:
    """Returns the special-purpose prefixes, longest first."""
    spans = [(_span(ipaddress.ip_network(row.prefix)), row) for row in SPECIALS]
    return tuple(sorted(spans, key=lambda item: item[0][1] - item[0][0]))


def special_of(number: int) -> Special | None:
    """Returns the special-purpose prefix of an address, if any.

    ::ffff:0:0/96 is none: under it IPv4 addresses stand for themselves.
    """
    found = next((row for (first, last), row in _specials() if first <= number <= last), None)
    return None if found and found.mark == INSIDE_LOW and number >> 32 == 0xFFFF else found


def _span(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Span:
    return to_number(network[0]), to_number(network[-1])


@dataclass(frozen=True)
class Homeland:
    """Which addresses are domestic.

    Attributes:
        arrays: The compiled tables.
        policy_sha256: SHA-256 of the country, the policy and the sorted prefixes.
        table_sha256: SHA-256 over the data: homeland table and special-purpose table.
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

    def describe(self) -> dict[str, Any]:
        """Returns what says what is domestic; prefixes only by their number, they are domestic.

        Not the hash of the policy either: whoever tries all prefixes finds them by it.
        """
        rules = self.rules
        return {
            "country": rules.country or "none",
            "home_policy": rules.policy,
            "home_prefixes": len(rules.prefixes),
            "ranges": len(rules.table.v4.start) + len(rules.table.v6.start),
            "countries": len(rules.table.countries),
            "table_sha256": self.table_sha256,
            "sources": [asdict(source) for source in rules.table.sources],
        }

    def class_of_text(self, address: str) -> int:
        """Returns the class of an address in text; slow, and independent of the kernels.

        Raises:
            SettingsError: It is not an address.
        """
        return self.rules.class_of(number_of(address))


def number_of(address: str) -> int:
    """Returns an address in text as a 128-bit number.

    Raises:
        SettingsError: It is not an address.
    """
    try:
        return to_number(ipaddress.ip_address(address))
    except ValueError:
        raise SettingsError(
            "That is not an IP address; write one such as 192.0.2.1 or 2001:db8::1."
        ) from None


def load(
    country: str | None,
    prefixes: Sequence[str] = (),
    *,
    policy: Policy = "any",
    path: Path = SHIPPED,
) -> Homeland:
    """Makes the homeland.

    Args:
        country: Two-letter code; None when the prefixes alone are home, so that all
            other public space (IPv4, and 2000::/3 of IPv6) is foreign, allocated or not.
        prefixes: Prefixes in CIDR notation, IPv4 or IPv6. They win over everything,
            the special-purpose table included, since home networks are often private.
        policy: Whose word counts when sources disagree.
        path: The homeland table.

    Raises:
        SettingsError: Nothing is named, the country is unknown, a prefix is wrong, or
            the table cannot be read.
    """
    if country is None and not prefixes:
        raise SettingsError(
            "Nothing is domestic yet; name a home country (--country JP) or prefix (--home)."
        )
    networks = [_network(text, nth) for nth, text in enumerate(prefixes, start=1)]
    table = read(path)
    code = country.upper() if country is not None else None
    if code is not None and code not in table.countries:
        raise SettingsError(
            f"No country '{country}' in the homeland table; use a two-letter code such as JP."
        )
    spans = tuple(sorted({_span(network) for network in networks}))
    return of_rules(Rules(spans, code, policy, table))


def of_rules(rules: Rules) -> Homeland:
    """Compiles rules."""
    return Homeland(
        arrays=_compiled(rules),
        policy_sha256=_policy_sha256(rules),
        table_sha256=_table_sha256(rules.table),
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


def borderless(home: Homeland) -> Homeland:
    """Returns a homeland to which nothing is domestic, home prefixes neither.

    Through it a reader hands over every packet with a public address, so that it can be
    judged afterwards.
    """
    rules = replace(home.rules, country=None, table=HomelandTable((), (), no_rows(), no_rows()))
    return replace(home, arrays=_compiled(rules, FOREIGN), rules=rules)


def _compiled(rules: Rules, class_of_prefixes: int = DOMESTIC) -> Arrays:
    specials = [Paint(*span, row.mark) for span, row in reversed(_specials())]
    homes = [Paint(*span, class_of_prefixes) for span in rules.prefixes]
    # Under ::ffff:0:0/96 the kernel goes to the IPv4 table itself, so its mark must not cover it.
    v4 = [paint for paint in specials if paint.first >> 32 == 0xFFFF and paint.value == SPECIAL]
    return kernels.compile_tables(
        _country_steps(rules, 4), v4 + homes, _country_steps(rules, 6), specials + homes
    )


def _country_steps(rules: Rules, family: int) -> Steps:
    public = (0,) if family == 4 else (PUBLIC_V6[0], PUBLIC_V6[1] + 1)
    starts, spoken, home = rules.table.votes(rules.country, family, public)
    classes = np.where(spoken != 0, FOREIGN, UNALLOCATED).astype(np.uint8)
    if rules.country is None:
        is_public = np.full(len(starts), True)
        if family == 6:
            is_public = (starts >= PUBLIC_V6[0]) & (starts <= PUBLIC_V6[1])
        classes[is_public] = FOREIGN
    else:
        classes[decided(rules.policy, spoken, home)] = DOMESTIC
    within = starts <= LAST_V4 if family == 4 else slice(None)
    return kernels.merged(Steps(starts[within], classes[within]))


def decided(policy: Policy, spoken: U32, home: U32) -> npt.NDArray[np.bool_]:
    """Returns what is home by a policy; see `Rules.is_home`, the same for one address.

    Args:
        policy: Whose word counts.
        spoken: Masks of the sources that say something, shape (n,).
        home: Masks of those that say home, shape (n,).
    """
    some: npt.NDArray[np.bool_] = home != 0
    if policy == "majority":
        some &= 2 * np.bitwise_count(home) >= np.bitwise_count(spoken)
    elif policy == "primary":
        some &= home & spoken & (~spoken + np.uint32(1)) != 0  # the lowest bit alone
    return some


def _policy_sha256(rules: Rules) -> str:
    lines = [f"country {rules.country or '-'}"]
    if rules.country is not None and rules.policy != "any":
        lines.append(f"policy {rules.policy}")
    lines += [f"prefix {a:032x}-{z:032x}" for a, z in rules.prefixes]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _table_sha256(table: HomelandTable) -> str:
    lines = [table.sha256, *(repr(tuple(row)) for row in SPECIALS)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
