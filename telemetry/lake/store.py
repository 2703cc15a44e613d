"""The lake's writer: takes clean tables in, commits them at once, merges them.

A commit is one SQLite transaction over files that are already in place and
durable. Killed at any instant, the lake is as before it or as after it; what
lies around unlisted is swept when the next writer opens.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from telemetry.columns import Layer, check_closed, schema
from telemetry.errors import KeyFileError, LakeBusy, LakeError, PrivacyError
from telemetry.lake import catalog
from telemetry.lake.files import (
    Aside,
    encode_plain,
    encode_records,
    lake_errors,
    move,
    read_records,
    remove,
    write_aside,
)
from telemetry.lake.layout import (
    ASIDE,
    FILE_MODE,
    FOLDER_MODE,
    FOLDERS,
    KNOWN,
    LISTS,
    LOCK,
    RECORDS,
    REPORTS,
    SCORES,
    SPILL,
    TABLE,
    TMP,
)
from telemetry.lake.parallel import in_threads
from telemetry.lake.table import Counts, FileTable, LakeMeta, Listed, StoredSource

if TYPE_CHECKING:
    import duckdb

BUFFER_ROWS = 500_000
"""Rows held in memory before they are written aside; about 250 bytes each, and twice that
while they are merged."""
GRACE_S = 3600.0
"""Seconds a replaced file stays for readers that opened the catalog before."""


class SourceBatch:
    """The rows of one source, kept only once it is accepted."""

    def __init__(self, lake: Lake) -> None:
        """Not for callers: see `Lake.source`."""
        self._lake = lake
        self._held = 0
        self.rows = 0
        self.tables: list[pa.Table] = []
        self.asides: list[tuple[Aside, date, int]] = []
        self.stored: list[StoredSource] = []

    def stage(self, table: pa.Table) -> None:
        """Adds record segments; nobody sees them before the commit.

        Args:
            table: Rows with exactly the schema of `Layer.RECORD`.

        Raises:
            PrivacyError: The table has another schema, or a null where none may be.
            SourceError: A time lies outside the years 1 to 9999.
            LakeError: The disk is full or the lake cannot be written.
        """
        from telemetry.lake.merge import check_times  # numba: only where it is needed

        table = _closed(table, Layer.RECORD)
        check_times(table)  # now: later it would take the whole batch down
        self.rows += len(table)
        self._hold([table] if len(table) else [])

    def accept(self, source: StoredSource) -> bool:
        """Says what the source was; only then are its rows kept.

        Returns:
            False when the lake holds this source already, or the same content packed
            in another way: its rows are thrown away.
        """
        hashes = (source.sha256, source.content_sha256)
        if any(self._lake.known(sha256, source.sensor) for sha256 in hashes):
            self.discard()
            return False
        self.stored.append(source)
        return True

    def flush(self) -> None:
        """Writes what is held in memory aside."""
        if self.tables:
            with lake_errors(self._lake.path):
                self.asides += self._lake._write_records(self.tables)
            self.tables = []
            self._held = 0

    def absorb(self, other: SourceBatch) -> None:
        """Takes over the rows and sources of another batch."""
        self.asides += other.asides
        self.stored += other.stored
        other.asides = []
        self._hold(other.tables)

    def discard(self) -> None:
        """Throws all rows away."""
        remove(aside.path for aside, _, _ in self.asides)
        self.tables, self.asides, self.stored = [], [], []
        self.rows = self._held = 0

    def _hold(self, tables: Sequence[pa.Table]) -> None:
        self.tables += tables
        self._held += sum(len(table) for table in tables)
        if self._held >= self._lake.buffer_rows:
            self.flush()


class Lake:
    """One lake, open for writing by this process alone.

    Use it as a context manager: leaving it throws away what was not committed.

    Attributes:
        path: Folder of the lake.
        meta: What the lake was made with.
        buffer_rows: Rows held in memory before they are written aside.
    """

    def __init__(self, path: Path, lock: int, table: FileTable, meta: LakeMeta) -> None:
        """Not for callers: see `create_or_open`."""
        self.path = path
        self.meta = meta
        self.buffer_rows = BUFFER_ROWS
        self._lock = lock
        self._table = table
        self._batch = SourceBatch(self)
        self._asides = 0

    @classmethod
    def create_or_open(cls, path: Path, *, policy_tag: str, key_id: str, buckets: int = 16) -> Lake:
        """Opens the lake for writing; makes it where there is none.

        Args:
            path: Folder of the lake.
            policy_tag: Keyed hash of the policy that says what is domestic.
            key_id: Id of the pseudonym key.
            buckets: Buckets of a day in a new lake; an existing one keeps its own.

        Raises:
            LakeBusy: Another run writes to this lake.
            LakeError: The folder cannot be written, or is not a lake.
            PrivacyError: The lake was filled under another policy.
            KeyFileError: The lake was filled with another key.
        """
        with lake_errors(path):
            _make_layout(path)
            lock = _take_lock(path)
            try:
                table = FileTable(path, writer=True)
                try:
                    table.make(policy_tag, key_id, buckets)
                    meta = table.meta()
                    _check_meta(meta, policy_tag, key_id)
                    lake = cls(path, lock, table, meta)
                    lake._sweep()
                except BaseException:
                    table.close()
                    raise
            except BaseException:
                os.close(lock)
                raise
        return lake

    @staticmethod
    def peek(path: Path) -> LakeMeta:
        """Reads what a lake was made with, without its lock.

        Raises:
            LakeError: There is no lake.
        """
        with lake_errors(path):
            table = FileTable(path, writer=False)
            try:
                return table.meta()
            finally:
                table.close()

    @staticmethod
    def stored_sources(path: Path) -> int:
        """Counts the sources of a lake, without its lock; 0 where there is no lake yet."""
        if not (path / TABLE).exists():
            return 0
        with lake_errors(path):
            table = FileTable(path, writer=False)
            try:
                return table.counts().sources
            finally:
                table.close()

    def __enter__(self) -> Self:
        """Returns the lake."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the lake."""
        self.close()

    def close(self) -> None:
        """Throws away what was not committed and gives the lake free."""
        if self._lock < 0:
            return
        try:
            self.discard()
            self._table.close()
        finally:
            os.close(self._lock)
            self._lock = -1

    def known(self, sha256: str, sensor: str) -> bool:
        """Whether a source is stored already, or waits for the commit.

        Args:
            sha256: Hash of its bytes, as they are or after decompression.
            sensor: Where it was taken.
        """
        waiting = any(
            s.sensor == sensor and sha256 in (s.sha256, s.content_sha256)
            for s in self._batch.stored
        )
        with lake_errors(self.path):
            return waiting or self._table.known(sha256, sensor)

    @contextmanager
    def source(self) -> Iterator[SourceBatch]:
        """Takes in one source; several may wait for one commit.

        The rows staged in the block are kept if it accepts the source and ends well,
        and thrown away otherwise.

        Yields:
            Where to stage the rows of the source.
        """
        part = SourceBatch(self)
        try:
            yield part
            if part.stored:
                self._batch.absorb(part)
            else:
                part.discard()
        except BaseException:
            part.discard()
            raise

    def discard(self) -> None:
        """Throws away all that was accepted since the last commit."""
        self._batch.discard()

    def commit(self) -> None:
        """Makes the accepted sources and their records visible, all at once.

        Raises:
            LakeError: The disk is full or fails; nothing of the batch was stored then.
        """
        batch = self._batch
        if not batch.stored:
            return
        try:
            with lake_errors(self.path):
                batch.flush()
                self._swap(batch.asides, batch.stored, [])
        except BaseException:
            batch.discard()
            raise
        self._batch = SourceBatch(self)

    def merge(self) -> int:
        """Merges each partition of several files into one file.

        Partitions are independent, so they are done a few at a time; killed in
        between, the rest is done the next time.

        Returns:
            The number of partitions merged.
        """
        done = 0
        with lake_errors(self.path):
            for group in _groups(self._table.unmerged(), self.buffer_rows):
                tables = in_threads(lambda f: read_records(self.path / f.name), group)
                asides = self._write_records(tables)
                try:
                    self._swap(asides, [], group)
                except BaseException:
                    remove(aside.path for aside, _, _ in asides)
                    raise
                done += len(asides)
        return done

    def write_scores(self, table: pa.Table, run: str) -> None:
        """Stores the scores of a run in place of all others; `build_catalog` shows them.

        Args:
            table: Rows with exactly the schema of `Layer.SCORE`.
            run: Id of the run.

        Raises:
            PrivacyError: The table has another schema.
            LakeError: The run's id cannot be a file name, or the lake cannot be written.
        """
        table = _closed(table, Layer.SCORE)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", run):
            raise LakeError("A run's id is made of letters, digits, '_', '.' and '-'; choose one.")
        name = f"{SCORES}/{run}.parquet"
        with lake_errors(self.path):
            aside = write_aside(encode_plain(table), self._aside(), SCORES, len(table))
            try:
                move(self.path, [(aside, name)])
                with self._table.transaction():
                    self._table.retire([file.name for file in self._table.scores()], time.time())
                    self._table.add_files([_listed(aside, name, SCORES, None, None)])
            except BaseException:
                remove([aside.path])  # one moved but not listed is swept at the next opening
                raise

    def build_catalog(self, views: Sequence[tuple[str, str]] = ()) -> None:
        """Builds the analysts' catalog over what is listed and swaps it in.

        Only then are replaced files removed: no catalog uses them any more.

        Args:
            views: Names and SELECTs of views, each resting on earlier ones only.

        Raises:
            LakeError: A view is wrong, or the disk is full.
        """
        aside = self._aside()
        try:
            with lake_errors(self.path):
                table = self._table
                catalog.build(
                    self.path, aside, table.records(), table.scores(), table.sources(), views
                )
        finally:
            remove(aside.parent.glob(f"{aside.name}*"))
        self.remove_retired()

    def work_connection(
        self, memory: str = "1GB", threads: int | None = None
    ) -> duckdb.DuckDBPyConnection:
        """Opens the catalog as it was last built, for features; see `connect`."""
        return catalog.connect(self.path, memory=memory, threads=threads)

    def counts(self) -> Counts:
        """How much the lake holds."""
        with lake_errors(self.path):
            return self._table.counts()

    def sources(self) -> list[StoredSource]:
        """All stored sources, oldest first."""
        with lake_errors(self.path):
            return self._table.sources()

    def files(self) -> list[Listed]:
        """All listed files of records, by day, bucket and name."""
        with lake_errors(self.path):
            return self._table.records()

    def remove_retired(self, grace_s: float = GRACE_S) -> None:
        """Removes files that were replaced; call it under a catalog that does not use them.

        Args:
            grace_s: Seconds for which readers of the catalog before may still need them.
        """
        with lake_errors(self.path):
            with self._table.transaction():
                names = self._table.forget_retired(time.time() - grace_s)
            remove(self.path / name for name in names)

    def _write_records(self, tables: Sequence[pa.Table]) -> list[tuple[Aside, date, int]]:
        """Merges tables and writes each partition aside."""
        from telemetry.lake.merge import merge_by_partition  # numba: only where it is needed

        whole = pa.concat_tables(tables)

        def write(part: tuple[tuple[date, int], pa.Table, Path]) -> tuple[Aside, date, int]:
            (day, bucket), records, path = part
            folder = f"{RECORDS}/day={day}/bucket={bucket:02d}"
            return write_aside(encode_records(records), path, folder, len(records)), day, bucket

        before = self._asides
        try:
            parts = merge_by_partition(whole, self.meta.buckets)
            return in_threads(write, ((*part, self._aside()) for part in parts))
        except BaseException:
            remove(self._aside_path(n) for n in range(before, self._asides))
            raise

    def _swap(
        self,
        asides: Sequence[tuple[Aside, date, int]],
        sources: Sequence[StoredSource],
        old: Sequence[Listed],
    ) -> None:
        """Puts files in place and lists them in the same transaction that strikes the old."""
        gone = {file.name for file in old}
        listed: list[Listed] = []
        taken: dict[str, set[str]] = {}
        for aside, day, bucket in asides:
            if aside.folder not in taken:
                taken[aside.folder] = self._table.taken(aside.folder) - gone
            name = _free_name(aside, taken[aside.folder])
            taken[aside.folder].add(name)
            listed.append(_listed(aside, name, RECORDS, day, bucket))
        pairs = [(aside, file.name) for (aside, _, _), file in zip(asides, listed, strict=True)]
        placed = move(self.path, pairs)
        try:
            with self._table.transaction():
                self._table.retire(sorted(gone - {f.name for f in listed}), time.time())
                self._table.add_files(listed)
                self._table.add_sources(sources)
        except BaseException:
            remove(placed)
            raise

    def _aside(self) -> Path:
        self._asides += 1
        return self._aside_path(self._asides - 1)

    def _aside_path(self, number: int) -> Path:
        return self.path / TMP / f"{number:08d}"

    def _sweep(self) -> None:
        """Removes what a killed writer left.

        Retired files stay: the catalog may be older than what replaced them.
        """
        left = [path for path in (self.path / TMP).iterdir() if not _spill_of_living(path)]
        for folder in (LISTS, REPORTS):
            left += (self.path / folder).glob(f"{ASIDE}*")
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        names = self._table.names()
        for folder in (RECORDS, SCORES):
            remove(
                path
                for path in (self.path / folder).rglob("*.parquet")
                if path.relative_to(self.path).as_posix() not in names
            )


