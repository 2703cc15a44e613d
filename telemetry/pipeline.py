"""Wires the rooms: the only module that knows them all.

`run` is what a day needs: `ingest`, `score`, `make_list`, `make_report`. Each
takes settings and returns plain facts; none of them prints.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from telemetry.errors import LakeError, LedgerError, PrivacyError, SettingsError, SourceError
from telemetry.records import (
    IngestReport,
    Reason,
    ScoredEndpoint,
    SourceReport,
    Status,
    Tally,
)
from telemetry.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from telemetry.homeland import Border, Homeland
    from telemetry.lake import Lake, StoredSource
    from telemetry.privacy import Authority, Gate, Keys, Ledger, VerifyReport
    from telemetry.readers import Source
    from telemetry.report import Totals

COMMIT_SOURCES = 256
"""Sources that are committed together; a crash costs at most their reading again."""


class Progress:
    """What a caller may watch; the default watches nothing."""

    def stage(self, name: str) -> None:
        """A new stage begins."""

    def source(self, number: int, total: int, size: int) -> None:
        """A source begins: its number, how many there are, its bytes on disk."""

    def position(self, read: int) -> None:
        """So many bytes of the current source have been read."""

    def done(self, report: SourceReport) -> None:
        """A source is done."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """Answer of `run --json`."""

    ingest: IngestReport
    endpoints: list[ScoredEndpoint]
    files: list[Path]


@dataclass(frozen=True, slots=True)
class _Post:
    """Everything a barrier needs: who may pass, under which name, on whose approval."""

    settings: Settings
    homeland: Homeland
    authority: Authority
    border: Border
    keys: Keys
    gate: Gate
    ledger: Ledger
    run: str


def run(settings: Settings, sources: Sequence[str], progress: Progress | None = None) -> RunReport:
    """Ingests sources, scores every endpoint, writes the list and the report, as one run.

    Raises:
        SekishoError: See `ingest`; a single bad source is reported, not raised.
    """
    watch = progress or Progress()
    run_id = new_run_id()
    ingested = ingest(settings, sources, watch, run_id=run_id)
    endpoints = score(settings, watch, run_id=run_id)
    _, files = make_list(settings, watch, run_id=run_id)
    report = make_report(settings, watch, run_id=run_id)
    return RunReport(ingested, endpoints, [*files, report])


def new_run_id() -> str:
    """Returns an id for a run: when it began, and a random end."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def failure(report: IngestReport) -> str | None:
    """Returns why a run must count as failed, in a sentence without paths, or None.

    A source that was named must be read; of a folder, some source.
    """
    refused = [source for source in report.sources if source.status == "refused"]
    if not refused or not (len(refused) == len(report.sources) or any(s.named for s in refused)):
        return None
    return f"{len(refused)} of {len(report.sources)} sources refused. {refused[0].error}"


def ingest(
    settings: Settings,
    sources: Sequence[str],
    progress: Progress | None = None,
    *,
    run_id: str | None = None,
) -> IngestReport:
    """Reads sources into the lake, in any order, each at most once.

    Args:
        settings: Home, authority, keys, lake.
        sources: Files, folders (walked by name) or `-` for standard input.
        progress: Watches the reading.
        run_id: Of the run that this is a part of; a new one without.

    Returns:
        One report a source; a source that cannot be read is `refused` there.

    Raises:
        SettingsError: A source does not exist or a folder holds no file.
        AuthorityError: The authority does not cover this.
        KeyFileError: The key is missing or not this lake's.
        PrivacyError: The lake belongs to another home.
        LakeError: The lake cannot be written.
    """
    watch = progress or Progress()
    started = time.monotonic()
    paths = expand(settings, sources)
    with _open_post(settings, run_id or new_run_id()) as (post, lake):
        watch.stage("read")
        reports = _ingest_all(post, lake, paths, watch)
        watch.stage("merge")
        lake.merge()
        _publish(lake)
    seconds = round(time.monotonic() - started, 3)
    return IngestReport(post.run, post.authority.id, reports, seconds)


