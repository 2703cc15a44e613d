"""The homeland table: which source says that which country holds which range.

One Parquet file. Each row says that the sources of its mask give all addresses of
its range to its country. Rows of one country are disjoint; rows of different
countries overlap where sources disagree. The file's metadata names each source.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from telemetry.errors import SettingsError

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

Kind = Literal["registry", "mmdb", "csv", "geofeed", "cloud"]

VERSION: Final = 1
MOST_SOURCES: Final = 32
"""Bits of a mask."""
NOT_STATED: Final = "not stated"
PUBLIC_V6: Final = (0x2000 << 48, (0x4000 << 48) - 1)
"""Upper 64 bits of the first and the last address of 2000::/3, all of IPv6 that is given out
(RFC 4291, 2.4)."""
LAST_V4: Final = 0xFFFFFFFF

SCHEMA: Final = pa.schema(
    [
        pa.field("family", pa.uint8(), nullable=False),
        pa.field("start", pa.uint64(), nullable=False),
        pa.field("end", pa.uint64(), nullable=False),
        pa.field("country", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("sources", pa.uint32(), nullable=False),
    ]
)
"""Rows sorted by family, start, end and country, both ends included.

`family` is 4 or 6; an IPv6 bound is the upper 64 bits of an address of 2000::/3;
bit n of `sources` is set when source n of the metadata says so.
"""
_METADATA: Final = b"sekisho.homeland"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")
_TEXT = re.compile(r"[ -~]{1,200}")


@dataclass(frozen=True, slots=True)
class SourceFact:
    """What a table tells of one source.

    Attributes:
        name: Its name, unique in the table.
        kind: What it is.
        sha256: Hash of the file it was read from, or of several files' hashes.
        date: Day it was made, as YYYY-MM-DD, or "not stated".
        rows: Ranges read from it.
        licence: Its terms, or "not stated".
    """

    name: str
    kind: Kind
    sha256: str
    date: str
    rows: int
    licence: str

    def __post_init__(self) -> None:
        """Refuses what no source can be called or hold.

        Raises:
            SettingsError: A value is not of its form.
        """
        formed = (
            isinstance(self.name, str)
            and _NAME.fullmatch(self.name)
            and self.kind in get_args(Kind)
            and re.fullmatch(r"[0-9a-f]{64}", self.sha256)
            and re.fullmatch(rf"\d{{4}}-\d\d-\d\d|{NOT_STATED}", self.date)
            and type(self.rows) is int
            and self.rows >= 0
            and _TEXT.fullmatch(self.licence)
        )
        if not formed:
            raise SettingsError(
                "A source's name is up to 64 letters, digits, spaces and '._-', its licence up to "
                "200 characters of ASCII; correct it."
            )


class Family(NamedTuple):
    """Rows of one address family; arrays of shape (n,), sorted by start, end and country.

    Attributes:
        start: First address: 32 bits (IPv4) or the upper 64 bits (IPv6).
        end: Last address, in the same form.
        country: Position of the country in `HomelandTable.countries`.
        sources: Mask of the sources that say so.
    """

    start: U64
    end: U64
    country: npt.NDArray[np.int32]
    sources: U32


def no_rows() -> Family:
    """Returns a family of which nothing is said."""
    none = np.zeros(0, np.uint64)
    return Family(none, none, np.zeros(0, np.int32), np.zeros(0, np.uint32))


class Votes(NamedTuple):
    """Who says what, of one family: from each start to the next, arrays of shape (n,).

    Attributes:
        starts: Where each piece begins; the first is 0.
        spoken: Mask of the sources that say something.
        home: Mask of those that say the home country.
    """

    starts: U64
    spoken: U32
    home: U32


@dataclass(frozen=True)
class HomelandTable:
    """A table as it lies on the disk.

    Attributes:
        sources: What bit n of a mask stands for.
        countries: Two-letter codes, sorted.
        v4: IPv4 rows.
        v6: IPv6 rows.
    """

    sources: tuple[SourceFact, ...]
    countries: tuple[str, ...]
    v4: Family = field(repr=False)
    v6: Family = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of rows and sources, however a file packs them."""
        digest = hashlib.sha256(_canonical([asdict(source) for source in self.sources]))
        digest.update(_canonical(list(self.countries)))
        for family in (self.v4, self.v6):
            for column in family:
                digest.update(f"{len(column)} {column.dtype.itemsize};".encode())
                digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def said_of(self, number: int, family: int) -> dict[str, int]:
        """Returns what is said of an address, as masks by country: slow and obviously right.

        Args:
            number: The address as a whole number of 32 or 128 bits.
            family: 4 or 6.
        """
        key = number if family == 4 else number >> 64
        said = {}
        for country, (starts, ends, masks) in self._lists[family].items():
            at = bisect_right(starts, key) - 1
            if at >= 0 and key <= ends[at]:
                said[country] = masks[at]
        return said

    def votes(self, country: str | None, family: int, bounds: Sequence[int] = ()) -> Votes:
        """Returns who says what of every address, cut also at `bounds`."""
        rows = self.v4 if family == 4 else self.v6
        after = rows.end + np.uint64(1)
        all_bounds = np.concatenate((np.array([0, *bounds], np.uint64), rows.start, after))
        starts = np.sort(all_bounds, kind="stable")  # quick on what is nearly sorted
        starts = starts[np.append(True, starts[1:] != starts[:-1])]
        first, last = np.searchsorted(starts, rows.start), np.searchsorted(starts, after)
        ours = self.countries.index(country) if country in self.countries else -1
        at_home = rows.country == ours
        spoken, home = np.zeros(len(starts), np.uint32), np.zeros(len(starts), np.uint32)
        for bit in range(len(self.sources)):
            says = rows.sources >> np.uint32(bit) & np.uint32(1) == 1
            for mask, some in ((spoken, says), (home, says & at_home)):
                opens = np.bincount(first[some], minlength=len(starts))
                closes = np.bincount(last[some], minlength=len(starts))
                inside = np.cumsum(opens - closes) > 0
                mask |= inside.astype(np.uint32) << np.uint32(bit)
        return Votes(starts, spoken, home)

    @cached_property
    def _lists(self) -> dict[int, dict[str, tuple[list[int], list[int], list[int]]]]:
        lists: dict[int, dict[str, tuple[list[int], list[int], list[int]]]] = {4: {}, 6: {}}
        for family, rows in ((4, self.v4), (6, self.v6)):
            for number, country in enumerate(self.countries):
                some = rows.country == number
                if some.any():
                    lists[family][country] = (
                        rows.start[some].tolist(),
                        rows.end[some].tolist(),
                        rows.sources[some].tolist(),
                    )
        return lists


