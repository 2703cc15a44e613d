"""The lake's writer: takes clean tables in, commits them at once, merges them.

A commit is one SQLite transaction over files that are already in place and
durable. Killed at any instant, the lake is as before it or as after it; what
lies around unlisted is swept when the next writer opens.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from telemetry.columns import Layer, check_closed, schema
from telemetry.errors import KeyFileError, LakeBusy, LakeError, PrivacyError
from telemetry.lake import catalog
from telemetry.lake.files import (
    Aside,
    encode_plain,
    lake_errors,
    move,
    read_groups,
    read_records,
    remove,
    write_aside,
    write_records,
)
from telemetry.lake.layout import (
    ASIDE,
    CERTIFICATES,
    FILE_MODE,
    FOLDER_MODE,
    FOLDERS,
    KNOWN,
    LISTS,
    LOCK,
    QUARANTINE,
    RECORDS,
    REPORTS,
    SCORES,
    SELECTION,
    SPILL,
    STORED,
    TABLE,
    TMP,
    Partition,
)
from telemetry.lake.parallel import in_threads
from telemetry.lake.purge import Bools, Condemned, Purge, condemned_endpoints, condemned_rows
from telemetry.lake.retention import Due, Erasure, due_at, schedule
from telemetry.lake.spills import Spill
from telemetry.lake.table import (
    Balance,
    Counts,
    FileTable,
    LakeMeta,
    Listed,
    StoredSource,
    Term,
)

if TYPE_CHECKING:
    import duckdb

BUFFER_ROWS = 250_000
"""Rows held in memory before they are spilled; about 250 bytes each."""
_PIECES = 8
"""Into so many pieces the rows of a full buffer are parted to be merged one by one."""
_FAN_IN = 16
"""So many sorted tables of a partition are merged at once."""
_SCORES_AT_ONCE = 100_000
"""Rows of a file of scores, of which more would take too much memory."""
_UNSELECTED = f"{QUARANTINE}/{RECORDS}"
_HOMELAND = "homeland_sha256"
_PURGE = "open_purge"
_LEDGER = "ledger_head"
_KEY = "key_secrets"
_ERASURE = "open_erasure"
_UNSELECTED_SHOWN = """
SELECT count(*) AS n FROM analyst.main.stored_records
WHERE endpoint_ip NOT IN (SELECT endpoint FROM analyst.main.selected)
  AND (peer_ip IS NULL OR peer_ip NOT IN (SELECT endpoint FROM analyst.main.selected))
