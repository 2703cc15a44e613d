"""Templates of NetFlow v9 and IPFIX, turned into plans that a compiled kernel follows.

A plan says for each field of a record that matters where it lies, how wide it is and into
which slot it goes; where it is of variable length, for every field. Elements that are no
slot's (names, URLs, translated addresses, MAC addresses…) are stepped over unread.

Formats: RFC 3954 (v9 templates, options), RFC 7011 (IPFIX, withdrawal, variable length), RFC
5103 (reverse elements); elements from IANA's registry of IPFIX information elements, of which
those below 128 are v9's field types.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from enum import IntEnum, auto
from typing import NamedTuple

import numpy as np

from telemetry.raw import I64, U64, UNKNOWN
from telemetry.readers.exports.index import empty_index, enter, find
from telemetry.readers.exports.messages import FIRST_DATA, IPFIX, V1, V5, V7, V9

VARIABLE = 65535
"""The width, in a template, of a field that brings its own."""
_REVERSE = 29305
"""The enterprise number under which an element counts the other direction (RFC 5103)."""
_CERT = 6871
"""The enterprise number of CERT/CC, whose YAF exports TCP flags under it."""
_ENTERPRISE = 0x8000
_DOMAINS = 4096
_PLANS = 8192
_FIELDS = 1 << 20
"""The most that is remembered; when it is exceeded, all is forgotten and learnt anew."""
_LONGEST_SET = 1 << 14
"""Templates that one set can hold at the most."""
SOURCES = 1 << 12


class Slot(IntEnum):
    """What a record may tell; the number is the place among the values of one record."""

    SOURCE_HI = 0
    SOURCE_LO = auto()
    TARGET_HI = auto()
    TARGET_LO = auto()
    SOURCE_V4 = auto()
    TARGET_V4 = auto()
    IP_VERSION = auto()
    PROTOCOL = auto()
    SOURCE_PORT = auto()
    TARGET_PORT = auto()
    ICMP_V4 = auto()
    ICMP_V6 = auto()
    ICMP_V4_TYPE = auto()
    ICMP_V4_CODE = auto()
    ICMP_V6_TYPE = auto()
    ICMP_V6_CODE = auto()
    PACKETS = auto()
    BYTES = auto()
    LEAST = auto()
    MOST = auto()
    FLAGS = auto()
    MORE_FLAGS = auto()
    POST_PACKETS = auto()
    POST_BYTES = auto()
    BACK_PACKETS = auto()
    BACK_BYTES = auto()
    BACK_FLAGS = auto()
    BACK_MORE_FLAGS = auto()
    FIRST = auto()
    LAST = auto()
    BACK_FIRST = auto()
    BACK_LAST = auto()
    OBSERVED = auto()
    DURATION = auto()
    RATE = auto()
    INTERVAL = auto()
    SPACE = auto()
    SAMPLED = auto()
    POPULATION = auto()
    SAMPLER = auto()
    ACTIVE = auto()
    IDLE = auto()
    BOOT = auto()


class Clock(IntEnum):
    """How the number in a slot of time is meant."""

    NONE = 0
    SECONDS = 1  # since 1970
    MILLISECONDS = 2  # since 1970
    NTP = 3  # RFC 7011, 6.1.9 and 6.1.10: seconds since 1900 and their fraction, 32 bits each
    AGO = 4  # microseconds before the export
    UPTIME = 5  # milliseconds since the exporter started
    MICROSECONDS = 6  # a span


TIMED = (
    Slot.FIRST,
    Slot.LAST,
    Slot.BACK_FIRST,
    Slot.BACK_LAST,
    Slot.OBSERVED,
    Slot.DURATION,
)
"""Slots whose clock a plan states, in the order of a plan's columns from CLOCKS on."""


class _Meaning(NamedTuple):
    slot: Slot
    rank: int = 0  # of several elements for one slot, the lowest counts
    clock: Clock = Clock.NONE


