"""The country tables as they lie in data/homeland: read, and looked into slowly."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from telemetry.errors import SettingsError

U64 = npt.NDArray[np.uint64]

RIR: Final = 1
"""Source bit: the regional registries' statistics, who holds the range."""
IPTOASN: Final = 2
"""Source bit: IPtoASN, where the network that announces the range is registered."""

SCHEMA: Final = pa.schema(
    [
        pa.field("family", pa.uint8(), nullable=False),
        pa.field("start", pa.uint64(), nullable=False),
        pa.field("end", pa.uint64(), nullable=False),
        pa.field("country", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("source", pa.uint8(), nullable=False),
    ]
)
"""Disjoint ranges, sorted by family and start, both ends included.

`family` is 4 or 6; an IPv6 bound is the upper 64 bits of the address; `source`
is the OR of the bits of the sources that say so.
"""


@dataclass(frozen=True, slots=True)
class Family:
    """Ranges of one address family, disjoint and sorted; arrays of shape (n,).

    Attributes:
        start: First address: 32 bits (IPv4) or the upper 64 bits (IPv6).
        end: Last address, in the same form.
        country: Position of the country in `Ranges.countries`.
    """

    start: U64
    end: U64
    country: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Ranges:
    """One country table.

    Attributes:
        countries: Two-letter codes.
        v4: IPv4 ranges.
        v6: IPv6 ranges.
        sha256: SHA-256 of the file's bytes.
    """

    countries: tuple[str, ...]
    v4: Family = field(repr=False)
    v6: Family = field(repr=False)
    sha256: str

    def country_of(self, number: int, family: int) -> str | None:
        """Returns the country that holds an address: slow and obviously right.

        Args:
            number: The address as a whole number of 32 or 128 bits.
            family: 4 or 6.
        """
        starts, ends, codes = self._lists[family]
        key = number if family == 4 else number >> 64
        at = bisect_right(starts, key) - 1
        return self.countries[codes[at]] if at >= 0 and key <= ends[at] else None

    @cached_property
    def _lists(self) -> dict[int, tuple[list[int], list[int], list[int]]]:
        return {
            family: (rows.start.tolist(), rows.end.tolist(), rows.country.tolist())
            for family, rows in ((4, self.v4), (6, self.v6))
        }


def read(path: Path) -> Ranges:
    """Reads a country table.

    Raises:
        SettingsError: The file is missing, or is not such a table.
    """
    try:
        data = path.read_bytes()
        table = pq.read_table(pa.BufferReader(data))
    except (OSError, pa.ArrowException):
        raise SettingsError(
            f"The homeland table {path.name} cannot be read; install Sekisho again."
        ) from None
    if table.schema.names != SCHEMA.names:
        raise SettingsError(
            f"The homeland table {path.name} has other columns; install Sekisho again."
        )
    country = pc.dictionary_encode(table["country"].combine_chunks())
    return Ranges(
        countries=tuple(country.dictionary.to_pylist()),
        v4=_family(table, country, 4),
        v6=_family(table, country, 6),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _family(table: pa.Table, country: pa.DictionaryArray, family: int) -> Family:
    rows = table["family"].to_numpy() == family
    return Family(
        start=table["start"].to_numpy()[rows],
        end=table["end"].to_numpy()[rows],
        country=country.indices.to_numpy()[rows].astype(np.int32),
    )
