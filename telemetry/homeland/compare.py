"""What tables say differently: between two of them, and between the sources of one.

IPv4 is counted in addresses, IPv6 in /64 networks, each by its first address. The
IPv6 addresses that carry an IPv4 address (6to4, Teredo, NAT64) follow IPv4 and are
not counted again.
"""

from __future__ import annotations

import csv
import ipaddress
import re
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from telemetry.errors import SettingsError
from telemetry.homeland.address import MAPPED
from telemetry.homeland.classes import NAMES
from telemetry.homeland.policy import Homeland, Rules, decided
from telemetry.homeland.ranges import LAST_V4, PUBLIC_V6, U32, U64, Votes
from telemetry.homeland.refresh import flat

U8 = npt.NDArray[np.uint8]
OTHER: Final = "other"
CLOUD: Final = "cloud"
_STRATUM = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class Changes(NamedTuple):
    """Ranges of one family whose class differs, sorted; arrays of shape (n,).

    Attributes:
        start: First address: 32 bits (IPv4) or the upper 64 bits (IPv6).
        size: Addresses (IPv4) or /64 networks (IPv6).
        before: Class by the old table.
        after: Class by the new one.
    """

    start: U64
    size: U64
    before: U8
    after: U8


def changes(old: Homeland, new: Homeland, family: int) -> Changes:
    """Returns where two homelands class the addresses of a family differently."""
    bounds = [_bounds(home, family) for home in (old, new)]
    starts = np.unique(np.concatenate(bounds))
    before, after = (_classes(home, starts, family) for home in (old, new))
    turns = np.append(True, (before[1:] != before[:-1]) | (after[1:] != after[:-1]))
    starts, before, after = starts[turns], before[turns], after[turns]
    last = LAST_V4 if family == 4 else (1 << 64) - 1
    size = np.append(starts[1:], np.uint64(last)) - starts
    differs = before != after
    return Changes(starts[differs], size[differs], before[differs], after[differs])


def _bounds(home: Homeland, family: int) -> U64:
    if family == 4:
        return home.arrays.v4_start.astype(np.uint64)
    begins = home.arrays.v6_hi
    return np.append(begins, begins[begins < np.iinfo(np.uint64).max] + np.uint64(1))


def _classes(home: Homeland, starts: U64, family: int) -> U8:
    zero = np.zeros(len(starts), np.uint64)
    return (
        home.classify(zero, starts + np.uint64(MAPPED))
        if family == 4
        else home.classify(starts, zero)
    )


def totals(found: Changes) -> dict[str, int]:
    """Returns how much changes from class to class, as `foreign to domestic`."""
    sums: dict[str, int] = {}
    for before, after in sorted(set(zip(found.before.tolist(), found.after.tolist(), strict=True))):
        some = (found.before == before) & (found.after == after)
        sums[f"{NAMES[before]} to {NAMES[after]}"] = int(found.size[some].sum())
    return sums


def largest(found: Changes, family: int, number: int) -> list[dict[str, object]]:
    """Returns the largest ranges whose class changes, largest first."""
    order = np.argsort(found.size, kind="stable")[::-1][:number]
    return [
        {
            "first": _text(int(found.start[n]), family),
            "last": _text(int(found.start[n]) + int(found.size[n]) - 1, family, last=True),
            "size": int(found.size[n]),
            "before": NAMES[found.before[n]],
            "after": NAMES[found.after[n]],
        }
        for n in order
    ]


def _text(key: int, family: int, last: bool = False) -> str:
    if family == 4:
        return str(ipaddress.IPv4Address(key))
    return str(ipaddress.IPv6Address(key << 64 | ((1 << 64) - 1) * last))


class Strata(NamedTuple):
    """Kinds of networks, as a user's file tells; `rows[family]` are (start, end, name)."""

    names: tuple[str, ...]
    rows: dict[int, list[tuple[int, int, int]]]


