"""Segments written out of memory until they are merged.

A spill holds what passed the gate, parted by day and bucket, as Arrow streams that are
mapped and not read when they are merged. Nobody lists it; a killed writer's is swept.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from threading import Lock

import pyarrow as pa

from telemetry.lake.layout import FILE_MODE, Partition


class Spill:
    """One file of segments, which only grows.

    Attributes:
        path: Where it is.
        places: Where the tables of each partition begin, in bytes.
    """

    def __init__(self, path: Path) -> None:
        """Takes the name of the file, which is made when something is added."""
        self.places: dict[Partition, list[int]] = {}
        self.path = path
        self._map: mmap.mmap | None = None
        self._opening = Lock()

    def add(self, partition: Partition, table: pa.Table) -> None:
        """Writes segments of one partition, behind those that are there."""
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY
        with os.fdopen(os.open(self.path, flags, FILE_MODE), "ab") as file:
            file.write(bytes(-file.tell() % 64))  # what is mapped must be aligned
            self.places.setdefault(partition, []).append(file.tell())
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)

    def tables(self, partition: Partition) -> list[pa.Table]:
        """Returns the tables of a partition; nothing may be added from here on.

        They are in memory only as far as they were used since `release`.
        """
        places = self.places.get(partition)
        if not places:
            return []
        with self._opening:
            if self._map is None:
                with self.path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        mapped = pa.py_buffer(self._map)
        return [pa.ipc.open_stream(mapped.slice(place)).read_all() for place in places]

    def release(self) -> None:
        """Lets go of the memory of all tables; what is used again is read again."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    def remove(self) -> None:
        """Removes the file; tables that are still held stay whole."""
        self.path.unlink(missing_ok=True)
        self._map, self.places = None, {}
