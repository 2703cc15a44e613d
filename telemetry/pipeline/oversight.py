"""What overseers and key holders do: the ledger, leakage, keys, re-identification."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from telemetry.errors import (
    AuthorityError,
    KeyFileError,
    LakeBusy,
    LakeError,
    LedgerError,
    SettingsError,
    SourceError,
)
from telemetry.pipeline.doors import (
    NO_LEDGER,
    Progress,
    approval,
    check_approval,
    file_sha256,
    load_homeland,
    new_run_id,
    open_with_key,
    utc_now,
)
from telemetry.pipeline.intake import expand, in_order
from telemetry.records import (
    Tally,
)
from telemetry.roles import needs
from telemetry.settings import Settings

if TYPE_CHECKING:
    from telemetry.homeland import Homeland
    from telemetry.homeland.ranges import HomelandTable
    from telemetry.privacy import VerifyReport
    from telemetry.privacy.leakage import Comparison, Opinion
    from telemetry.privacy.leaks import Searcher
    from telemetry.report import Account, Language
    from telemetry.report.oversight import Oversight


@needs("counters")
def examine_authority(settings: Settings) -> tuple[dict[str, object], AuthorityError | None]:
    """Returns the terms of the authority, and why it does not cover a run now, if it does not.

    Raises:
        AuthorityError: The file or its signature cannot be used.
    """
    from telemetry.privacy import Authority

    authority = Authority.load(settings.authority, settings.overseer_key)
    facts = authority.terms.model_dump(mode="json")
    facts |= {"sha256": authority.sha256, "signed": authority.signed, "sensor": settings.sensor}
    facts["revocations"] = "checked" if settings.revocations else "no list is set"
    try:
        check_approval(settings, authority)
    except AuthorityError as refusal:
        return facts, refusal
    return facts, None


@needs("operation")
def refresh_homeland(
    settings: Settings, sources: Sequence[str], licences: Sequence[str], into: Path
) -> HomelandTable:
    """Makes a homeland table from local files; see `telemetry.homeland.refresh.refresh`."""
    from telemetry.homeland.refresh import refresh

    return refresh(sources, licences, into)


@needs("operation")
def new_key(settings: Settings, path: Path) -> str:
    """Makes a pseudonym key, and returns its id; see `telemetry.privacy.Keys.create`."""
    from telemetry.privacy import Keys

    return Keys.create(path).key_id


@needs("counters")
def verify_ledger(
    settings: Settings, public_key: Path | None = None, anchor: str | None = None
) -> VerifyReport:
    """Checks every entry of the lake's ledger; see `telemetry.privacy.verify`.

    Raises:
        LedgerError: An entry is wrong, or the ledger of a lake with records is empty.
    """
    from telemetry.lake import Lake
    from telemetry.privacy import verify

    noted = Lake.noted_head(settings.lake)  # before the ledger, which may grow meanwhile
    report = verify(settings.lake / "ledger.jsonl", public_key, anchor, noted)
    if report.entries == 0 and Lake.stored_sources(settings.lake):
        raise LedgerError(NO_LEDGER)
    return report


@needs("counters")
def export_ledger(settings: Settings) -> Iterator[bytes]:
    """Yields the lines of the lake's ledger as they are, each one verified.

    Raises:
        LedgerError: The ledger cannot be read, or an entry is wrong; those before it are good.
    """
    from telemetry.privacy import verified

    for _, _, line in verified(settings.lake / "ledger.jsonl"):
        yield line


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The overseers' report.

    Attributes:
        account: What was added up, and whether ledger and lake agree.
        facts: Answer of `audit report --json`.
        proceedings: What the overseers count themselves.
    """

    account: Account
    facts: dict[str, Any]
    proceedings: Oversight


@needs("counters")
def audit_report(
    settings: Settings, page: Path | None = None, language: Language = "en"
) -> AuditReport:
    """Adds up the ledger, compares it with the lake's counters, and reports to the overseers.

    No record is looked at, and nothing is written but the page.

    Args:
        settings: Name the lake, and the file of what overseers count themselves.
        page: Where to write the HTML page, if anywhere.
        language: Of the page.

    Raises:
        LedgerError: The ledger does not verify.
        LakeBusy: A run writes to this lake.
        LakeError: There is no lake, or the page cannot be written.
        SettingsError: The overseers' file is wrong.
    """
    from telemetry.report.overseers import facts, write_overseers_report
    from telemetry.report.oversight import Oversight, read_oversight

    kept = read_oversight(settings.oversight) if settings.oversight else Oversight()
    account, made_at = _account(settings), utc_now()
    if page is not None:
        write_overseers_report(account, kept, made_at, language, page)
    return AuditReport(account, facts(account, kept, made_at), kept)


