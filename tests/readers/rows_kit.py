"""What the tests of readers of tables share."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from capture_kit import border

from telemetry.raw import NEVER, UNKNOWN, RawBatch, Side
from telemetry.readers import Session, Source, find_reader, open_source
from telemetry.readers.contract import Reader
from telemetry.records import Tally

Save = Callable[[bytes], Source]
Row = dict[str, Any]


def saver(folder: Path) -> Save:
    """Returns what writes bytes to a file and opens it as a source."""

    def write(content: bytes) -> Source:
        path = folder / "source"
        path.write_bytes(content)
        return open_source(str(path))

    return write


def read(
    reader: Reader, source: Source, mapping: Path | None = None
) -> tuple[dict[str, list[Any]], Tally]:
    """Reads all rows, batches joined, one list for each column; nothing may get lost."""
    tally, session = Tally(), Session(border(), mapping=mapping)
    assert reader.recognises(source.head, session)
    columns: dict[str, list[Any]] = {}
    for batch in reader.read(source, session, tally):
        batch.check()
        for name, values in arrays(batch):
            columns.setdefault(name, []).extend(values.tolist())
    assert tally.unit == "records"
    assert tally.read == len(columns.get("a_hi", [])) + sum(tally.dropped.values())
    return columns, tally


def arrays(batch: RawBatch) -> Iterable[tuple[str, np.ndarray[Any, Any]]]:
    """Yields the arrays of a batch without bursts, those of a side under `a.` or `b.`."""
    for field in fields(RawBatch):
        value = getattr(batch, field.name)
        if isinstance(value, Side):
            assert value.bursts is None
            for part in fields(Side):
                if part.name != "bursts":
                    yield f"{field.name}.{part.name}", getattr(value, part.name)
        else:
            yield field.name, value


def one(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """Returns the only row."""
    assert len(columns["a_hi"]) == 1
    return {name: values[0] for name, values in columns.items()}


def records_of(data: bytes, name: str) -> tuple[list[Row], Tally]:
    """Returns a row for each record, None for what is unknown, and the counts.

    Names of a side's fields begin with `a_` or `b_`. The reader must be the one named.
    """
    with tempfile.TemporaryFile(buffering=0) as file:
        assert isinstance(file, io.FileIO)
        file.write(data)
        source = Source("-", file)
        reader = find_reader(source, Session(border()))
        assert reader.name == name
        columns, tally = read(reader, source)
    names = [column.replace(".", "_") for column in columns]
    rows = (zip(names, values, strict=True) for values in zip(*columns.values(), strict=True))
    unknown = (UNKNOWN, NEVER)
    return [{name: None if v in unknown else v for name, v in row} for row in rows], tally
