"""Sources in: found, read in time order, gated, committed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from telemetry.errors import (
    AuthorityError,
    SettingsError,
    SourceError,
)
from telemetry.pipeline.doors import (
    Post,
    Progress,
    check_approval,
    enter,
    new_run_id,
    open_post,
    publish,
)
from telemetry.records import (
    IngestReport,
    SourceReport,
    Status,
    Tally,
)
from telemetry.roles import needs
from telemetry.settings import Settings

if TYPE_CHECKING:
    from telemetry.lake import Lake, StoredSource
    from telemetry.readers import Place, Session, Source


COMMIT_SOURCES = 256
"""Sources that are committed together; a crash costs at most their reading again."""


class Group(NamedTuple):
    """Files that were given as one.

    Attributes:
        paths: File names, or `-`.
        named: Whether it is one file that was named itself, not a folder or a pattern.
    """

    paths: list[str]
    named: bool


def failure(report: IngestReport) -> str | None:
    """Returns why a run must count as failed, in a sentence without paths, or None.

    A source that was named must be read; of a folder, some source.
    """
    refused = [source for source in report.sources if source.status == "refused"]
    named = [source for source in refused if source.named]
    if named:
        return f"{len(named)} of {len(report.sources)} sources refused. {named[0].error}"
    if refused and len(refused) == len(report.sources):
        return f"Nothing that was found could be read. {refused[0].error}"
    return None


@needs("operation")
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
        sources: Files, folders and patterns (each in time order) or `-` for standard input.
        progress: Watches the reading.
        run_id: Of the run that this is a part of; a new one without.

    Returns:
        One report a source; a source that cannot be read is `refused` there.

    Raises:
        SettingsError: A source does not exist or a folder holds no file.
        RoleError: The role of the settings may not do this; so everywhere in this module.
        AuthorityError: The authority does not cover this.
        KeyFileError: The key is missing or not this lake's.
        PrivacyError: The lake belongs to another home.
        LakeError: The lake cannot be written.
    """
    watch = progress or Progress()
    started = time.monotonic()
    groups = expand(settings, sources)
    with open_post(settings, run_id or new_run_id()) as (post, lake):
        watch.stage("read")
        reports = _ingest_all(post, lake, in_order(groups, post.session), watch)
        watch.stage("merge")
        lake.merge()
        publish(lake)
    seconds = round(time.monotonic() - started, 3)
    purged = post.purged.records if post.purged else 0
    return IngestReport(post.run, post.authority.id, reports, seconds, purged)


@needs("counters")
def expand(settings: Settings, sources: Sequence[str]) -> list[Group]:
    """Walks folders and matches patterns; no file is opened yet.

    Args:
        settings: Name the lake and the key, which a walk passes by.
        sources: Files, folders, patterns such as `captures/*.pcap`, or `-`.

    Raises:
        SettingsError: Nothing is named, a source does not exist, or a folder holds no file.
    """
    if not sources:
        raise SettingsError("Nothing to read; name files, folders or '-' for standard input.")
    return [_group(settings, source) for source in sources]


def _group(settings: Settings, source: str) -> Group:
    matches = _matches(source)
    if source == "-" or not (matches or _is_folder(Path(source))):
        return Group([source], True)
    own = {
        path.resolve() for path in (settings.lake, settings.key_path, settings.beside(".prefect"))
    }
    inside = {file for match in matches or [source] for file in _walk(Path(match), own)}
    if not inside:
        raise SettingsError(f"The folder {source} holds no file; name one with captures.")
    return Group([str(file) for file in sorted(inside)], False)


def _matches(pattern: str) -> list[str]:
    """Returns what a pattern stands for; nothing where a file has that very name."""
    try:
        if pattern == "-" or Path(pattern).exists():
            return []
    except OSError:
        return []  # opening it will say why
    return glob(pattern, recursive=True)  # noqa: PTH207  (the pattern may be absolute)


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
    """Returns the files under a folder, or a file itself, but not what the run writes."""

    def unreadable(error: OSError) -> None:
        raise SettingsError(
            f"The folder {error.filename} cannot be read: {error.strerror}; check its owner and "
            "mode."
        )

    if root.is_file():
        return [] if root.resolve() in own else [root]
    found: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=unreadable):
        here = Path(folder)
        folders[:] = [n for n in folders if n[0] != "." and (here / n).resolve() not in own]
        found += [here / n for n in names if n[0] != "." and (here / n).resolve() not in own]
    return [path for path in found if path.is_file()]


