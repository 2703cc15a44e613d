"""The gate: a raw batch goes in, rows of the closed record table come out.

Every row is judged by the classes of its two addresses. What is not kept is
counted by reason and leaves no other trace; of what is kept, the domestic
address becomes a pseudonym here, before the row exists in any form that could
be written. Whatever does not conform (a wrong type, a number outside its
column, a row without a time) is refused or dropped, never mended.

The table shares no memory with the batch, so readers may reuse their buffers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telemetry import columns
from telemetry.columns import Layer
from telemetry.errors import PrivacyError
from telemetry.homeland import FOREIGN, NAMES, Border, format_addresses, verdict
from telemetry.privacy.blocks import to_bytes
from telemetry.privacy.distinct import distinct
from telemetry.privacy.keys import Keys, Scheme
from telemetry.privacy.pseudonyms import Pseudonyms, months_of
from telemetry.raw import (
    CLASSES,
    COUNTERS,
    I64,
    NEVER,
    NO_OUTER,
    TUNNELS,
    U64,
    UNKNOWN,
    Bursts,
    RawBatch,
    Side,
    outer_code,
)
from telemetry.reasons import Reason
from telemetry.records import Tally

Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.intp]
Integers = TypeVar("Integers", I64, U64)

_ICMP = (1, 58)
PAIR_NAMES = ("none", *(f"{a}-{b}" for a in NAMES for b in NAMES))
"""Names of the codes of pairs of classes, see `raw.outer_code`."""
# The code of each pair seen from its other side.
_TURNED = np.array([NO_OUTER, *(outer_code(b, a) for a in range(CLASSES) for b in range(CLASSES))])
_I32_MAX = np.iinfo(np.int32).max
# No link carries 2**48 bytes in a record; sums of fewer stay within 64 bits.
_SUM_MAX = 2**48
_LIMITS = {
    "packets": _SUM_MAX,
    "bytes": _SUM_MAX,
    "payload_bytes": _SUM_MAX,
    "min_bytes": _I32_MAX,
    "max_bytes": _I32_MAX,
    "tcp_flags": 255,
}
_SIDE_TYPES = {c.name.removeprefix("peer_"): c.type for c in columns.RECORD}


@dataclass(slots=True)
class _Half:
    """One side of the kept rows, oriented and masked.

    Attributes:
        values: The fields of `Side` by name; UNKNOWN and NEVER where not told.
        bursts: Its bursts, only of rows with two or more.
    """

    values: dict[str, I64]
    bursts: Bursts


class Gate:
    """Admits batches of one sensor under one border and one key."""

    def __init__(
        self,
        border: Border,
        keys: Keys,
        sensor: str,
        scheme: Scheme = "deterministic",
        linked: bool = False,
    ) -> None:
        """Prepares the gate.

        Args:
            border: The homeland, and the directions that the authority allows.
            keys: Pseudonym key of the lake.
            sensor: Where the sources are taken.
            scheme: How domestic addresses are encrypted.
            linked: Whether a host keeps its pseudonym from month to month.
        """
        judge = getattr(verdict, "py_func", verdict)  # 16 plain calls need no compiler
        classes = range(CLASSES)
        self._homeland = border.homeland
        self._verdicts = np.array(
            [[int(judge(a, b, border.allowed)) for b in classes] for a in classes], np.uint8
        )
        self._pseudonyms = Pseudonyms(keys, scheme, linked)
        self._sensor = sensor

    def admit(self, batch: RawBatch, tally: Tally, gated: bool) -> pa.Table:
        """Lets through what may be kept.

        Rows of logs (`gated` false) are judged here: dropped rows are counted in
        `tally.dropped`, the foreign side becomes the endpoint, and a half sent in
        a direction that the authority does not allow is blanked as if nothing
        had been sent. Rows of packet readers (`gated` true) were judged packet by
        packet; they are judged again, and a row that fails is a fault.

        Between two foreign addresses the numerically lower one is the endpoint
        (then the lower port). The ports of ICMP are type and code and stay.

        Args:
            batch: Rows as a reader made them.
            tally: Counts of the source; the reader has counted `read`.
            gated: Whether the reader has judged each packet already.

        Returns:
            Rows of the record table, `columns.schema(Layer.RECORD)`.

        Raises:
            PrivacyError: The batch is malformed, or a gated row must not pass.
        """
        _check_arrays(batch)
        a_class = self._classes(batch.a_hi, batch.a_lo)
        b_class = self._classes(batch.b_hi, batch.b_lo)
        reasons, a_blank, b_blank = self._judge(batch, a_class, b_class)
        if gated:
            _refuse_unjudged(batch, reasons, a_class, a_blank, b_blank)
        _count(reasons, tally)
        rows = np.flatnonzero(reasons == Reason.KEPT)
        out_out = (a_class[rows] == FOREIGN) & (b_class[rows] == FOREIGN)
        swap = np.where(out_out, _higher(batch, rows), a_class[rows] != FOREIGN)
        peer_class = np.where(swap, a_class[rows], b_class[rows]).astype(np.int64)
        kept = _Kept(batch, rows, swap, out_out, peer_class)
        return self._table(kept, kept.half(a_blank, b_blank), kept.half(b_blank, a_blank, True))

    def _classes(self, hi: U64, lo: U64) -> Codes:
        classes = np.asarray(self._homeland.classify(hi, lo))
        if classes.shape != hi.shape or (classes >= CLASSES).any():
            raise PrivacyError("The homeland table gave no class to an address; refresh it.")
        return classes.astype(np.uint8)

    def _judge(self, batch: RawBatch, a_class: Codes, b_class: Codes) -> tuple[Codes, Bools, Bools]:
        """Returns each row's reason, and which halves must be blanked if it is kept."""
        a_verdict, b_verdict = self._verdicts[a_class, b_class], self._verdicts[b_class, a_class]
        denied = Reason.DIRECTION_NOT_ALLOWED
        a_blank, b_blank = a_verdict == denied, b_verdict == denied
        a_sent, b_sent = _sent(batch.a), _sent(batch.b)
        a_sent = a_sent | ~b_sent  # when neither half tells, the originator spoke
        allowed = (a_sent & ~a_blank) | (b_sent & ~b_blank)
        reasons = np.where(allowed, Reason.KEPT, denied).astype(np.uint8)
        malformed = _malformed(batch) | _timeless(batch, a_blank, b_blank)
        reasons[malformed & allowed] = Reason.MALFORMED_ROW
        for half in (b_verdict, a_verdict):  # classes outrank all: neither may stay
            final = (half != Reason.KEPT) & (half != denied)
            reasons[final] = half[final]
        return reasons, a_blank, b_blank

    def _table(self, kept: _Kept, endpoint: _Half, peer: _Half) -> pa.Table:
        first, last = _span(endpoint, peer)
        peer_ip, pid, net_pid = self._peers(kept, months_of(first))
        arrays = {
            "sensor": _constant(self._sensor, len(first)),
            "endpoint_ip": _address_text(*kept.endpoint),
            "endpoint_addr": _binary(*kept.endpoint),
            "endpoint_port": pa.array(kept.endpoint_port.astype(np.uint16)),
            "peer_ip": peer_ip,
            "peer_pid": pid,
            "peer_net_pid": net_pid,
            "peer_port": pa.array(kept.peer_port.astype(np.uint16)),
            "protocol": pa.array(kept.take(kept.batch.protocol).astype(np.uint8)),
            "tunnel": _named(TUNNELS, kept.take(kept.batch.tunnel)),
            "pair_class": _named(PAIR_NAMES, outer_code(FOREIGN, 0) + kept.peer_class),
            "outer_class": _named(PAIR_NAMES, kept.outer),
            "sampling_rate": pa.array(kept.take(kept.batch.sampling_rate).astype(np.int32)),
            "active_timeout_s": _seconds(kept.take(kept.batch.active_timeout)),
            "idle_timeout_s": _seconds(kept.take(kept.batch.idle_timeout)),
            "first_seen": pa.array(first).view(columns.TIME),
            "last_seen": pa.array(last).view(columns.TIME),
            **_side_columns("endpoint", endpoint),
            **_side_columns("peer", peer),
        }
        columns.check_closed(list(arrays), Layer.RECORD)
        return pa.Table.from_arrays(list(arrays.values()), schema=columns.schema(Layer.RECORD))

    def _peers(self, kept: _Kept, months: I64) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Returns text for foreign peers, and both pseudonyms for domestic ones."""
        hi, lo = kept.peer
        foreign = kept.out_out
        text = _address_text(hi[foreign], lo[foreign])
        home = ~foreign
        pid, net_pid = self._pseudonyms.hosts(hi[home], lo[home], months[home])
        return _spread(text, foreign), _spread(pid, home), _spread(net_pid, home)


class _Kept:
    """The kept rows of a batch, with the foreign side put first."""

    def __init__(
        self, batch: RawBatch, rows: Rows, swap: Bools, out_out: Bools, peer_class: I64
    ) -> None:
        self.batch, self.rows, self.swap, self.out_out = batch, rows, swap, out_out
        self.peer_class = peer_class
        pick = self._pick
        self.endpoint = pick(batch.a_hi, batch.b_hi, swap), pick(batch.a_lo, batch.b_lo, swap)
        self.peer = pick(batch.b_hi, batch.a_hi, swap), pick(batch.b_lo, batch.a_lo, swap)
        # Type and code of ICMP belong to the message and not to a side.
        ports_swap = swap & ~np.isin(self.take(batch.protocol), _ICMP)
        self.endpoint_port = pick(batch.a_port, batch.b_port, ports_swap)
        self.peer_port = pick(batch.b_port, batch.a_port, ports_swap)
        self.outer = pick(batch.outer, _TURNED[batch.outer], swap)

    def take(self, values: I64) -> I64:
        return values[self.rows]

    def half(self, own_blank: Bools, other_blank: Bools, peer: bool = False) -> _Half:
        """Returns the endpoint's half, or the peer's, blank where its direction is denied.

        Args:
            own_blank: Denied halves `a` for the endpoint, `b` for the peer (all rows).
            other_blank: The same of the other half.
            peer: Whether the peer's half is wanted.
        """
        batch = self.batch
        own, other = (batch.b, batch.a) if peer else (batch.a, batch.b)
        blank = np.where(self.swap, other_blank[self.rows], own_blank[self.rows])
        values = {}
        for name in (*COUNTERS, "first", "last"):
            column = self._pick(getattr(own, name), getattr(other, name), self.swap)
            column[blank] = NEVER if name in ("first", "last") else 0
            values[name] = column
        return _Half(values, self._bursts(own.bursts, other.bursts, blank))

    def _bursts(self, own: Bursts | None, other: Bursts | None, blank: Bools) -> Bursts:
        """Gathers the intervals of the chosen halves; a single one is left out."""
        none = Bursts(np.zeros(len(self.batch) + 1, np.int64), _EMPTY, _EMPTY)
        own, other = own or none, other or none
        begin = self._pick(own.offsets[:-1], other.offsets[:-1] + len(own.starts), self.swap)
        count = self._pick(np.diff(own.offsets), np.diff(other.offsets), self.swap)
        count[blank | (count < 2)] = 0
        offsets = np.concatenate(([0], np.cumsum(count)))
        source = np.repeat(begin - offsets[:-1], count) + np.arange(offsets[-1])
        return Bursts(
            offsets,
            np.concatenate((own.starts, other.starts))[source],
            np.concatenate((own.ends, other.ends))[source],
        )

    def _pick(self, own: Integers, other: Integers, swap: Bools) -> Integers:
        if not swap.any():  # packet readers hand over rows that stand right already
            return own[self.rows]
        return np.where(swap, other[self.rows], own[self.rows])


_EMPTY = np.empty(0, np.int64)


def _check_arrays(batch: RawBatch) -> None:
    """Refuses a batch whose arrays have other types or lengths than the contract's."""
    if type(batch) is not RawBatch or {type(batch.a), type(batch.b)} != {Side}:
        raise PrivacyError("A reader handed over something else than a raw batch; it must not.")
    batch.check()
    for part in (batch, batch.a, batch.b, batch.a.bursts, batch.b.bursts):
        for field in fields(part) if part is not None else ():
            value = getattr(part, field.name)
            if isinstance(value, Side | Bursts) or (field.name == "bursts" and value is None):
                continue
            wanted = np.uint64 if field.name.endswith(("_hi", "_lo")) else np.int64
            if not isinstance(value, np.ndarray) or value.dtype != wanted or value.ndim != 1:
                raise PrivacyError(f"A reader's field {field.name} has the wrong type.")
    if not _within(batch.outer, NO_OUTER, len(_TURNED) - 1).all():
        raise PrivacyError("A reader's field outer has a value that is no pair of classes.")
    for bursts in (batch.a.bursts, batch.b.bursts):
        if bursts is not None and not _well_formed(bursts):
            raise PrivacyError("A reader's bursts are not well formed.")


