"""The card of the scores: what they are for, what they reach, what they miss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from telemetry.scoring.evaluation import by_threshold

_HEAD = """# Endpoint risk

Made by `sekisho model evaluate --card`, on {made}, version {version}; no figure is written by hand.

**What it is for.** It ranks foreign addresses by how much they look like attack infrastructure, so
that an analyst looks at few of them first. It is no proof, and nothing acts by it.

**What it is.** {detectors} detectors, each a visible test with its weight in
`telemetry/scoring/detectors/`; within a role they add up as a noisy-or, and from {threshold:g} on
an address is listed. Nothing is trained. Weights and thresholds have their reasons in the code, but
were chosen by people who had seen the sets below: expect somewhat less elsewhere.

**What it must not be used for.** Domestic hosts: they are not scored. Content: there is none.
Addresses that many share (clouds, CDNs, resolvers): look at the reasons, and at who else is there.
"""


def card(
    answer: Mapping[str, Any], made: date, version: str, detectors: int, threshold: float
) -> str:
    """Returns the card as Markdown.

    Args:
        answer: What `telemetry.scoring.evaluation.evaluate` says, with `unread`, and `views` and
            `field` if the same was also scored otherwise.
        made: The day.
        version: Of Sekisho.
        detectors: How many there are.
        threshold: From which score an address is listed.
    """
    roles = [
        {
            "role": role,
            "found": _of((one["found"], one["positives"])),
            "recall": one["recall"],
            "mean over sets": one["mean_recall_of_sets"],
            "role right": f"{one['right_role']:,}",
            "average precision": one["average_precision"],
            "by novelty": one["average_precision_of_novelty"],
            **{f"{name} records": _of(one["found_by_records"].get(name)) for name in _RECORDS},
            **{f"precision at {b}": p for b, p in answer["precision"][role].items()},
        }
        for role, one in answer["roles"].items()
    ]
    false = (
        f"Harmless addresses listed: {answer['false_positives']} of {answer['harmless']:,}, "
        f"{answer['per_10000']} in 10,000, at most {answer['per_10000_at_most']} (95 %, Clopper "
        "and Pearson). Precision is the least that this bound allows, where so many of all "
        "addresses are bad. By novelty: the average precision if addresses were ranked by how "
        "unlike the others they are, which lists none."
    )
    calibration = [
        {
            "score from": one["score_from"],
            "labelled addresses": one["endpoints"],
            "mean score": one["mean_score"],
            "of these bad": one["share_bad"],
            "": "█" * round(20 * one["share_bad"]),
        }
        for one in answer["calibration"]
    ]
    unread = ", ".join(answer["unread"])
    parts = [
        _HEAD.format(made=made, version=version, detectors=detectors, threshold=threshold),
        "## What is found\n\n" + _table(roles) + "\n\n" + false,
        f"Not read, and so not found: {unread}." if unread else "",
        "## Of addresses with like scores, how many are bad\n\nThe labels are a collection of "
        "attacks: on a border far fewer are bad.\n\n" + _table(calibration),
        "## At other thresholds\n\nFound, and listed of the harmless, if all from a score on were "
        "listed. Set `threshold` by how many false ones there is time to look at.\n\n"
        + _table(by_threshold(answer)),
        _section(answer, "views", "The same records, as poorer sources would have told them"),
        _section(answer, "field", "The same records, by the methods of the field"),
        "## By data set\n\n" + _table(answer["sets"]),
        "## What it misses\n\nA server that was called once or twice leaves nothing to go by. "
        "Exact timers on web ports are what gadgets and monitoring are too: among a thousand "
        "hosts they are not listed by their rhythm alone. A scanner with one try is not listed on "
        "purpose. Relay, spam, download and exfiltration were tried on generated traffic only.",
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


_RECORDS = ("1", "2-4", "5-19", "20+")


def _of(counted: Sequence[int] | None) -> str:
    return "{:,} of {:,}".format(*counted) if counted else ""


def _section(answer: Mapping[str, Any], name: str, title: str) -> str:
    counted = "Found, and listed of the harmless, of those that left a record."
    return f"## {title}\n\n{counted}\n\n{_table(answer[name])}" if name in answer else ""


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "Nothing."
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names)]
    lines += [["" if row.get(n) is None else str(row.get(n)) for n in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
