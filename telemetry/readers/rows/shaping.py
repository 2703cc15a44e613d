"""Small changes to tables of texts, before they become numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from telemetry.readers.rows.numbers import ICMP, ICMP6, NO_TYPE, Numbers
from telemetry.readers.rows.texts import Flags, Table, Texts

NOT_TOLD = dict.fromkeys(("icmp_type", "icmp_code"), str(NO_TYPE))
"""Columns for logs that know no ICMP types."""


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


def icmp_parted(table: Table) -> Table:
    """Returns the table with `type.code`, nfdump's port of ICMP, in columns of their own."""
    texts = table.get("dst_port")
    port, code, parted = texts.parted(".")
    protocol = Numbers(table).protocols("protocol")
    kind = Numbers(Table({"kind": port}, len(table))).counts("kind")
    rows = parted & np.isin(protocol, (ICMP, ICMP6)) & (kind >= 0) & (kind <= 0xFF)
    whole = Texts(texts.data, texts.starts, np.where(rows, port.ends, texts.ends))
    told = {"icmp_type": blanked(port, ~rows), "icmp_code": blanked(code, ~rows)}
    return with_columns(table, {**told, **table.columns, "dst_port": whole})


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