def _well_formed(bursts: Bursts) -> bool:
    offsets, total = bursts.offsets, len(bursts.starts)
    return bool(
        total == len(bursts.ends)
        and offsets[0] >= 0
        and offsets[-1] <= total
        and (np.diff(offsets) >= 0).all()
        and (bursts.starts <= bursts.ends).all()
    )


def _sent(side: Side) -> Bools:
    """Tells which halves sent something, as far as the source tells."""
    told = (side.bytes > 0) | (side.first != NEVER)
    return np.where(side.packets == UNKNOWN, told, side.packets > 0)


def _malformed(batch: RawBatch) -> Bools:
    """Tells which rows hold a number that its column cannot."""
    bad = ~_within(batch.a_port, 0, 65535) | ~_within(batch.b_port, 0, 65535)
    bad |= ~_within(batch.protocol, 0, 255) | ~_within(batch.sampling_rate, 1, _I32_MAX)
    bad |= ~_within(batch.tunnel, 0, len(TUNNELS) - 1)
    bad |= ~_within(batch.active_timeout, UNKNOWN, _I32_MAX)
    bad |= ~_within(batch.idle_timeout, UNKNOWN, _I32_MAX)
    for side in (batch.a, batch.b):
        for name in COUNTERS:
            bad |= ~_within(getattr(side, name), UNKNOWN, _LIMITS[name])
        # NEVER is the least number: this also refuses a first time without a last one.
        bad |= (side.first > side.last) | ((side.first == NEVER) != (side.last == NEVER))
    return bad


