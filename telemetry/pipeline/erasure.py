"""What is taken out again: late discoveries, and whose time is over."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from telemetry.pipeline.doors import (
    Progress,
    Retained,
    account_for_erasure,
    new_run_id,
    open_lake,
    open_post,
    utc_now,
)
from telemetry.pipeline.results import make_list, make_report, score
from telemetry.roles import needs
from telemetry.settings import Settings

if TYPE_CHECKING:
    from telemetry.lake import Due, Lake, Purge


@needs("operation")
def purge(settings: Settings, progress: Progress | None = None) -> Purge:
    """Classes stored records again under the homeland table that the settings name.

    When any turn out domestic, they are erased, and the remaining endpoints are scored,
    listed and reported anew.

    Returns:
        What went.

    Raises:
        SekishoError: See `ingest`; or there is no lake.
    """
    from telemetry.lake import Lake, Purge

    watch = progress or Progress()
    watch.stage("purge")
    Lake.peek(settings.lake)
    had_list = any((settings.lake / "lists").glob("*"))
    run_id = new_run_id()
    with open_post(settings, run_id) as (post, _):
        purged = post.purged or Purge("", post.homeland.table_sha256)
    if purged.records and had_list:
        score(settings, watch, run_id=run_id)
        make_list(settings, watch, run_id=run_id)
        make_report(settings, watch, run_id=run_id)
    return purged


@needs("operation")
def retention(
    settings: Settings,
    progress: Progress | None = None,
    *,
    run_id: str | None = None,
    at: datetime | None = None,
) -> Retained:
    """Erases what may stay no longer, makes sure that it is gone, and certifies it.

    What is not selected goes `quarantine_days` after its ingestion, what is selected with
    the retention of the approval it came in under. Lists and reports that may show what went
    go too, and are made anew. Killed at any instant, the next run ends what was begun.

    Args:
        settings: Name the lake and the authority.
        progress: Watches.
        run_id: Of the run that this is a part of; a new one without.
        at: The moment as of which it is done, naive UTC; now without.

    Raises:
        AuthorityError: The authority does not cover this.
        LakeError: There is no lake, it cannot be written, or the erasure does not hold.
    """
    watch = progress or Progress()
    watch.stage("retention")
    run_id = run_id or new_run_id()
    now = at or utc_now()
    had_list = any((settings.lake / "lists").glob("*"))
    with open_lake(settings) as (lake, ledger, authority):
        started = time.monotonic()
        erasure = lake.erase(now, settings.quarantine_days)
        retained = account_for_erasure(lake, ledger, erasure, started, authority, run_id)
        _remove_old_papers(lake, now)
        left = lake.counts().records
    if had_list and not any((settings.lake / "lists").glob("*")) and left:
        make_list(settings, watch, run_id=run_id, unscored=True)
        make_report(settings, watch, run_id=run_id, unscored=True)
    return retained


def _remove_old_papers(lake: Lake, now: datetime) -> None:
    """Removes lists and reports that are older than what they show may become."""
    days = lake.retention_days()
    if days is None:
        return
    limit = (now - timedelta(days=days)).replace(tzinfo=UTC).timestamp()
    lake.remove_papers(limit)


@needs("counters")
def retention_due(settings: Settings) -> list[Due]:
    """Returns what a retention run would erase, and when, the first first.

    Raises:
        LakeError: There is no lake.
    """
    from telemetry.lake import Lake

    return Lake.peek_schedule(settings.lake, settings.quarantine_days)