_STARTS = {
    154: _Meaning(Slot.FIRST, 0, Clock.NTP),
    156: _Meaning(Slot.FIRST, 1, Clock.NTP),
    152: _Meaning(Slot.FIRST, 2, Clock.MILLISECONDS),
    158: _Meaning(Slot.FIRST, 3, Clock.AGO),
    150: _Meaning(Slot.FIRST, 4, Clock.SECONDS),
    22: _Meaning(Slot.FIRST, 5, Clock.UPTIME),
}
_ENDS = {
    element - 1 if element == 22 else element + 1: meaning._replace(slot=Slot.LAST)
    for element, meaning in _STARTS.items()
}
_ELEMENTS: dict[int, _Meaning] = {
    **_STARTS,
    **_ENDS,
    27: _Meaning(Slot.SOURCE_HI),
    28: _Meaning(Slot.TARGET_HI),
    8: _Meaning(Slot.SOURCE_V4),
    12: _Meaning(Slot.TARGET_V4),
    60: _Meaning(Slot.IP_VERSION),
    4: _Meaning(Slot.PROTOCOL),
    7: _Meaning(Slot.SOURCE_PORT),
    180: _Meaning(Slot.SOURCE_PORT, 1),
    182: _Meaning(Slot.SOURCE_PORT, 1),
    11: _Meaning(Slot.TARGET_PORT),
    181: _Meaning(Slot.TARGET_PORT, 1),
    183: _Meaning(Slot.TARGET_PORT, 1),
    32: _Meaning(Slot.ICMP_V4),
    139: _Meaning(Slot.ICMP_V6),
    176: _Meaning(Slot.ICMP_V4_TYPE),
    177: _Meaning(Slot.ICMP_V4_CODE),
    178: _Meaning(Slot.ICMP_V6_TYPE),
    179: _Meaning(Slot.ICMP_V6_CODE),
    2: _Meaning(Slot.PACKETS),
    86: _Meaning(Slot.PACKETS, 1),
    298: _Meaning(Slot.PACKETS, 2),
    24: _Meaning(Slot.POST_PACKETS),
    1: _Meaning(Slot.BYTES),
    85: _Meaning(Slot.BYTES, 1),
    # 231 and 232 are bytes of payload by their definition; who exports them counts no others.
    231: _Meaning(Slot.BYTES, 2),
    23: _Meaning(Slot.POST_BYTES),
    299: _Meaning(Slot.BACK_PACKETS, 2),
    232: _Meaning(Slot.BACK_BYTES, 2),
    25: _Meaning(Slot.LEAST),
    26: _Meaning(Slot.MOST),
    6: _Meaning(Slot.FLAGS),
    322: _Meaning(Slot.OBSERVED, 3, Clock.SECONDS),
    323: _Meaning(Slot.OBSERVED, 2, Clock.MILLISECONDS),
    324: _Meaning(Slot.OBSERVED, 0, Clock.NTP),
    325: _Meaning(Slot.OBSERVED, 1, Clock.NTP),
    161: _Meaning(Slot.DURATION, 1, Clock.MILLISECONDS),
    162: _Meaning(Slot.DURATION, 0, Clock.MICROSECONDS),
    34: _Meaning(Slot.RATE),
    50: _Meaning(Slot.RATE, 1),
    305: _Meaning(Slot.INTERVAL),
    306: _Meaning(Slot.SPACE),
    309: _Meaning(Slot.SAMPLED),
    310: _Meaning(Slot.POPULATION),
    302: _Meaning(Slot.SAMPLER),
    48: _Meaning(Slot.SAMPLER, 1),
    36: _Meaning(Slot.ACTIVE),
    37: _Meaning(Slot.IDLE),
    160: _Meaning(Slot.BOOT),
}
_TURNED = {
    Slot.PACKETS: Slot.BACK_PACKETS,
    Slot.BYTES: Slot.BACK_BYTES,
    Slot.FLAGS: Slot.BACK_FLAGS,
    Slot.FIRST: Slot.BACK_FIRST,
    Slot.LAST: Slot.BACK_LAST,
}
# initialTCPFlags and unionTCPFlags, and the same of the other direction.
_CERT_ELEMENTS = {
    14: _Meaning(Slot.FLAGS, 1),
    15: _Meaning(Slot.MORE_FLAGS),
    14 | 0x4000: _Meaning(Slot.BACK_FLAGS, 1),
    15 | 0x4000: _Meaning(Slot.BACK_MORE_FLAGS),
}

