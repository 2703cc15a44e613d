"""Two attacks on pseudonyms, and what they yield: the figures that README states.

An attacker sees the records, as a reader of the lake does, and nothing else of ours:

* `probes`: he sent packets to some hosts through the border and finds his own probes again by
  their times and ports, so he knows which pseudonym belongs to which of those addresses. What does
  he learn of hosts that he did not probe?
* `fingerprints`: he takes the hosts of one month and those of the next, under other keys, and
  matches them by the foreign endpoints that they talk to.

Run this file to print the figures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from telemetry.privacy import Keys, Pseudonyms
from telemetry.privacy.keys import Scheme

SCHEMES: tuple[Scheme, ...] = ("deterministic", "prefix", "cryptopan")
SHARES = (0.001, 0.01, 0.1)
VISITS = (2, 5, 20)
_V4 = 0xFFFF << 32


def population(hosts: int, seed: int = 1) -> np.ndarray:
    """Returns addresses as they lie in a country: in few /16s, of which some are full."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice(np.arange(1 << 8, 223 << 8), 300, replace=False)
    weights = 1 / np.arange(1, 301)
    block = rng.choice(blocks, 3 * hosts, p=weights / weights.sum())
    third = np.minimum(rng.geometric(0.02, 3 * hosts) - 1, 255)
    found = np.unique(block << 16 | third << 8 | rng.integers(1, 255, 3 * hosts))
    return rng.permutation(found)[:hosts].astype(np.uint64)


@dataclass(frozen=True)
class Learned:
    """What probes taught about the hosts that were not probed.

    Attributes:
        bits: Leading bits of each host's address that are certain (n).
        wrong: Hosts of whose address the attacker is certain and wrong: none, or the attack errs.
    """

    bits: np.ndarray
    wrong: int

    def share(self, bits: int) -> float:
        """Share of hosts of which so many leading bits are known."""
        return float((self.bits >= bits).mean())


def probes(scheme: Scheme, addresses: np.ndarray, share: float, seed: int = 2) -> Learned:
    """Probes a share of the hosts and reads the pseudonyms of the others."""
    rng = np.random.default_rng(seed)
    lo = addresses | np.uint64(_V4)
    host, net = Pseudonyms(Keys(bytes(range(32))), scheme).hosts(
        np.zeros_like(lo), lo, np.zeros(len(lo), np.int64)
    )
    pids, nets = ([UUID(text).int for text in column.to_pylist()] for column in (host, net))
    probed = np.zeros(len(addresses), bool)
    probed[rng.choice(len(addresses), max(1, int(share * len(addresses))), replace=False)] = True
    known = {int(addresses[i]): (pids[i], nets[i]) for i in np.flatnonzero(probed)}
    read = _read_networks if scheme == "deterministic" else _read_prefixes
    others = np.flatnonzero(~probed)
    guesses = read(known, [(pids[i], nets[i]) for i in others])
    bits = np.array([bits for bits, _ in guesses])
    wrong = sum(
        int(addresses[i]) >> 32 - bits != prefix if bits else False
        for i, (bits, prefix) in zip(others, guesses, strict=True)
    )
    return Learned(bits, wrong)


Known = dict[int, tuple[int, int]]
Guess = tuple[int, int]
"""How many leading bits of an address are certain, and these."""


def _read_networks(known: Known, seen: list[tuple[int, int]]) -> list[Guess]:
    """All that shows is who is in the /24 of a probed host."""
    networks = {net: address >> 8 for address, (_, net) in known.items()}
    return [(24, networks[net]) if net in networks else (0, 0) for _, net in seen]


