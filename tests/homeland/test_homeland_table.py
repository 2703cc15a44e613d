"""The homeland table: the one that is shipped, and what is refused as one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from telemetry import homeland
from telemetry.errors import SettingsError
from telemetry.homeland import SHIPPED
from telemetry.homeland.origins import Claim
from telemetry.homeland.ranges import SCHEMA, HomelandTable, SourceFact, read, write
from telemetry.homeland.refresh import compile_table

KEY = b"sekisho.homeland"


def fact(name: str = "one", **changes: Any) -> SourceFact:
    return replace(SourceFact(name, "csv", "0" * 64, "not stated", 1, "not stated"), **changes)


def small() -> HomelandTable:
    return compile_table(
        [fact("one"), fact("two")],
        [
            [Claim(4, 0x08000000, 0x080000FF, "US", False)],
            [
                Claim(4, 0x08000080, 0x080001FF, "JP", False),
                Claim(6, 0x2400 << 48, (0x2400 << 48) + 9, "JP", False),
            ],
        ],
    )


def test_the_shipped_table_is_small_and_named_in_the_notice() -> None:
    table = read(SHIPPED)
    assert SHIPPED.stat().st_size < 1_200_000
    notice = (SHIPPED.parent / "NOTICE.md").read_text()
    rows = len(table.v4.start) + len(table.v6.start)
    assert f"{rows:,} rows" in notice
    for source in table.sources:
        assert f"`{source.name}`" in notice
        assert source.licence in notice


def test_japan_holds_what_the_registries_say() -> None:
    table = read(SHIPPED)
    japan = table.countries.index("JP")
    rows = table.v4
    for bit, held in ((0, 188_689_472), (1, 160_894_271)):
        some = (rows.country == japan) & (rows.sources >> bit & 1 == 1)
        assert int((rows.end[some] - rows.start[some] + np.uint64(1)).sum()) == held


def test_a_table_reads_back_as_written_and_byte_for_byte_the_same(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write(small(), path)
    before = path.read_bytes()
    again = read(path)
    assert again.sha256 == small().sha256
    write(again, path)
    assert path.read_bytes() == before
    assert again.said_of(0x08000090, 4) == {"US": 1, "JP": 2}


def _rewritten(path: Path, change: Any) -> None:
    """Writes a table again with changed rows or metadata, its hash left as it was."""
    write(small(), path)
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[KEY])
    rows = table.to_pylist()
    schema = change(rows, about)
    made = pa.Table.from_pylist(rows, schema=schema if isinstance(schema, pa.Schema) else SCHEMA)
    pq.write_table(made.replace_schema_metadata({KEY: json.dumps(about)}), path)


def _set(at: int, **values: Any) -> Any:
    return lambda rows, about: rows[at].update(values)


def _extra_column(rows: list[dict[str, Any]], about: Any) -> pa.Schema:
    for row in rows:
        row["asn"] = 1
    return SCHEMA.append(pa.field("asn", pa.uint32()))


CHANGES = {
    "a range moved": _set(0, end=0x080000FE),
    "a country changed": _set(0, country="GB"),
    "a country that is none": _set(0, country="usa"),
    "an unknown source": _set(0, sources=4),
    "nobody says so": _set(0, sources=0),
    "an unknown family": _set(0, family=5),
    "a range that runs backwards": _set(0, start=9, end=8),
    "beyond IPv4": _set(1, end=1 << 32),
    "IPv6 that is not given out": _set(-1, start=0, end=9),
    "a row gone": lambda rows, about: rows.pop(),
    "a row twice": lambda rows, about: rows.insert(0, rows[0]),
    "an unknown column": _extra_column,
    "a source renamed": lambda rows, about: about["sources"][0].update(name="other"),
    "a source with more to tell": lambda rows, about: about["sources"][0].update(url="x"),
    "a source of an unknown kind": lambda rows, about: about["sources"][0].update(kind="rumour"),
    "two sources of one name": lambda rows, about: about["sources"][0].update(name="two"),
    "no sources": lambda rows, about: about.update(sources=[]),
    "another version": lambda rows, about: about.update(version=2),
    "an unknown fact": lambda rows, about: about.update(note="x"),
    "another hash": lambda rows, about: about.update(content_sha256="0" * 64),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_table_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "table.parquet"
    _rewritten(path, lambda rows, about: None)
    assert read(path).sha256 == small().sha256
    _rewritten(path, CHANGES[name])
    with pytest.raises(SettingsError, match=r"The homeland table table\.parquet .*make it again"):
        homeland.load("JP", path=path)


def test_any_byte_flipped_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write(small(), path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x11]) + whole[at + 1 :])
        try:
            read_back = read(path)
        except SettingsError:
            continue
        assert read_back.sha256 == small().sha256
        assert [asdict(s) for s in read_back.sources] == [asdict(s) for s in small().sources]
