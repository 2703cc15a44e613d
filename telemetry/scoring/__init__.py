"""Features to scored endpoints, with reasons in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from telemetry.scoring.scores import Scores
    from telemetry.scoring.selection import Rules

__all__ = ["read_rules", "score", "select", "sub_scores"]


def score(features: pa.Table, threshold: float) -> Scores:
    """Scores endpoints; see `telemetry.scoring.combine.score`."""
    from telemetry.scoring import combine

    return combine.score(features, threshold)


def sub_scores(features: pa.Table) -> dict[str, npt.NDArray[np.float64]]:
    """Returns each detector's sub-score by its name; see `telemetry.scoring.combine`."""
    from telemetry.scoring import combine

    return combine.sub_scores(features)


def read_rules(data: bytes) -> Rules:
    """Reads the rules of selection; see `telemetry.scoring.selection`."""
    from telemetry.scoring import selection

    return selection.read_rules(data)


def select(endpoints: Scores, rules: Rules, now: datetime, until: datetime) -> pa.Table:
    """Selects endpoints by rules; see `telemetry.scoring.selection`."""
    from telemetry.scoring import selection

    return selection.select(endpoints, rules, now, until)