def expand(settings: Settings, sources: Sequence[str]) -> list[tuple[str, bool]]:
    """Walks folders.

    Args:
        settings: Name the lake and the key, which a walk passes by.
        sources: Files, folders or `-`.

    Returns:
        The files to read, and whether each was named itself.

    Raises:
        SettingsError: Nothing is named, a source does not exist, or a folder holds no file.
    """
    own = {
        path.resolve() for path in (settings.lake, settings.key_path, settings.beside(".prefect"))
    }
    if not sources:
        raise SettingsError("Nothing to read; name files, folders or '-' for standard input.")
    paths: list[tuple[str, bool]] = []
    for source in sources:
        if source == "-" or not _is_folder(Path(source)):
            paths.append((source, True))
            continue
        inside = _walk(Path(source), own)
        if not inside:
            raise SettingsError(f"The folder {source} holds no file; name one with captures.")
        paths.extend((str(p), False) for p in inside)
    return paths


def _is_folder(path: Path) -> bool:
    try:
        if path.is_dir():
            return True
        there = path.exists()
    except OSError:
        return False  # opening it will say why
    if not there:
        raise SettingsError(f"There is no file or folder {path}; check the name.")
    return False


def _walk(root: Path, own: set[Path]) -> list[Path]:
    def unreadable(error: OSError) -> None:
        raise SettingsError(
            f"The folder {error.filename} cannot be read: {error.strerror}; check its owner and "
            "mode."
        )

    found: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=unreadable):
        here = Path(folder)
        folders[:] = [n for n in folders if n[0] != "." and (here / n).resolve() not in own]
        found += [here / n for n in names if n[0] != "." and (here / n).resolve() not in own]
    return sorted(path for path in found if path.is_file())


@contextmanager
def _open_post(settings: Settings, run_id: str) -> Iterator[tuple[_Post, Lake]]:
    """Opens everything a run that writes needs, in the order of who may refuse it."""
    from telemetry.homeland import Border
    from telemetry.lake import Lake
    from telemetry.privacy import Gate, Ledger

    authority = _approval(settings)
    homeland = load_homeland(settings)
    ledger = Ledger(settings.lake / "ledger.jsonl", settings.ledger_key)
    keys = _load_keys(settings)
    border = Border(homeland, authority.allowed_mask)
    tag = keys.tag(homeland.policy_sha256)
    with Lake.create_or_open(settings.lake, policy_tag=tag, key_id=keys.key_id) as lake:
        _settle(lake, ledger)
        gate = Gate(border, keys, settings.sensor)
        yield (
            _Post(settings, homeland, authority, border, keys, gate, ledger, run_id),
            lake,
        )


def _approval(settings: Settings) -> Authority:
    """Returns the authority, if it covers what is done now."""
    from telemetry.privacy import Authority

    authority = Authority.load(settings.authority, settings.overseer_key)
    authority.check(settings.sensor, datetime.now(UTC))
    return authority


def load_homeland(settings: Settings) -> Homeland:
    """Loads the table of domestic addresses that the settings name."""
    from telemetry.homeland import load

    return load(settings.country, settings.home)


def _load_keys(settings: Settings) -> Keys:
    """Loads the pseudonym key; makes one only for a lake that does not exist yet."""
    from telemetry.privacy import Keys

    path, lake = settings.key_path, settings.lake
    if path.resolve().is_relative_to(lake.resolve()):
        raise SettingsError("The key must not lie inside the lake; give another --key.")
    if settings.key_file is None and _is_new(lake) and not path.exists():
        _check_place(lake)
        return Keys.create(path)
    return Keys.load(path)


def _check_place(lake: Path) -> None:
    """Refuses a place where no lake can be made, before a key is made beside it."""
    try:
        lake.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or "").lower()
        raise LakeError(f"The lake {lake} cannot be made: {why}; give another --lake.") from None
    if not os.access(lake.parent, os.W_OK):
        raise LakeError(f"The folder of the lake {lake} cannot be written; give another --lake.")


def _is_new(lake: Path) -> bool:
    """Whether there is no lake yet, or an empty folder in its place."""
    try:
        return not lake.exists() or (lake.is_dir() and not any(lake.iterdir()))
    except OSError:
        return False  # opening it will say why


def _ingest_all(
    post: _Post, lake: Lake, paths: list[tuple[str, bool]], watch: Progress
) -> list[SourceReport]:
    post.ledger.append(
        "run",
        run=post.run,
        authority=post.authority.id,
        authority_sha256=post.authority.sha256,
        policy_tag=post.keys.tag(post.homeland.policy_sha256),
        homeland_sha256=post.homeland.table_sha256,
        key_id=post.keys.key_id,
        sensor=post.settings.sensor,
        decoder=post.settings.decoder,
    )
    reports: list[SourceReport] = []
    waiting: list[SourceReport] = []
    for number, (path, named) in enumerate(paths, 1):
        post.authority.check(post.settings.sensor, datetime.now(UTC))
        report = _ingest_one(post, lake, path, (number, len(paths)), watch)
        report = replace(report, named=named)
        watch.done(report)
        reports.append(report)
        if report.status == "ingested":
            waiting.append(report)
        elif report.status == "refused":
            post.ledger.append("refused", run=post.run, sha256=report.sha256, reason=report.error)
        if len(waiting) >= COMMIT_SOURCES:
            _commit(post, lake, waiting)
            waiting = []
    _commit(post, lake, waiting)
    statuses = Counter(report.status for report in reports)
    post.ledger.append("read", run=post.run, **dict(sorted(statuses.items())))
    return reports