def _within(values: I64, least: int, greatest: int) -> Bools:
    inside: Bools = (values >= least) & (values <= greatest)
    return inside


def _timeless(batch: RawBatch, a_blank: Bools, b_blank: Bools) -> Bools:
    """Tells which rows have no time left in the halves that are not blanked."""
    a_timeless: Bools = a_blank | (batch.a.first == NEVER)
    b_timeless: Bools = b_blank | (batch.b.first == NEVER)
    return a_timeless & b_timeless


def _refuse_unjudged(
    batch: RawBatch, reasons: Codes, a_class: Codes, a_blank: Bools, b_blank: Bools
) -> None:
    """Refuses a packet reader's rows that the packet gate should have dropped or turned."""
    denied = (a_blank & _sent(batch.a)) | (b_blank & _sent(batch.b))
    wrong = (reasons != Reason.KEPT) | denied | (a_class != FOREIGN)
    if wrong.any():
        names = [Reason(code).label for code in sorted(set(reasons[wrong].tolist()))]
        raise PrivacyError(
            f"A packet reader handed over {int(wrong.sum())} rows that must not pass "
            f"(verdicts: {', '.join(names)}); nothing of the source is stored, report this fault."
        )


def _count(reasons: Codes, tally: Tally) -> None:
    for code, number in enumerate(np.bincount(reasons).tolist()):
        if number and code != Reason.KEPT:
            tally.dropped[Reason(code).label] += number


