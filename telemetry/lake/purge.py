"""Late discovery: which stored rows name an address that turned out to be domestic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from telemetry.homeland import parse_address

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Condemned = Callable[[U64, U64], Bools]
"""Says which addresses must go, by their upper and lower halves, all of shape (n,)."""


@dataclass(frozen=True, slots=True)
class Purge:
    """What a purge took out of the lake.

    Attributes:
        id: Names it in the ledger.
        homeland: Hash of the homeland table by which stored records were classed again.
        files: Files of records that were replaced.
        records: Records that went.
        endpoints: Endpoints that lost a record.
        scores: Scores that went with them.
        oldest: First packet of the oldest record that went, in ISO 8601, UTC.
    """

    id: str
    homeland: str
    files: int = 0
    records: int = 0
    endpoints: int = 0
    scores: int = 0
    oldest: str | None = None


def condemned_rows(path: Path, condemned: Condemned) -> Bools:
    """Returns which records of a file have a condemned endpoint or foreign peer."""
    with pq.ParquetFile(path, read_dictionary=["peer_ip"]) as file:
        table = file.read(["endpoint_addr", "peer_ip"], use_threads=False)
    halves = _halves(table["endpoint_addr"].combine_chunks())
    return condemned(*halves) | _by_text(table["peer_ip"], condemned)


def condemned_endpoints(table: pa.Table, condemned: Condemned) -> Bools:
    """Returns which rows of scores or of the selection name a condemned endpoint."""
    return _by_text(table["endpoint"], condemned)


def _halves(addresses: pa.FixedSizeBinaryArray) -> tuple[U64, U64]:
    whole = np.frombuffer(addresses.buffers()[1], ">u8").reshape(-1, 2)
    mine = whole[addresses.offset : addresses.offset + len(addresses)].astype(np.uint64)
    return mine[:, 0].copy(), mine[:, 1].copy()


def _by_text(column: pa.ChunkedArray, condemned: Condemned) -> Bools:
    """Asks about each distinct address in text once; null is none."""
    whole = column.combine_chunks()
    if not pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_encode()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.unify_dictionaries().combine_chunks()
    texts = whole.dictionary.to_pylist()
    if not texts:
        return np.zeros(len(whole), np.bool_)
    hi, lo = np.array([parse_address(text) for text in texts], np.uint64).T.copy()
    must_go: Bools = np.append(condemned(hi, lo), False)
    rows: Bools = must_go[pc.fill_null(whole.indices, len(texts)).to_numpy()]
    return rows
