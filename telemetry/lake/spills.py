"""Segments written out of memory until their source is whole: gone when it is committed.

A spill holds what passed the gate, parted by day and bucket, as Arrow streams that are
mapped and not read when they are merged. Nobody lists it; a killed writer's is swept.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from telemetry.lake.layout import FILE_MODE, Partition


@dataclass(frozen=True, slots=True)
class Spill:
    """One file of segments.

    Attributes:
        path: Where it is.
        places: Where the rows of each partition begin, in bytes.
    """

    path: Path
    places: dict[Partition, int]

    def read(self, partition: Partition) -> pa.Table:
        """Returns the rows of a partition; they are in memory only as far as they are used."""
        with pa.memory_map(os.fspath(self.path)) as mapped:
            mapped.seek(self.places[partition])
            return pa.ipc.open_stream(mapped).read_all()


def spill(path: Path, parts: Iterable[tuple[Partition, pa.Table]]) -> Spill:
    """Writes parted segments to a new file."""
    places: dict[Partition, int] = {}
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE), "wb") as file:
        for partition, table in parts:
            file.write(bytes(-file.tell() % 64))  # what is mapped must be aligned
            places[partition] = file.tell()
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
    return Spill(path, places)
