"""From sub-scores to one explained score an endpoint.

Within a role, evidence adds up as a noisy-or (Pearl 1988): each detector fires for its
own reason, and the score is the chance that not all of them are wrong,
`1 - Π (1 - weight · sub_score)`. A detector that only supports is scaled by the strongest
one of its role that stands alone. The strongest role names the endpoint.

The trained model (models/endpoint_risk/) will take the place of `_role_scores`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telemetry.records import Reason, Role, ScoredEndpoint
from telemetry.scoring.contract import Columns, Evidence, Floats, columns_of
from telemetry.scoring.detectors import DETECTORS

ROLES: tuple[Role, ...] = tuple(dict.fromkeys(d.role for d in DETECTORS))
"""Roles in the order of the detectors; the first wins a tie."""
DIGITS = 4
"""Scores are rounded so that they agree on every machine."""
YEARS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""What a datetime can hold, in microseconds since 1970; broken captures hold anything."""
LEAST = 0.01
"""Evidence that adds less than this to the score is not worth a sentence."""


def score(features: pa.Table, threshold: float) -> list[ScoredEndpoint]:
    """Scores endpoints.

    Args:
        features: Table of `endpoint_features`, in any order.
        threshold: Score from which an endpoint is listed, 0..1.

    Returns:
        Every endpoint, the highest score first, equal scores by address as text.
    """
    if features.num_rows == 0:
        return []
    columns = columns_of(features)
    evidence = [d.evaluate(columns) for d in DETECTORS]
    doubts = _doubts(evidence)
    roles = _role_scores(doubts)
    best = np.argmax(roles, axis=0)
    scores = np.round(roles[best, np.arange(len(best))], DIGITS)
    addresses = columns["endpoint_ip"].astype(str)
    order = np.lexsort((addresses, -scores)).tolist()
    first, last = _times(features["first_seen"]), _times(features["last_seen"])
    records = columns["records"].astype(np.int64).tolist()
    return [
        ScoredEndpoint(
            endpoint=str(addresses[i]),
            score=value,
            role=ROLES[best[i]] if value > 0 else "unknown",
            listed=value >= threshold,
            confidence=round(100 * value),
            reasons=_reasons(i, ROLES[best[i]], value, evidence, doubts[:, i]),
            first_seen=first[i],
            last_seen=last[i],
            records=records[i],
        )
        for i, value in zip(order, scores[order].tolist(), strict=True)
    ]


def _times(column: pa.ChunkedArray) -> list[datetime]:
    """Returns naive UTC datetimes; what lies outside the years 1 to 9999 goes to their ends."""
    microseconds = column.cast(pa.int64()).to_numpy()
    times: list[datetime] = np.clip(microseconds, *YEARS).astype("datetime64[us]").tolist()
    return times


def _doubts(evidence: list[Evidence]) -> npt.NDArray[np.float64]:
    """Returns `-ln(1 - weight · sub_score)`, shape (detectors, endpoints): what adds up."""
    strongest: dict[str, Floats] = {}
    for detector, found in zip(DETECTORS, evidence, strict=True):
        if not detector.supports:
            known = strongest.get(detector.role, np.zeros_like(found.sub_score))
            strongest[detector.role] = np.maximum(known, found.sub_score)
    rows = []
    for detector, found in zip(DETECTORS, evidence, strict=True):
        weighted = detector.weight * found.sub_score
        if detector.supports:
            weighted = weighted * strongest[detector.role]
        rows.append(-np.log1p(-weighted))
    return np.vstack(rows)


def _role_scores(doubts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the score of each role, shape (roles, endpoints)."""
    of_role = np.array([[d.role == role for d in DETECTORS] for role in ROLES], dtype=np.float64)
    return -np.expm1(-(of_role @ doubts))


def _reasons(
    i: int, role: Role, score: float, evidence: list[Evidence], doubts: Floats
) -> list[Reason]:
    """Returns the role's evidence on one endpoint, strongest first.

    A reason's contribution is its share of the role's score; they add up to it.
    """
    found = [
        (doubt, DETECTORS[k].name, evidence[k])
        for k, doubt in enumerate(doubts.tolist())
        if doubt > 0 and DETECTORS[k].role == role
    ]
    total = sum(doubt for doubt, _, _ in found)
    found.sort(key=lambda item: (-item[0], item[1]))
    return [
        Reason(name, one.sentence(i), round(score * doubt / total, DIGITS))
        for doubt, name, one in found
        if score * doubt / total >= LEAST
    ]


def sub_scores(features: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Returns each detector's sub-score by its name, for analysts and for training."""
    columns: Columns = columns_of(features)
    return {d.name: d.evaluate(columns).sub_score for d in DETECTORS}
