"""Features to scored endpoints, with reasons in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from telemetry.records import ScoredEndpoint

__all__ = ["score", "sub_scores"]


def score(features: pa.Table, threshold: float) -> list[ScoredEndpoint]:
    """Scores endpoints; see `telemetry.scoring.combine.score`."""
    from telemetry.scoring import combine

    return combine.score(features, threshold)


def sub_scores(features: pa.Table) -> dict[str, npt.NDArray[np.float64]]:
    """Returns each detector's sub-score by its name; see `telemetry.scoring.combine`."""
    from telemetry.scoring import combine

    return combine.sub_scores(features)
