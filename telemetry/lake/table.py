"""The file table: which files the lake consists of and which sources it has taken in.

It is the truth about the lake: what is listed exists, what is not is swept away.
No path or file name of a source is ever kept.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from telemetry.errors import LakeError
from telemetry.lake.layout import (
    FILE_MODE,
    NO_LAKE,
    QUARANTINE,
    RECORDS,
    SCORES,
    SELECTION,
    TABLE,
    Partition,
)

SCHEMA_VERSION = 4
"""Grows with every change of the stored columns or of this table."""

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE files (
    name TEXT PRIMARY KEY, folder TEXT NOT NULL, kind TEXT NOT NULL, day TEXT, bucket INTEGER,
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL,
    since TEXT, retention_days INTEGER
) STRICT;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE INDEX files_by_folder ON files (folder);
CREATE TABLE retired (name TEXT PRIMARY KEY, since REAL NOT NULL) STRICT;
CREATE TABLE sources (
    sha256 TEXT NOT NULL, content_sha256 TEXT NOT NULL, sensor TEXT NOT NULL,
    authority TEXT NOT NULL, format TEXT NOT NULL, unit TEXT NOT NULL, read INTEGER NOT NULL,
    kept INTEGER NOT NULL, dropped TEXT NOT NULL, records_written INTEGER NOT NULL,
    run TEXT NOT NULL, at TEXT NOT NULL, retention_days INTEGER NOT NULL,
    PRIMARY KEY (sha256, sensor)
) STRICT;
CREATE UNIQUE INDEX sources_by_content ON sources (content_sha256, sensor);
"""


@dataclass(frozen=True, slots=True)
class StoredSource:
    """What the lake remembers of a source: its hashes and counts, never its name.

    Attributes:
        sha256: Hash of its bytes.
        content_sha256: Hash of its bytes after decompression; equal to `sha256` for a
            plain file.
        sensor: Where it was taken.
        authority: Id of the approval under which it came in.
        format: Name of its format.
        unit: What `read`, `kept` and `dropped` count.
        read: Items found.
        kept: Items that passed the gate.
        dropped: Items dropped, by reason.
        records_written: Record segments it gave.
        run: Id of the run.
        at: When it came in, UTC.
        retention_days: Days that the approval lets selected records stay.
    """

    sha256: str
    content_sha256: str
    sensor: str
    authority: str
    format: str
    unit: Literal["packets", "records"]
    read: int
    kept: int
    dropped: Mapping[str, int]
    records_written: int
    run: str
    at: datetime
    retention_days: int


_SOURCE = tuple(field.name for field in fields(StoredSource))