def _account(settings: Settings) -> Account:
    from telemetry.lake import Lake
    from telemetry.privacy import verified
    from telemetry.report import LakeSide, make_account

    counters = Lake.peek_counters(settings.lake)
    verify_ledger(settings)
    entries = [json.loads(line) for _, _, line in verified(settings.lake / "ledger.jsonl")]
    if Lake.peek_counters(settings.lake) != counters:
        raise LakeBusy("A run has changed the lake meanwhile; ask again.")
    acts = (("purge", counters.purge), ("erasure", counters.erasure))
    pending = [{"kind": kind, "facts": asdict(act) | {kind: act.id}} for kind, act in acts if act]
    side = LakeSide(
        sources=counters.sources,
        scores=counters.scores,
        oldest=counters.oldest,
        segments=counters.segments._asdict(),
        pending=pending,
    )
    try:
        return make_account(entries, side)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise LedgerError(
            "The ledger verifies, but an entry of it does not say what such an entry says; keep "
            "it as evidence and compare it with a copy."
        ) from None


@needs("counters")
def leaks(
    settings: Settings,
    against: Sequence[str],
    also: Sequence[Path] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Searches all that was left behind for what sources hold and nobody may see again.

    The lake, Prefect's state beside it and `also` are searched, every byte of every file, for
    the sources' domestic addresses, MAC addresses, host names, e-mail addresses, pieces of
    payload and file names, and for e-mail addresses of anybody. See `telemetry.privacy.leaks`.

    Args:
        settings: Home, authority, lake.
        against: The sources; they are read again.
        also: Further files and folders, such as logs.
        progress: Watches the reading.

    Returns:
        Counts alone: of what was searched for, and of findings by kind and by file.

    Raises:
        AuthorityError: The authority does not cover this.
        SettingsError: A place or source does not exist.
        SourceError: A source that was named cannot be read.
        LakeError: There is no lake, or a file of it cannot be read.
    """
    from telemetry.lake import Lake
    from telemetry.lake.values import values_of
    from telemetry.privacy import Ledger
    from telemetry.privacy.leaks import Found, search

    authority = approval(settings)
    Lake.peek(settings.lake)
    if any(not place.exists() for place in also):
        raise SettingsError("There is no such file or folder to search; check --also.")
    watch = progress or Progress()
    searcher, refused = _searcher(settings, against, watch)
    places = [place for place in (settings.lake, settings.beside(".prefect")) if place.exists()]
    watch.stage("search")
    by_file, size = search(searcher, [place.resolve() for place in (*places, *also)], values_of)
    total = Found()
    for found in by_file.values():
        total.add(found)
    told = {
        "sources_refused": refused,
        "secrets": len(searcher),
        "bytes_searched": size,
        "found": total.counts.total(),
        "by_kind": dict(sorted(total.counts.items())),
        "by_chance": total.by_chance,
    }
    Ledger(settings.lake / "ledger.jsonl", settings.ledger_key).append(
        "leaks", authority=authority.id, run=new_run_id(), **told
    )
    return told | {"files": {name: dict(f.counts) for name, f in by_file.items() if f}}


def _searcher(settings: Settings, against: Sequence[str], watch: Progress) -> tuple[Searcher, int]:
    """Reads sources for what must not be found; returns how many could not be read, too."""
    from telemetry.homeland import IN_OUT, OUT_IN, OUT_OUT, Border, borderless
    from telemetry.privacy.leaks import Searcher, Secrets
    from telemetry.readers import Session
    from telemetry.readers.traces import Traces

    if "-" in against:
        raise SettingsError("Standard input cannot be read twice; name files.")
    homeland = load_homeland(settings)
    border = Border(borderless(homeland), OUT_IN | IN_OUT | OUT_OUT)
    session = Session(border, "kernel", settings.captures, settings.mapping)
    traces, refused = Traces(), 0
    watch.stage("read")
    for place, named in in_order(expand(settings, against), session):
        try:
            traces.add_source(place, session)
        except SourceError:
            if named:
                raise
            refused += 1
    secrets = Secrets.from_traces(
        homeland, traces.addresses, traces.pairs, traces.words, traces.macs
    )
    return Searcher(secrets).without(_own_text()), refused


def _own_text() -> bytes:
    """Returns the program's own text: what stands there tells nothing of a source."""
    from telemetry.features.catalog import SQL

    package = Path(__file__).parents[1]
    files = [path for root in (package, SQL) for path in sorted(root.rglob("*.*"))]
    kinds = (".py", ".j2", ".css", ".sql", ".yaml")
    own = [p for p in files if p.suffix in kinds and p.parent.name != "samples"]
    return b"\n".join(path.read_bytes() for path in own)


@needs("counters")
def leakage(
    settings: Settings,
    sources: Sequence[str],
    against: Path,
    progress: Progress | None = None,
    *,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Measures leakage and over-drop against a second opinion; stores nothing of a source.

    Args:
        settings: Home, authority, lake.
        sources: What to read; without any, the records of the lake are judged again.
        against: Another homeland table, or a CSV file of `address,class`.
        progress: Watches the reading.
        confidence: Of the upper bounds of the rates.

    Returns:
        Counts of packets (of records for logs and for the lake), and rates. What was
        dropped at ingest was never stored, so that a lake cannot tell of over-drop.

    Raises:
        AuthorityError: The authority does not cover this.
        SettingsError: The second opinion cannot be used.
        SourceError: A source that was named cannot be read.
        LakeError: No source is named, and there is no lake.
    """
    from telemetry.privacy import Ledger
    from telemetry.privacy.leakage import Comparison

    authority = approval(settings)
    homeland = load_homeland(settings)
    comparison = Comparison(homeland, _second_opinion(settings, homeland, against))
    if sources:
        facts = _compare_sources(settings, sources, homeland, comparison, progress or Progress())
        answer = facts | comparison.answer(confidence)
    else:
        comparison.add_stored(_stored_pairs(settings))
        unseen = ("over_drop", "over_drop_per_million", "over_drop_per_million_at_most")
        answer = comparison.answer(confidence) | dict.fromkeys(unseen)
    ledger = settings.lake / "ledger.jsonl"
    if ledger.exists():
        told = ("compared", "untold", "leaks", "over_drop")
        Ledger(ledger, settings.ledger_key).append(
            "leakage",
            authority=authority.id,
            run=new_run_id(),
            homeland_sha256=homeland.table_sha256,
            against_sha256=file_sha256(against),
            **{name: answer[name] for name in told},
        )
    return answer


def _second_opinion(settings: Settings, homeland: Homeland, against: Path) -> Opinion:
    from telemetry.homeland import borderless
    from telemetry.privacy.leakage import read_labels

    try:
        with against.open("rb") as file:
            is_table = file.read(4) == b"PAR1"
    except OSError:
        raise SettingsError(f"{against} cannot be read; check --against.") from None
    if is_table:
        return load_homeland(settings, against)
    return read_labels(against, borderless(homeland))


def _compare_sources(
    settings: Settings,
    sources: Sequence[str],
    homeland: Homeland,
    comparison: Comparison,
    watch: Progress,
) -> dict[str, object]:
    """Reads sources as if there were no border, and judges every packet or record."""
    from telemetry.homeland import IN_OUT, OUT_IN, OUT_OUT, Border, borderless
    from telemetry.readers import Session, find_reader, open_source

    border = Border(borderless(homeland), OUT_IN | IN_OUT | OUT_OUT)
    session = Session(border, settings.decoder, settings.captures, settings.mapping)
    read, refused, dropped = 0, 0, Counter[str]()
    watch.stage("read")
    places = in_order(expand(settings, sources), session)
    for number, (place, named) in enumerate(places, 1):
        tally = Tally()
        try:
            with closing(open_source(place, watch.position)) as source:
                watch.source(number, len(places), source.size)
                reader = find_reader(source, session)
                for batch in reader.read(source, session, tally):
                    comparison.add_batch(batch, of_packets=tally.unit == "packets")
        except SourceError:
            if named:
                raise
            refused += 1
        read += tally.read
        dropped.update(tally.dropped)
    return {"read": read, "sources_refused": refused, "not_compared": dict(sorted(dropped.items()))}


def _stored_pairs(settings: Settings) -> list[tuple[str, str | None, int]]:
    from telemetry.lake import query

    rows = query(
        settings.lake,
        "SELECT endpoint_ip, peer_ip, count(*) AS records FROM stored_records GROUP BY ALL",
        unselected=True,
    ).to_pylist()
    return [(row["endpoint_ip"], row["peer_ip"], row["records"]) for row in rows]


@needs("operation")
def rotate_keys(settings: Settings) -> list[str]:
    """Gives every epoch of the lake's key a new secret from now on.

    Returns:
        The epochs.

    Raises:
        AuthorityError: The authority does not cover this.
        KeyFileError: The key is not this lake's, of version 1, or cannot be written.
        LakeError: There is no lake, or another run holds it.
    """
    with open_with_key(settings) as (lake, ledger, authority, keys):
        keys.check_epoch(None)
        facts = {"authority": authority, "key_id": keys.key_id}
        ledger.append("rotate", **facts, state="begun")
        epochs = keys.rotate()
        lake.check_key(*keys.state())
        ledger.append("rotate", **facts, state="done", epochs=epochs)
    return epochs


@needs("operation")
def destroy_keys(settings: Settings, what: str) -> int:
    """Destroys the secrets of an epoch, or of the whole key file: crypto-erasure.

    Args:
        settings: Name the lake, its key and the authority.
        what: An epoch such as "2026-04" or "linked", or the path of the lake's key file.

    Returns:
        The number of secrets that were destroyed.

    Raises:
        AuthorityError: The authority does not cover this.
        KeyFileError: The key is not this lake's, of version 1, holds no such epoch, or
            cannot be written.
        LakeError: There is no lake, or another run holds it.
    """
    whole = Path(what).resolve() == settings.key_path.resolve()
    with open_with_key(settings) as (lake, ledger, authority, keys):
        keys.check_epoch(None if whole else what)
        facts = {"authority": authority, "key_id": keys.key_id, "epoch": "all" if whole else what}
        ledger.append("destroy", **facts, state="begun")
        destroyed = keys.destroy(None if whole else what)
        lake.check_key(*keys.state())
        ledger.append("destroy", **facts, state="done", secrets=destroyed)
    return destroyed


@needs("operation")
def show_keys(settings: Settings) -> list[dict[str, object]]:
    """Returns the epochs of the lake's key, their generations and whether they live.

    Raises:
        KeyFileError: The key file cannot be read.
    """
    from telemetry.privacy import Keys

    return [
        {
            "epoch": secret.epoch,
            "generation": secret.generation,
            "state": "destroyed" if secret.value is None else "living",
        }
        for secret in Keys.load(settings.key_path).secrets()
    ]


@needs("operation")
def reidentify(settings: Settings, pid: str, reason: str) -> dict[str, object]:
    """Turns a host's pseudonym back into its address, for the caller's eyes alone.

    The ledger is written before anything is told, whatever comes of it.

    Args:
        settings: Name the lake, its key and the authority.
        pid: The pseudonym, as it stands in the records.
        reason: Why, in words; it stands in the ledger.

    Returns:
        The address, its epoch, and until when it may be used.

    Raises:
        AuthorityError: The authority does not cover this, or does not allow it.
        SettingsError: The pseudonym or the reason is none.
        PrivacyError: The reason holds an address.
        KeyFileError: The key is not this lake's, or the secret was destroyed.
        LakeError: There is no lake, or no record has this pseudonym.
    """
    from telemetry.lake import query
    from telemetry.privacy.reidentify import check_request, reverse

    check_request(pid, reason)
    with open_with_key(settings, "re_identification") as (lake, ledger, authority, keys):
        sql = (
            "SELECT DISTINCT strftime(first_seen, '%Y-%m') AS epoch, peer_net_pid AS net "
            f"FROM stored_records WHERE peer_pid = '{pid}' ORDER BY ALL"
        )
        seen = [(row["epoch"], row["net"]) for row in query(settings.lake, sql).to_pylist()]
        found = reverse(keys, lake.meta.pseudonyms, pid, seen)
        outcome = "found" if found else "key destroyed" if seen else "no record"
        expires = datetime.now(UTC) + timedelta(hours=settings.reidentify_hours)
        ledger.append(
            "reidentify",
            authority=authority,
            pid_sha256=hashlib.sha256(pid.encode()).hexdigest(),
            reason=reason,
            outcome=outcome,
            expires=f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        )
    if not seen:
        raise LakeError("No record in the lake has this pseudonym; check it and --lake.")
    if found is None:
        raise KeyFileError(
            f"The key of epoch {seen[0][0]} was destroyed: nobody can turn this pseudonym back."
        )
    address, epoch = found
    return {
        "address": address,
        "epoch": epoch,
        "authority": authority,
        "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
    }


@needs("counters")
def examine(settings: Settings) -> dict[str, object]:
    """Returns what an installation is made of and what it reads.

    Raises:
        AuthorityError: The authority does not cover a run now.
        SettingsError: The homeland table is missing or broken.
    """
    import platform
    from importlib.metadata import version

    from telemetry.readers.formats import names

    homeland = load_homeland(settings)
    packages = ("duckdb", "numba", "numpy", "polars", "prefect", "pyarrow", "scikit-learn")
    return {
        "python": platform.python_version(),
        "packages": [f"{name} {version(name)}" for name in packages],
        "homeland_table": homeland.table_sha256,
        "formats": names("format"),
        "containers": names("container"),
        "link_types": names("link type"),
        "encapsulations": names("encapsulation"),
        "lake": str(settings.lake) if settings.lake.exists() else f"{settings.lake} (not made yet)",
        "key": f"{settings.key_path}{'' if settings.key_path.exists() else ' (not made yet)'}",
        "authority": f"{approval(settings).id}, covers sensor {settings.sensor} now",
    }
