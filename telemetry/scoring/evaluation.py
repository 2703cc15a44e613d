"""How well scores agree with labels: what is found, and at the price of how many false ones.

A label names an address of one data set: what it is used for, or that it is harmless
(`HARMLESS`). Found is what is listed, under whatever role; the right role is counted apart, and
a reflector counts as a source of DDoS. A labelled address of which there is no record was not
found. Addresses without a label are unknown, not harmless: they count nowhere.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from telemetry.errors import SettingsError
from telemetry.records import ScoredEndpoint

BEACON: Final = "beacon"
HARMLESS: Final = frozenset({"benign", "victim", "spoofed"})
"""Roles of addresses that must not be listed: the last two stand for whom bots at home attack,
and for forged sources."""
BASE_RATES: Final = (1e-3, 1e-4)
"""Shares of bad endpoints among all, at which precision is told: that of a border is far from
that of a collection of attacks (Wails et al., NDSS 2024)."""
THRESHOLDS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Scores from which an endpoint might be listed, to choose from."""
FALSE_POSITIVES: Final = (1, 10, 100, 1000)
"""Harmless pairs in 10,000 that may score higher."""
LEVEL: Final = 0.95
_BY_RECORDS: Final = ((1, "1"), (4, "2-4"), (19, "5-19"), (10**12, "20+"))
_BINS: Final = 5
_MANDATORY: Final = ("dataset", "home_prefixes", "foreign_ip", "role", "confidence", "file")
_KNOWN: Final = {*_MANDATORY, "evidence", "flows"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_SAME: Final = {"reflector": "ddos"}


@dataclass(frozen=True, slots=True)
class Label:
    """What an address of a data set is.

    Attributes:
        dataset: Name of the data set.
        endpoint: The address, in its usual spelling.
        role: What it is used for, or one of `HARMLESS`.
        inferred: Whether nobody saw it but somebody concluded it.
    """

    dataset: str
    endpoint: str
    role: str
    inferred: bool


@dataclass(frozen=True, slots=True)
class DataSet:
    """What is read as one network's view.

    Attributes:
        name: Its name, fit for a folder.
        home: Domestic prefixes; none: those of the settings.
        files: Files and folders below the corpus.
    """

    name: str
    home: tuple[str, ...]
    files: tuple[str, ...]


def read_labels(data: bytes) -> tuple[list[DataSet], list[Label]]:
    """Reads a table of labels.

    Args:
        data: CSV with the columns dataset, home_prefixes (parted by `;`, or empty),
            foreign_ip, role, confidence and file; evidence and flows are not looked at.

    Raises:
        SettingsError: A column is missing or unknown, or a value makes no sense.
    """
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8")))
        names = set(rows.fieldnames or ())
        if missing := [name for name in _MANDATORY if name not in names]:
            raise SettingsError(f"The labels lack the columns {', '.join(missing)}; add them.")
        if names - _KNOWN:
            raise SettingsError("The labels have a column that no label has; take it out.")
        homes: dict[str, dict[str, None]] = {}
        files: dict[str, dict[str, None]] = {}
        labels: dict[Label, None] = {}
        for row in rows:
            name = row["dataset"]
            if not _NAME.fullmatch(name):
                raise SettingsError("A data set's name is no name of a folder; correct it.")
            home = [prefix for prefix in row["home_prefixes"].split(";") if prefix]
            homes.setdefault(name, {}).update(dict.fromkeys(home))
            files.setdefault(name, {})[row["file"]] = None
            role = row["role"].replace("-", "_")
            address = _canonical(row["foreign_ip"])
            labels[Label(name, address, role, row["confidence"] == "inferred")] = None
    except (UnicodeDecodeError, csv.Error, ValueError, AttributeError):
        raise SettingsError("The labels are no table of addresses; mend them.") from None
    sets = [DataSet(name, tuple(homes[name]), tuple(files[name])) for name in sorted(homes)]
    return sets, list(labels)


def united(sets: Iterable[DataSet]) -> list[DataSet]:
    """Returns the data sets by name; what several tables say of one is put together."""
    merged: dict[str, DataSet] = {}
    for one in sets:
        known = merged.get(one.name, one)
        merged[one.name] = DataSet(
            one.name,
            tuple(dict.fromkeys((*known.home, *one.home))),
            tuple(dict.fromkeys((*known.files, *one.files))),
        )
    return [merged[name] for name in sorted(merged)]


def _canonical(text: str) -> str:
    address = ip_address(text.strip())
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def evaluate(
    results: Mapping[str, Sequence[ScoredEndpoint]], labels: Iterable[Label]
) -> dict[str, Any]:
    """Compares scores with labels; inferred labels are left out.

    Args:
        results: The scored endpoints of each data set.
        labels: Of these data sets, and maybe of others.

    Returns:
        Plain facts: `roles` and `sets` with counts and shares, `false_positives` among the
        harmless with its rate per 10,000 and an exact upper bound, `precision` at base rates,
        `calibration`, and `thresholds`: what would be found from other scores on.
    """
    scored = {name: {_canonical(e.endpoint): e for e in found} for name, found in results.items()}
    judged = [label for label in labels if not label.inferred and label.dataset in scored]
    pairs = [(label, scored[label.dataset].get(label.endpoint)) for label in judged]
    harmless = [(label, found) for label, found in pairs if label.role in HARMLESS]
    bad = [(label, found) for label, found in pairs if label.role not in HARMLESS]
    false = sum(found.listed for _, found in harmless if found)
    rate = false / len(harmless) if harmless else None
    at_most = upper_bound(false, len(harmless))
    roles = {role: _role(role, bad, harmless) for role in sorted({label.role for label, _ in bad})}
    return {
        "roles": roles,
        "harmless": len(harmless),
        "harmless_seen": sum(found is not None for _, found in harmless),
        "false_positives": false,
        "per_10000": None if rate is None else round(1e4 * rate, 1),
        "per_10000_at_most": round(1e4 * at_most, 1),
        "precision": {
            role: {f"{base:g}": _precision(base, facts["recall"], at_most) for base in BASE_RATES}
            for role, facts in roles.items()
        },
        "calibration": _calibration(pairs),
        "thresholds": [_from_score(least, bad, harmless) for least in THRESHOLDS],
        "sets": [_set(name, scored[name], pairs) for name in sorted(scored)],
    }


def by_threshold(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what `evaluate` says of other thresholds, a line each."""
    return [
        {
            "threshold": one["threshold"],
            **{
                role: f"{number:,} of {facts['roles'][role]['positives']:,}"
                for role, number in one["found"].items()
            },
            "false_positives": f"{one['false_positives']} of {facts['harmless']:,}",
            "per 10,000 at most": one["per_10000_at_most"],
        }
        for one in facts["thresholds"]
    ]


def brief(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `evaluate` says in a line: found of each role, and false positives.

    Counted are addresses that left a record: of samples and of one direction, many leave none.
    """
    found = {role: f"{one['found']:,} of {one['seen']:,}" for role, one in facts["roles"].items()}
    false = f"{facts['false_positives']} of {facts['harmless_seen']:,}"
    return {**found, "false_positives": false}


_Pairs = Sequence[tuple[Label, ScoredEndpoint | None]]


def _role(role: str, bad: _Pairs, harmless: _Pairs) -> dict[str, Any]:
    ours = [pair for pair in bad if pair[0].role == role]
    found = [one for _, one in ours if one and one.listed]
    right = sum(_SAME.get(one.role, one.role) == _SAME.get(role, role) for one in found)
    of_sets = Counter(label.dataset for label, _ in ours)
    found_in = Counter(label.dataset for label, one in ours if one and one.listed)
    by_records: dict[str, list[int]] = {}
    for _, one in ours:
        if one:
            counted = by_records.setdefault(_records(one.records), [0, 0])
            counted[0] += one.listed
            counted[1] += 1
    return {
        "positives": len(ours),
        "seen": sum(one is not None for _, one in ours),
        "found": len(found),
        "recall": round(len(found) / len(ours), 4),
        "mean_recall_of_sets": round(
            sum(found_in[s] / n for s, n in of_sets.items()) / len(of_sets), 4
        ),
        "right_role": right,
        "average_precision": _average_precision(ours, harmless, lambda one: one.score),
        "average_precision_of_novelty": _average_precision(
            ours, harmless, lambda one: one.novelty or 0.0
        ),
        "found_by_records": {
            name: by_records[name] for _, name in _BY_RECORDS if name in by_records
        },
    }


def _records(number: int) -> str:
    return next(name for most, name in _BY_RECORDS if number <= most)


def _average_precision(
    ours: _Pairs, harmless: _Pairs, rank: Callable[[ScoredEndpoint], float]
) -> float | None:
    """Returns the mean over the data sets that have positives and harmless addresses."""
    from sklearn.metrics import average_precision_score

    precisions = []
    for name in sorted({label.dataset for label, _ in ours}):
        of_set = [
            (label.role not in HARMLESS, rank(one) if one else 0.0)
            for label, one in (*ours, *harmless)
            if label.dataset == name
        ]
        if not all(is_bad for is_bad, _ in of_set):
            truth, scores = zip(*of_set, strict=True)
            precisions.append(float(average_precision_score(truth, scores)))
    return round(sum(precisions) / len(precisions), 4) if precisions else None


def _precision(base: float, recall: float, false_rate: float) -> float:
    """Returns the least share of right ones among the listed, at a share `base` of bad ones."""
    right = base * recall
    return round(right / (right + (1 - base) * false_rate), 4) if right else 0.0


def upper_bound(found: int, of: int) -> float:
    """Returns the exact one-sided upper bound of a rate (Clopper and Pearson, 1934)."""
    from scipy.special import betaincinv

    return 1.0 if found >= of else float(betaincinv(found + 1, of - found, LEVEL))


def _calibration(pairs: _Pairs) -> list[dict[str, Any]]:
    """Tells how often labelled addresses of like scores were bad."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for label, one in pairs:
        if one:
            place = min(int(one.score * _BINS), _BINS - 1)
            bins.setdefault(place, []).append((one.score, label.role not in HARMLESS))
    return [
        {
            "score_from": place / _BINS,
            "endpoints": len(items),
            "mean_score": round(sum(score for score, _ in items) / len(items), 4),
            "share_bad": round(sum(bad for _, bad in items) / len(items), 4),
        }
        for place, items in sorted(bins.items())
    ]


def _from_score(least: float, bad: _Pairs, harmless: _Pairs) -> dict[str, Any]:
    """Tells what would be found of each role if all from a score on were listed."""
    found = Counter(label.role for label, one in bad if one and one.score >= least)
    false = sum(one.score >= least for _, one in harmless if one)
    return {
        "threshold": least,
        "found": {role: found[role] for role in sorted({label.role for label, _ in bad})},
        "false_positives": false,
        "per_10000_at_most": round(1e4 * upper_bound(false, len(harmless)), 1),
    }


def _set(name: str, scored: Mapping[str, ScoredEndpoint], pairs: _Pairs) -> dict[str, Any]:
    ours = [(label, one) for label, one in pairs if label.dataset == name]
    labelled = {label.endpoint for label, _ in ours}
    bad = [(label, one) for label, one in ours if label.role not in HARMLESS]
    harmless = [one for label, one in ours if label.role in HARMLESS]
    return {
        "dataset": name,
        "endpoints": len(scored),
        "positives": len(bad),
        "found": sum(one.listed for _, one in bad if one),
        "harmless": len(harmless),
        "false_positives": sum(one.listed for one in harmless if one),
        "listed_unlabelled": sum(
            one.listed for address, one in scored.items() if address not in labelled
        ),
    }


@dataclass(frozen=True, slots=True)
class Trial:
    """One generated pair with its scores.

    Attributes:
        kind: `beacon`, or the harmless software that it is.
        interval: Seconds from call to call.
        jitter: Share of the interval.
        loss: Share of the calls.
        score: Ours.
        rita: That of RITA's formula.
    """

    kind: str
    interval: float
    jitter: float
    loss: float
    score: float
    rita: float


def compare_beacons(trials: Sequence[Trial], threshold: float) -> dict[str, Any]:
    """Compares scores of generated beacons with those of harmless software that keeps time.

    Args:
        trials: All pairs.
        threshold: Score from which an endpoint is listed.

    Returns:
        Plain facts: `harmless` pairs and how many of each kind are listed; of all beacons, and
        by interval, jitter and loss, how many are listed, and the `recall` above the score that
        one harmless pair in 10,000 exceeds, ours and that of `rita`; the same for more
        `false_positives`.
    """
    harmless = [trial for trial in trials if trial.kind != BEACON]
    beacons = [trial for trial in trials if trial.kind == BEACON]
    ours = sorted((trial.score for trial in harmless), reverse=True)
    theirs = sorted((trial.rita for trial in harmless), reverse=True)

    def recall(chosen: Sequence[Trial], per_10000: int = 1) -> dict[str, Any]:
        allowed = len(harmless) * per_10000 // 10_000
        mine = sum(trial.score > ours[allowed] for trial in chosen)
        its = sum(trial.rita > theirs[allowed] for trial in chosen)
        return {
            "beacons": len(chosen),
            "listed": sum(trial.score >= threshold for trial in chosen),
            "recall": round(mine / len(chosen), 3),
            "rita": round(its / len(chosen), 3),
        }

    kinds = Counter(trial.kind for trial in harmless)
    wrong = Counter(trial.kind for trial in harmless if trial.score >= threshold)
    return {
        "harmless": len(harmless),
        "wrongly_listed": {kind: wrong[kind] for kind in kinds},
        "all": recall(beacons),
        "false_positives": [
            {"per_10000": rate, **recall(beacons, rate)} for rate in FALSE_POSITIVES
        ],
        **{
            name: [
                {name: value, **recall([b for b in beacons if getattr(b, name) == value])}
                for value in sorted({getattr(b, name) for b in beacons})
            ]
            for name in ("interval", "jitter", "loss")
        },
    }
