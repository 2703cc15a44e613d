"""What comes out of a lake: scores, lists, the report, answers to questions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telemetry.errors import (
    PrivacyError,
    Refused,
    SettingsError,
)
from telemetry.pipeline.doors import (
    Progress,
    acquired_under,
    add_up,
    approval,
    class_again,
    file_sha256,
    load_homeland,
    new_run_id,
    open_lake,
    publish,
    utc_now,
)
from telemetry.records import (
    endpoint_json,
)
from telemetry.roles import needs
from telemetry.settings import ASSETS, Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from telemetry.homeland import Homeland
    from telemetry.scoring.scores import Ranking, Scores
    from telemetry.scoring.selection import Rules

COURSE: Final = 60
"""Parts of the time of an endpoint: as many as fit a terminal's line."""


@needs("operation")
def score(
    settings: Settings, progress: Progress | None = None, *, run_id: str | None = None
) -> Ranking:
    """Scores every endpoint in the lake, stores the scores, and selects by rules.

    Returns:
        All endpoints, highest score first.

    Raises:
        AuthorityError: The authority does not cover this, or does not sign the rules.
        SettingsError: The rules cannot be used.
        LakeError: There is no lake, or it cannot be written.
    """
    from telemetry import scoring
    from telemetry.features import endpoint_parts, split_cores
    from telemetry.scoring.scores import Ranking, Scores

    watch = progress or Progress()
    watch.stage("score")
    run_id = run_id or new_run_id()
    rules = _selection_rules(settings)
    with open_lake(settings) as (lake, ledger, authority):
        lake.merge()
        publish(lake)
        now = utc_now()
        until = now + timedelta(days=lake.retention_days() or 0)
        endpoints = 0
        listed: list[pa.Table] = []

        def scored(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
            nonlocal endpoints
            for part in parts:
                scores = scoring.score(part, settings.threshold)
                endpoints += len(scores)
                listed.append(scores.listed.table)
                yield scores.table
            watch.stage("select")

        workers, threads = split_cores(os.cpu_count() or 1)
        records = settings.budget.records
        with (
            lake.work(settings.budget.engine, threads) as connection,
            closing(endpoint_parts(connection, records, lake.scratch, workers)) as parts,
        ):
            [(between_foreign,)] = connection.sql(
                "SELECT coalesce(count(peer_ip) / nullif(count(*), 0), 0) FROM stored_records"
            ).fetchall()
            chosen, moved = lake.select(
                scored(parts),
                lambda table: scoring.select(Scores(table), rules, now, until),
                run_id,
            )
        publish(lake)
        ranking = Ranking(
            endpoints,
            Scores.ranked(listed),
            between_foreign,
            partial(_ranked, settings.lake, settings.budget.engine),
        )
        ledger.append(
            "score",
            run=run_id,
            authority=authority,
            threshold=settings.threshold,
            endpoints=len(ranking),
            listed=len(ranking.listed),
        )
        ledger.append(
            "selection",
            run=run_id,
            authority=authority,
            rules=rules.version,
            rules_sha256=rules.sha256,
            endpoints=chosen,
            records=moved,
        )
    return ranking


def _ranked(lake: Path, memory: str) -> Iterator[pa.Table]:
    from telemetry.lake import stream

    order = "FROM scores ORDER BY score DESC, endpoint"
    yield from stream(lake, order, memory=memory, unselected=True)


def _selection_rules(settings: Settings) -> Rules:
    from telemetry import scoring
    from telemetry.privacy import verify_file

    path = settings.selection_rules or ASSETS / "data" / "selection" / "rules.toml"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"The selection rules {path} cannot be read: {error.strerror}; check the setting "
            "selection_rules."
        ) from None
    if settings.overseer_key is not None and settings.selection_rules is not None:
        verify_file(path, data, settings.overseer_key, f"The file of selection rules {path}")
    return scoring.read_rules(data)


@needs("records")
def query(settings: Settings, sql: str, reason: str | None = None) -> pa.Table:
    """Answers one reading statement on the records of selected endpoints.

    Args:
        settings: Name the lake and the authority.
        sql: The statement.
        reason: Why records that are not selected must be seen too; without it they are not.
            It stands in the ledger before anything is told.

    Raises:
        AuthorityError: The authority does not allow to see unselected records.
        PrivacyError: The reason holds an address.
        LakeError: There is no catalog.
        Refused: The statement is wrong, or does something else than read.
    """
    from telemetry.lake import query as ask

    if reason is None:
        return ask(settings.lake, sql)
    approval(settings).require("unselected_records")
    with open_lake(settings) as (_, ledger, authority):
        ledger.append(
            "unselected",
            authority=authority,
            run=new_run_id(),
            reason=reason,
            sql_sha256=hashlib.sha256(sql.encode()).hexdigest(),
        )
    return ask(settings.lake, sql, unselected=True)