# Widths of slots that are no integers; all others take 1 to 8 bytes (RFC 7011, 6.2).
_WIDTHS = {Slot.SOURCE_HI: 16, Slot.TARGET_HI: 16, Slot.SOURCE_V4: 4, Slot.TARGET_V4: 4}

# Columns of a plan: where its operations are, the bytes of a record (0 when they vary), the
# least of them, whether it is of options, which addresses it has, and clocks of TIMED slots.
OPS_FROM, OPS_TO, SIZE, LEAST_SIZE, OPTIONS, HAS_V4, HAS_V6, CLOCKS = range(8)
# Columns of an operation: offset in the record, width in bytes, slot (below 0: stepped over).
OFFSET, WIDTH, SLOT = range(3)
# Columns of what is known of a domain: what options tell, UNKNOWN until they do; and a number
# that changes whenever one of its templates does.
F_RATE, F_ACTIVE, F_IDLE, F_BOOT, F_STATE = range(5)
STATES = 1 << 20

# Kinds of keys in the index, in the upper bits of the last word.
DOMAIN_KEY, TEMPLATE_KEY, SAMPLER_KEY, SET_KEY = (kind << 60 for kind in (1, 2, 3, 4))

_Field = tuple[int, int, int]  # enterprise (0: none), element, width
# Records of the formats without templates, as elements and widths; element 0 is none.
_RECORD = ((8, 4), (12, 4), (0, 8), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2))
SHORT_V1 = -V1
_FIXED = {
    V1: (*_RECORD, (0, 2), (4, 1), (0, 1), (6, 1), (0, 11)),
    V5: (*_RECORD, (0, 1), (6, 1), (4, 1), (0, 9)),
    V7: (*_RECORD, (0, 1), (6, 1), (4, 1), (0, 13)),
    SHORT_V1: (*_RECORD, (0, 2), (4, 1), (0, 1), (6, 1), (0, 7)),
}
FIXED_PLANS = {V1: 0, V5: 1, V7: 2, SHORT_V1: 3}
"""The number of the plan of each format without templates."""


class Known(NamedTuple):
    """What the kernel knows of exporters.

    Attributes:
        keys: See `telemetry.readers.exports.index`. Domains: address, and port << 36 |
            version << 32 | domain id, to 1 + number. Templates: number of the domain and set
            id, to 1 + plan | number of the source << 20 | stamp << 32. Samplers: number of the
            domain and sampler id, to its rate. Sets of templates that were learnt: number of
            the domain and hash, to the domain's state | number of the source << 20 | stamp << 32.
        plans: Shape (plans, columns).
        ops: Shape (operations, 3).
        facts: What is known of each domain, shape (domains, 5).
    """

    keys: U64
    plans: I64
    ops: I64
    facts: I64


