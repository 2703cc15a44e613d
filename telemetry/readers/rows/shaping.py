"""Small changes to tables of texts, before they become numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from telemetry.readers.rows.texts import Flags, Table, Texts

NOT_TOLD = {"icmp_type": "255", "icmp_code": "255"}
"""Columns for logs that know no ICMP types: 255 is reserved, and in no use (RFC 4727)."""


def blanked(texts: Texts, rows: Flags) -> Texts:
    """Returns the column without the texts of some rows."""
    return Texts(texts.data, texts.starts, np.where(rows, texts.starts, texts.ends))


def zeros_blanked(texts: Texts) -> Texts:
    """Returns the column without the texts `0`, for formats in which that is no value."""
    first = np.minimum(texts.starts, max(len(texts.data) - 1, 0))
    zero = texts.ends - texts.starts == 1
    if zero.any():
        zero &= texts.data[first] == ord("0")
    return blanked(texts, zero)


def constant(text: str, rows: int) -> Texts:
    """Returns a column that holds the same text in every row."""
    data = np.frombuffer(text.encode(), dtype=np.uint8).copy()
    return Texts(data, np.zeros(rows, dtype=np.int64), np.full(rows, len(data)))


def with_columns(table: Table, more: Mapping[str, Texts | str]) -> Table:
    """Returns the table with columns added or replaced; a text stands for itself in each row."""
    added = {
        name: constant(value, len(table)) if isinstance(value, str) else value
        for name, value in more.items()
    }
    return Table({**table.columns, **added}, len(table), table.unset)