@needs("records")
def read_scores(settings: Settings, *, unselected: bool = False) -> Scores:
    """Returns the newest scores in the lake, highest first.

    Args:
        settings: Name the lake.
        unselected: Whether those of unselected endpoints too; nobody may be shown them.

    Raises:
        LakeError: There is no lake.
    """
    from telemetry.lake import query
    from telemetry.scoring.scores import Scores

    return Scores.ranked([query(settings.lake, "FROM scores", unselected=unselected)])


@needs("records")
def explain(settings: Settings, endpoint: str) -> dict[str, Any]:
    """Tells all that the lake holds on a selected endpoint: score, reasons, services, course.

    Args:
        settings: Name the lake.
        endpoint: Its address, in any spelling.

    Returns:
        The endpoint as in `score --json`; `expired`, whether the newest list leaves it out as it
        was last seen long ago; `services`, for each protocol, port and opener the
        records, peers, and bytes that the endpoint sent and got; `peers`, the same for each
        other end, by its pseudonym if it is inside; `course`, how many records began in each of
        `COURSE` equal parts of the time between first and last.

    Raises:
        SettingsError: This is no address.
        Refused: No selected endpoint has it; whether another has is not told.
        LakeError: There is no lake.
    """
    from telemetry.lists import is_left_out

    try:
        address = ip_address(endpoint.strip())
    except ValueError:
        raise SettingsError("That is no address; give one of the list.") from None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    name = str(mapped or address)
    # An address in its usual spelling holds nothing that SQL could take for something else.
    seen = f"(SELECT * FROM contacts WHERE endpoint_ip = '{name}')"
    scores = read_scores(settings)
    if not len(scores):
        raise Refused("No endpoint is selected; run `sekisho score` first, if nobody has.")
    found = scores.of_address(name)
    if not found:
        raise Refused(
            "No selected endpoint has that address; `sekisho list` names them. Of others, whether "
            "they were seen and how they scored, nothing is told."
        )
    services = query(
        settings,
        f"""
        SELECT
            c.protocol, c.service_port AS port, coalesce(s.name, '') AS service,
            if(c.from_endpoint, 'endpoint', 'peer') AS opened_by,
            count(*) AS records,
            count(DISTINCT c.peer) AS peers,
            sum(c.endpoint_bytes)::BIGINT AS sent_bytes,
            sum(c.peer_bytes)::BIGINT AS got_bytes,
            min(c.first_seen) AS first_seen,
            max(c.last_seen) AS last_seen
        FROM {seen} AS c
        LEFT JOIN services AS s ON s.protocol = c.protocol AND s.port = c.service_port
        GROUP BY ALL
        ORDER BY records DESC, c.protocol, port, opened_by
        """,
    )
    peers = query(
        settings,
        f"""
        SELECT
            peer,
            if(any_value(peer_is_domestic), 'inside', 'foreign') AS side,
            count(*) AS records,
            sum(endpoint_bytes)::BIGINT AS sent_bytes,
            sum(peer_bytes)::BIGINT AS got_bytes,
            max(sampling_rate) AS sampling_rate,
            min(first_seen) AS first_seen,
            max(last_seen) AS last_seen
        FROM {seen}
        GROUP BY peer
        ORDER BY records DESC, peer
        """,
    )
    course = query(
        settings,
        f"""
        WITH starts AS (SELECT epoch_us(first_seen) AS began FROM {seen}),
        ends AS (SELECT min(began) AS low, max(began) AS high FROM starts)
        SELECT
            least((began - low) * {COURSE} // greatest(high - low, 1), {COURSE - 1}) AS part,
            count(*) AS records
        FROM starts, ends
        GROUP BY part
        """,
    )
    parts = dict(zip(course["part"].to_pylist(), course["records"].to_pylist(), strict=True))
    return {
        **endpoint_json(found[0]),
        "expired": is_left_out(settings.lake / "lists", found[0].last_seen),
        "services": services.to_pylist(),
        "peers": peers.to_pylist(),
        "course": [parts.get(part, 0) for part in range(COURSE)],
    }