def _higher(batch: RawBatch, rows: Rows) -> Bools:
    """Tells where side `a` is the numerically higher one, so that `b` is the endpoint."""
    a_hi, b_hi = batch.a_hi[rows], batch.b_hi[rows]
    a_lo, b_lo = batch.a_lo[rows], batch.b_lo[rows]
    same = (a_hi == b_hi) & (a_lo == b_lo)
    higher_port = batch.a_port[rows] > batch.b_port[rows]
    higher_port &= ~np.isin(batch.protocol[rows], _ICMP)  # their ports do not tell sides apart
    return np.where(same, higher_port, (a_hi > b_hi) | ((a_hi == b_hi) & (a_lo > b_lo)))


def _span(endpoint: _Half, peer: _Half) -> tuple[I64, I64]:
    """Returns first and last time over both halves; every kept row has one."""
    ends = np.maximum(endpoint.values["last"], peer.values["last"])  # NEVER is the least number
    one, other = endpoint.values["first"], peer.values["first"]
    starts = np.where(one == NEVER, other, np.where(other == NEVER, one, np.minimum(one, other)))
    return starts, ends


def _side_columns(name: str, half: _Half) -> dict[str, pa.Array]:
    values = half.values
    silent = values["packets"] == 0
    out: dict[str, pa.Array] = {}
    for counter in COUNTERS:
        column = values[counter]
        missing = column == UNKNOWN
        if counter in ("min_bytes", "max_bytes"):
            missing |= silent  # nothing sent has no size
        kind = _SIDE_TYPES[counter]
        out[f"{name}_{counter}"] = pa.array(column.astype(kind.to_pandas_dtype()), mask=missing)
    for moment in ("first", "last"):
        column = values[moment]
        out[f"{name}_{moment}"] = pa.array(column, mask=column == NEVER).view(columns.TIME)
    for end, times in (("starts", half.bursts.starts), ("ends", half.bursts.ends)):
        out[f"{name}_burst_{end}"] = _lists(half.bursts.offsets, times)
    return out


