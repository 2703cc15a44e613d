"""Merges record segments, so that file cuts and file order do not show.

Two segments are parts of one record when all their key columns are equal, they
start in the same half hour of UTC, and the silence between them is at most
`IDLE_US`. A record is thus a connected component of the time intervals of its
segments; components do not depend on order, and a merged record spans exactly
what its parts span. With the merge rule of each column (sum, min, max, or,
bursts) commutative and associative, this law follows:

    merge(merge(A) + B) = merge(A + B), in any order of rows

The work is one sort of packed integers, one compiled pass that numbers the
components in sorted order, and one gather; only rows with a partner are
computed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telemetry.bursts import coalesce
from telemetry.columns import CUT_US, IDLE_US, RECORD, Column, Layer, Merge, schema
from telemetry.errors import SourceError
from telemetry.lake.dictionaries import compact, cut, one_chunk
from telemetry.lake.layout import Partition

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
DAY_US = 86_400 * 1_000_000
_SAMPLES = 256  # keys that are looked at for each piece of a partition

_SCHEMA = schema(Layer.RECORD)
_KEYS = [c for c in RECORD if c.merge is Merge.KEY]
_TEXTS = [c.name for c in _KEYS if pa.types.is_dictionary(c.type)]
_IDENTITY = {Merge.MIN: "max", Merge.MAX: "min"}
_REDUCE = {
    Merge.SUM: np.add,
    Merge.MIN: np.minimum,
    Merge.MAX: np.maximum,
    Merge.OR: np.bitwise_or,
}


def merge_segments(table: pa.Table) -> pa.Table:
    """Merges segments into records.

    Args:
        table: Rows with the schema of `Layer.RECORD`, in any order.

    Returns:
        The records, sorted by `endpoint_addr`, `first_seen`, the numbers and then the texts
        among the other keys.
        Equal multisets of rows give equal tables, dictionaries included.
    """
    table = _whole(table)
    return _merge(table) if len(table) else table


def check_times(table: pa.Table) -> tuple[int, int] | None:
    """Refuses times that have no date, as broken clocks give them.

    Returns:
        First and last packet in microseconds since 1970; None without rows.

    Raises:
        SourceError: A record begins outside the years 1 to 9999.
    """
    if not len(table):
        return None
    bounds = pc.min_max(table["first_seen"].cast(pa.int64())).as_py()
    try:
        for bound in bounds.values():
            _date(bound // DAY_US)
    except (ValueError, OverflowError):
        raise SourceError(
            "A record's time lies outside the years 1 to 9999; check the clock of the source."
        ) from None
    return bounds["min"], pc.max(table["last_seen"].cast(pa.int64())).as_py()


def by_partition(table: pa.Table, buckets: int) -> Iterator[tuple[Partition, pa.Table]]:
    """Parts segments by day and bucket; nothing is merged yet.

    Args:
        table: Rows with the schema of `Layer.RECORD`, in any order.
        buckets: Number of buckets of the lake.

    Yields:
        Each partition with its rows sorted for `ranges`, in the order of days and buckets. Its
        dictionaries hold only values that it uses.
    """
    if not len(table):
        return
    table = _whole(table)
    days = _numbers(table["first_seen"]) // DAY_US
    place = days * buckets + bucket_of(one_chunk(table["endpoint_addr"]), buckets)
    order = np.argsort(_range_keys(table))
    least = int(place.min())
    small = (place - least).astype(np.min_scalar_type(int(place.max()) - least))
    order = order[np.argsort(small[order], kind="stable")]  # of small numbers: one pass
    place = place[order]
    edges = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), len(place)]
    rows = pa.array(order)
    columns = [cut(one_chunk(column).take(rows), edges) for column in table.columns]
    for start, pieces in zip(edges[:-1], zip(*columns, strict=True), strict=True):
        day, number = divmod(int(place[start]), buckets)
        yield Partition(_date(day), number), pa.Table.from_arrays(pieces, schema=_SCHEMA)


def ranges(tables: list[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Merges a partition piece by piece, so that memory holds one piece at a time.

    Args:
        tables: The segments of one partition, each sorted as `by_partition` and
            `merge_segments` sort.
        rows: Rows that a piece should not have many more of. Segments of one endpoint stay
            together, however many they are.

    Yields:
        The merged pieces; one after the other they are the merged whole.
    """
    if sum(map(len, tables)) <= rows:
        yield merge_segments(pa.concat_tables(tables))
        return
    # Some keys of each table tell well enough where the pieces begin; all would be much memory.
    step = max(1, rows // _SAMPLES)
    some = np.sort(np.concatenate([_range_keys(table)[::step] for table in tables]))
    firsts = np.unique(some[:: rows // step])
    edges = [
        [*np.searchsorted(_range_keys(table), firsts).tolist(), len(table)] for table in tables
    ]
    for number in range(len(firsts)):
        pieces = [
            compact(table.slice(edge[number], edge[number + 1] - edge[number]))
            for table, edge in zip(tables, edges, strict=True)
            if edge[number] < edge[number + 1]
        ]
        yield merge_segments(pa.concat_tables(pieces))


def _range_keys(table: pa.Table) -> U64:
    """Returns a number for each endpoint that never falls where addresses rise."""
    hi, lo = _octets(one_chunk(table["endpoint_addr"])).view(">u8").astype(np.uint64).T
    least = np.uint64(1 << 48)  # above all of ::ffff:0:0/96, below all of 2000::/3
    keys: U64 = np.where(hi == 0, np.minimum(lo, least), np.maximum(hi, least))
    return keys


def bucket_of(addresses: pa.Array, buckets: int) -> I64:
    """Returns the bucket of each 16-byte address: CRC-32 (IEEE 802.3) modulo `buckets`.

    A hash that every language has, unlike an engine's own.
    """
    return _buckets(_octets(addresses), _CRC, buckets)  # type: ignore[no-any-return]


@nb.njit(cache=True, nogil=True)
def _buckets(
    octets: npt.NDArray[np.uint8], table: npt.NDArray[np.uint32], buckets: int
) -> I64:  # pragma: no cover - compiled
    out = np.empty(len(octets), np.int64)
    for row in range(len(octets)):
        crc = np.uint32(0xFFFFFFFF)
        for octet in octets[row]:
            crc = table[(crc ^ octet) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
        out[row] = np.int64(crc ^ np.uint32(0xFFFFFFFF)) % buckets
    return out


def _octets(addresses: pa.Array) -> npt.NDArray[np.uint8]:
    octets = np.frombuffer(addresses.buffers()[1], np.uint8).reshape(-1, 16)
    return octets[addresses.offset :][: len(addresses)]


def _crc_table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0xEDB88320), table >> 1)
    return table.astype(np.uint32)


_CRC = _crc_table()


def _date(day: int) -> date:
    return date.fromordinal(day + date(1970, 1, 1).toordinal())


def _whole(table: pa.Table) -> pa.Table:
    return table.unify_dictionaries().combine_chunks()


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Returns a column without nulls as a numpy array, times as microseconds."""
    array = one_chunk(column)
    if pa.types.is_timestamp(array.type):
        array = array.view(pa.int64())
    numbers: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return numbers


def _code(array: pa.Array) -> U64:
    """Returns a key column as numbers: equal ones for equal values, in their order but for text."""
    if pa.types.is_integer(array.type):
        numbers = array.cast(pa.int64())
        before = (pc.min(numbers).as_py() or 0) - 1
        return (pc.fill_null(numbers, before).to_numpy() - before).astype(np.uint64)  # type: ignore[no-any-return]
    if pa.types.is_dictionary(array.type):
        indices = pc.fill_null(array.indices, -1).to_numpy(zero_copy_only=False)
        return (indices + np.int32(1)).astype(np.uint64)  # type: ignore[no-any-return]
    return _rank(array.dictionary_encode())


def _rank(array: pa.DictionaryArray) -> U64:
    """Returns the rank of each value among those used; 0 stands for null."""
    (array,) = cut(array, [0, len(array)])
    order = pc.sort_indices(array.dictionary).to_numpy()
    rank = np.zeros(len(order) + 1, np.uint64)  # the last one takes the nulls, -1
    rank[order] = np.arange(1, len(rank), dtype=np.uint64)
    ranks: U64 = rank[pc.fill_null(array.indices, -1).to_numpy(zero_copy_only=False)]
    return ranks


def _pack(fields: list[U64]) -> list[U64]:
    """Packs fields into as few 64-bit words as keep their lexicographic order."""
    words: list[U64] = []
    free = 0
    for field in fields:
        bits = int(field.max()).bit_length()
        if bits > free:
            words.append(field)
            free = 64 - bits
        elif bits:
            words[-1] = (words[-1] << np.uint64(bits)) | field
            free -= bits
    return words or [fields[0]]


def _merge(table: pa.Table) -> pa.Table:
    """Merges a whole, non-empty table."""
    first, last = _numbers(table["first_seen"]), _numbers(table["last_seen"])
    since = (first - first.min()).astype(np.uint64)
    codes = {c.name: _code(one_chunk(table[c.name])) for c in _KEYS}
    address = codes.pop("endpoint_addr")
    numbers = [codes[name] for name in codes if name not in _TEXTS]
    order = _order(table, _pack([address, since, *numbers]), _TEXTS)
    identity = np.column_stack(_pack([address, *codes.values()]))
    component, heads, sizes = _components(order, identity, first, last, CUT_US, IDLE_US)

    plural = np.flatnonzero(sizes > 1)
    members = np.flatnonzero(sizes[component] > 1)
    members = members[np.argsort(component[members], kind="stable")]
    starts = np.cumsum(sizes[plural]) - sizes[plural]
    take = heads.copy()
    take[plural] = len(table) + np.arange(len(plural))
    parts = table.take(pa.array(members))

    def gather(item: tuple[Column, pa.Array | None]) -> pa.Array:
        column, merged = item
        if merged is None:
            return one_chunk(table[column.name]).take(pa.array(heads))
        return pa.concat_arrays([one_chunk(table[column.name]), merged]).take(pa.array(take))

    columns = [gather(item) for item in _merge_columns(parts, starts)]
    return compact(pa.Table.from_arrays(columns, schema=_SCHEMA))


def _order(table: pa.Table, words: list[U64], texts: Iterable[str]) -> I64:
    """Sorts rows by the first word, and by the others and the texts only where that ties.

    The first word holds address and time, so that few rows are left; text is dear to sort.
    """
    order = np.argsort(words[0])
    ordered = words[0][order]
    ties = np.append(False, ordered[1:] == ordered[:-1])
    if ties.any():
        places = np.flatnonzero(ties | np.append(ties[1:], False))
        rows = order[places]
        ranks = [_rank(one_chunk(table[name]).take(pa.array(rows))) for name in texts]
        least_first = [*reversed(ranks), *reversed([word[rows] for word in words])]
        order[places] = rows[np.lexsort(least_first)]
    return order


@nb.njit(cache=True, nogil=True)
def _components(
    order: I64, identity: npt.NDArray[np.uint64], first: I64, last: I64, cut: int, idle: int
) -> tuple[I64, I64, I64]:  # pragma: no cover - compiled
    """Numbers the records of rows visited in sorted order.

    Returns for each row its record, and for each record its first row and its size.
    """
    rows, words = identity.shape
    slots = 16
    while slots < 2 * rows:
        slots *= 2
    slot_row = np.full(slots, -1, np.int64)  # a row that shows the identity of the slot
    slot_record = np.empty(slots, np.int64)
    slot_end = np.empty(slots, np.int64)
    record = np.empty(rows, np.int64)
    heads = np.empty(rows, np.int64)
    sizes = np.empty(rows, np.int64)
    count = 0
    for row in order:
        mixed = np.uint64(0)
        for w in range(words):
            mixed = (mixed ^ identity[row, w]) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        slot = np.int64(mixed & np.uint64(slots - 1))
        while slot_row[slot] >= 0:
            same = True
            for w in range(words):
                if identity[slot_row[slot], w] != identity[row, w]:
                    same = False
                    break
            if same:
                break
            slot = (slot + 1) & (slots - 1)
        joins = (
            slot_row[slot] >= 0
            and first[heads[slot_record[slot]]] // cut == first[row] // cut
            and first[row] - slot_end[slot] <= idle
        )
        if joins:
            slot_end[slot] = max(slot_end[slot], last[row])
            sizes[slot_record[slot]] += 1
        else:
            slot_row[slot] = row
            slot_record[slot] = count
            slot_end[slot] = last[row]
            heads[count] = row
            sizes[count] = 1
            count += 1
        record[row] = slot_record[slot]
    return record, heads[:count], sizes[:count]


def _merge_columns(parts: pa.Table, starts: I64) -> Iterator[tuple[Column, pa.Array | None]]:
    """Merges groups of rows that begin at `starts`; keys are left to the caller."""
    bursts: dict[str, pa.Array] = {}
    for column in RECORD:
        if column.merge is Merge.KEY:
            yield column, None
        elif column.merge is Merge.BURSTS:
            side = column.name.split("_")[0]
            if column.name not in bursts:
                bursts |= _merge_bursts(side, parts, starts)
            yield column, bursts[column.name]
        else:
            yield column, _reduce(column, one_chunk(parts[column.name]), starts)


def _reduce(column: Column, array: pa.Array, starts: I64) -> pa.Array:
    """Merges one column by its rule; null only where all parts are null."""
    assert column.merge is not None
    if not len(starts):
        return pa.array([], column.type)
    stored = pa.int64() if pa.types.is_timestamp(column.type) else column.type
    dtype = stored.to_pandas_dtype()
    neutral = getattr(np.iinfo(dtype), _IDENTITY[column.merge]) if column.merge in _IDENTITY else 0
    known = array.is_valid().to_numpy(zero_copy_only=False)
    values = pc.fill_null(array.view(stored), pa.scalar(neutral, stored)).to_numpy()
    merged = _REDUCE[column.merge].reduceat(values, starts, dtype=dtype)
    unknown = ~np.logical_or.reduceat(known, starts)
    return pa.array(merged, stored, mask=unknown).view(column.type)


def _merge_bursts(side: str, parts: pa.Table, starts: I64) -> dict[str, pa.Array]:
    """Merges the bursts of one side; a row without a list stands for first..last, if sent."""
    names = (f"{side}_burst_starts", f"{side}_burst_ends")
    kinds = [_SCHEMA.field(name).type for name in names]
    if not len(starts):
        return {n: pa.array([], k) for n, k in zip(names, kinds, strict=True)}
    lists = [one_chunk(parts[name]) for name in names]
    single = np.logical_and(
        lists[0].is_null().to_numpy(zero_copy_only=False),
        parts[f"{side}_first"].is_valid().to_numpy(),
    )
    lengths = pc.fill_null(pc.list_value_length(lists[0]), 0).to_numpy() + single
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    bounds = []
    for stored, edge in zip(lists, ("first", "last"), strict=True):
        values = np.empty(offsets[-1], np.int64)
        listed = np.repeat(~single, lengths)
        values[listed] = stored.flatten().view(pa.int64()).to_numpy()
        values[~listed] = _numbers(parts[f"{side}_{edge}"].filter(pa.array(single)))
        bounds.append(values)
    offsets, *joined = coalesce(offsets[np.append(starts, len(parts))], *bounds)
    alone = np.diff(offsets) <= 1
    return {
        name: _lists(kind, offsets, values, alone)
        for name, kind, values in zip(names, kinds, joined, strict=True)
    }


def _lists(kind: pa.DataType, offsets: I64, values: I64, null: npt.NDArray[np.bool_]) -> pa.Array:
    lengths = np.where(null, 0, np.diff(offsets))
    kept = np.repeat(~null, np.diff(offsets))
    ends = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(ends),
        pa.array(values[kept], pa.int64()).view(kind.value_type),
        type=kind,
        mask=pa.array(null),
    )