@needs("operation")
def make_list(
    settings: Settings,
    progress: Progress | None = None,
    *,
    run_id: str | None = None,
    unscored: bool = False,
) -> tuple[Scores, list[Path]]:
    """Writes the list of the newest scores in every format.

    Args:
        settings: Name the lake and its home.
        progress: Watches.
        run_id: Of the run that this is a part of; a new one without.
        unscored: Whether records without any score are no reason to refuse, as after an erasure.

    Returns:
        The listed endpoints, highest score first, and the files.

    Raises:
        AuthorityError: The authority does not cover this.
        LakeError: There is no lake, or it cannot be written.
        Refused: Nothing was scored, so that an empty list would look like an all-clear.
        PrivacyError: The settings name another home than the lake's, or an entry is
            domestic; nothing was written then.
    """
    from telemetry.homeland import FOREIGN
    from telemetry.lake import Lake, query
    from telemetry.lists import ListHeader, write_lists
    from telemetry.privacy import Keys
    from telemetry.scoring.scores import Scores

    watch = progress or Progress()
    watch.stage("list")
    homeland = load_homeland(settings)
    meta = Lake.peek(settings.lake)
    if meta.policy_tag != Keys.load(settings.key_path).tag(homeland.policy_sha256):
        raise PrivacyError(
            "The lake was filled for another home, so nothing may leave it; "
            "give the same --country and --home as at ingest."
        )
    run_id = run_id or new_run_id()
    with open_lake(settings) as (lake, ledger, authority):
        if not unscored:
            _check_scored(settings)
        class_again(lake, ledger, homeland, authority, run_id)
        listed = Scores.ranked([query(settings.lake, "FROM scores WHERE listed", unselected=True)])
        addresses = listed.table["endpoint"].to_pylist()
        listed = listed.where([_is_somebody(homeland, address) for address in addresses])
        files = write_lists(
            listed,
            settings.lake / "lists",
            ListHeader(
                run=run_id,
                made_at=_newest(settings, utc_now()),
                authority=acquired_under(lake),
                days=settings.list_days,
            ),
            forbidden=lambda address: homeland.class_of_text(address) != FOREIGN,
        )
        ledger.append(
            "export",
            run=run_id,
            authority=authority,
            entries=len(listed),
            manifest_sha256=file_sha256(files[-1]),
        )
    return listed, files


def _check_scored(settings: Settings) -> None:
    """Refuses a lake with records and no score."""
    from telemetry.lake import query

    sql = "SELECT EXISTS (FROM stored_records) AND NOT EXISTS (FROM scores) AS unscored"
    if query(settings.lake, sql, unselected=True)["unscored"][0].as_py():
        raise Refused("Nothing that this lake holds was scored; run `sekisho score` first.")


def _newest(settings: Settings, now: datetime) -> datetime | None:
    """Returns when the lake's newest record ended, those of broken clocks left out."""
    from telemetry.lake import query

    sql = f"SELECT max(last_seen) AS t FROM scores WHERE last_seen <= TIMESTAMP '{now}'"
    newest: datetime | None = query(settings.lake, sql, unselected=True)["t"][0].as_py()
    return newest


def _is_somebody(homeland: Homeland, address: str) -> bool:
    """Whether an address is given to anybody; another table may have said so at ingest."""
    from telemetry.homeland import UNALLOCATED

    return homeland.class_of_text(address) != UNALLOCATED


@needs("records")
def make_report(
    settings: Settings,
    progress: Progress | None = None,
    *,
    run_id: str | None = None,
    unscored: bool = False,
) -> Path:
    """Writes the HTML report of all sources and the newest scores.

    Args:
        settings: Name the lake.
        progress: Watches.
        run_id: Of the run that this is a part of; a new one without.
        unscored: As for `make_list`.

    Returns:
        The file.

    Raises:
        AuthorityError: The authority does not cover this.
        LakeError: There is no lake, or it cannot be written.
        Refused: Nothing was scored.
    """
    from telemetry.lake import query
    from telemetry.lists import count_left_out
    from telemetry.report import Hour, ReportFacts, SourceFacts, write_report

    watch = progress or Progress()
    watch.stage("report")
    endpoints = read_scores(settings)
    run_id = run_id or new_run_id()
    with open_lake(settings) as (lake, ledger, authority):
        if not unscored:
            _check_scored(settings)
        sources = lake.sources()
        facts = ReportFacts(
            run=run_id,
            authority=acquired_under(lake),
            made_at=utc_now(),
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
            packets=add_up(sources, "packets"),
            records=add_up(sources, "records"),
            n_records=lake.counts().records,
            n_endpoints=_count_scores(settings),
            endpoints=endpoints,
            timeline=[
                Hour(row["hour"], row["records"], row["listed"])
                for row in query(settings.lake, _TIMELINE, unselected=True).to_pylist()
            ],
            left_out=count_left_out(settings.lake / "lists"),
        )
        path = settings.lake / "reports" / "report.html"
        write_report(facts, path)
        ledger.append("report", run=run_id, authority=authority, sha256=file_sha256(path))
    return path


_TIMELINE = """
SELECT date_trunc('hour', r.first_seen) AS hour, count(*) AS records,
       count(*) FILTER (s.listed) AS listed
FROM records r LEFT JOIN scores s ON s.endpoint = r.endpoint_ip
GROUP BY ALL ORDER BY hour
"""


def _period(settings: Settings) -> tuple[datetime, datetime] | None:
    from telemetry.lake import query

    row = query(
        settings.lake,
        "SELECT min(first_seen) AS a, max(last_seen) AS b FROM stored_records",
        unselected=True,
    ).to_pylist()[0]
    return (row["a"], row["b"]) if row["a"] is not None else None


def _count_scores(settings: Settings) -> int:
    from telemetry.lake import query

    sql = "SELECT count(*) AS n FROM scores"
    return int(query(settings.lake, sql, unselected=True)["n"][0].as_py())
