"""Runs the queries of sql/: records to features of pairs and endpoints."""

from __future__ import annotations

from telemetry.features.catalog import View, ViewColumn, about, shown, views
from telemetry.features.compute import (
    endpoint_features,
    endpoint_parts,
    pair_features,
    split_cores,
)

__all__ = [
    "View",
    "ViewColumn",
    "about",
    "endpoint_features",
    "endpoint_parts",
    "pair_features",
    "shown",
    "split_cores",
    "views",
]