"""
GRACE_S = 3600.0
"""Seconds a replaced file stays for readers that opened the catalog before."""


class Part(NamedTuple):
    """A file of records written aside, its partition, and how long it may stay."""

    aside: Aside
    partition: Partition
    term: Term


Noted = TypeVar("Noted", Purge, Erasure)


@dataclass(frozen=True, slots=True)
class Counters:
    """What the file table counts at one moment.

    Attributes:
        sources: All sources, oldest first.
        scores: Scores, also of endpoints that are not selected.
        oldest: Day of the oldest record; None when there is none.
        segments: Where all record segments are.
        purge: One that the ledger may not hold yet: its run was killed.
        erasure: Likewise.
    """

    sources: list[StoredSource]
    scores: int
    oldest: date | None
    segments: Balance
    purge: Purge | None
    erasure: Erasure | None


@dataclass(slots=True)
class _Change:
    """Rows taken out of files that are listed: what takes their place, and what was found.

    Attributes:
        parts: Files of records to list.
        derived: Files of scores and of the selection to list; they are in place.
        old: Files to strike.
        endpoints: Endpoints, foreign peers too, that lose a record.
        records: Records taken out of each struck file.
        rows: Rows taken out of scores and of the selection.
        oldest: First packet of the oldest record taken out, naive UTC.
    """

    parts: list[Part] = field(default_factory=list)
    derived: list[Listed] = field(default_factory=list)
    old: list[Listed] = field(default_factory=list)
    endpoints: set[str] = field(default_factory=set)
    records: dict[Listed, int] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    oldest: datetime | None = None


class SourceBatch:
    """The rows of one source, kept only once it is accepted."""

    def __init__(self, lake: Lake) -> None:
        """Not for callers: see `Lake.source`."""
        self._lake = lake
        self._held = 0
        self.rows = 0
        self.period: tuple[int, int] | None = None  # first and last packet, microseconds since 1970
        self.tables: list[pa.Table] = []
        self.spills: list[Spill] = []
        self._spill: Spill | None = None  # the one that grows
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
        period = check_times(table)  # now: later it would take the whole batch down
        if period is not None:
            begin, end = self.period or period
            self.period = min(begin, period[0]), max(end, period[1])
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
        """Writes what is held in memory to a file."""
        from telemetry.lake.merge import by_partition  # numba: only where it is needed

        if self._spill is None:
            self._spill = Spill(self._lake._aside())
            self.spills.append(self._spill)
        with lake_errors(self._lake.path):
            for one in by_partition(pa.concat_tables(self.tables), self._lake.meta.buckets):
                self._spill.add(*one)
        self.tables = []
        self._held = 0

    def write(self) -> list[tuple[Aside, Partition]]:
        """Merges all rows and writes each partition aside."""
        from telemetry.lake.merge import by_partition

        held: dict[Partition, pa.Table] = {}
        if self.tables:
            held |= by_partition(pa.concat_tables(self.tables), self._lake.meta.buckets)
            self.tables = []

        def load(partition: Partition) -> list[pa.Table]:
            here = [held.pop(partition)] if partition in held else []
            return here + [table for one in self.spills for table in one.tables(partition)]

        partitions = sorted({*held, *(p for one in self.spills for p in one.places)})
        asides = self._lake._write_partitions(partitions, load, _UNSELECTED, self.spills)
        self._forget_spills()
        return asides

    def _forget_spills(self) -> None:
        for one in self.spills:
            one.remove()
        self.spills, self._spill = [], None

    def absorb(self, other: SourceBatch) -> None:
        """Takes over the rows and sources of another batch."""
        self.rows += other.rows
        self.spills += other.spills
        self.stored += other.stored
        other.spills, other._spill = [], None
        self._hold(other.tables)

    def discard(self) -> None:
        """Throws all rows away."""
        self._forget_spills()
        self.tables, self.stored = [], []
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

    def __init__(
        self, path: Path, lock: int, table: FileTable, meta: LakeMeta, buffer_rows: int
    ) -> None:
        """Not for callers: see `create_or_open`."""
        self.path = path
        self.meta = meta
        self.buffer_rows = buffer_rows
        self._lock = lock
        self._table = table
        self._batch = SourceBatch(self)
        self._asides = count()

    @classmethod
    def create_or_open(
        cls,
        path: Path,
        *,
        policy_tag: str,
        key_id: str,
        buckets: int = 16,
        pseudonyms: str = "deterministic",
        buffer_rows: int = BUFFER_ROWS,
    ) -> Lake:
        """Opens the lake for writing; makes it where there is none.

        Args:
            path: Folder of the lake.
            policy_tag: Keyed hash of the policy that says what is domestic.
            key_id: Id of the pseudonym key.
            buckets: Buckets of a day in a new lake; an existing one keeps its own.
            pseudonyms: How domestic addresses are encrypted.
            buffer_rows: Rows held in memory before they are spilled.

        Raises:
            LakeBusy: Another run writes to this lake.
            LakeError: The folder cannot be written, or is not a lake.
            PrivacyError: The lake was filled under another policy, or holds other pseudonyms.
            KeyFileError: The lake was filled with another key.
        """
        with lake_errors(path):
            _make_layout(path)
            lock = _take_lock(path)
            try:
                table = FileTable(path, writer=True)
                try:
                    table.make(policy_tag, key_id, buckets, pseudonyms)
                    meta = table.meta()
                    _check_meta(meta, policy_tag, key_id, pseudonyms)
                    lake = cls(path, lock, table, meta, buffer_rows)
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

    @staticmethod
    def peek_schedule(path: Path, quarantine_days: int) -> list[Due]:
        """What ends when, the first first, without the lake's lock.

        Raises:
            LakeError: There is no lake.
        """
        with lake_errors(path):
            table = FileTable(path, writer=False)
            try:
                return schedule(table.records(), quarantine_days)
            finally:
                table.close()

    @staticmethod
    def peek_counters(path: Path) -> Counters:
        """What the file table counts, while nobody writes; no lock is kept.

        Raises:
            LakeBusy: A run writes to this lake.
            LakeError: There is no lake.
        """
        with lake_errors(path):
            table = FileTable(path, writer=False)
            try:
                _check_free(path)
                counters = Counters(
                    sources=table.sources(),
                    scores=sum(file.rows for file in table.derived() if file.kind == SCORES),
                    oldest=table.counts().first_day,
                    segments=table.balance(),
                    purge=_noted(table, _PURGE, Purge),
                    erasure=_noted(table, _ERASURE, Erasure),
                )
                _check_free(path)
            finally:
                table.close()
        return counters

    @staticmethod
    def noted_head(path: Path) -> tuple[int, str] | None:
        """Number and hash of the newest noted ledger entry, without the lake's lock.

        None where nothing was noted, or there is no lake yet.
        """
        if not (path / TABLE).exists():
            return None
        with lake_errors(path):
            table = FileTable(path, writer=False)
            try:
                return table.newest(_LEDGER)
            finally:
                table.close()

    def ledger_head(self) -> tuple[int, str] | None:
        """Number and hash of the newest ledger entry that was noted."""
        with lake_errors(self.path):
            return self._table.newest(_LEDGER)

    def note_ledger(self, seq: int, head: str) -> None:
        """Notes the newest entry of the ledger, so that a cut at its end shows.

        The ledger is written first: a crash in between leaves an older note, never a
        newer one.
        """
        with lake_errors(self.path):
            self._table.note_newest(_LEDGER, seq, head)

    def check_key(self, made: int, destroyed: int) -> None:
        """Refuses a key file that has lost or revived secrets, then notes how many it has.

        Args:
            made: Secrets of epochs ever made in the key file.
            destroyed: How many of them are destroyed.

        Raises:
            KeyFileError: The lake has noted more of either: this is an older copy.
        """
        with lake_errors(self.path):
            before = self._table.newest(_KEY)
            if before is not None and (made < before[0] or destroyed < int(before[1])):
                raise KeyFileError(
                    "The key file is an older copy than the lake was filled with, so it lacks "
                    "months or holds destroyed ones; put the newest back."
                )
            self._table.note_newest(_KEY, made, f"{destroyed:016d}")

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
                since = min(_naive(source.at) for source in batch.stored)
                term = Term(since, min(source.retention_days for source in batch.stored))
                parts = [Part(*one, term) for one in batch.write()]
                stored = sum(part.aside.rows for part in parts)

                def account() -> None:
                    self._table.add_sources(batch.stored)
                    self._table.count("written", batch.rows)
                    self._table.count("merged", batch.rows - stored)

                self._swap(parts, [], account)
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
            unmerged = self._table.unmerged()
            for root, files in (
                (RECORDS, [file for file in unmerged if not file.quarantined]),
                (_UNSELECTED, [file for file in unmerged if file.quarantined]),
            ):
                for group in _groups(files, self.buffer_rows):
                    done += self._merge(group, root)
        return done

    def _merge(self, group: Sequence[Listed], root: str) -> int:
        """Merges whole partitions; returns how many they are."""
        files: dict[Partition, list[Listed]] = {}
        for file in group:
            files.setdefault(file.partition, []).append(file)
        spill = Spill(self._aside())

        def load(partition: Partition) -> list[pa.Table]:
            if partition in spill.places:
                return spill.tables(partition)
            return [read_records(self.path / file.name) for file in files[partition]]

        try:
            for partition, stored in files.items():
                if sum(file.rows for file in stored) > self.buffer_rows // 2:
                    # Too much to be read whole: mapped, it can be merged piece by piece.
                    for file in stored:
                        for table in read_groups(self.path / file.name):
                            spill.add(partition, table)
            asides = self._write_partitions(files, load, root, [spill])
        finally:
            spill.remove()
        try:
            parts = [Part(*one, _shortest(group, one[0].folder)) for one in asides]
            fewer = sum(f.rows for f in group) - sum(part.aside.rows for part in parts)
            self._swap(parts, group, lambda: self._table.count("merged", fewer))
        except BaseException:
            remove(aside.path for aside, _ in asides)
            raise
        return len(parts)

    @property
    def homeland(self) -> str | None:
        """Hash of the homeland table under which all stored records crossed the border."""
        with lake_errors(self.path):
            return self._table.noted(_HOMELAND)

    @property
    def open_purge(self) -> Purge | None:
        """The purge that `end_purge` has not ended yet, also of a run that was killed."""
        with lake_errors(self.path):
            found = self._table.noted(_PURGE)
        return None if found is None else Purge(**json.loads(found))

    def purge(self, condemned: Condemned, homeland: str) -> Purge:
        """Takes out the records with a condemned endpoint or foreign peer, all at once.

        Scores of all endpoints that lose a record go too. The replaced files are on the
        disk until `erase_replaced`.

        Args:
            condemned: Says of addresses, as upper and lower halves, which must go.
            homeland: Hash of the homeland table that condemns them.

        Returns:
            What went; it stays open until `end_purge`.

        Raises:
            LakeError: The lake cannot be read or written; it is as before then.
        """
        change = _Change()
        with lake_errors(self.path), self._undone_on_error(change):
            self._take_out(
                self._table.records(),
                lambda file: condemned_rows(self.path / file.name, condemned),
                change,
            )

            def doomed(file: Listed, table: pa.Table) -> Bools:
                rests = change.endpoints if file.kind == SCORES else ()
                return condemned_endpoints(table, condemned) | _among(table["endpoint"], rests)

            self._take_out_derived(doomed, change)
            purge = Purge(
                secrets.token_hex(8),
                homeland,
                files=len(change.records),
                records=sum(change.records.values()),
                endpoints=len(change.endpoints),
                scores=change.rows[SCORES],
                oldest=change.oldest.isoformat() if change.oldest else None,
            )

            def account() -> None:
                self._table.count("purged", purge.records)
                self._table.note(_HOMELAND, homeland)
                self._table.note(_PURGE, json.dumps(asdict(purge)))

            self._apply(change, account)
        return purge

    def _take_out(
        self,
        files: Sequence[Listed],
        chosen: Callable[[Listed], Bools],
        change: _Change,
        *,
        select: bool = False,
    ) -> None:
        """Writes aside what stays of each file of records that loses some.

        Args:
            files: The files.
            chosen: Says which rows of a file go.
            change: Where to enter it.
            select: Whether these rows leave the quarantine, not the lake.
        """
        for file in files:
            rows = chosen(file)
            if not rows.any():
                continue
            records = read_records(self.path / file.name)
            gone, kept = records.filter(pa.array(rows)), records.filter(pa.array(~rows))
            change.old.append(file)
            change.records[file] = len(gone)
            change.endpoints |= _foreign(gone)
            oldest = pc.min(gone["first_seen"]).as_py()
            change.oldest = min(oldest, change.oldest or oldest)
            change.parts += self._part(kept, file.folder, file)
            if select:
                change.parts += self._part(gone, file.folder.removeprefix(f"{QUARANTINE}/"), file)

    def _part(self, records: pa.Table, folder: str, of: Listed) -> list[Part]:
        """Writes some records of a file aside; none make no file."""
        if not len(records):
            return []
        aside = write_records([records], self._aside(), folder)
        return [Part(aside, of.partition, of.term)]

    def _take_out_derived(
        self, doomed: Callable[[Listed, pa.Table], Bools], change: _Change
    ) -> None:
        """Puts in place what stays of scores and selection, if some must go."""
        for file in self._table.derived():
            table = pq.read_table(self.path / file.name)
            rows = doomed(file, table)
            if rows.any():
                change.old.append(file)
                change.rows[file.kind] += int(rows.sum())
                self._put(table.filter(pa.array(~rows)), file.folder, "left", file.kind, change)

    def _put(self, table: pa.Table, folder: str, stem: str, kind: str, change: _Change) -> None:
        """Puts a small table in place; nobody lists it before `_apply`."""
        aside = write_aside(encode_plain(table), self._aside(), folder, len(table))
        name = f"{folder}/{stem}-{secrets.token_hex(8)}.parquet"
        move(self.path, [(aside, name)])
        change.derived.append(_listed(aside, name, kind))

    def _apply(self, change: _Change, account: Callable[[], None]) -> None:
        """Lists what a change has put in place of what it strikes."""

        def all_at_once() -> None:
            self._table.add_files(change.derived)
            account()

        self._swap(change.parts, change.old, all_at_once)

    @contextmanager
    def _undone_on_error(self, change: _Change) -> Iterator[None]:
        """Removes what a change wrote when it fails."""
        try:
            yield
        except BaseException:
            remove(part.aside.path for part in change.parts)
            listed = self._table.names()
            remove(self.path / f.name for f in change.derived if f.name not in listed)
            raise  # what is in place but not listed is swept at the next opening

    def erase_replaced(self, *, shown: bool) -> None:
        """Removes replaced files at once; call it under a new catalog.

        A reader that still has the catalog from before fails: erasure comes first.

        Args:
            shown: Whether lists and reports may show what went, and go too.
        """
        self.remove_retired(0.0)
        if shown:
            self.remove_papers(float("inf"))

    def remove_papers(self, before: float) -> None:
        """Removes lists and reports that were written before a time, in seconds since 1970."""
        with lake_errors(self.path):
            for folder in (LISTS, REPORTS):
                papers = [path for path in (self.path / folder).iterdir() if path.is_file()]
                remove(path for path in papers if path.stat().st_mtime <= before)

    def end_purge(self) -> None:
        """Says that the purge is accounted for."""
        with lake_errors(self.path):
            self._table.note(_PURGE, None)

    def adopt(self, homeland: str) -> None:
        """Notes the homeland table of a lake that holds nothing yet."""
        with lake_errors(self.path):
            self._table.note(_HOMELAND, homeland)

    def select(
        self, scores: Iterable[pa.Table], choose: Callable[[pa.Table], pa.Table], run: str
    ) -> tuple[int, int]:
        """Stores the scores of a run in place of all others, and selects endpoints.

        Records and scores of selected endpoints leave the quarantine, those of all others
        stay there. Who was selected before stays selected until `erase` finds its time ended.

        Args:
            scores: Tables with exactly the schema of `Layer.SCORE`, each endpoint in one of them;
                of what is not selected, not all are in memory at once.
            choose: Says of such a table who is selected now, with exactly the schema of
                `Layer.SELECTION`.
            run: Id of the run.

        Returns:
            How many endpoints are selected now, and how many records left the quarantine.

        Raises:
            PrivacyError: A table has another schema.
            LakeError: The run's id cannot be a file name, or the lake cannot be written.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", run):
            raise LakeError("A run's id is made of letters, digits, '_', '.' and '-'; choose one.")
        change = _Change()
        with lake_errors(self.path), self._undone_on_error(change):
            change.old += self._table.derived()
            before = self._selection()
            known = pa.array(before["endpoint"].to_pylist(), pa.string())
            now = [schema(Layer.SELECTION).empty_table()]
            shown = [schema(Layer.SCORE).empty_table()]
            waiting: list[pa.Table] = []
            for table in (_closed(one, Layer.SCORE) for one in scores):
                now.append(_closed(choose(table), Layer.SELECTION))
                endpoints = table["endpoint"]
                rows = pc.or_(pc.is_in(endpoints, now[-1]["endpoint"]), pc.is_in(endpoints, known))
                shown.append(table.filter(rows))
                waiting.append(table.filter(pc.invert(rows)))
                if sum(map(len, waiting)) >= _SCORES_AT_ONCE:
                    self._put_scores(waiting, f"{QUARANTINE}/{SCORES}", run, change)
                    waiting = []
            self._put_scores(waiting, f"{QUARANTINE}/{SCORES}", run, change)
            self._put_scores(shown, SCORES, run, change)
            chosen = pa.concat_tables(now)
            joined = _joined(before, chosen)
            selected = set(joined["endpoint"].to_pylist())
            self._put(joined, SELECTION, run, SELECTION, change)
            self._take_out(
                [file for file in self._table.records() if file.quarantined],
                lambda file: self._with_either(file, selected),
                change,
                select=True,
            )
            self._apply(change, lambda: None)
        self.merge()
        return len(chosen), sum(change.records.values())

    def _put_scores(
        self, tables: Sequence[pa.Table], folder: str, run: str, change: _Change
    ) -> None:
        """Puts scores in place, the highest first."""
        if tables:
            order = [("score", "descending"), ("endpoint", "ascending")]
            self._put(pa.concat_tables(tables).sort_by(order), folder, run, SCORES, change)

    def _selection(self) -> pa.Table:
        wanted = schema(Layer.SELECTION)
        tables = [
            pq.read_table(self.path / file.name).cast(wanted)
            for file in self._table.derived()
            if file.kind == SELECTION
        ]
        return pa.concat_tables([wanted.empty_table(), *tables])

    def _with_either(self, file: Listed, endpoints: Collection[str]) -> Bools:
        """Returns which records of a file have one of these as endpoint or foreign peer."""
        table = _read_foreign(self.path / file.name)
        return _among(table["endpoint_ip"], endpoints) | _among(table["peer_ip"], endpoints)

    @property
    def open_erasure(self) -> Erasure | None:
        """The erasure that `end_erasure` has not ended yet, also of a run that was killed."""
        with lake_errors(self.path):
            found = self._table.noted(_ERASURE)
        return None if found is None else Erasure(**json.loads(found))

    def erase(self, now: datetime, quarantine_days: int) -> Erasure:
        """Takes out all whose time has ended, all at once.

        What is not selected ends `quarantine_days` after its ingestion, what is selected with
        the approval's retention. Endpoints without records are selected no more, and their
        scores go. The files are on the disk until `erase_replaced`.

        Args:
            now: The moment, naive UTC.
            quarantine_days: Days that records may wait for being selected.

        Returns:
            What went; it stays open until `end_erasure`.

        Raises:
            LakeError: The lake cannot be read or written; it is as before then.
        """
        change = _Change()
        with lake_errors(self.path), self._undone_on_error(change):
            selection = self._selection()
            ended = pc.less_equal(selection["until"], pa.scalar(now, pa.timestamp("us")))
            expired = set(selection.filter(ended)["endpoint"].to_pylist())
            selected = set(selection["endpoint"].to_pylist()) - expired

            def due(file: Listed) -> Bools:
                if due_at(file, quarantine_days) <= now:
                    return np.ones(file.rows, np.bool_)
                if file.quarantined or not expired:
                    return np.zeros(file.rows, np.bool_)
                return ~self._with_either(file, selected)

            self._take_out(self._table.records(), due, change)
            gone = expired | self._without_records(change.endpoints & selected, change)

            def derived(file: Listed, table: pa.Table) -> Bools:
                return _among(table["endpoint"], change.endpoints if file.quarantined else gone)

            self._take_out_derived(derived, change)
            erasure = _erasure(change, now, quarantine_days)

            def account() -> None:
                self._table.count("erased", erasure.selected + erasure.unselected)
                self._table.note(_ERASURE, json.dumps(asdict(erasure)))

            self._apply(change, account)
        return erasure

    def _without_records(self, endpoints: set[str], change: _Change) -> set[str]:
        """Returns which endpoints are in no record that stays."""
        struck = set(change.old)
        paths = [self.path / file.name for file in self._table.records() if file not in struck]
        paths += [part.aside.path for part in change.parts]
        left = set(endpoints)
        for path in paths:
            if not left:
                break
            left -= _foreign(_read_foreign(path))
        return left

    def leftovers(self, now: datetime, quarantine_days: int) -> dict[str, int]:
        """Looks for anything that an erasure should have taken; call it under a new catalog.

        Args:
            now: The moment as of which it was done, naive UTC.
            quarantine_days: As for `erase`.

        Returns:
            Files on the disk that are not listed, records whose time has ended, records that
            analysts see of endpoints that are not selected, and records by which the catalog
            differs from what is listed; all 0 when the erasure is complete.
        """
        with lake_errors(self.path):
            listed = self._table.names()
            found = {
                path.relative_to(self.path).as_posix()
                for folder in STORED
                for path in (self.path / folder).rglob("*.parquet")
            }
            files = self._table.records()
            due = sum(file.rows for file in files if due_at(file, quarantine_days) <= now)
        shown, known = (
            int(catalog.query(self.path, sql, unselected=True)["n"][0].as_py())
            for sql in (_UNSELECTED_SHOWN, "SELECT count(*) AS n FROM stored_records")
        )
        return {
            "unlisted_files": len(found - listed),
            "records_due": due,
            "unselected_shown": shown,
            "catalog_differs": abs(known - sum(file.rows for file in files)),
        }

    def end_erasure(self) -> None:
        """Says that the erasure is accounted for."""
        with lake_errors(self.path):
            self._table.note(_ERASURE, None)

    def retention_days(self) -> int | None:
        """Days that selected records may stay: the least of all approvals they came in under."""
        return min((source.retention_days for source in self.sources()), default=None)

    def certificate(self, name: str) -> Path:
        """Returns where the certificate of an erasure stands."""
        return self.path / CERTIFICATES / f"{name}.json"

    def write_certificate(self, path: Path, facts: Mapping[str, object]) -> None:
        """Writes a certificate, in place of one that a killed run left."""
        text = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        with lake_errors(self.path):
            aside = write_aside(pa.py_buffer(text.encode()), self._aside(), CERTIFICATES, 0)
            move(self.path, [(aside, path.relative_to(self.path).as_posix())])

    def balance(self) -> Balance:
        """Where all record segments ever written are."""
        with lake_errors(self.path):
            return self._table.balance()

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
                    self.path, aside, table.records(), table.derived(), table.sources(), views
                )
        finally:
            remove(aside.parent.glob(f"{aside.name}*"))
        self.remove_retired()

    @property
    def scratch(self) -> Path:
        """Folder for files that have no name, or none that lasts."""
        return self.path / TMP

    @contextmanager
    def work(
        self, memory: str = "1GB", threads: int | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Opens the catalog as it was last built, unselected records too, for features.

        Raises:
            LakeError: There is no catalog, or memory or disk do not suffice for what is asked.
        """
        connection = catalog.work_connection(
            self.path, memory=memory, threads=threads, unselected=True
        )
        try:
            with catalog.duckdb_errors(self.path):
                yield connection
        finally:
            connection.close()

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

    def _write_partitions(
        self,
        partitions: Iterable[Partition],
        load: Callable[[Partition], list[pa.Table]],
        root: str,
        spills: Sequence[Spill] = (),
    ) -> list[tuple[Aside, Partition]]:
        """Merges partitions and writes them aside.

        Args:
            partitions: In the order in which their files are written.
            load: Gives the tables of one.
            root: Below it the files are to be placed.
            spills: What the tables may lie in.
        """
        from telemetry.lake.merge import ranges  # numba: only where it is needed

        def pieces(tables: list[pa.Table], spills: Sequence[Spill]) -> Iterator[pa.Table]:
            for piece in ranges(tables, self.buffer_rows // _PIECES or 1):
                for one in spills:
                    one.release()
                yield piece

        def merged(partition: Partition) -> Iterator[pa.Table]:
            runs, lying = [[table] for table in load(partition)], list(spills)
            while len(runs) > _FAN_IN:
                # A piece of each of very many would be a few rows, and dear.
                longer = []
                for start in range(0, len(runs), _FAN_IN):
                    some = [table for run in runs[start : start + _FAN_IN] for table in run]
                    spill = Spill(self._aside())
                    for piece in pieces(some, lying):
                        spill.add(partition, piece)
                    longer.append(spill)
                runs, lying = [one.tables(partition) for one in longer], longer
                for one in longer:
                    one.path.unlink()
            yield from pieces([table for run in runs for table in run], lying)

        def write(item: tuple[Partition, Path]) -> tuple[Aside, Partition]:
            partition, path = item
            folder = f"{root}/day={partition.day}/bucket={partition.bucket:02d}"
            return write_records(merged(partition), path, folder), partition

        before = next(self._asides)
        try:
            return in_threads(write, [(one, self._aside()) for one in partitions])
        except BaseException:
            remove(self._aside_path(n) for n in range(before, next(self._asides)))
            raise

    def _swap(
        self,
        parts: Sequence[Part],
        old: Sequence[Listed],
        account: Callable[[], None],
    ) -> None:
        """Puts files in place and lists them in the same transaction that strikes the old.

        Args:
            parts: Files of records.
            old: Files to strike.
            account: What else belongs into the transaction, such as what became of rows
                that are in no file now.
        """
        gone = {file.name for file in old}
        listed: list[Listed] = []
        taken: dict[str, set[str]] = {}
        for part in parts:
            folder = part.aside.folder
            if folder not in taken:
                taken[folder] = self._table.taken(folder) - gone
            name = _free_name(part.aside, taken[folder])
            taken[folder].add(name)
            listed.append(_listed(part.aside, name, RECORDS, part))
        pairs = [(part.aside, file.name) for part, file in zip(parts, listed, strict=True)]
        placed = move(self.path, pairs)
        try:
            with self._table.transaction():
                self._table.retire(sorted(gone - {f.name for f in listed}), time.time())
                self._table.add_files(listed)
                account()
        except BaseException:
            # A signal may be heard when the transaction is durable already: its files stay.
            names = self._table.names()
            remove(path for path in placed if path.relative_to(self.path).as_posix() not in names)
            raise

    def _aside(self) -> Path:
        return self._aside_path(next(self._asides))

    def _aside_path(self, number: int) -> Path:
        return self.path / TMP / f"{number:08d}"

    def _sweep(self) -> None:
        """Removes what a killed writer left.

        Retired files stay: the catalog may be older than what replaced them.
        """
        left = [path for path in (self.path / TMP).iterdir() if not _spill_of_living(path)]
        for folder in (LISTS, REPORTS, CERTIFICATES):
            left += (self.path / folder).glob(f"{ASIDE}*")
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        names = self._table.names()
        for folder in STORED:
            remove(
                path
                for path in (self.path / folder).rglob("*.parquet")
                if path.relative_to(self.path).as_posix() not in names
            )


def _closed(table: pa.Table, layer: Layer) -> pa.Table:
    """Returns the table under our own schema, so that no metadata rides along."""
    wanted = schema(layer)
    check_closed(table.column_names, layer)
    for entry, column in zip(wanted, table.columns, strict=True):
        if column.type != entry.type:
            raise PrivacyError(
                f"Column {entry.name} of the {layer} table must be {entry.type}, not "
                f"{column.type}; mend what made the table."
            )
        if column.null_count and not entry.nullable:
            raise PrivacyError(
                f"Column {entry.name} of the {layer} table must not be null; mend what made it."
            )
    return pa.Table.from_arrays(table.columns, schema=wanted)


def _joined(before: pa.Table, chosen: pa.Table) -> pa.Table:
    """Returns who is selected, of those selected before since when."""
    rows = {row["endpoint"]: row for row in before.to_pylist()}
    for row in chosen.to_pylist():
        known = rows.get(row["endpoint"], row)
        rows[row["endpoint"]] = row | {
            "since": min(row["since"], known["since"]),
            "until": max(row["until"], known["until"]),
        }
    ordered = [rows[endpoint] for endpoint in sorted(rows)]
    return pa.Table.from_pylist(ordered, schema=schema(Layer.SELECTION))


def _listed(aside: Aside, name: str, kind: str, part: Part | None = None) -> Listed:
    day, bucket = part.partition if part else (None, None)
    return Listed(
        name,
        aside.folder,
        kind,
        day.isoformat() if day else None,
        bucket,
        aside.rows,
        aside.bytes,
        aside.sha256,
        *(part.term if part else ()),
    )


def _shortest(files: Sequence[Listed], folder: str) -> Term:
    """Returns the term of all records of a partition: that which ends first."""
    terms = [file.term for file in files if file.folder == folder]
    return Term(min(term.since for term in terms), min(term.retention_days for term in terms))


def _naive(at: datetime) -> str:
    utc = at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
    return utc.isoformat(timespec="microseconds")


def _read_foreign(path: Path) -> pa.Table:
    """Reads the foreign addresses of a file of records."""
    names = ["endpoint_ip", "peer_ip"]
    with pq.ParquetFile(path, read_dictionary=names) as file:
        return file.read(names, use_threads=False)


def _foreign(table: pa.Table) -> set[str]:
    """Returns the distinct endpoints and foreign peers of records."""
    found: set[str] = set()
    for name in ("endpoint_ip", "peer_ip"):
        found.update(pc.unique(table[name].cast(pa.string()).drop_null()).to_pylist())
    return found


def _among(column: pa.ChunkedArray, endpoints: Collection[str]) -> Bools:
    """Returns which rows of a column of addresses in text are among some."""
    wanted = pa.array(sorted(endpoints), pa.string())
    rows: Bools = pc.is_in(column.cast(pa.string()), wanted).to_numpy()
    return rows


def _erasure(change: _Change, now: datetime, quarantine_days: int) -> Erasure:
    numbers = {False: 0, True: 0}
    for file, number in change.records.items():
        numbers[file.quarantined] += number
    late = [(now - due_at(file, quarantine_days)).total_seconds() for file in change.records]
    return Erasure(
        secrets.token_hex(8),
        now.isoformat(timespec="microseconds"),
        quarantine_days,
        files=len(change.records),
        unselected=numbers[True],
        selected=numbers[False],
        endpoints=len(change.endpoints),
        scores=change.rows[SCORES],
        deselected=change.rows[SELECTION],
        oldest=min((file.term.since for file in change.records), default=None),
        late_s=max(0, *map(int, late), 0),
    )


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


def _check_free(path: Path) -> None:
    lock = os.open(path / LOCK, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LakeBusy(f"A run holds the lake {path}; ask again when it is done.") from None
    finally:
        os.close(lock)


def _noted(table: FileTable, key: str, kind: type[Noted]) -> Noted | None:
    """Returns an act that is noted as not accounted for yet."""
    found = table.noted(key)
    return None if found is None else kind(**json.loads(found))


def _check_meta(meta: LakeMeta, policy_tag: str, key_id: str, pseudonyms: str) -> None:
    if meta.key_id != key_id:  # first, because the tag is made with the key
        raise KeyFileError(
            "The lake was filled with another pseudonym key; give its key file, or another --lake."
        )
    if meta.policy_tag != policy_tag:
        raise PrivacyError(
            "The lake was filled under another policy of what is domestic; give the same country "
            "and --home as before, or another --lake."
        )
    if meta.pseudonyms != pseudonyms:
        raise PrivacyError(
            f"The lake holds {meta.pseudonyms} pseudonyms, and a lake has one kind; set pseudonyms "
            "and link_epochs as before, or give another --lake."
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