def _ingest_one(
    post: _Post, lake: Lake, path: str, place: tuple[int, int], watch: Progress
) -> SourceReport:
    from telemetry.readers import find_reader, open_source

    tally = Tally()
    source = None
    name = None
    try:
        source = open_source(path, watch.position)
        watch.source(*place, source.size)
        if source.sha256 and lake.known(source.sha256, post.settings.sensor):
            return _report(path, source, None, Tally(), 0, "already_ingested")
        reader = find_reader(source, post.settings.decoder)
        name = reader.name
        with lake.source() as staged:
            for batch in reader.read(source, post.border, tally):
                staged.stage(post.gate.admit(batch, tally, reader.gated))
            source.finish()
            rows = staged.rows
            if not staged.accept(_stored(post, source, name, tally, rows)):
                return _report(path, source, None, Tally(), 0, "already_ingested")
        return _report(path, source, name, tally, rows, "ingested", tally.damage)
    except SourceError as error:
        return _report(path, source, name, Tally(), 0, "refused", str(error))
    finally:
        if source is not None:
            source.close()


def _stored(post: _Post, source: Source, name: str, tally: Tally, rows: int) -> StoredSource:
    from telemetry.lake import StoredSource

    assert source.sha256 is not None  # it is finished
    return StoredSource(
        sha256=source.sha256,
        content_sha256=source.content_sha256 or source.sha256,
        sensor=post.settings.sensor,
        authority=post.authority.id,
        format=name,
        unit=tally.unit,
        read=tally.read,
        kept=tally.kept,
        dropped=dict(sorted(tally.dropped.items())),
        records_written=rows,
        run=post.run,
        at=datetime.now(UTC),
    )


def _report(
    path: str,
    source: Source | None,
    name: str | None,
    tally: Tally,
    rows: int,
    status: Status,
    error: str | None = None,
) -> SourceReport:
    packets = tally.unit == "packets"
    return SourceReport(
        path=path,
        sha256=source.sha256 if source else None,
        format=name,
        linktypes=sorted(tally.linktypes),
        packets_read=tally.read if packets else 0,
        records_read=0 if packets else tally.read,
        kept=tally.kept,
        dropped=dict(sorted(tally.dropped.items())),
        records_written=rows,
        status=status,
        error=error,
    )


def _commit(post: _Post, lake: Lake, reports: list[SourceReport]) -> None:
    """Enters the waiting sources in the ledger, then makes them visible."""
    if not reports:
        return
    facts = [
        {
            "sha256": report.sha256,
            "format": report.format,
            "packets_read": report.packets_read,
            "records_read": report.records_read,
            "kept": report.kept,
            "dropped": report.dropped,
            "records_written": report.records_written,
        }
        for report in reports
    ]
    # Before the commit: what the lake holds is always accounted for, whenever the power goes.
    post.ledger.append(
        "ingest",
        run=post.run,
        authority=post.authority.id,
        sensor=post.settings.sensor,
        sources=facts,
    )
    lake.commit()
    post.ledger.append("commit", run=post.run, sources=len(facts))


def verify_ledger(
    settings: Settings, public_key: Path | None = None, anchor: str | None = None
) -> VerifyReport:
    """Checks every entry of the lake's ledger; see `telemetry.privacy.verify`.

    Raises:
        LedgerError: An entry is wrong, or the ledger of a lake with records is empty.
    """
    from telemetry.lake import Lake
    from telemetry.privacy import verify

    report = verify(settings.lake / "ledger.jsonl", public_key, anchor)
    if report.entries == 0 and Lake.stored_sources(settings.lake):
        raise LedgerError(_NO_LEDGER)
    return report


def _publish(lake: Lake) -> None:
    from telemetry.features import views

    lake.build_catalog([(view.name, view.sql) for view in views()])