def in_order(groups: list[Group], session: Session) -> list[tuple[Place, bool]]:
    """Looks into archives; returns all sources, and whether each was named itself.

    Sources of a folder, a pattern or an archive come in time order.
    """
    from telemetry.readers import in_time_order, places

    ordered: list[tuple[Place, bool]] = []
    for group in groups:
        found = [place for path in group.paths for place in places(path)]
        named = group.named and len(found) == 1
        ordered += [(place, named) for place in in_time_order(found, session)]
    return ordered


def _ingest_all(
    post: Post, lake: Lake, places: list[tuple[Place, bool]], watch: Progress
) -> list[SourceReport]:
    enter(
        post,
        "run",
        basis=post.authority.terms.basis,
        authority_sha256=post.authority.sha256,
        policy_tag=post.keys.tag(post.homeland.policy_sha256),
        homeland_sha256=post.homeland.table_sha256,
        key_id=post.keys.key_id,
        pseudonyms=post.settings.pseudonyms,
        link_epochs=post.settings.link_epochs,
        sensor=post.settings.sensor,
        decoder=post.settings.decoder,
    )
    reports: list[SourceReport] = []
    waiting: list[SourceReport] = []
    for number, (place, named) in enumerate(places, 1):
        try:
            report = _ingest_one(post, lake, place, (number, len(places)), watch)
        except AuthorityError as ended:
            _stop(post, lake, waiting, len(places) - len(reports))
            raise AuthorityError(
                f"{ended} {len(reports)} of {len(places)} sources were read before."
            ) from None
        report = replace(report, named=named)
        watch.done(report)
        reports.append(report)
        if report.status == "ingested":
            waiting.append(report)
        elif report.status == "refused":
            enter(post, "refused", sha256=report.sha256, reason=report.error)
        if len(waiting) >= COMMIT_SOURCES:
            _commit(post, lake, waiting)
            waiting = []
    _commit(post, lake, waiting)
    statuses = Counter(report.status for report in reports)
    enter(post, "read", **dict(sorted(statuses.items())))
    return reports


def _stop(post: Post, lake: Lake, waiting: list[SourceReport], left: int) -> None:
    """Ends a run whose approval ended: what was read whole before is kept, the rest is not read."""
    _commit(post, lake, waiting)
    lake.merge()
    publish(lake)
    expired = datetime.now(UTC) >= post.authority.terms.valid_until
    enter(post, "stop", why="expired" if expired else "revocation", sources_left=left)


def _ingest_one(
    post: Post, lake: Lake, place: Place, turn: tuple[int, int], watch: Progress
) -> SourceReport:
    from telemetry.readers import find_reader, open_source

    tally = Tally()
    source = None
    name = None
    check_approval(post.settings, post.authority)
    try:
        source = open_source(place, watch.position)
        watch.source(*turn, source.size)
        if _known(post, lake, source):
            return _report(place.name, source, None, Tally(), 0, "already_ingested")
        reader = find_reader(source, post.session)
        name = reader.name
        with lake.source() as staged:
            for batch in reader.read(source, post.session, tally):
                check_approval(post.settings, post.authority)
                if source.is_large and _known(post, lake, source):
                    return _report(place.name, source, None, Tally(), 0, "already_ingested")
                staged.stage(post.gate.admit(batch, tally, reader.gated))
            source.finish()
            rows = staged.rows
            if not staged.accept(_stored(post, source, name, tally, rows)):
                return _report(place.name, source, None, Tally(), 0, "already_ingested")
        report = _report(place.name, source, name, tally, rows, "ingested", tally.damage)
        if staged.period is None:
            return report
        first, last = map(_moment, staged.period)
        return replace(report, first_seen=first, last_seen=last)
    except SourceError as error:
        if source is not None:
            source.identify()
        return _report(place.name, source, name, Tally(), 0, "refused", str(error))
    finally:
        if source is not None:
            source.close()


def _moment(microseconds: int) -> str | None:
    """Returns a time as ISO 8601; None for one that a broken clock put beyond all dates."""
    from telemetry.lists.contract import utc

    try:
        return utc(datetime(1970, 1, 1) + timedelta(microseconds=microseconds))
    except OverflowError:
        return None


def _known(post: Post, lake: Lake, source: Source) -> bool:
    """Tells whether the lake holds a source, as far as its hash is known by now."""
    return source.sha256 is not None and lake.known(source.sha256, post.settings.sensor)


def _stored(post: Post, source: Source, name: str, tally: Tally, rows: int) -> StoredSource:
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
        retention_days=post.authority.terms.retention_days,
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


def _commit(post: Post, lake: Lake, reports: list[SourceReport]) -> None:
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
    enter(post, "ingest", sensor=post.settings.sensor, sources=facts)
    lake.check_key(*post.keys.state())
    lake.commit()
    enter(post, "commit", sources=len(facts))
