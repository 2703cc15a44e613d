"""What a detector is, and the small tools that detectors share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telemetry.records import Role

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Columns = Mapping[str, npt.NDArray[Any]]
"""The columns of `endpoint_features`, one value an endpoint; missing numbers are NaN, texts ""."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one detector found.

    Attributes:
        sub_score: How strongly it fired, 0..1, one value an endpoint.
        sentence: Says in words, with the numbers, why it fired on the endpoint at an
            index; called only where the sub-score is above 0.
    """

    sub_score: Floats
    sentence: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Detector:
    """One visible test of endpoints.

    Attributes:
        name: Name of its reasons.
        role: What the endpoint is used for if the detector is right.
        weight: The score that the detector alone may give at most, 0..1.
        evaluate: Columns to evidence, vectorised.
        supports: True when it never stands alone: its weight is scaled by the role's
            strongest detector that does.
    """

    name: str
    role: Role
    weight: float
    evaluate: Callable[[Columns], Evidence]
    supports: bool = False


def columns_of(features: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Returns the table's columns as numpy arrays; null numbers become NaN, null flags False.

    Texts become "" and have a fixed width: they are compared much faster so.
    """
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in features.column_names:
        column = features[name].combine_chunks()
        if pa.types.is_boolean(column.type):
            columns[name] = column.fill_null(False).to_numpy(zero_copy_only=False)
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            columns[name] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        elif pa.types.is_string(column.type):
            words = column.fill_null("").dictionary_encode()
            known = np.array([*words.dictionary.to_pylist(), ""])  # never empty: it needs a type
            columns[name] = known[words.indices.to_numpy()]
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return columns


def ramp(values: npt.NDArray[Any], low: float, high: float) -> Floats:
    """Returns 0 up to `low`, 1 from `high`, a straight line between; NaN counts as `low`."""
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low) - low) / (high - low)
    return np.clip(scaled, 0.0, 1.0)


def steps(values: npt.NDArray[Any], points: Mapping[float, float]) -> Floats:
    """Interpolates between (value, result) points on a logarithmic scale; NaN counts as 0."""
    positive = np.maximum(np.nan_to_num(values.astype(np.float64), nan=0.0), 1e-6)
    return np.interp(np.log(positive), np.log(list(points)), list(points.values()))


def one_of(values: npt.NDArray[Any], *names: str) -> Bools:
    """Returns where a text column holds one of the names."""
    return np.isin(values.astype(str), names)


def span(seconds: float) -> str:
    """Returns a length of time as people say it, such as `3.5 s` or `1.6 h`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{round(seconds, 3):.3g} s"  # clocks of captures are not better


def count(number: float, noun: str, plural: str = "") -> str:
    """Returns a number with its noun, such as `1 host` or `3 hosts`."""
    return f"{number:,.0f} {noun if number == 1 else plural or noun + 's'}"