def _closed(table: pa.Table, layer: Layer) -> pa.Table:
    """Returns the table under our own schema, so that no metadata rides along."""
    wanted = schema(layer)
    check_closed(table.column_names, layer)
    for field, column in zip(wanted, table.columns, strict=True):
        if column.type != field.type:
            raise PrivacyError(
                f"Column {field.name} of the {layer} table must be {field.type}, not "
                f"{column.type}; mend what made the table."
            )
        if column.null_count and not field.nullable:
            raise PrivacyError(
                f"Column {field.name} of the {layer} table must not be null; mend what made it."
            )
    return pa.Table.from_arrays(table.columns, schema=wanted)


def _listed(aside: Aside, name: str, kind: str, day: date | None, bucket: int | None) -> Listed:
    text = day.isoformat() if day else None
    return Listed(name, aside.folder, kind, text, bucket, aside.rows, aside.bytes, aside.sha256)


def _free_name(aside: Aside, taken: set[str]) -> str:
    """Names a file after its content; the same records may come in twice from two sources."""
    stem = f"{aside.folder}/{aside.sha256[:32]}"
    name, number = f"{stem}.parquet", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}.parquet"
    return name


def _groups(files: Sequence[Listed], rows: int) -> Iterator[list[Listed]]:
    """Groups whole partitions until a group has so many rows."""
    group: list[Listed] = []
    for file in files:
        full = sum(f.rows for f in group) >= rows
        if full and file.folder != group[-1].folder:
            yield group
            group = []
        group.append(file)
    if group:
        yield group


def _make_layout(path: Path) -> None:
    if path.is_dir() and not (path / TABLE).exists():
        if {entry.name for entry in path.iterdir()} - KNOWN:
            raise LakeError(f"The folder {path} holds other files; choose an empty one as --lake.")
        path.chmod(FOLDER_MODE)
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    for folder in FOLDERS:
        (path / folder).mkdir(mode=FOLDER_MODE, exist_ok=True)


def _take_lock(path: Path) -> int:
    lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR, FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LakeBusy(f"Another run holds the lake {path}; try again when it is done.") from None
    return lock


def _check_meta(meta: LakeMeta, policy_tag: str, key_id: str) -> None:
    if meta.key_id != key_id:  # first, because the tag is made with the key
        raise KeyFileError(
            "The lake was filled with another pseudonym key; give its key file, or another --lake."
        )
    if meta.policy_tag != policy_tag:
        raise PrivacyError(
            "The lake was filled under another policy of what is domestic; give the same country "
            "and --home as before, or another --lake."
        )


def _spill_of_living(path: Path) -> bool:
    """Whether a reader's process, still running, may spill to this folder."""
    if not path.name.startswith(SPILL):
        return False
    try:
        os.kill(int(path.name.removeprefix(SPILL)), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
