"""Which addresses the generated traffic uses, and the world a scenario works in.

Domestic hosts lie in blocks registered in Japan, foreign ones in blocks wholly
registered elsewhere (both by the regional registries' tables, October 2026). Hostile
roles are given only to blocks that their holders do not announce, so that no label
points at a host somebody runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import numpy as np

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

Network = IPv4Network | IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


HOME = _networks("133.11.0.0/16", "153.128.0.0/10", "60.32.0.0/12", "118.0.0.0/12")
HOME6 = _networks("2400:4050::/32", "240b:10::/28")
SERVERS = _networks("53.0.0.0/8", "17.0.0.0/8", "12.0.0.0/8", "19.0.0.0/8", "84.128.0.0/10")
SERVERS6 = _networks("2003::/19", "2001:470::/32")
HOSTILE = _networks("22.0.0.0/8", "29.0.0.0/8", "30.0.0.0/8", "33.0.0.0/8", "25.0.0.0/8")
HOSTILE6 = _networks("2608::/22")
FORGED = _networks("6.0.0.0/8", "11.0.0.0/8", "21.0.0.0/8", "26.0.0.0/8", "28.0.0.0/8")
DOMESTIC_POOLS = HOME + HOME6
FOREIGN_POOLS = SERVERS + SERVERS6 + HOSTILE + HOSTILE6 + FORGED


def _contains(pools: tuple[Network, ...], address: str) -> bool:
    parsed = ip_address(address)
    return any(parsed in network for network in pools if network.version == parsed.version)


@lru_cache(maxsize=65536)
def is_foreign(address: str) -> bool:
    """Whether the plan gives the address to a foreign host."""
    return _contains(FOREIGN_POOLS, address)


@lru_cache(maxsize=65536)
def is_public(address: str) -> bool:
    """Whether the address is a public one; the plan's others are private."""
    return is_foreign(address) or _contains(DOMESTIC_POOLS, address)


class Dice:
    """Random draws that stay the same for a seed on every machine.

    Only `random` and `integers` of numpy's PCG64 are used, and every scenario has its
    own stream, so that adding one scenario changes no other.
    """

    def __init__(self, *entropy: int) -> None:
        """Starts the stream that belongs to these numbers."""
        self._generator = np.random.Generator(np.random.PCG64(list(entropy)))

    def between(self, low: float, high: float) -> float:
        """A number in [low, high), uniform."""
        return low + (high - low) * float(self._generator.random())

    def below(self, limit: int) -> int:
        """A whole number in [0, limit), uniform."""
        return int(self._generator.integers(limit))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return float(self._generator.random()) < probability

    def pause(self, mean: float) -> int:
        """A wait in microseconds, exponential with the mean: arrivals at random."""
        return max(1, int(-math.log(1.0 - float(self._generator.random())) * mean))

    def jitter(self, period: float, share: float) -> int:
        """A wait in microseconds, uniform within `share` around the period."""
        return int(period * self.between(1 - share, 1 + share))

    def size(self, smallest: int, largest: int) -> int:
        """A heavy-tailed size in bytes (Pareto, shape 1.2), cut at the largest."""
        return min(largest, int(smallest * (1.0 - float(self._generator.random())) ** (-1 / 1.2)))

    def popular(self, count: int) -> int:
        """An index in [0, count) where small ones are met far more often."""
        return min(count - 1, int(count * float(self._generator.random()) ** 2.5))

    def address(self, pools: tuple[Network, ...]) -> str:
        """An address drawn from the pools."""
        network = pools[self.below(len(pools))]
        room = min(network.num_addresses, 1 << 62) - 2
        base = int(network.network_address)
        if network.version == 6:
            # A routed /64 and a host part inside the network, as customers have them.
            spare = 64 - network.prefixlen
            base += self.below(1 << min(spare, 30)) << 64
        return str(ip_address(base + 1 + self.below(room)))

    def addresses(self, pools: tuple[Network, ...], count: int) -> tuple[str, ...]:
        """So many different addresses drawn from the pools."""
        found: dict[str, None] = {}
        while len(found) < count:
            found[self.address(pools)] = None
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Plan:
    """The hosts that several scenarios and captures share."""

    homes: tuple[str, ...]
    homes6: tuple[str, ...]
    web: tuple[str, ...]
    web6: tuple[str, ...]
    resolvers: tuple[str, ...]
    home_resolvers: tuple[str, ...]
    clocks: tuple[str, ...]
    home_clock: str
    updates: tuple[str, ...]
    mail: tuple[str, ...]
    home_mail: tuple[str, ...]
    push: tuple[str, ...]
    aftr: str

    @classmethod
    def draw(cls, seed: int) -> Plan:
        """Draws the hosts for a seed."""
        dice = Dice(seed, 0)
        home = dice.addresses(HOME, 56)
        home6 = dice.addresses(HOME6, 17)
        servers = dice.addresses(SERVERS, 60)
        return cls(
            homes=home[:50],
            homes6=home6[:16],
            web=servers[:40],
            web6=dice.addresses(SERVERS6, 12),
            resolvers=servers[40:44],
            home_resolvers=home[50:52],
            clocks=servers[44:46],
            home_clock=home[52],
            updates=servers[46:50],
            mail=servers[50:54],
            home_mail=home[53:56],
            push=servers[54:57],
            aftr=home6[16],
        )


@dataclass(slots=True)
class World:
    """What a scenario is given: hosts, dice, the hours to fill, its canary, its labels.

    Attributes:
        plan: Hosts shared with other scenarios.
        dice: The scenario's own random stream.
        start: First moment in microseconds since 1970.
        end: Moment after the last, in microseconds since 1970.
        canary: Marker and invented personal words that every payload begins with.
        labels: Role of each foreign endpoint.
    """

    plan: Plan
    dice: Dice
    start: int
    end: int
    canary: bytes
    labels: dict[str, str] = field(default_factory=dict)

    def label(self, address: str, role: str = "benign") -> str:
        """Enters the role of a foreign endpoint and returns its address."""
        self.labels[address] = role
        return address

    def foe(self, role: str, pools: tuple[Network, ...] = HOSTILE) -> str:
        """A new foreign address with a hostile role."""
        return self.label(self.dice.address(pools), role)

    def home(self) -> str:
        """One of the shared domestic hosts."""
        return self.plan.homes[self.dice.below(len(self.plan.homes))]

    def somewhere(self, length: float) -> int:
        """A moment that leaves room for `length` microseconds before the end."""
        return int(self.dice.between(self.start, max(self.start + 1, self.end - length)))

    def every(self, period: float, share: float) -> Iterator[int]:
        """Moments one jittered period apart, from a random phase to the end."""
        now = self.start + int(self.dice.between(0, period))
        while now < self.end:
            yield now
            now += self.dice.jitter(period, share)

    def at_random(self, mean: float) -> Iterator[int]:
        """Moments with exponential waits of the given mean in microseconds."""
        now = self.start + self.dice.pause(mean)
        while now < self.end:
            yield now
            now += self.dice.pause(mean)
