"""Runs the views on a connection that the caller owns."""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa

from telemetry.features.catalog import needed_for


class Connection(Protocol):
    """What is needed of a DuckDB connection; the lake makes it."""

    def execute(self, query: str) -> Any:
        """Runs one statement."""

    def sql(self, query: str) -> Any:
        """Returns the relation of one query."""


def endpoint_features(connection: Connection) -> pa.Table:
    """Returns the features of every foreign endpoint, ordered by address as text.

    Args:
        connection: DuckDB connection on which `stored_records` can be read; it may be
            read-only. Temporary tables are made there and dropped again.

    Returns:
        The columns of sql/endpoint_features.
    """
    return _compute(connection, "endpoint_features", "endpoint_ip")


def pair_features(connection: Connection) -> pa.Table:
    """Returns the features of every pair of an endpoint and a host, ordered by both.

    Args:
        connection: As for `endpoint_features`.

    Returns:
        The columns of sql/pair_features.
    """
    return _compute(connection, "pair_features", "endpoint_ip, peer")


def _compute(connection: Connection, name: str, order: str) -> pa.Table:
    *steps, last = needed_for(name)
    made: list[str] = []
    try:
        # Views that several others read are computed once: a temporary table hides the
        # view of the same name in the catalog.
        for view in steps:
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {view.name} AS {view.sql}")
            made.append(view.name)
        table: pa.Table = connection.sql(
            f"SELECT * FROM ({last.sql}) ORDER BY {order}"
        ).to_arrow_table()
        return table
    finally:
        for made_name in reversed(made):
            connection.execute(f"DROP TABLE IF EXISTS temp.{made_name}")
