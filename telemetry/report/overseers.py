"""The overseers' report: an account as one HTML page, or as plain facts for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from telemetry.report import words
from telemetry.report.account import PLACES, Account, Check
from telemetry.report.oversight import ARTICLES, OUTLINED, Oversight
from telemetry.report.page import environment, write_page
from telemetry.report.terms import term
from telemetry.report.words import Language


def write_overseers_report(
    account: Account, oversight: Oversight, made_at: datetime, language: Language, path: Path
) -> None:
    """Writes the page; it runs no script and refers to nothing outside itself.

    Args:
        account: What was added up.
        oversight: What the overseers keep.
        made_at: When, naive UTC.
        language: Of the words.
        path: The file; written aside and renamed, mode 0600.

    Raises:
        LakeError: The file cannot be written; an earlier page stays as it was.
    """
    write_page(render(account, oversight, made_at, language), path)


def render(account: Account, oversight: Oversight, made_at: datetime, language: Language) -> str:
    """Returns the page as text; see `write_overseers_report`."""

    def say(key: str) -> str:
        return term(key, language)

    page = environment()
    page.filters.update(
        term=say,
        drop=lambda label: words.drop(label, language),
        named=lambda check: named(check, language),
        figure=lambda value, unset="not_recorded": say(unset) if value is None else f"{value:,}",
        moment=lambda text: words.minute(datetime.fromisoformat(text)),
    )
    return page.get_template("overseers.html.j2").render(
        account=account,
        oversight=oversight,
        made_at=made_at,
        language=language,
        articles=ARTICLES,
        outlined=OUTLINED,
        places=[(place, account.segments[place]) for place in ("written", *PLACES)],
        reasons=sorted({label for t in account.traffic.values() for label in t.dropped}),
    )


def named(check: Check, language: Language) -> str:
    """Returns what is compared, in words."""
    told = [term(check.name, language)]
    if check.of:
        told.append(term(check.of[0], language))
    told += [words.drop(label, language) for label in check.of[1:]]
    return ": ".join(told)


def facts(account: Account, oversight: Oversight, made_at: datetime) -> dict[str, Any]:
    """Returns the answer of `audit report --json`; None is what nobody recorded."""
    proceedings = {article: oversight.under(article) for article in ARTICLES}
    return {
        "made_at": f"{made_at:%Y-%m-%dT%H:%M:%S}Z",
        "agrees": not account.differences,
        "ledger": {
            "entries": account.entries,
            "anchor": account.anchor,
            "first": account.first,
            "last": account.last,
        },
        "diet": {
            "period_from": _day(oversight.period_from),
            "period_until": _day(oversight.period_until),
            "approval": {
                article: {
                    "requests": found.requests if found else None,
                    "approvals": found.approvals if found else None,
                }
                for article, found in proceedings.items()
            },
        }
        | {kind: _outlines(oversight.outlines(kind)) for kind in OUTLINED},
        "approvals": [asdict(approval) for approval in account.approvals],
        "traffic": {unit: asdict(total) for unit, total in account.traffic.items()},
        "segments": dict(account.segments),
        "oldest_day": _day(account.oldest),
        "acts": dict(account.acts),
        "seconds_to_erase": dict(account.seconds),
        "checks": [
            {
                "name": check.name,
                "of": list(check.of),
                "ledger": check.ledger,
                "lake": check.lake,
                "agrees": check.agrees,
            }
            for check in account.checks
        ],
    }


def _day(day: Any) -> str | None:
    return None if day is None else str(day)


def _outlines(texts: list[str] | None) -> dict[str, Any]:
    return {"number": None if texts is None else len(texts), "outlines": texts or []}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report in plain text; `alarm` where ledger and lake differ."""

    name: str
    value: str
    alarm: bool = False


def sections(
    account: Account, oversight: Oversight, language: Language
) -> list[tuple[str, list[Line]]]:
    """Returns the report in plain text: titles and their lines."""

    def say(key: str) -> str:
        return term(key, language)

    def figure(value: float | None, unset: str = "not_recorded") -> str:
        return say(unset) if value is None else f"{value:,}"

    asked = [(article, oversight.under(article)) for article in ARTICLES]
    told = [(kind, oversight.outlines(kind)) for kind in OUTLINED]
    unequal = [
        Line(
            named(check, language),
            f"{say('by_ledger')} {check.ledger:,}, {say('by_lake')} {check.lake:,}",
            alarm=True,
        )
        for check in account.differences
    ]
    return [
        (
            say("diet"),
            [
                Line(f"{say(article)}: {say(what)}", figure(getattr(found, what, None)))
                for article, found in asked
                for what in ("requests", "approvals")
            ]
            + [
                Line(say(kind), figure(None if found is None else len(found)))
                for kind, found in told
            ],
        ),
        (
            say("used"),
            [Line(a.id, say(a.basis or "not_recorded")) for a in account.approvals],
        ),
        (
            say("traffic"),
            [
                Line(f"{what}, {say(unit)}", f"{number:,}")
                for unit, total in account.traffic.items()
                for what, number in (
                    (say("read"), total.read),
                    *((words.drop(r, language), n) for r, n in sorted(total.dropped.items())),
                    (say("kept"), total.kept),
                )
            ],
        ),
        (
            say("stored"),
            [
                *(Line(say(p), f"{account.segments[p]:,}") for p in ("written", *PLACES)),
                Line(say("oldest"), _day(account.oldest) or say("none")),
            ],
        ),
        (
            f"{say('erasing')} ({say('seconds')})",
            [Line(say(key), figure(value, "none")) for key, value in account.seconds.items()],
        ),
        (say("acts"), [Line(say(key), f"{value:,}") for key, value in account.acts.items()]),
        (say("checks"), unequal or [Line(say("agree"), "")]),
    ]