@dataclass(frozen=True, slots=True)
class LakeMeta:
    """What a lake was made with.

    Attributes:
        schema_version: Version of the stored columns.
        policy_tag: Keyed hash of the policy that says what is domestic.
        key_id: Id of the pseudonym key.
        buckets: Buckets of a day.
        pseudonyms: How domestic addresses were encrypted.
    """

    schema_version: int
    policy_tag: str
    key_id: str
    buckets: int
    pseudonyms: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How much the lake holds; `bytes` of Parquet, days from first to last."""

    files: int
    records: int
    bytes: int
    sources: int
    first_day: date | None
    last_day: date | None


class Term(NamedTuple):
    """How long records may stay.

    Attributes:
        since: When the oldest of them was ingested, naive UTC in ISO 8601 with microseconds.
        retention_days: Days from then that they may stay if they are selected.
    """

    since: str
    retention_days: int


class Balance(NamedTuple):
    """Where all record segments ever written to a lake are.

    Attributes:
        written: Segments that came in.
        merged: Of these, joined to others as parts of one record.
        purged: Records taken out because an address turned out domestic.
        erased: Records whose time had ended.
        selected: Records of selected endpoints in the lake now.
        quarantined: Other records in the lake now.
    """

    written: int
    merged: int
    purged: int
    erased: int
    selected: int
    quarantined: int

    @property
    def holds(self) -> bool:
        """Whether nothing is missing and nothing is there twice."""
        return self.written == sum(self[1:])


class Listed(NamedTuple):
    """One stored file; `name` is its path below the lake, `day` and `bucket` its partition."""

    name: str
    folder: str
    kind: str
    day: str | None
    bucket: int | None
    rows: int
    bytes: int
    sha256: str
    since: str | None = None
    retention_days: int | None = None

    @property
    def quarantined(self) -> bool:
        """Whether it holds what is not selected."""
        return self.folder.startswith(f"{QUARANTINE}/")

    @property
    def partition(self) -> Partition:
        """Where its records belong."""
        assert self.day is not None and self.bucket is not None  # all records belong somewhere
        return Partition(date.fromisoformat(self.day), self.bucket)

    @property
    def term(self) -> Term:
        """How long its records may stay."""
        assert self.since is not None and self.retention_days is not None  # all records have one
        return Term(self.since, self.retention_days)


class FileTable:
    """The SQLite table of one lake; the writer's, or a reader's that sees one moment."""

    def __init__(self, root: Path, *, writer: bool) -> None:
        """Opens the table.

        Args:
            root: Folder of the lake.
            writer: Whether this process holds the lake's lock.

        Raises:
            LakeError: There is no lake at `root`.
        """
        path = root / TABLE
        if not writer and not path.is_file():
            raise LakeError(NO_LAKE.format(root))
        if writer:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, FILE_MODE))
        # Without a log there is nothing to share with a writer: a reader of one moment needs no
        # file of its own then, for which the folder may be read-only or the disk full.
        logged = path.with_name(f"{TABLE}-wal").exists() and os.access(root, os.W_OK)
        self._sql = _open(path, "rw" if writer else "ro" if logged else "ro&immutable=1")
        if logged and not writer and not self._is_readable():
            # A writer left its log on a full disk: read it alone, with the index in memory.
            self._sql.close()
            self._sql = _open(path, "rw")
            self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")
        if writer:
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.execute("PRAGMA secure_delete = ON")  # what is erased leaves no free page
            self._sql.execute("PRAGMA synchronous = FULL")

    def _is_readable(self) -> bool:
        try:
            self._sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            return False
        return True

    def close(self) -> None:
        """Closes the table."""
        self._sql.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes of the block become visible at once, or none does."""
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            raise

    def make(self, policy_tag: str, key_id: str, buckets: int, pseudonyms: str) -> None:
        """Makes the tables of a new lake; a lake that has them stays as it is."""
        if self._sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return
        with self.transaction():
            for statement in _TABLES.split(";"):
                self._sql.execute(statement)
            self._sql.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [
                    ("schema_version", str(SCHEMA_VERSION)),
                    ("policy_tag", policy_tag),
                    ("key_id", key_id),
                    ("buckets", str(buckets)),
                    ("pseudonyms", pseudonyms),
                ],
            )

    def meta(self) -> LakeMeta:
        """Returns what the lake was made with.

        Raises:
            LakeError: The lake is of another version of this program.
        """
        meta = dict(self._sql.execute("SELECT key, value FROM meta").fetchall())
        if meta["schema_version"] != str(SCHEMA_VERSION):
            raise LakeError(
                f"The lake has schema version {meta['schema_version']}, this program needs "
                f"{SCHEMA_VERSION}; ingest the sources into a new lake."
            )
        return LakeMeta(
            SCHEMA_VERSION,
            meta["policy_tag"],
            meta["key_id"],
            int(meta["buckets"]),
            meta.get("pseudonyms", "deterministic"),
        )

    def note_newest(self, name: str, number: int, text: str) -> None:
        """Notes a number that never falls, and what goes with it; a smaller one changes nothing."""
        self._sql.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE "
            "SET value = excluded.value WHERE excluded.value > value",
            (name, f"{number:016d} {text}"),
        )

    def newest(self, name: str) -> tuple[int, str] | None:
        """Returns the number that was noted last under a name and its text, if any."""
        found = self._sql.execute("SELECT value FROM meta WHERE key = ?", (name,)).fetchone()
        if found is None:
            return None
        number, _, text = found[0].partition(" ")
        return int(number), text

    def note(self, key: str, value: str | None) -> None:
        """Notes a fact about the lake, or strikes it; inside a transaction or alone."""
        if value is None:
            self._sql.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            self._sql.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def noted(self, key: str) -> str | None:
        """Returns a noted fact."""
        row = self._sql.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def known(self, sha256: str, sensor: str) -> bool:
        """Whether a source from this sensor with this hash, packed or unpacked, is stored."""
        found = self._sql.execute(
            "SELECT 1 FROM sources WHERE sensor = ?2 AND (sha256 = ?1 OR content_sha256 = ?1)",
            (sha256, sensor),
        )
        return found.fetchone() is not None

    def add_sources(self, sources: Sequence[StoredSource]) -> None:
        """Enters sources; call inside a transaction."""
        self._sql.executemany(
            f"INSERT INTO sources VALUES ({', '.join(f':{name}' for name in _SOURCE)})",
            [
                {name: getattr(source, name) for name in _SOURCE}
                | {
                    "dropped": json.dumps(dict(source.dropped), sort_keys=True),
                    "at": source.at.isoformat(),
                }
                for source in sources
            ],
        )

    def add_files(self, files: Sequence[Listed]) -> None:
        """Enters files, replacing those of the same name; call inside a transaction."""
        self._sql.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", files
        )
        self._sql.executemany("DELETE FROM retired WHERE name = ?", [(f.name,) for f in files])

    def retire(self, names: Sequence[str], now: float) -> None:
        """Takes files off the list that readers may still have open; call in a transaction."""
        rows = [(name,) for name in names]
        self._sql.executemany("DELETE FROM files WHERE name = ?", rows)
        self._sql.executemany(
            "INSERT OR REPLACE INTO retired VALUES (?, ?)", [(name, now) for name in names]
        )

    def forget_retired(self, before: float) -> list[str]:
        """Strikes files retired before a time; they may then be removed."""
        names = [
            name
            for (name,) in self._sql.execute("SELECT name FROM retired WHERE since <= ?", (before,))
        ]
        self._sql.execute("DELETE FROM retired WHERE since <= ?", (before,))
        return names

    def names(self) -> set[str]:
        """Names of all files that may be on disk: listed and retired."""
        found = self._sql.execute("SELECT name FROM files UNION ALL SELECT name FROM retired")
        return {name for (name,) in found}

    def taken(self, folder: str) -> set[str]:
        """Names listed in a folder."""
        found = self._sql.execute("SELECT name FROM files WHERE folder = ?", (folder,))
        return {name for (name,) in found}

    def records(self) -> list[Listed]:
        """All files of records, by day, bucket and name."""
        return self._listed("WHERE kind = ? ORDER BY day, bucket, name", RECORDS)

    def unmerged(self) -> list[Listed]:
        """Files of the partitions that hold more than one, by day, bucket and name."""
        return self._listed(
            "WHERE kind = ? AND folder IN (SELECT folder FROM files GROUP BY folder "
            "HAVING count(*) > 1) ORDER BY day, bucket, name",
            RECORDS,
        )

    def derived(self) -> list[Listed]:
        """The listed files of scores and of the selection: those of the newest run."""
        return [
            file
            for kind in (SCORES, SELECTION)
            for file in self._listed("WHERE kind = ? ORDER BY name", kind)
        ]

    def count(self, name: str, more: int) -> None:
        """Adds to a counter that never falls; call inside a transaction."""
        self._sql.execute(
            "INSERT INTO counters VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE "
            "SET value = value + ?2",
            (name, more),
        )

    def balance(self) -> Balance:
        """Where all record segments are."""
        counted = dict(self._sql.execute("SELECT name, value FROM counters").fetchall())
        rows = [0, 0]
        for file in self.records():
            rows[file.quarantined] += file.rows
        gone = (counted.get(name, 0) for name in ("written", "merged", "purged", "erased"))
        return Balance(*gone, *rows)

    def _listed(self, tail: str, kind: str) -> list[Listed]:
        columns = ", ".join(Listed._fields)
        found = self._sql.execute(f"SELECT {columns} FROM files {tail}", (kind,))
        return [Listed(*row) for row in found]

    def sources(self) -> list[StoredSource]:
        """All sources, in the order of time and hash."""
        found = self._sql.execute("SELECT * FROM sources ORDER BY at, sha256, sensor")
        rows = (dict(zip(_SOURCE, row, strict=True)) for row in found)
        return [
            StoredSource(
                **row
                | {"dropped": json.loads(row["dropped"]), "at": datetime.fromisoformat(row["at"])}
            )
            for row in rows
        ]

    def counts(self) -> Counts:
        """How much the lake holds."""
        files, rows, size, first, last = self._sql.execute(
            "SELECT count(*), ifnull(sum(rows), 0), ifnull(sum(bytes), 0), min(day), max(day) "
            "FROM files WHERE kind = ?",
            (RECORDS,),
        ).fetchone()
        sources = self._sql.execute("SELECT count(*) FROM sources").fetchone()[0]
        days = [date.fromisoformat(day) if day else None for day in (first, last)]
        return Counts(files, rows, size, sources, days[0], days[1])


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=30
    )
