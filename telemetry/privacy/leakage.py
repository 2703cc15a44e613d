"""Leakage and over-drop: what the gate decides, beside a second opinion.

At the gate's place every record is judged twice, by our homeland and by the second
opinion: another homeland table, or labels of addresses. *Leaked* is what we keep and
the other calls domestic on both sides; *over-dropped* is what we call domestic and
the other would keep. Nothing is stored.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from telemetry.errors import SettingsError
from telemetry.homeland import (
    DOMESTIC,
    FOREIGN,
    IN_OUT,
    OUT_IN,
    OUT_OUT,
    Homeland,
    parse_address,
    verdict,
)
from telemetry.raw import RawBatch
from telemetry.reasons import Reason

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

OUTCOMES: Final = ("kept", "domestic", "unclassed", "untold")
"""What becomes of a record: crosses the border; does not; cannot be classed; no opinion."""
_KEPT, _DOMESTIC, _UNCLASSED, _UNTOLD = range(4)
_NO_LABEL: Final = 4
"""Class of an address without a label, after the four classes of `telemetry.homeland`."""
_OUTCOME_OF = {Reason.KEPT: _KEPT, Reason.DOMESTIC: _DOMESTIC, Reason.UNALLOCATED: _UNCLASSED}


class Opinion(Protocol):
    """Who says of what class addresses are."""

    def classify(self, hi: U64, lo: U64) -> U8:
        """Returns the class of each address, shape (n,); 4 where it has none to tell."""
        ...


def _outcomes() -> U8:
    """Returns the outcome of each pair of classes, whatever directions are allowed."""
    judge = getattr(verdict, "py_func", verdict)
    table = np.full((_NO_LABEL + 1, _NO_LABEL + 1), _UNTOLD, np.uint8)
    for a in range(_NO_LABEL):
        for b in range(_NO_LABEL):
            table[a, b] = _OUTCOME_OF[Reason(judge(a, b, OUT_IN | IN_OUT | OUT_OUT))]
    return table


_BY_CLASSES = _outcomes()


@dataclass(frozen=True)
class Labels:
    """Classes of single addresses, as somebody found them; the gate's special rows stay special.

    Attributes:
        addresses: Sorted 16-byte addresses, shape (n,).
        classes: DOMESTIC or FOREIGN, shape (n,).
        special: Tells special-purpose addresses, which need no label.
    """

    addresses: npt.NDArray[np.bytes_] = field(repr=False)
    classes: U8 = field(repr=False)
    special: Homeland

    def classify(self, hi: U64, lo: U64) -> U8:
        """Returns the label of each address, its class if special, or 4."""
        wanted = _packed(hi, lo)
        at = np.minimum(np.searchsorted(self.addresses, wanted), len(self.addresses) - 1)
        special = self.special.classify(hi, lo)
        unlabelled = np.where(special == FOREIGN, np.uint8(_NO_LABEL), special)
        found: U8 = np.where(self.addresses[at] == wanted, self.classes[at], unlabelled)
        return found


def _packed(hi: U64, lo: U64) -> npt.NDArray[np.bytes_]:
    whole = np.column_stack((hi, lo)).astype(">u8")
    return np.ascontiguousarray(whole).view("S16").reshape(-1)


def read_labels(path: Path, special: Homeland) -> Labels:
    """Reads a CSV file of `address,class`, the class being domestic or foreign.

    Raises:
        SettingsError: The file cannot be read, a line is wrong, or two contradict.
    """
    names = {"domestic": DOMESTIC, "foreign": FOREIGN}
    found: dict[tuple[int, int], int] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if not row or row == ["address", "class"] or row[0].startswith("#"):
                    continue
                try:
                    address, name = row
                    halves, label = parse_address(address), names[name]
                    if found.setdefault(halves, label) != label:
                        raise ValueError
                except (ValueError, KeyError):
                    raise SettingsError(
                        f"Line {number} of the labels is not 'address,domestic' or "
                        "'address,foreign', or contradicts an earlier one; correct it."
                    ) from None
    except (OSError, UnicodeDecodeError, csv.Error):
        raise SettingsError("The labels cannot be read; check --against.") from None
    if not found:
        raise SettingsError("There are no labels in the file; check --against.")
    hi, lo = np.array(list(found), np.uint64).T.copy()
    addresses = _packed(hi, lo)
    order = np.argsort(addresses)
    return Labels(addresses[order], np.array(list(found.values()), np.uint8)[order], special)


class Comparison:
    """Counts outcomes by us and by the second opinion."""

    def __init__(self, ours: Opinion, theirs: Opinion) -> None:
        """Args: ours: What the gate goes by. theirs: The second opinion."""
        self._ours, self._theirs = ours, theirs
        self.counts = np.zeros((len(OUTCOMES), len(OUTCOMES)), np.int64)
        """Rows: our outcome; columns: theirs."""

    def add_batch(self, batch: RawBatch, of_packets: bool) -> None:
        """Counts the rows of a batch, or the packets in them."""
        sent = np.maximum(batch.a.packets, 0) + np.maximum(batch.b.packets, 0)
        weights = sent if of_packets else np.ones(len(batch), np.int64)
        classes = [
            (who.classify(batch.a_hi, batch.a_lo), who.classify(batch.b_hi, batch.b_lo))
            for who in (self._ours, self._theirs)
        ]
        ours, theirs = (_BY_CLASSES[a, b] for a, b in classes)
        self._count(ours, theirs, weights)

    def add_stored(self, rows: Iterable[tuple[str, str | None, int]]) -> None:
        """Counts stored records, which we kept.

        Args:
            rows: Endpoint, foreign peer if the peer is foreign, number of records.
        """
        listed = list(rows)
        a_class = self._theirs.classify(*_halves([endpoint for endpoint, _, _ in listed]))
        b_class = self._theirs.classify(*_halves([peer or "::" for _, peer, _ in listed]))
        b_class[np.array([peer is None for _, peer, _ in listed], np.bool_)] = DOMESTIC
        ours = np.full(len(listed), _KEPT, np.uint8)
        weights = np.array([number for *_, number in listed], np.int64)
        self._count(ours, _BY_CLASSES[a_class, b_class], weights)

    def _count(self, ours: U8, theirs: U8, weights: I64) -> None:
        size = len(OUTCOMES)
        pairs = ours.astype(np.intp) * size + theirs
        # Sums of whole numbers below 2**53 are exact in floating point.
        sums = np.bincount(pairs, weights, size * size)
        self.counts += sums.astype(np.int64).reshape(size, size)

    def answer(self, confidence: float) -> dict[str, Any]:
        """Returns counts and rates.

        Args:
            confidence: Of the one-sided bounds, such as 0.95.
        """
        told = int(self.counts[:, :_UNTOLD].sum())
        leaks = int(self.counts[_KEPT, _DOMESTIC])
        over = int(self.counts[_DOMESTIC, _KEPT])
        return {
            "compared": told,
            "untold": int(self.counts[:, _UNTOLD].sum()),
            "leaks": leaks,
            "leaks_per_million": per_million(leaks, told),
            "leaks_per_million_at_most": bound_per_million(leaks, told, confidence),
            "over_drop": over,
            "over_drop_per_million": per_million(over, told),
            "over_drop_per_million_at_most": bound_per_million(over, told, confidence),
            "confidence": confidence,
            "ours_by_theirs": {
                mine: dict(zip(OUTCOMES, map(int, row), strict=True))
                for mine, row in zip(OUTCOMES[:_UNTOLD], self.counts, strict=False)
            },
        }


def _halves(addresses: Iterable[str]) -> tuple[U64, U64]:
    halves = np.array([parse_address(text) for text in addresses], np.uint64).reshape(-1, 2)
    return halves[:, 0].copy(), halves[:, 1].copy()


def per_million(found: int, of: int) -> float | None:
    """Returns a rate, or None where nothing was looked at."""
    return 1e6 * found / of if of else None


def bound_per_million(found: int, of: int, confidence: float) -> float | None:
    """Returns the exact one-sided upper bound of a rate (Clopper and Pearson, 1934).

    It holds for items drawn independently; packets of one flow are not.
    """
    from scipy.special import betaincinv

    if not of:
        return None
    return 1e6 if found == of else 1e6 * float(betaincinv(found + 1, of - found, confidence))
