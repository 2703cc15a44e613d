"""Records as a poorer source would have told them: an exporter, one direction, samples.

What a detector finds in whole packets is worth nothing to who has sampled flows. Here the same
records are made poorer, so that both can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telemetry.columns import Layer, schema

SIDES: Final = ("endpoint", "peer")
_OF_PACKETS: Final = ("payload_bytes", "min_bytes", "max_bytes", "burst_starts", "burst_ends")
_OF_A_SIDE: Final = ("packets", "bytes", "tcp_flags", "first", "last", *_OF_PACKETS)
_ONCE: Final = 1 | 2 | 4
"""FIN, SYN and RST: flags of single packets, while all others bear ACK."""

Random = np.random.Generator


def whole(records: pa.Table, _: Random) -> pa.Table:
    """Returns the records as they are."""
    return records


def exported(records: pa.Table, _: Random) -> pa.Table:
    """Returns what an exporter of flows tells: no payload, sizes of packets or bursts."""
    return _without(records, [f"{side}_{name}" for side in SIDES for name in _OF_PACKETS])


def one_way(side: str) -> Callable[[pa.Table, Random], pa.Table]:
    """Returns what makes records of what one side sent, as where the answers go another way."""
    (other,) = {*SIDES} - {side}

    def poorer(records: pa.Table, random: Random) -> pa.Table:
        seen = records.filter(pc.is_valid(records[f"{side}_first"]))
        seen = _without(exported(seen, random), [f"{other}_{name}" for name in _OF_A_SIDE])
        return _seen_again(seen)

    return poorer


def sampled(rate: int) -> Callable[[pa.Table, Random], pa.Table]:
    """Returns what makes records of one packet in `rate`, drawn at random."""

    def poorer(records: pa.Table, random: Random) -> pa.Table:
        table = exported(records, random)
        drawn = {side: _drawn(table, side, rate, random) for side in SIDES}
        for side, columns in drawn.items():
            for name, column in columns.items():
                table = _with(table, f"{side}_{name}", column)
        seen = [pc.is_valid(table[f"{side}_first"]) for side in SIDES]
        table = table.filter(pc.or_(*seen))
        rates = pc.multiply(table["sampling_rate"], rate)
        return _seen_again(_with(table, "sampling_rate", rates))

    return poorer


VIEWS: Final[dict[str, Callable[[pa.Table, Random], pa.Table]]] = {
    "as read": whole,
    "as an exporter tells": exported,
    "only what endpoints send": one_way("endpoint"),
    "only what hosts send": one_way("peer"),
    "one packet in 10": sampled(10),
    "one packet in 100": sampled(100),
    "one packet in 1,000": sampled(1000),
}


def _drawn(records: pa.Table, side: str, rate: int, random: Random) -> dict[str, Any]:
    """Returns a side's columns when each packet is seen with a chance of one in `rate`."""

    def numbers(name: str, missing: int = 0) -> npt.NDArray[np.int64]:
        column = records[f"{side}_{name}"].cast(pa.int64()).fill_null(missing)
        values: npt.NDArray[np.int64] = column.to_numpy()
        return values

    there = pc.is_valid(records[f"{side}_first"]).to_numpy()
    sent = np.where(there, np.maximum(numbers("packets", 1), 1), 0)
    seen = random.binomial(sent, 1 / rate)
    share = seen / np.maximum(sent, 1)
    # The first and the last of so many moments spread evenly.
    first, last = numbers("first"), numbers("last")
    power = 1 / np.maximum(seen, 1)
    early = 1 - random.random(len(seen)) ** power
    late = np.where(seen > 1, np.maximum(early, random.random(len(seen)) ** power), early)
    kept = np.where(random.random(len(seen)) < share, 0xFF, 0xFF & ~_ONCE)
    columns = {
        "packets": seen,
        "bytes": np.rint(numbers("bytes") * share).astype(np.int64),
        "tcp_flags": numbers("tcp_flags") & kept,
        "first": first + np.rint((last - first) * early).astype(np.int64),
        "last": first + np.rint((last - first) * late).astype(np.int64),
    }
    told = {name: pc.is_valid(records[f"{side}_{name}"]).to_numpy() for name in columns}
    return {
        name: pa.array(values, mask=~(told[name] & (seen > 0))) for name, values in columns.items()
    }


def _seen_again(records: pa.Table) -> pa.Table:
    """Returns the records with their times of both sides told anew."""
    for name, side_time, one_of in (
        ("first_seen", "first", pc.min_element_wise),
        ("last_seen", "last", pc.max_element_wise),
    ):
        times = one_of(*(records[f"{side}_{side_time}"] for side in SIDES))
        records = _with(records, name, times)
    return records


def _without(records: pa.Table, names: list[str]) -> pa.Table:
    for name in names:
        kind = schema(Layer.RECORD).field(name).type
        records = _with(records, name, pa.nulls(records.num_rows, kind))
    return records


def _with(records: pa.Table, name: str, column: Any) -> pa.Table:
    field = records.schema.field(name)
    return records.set_column(records.schema.get_field_index(name), field, column.cast(field.type))
