"""From sub-scores to one explained score an endpoint.

Within a role, evidence adds up as a noisy-or (Pearl 1988): each detector fires for its
own reason, and the score is the chance that not all of them are wrong,
`1 - Π (1 - weight · sub_score)`. A detector that only supports is scaled by the strongest
one of its role that stands alone. The strongest role names the endpoint.

A trained model would take the place of `_role_scores`; models/README.md says why none does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telemetry.columns import TIME, Layer, schema
from telemetry.records import Role
from telemetry.scoring.contract import Columns, Evidence, Floats, columns_of
from telemetry.scoring.detectors import DETECTORS
from telemetry.scoring.scores import Scores

ROLES: tuple[Role, ...] = tuple(dict.fromkeys(d.role for d in DETECTORS))
"""Roles in the order of the detectors; the first wins a tie."""
DIGITS = 4
"""Scores are rounded so that they agree on every machine."""
YEARS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""What a datetime can hold, in microseconds since 1970; broken captures hold anything."""
LEAST = 0.01
"""Evidence that adds less than this to the score is not worth a sentence."""


def score(features: pa.Table, threshold: float) -> Scores:
    """Scores endpoints.

    Args:
        features: Table of `endpoint_features`, in any order.
        threshold: Score from which an endpoint is listed, 0..1.

    Returns:
        Every endpoint, the highest score first, equal scores by address as text.
    """
    if features.num_rows == 0:
        return Scores.ranked([])
    columns = columns_of(features.drop_columns(["endpoint_ip"]))
    evidence = [d.evaluate(columns) for d in DETECTORS]
    doubts = _doubts(evidence)
    roles = _role_scores(doubts)
    best = np.argmax(roles, axis=0)
    scores = np.round(roles[best, np.arange(len(best))], DIGITS)
    met_inside = columns["seen_out_in"] | columns["seen_in_out"]
    table = pa.Table.from_arrays(
        [
            features["endpoint_ip"],
            pa.array(scores),
            pa.array(np.where(scores > 0, np.array(ROLES)[best], "unknown")),
            pa.array(scores >= threshold),
            pa.array(np.rint(100 * scores).astype(np.int32)),
            _reasons(best, scores, evidence, doubts, met_inside),
            _times(features["first_seen"]),
            _times(features["last_seen"]),
            features["records"],
            pc.round(features["novelty"], DIGITS),
            features["novelty_in"],
        ],
        schema=schema(Layer.SCORE),
    )
    return Scores.ranked([table])


def _times(column: pa.ChunkedArray) -> pa.Array:
    """Returns times that a datetime can hold; those beyond go to the ends."""
    microseconds = column.combine_chunks().cast(pa.int64()).to_numpy()
    return pa.array(np.clip(microseconds, *YEARS)).cast(TIME)


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
    best: npt.NDArray[Any],
    scores: Floats,
    evidence: list[Evidence],
    doubts: Floats,
    met_inside: npt.NDArray[np.bool_],
) -> pa.Array:
    """Returns the evidence for each endpoint's strongest role, in words, strongest first.

    A reason's contribution is its share of the role's score; they add up to it.
    """
    lengths = np.zeros(len(scores), np.int64)
    flat: list[dict[str, Any]] = []
    for i in np.nonzero(scores)[0].tolist():
        role, score = ROLES[best[i]], float(scores[i])
        found = [
            (doubt, DETECTORS[k].name, evidence[k])
            for k, doubt in enumerate(doubts[:, i].tolist())
            if doubt > 0 and DETECTORS[k].role == role
        ]
        total = sum(doubt for doubt, _, _ in found)
        found.sort(key=lambda item: (-item[0], item[1]))
        reasons = [
            {
                "name": name,
                "text": one.sentence(i) if met_inside[i] else _abroad(one.sentence(i)),
                "contribution": round(score * doubt / total, DIGITS),
            }
            for doubt, name, one in found
            if score * doubt / total >= LEAST
        ]
        lengths[i] = len(reasons)
        flat += reasons
    kind = schema(Layer.SCORE).field("reasons").type
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(flat, kind.value_type), type=kind)


def _abroad(sentence: str) -> str:
    """Returns a sentence on an endpoint that no inside host has to do with."""
    for inside, abroad in (("an inside", "a foreign"), ("inside host", "foreign host"),
                           ("nobody inside", "nobody")):  # fmt: skip
        sentence = sentence.replace(inside, abroad)
    return sentence


def sub_scores(features: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Returns each detector's sub-score by its name, for analysts and for training."""
    columns: Columns = columns_of(features.drop_columns(["endpoint_ip"]))
    return {d.name: d.evaluate(columns).sub_score for d in DETECTORS}
