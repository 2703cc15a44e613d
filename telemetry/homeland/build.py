"""Makes the country tables of data/homeland from local files; opens no connection.

    python -m telemetry.homeland.build --registry v4.csv v6.csv --routing v4.mmdb v6.mmdb \
        --home JP --into data/homeland

`--registry` files are CSV lines `first address,last address,country`, such as
one makes from the registries' statistics. `--routing` files are MMDB country
databases. Two tables come out: `countries.parquet`, who holds each range (the
registries' word, and the routing's word where the registries say nothing), and
one for the home country, every range that either source calls home.

The same inputs give the same table. Each names its inputs by SHA-256 in the
Parquet metadata.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import ipaddress
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.errors import SekishoError, SettingsError
from telemetry.homeland.ranges import IPTOASN, RIR, SCHEMA

_NO_COUNTRY = {"", "ZZ", "None"}
"""How the sources write that a range belongs to nobody."""


class Range(NamedTuple):
    """Addresses start..end (both included) of a family, in the form of `ranges.SCHEMA`."""

    family: int
    start: int
    end: int
    country: str


class Piece(NamedTuple):
    """Addresses start..end of which each source says one thing, or nothing."""

    family: int
    start: int
    end: int
    held: str | None
    routed: str | None


class Row(NamedTuple):
    """One row of `ranges.SCHEMA`."""

    family: int
    start: int
    end: int
    country: str
    source: int


def read_csv(path: Path) -> Iterator[Range]:
    """Yields the ranges of a CSV file of `first address,last address,country`.

    Raises:
        SettingsError: The file is missing, or a line is not of that form.
    """
    try:
        with path.open(newline="", encoding="ascii") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if not row or row[0].startswith("#") or (row[2:3] and row[2] in _NO_COUNTRY):
                    continue
                try:
                    first, last, country = row
                    yield _range(ipaddress.ip_address(first), ipaddress.ip_address(last), country)
                except ValueError as error:
                    raise SettingsError(
                        f"Line {number} of {path.name} is not 'first,last,country' ({error}); "
                        "correct the file."
                    ) from None
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{path.name} cannot be read as CSV; check the path.") from None


def read_mmdb(path: Path) -> Iterator[Range]:
    """Yields the ranges of an MMDB country database.

    Raises:
        SettingsError: The package maxminddb is not installed, or the file is not such a database.
    """
    try:
        maxminddb = importlib.import_module("maxminddb")
    except ImportError:
        raise SettingsError("Reading MMDB files needs maxminddb; pip install maxminddb.") from None
    try:
        with maxminddb.open_database(str(path)) as database:
            for network, record in database:
                country = _country(record)
                if country not in _NO_COUNTRY:
                    yield _range(network[0], network[-1], country)
    except (OSError, ValueError, maxminddb.InvalidDatabaseError):
        raise SettingsError(f"{path.name} cannot be read as a country MMDB; check it.") from None


def _country(record: object) -> str:
    """Finds the country in the shapes that public databases use."""
    if not isinstance(record, dict):
        return ""
    value = record.get("country_code") or record.get("country") or ""
    return str(value.get("iso_code", "") if isinstance(value, dict) else value)


def _range(
    first: ipaddress.IPv4Address | ipaddress.IPv6Address,
    last: ipaddress.IPv4Address | ipaddress.IPv6Address,
    country: str,
) -> Range:
    if first.version != last.version or int(first) > int(last):
        raise ValueError("the range runs backwards")
    if len(country) != 2 or not country.isascii() or not country.isupper():
        raise ValueError("the country is not two capital letters")
    if first.version == 4:
        return Range(4, int(first), int(last), country)
    if int(first) % 2**64 or (int(last) + 1) % 2**64:
        raise ValueError("the range is finer than /64")
    return Range(6, int(first) >> 64, int(last) >> 64, country)


def pieces(registry: Iterable[Range], routing: Iterable[Range]) -> Iterator[Piece]:
    """Cuts both sources at each other's bounds, and yields the pieces in order.

    Where ranges of one source overlap, the one that starts later counts, until its end.
    """
    events: list[tuple[int, int, int, int, int, str]] = []
    for source, ranges in enumerate((registry, routing)):
        for serial, item in enumerate(sorted(ranges)):
            events.append((item.family, item.start, 1, source, serial, item.country))
            events.append((item.family, item.end + 1, 0, source, serial, item.country))
    events.sort()
    said: tuple[dict[int, str], dict[int, str]] = ({}, {})
    for event, following in pairwise(events):
        family, at, opens, source, serial, country = event
        if opens:
            said[source][serial] = country
        else:
            del said[source][serial]
        until = following[1] - 1
        if following[0] == family and at <= until and (said[0] or said[1]):
            held, routed = (now[max(now)] if now else None for now in said)
            yield Piece(family, at, until, held, routed)


def countries(registry: Iterable[Range], routing: Iterable[Range]) -> list[Row]:
    """Returns who holds each range; routing speaks only where the registry is silent."""
    return _joined(
        Row(family, start, end, held or routed or "", RIR if held else IPTOASN)
        for family, start, end, held, routed in pieces(registry, routing)
    )


def home(registry: Iterable[Range], routing: Iterable[Range], country: str) -> list[Row]:
    """Returns every range that either source gives to `country`, and which of them do."""
    return _joined(
        Row(family, start, end, country, bits)
        for family, start, end, held, routed in pieces(registry, routing)
        if (bits := RIR * (held == country) | IPTOASN * (routed == country))
    )


def _joined(rows: Iterable[Row]) -> list[Row]:
    joined: list[Row] = []
    for row in rows:
        before = joined[-1] if joined else None
        if (
            before
            and before.end + 1 == row.start
            and (before.family, before.country, before.source)
            == (row.family, row.country, row.source)
        ):
            joined[-1] = before._replace(end=row.end)
        else:
            joined.append(row)
    return joined


def write(rows: Sequence[Row], inputs: Sequence[Path], path: Path) -> None:
    """Writes a table; the metadata names each input and its SHA-256."""
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    about = {item.name: hashlib.sha256(item.read_bytes()).hexdigest() for item in inputs}
    table = pa.table(
        [
            pa.array(values, SCHEMA.field(name).type)
            for name, values in zip(SCHEMA.names, columns, strict=True)
        ],
        schema=SCHEMA.with_metadata({"sekisho.inputs": json.dumps(about, sort_keys=True)}),
    )
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=["country", "source"],
        column_encoding={
            "family": "PLAIN", "start": "DELTA_BINARY_PACKED", "end": "DELTA_BINARY_PACKED"
        },
    )  # fmt: skip


def build(
    registry: Sequence[Path], routing: Sequence[Path], country: str, into: Path
) -> list[Path]:
    """Makes `countries.parquet` and the table of `country` in the folder `into`.

    Raises:
        SettingsError: An input cannot be read.
    """
    held = [item for path in registry for item in read_csv(path)]
    routed = [item for path in routing for item in read_mmdb(path)]
    inputs = [*registry, *routing]
    written = []
    for name, rows in (
        ("countries", countries(held, routed)),
        (country.lower(), home(held, routed, country)),
    ):
        written.append(into / f"{name}.parquet")
        write(rows, inputs, written[-1])
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs `build` from the command line."""
    parser = argparse.ArgumentParser(prog="python -m telemetry.homeland.build")
    parser.add_argument("--registry", type=Path, nargs="+", required=True)
    parser.add_argument("--routing", type=Path, nargs="*", default=[])
    parser.add_argument("--home", default="JP")
    parser.add_argument("--into", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        for path in build(given.registry, given.routing, given.home, given.into):
            print(path)
    except SekishoError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