def write(table: HomelandTable, path: Path) -> None:
    """Writes a table; equal tables give equal bytes.

    Raises:
        SettingsError: The file cannot be written.
    """
    about = {
        "version": VERSION,
        "content_sha256": table.sha256,
        "sources": [asdict(source) for source in table.sources],
    }
    v4, v6 = table.v4, table.v6
    start, end = np.append(v4.start, v6.start), np.append(v4.end, v6.end)
    country, sources = np.append(v4.country, v6.country), np.append(v4.sources, v6.sources)
    family = np.repeat(np.array([4, 6], np.uint8), [len(v4.start), len(v6.start)])
    names = pa.DictionaryArray.from_arrays(
        pa.array(country, pa.int32()), pa.array(table.countries, pa.string())
    )
    aside = path.with_name(f".{path.name}.aside")
    try:
        pq.write_table(
            pa.table(
                [family, start, end, names, sources],
                schema=SCHEMA.with_metadata({_METADATA: _canonical(about)}),
            ),
            aside,
            compression="zstd",
            compression_level=19,
            use_dictionary=["country", "sources"],
            column_encoding={
                "family": "PLAIN", "start": "DELTA_BINARY_PACKED", "end": "DELTA_BINARY_PACKED"
            },
        )  # fmt: skip
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise SettingsError(
            f"The homeland table {path} cannot be written ({error.strerror}); give another --into."
        ) from None


