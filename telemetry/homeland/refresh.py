"""Makes a homeland table from local files; opens no connection.

Each source is cut at the bounds of all others. Where ranges of one source overlap,
the narrower one is meant; where one source gives the very same range to several
countries, or speaks of less than a /64, it says all of them.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from telemetry.errors import SettingsError
from telemetry.homeland.origins import Claim, Origin, read_origin
from telemetry.homeland.ranges import (
    MOST_SOURCES,
    NOT_STATED,
    U32,
    U64,
    Family,
    HomelandTable,
    SourceFact,
    no_rows,
    write,
)

I32 = npt.NDArray[np.int32]


class Layer(NamedTuple):
    """Disjoint ranges of one source and family, sorted; arrays of shape (n,)."""

    bit: int
    start: U64
    end: U64
    country: I32


def refresh(sources: Sequence[str], licences: Sequence[str], into: Path) -> HomelandTable:
    """Compiles files to a table; the same files in the same order give the same bytes.

    Args:
        sources: Files as `PATH`, or `NAME=PATH` to give one a name. Files of one name are
            one source, such as the five registries. The order is that of policy `primary`.
        licences: None; one for all; or one for each file.
        into: The table to write.

    Raises:
        SettingsError: A file cannot be used, or there are too many.
    """
    if licences and len(licences) not in (1, len(sources)):
        raise SettingsError("Give no --licence, one for all sources, or one for each in order.")
    given = [_named(source) for source in sources]
    terms = list(licences) * (len(sources) if len(licences) == 1 else 1) or [""] * len(sources)
    facts: dict[str, SourceFact] = {}
    claims: dict[str, list[Claim]] = {}
    for (name, path), licence in zip(given, terms, strict=True):
        origin, content = read_origin(path)
        if licence:
            origin.licence = licence
        name = name or _free(origin.name, facts)
        fact = _fact(name, origin, content)
        facts[name] = _both(facts[name], fact) if name in facts else fact
        claims.setdefault(name, []).extend(origin.claims)
    if not 1 <= len(facts) <= MOST_SOURCES:
        raise SettingsError(f"Name 1 to {MOST_SOURCES} sources, as files.")
    table = compile_table(list(facts.values()), list(claims.values()))
    write(table, into)
    return table


def _named(source: str) -> tuple[str, Path]:
    name, mark, path = source.partition("=")
    if mark and not Path(source).exists():
        return name, Path(path)
    return "", Path(source)


def _free(name: str, taken: dict[str, SourceFact]) -> str:
    number = 1
    free = name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _fact(name: str, origin: Origin, content: bytes) -> SourceFact:
    sha256 = hashlib.sha256(content).hexdigest()
    rows = len(origin.claims)
    return SourceFact(name, origin.kind, sha256, origin.date, rows, origin.licence)


def _both(one: SourceFact, other: SourceFact) -> SourceFact:
    """Returns the fact of two files that are one source; the older date counts."""
    if one.kind != other.kind or one.licence != other.licence:
        raise SettingsError(f"The files named {one.name} differ in kind or licence; part them.")
    dates = {one.date, other.date}
    return SourceFact(
        one.name,
        one.kind,
        hashlib.sha256(f"{one.sha256}{other.sha256}".encode()).hexdigest(),
        NOT_STATED if NOT_STATED in dates else min(dates),
        one.rows + other.rows,
        one.licence,
    )


def compile_table(facts: Sequence[SourceFact], claims: Sequence[Sequence[Claim]]) -> HomelandTable:
    """Puts the claims of sources together.

    Args:
        facts: The sources.
        claims: What each says, in any order.
    """
    countries = tuple(sorted({claim.country for said in claims for claim in said}))
    codes = {country: code for code, country in enumerate(countries)}
    v4, v6 = (
        _combined(
            [
                layer
                for bit, said in enumerate(claims)
                for layer in layers(bit, [c for c in said if c.family == family], codes)
            ]
        )
        for family in (4, 6)
    )
    used = np.flatnonzero(
        np.bincount(np.concatenate((v4.country, v6.country)), minlength=len(countries))
    )
    v4, v6 = (
        rows._replace(country=np.searchsorted(used, rows.country).astype(np.int32))
        for rows in (v4, v6)
    )
    return HomelandTable(tuple(facts), tuple(countries[code] for code in used), v4, v6)


def layers(bit: int, claims: Sequence[Claim], codes: dict[str, int]) -> list[Layer]:
    """Parts the claims of one source into sets of disjoint ranges."""
    coarse = sorted({(c.start, c.end, codes[c.country]) for c in claims if not c.finer})
    finer = sorted({(c.start, c.end, codes[c.country]) for c in claims if c.finer})
    sets = [flat(some) for some in _by_rank(coarse)] + [flat(some) for some in _by_rank(finer)]
    return [_layer(bit, some) for some in sets]


Rows = list[tuple[int, int, int]]
"""(start, end, country), sorted."""


def _by_rank(rows: Rows) -> list[Rows]:
    """Parts rows so that each part gives a range to one country only."""
    parts: list[Rows] = []
    before, rank = None, 0
    for row in rows:
        rank = rank + 1 if row[:2] == before else 0
        before = row[:2]
        if rank == len(parts):
            parts.append([])
        parts[rank].append(row)
    return parts


def flat(rows: Rows) -> Rows:
    """Cuts ranges that overlap; the narrower one counts, and of equals the later."""
    if all(a[1] < b[0] for a, b in pairwise(rows)):
        return rows
    edges = sorted({start for start, _, _ in rows} | {end + 1 for _, end, _ in rows})
    flat: Rows = []
    open_rows: list[tuple[int, int, int, int]] = []
    at = 0
    for edge, following in pairwise(edges):
        while at < len(rows) and rows[at][0] == edge:
            start, end, country = rows[at]
            heapq.heappush(open_rows, (end - start, -start, end, country))
            at += 1
        while open_rows and open_rows[0][2] < edge:
            heapq.heappop(open_rows)
        if open_rows:
            flat.append((edge, following - 1, open_rows[0][3]))
    return flat


def _layer(bit: int, rows: Rows) -> Layer:
    start, end, country = zip(*rows, strict=True)
    return Layer(
        bit, np.array(start, np.uint64), np.array(end, np.uint64), np.array(country, np.int32)
    )


def _combined(parts: Sequence[Layer]) -> Family:
    """Cuts all layers at each other's bounds, and says for each piece who says what."""
    one = np.uint64(1)
    bounds = [np.zeros(0, np.uint64), *(p.start for p in parts), *(p.end + one for p in parts)]
    starts = np.sort(np.concatenate(bounds))
    starts = starts[np.append(True, starts[1:] != starts[:-1])] if len(starts) else starts
    said = [_spread(part, starts) for part in parts]
    columns: list[tuple[npt.NDArray[np.intp], I32, U32]] = []
    for number, country in enumerate(said):
        first = country >= 0
        for earlier in said[:number]:
            first &= earlier != country
        piece = np.flatnonzero(first)
        mask = np.zeros(len(piece), np.uint32)
        for part, other in zip(parts, said, strict=True):
            mask |= (other[piece] == country[piece]).astype(np.uint32) << np.uint32(part.bit)
        columns.append((piece, country[piece], mask))
    if not columns:
        return no_rows()
    piece, country, mask = map(np.concatenate, zip(*columns, strict=True))
    return _joined(starts[piece], starts[piece + 1] - one, country, mask)


def _spread(part: Layer, starts: U64) -> I32:
    """Returns the country of a layer at each start, -1 where it says nothing."""
    at = np.searchsorted(part.start, starts, "right") - 1
    inside = (at >= 0) & (starts <= part.end[at])
    return np.where(inside, part.country[at], -1).astype(np.int32)


def _joined(start: U64, end: U64, country: I32, mask: U32) -> Family:
    """Joins pieces of one country and mask that touch, and sorts them as a table is."""
    order = np.lexsort((start, country))
    start, end, country, mask = start[order], end[order], country[order], mask[order]
    touches = (
        (end[:-1] + np.uint64(1) == start[1:])
        & (country[:-1] == country[1:])
        & (mask[:-1] == mask[1:])
    )
    begins, ends = np.append(True, ~touches), np.append(~touches, True)
    start, end, country, mask = start[begins], end[ends], country[begins], mask[begins]
    order = np.lexsort((country, end, start))
    return Family(start[order], end[order], country[order], mask[order])
