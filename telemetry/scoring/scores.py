"""The scores of many endpoints: tables, of which an endpoint is made when it is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from telemetry.columns import Layer, schema
from telemetry.records import Reason, ScoredEndpoint

_AT_ONCE = 1024
"""Endpoints that are made together while all are looked at."""


class Scores(Sequence[ScoredEndpoint]):
    """Scored endpoints in the order of their table; a million take some hundred megabytes.

    Attributes:
        table: Their rows, with the columns of `Layer.SCORE`.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def ranked(cls, parts: Iterable[pa.Table]) -> Scores:
        """Puts tables together, the highest score first, equal ones by address as text."""
        kind = schema(Layer.SCORE)
        table = pa.concat_tables([kind.empty_table(), *(_whole(part, kind) for part in parts)])
        return cls(table.sort_by([("score", "descending"), ("endpoint", "ascending")]))

    @classmethod
    def of(cls, endpoints: Iterable[ScoredEndpoint]) -> Scores:
        """Makes the table of some endpoints, in their order."""
        rows = [
            {name: getattr(one, name) for name in one.__slots__}
            | {"reasons": [{k: getattr(r, k) for k in r.__slots__} for r in one.reasons]}
            for one in endpoints
        ]
        return cls(pa.Table.from_pylist(rows, schema=schema(Layer.SCORE)))

    @classmethod
    def by_method(
        cls, features: pa.Table, scores: Iterable[float], roles: Iterable[str], threshold: float
    ) -> Scores:
        """Makes the scores of another method, which gives no reasons, in the features' order."""
        rows, kind = features.num_rows, schema(Layer.SCORE)
        values = pa.array(scores, pa.float64())
        columns = {
            "endpoint": features["endpoint_ip"],
            "score": values,
            "role": pa.array(roles, pa.string()),
            "listed": pc.greater_equal(values, threshold),
            "confidence": pc.cast(pc.round(pc.multiply(values, 100)), pa.int32()),
            "reasons": pa.array([[]] * rows, kind.field("reasons").type),
            **{name: features[name] for name in ("first_seen", "last_seen", "records")},
            **{name: pa.nulls(rows, kind.field(name).type) for name in ("novelty", "novelty_in")},
        }
        return cls(pa.table(columns).cast(kind))

    @property
    def listed(self) -> Scores:
        """Those on the list."""
        return Scores(self.table.filter(self.table["listed"]))

    @property
    def roles(self) -> Counter[str]:
        """How many there are of each role; equal numbers in the order of the table."""
        return Counter(self.table["role"].to_pylist())

    def where(self, mask: Iterable[bool]) -> Scores:
        """Returns those for which a mask, one flag an endpoint, is true."""
        return Scores(self.table.filter(pa.array(mask, pa.bool_())))

    def with_role(self, role: str) -> Scores:
        """Returns those of one role."""
        return Scores(self.table.filter(pc.field("role") == role))

    def of_address(self, address: str) -> Scores:
        """Returns the endpoint of an address in its usual spelling, or nobody."""
        return Scores(self.table.filter(pc.field("endpoint") == address))

    def __len__(self) -> int:
        rows: int = self.table.num_rows
        return rows

    def __iter__(self) -> Iterator[ScoredEndpoint]:
        for batch in self.table.to_batches(max_chunksize=_AT_ONCE):
            yield from map(_endpoint, batch.to_pylist())

    @overload
    def __getitem__(self, index: int) -> ScoredEndpoint: ...
    @overload
    def __getitem__(self, index: slice) -> Scores: ...
    def __getitem__(self, index: int | slice) -> ScoredEndpoint | Scores:
        places = range(len(self))[index]
        if isinstance(places, range):
            return Scores(self.table.take(list(places)))
        return _endpoint(self.table.slice(places, 1).to_pylist()[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scores) and self.table.equals(other.table)

    __hash__ = None  # type: ignore[assignment]  # as for a list


@dataclass(frozen=True, slots=True)
class Ranking:
    """All endpoints that a run scored, highest score first, of which not all are in memory.

    They are read from the lake when they are looked at: what was erased meanwhile is not told any
    more, and after another run's scoring its scores are.

    Attributes:
        endpoints: How many there are.
        listed: Those on the list.
        between_foreign: Of the records they were made from, the share between two foreign
            addresses.
        parts: Reads them anew, some at a time.
    """

    endpoints: int
    listed: Scores
    between_foreign: float
    parts: Callable[[], Iterator[pa.Table]]

    def __len__(self) -> int:
        return self.endpoints

    def __iter__(self) -> Iterator[ScoredEndpoint]:
        for part in self.parts():
            yield from Scores(part)


def _whole(part: pa.Table, kind: pa.Schema) -> pa.Table:
    """Returns a table with all columns; what an older release stored lacks some."""
    for field in kind:
        if field.nullable and field.name not in part.column_names:
            part = part.append_column(field, pa.nulls(len(part), field.type))
    return part.select(kind.names).cast(kind)


def _endpoint(row: dict[str, Any]) -> ScoredEndpoint:
    return ScoredEndpoint(**row | {"reasons": [Reason(**reason) for reason in row["reasons"]]})
