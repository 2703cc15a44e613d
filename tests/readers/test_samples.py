"""Every reader has a folder of samples under data/samples/formats and reads what it states.

`expect.json` there holds for each file what home Japan makes of it:

* `read`, `kept`, `dropped` (by reason);
* `endpoints`: for each foreign address the sums over its records, in the order of `SUMS`, null
  where the source does not tell;
* `damage`, when there is some;
* `mapping`, a file of the folder, `captures` or `decoder`, when the session needs them;
* `program`, when the reader needs one that may be missing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from capture_kit import border

from telemetry.columns import Layer, schema
from telemetry.privacy import Gate, Keys
from telemetry.readers import Session, find_reader, open_source, reader_names
from telemetry.records import Tally

FORMATS = Path(__file__).resolve().parents[2] / "data" / "samples" / "formats"
SUMS = ("endpoint_packets", "endpoint_bytes", "peer_packets", "peer_bytes")


def expectations() -> dict[str, dict[str, Any]]:
    """Returns what is expected of each sample, by `<reader>/<file>`."""
    return {
        f"{folder.name}/{name}": expected
        for folder in sorted(FORMATS.iterdir())
        for name, expected in json.loads((folder / "expect.json").read_text()).items()
    }


def found(path: Path, tmp_path: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """Reads a sample; returns it in the shape of `expect.json`."""
    mapping = expected.get("mapping")
    session = Session(
        border(),
        expected.get("decoder", "kernel"),
        expected.get("captures", "auto"),
        path.parent / mapping if mapping else None,
    )
    gate = Gate(border(), Keys.create(tmp_path / "key"), "link")
    tally = Tally()
    source = open_source(str(path))
    try:
        reader = find_reader(source, session)
        assert reader.name == path.parent.name
        batches = reader.read(source, session, tally)
        tables = [gate.admit(batch, tally, reader.gated) for batch in batches]
    finally:
        source.close()
    sums: dict[str, list[int | None]] = {}
    for table in [schema(Layer.RECORD).empty_table(), *tables]:
        for row in table.to_pylist():
            one = [row[name] for name in SUMS]
            before = sums.get(row["endpoint_ip"], [None] * len(SUMS))
            sums[row["endpoint_ip"]] = [
                a if b is None else b if a is None else a + b
                for a, b in zip(before, one, strict=True)
            ]
    return {
        "read": tally.read,
        "kept": tally.kept,
        "dropped": dict(tally.dropped),
        "damage": tally.damage,
        "endpoints": sums,
    }


def test_every_reader_has_samples_and_every_sample_is_expected() -> None:
    assert sorted(folder.name for folder in FORMATS.iterdir()) == sorted(reader_names())
    for folder in FORMATS.iterdir():
        expected = json.loads((folder / "expect.json").read_text())
        mappings = {entry["mapping"] for entry in expected.values() if "mapping" in entry}
        files = {path.name for path in folder.iterdir()} - {"expect.json"} - mappings
        assert files == set(expected) and files, folder.name


@pytest.mark.parametrize("sample", expectations())
def test_a_sample_gives_what_is_expected(sample: str, tmp_path: Path) -> None:
    expected = expectations()[sample]
    program = expected.get("program")
    if program and not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    actual = found(FORMATS / sample, tmp_path, expected)
    assert actual == {key: expected.get(key) for key in actual}