_NO_LEDGER = (
    "The lake holds records but its ledger is missing or empty; restore ledger.jsonl from a copy."
)


def _settle(lake: Lake, ledger: Ledger) -> None:
    """Settles in the ledger what a crash left open, so that its counts add up.

    Raises:
        LedgerError: The lake holds sources, but its ledger is gone.
    """
    last = ledger.last()
    if last is None and lake.counts().sources:
        raise LedgerError(_NO_LEDGER)
    if last is None or last["kind"] != "ingest":
        return
    facts = last["facts"]
    stored = lake.known(facts["sources"][0]["sha256"], facts["sensor"])
    ledger.append(
        "commit" if stored else "abandoned", run=facts["run"], sources=len(facts["sources"])
    )


@contextmanager
def _open_lake(settings: Settings) -> Iterator[tuple[Lake, Ledger, str]]:
    """Opens an existing lake for work on records that have passed the gate already.

    Yields:
        The lake, its ledger, and the id of the authority under which the work is done.
    """
    from telemetry.lake import Lake
    from telemetry.privacy import Ledger

    authority = _approval(settings).id
    meta = Lake.peek(settings.lake)
    with Lake.create_or_open(settings.lake, policy_tag=meta.policy_tag, key_id=meta.key_id) as lake:
        ledger = Ledger(settings.lake / "ledger.jsonl", settings.ledger_key)
        _settle(lake, ledger)
        yield lake, ledger, authority


def score(
    settings: Settings, progress: Progress | None = None, *, run_id: str | None = None
) -> list[ScoredEndpoint]:
    """Scores every endpoint in the lake and stores the scores.

    Returns:
        All endpoints, highest score first.

    Raises:
        AuthorityError: The authority does not cover this.
        LakeError: There is no lake, or it cannot be written.
    """
    from telemetry import scoring
    from telemetry.features import endpoint_features

    watch = progress or Progress()
    watch.stage("score")
    run_id = run_id or new_run_id()
    with _open_lake(settings) as (lake, ledger, authority):
        lake.merge()
        _publish(lake)
        connection = lake.work_connection()
        try:
            features = endpoint_features(connection)
        finally:
            connection.close()
        endpoints = scoring.score(features, settings.threshold)
        lake.write_scores(_scores_table(endpoints), run_id)
        _publish(lake)
        ledger.append(
            "score",
            run=run_id,
            authority=authority,
            threshold=settings.threshold,
            endpoints=len(endpoints),
            listed=sum(endpoint.listed for endpoint in endpoints),
        )
    return endpoints


def _scores_table(endpoints: list[ScoredEndpoint]) -> pa.Table:
    import pyarrow as pa

    from telemetry.columns import Layer, schema

    return pa.Table.from_pylist([asdict(e) for e in endpoints], schema=schema(Layer.SCORE))


def read_scores(settings: Settings) -> list[ScoredEndpoint]:
    """Returns the newest scores in the lake, highest first.

    Raises:
        LakeError: There is no lake.
    """
    from telemetry.lake import query

    rows = query(settings.lake, "SELECT * FROM scores ORDER BY score DESC, endpoint").to_pylist()
    return [
        ScoredEndpoint(**row | {"reasons": [Reason(**reason) for reason in row["reasons"]]})
        for row in rows
    ]


def make_list(
    settings: Settings, progress: Progress | None = None, *, run_id: str | None = None
) -> tuple[list[ScoredEndpoint], list[Path]]:
    """Writes the list of the newest scores in every format.

    Returns:
        The listed endpoints, highest score first, and the files.

    Raises:
        AuthorityError: The authority does not cover this.
        LakeError: There is no lake, or it cannot be written.
        PrivacyError: The settings name another home than the lake's, or an entry is
            domestic; nothing was written then.
    """
    from telemetry.homeland import FOREIGN
    from telemetry.lake import Lake
    from telemetry.lists import ListHeader, write_lists
    from telemetry.privacy import Keys

    watch = progress or Progress()
    watch.stage("list")
    homeland = load_homeland(settings)
    meta = Lake.peek(settings.lake)
    if meta.policy_tag != Keys.load(settings.key_path).tag(homeland.policy_sha256):
        raise PrivacyError(
            "The lake was filled for another home, so nothing may leave it; "
            "give the same --country and --home as at ingest."
        )
    endpoints = read_scores(settings)
    listed = [endpoint for endpoint in endpoints if endpoint.listed]
    run_id = run_id or new_run_id()
    with _open_lake(settings) as (lake, ledger, authority):
        files = write_lists(
            listed,
            settings.lake / "lists",
            ListHeader(
                run=run_id,
                made_at=max(
                    (e.last_seen for e in endpoints if e.last_seen <= _now()), default=None
                ),
                authority=_acquired_under(lake),
                days=settings.list_days,
            ),
            forbidden=lambda address: homeland.class_of_text(address) != FOREIGN,
        )
        ledger.append(
            "export",
            run=run_id,
            authority=authority,
            entries=len(listed),
            manifest_sha256=_sha256(files[-1]),
        )
    return listed, files


