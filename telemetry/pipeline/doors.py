"""The doors: approval, homeland, keys, lake and ledger, opened in the order of who may refuse."""

from __future__ import annotations

import hashlib
import os
import resource
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from telemetry.errors import (
    KeyFileError,
    LakeError,
    LedgerError,
    SettingsError,
)
from telemetry.records import (
    SourceReport,
)
from telemetry.roles import needs
from telemetry.settings import Settings

if TYPE_CHECKING:
    from telemetry.homeland import Homeland
    from telemetry.lake import Erasure, Lake, Purge, StoredSource
    from telemetry.privacy import Authority, Gate, Keys, Ledger
    from telemetry.privacy.authority import FurtherPurpose
    from telemetry.readers import Session
    from telemetry.report import Totals


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
class Retained:
    """What came of a retention run.

    Attributes:
        erased: What went.
        certificate: The certificate's file.
        facts: What it says.
    """

    erased: Erasure
    certificate: Path
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Post:
    """Everything a barrier needs: who may pass, under which name, on whose approval."""

    settings: Settings
    homeland: Homeland
    authority: Authority
    keys: Keys
    gate: Gate
    ledger: Ledger
    session: Session
    run: str
    purged: Purge | None


def new_run_id() -> str:
    """Returns an id for a run: when it began, and a random end."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


@contextmanager
def open_post(settings: Settings, run_id: str) -> Iterator[tuple[Post, Lake]]:
    """Opens everything a run that writes needs, in the order of who may refuse it."""
    from telemetry.homeland import Border
    from telemetry.lake import Lake
    from telemetry.privacy import Gate, Ledger
    from telemetry.readers import Session

    authority = approval(settings)
    homeland = load_homeland(settings)
    ledger = Ledger(settings.lake / "ledger.jsonl", settings.ledger_key)
    keys = _load_keys(settings)
    border = Border(homeland, authority.allowed_mask)
    tag = keys.tag(homeland.policy_sha256)
    with Lake.create_or_open(
        settings.lake,
        policy_tag=tag,
        key_id=keys.key_id,
        pseudonyms=settings.pseudonym_kind,
        buffer_rows=settings.budget.segments,
    ) as lake:
        _settle(lake, ledger, authority.id)
        lake.check_key(*keys.state())
        purged = class_again(lake, ledger, homeland, authority.id, run_id)
        gate = Gate(border, keys, settings.sensor, settings.pseudonyms, settings.link_epochs)
        session = Session(
            border,
            settings.decoder,
            settings.captures,
            settings.mapping,
            settings.budget.flows,
        )
        post = Post(settings, homeland, authority, keys, gate, ledger, session, run_id, purged)
        yield post, lake


def approval(settings: Settings) -> Authority:
    """Returns the authority, if it covers what is done now, which is confined from here on."""
    from telemetry.privacy import Authority

    _confine(settings.lake)
    authority = Authority.load(settings.authority, settings.overseer_key)
    check_approval(settings, authority)
    return authority


def _confine(lake: Path) -> None:
    """Keeps what this process and its programs hold off every disk but the lake's own folder."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    os.environ["TMPDIR"] = str(lake.resolve() / "tmp")


def check_approval(settings: Settings, authority: Authority) -> None:
    """Refuses an authority that does not cover what is done now, or was revoked."""
    from telemetry.privacy import check_not_revoked

    now = datetime.now(UTC)
    authority.check(settings.sensor, now)
    if settings.revocations is not None:
        check_not_revoked(authority, now, settings.revocations, settings.overseer_key)


@needs("counters")
def load_homeland(settings: Settings, table: Path | None = None) -> Homeland:
    """Loads what is domestic by the settings, from another table when one is given."""
    from telemetry.homeland import SHIPPED, load

    return load(
        settings.country,
        settings.home,
        policy=settings.home_policy,
        path=table or settings.homeland or SHIPPED,
    )


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


def enter(post: Post, kind: str, **facts: object) -> None:
    """Enters an act of the run in the ledger."""
    post.ledger.append(kind, authority=post.authority.id, run=post.run, **facts)


def publish(lake: Lake) -> None:
    """Builds the catalog anew, with all views of sql/."""
    from telemetry.features import shown

    lake.build_catalog(shown())


NO_LEDGER = (
    "The lake holds records but its ledger is missing or empty; restore ledger.jsonl from a copy."
)


def _settle(lake: Lake, ledger: Ledger, authority: str) -> None:
    """Settles in the ledger what a crash left open, so that its counts add up.

    Raises:
        LedgerError: The lake holds sources, but its ledger is gone or cut short.
    """
    last = ledger.last()
    if last is None and lake.counts().sources:
        raise LedgerError(NO_LEDGER)
    ledger.follow(lake.ledger_head(), lake.note_ledger)
    left = lake.open_erasure
    if left is not None:
        account_for_erasure(lake, ledger, left, time.monotonic(), authority, new_run_id())
    if last is None:
        return
    facts = last["facts"]
    kind = last["kind"]
    if kind in ("rotate", "destroy") and facts["state"] == "begun":
        ledger.append(kind, **facts | {"authority": authority, "state": "interrupted"})
    if kind != "ingest":
        return
    stored = lake.known(facts["sources"][0]["sha256"], facts["sensor"])
    ledger.append(
        "commit" if stored else "abandoned",
        authority=authority,
        run=facts["run"],
        sources=len(facts["sources"]),
    )