class Templates:
    """What was learnt of all exporters so far, in bounded memory.

    Attributes:
        source: Number of the source that is read, counted from 0 again after SOURCES.
    """

    def __init__(self) -> None:
        self.source = 0
        self.forget()

    def next_source(self) -> None:
        """Begins another source, whose templates are told from those of the one before."""
        self.source = (self.source + 1) % SOURCES

    def forget(self) -> None:
        """Forgets everything."""
        self._plan_of: dict[tuple[bool, bytes], int] = {}
        self._plans = _Rows(CLOCKS + len(TIMED))
        self._ops = _Rows(3)
        self._ids: list[set[int]] = []
        self._options_ids: list[set[int]] = []
        self._index = empty_index(1 << 16)
        self._facts = np.full((_DOMAINS, 5), UNKNOWN, np.int64)
        self._facts[:, F_STATE] = 1
        for fields in _FIXED.values():
            self._add_plan([(0, *field) for field in fields], False)

    @property
    def known(self) -> Known:
        """What the kernel needs; valid until more is learnt."""
        return Known(self._index, self._plans.array, self._ops.array, self._facts)

    def add_domain(self, hi: int, lo: int, key: int) -> bool:
        """Numbers an exporter's domain; returns False when all had to be forgotten for it.

        Args:
            hi: Upper half of its address.
            lo: Lower half.
            key: Last word of its key, see `Known`.
        """
        room = len(self._ids) < _DOMAINS
        if not room:
            self.forget()
        self._ids.append(set())
        self._options_ids.append(set())
        enter(self._index, np.uint64(hi), np.uint64(lo), np.uint64(key), len(self._ids))
        return room

    def learn(
        self, kind: int, domain: int, stamp: int, body: bytes, digest: int
    ) -> tuple[list[int], bool]:
        """Reads a set of templates or of options templates.

        Args:
            kind: V9 or IPFIX.
            domain: Number of the exporter's domain.
            stamp: 32 bits to compare with those of data, see `flows.stamp_of`.
            body: The set, its header included.
            digest: Hash of it, under which the kernel will know it again.

        Returns:
            (ids of templates that are known now, whether the set made sense to its end).
        """
        number = struct.unpack_from(">H", body)[0]
        options = number == (3 if kind == IPFIX else 1)
        learnt = []
        try:
            for template, fields, packed in _templates(kind, options, number, body):
                if fields:
                    self._put(domain, template, self._plan(fields, options, packed), stamp)
                    (self._options_ids if options else self._ids)[domain].add(template)
                    learnt.append(template)
                else:
                    self._withdraw(domain, template, options)
        except (struct.error, ValueError):
            return learnt, False
        self._enter((domain, digest, SET_KEY), int(self._facts[domain, F_STATE]), stamp)
        return learnt, True

    def _put(self, domain: int, template: int, plan: int, stamp: int) -> None:
        key = np.uint64(domain), np.uint64(template), np.uint64(TEMPLATE_KEY)
        if find(self._index, *key) % STATES != 1 + plan:
            self._change(domain)
        self._enter((domain, template, TEMPLATE_KEY), 1 + plan, stamp)

    def _enter(self, key: tuple[int, int, int], value: int, stamp: int) -> None:
        words = (np.uint64(word) for word in key)
        enter(self._index, *words, np.uint64(value | self.source << 20 | stamp << 32))

    def _change(self, domain: int) -> None:
        self._facts[domain, F_STATE] = 1 + self._facts[domain, F_STATE] % (STATES - 1)

    def _withdraw(self, domain: int, template: int, options: bool) -> None:
        self._change(domain)
        ids = (self._options_ids if options else self._ids)[domain]
        for gone in list(ids) if template < FIRST_DATA else [template]:
            key = np.uint64(domain), np.uint64(gone), np.uint64(TEMPLATE_KEY)
            if find(self._index, *key):
                enter(self._index, *key, np.uint64(0))
            ids.discard(gone)

    def is_full(self) -> bool:
        """Returns whether it is time to forget."""
        keys = int(self._index[-1, 3])
        return (
            len(self._plans) > _PLANS
            or len(self._ops) > _FIELDS
            or keys > len(self._index) // 2 - _LONGEST_SET
        )

    def _plan(self, fields: list[_Field], options: bool, packed: bytes) -> int:
        key = options, hashlib.sha256(packed).digest()  # templates can be long
        known = self._plan_of.get(key)
        if known is None:
            known = self._plan_of[key] = self._add_plan(fields, options)
        return known

    def _add_plan(self, fields: list[_Field], options: bool) -> int:
        chosen = _choose(fields)
        variable = any(width == VARIABLE for _, _, width in fields)
        least = sum(1 if width == VARIABLE else width for _, _, width in fields)
        if least == 0:
            raise ValueError("a record without bytes")
        start, offset = len(self._ops), 0
        clocks = dict.fromkeys(TIMED, Clock.NONE)
        for place, (_, _, width) in enumerate(fields):
            meaning = chosen.get(place)
            if meaning is not None and meaning.slot in clocks:
                clocks[meaning.slot] = meaning.clock
            if variable or meaning is not None:
                slot = -1 if meaning is None else int(meaning.slot)
                self._ops.append([offset, width, slot])
            offset += width
        slots = {meaning.slot for meaning in chosen.values()}
        plan = [start, len(self._ops), 0 if variable else offset, least, int(options)]
        plan.append(int({Slot.SOURCE_V4, Slot.TARGET_V4} <= slots))
        plan.append(int({Slot.SOURCE_HI, Slot.TARGET_HI} <= slots))
        self._plans.append([*plan, *clocks.values()])
        return len(self._plans) - 1