def read_strata(path: Path) -> Strata:
    """Reads a CSV file of `prefix,stratum`, such as `192.0.2.0/24,mobile`.

    Raises:
        SettingsError: The file cannot be read, or a line is not of that form.
    """
    found: list[tuple[int, int, int, str]] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if not row or row[0].startswith("#"):
                    continue
                try:
                    found.append(_stratum(*row))
                except (TypeError, ValueError):
                    raise SettingsError(
                        f"Line {number} of {path.name} is not 'prefix,stratum' (at most /64, a "
                        "name in small letters); correct it."
                    ) from None
    except (OSError, UnicodeDecodeError, csv.Error):
        raise SettingsError(f"{path} cannot be read; check its name and mode.") from None
    names = tuple(sorted({name for *_, name in found} | {OTHER, CLOUD}))
    rows = {
        family: flat(sorted({(a, z, names.index(n)) for f, a, z, n in found if f == family}))
        for family in (4, 6)
    }
    return Strata(names, rows)


NO_STRATA: Final = Strata((CLOUD, OTHER), {4: [], 6: []})


def _stratum(prefix: str, name: str) -> tuple[int, int, int, str]:
    network = ipaddress.ip_network(prefix.strip())
    name = name.strip()
    if not _STRATUM.fullmatch(name) or (network.version == 6 and network.prefixlen > 64):
        raise ValueError
    shift = 0 if network.version == 4 else 64
    return network.version, int(network[0]) >> shift, int(network[-1]) >> shift, name


def disagreement(rules: Rules, strata: Strata = NO_STRATA) -> list[dict[str, object]]:
    """Returns how much space sources give to the home country, and where they disagree.

    A network that a cloud's own list names is `cloud`, any other is what `strata` says,
    or `other`. The table holds no names of networks, so that fixed and mobile ones are
    known by `strata` alone.

    Args:
        rules: Home country, policy and table.
        strata: Kinds of networks.

    Returns:
        For each family and stratum with home space in it: `home_by_any`, and of that
        `unanimous` (all that say something say home), `disputed`, `home_by_majority`,
        `home_by_primary`, and as `by_NAME` what each source calls home.

    Raises:
        SettingsError: No country is home.
    """
    if rules.country is None:
        raise SettingsError("Sources speak of countries; name the home with --country.")
    rows: list[dict[str, object]] = []
    units = {4: "addresses", 6: "/64 networks"}
    for family in (4, 6):
        bounds = {edge for a, z, _ in strata.rows[family] for edge in (a, z + 1)}
        votes = rules.table.votes(rules.country, family, sorted(bounds))
        kinds = _kinds(rules, votes, strata, family)
        last = LAST_V4 if family == 4 else PUBLIC_V6[1]
        size = np.append(votes.starts[1:], np.uint64(last + 1)) - votes.starts
        for number, name in enumerate(strata.names):
            some = (kinds == number) & (votes.home != 0)
            if some.any():
                part: dict[str, object] = {"stratum": f"{name}, IPv{family}", "unit": units[family]}
                part |= _counts(rules, votes.spoken[some], votes.home[some], size[some])
                rows.append(part)
    return rows


def _kinds(rules: Rules, votes: Votes, strata: Strata, family: int) -> npt.NDArray[np.int64]:
    kinds = np.full(len(votes.starts), strata.names.index(OTHER))
    for start, end, name in strata.rows[family]:
        first, last = np.searchsorted(votes.starts, np.array([start, end + 1], np.uint64))
        kinds[first:last] = name
    clouds = sum(1 << bit for bit, s in enumerate(rules.table.sources) if s.kind == "cloud")
    kinds[votes.spoken & np.uint32(clouds) != 0] = strata.names.index(CLOUD)
    return kinds


def _counts(rules: Rules, spoken: U32, home: U32, size: U64) -> dict[str, int]:
    def total(some: npt.NDArray[np.bool_]) -> int:
        return int(size[some].sum())

    counts = {
        "home_by_any": total(home != 0),
        "unanimous": total(home == spoken),
        "disputed": total(home != spoken),
        "home_by_majority": total(decided("majority", spoken, home)),
        "home_by_primary": total(decided("primary", spoken, home)),
    }
    for bit, source in enumerate(rules.table.sources):
        counts[f"by_{source.name}"] = total(home >> np.uint32(bit) & np.uint32(1) == 1)
    return counts