def read(path: Path) -> HomelandTable:
    """Reads a table and refuses one that is not whole and exactly of its form.

    Raises:
        SettingsError: The file is missing, is not such a table, or was changed.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            if file.schema_arrow.names != SCHEMA.names:
                raise _refusal(path, "has other columns")
            data = file.read()
    except (OSError, pa.ArrowException):
        raise _refusal(path, "cannot be read") from None
    if not data.schema.remove_metadata().equals(SCHEMA):
        raise _refusal(path, "has other columns")
    if any(column.null_count for column in data.columns):
        raise _refusal(path, "has empty values")
    sources, wanted = _about(path, data.schema.metadata or {})
    table = _table(data, sources)
    _check(path, table, data["family"].to_numpy())
    if table.sha256 != wanted:
        raise _refusal(path, "does not match its own hash")
    return table


def _refusal(path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"The homeland table {path.name} {why}; make it again with `sekisho homeland refresh`, "
        "or install Sekisho again."
    )


def _about(path: Path, metadata: Mapping[bytes, bytes]) -> tuple[tuple[SourceFact, ...], str]:
    try:
        about: Any = json.loads(metadata[_METADATA])
        if set(about) != {"version", "content_sha256", "sources"} or about["version"] != VERSION:
            raise ValueError
        wanted = {part.name for part in fields(SourceFact)}
        if any(set(source) != wanted for source in about["sources"]):
            raise ValueError
        sources = tuple(SourceFact(**source) for source in about["sources"])
        if not 1 <= len(sources) <= MOST_SOURCES or len({s.name for s in sources}) < len(sources):
            raise ValueError
        return sources, str(about["content_sha256"])
    except (KeyError, TypeError, ValueError, SettingsError):
        raise _refusal(path, "does not name its sources") from None


def _table(data: pa.Table, sources: tuple[SourceFact, ...]) -> HomelandTable:
    country = data["country"].combine_chunks().dictionary_decode()
    names = tuple(sorted(pc.unique(country).to_pylist()))
    codes = pc.index_in(country, pa.array(names, pa.string())).to_numpy().astype(np.int32)
    columns = [data["start"].to_numpy(), data["end"].to_numpy(), codes, data["sources"].to_numpy()]
    family = data["family"].to_numpy()
    v4, v6 = (Family(*(column[family == n] for column in columns)) for n in (4, 6))
    return HomelandTable(sources, names, v4, v6)


def _check(path: Path, table: HomelandTable, family: npt.NDArray[np.uint8]) -> None:
    """Refuses values that no refresh writes."""
    if not np.isin(family, (4, 6)).all() or (np.diff(family.astype(np.int8)) < 0).any():
        raise _refusal(path, "has unknown values")
    if not all(re.fullmatch("[A-Z]{2}", country) for country in table.countries):
        raise _refusal(path, "has unknown countries")
    for rows, least, most in ((table.v4, 0, LAST_V4), (table.v6, *PUBLIC_V6)):
        start, end, country, sources = rows
        in_range = (start >= least) & (start <= end) & (end <= most)
        named = (sources != 0) & (sources.astype(np.uint64) >> np.uint64(len(table.sources)) == 0)
        up, level = start[1:] > start[:-1], start[1:] == start[:-1]
        wider = (end[1:] > end[:-1]) | ((end[1:] == end[:-1]) & (country[1:] > country[:-1]))
        by_country = np.argsort(country.astype(np.int16), kind="stable")  # a radix sort
        same = country[by_country][1:] == country[by_country][:-1]
        apart = start[by_country][1:] > end[by_country][:-1]
        if not (
            in_range.all()
            and named.all()
            and (up | (level & wider)).all()
            and (apart | ~same).all()
        ):
            raise _refusal(path, "has unknown values")


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