class _Rows:
    """An array of int64 that grows by rows."""

    def __init__(self, columns: int) -> None:
        self.array = np.zeros((256, columns), np.int64)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def append(self, row: list[int]) -> None:
        if self._used == len(self.array):
            self.array = np.concatenate((self.array, np.zeros_like(self.array)))
        self.array[self._used] = row
        self._used += 1


def _choose(fields: list[_Field]) -> dict[int, _Meaning]:
    """Returns the fields that count, by their place: for each slot the best one."""
    best: dict[Slot, tuple[int, int, _Meaning]] = {}
    for place, (enterprise, element, width) in enumerate(fields):
        meaning = _meaning(enterprise, element)
        if meaning is None or not _fits(meaning.slot, width):
            continue
        offer = meaning.rank, place, meaning
        if meaning.slot not in best or offer < best[meaning.slot]:
            best[meaning.slot] = offer
    return {place: meaning for _, place, meaning in best.values()}


def _meaning(enterprise: int, element: int) -> _Meaning | None:
    if enterprise == 0:
        return _ELEMENTS.get(element)
    if enterprise == _CERT:
        return _CERT_ELEMENTS.get(element)
    if enterprise == _REVERSE and (meaning := _ELEMENTS.get(element)):
        turned = _TURNED.get(meaning.slot)
        return None if turned is None else meaning._replace(slot=turned)
    return None


def _fits(slot: Slot, width: int) -> bool:
    wanted = _WIDTHS.get(slot)
    if wanted is not None:
        return width == wanted
    return 1 <= width <= 8 or width == VARIABLE


def _templates(
    kind: int, options: bool, number: int, body: bytes
) -> Iterator[tuple[int, list[_Field], bytes]]:
    """Yields each template of a set: id, fields, and its bytes, by which it is known again.

    Without fields it withdraws the template, or all of them under the id of the set.

    Raises:
        struct.error: The set ends inside a template.
        ValueError: A template makes no sense.
    """
    at = 4
    while len(body) - at >= 4 and any(body[at : at + 4]):
        template, count = struct.unpack_from(">HH", body, at)
        start = at = at + 4
        if template < FIRST_DATA and (kind == V9 or count or template != number):
            raise ValueError("an id that no template has")
        if options and (count or kind == V9):
            count, at = _count_options(kind, count, body, at)
        fields = []
        for _ in range(count):
            element, width = struct.unpack_from(">HH", body, at)
            at += 4
            enterprise = 0
            if kind == IPFIX and element & _ENTERPRISE:
                enterprise = struct.unpack_from(">I", body, at)[0]
                element &= ~_ENTERPRISE
                at += 4
            fields.append((enterprise, element, width))
        if kind == V9 and not fields:
            raise ValueError("a template without fields")
        yield template, fields, bytes([kind]) + body[start:at]


def _count_options(kind: int, count: int, body: bytes, at: int) -> tuple[int, int]:
    """Returns how many fields an options template has, those of its scope included.

    IPFIX tells their number, then that of the scope's; v9 the bytes of both lists. Types of
    v9's scopes (system, interface…) have the numbers of counters, which options never use.
    """
    if kind == IPFIX:
        struct.unpack_from(">H", body, at)
        return count, at + 2
    size = count + struct.unpack_from(">H", body, at)[0]
    if size % 4:
        raise ValueError("lengths of options that are no fields")
    return size // 4, at + 2
