"""Why an address is classed as it is: every rule that was asked, in words."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from telemetry.homeland.address import MAPPED
from telemetry.homeland.classes import NAMES, SPECIAL
from telemetry.homeland.policy import Rules, inside, number_of, special_of


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an address was classed.

    Attributes:
        address: In canonical text.
        verdict: Name of its class.
        rule: What decided: `home prefix`, `special purpose`, `sources`, `no source`, or
            `not home` where prefixes alone are home.
        because: What was asked, in sentences.
        said: Names of the sources that say something, by country.
    """

    address: str
    verdict: str
    rule: str
    because: list[str]
    said: dict[str, list[str]]


def explain(rules: Rules, address: str) -> Explanation:
    """Explains the class of an address in text.

    Raises:
        SettingsError: It is not an address.
    """
    number = asked = number_of(address)
    because: list[str] = []
    while True:
        special = None if _at_home(rules, number) else special_of(number)
        if special is None or special.mark == SPECIAL:
            break
        number = MAPPED + inside(number, special.mark)
        because.append(
            f"{special.prefix} ({special.name}, RFC {special.rfc}) holds an IPv4 address, "
            f"{_text(number)}, which decides."
        )
    said = _said(rules, number)
    if _at_home(rules, number):
        rule, said = "home prefix", {}
        because.append("It lies in a home prefix, which wins over everything.")
    elif special is not None:
        rule, said = "special purpose", {}
        because.append(
            f"It lies in {special.prefix} ({special.name}, RFC {special.rfc}): never foreign."
        )
    elif not said:
        rule = "no source"
        because.append("No source gives it to any country.")
    else:
        rule = "sources" if rules.country else "not home"
        because += [f"Given to {country} by {', '.join(names)}." for country, names in said.items()]
    if rule in ("sources", "no source") and rules.country:
        because.append(
            f"Home is {rules.country}, by policy '{rules.policy}': {_MEANING[rules.policy]}"
        )
    elif rules.country is None and rule in ("not home", "no source"):
        because.append("Home is the prefixes alone: all other public space is foreign.")
    return Explanation(_text(asked), NAMES[rules.class_of(asked)], rule, because, said)


_MEANING = {
    "any": "one source that says so is enough.",
    "majority": "at least half of the sources that say anything must say so.",
    "primary": "the first source that says anything decides.",
}


def _at_home(rules: Rules, number: int) -> bool:
    return any(first <= number <= last for first, last in rules.prefixes)


def _said(rules: Rules, number: int) -> dict[str, list[str]]:
    family = 4 if number >> 32 == 0xFFFF else 6
    masks = rules.table.said_of(number - MAPPED if family == 4 else number, family)
    sources = rules.table.sources
    return {
        country: [source.name for bit, source in enumerate(sources) if mask >> bit & 1]
        for country, mask in sorted(masks.items())
    }


def _text(number: int) -> str:
    if number >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(number - MAPPED))
    return str(ipaddress.IPv6Address(number))