def class_again(
    lake: Lake, ledger: Ledger, homeland: Homeland, authority: str, run: str
) -> Purge | None:
    """Purges what another homeland table than the lake's calls domestic, and accounts for it.

    Killed at any instant, the next run goes on where this one stopped. Records that no
    table gives to anybody stay: they are not known to be domestic, and no list holds them.

    Returns:
        What went, or None when the lake was classed under this table already.
    """
    import numpy as np

    from telemetry.homeland import DOMESTIC, SPECIAL

    left = lake.open_purge
    if left is not None:
        _erase(lake, ledger, left, time.monotonic(), authority, run)
    if lake.homeland == homeland.table_sha256:
        return left
    if not lake.counts().sources:
        lake.adopt(homeland.table_sha256)
        return None
    started = time.monotonic()
    purge = lake.purge(
        lambda hi, lo: np.isin(homeland.classify(hi, lo), (DOMESTIC, SPECIAL)),
        homeland.table_sha256,
    )
    _erase(lake, ledger, purge, started, authority, run)
    return purge


def _erase(
    lake: Lake, ledger: Ledger, purge: Purge, started: float, authority: str, run: str
) -> None:
    """Erases what a purge took out from the disk, and enters it in the ledger, once."""
    publish(lake)
    lake.erase_replaced(shown=bool(purge.records or purge.scores))
    if not _entered(ledger, "purge", purge.id):
        facts = asdict(purge)
        facts |= {"purge": facts.pop("id"), "homeland_sha256": facts.pop("homeland")}
        seconds = round(time.monotonic() - started, 3)
        ledger.append("purge", authority=authority, run=run, **facts, seconds=seconds)
    lake.end_purge()


def _entered(ledger: Ledger, fact: str, value: str) -> bool:
    """Whether a fact stands in one of the last entries: others may write meanwhile."""
    return any(entry["facts"].get(fact) == value for entry in ledger.newest())


@contextmanager
def open_lake(
    settings: Settings, purpose: FurtherPurpose | None = None
) -> Iterator[tuple[Lake, Ledger, str]]:
    """Opens an existing lake for work on records that have passed the gate already.

    Args:
        settings: Name the lake, the ledger's key and the authority.
        purpose: What the authority must allow besides, if anything.

    Yields:
        The lake, its ledger, and the id of the authority under which the work is done.
    """
    from telemetry.lake import Lake
    from telemetry.privacy import Ledger

    authority = approval(settings)
    if purpose is not None:
        authority.require(purpose)
    meta = Lake.peek(settings.lake)
    with Lake.create_or_open(
        settings.lake,
        policy_tag=meta.policy_tag,
        key_id=meta.key_id,
        pseudonyms=meta.pseudonyms,
    ) as lake:
        ledger = Ledger(settings.lake / "ledger.jsonl", settings.ledger_key)
        _settle(lake, ledger, authority.id)
        yield lake, ledger, authority.id


@contextmanager
def open_with_key(
    settings: Settings, purpose: FurtherPurpose | None = None
) -> Iterator[tuple[Lake, Ledger, str, Keys]]:
    """Opens an existing lake together with its key.

    Raises:
        KeyFileError: The key is another one's, or an older copy.
    """
    from telemetry.privacy import Keys

    with open_lake(settings, purpose) as (lake, ledger, authority):
        keys = Keys.load(settings.key_path)
        if keys.key_id != lake.meta.key_id:
            raise KeyFileError(
                "The lake was filled with another pseudonym key; give its key file with --key."
            )
        lake.check_key(*keys.state())
        yield lake, ledger, authority, keys


def acquired_under(lake: Lake) -> str:
    """Returns the authorities under which the records of a lake came in."""
    return ", ".join(sorted({source.authority for source in lake.sources()})) or "none"


def utc_now() -> datetime:
    """Returns the time, UTC without a zone, as records store it."""
    return datetime.now(UTC).replace(tzinfo=None)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def account_for_erasure(
    lake: Lake, ledger: Ledger, erasure: Erasure, started: float, authority: str, run: str
) -> Retained:
    """Removes what an erasure took out from the disk, verifies, certifies, enters it once."""
    publish(lake)
    lake.erase_replaced(shown=bool(erasure.selected or erasure.deselected))
    now = datetime.fromisoformat(erasure.at)
    left = lake.leftovers(now, erasure.quarantine_days)
    balance = lake.balance()
    sources = lake.sources()
    totals = {unit: add_up(sources, unit) for unit in ("packets", "records")}
    holds = balance.holds and not any(left.values()) and all(t.balances for t in totals.values())
    facts: dict[str, Any] = {
        "certificate": erasure.id,
        "authority": authority,
        "run": run,
        "erased_as_of": f"{erasure.at}Z",
        "terms": {
            "quarantine_days": erasure.quarantine_days,
            "retention_days": lake.retention_days(),
        },
        "erased": asdict(erasure),
        "left": left,
        "segments": balance._asdict(),
        "sources": {unit: asdict(total) for unit, total in totals.items()},
        "holds": holds,
    }
    path = lake.certificate(erasure.id)
    if not _entered(ledger, "erasure", erasure.id):
        lake.write_certificate(path, facts)
        told = asdict(erasure)
        ledger.append(
            "erasure",
            authority=authority,
            run=run,
            erasure=told.pop("id"),
            **told,
            segments=balance._asdict(),
            holds=holds,
            certificate_sha256=file_sha256(path),
            seconds=round(time.monotonic() - started, 3),
        )
    lake.end_erasure()
    if not holds:
        raise LakeError(
            f"The erasure {erasure.id} does not hold: its certificate shows what is left or does "
            "not balance; keep the lake as it is and have it inspected."
        )
    return Retained(erasure, path, facts)


def add_up(sources: Sequence[StoredSource], unit: str) -> Totals:
    """Adds up the sources of which packets, or records, are counted."""
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