def _read_prefixes(known: Known, seen: list[tuple[int, int]]) -> list[Guess]:
    """Pseudonyms part where addresses part: that bit is certain too, it is the other one."""
    ordered = sorted((pid, address) for address, (pid, _) in known.items())
    pids = np.array([pid & 0xFFFFFFFF for pid, _ in ordered])
    guesses = []
    for pid, _ in seen:
        at = int(np.searchsorted(pids, pid & 0xFFFFFFFF))
        best = (0, 0)
        for pair in ordered[max(0, at - 1) : at + 1]:  # the nearest shares the longest prefix
            bits = min(32, 33 - (pair[0] ^ pid).bit_length())
            best = max(best, (bits, (pair[1] ^ 1 << 32 - bits) >> 32 - bits))
        guesses.append(best)
    return guesses


def fingerprints(first: dict[str, set[str]], then: dict[str, set[str]]) -> dict[str, str]:
    """Matches the hosts of two months.

    Args:
        first: The endpoints that each host of one month talked to.
        then: The same of the next month.

    Returns:
        For each host of the next month the one of the month before that is most like it: what
        both talked to, the rarer the more, over what either did.
    """
    fans = Counter(
        endpoint for month in (first, then) for own in month.values() for endpoint in own
    )
    weight = {host: sum(1 / fans[e] for e in sorted(own)) for host, own in first.items()}
    users: dict[str, list[str]] = {}
    for host in sorted(first):
        for endpoint in first[host]:
            users.setdefault(endpoint, []).append(host)
    matched = {}
    for host, own in then.items():
        shared: Counter[str] = Counter()
        for endpoint in sorted(own):
            for other in users.get(endpoint, ()):
                shared[other] += 1 / fans[endpoint]
        mine = sum(1 / fans[endpoint] for endpoint in sorted(own))
        likeness = {other: s / (mine + weight[other] - s) for other, s in shared.items()}
        matched[host] = max(likeness, key=lambda other: (likeness[other], other), default="")
    return matched


def habits(hosts: int, visits: int, seed: int = 3) -> tuple[dict[str, set[str]], ...]:
    """Returns two months of hosts that keep to habits, under the pseudonyms of each month.

    A host has some endpoints that it turns to, more of the popular ones; in a month it meets
    each with probability 0.7, and as many others again as chance has it.

    Args:
        hosts: How many.
        visits: Endpoints that a host turns to, on average.
        seed: Equal seeds make equal months.

    Returns:
        The endpoints of each host, in either month. The real name of a host is not in them;
        a host stands at the same place in both.
    """
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 20_001)
    weights /= weights.sum()
    months: tuple[dict[str, set[str]], ...] = ({}, {})
    addresses = population(hosts)
    lo = addresses | np.uint64(_V4)
    keys = Pseudonyms(Keys(bytes(range(32))))
    names = [
        keys.hosts(np.zeros_like(lo), lo, np.full(hosts, month, np.int64))[0].to_pylist()
        for month in (675, 676)
    ]
    for place in range(hosts):
        own = rng.choice(20_000, rng.poisson(visits) + 1, p=weights)
        for month, named in zip(months, names, strict=True):
            met = own[rng.random(len(own)) < 0.7]
            chance = rng.choice(20_000, rng.poisson(0.3 * visits), p=weights)
            month[named[place]] = {str(endpoint) for endpoint in (*met, *chance)}
    return months


def known_again(hosts: int, visits: int) -> float:
    """Returns the share of hosts that the fingerprint finds in the next month."""
    first, then = habits(hosts, visits)
    truth = dict(zip(then, first, strict=True))
    matched = fingerprints(first, then)
    return sum(matched[host] == truth[host] for host in then) / hosts


if __name__ == "__main__":
    people = population(50_000)
    for scheme in SCHEMES:
        for share in SHARES:
            learned = probes(scheme, people, share)
            told = ", ".join(f"/{bits} of {learned.share(bits):.1%}" for bits in (16, 24, 32))
            print(f"{scheme:14} {share:6.1%} probed: {told}; wrong: {learned.wrong}")
    for visits in VISITS:
        print(f"{visits} endpoints a host: {known_again(2_000, visits):.1%} known again")