def _lists(offsets: I64, times: I64) -> pa.ListArray:
    """Makes a list column; a row without intervals is null."""
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)),
        pa.array(times).view(columns.TIME),
        mask=pa.array(np.diff(offsets) == 0),
    )


def _address_text(hi: U64, lo: U64) -> pa.DictionaryArray:
    index, values = distinct(hi, lo)
    return pa.DictionaryArray.from_arrays(index, format_addresses(*values))


def _binary(hi: U64, lo: U64) -> pa.FixedSizeBinaryArray:
    return pa.FixedSizeBinaryArray.from_buffers(
        columns.ADDRESS, len(hi), [None, pa.py_buffer(to_bytes(hi, lo))]
    )


def _named(names: tuple[str, ...], codes: I64) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(codes.astype(np.int32), pa.array(names))


def _seconds(values: I64) -> pa.Array:
    return pa.array(values.astype(np.int32), mask=values == UNKNOWN)


def _constant(text: str, length: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.zeros(length, np.int32), pa.array([text]))


def _spread(values: pa.DictionaryArray, rows: Bools) -> pa.DictionaryArray:
    """Puts values at the marked rows and null at all others."""
    index = np.zeros(len(rows), np.int32)
    index[rows] = values.indices.to_numpy()
    return pa.DictionaryArray.from_arrays(pa.array(index, mask=~rows), values.dictionary)