def make_report(
    settings: Settings, progress: Progress | None = None, *, run_id: str | None = None
) -> Path:
    """Writes the HTML report of all sources and the newest scores.

    Returns:
        The file.

    Raises:
        AuthorityError: The authority does not cover this.
        LakeError: There is no lake, or it cannot be written.
    """
    from telemetry.lake import query
    from telemetry.report import Hour, ReportFacts, SourceFacts, write_report

    watch = progress or Progress()
    watch.stage("report")
    endpoints = read_scores(settings)
    run_id = run_id or new_run_id()
    with _open_lake(settings) as (lake, ledger, authority):
        sources = lake.sources()
        facts = ReportFacts(
            run=run_id,
            authority=_acquired_under(lake),
            made_at=_now(),
            period=_period(settings),
            sources=[
                SourceFacts(
                    sha256=s.sha256,
                    format=s.format,
                    status="ingested",
                    packets_read=s.read if s.unit == "packets" else 0,
                    records_read=s.read if s.unit == "records" else 0,
                    kept=s.kept,
                    dropped=s.read - s.kept,
                    records_written=s.records_written,
                )
                for s in sources
            ],
            packets=_totals(sources, "packets"),
            records=_totals(sources, "records"),
            n_records=lake.counts().records,
            n_endpoints=len(endpoints),
            endpoints=endpoints,
            timeline=[
                Hour(row["hour"], row["records"], row["listed"])
                for row in query(settings.lake, _TIMELINE).to_pylist()
            ],
        )
        path = settings.lake / "reports" / "report.html"
        write_report(facts, path)
        ledger.append("report", run=run_id, authority=authority, sha256=_sha256(path))
    return path


def _acquired_under(lake: Lake) -> str:
    """Returns the authorities under which the records of a lake came in."""
    return ", ".join(sorted({source.authority for source in lake.sources()})) or "none"


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_TIMELINE = """
SELECT date_trunc('hour', r.first_seen) AS hour, count(*) AS records,
       count(*) FILTER (s.listed) AS listed
FROM records r LEFT JOIN scores s ON s.endpoint = r.endpoint_ip
GROUP BY ALL ORDER BY hour
"""


def _period(settings: Settings) -> tuple[datetime, datetime] | None:
    from telemetry.lake import query

    row = query(
        settings.lake, "SELECT min(first_seen) AS a, max(last_seen) AS b FROM stored_records"
    ).to_pylist()[0]
    return (row["a"], row["b"]) if row["a"] is not None else None


def _totals(sources: Sequence[StoredSource], unit: str) -> Totals:
    from telemetry.report import Totals

    counted = [source for source in sources if source.unit == unit]
    dropped: Counter[str] = Counter()
    for source in counted:
        dropped.update(source.dropped)
    return Totals(
        read=sum(s.read for s in counted),
        kept=sum(s.kept for s in counted),
        dropped=dict(sorted(dropped.items())),
    )


def examine(settings: Settings) -> dict[str, object]:
    """Returns what an installation is made of and what it reads.

    Raises:
        AuthorityError: The authority does not cover a run now.
        SettingsError: The homeland table is missing or broken.
    """
    import platform
    from importlib.metadata import version

    from telemetry.readers import reader_names

    homeland = load_homeland(settings)
    packages = ("duckdb", "numba", "numpy", "polars", "prefect", "pyarrow", "scikit-learn")
    return {
        "python": platform.python_version(),
        "packages": [f"{name} {version(name)}" for name in packages],
        "homeland_table": homeland.table_sha256,
        "formats": reader_names(),
        "containers": ["plain", "gzip", "zstd"],
        "lake": str(settings.lake) if settings.lake.exists() else f"{settings.lake} (not made yet)",
        "key": f"{settings.key_path}{'' if settings.key_path.exists() else ' (not made yet)'}",
        "authority": f"{_approval(settings).id}, covers sensor {settings.sensor} now",
    }
