"""Data records of NetFlow and IPFIX: the kernel that runs plans, and what feeds it.

A record becomes one row, side `a` its sender. Of a record that counts one direction side `b`
is unknown: the record of the other direction, if there is one, has the same key and joins it
in the lake. Counters stay as exported, whatever the sampling rate.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit

from telemetry.loads import be16, be32, be64, u8
from telemetry.raw import I64, NEVER, PORTED, U64, UNKNOWN, RawBatch, Side
from telemetry.readers.exports.index import enter, find
from telemetry.readers.exports.messages import (
    FIRST_DATA,
    IPFIX,
    IPFIX_HEADER,
    NO_EXPORT,
    SFLOW,
    V1,
    V5,
    V7,
    V9,
    V9_HEADER,
    Datagrams,
    is_set,
    short_v1,
)
from telemetry.readers.exports.templates import (
    CLOCKS,
    DOMAIN_KEY,
    F_ACTIVE,
    F_BOOT,
    F_IDLE,
    F_RATE,
    F_STATE,
    FIXED_PLANS,
    HAS_V4,
    HAS_V6,
    LEAST_SIZE,
    OFFSET,
    OPS_FROM,
    OPS_TO,
    OPTIONS,
    SAMPLER_KEY,
    SET_KEY,
    SHORT_V1,
    SIZE,
    SLOT,
    SOURCES,
    STATES,
    TEMPLATE_KEY,
    TIMED,
    VARIABLE,
    WIDTH,
    Clock,
    Slot,
    Templates,
)
from telemetry.readers.packets.capture import LAST_TIME
from telemetry.readers.packets.decode import request_type
from telemetry.reasons import Reason

ROWS = 65_000
"""Records of one batch; no power of two, whose columns would share a few lines of the cache."""
_HELD_BYTES = 1 << 24
"""Bytes, with what keeping them costs, of data that waits for its template."""
_HELD_COST = 200
# Seconds by which stamps of a template and of data may differ. An exporter repeats its
# templates over UDP, commonly every ten to thirty minutes (RFC 7011, 8.4). Of files nobody
# knows which exporter wrote them: a template of another file is one's own if the exporter
# started at the same moment, or, of IPFIX, which does not tell, about the same time.
_LIFETIME, _SAME_START, _ABOUT = 86_400, 60, 1800
# Seconds for which a template that is repeated need not be renewed.
_FRESH = 3600

# What the kernel stopped at.
_DONE, _FULL, _NEW_DOMAIN, _TEMPLATES, _NO_TEMPLATE = range(5)
# Where it stands: number of the datagram, offsets in it of the set, of the set's end and of the
# next record (0: none begun), number of the domain, hash of the set.
_AT, _SET, _SET_END, _RECORD, _DOMAIN, _DIGEST = range(6)

_KEPT = int(Reason.KEPT)
_MALFORMED = int(Reason.MALFORMED_ROW)
_NO_ADDRESS = int(Reason.NO_ADDRESS)
_BAD_TIME = int(Reason.BAD_TIME)
_NOT_AN_EXPORT = int(Reason.NOT_AN_EXPORT)

# Columns of the rows: of the record, and of each of its sides.
A_PORT, B_PORT, PROTOCOL, RATE, ACTIVE, IDLE, RECORD_COLUMNS = range(7)
PACKETS, BYTES, LEAST, MOST, FLAGS, FIRST, LAST, SIDE_COLUMNS = range(8)
_COLUMNS = RECORD_COLUMNS + 2 * SIDE_COLUMNS

_SLOTS = len(Slot)
_SOURCE_HI, _SOURCE_LO = int(Slot.SOURCE_HI), int(Slot.SOURCE_LO)
_TARGET_HI, _TARGET_LO = int(Slot.TARGET_HI), int(Slot.TARGET_LO)
_SOURCE_V4, _TARGET_V4 = int(Slot.SOURCE_V4), int(Slot.TARGET_V4)
_S_VERSION, _S_PROTOCOL = int(Slot.IP_VERSION), int(Slot.PROTOCOL)
_S_SOURCE_PORT, _S_TARGET_PORT = int(Slot.SOURCE_PORT), int(Slot.TARGET_PORT)
_S_ICMP_V4, _S_ICMP_V6 = int(Slot.ICMP_V4), int(Slot.ICMP_V6)
_S_TYPE_V4, _S_TYPE_V6 = int(Slot.ICMP_V4_TYPE), int(Slot.ICMP_V6_TYPE)
_S_PACKETS, _S_BYTES = int(Slot.PACKETS), int(Slot.BYTES)
_S_POST_PACKETS, _S_POST_BYTES = int(Slot.POST_PACKETS), int(Slot.POST_BYTES)
_S_LEAST, _S_MOST = int(Slot.LEAST), int(Slot.MOST)
_S_FLAGS, _S_BACK_FLAGS = int(Slot.FLAGS), int(Slot.BACK_FLAGS)
_S_BACK_PACKETS, _S_BACK_BYTES = int(Slot.BACK_PACKETS), int(Slot.BACK_BYTES)
_T_FIRST, _T_LAST, _T_BACK_FIRST, _T_BACK_LAST, _T_OBSERVED, _T_DURATION = map(int, TIMED)
_S_RATE, _S_INTERVAL, _S_SPACE = int(Slot.RATE), int(Slot.INTERVAL), int(Slot.SPACE)
_S_SAMPLED, _S_POPULATION = int(Slot.SAMPLED), int(Slot.POPULATION)
_S_SAMPLER, _S_BOOT = int(Slot.SAMPLER), int(Slot.BOOT)
_S_ACTIVE, _S_IDLE = int(Slot.ACTIVE), int(Slot.IDLE)
_SECONDS, _MILLISECONDS, _NTP = int(Clock.SECONDS), int(Clock.MILLISECONDS), int(Clock.NTP)
_AGO, _UPTIME, _MICROSECONDS = int(Clock.AGO), int(Clock.UPTIME), int(Clock.MICROSECONDS)
_PLAN_V1, _PLAN_V5 = FIXED_PLANS[V1], FIXED_PLANS[V5]
_PLAN_V7, _PLAN_SHORT_V1 = FIXED_PLANS[V7], FIXED_PLANS[SHORT_V1]
_OUT_OF_RANGE = -1
_NTP_EPOCH = 2_208_988_800  # 1970, in seconds since 1900
_V4_PREFIX = np.uint64(0xFFFF00000000)
_ICMP, _ICMP6 = 1, 58
_u = np.uint64
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


class Rows(NamedTuple):
    """Rows being filled.

    Attributes:
        addresses: Halves of both addresses, shape (4, ROWS).
        numbers: All other columns, shape (_COLUMNS, ROWS).
        used: Number of rows, shape (1,).
        counts: Items by `Reason`, of all rows ever.
    """

    addresses: U64
    numbers: I64
    used: I64
    counts: I64

    @classmethod
    def empty(cls, counts: I64) -> Rows:
        """Returns rows to fill, with the counts so far."""
        return cls(
            np.empty((4, ROWS), np.uint64),
            np.empty((_COLUMNS, ROWS), np.int64),
            np.zeros(1, np.int64),
            counts,
        )

    def batch(self) -> RawBatch:
        """Returns the rows as a batch, which keeps their arrays."""
        n = int(self.used[0])
        a_port, b_port, protocol, rate, active, idle = self.numbers[:RECORD_COLUMNS, :n]
        a_hi, a_lo, b_hi, b_lo = self.addresses[:, :n]
        zero = np.zeros(n, np.int64)
        return RawBatch(
            a_hi,
            a_lo,
            b_hi,
            b_lo,
            a_port,
            b_port,
            protocol,
            tunnel=zero,
            outer=zero,
            sampling_rate=rate,
            active_timeout=active,
            idle_timeout=idle,
            a=self._side(n, RECORD_COLUMNS),
            b=self._side(n, RECORD_COLUMNS + SIDE_COLUMNS),
        )

    def _side(self, n: int, column: int) -> Side:
        packets, octets, least, most, flags, first, last = self.numbers[column:, :n][:SIDE_COLUMNS]
        payload = np.full(n, UNKNOWN, np.int64)
        return Side(packets, octets, payload, least, most, flags, first, last)


@njit(cache=True, nogil=True)
def _moment(clock, number, exported, uptime, boot):
    """Converts a time to microseconds since 1970.

    Args:
        clock: A value of `Clock`.
        number: What the record says, below 0 for nothing (but of NTP).
        exported: When the message was exported, in microseconds since 1970.
        uptime: Milliseconds the exporter had run by then, or UNKNOWN.
        boot: When it started, in milliseconds since 1970, or UNKNOWN.

    Returns:
        NEVER when nothing is said, _OUT_OF_RANGE when it is no time.
    """
    if clock == _NTP:
        if number == 0 or number == -1:
            return NEVER
        seconds = np.int64(_u(number) >> _u(32))
        if seconds < 1 << 31:
            seconds += 1 << 32  # the count of seconds since 1900 starts anew in 2036
        fraction = number & 0xFFFFFFFF
        time = (seconds - _NTP_EPOCH) * 1_000_000 + ((fraction * 1_000_000) >> 32)
    elif clock == 0 or number < 0:
        return NEVER
    elif clock == _SECONDS:
        time = number * 1_000_000 if number < LAST_TIME // 1_000_000 else _OUT_OF_RANGE
    elif clock == _MILLISECONDS:
        time = number * 1000 if number < LAST_TIME // 1000 else _OUT_OF_RANGE
    elif clock == _AGO:
        time = exported - number if number < LAST_TIME else _OUT_OF_RANGE
    elif uptime >= 0:
        # The counter of 32 bits starts anew every 49 days; the nearer one is meant.
        ago = (uptime - number) & 0xFFFFFFFF
        time = exported - (ago if ago < 1 << 31 else ago - (1 << 32)) * 1000
    elif 0 <= boot < LAST_TIME // 1000 and number < LAST_TIME // 1000:
        time = (boot + number) * 1000
    else:
        return NEVER
    return time if 0 <= time < LAST_TIME else _OUT_OF_RANGE


@njit(cache=True, nogil=True)
def _span(plan, values, exported, uptime, boot):
    """Returns the first and the last moment of a record, as near as it tells."""
    first = _moment(plan[CLOCKS], values[_T_FIRST], exported, uptime, boot)
    last = _moment(plan[CLOCKS + 1], values[_T_LAST], exported, uptime, boot)
    if first != NEVER and last != NEVER:
        return first, last
    observed = _moment(plan[CLOCKS + 4], values[_T_OBSERVED], exported, uptime, boot)
    if first == NEVER and last == NEVER:
        moment = exported if observed == NEVER else observed
        return moment, moment
    span = values[_T_DURATION]
    if plan[CLOCKS + 5] == _MILLISECONDS:
        span *= 1000
    told = plan[CLOCKS + 5] != 0 and 0 <= span < LAST_TIME
    if last == NEVER:
        if told:
            return first, first + span
        return first, max(first, observed)  # NEVER is the least number
    return last - span if told else last, last


@njit(cache=True, nogil=True)
def _rate_of(values):
    """Returns the sampling rate that a record states, UNKNOWN if it does not."""
    if values[_S_RATE] > 0:
        return values[_S_RATE]
    taken = values[_S_INTERVAL]
    if taken > 0:
        # Without the packets left out, exporters mean by the interval one packet of so many.
        space = values[_S_SPACE]
        return taken if space < 0 else (taken + space + taken // 2) // taken
    taken = values[_S_SAMPLED]
    if taken > 0 and values[_S_POPULATION] >= taken:
        return (values[_S_POPULATION] + taken // 2) // taken
    return UNKNOWN


@njit(cache=True, nogil=True)
def _ports(values, protocol):
    """Returns what stands for the ports, see `raw.RawBatch`."""
    source, target = max(values[_S_SOURCE_PORT], 0), max(values[_S_TARGET_PORT], 0)
    if protocol in PORTED or values[_S_PROTOCOL] < 0:
        return source, target
    if protocol == _ICMP or protocol == _ICMP6:
        one = _S_TYPE_V4 if protocol == _ICMP else _S_TYPE_V6
        both = values[_S_ICMP_V4 if protocol == _ICMP else _S_ICMP_V6]
        if values[one] >= 0:
            kind, code = values[one], max(values[one + 1], 0)
        else:
            # Formats without a field for it, v5 before all, have it in the target's port.
            both = both if both >= 0 else target
            kind, code = both >> 8, both & 0xFF
        return request_type(protocol, kind), code
    return 0, 0


@njit(cache=True, nogil=True, inline="always")
def _flags(values, slot):
    """Returns the TCP flags in a slot and the one after it, UNKNOWN if neither tells."""
    one, more = values[slot], values[slot + 1]
    if one < 0 and more < 0:
        return UNKNOWN
    return (max(one, 0) | max(more, 0)) & 0xFF


@njit(cache=True, nogil=True, inline="always")
def _put_address(plan, values, addresses, row):
    """Writes both addresses; returns False when the record has none."""
    six = plan[HAS_V6] != 0
    if six and plan[HAS_V4]:
        version = values[_S_VERSION]
        four = values[_SOURCE_V4] != 0 or values[_TARGET_V4] != 0
        six = version == 6 if version == 4 or version == 6 else not four
    if six:
        addresses[0, row], addresses[1, row] = _u(values[_SOURCE_HI]), _u(values[_SOURCE_LO])
        addresses[2, row], addresses[3, row] = _u(values[_TARGET_HI]), _u(values[_TARGET_LO])
        return True
    if not plan[HAS_V4]:
        return False
    addresses[0, row] = addresses[2, row] = _u(0)
    addresses[1, row] = _V4_PREFIX | _u(values[_SOURCE_V4])
    addresses[3, row] = _V4_PREFIX | _u(values[_TARGET_V4])
    return True


@njit(cache=True, nogil=True)
def _put_row(plan, values, exported, uptime, boot, rate, active, idle, rows):
    """Turns the values of a record into a row.

    Returns:
        A value of `Reason`; the row is used when it is KEPT.
    """
    row = rows.used[0]
    out = rows.numbers
    if not _put_address(plan, values, rows.addresses, row):
        return _NO_ADDRESS
    first, last = _span(plan, values, exported, uptime, boot)
    if not (0 <= first < LAST_TIME and 0 <= last < LAST_TIME):
        return _BAD_TIME
    protocol = max(values[_S_PROTOCOL], 0)
    out[A_PORT, row], out[B_PORT, row] = _ports(values, protocol)
    out[PROTOCOL, row] = protocol
    out[RATE, row] = max(rate, 1)
    out[ACTIVE, row] = values[_S_ACTIVE] if values[_S_ACTIVE] > 0 else active
    out[IDLE, row] = values[_S_IDLE] if values[_S_IDLE] > 0 else idle
    packets, octets = max(values[_S_PACKETS], UNKNOWN), max(values[_S_BYTES], UNKNOWN)
    if (
        packets <= 0
        and octets <= 0
        and (values[_S_POST_PACKETS] >= 0 or values[_S_POST_BYTES] >= 0)
    ):
        # What is observed on its way out some exporters count nowhere else.
        packets = max(values[_S_POST_PACKETS], UNKNOWN)
        octets = max(values[_S_POST_BYTES], UNKNOWN)
    b_packets = max(values[_S_BACK_PACKETS], UNKNOWN)
    b_octets = max(values[_S_BACK_BYTES], UNKNOWN)
    answered = b_packets > 0 or (b_packets < 0 and b_octets > 0)
    silent = packets == 0 or (packets < 0 and octets == 0)
    a = RECORD_COLUMNS
    out[a + PACKETS, row] = packets
    out[a + BYTES, row] = octets
    out[a + LEAST, row] = values[_S_LEAST] if values[_S_LEAST] > 0 else UNKNOWN
    out[a + MOST, row] = values[_S_MOST] if values[_S_MOST] > 0 else UNKNOWN
    out[a + FLAGS, row] = _flags(values, _S_FLAGS)
    out[a + FIRST, row] = NEVER if silent and answered else first
    out[a + LAST, row] = NEVER if silent and answered else last
    b = a + SIDE_COLUMNS
    out[b + PACKETS, row] = b_packets
    out[b + BYTES, row] = b_octets
    out[b + LEAST, row] = UNKNOWN
    out[b + MOST, row] = UNKNOWN
    out[b + FLAGS, row] = _flags(values, _S_BACK_FLAGS)
    out[b + FIRST, row] = NEVER
    out[b + LAST, row] = NEVER
    if answered:
        b_first = _moment(plan[CLOCKS + 2], values[_T_BACK_FIRST], exported, uptime, boot)
        b_last = _moment(plan[CLOCKS + 3], values[_T_BACK_LAST], exported, uptime, boot)
        if b_first == _OUT_OF_RANGE or b_last == _OUT_OF_RANGE:
            return _BAD_TIME
        out[b + FIRST, row] = first if b_first == NEVER else b_first
        out[b + LAST, row] = last if b_last == NEVER else b_last
    rows.used[0] = row + 1
    return _KEPT


@njit(cache=True, nogil=True, inline="always")
def _load(at, width, slot, values):
    """Reads a field of 1 to 8 bytes, or an IPv6 address into two slots."""
    if width == 16:
        values[slot] = np.int64(be64(at))
        values[slot + 1] = np.int64(be64(at + _u(8)))
    else:
        # From its last byte backwards, where there is always a header before it.
        word = be64(at + _u(width) - _u(8))
        values[slot] = np.int64(word & (_ALL >> _u(64 - 8 * width)))


@njit(cache=True, nogil=True)
def _load_variable(base, at, end, ops, first, last, values):
    """Reads a record with fields of variable length.

    Returns:
        Where it ends, or -1 when it goes beyond the end of the set.
    """
    for op in range(first, last):
        width = ops[op, WIDTH]
        if width == VARIABLE:
            if at + 1 > end:
                return -1
            width = u8(base + _u(at))
            at += 1
            if width == 255:
                if at + 2 > end:
                    return -1
                width = be16(base + _u(at))
                at += 2
        if at + width > end:
            return -1
        slot = ops[op, SLOT]
        wide = width == 16 and (slot == _SOURCE_HI or slot == _TARGET_HI)
        if slot >= 0 and (1 <= width <= 8 or wide):
            _load(base + _u(at), width, slot, values)
        at += width
    return at


@njit(cache=True, nogil=True)
def _note_options(values, domain, known):
    """Keeps what options tell of an exporter: sampling, timeouts, its start."""
    rate = _rate_of(values)
    if rate > 0:
        if values[_S_SAMPLER] >= 0:
            key = _u(values[_S_SAMPLER])
            enter(known.keys, _u(domain), key, _u(SAMPLER_KEY), min(rate, 1 << 31))
        else:
            known.facts[domain, F_RATE] = rate
    if values[_S_ACTIVE] > 0:
        known.facts[domain, F_ACTIVE] = values[_S_ACTIVE]
    if values[_S_IDLE] > 0:
        known.facts[domain, F_IDLE] = values[_S_IDLE]
    if values[_S_BOOT] > 0:
        known.facts[domain, F_BOOT] = values[_S_BOOT]


@njit(cache=True, nogil=True)
def _run_plan(base, at, end, number, exported, uptime, domain, default, known, values, rows):
    """Decodes records until the set ends, or there is no room.

    Args:
        base: Memory address of the message.
        at: Offset of the next record.
        end: Offset of the end of the set.
        number: Of the plan.
        exported: When the message was exported, in microseconds since 1970.
        uptime: See `_moment`.
        domain: Number of the exporter's domain, -1 for formats without.
        default: Sampling rate where a record tells none.
        known: What is known of exporters.
        values: Scratch, one int64 for each slot.
        rows: Filled.

    Returns:
        (offset of what is left, below 0 when a record goes beyond the set, whether rows are full).
    """
    plan = known.plans[number]
    ops, first, last = known.ops, plan[OPS_FROM], plan[OPS_TO]
    size, least = plan[SIZE], plan[LEAST_SIZE]
    active = idle = boot = UNKNOWN
    values[:] = UNKNOWN
    while end - at >= least:
        if rows.used[0] == ROWS:
            return at, True
        if size:
            record = base + _u(at)
            for op in range(first, last):
                _load(record + _u(ops[op, OFFSET]), ops[op, WIDTH], ops[op, SLOT], values)
            at += size
        else:
            values[:] = UNKNOWN
            at = _load_variable(base, at, end, ops, first, last, values)
            if at < 0:
                return at, False
        if plan[OPTIONS]:
            _note_options(values, domain, known)
            continue
        rate = UNKNOWN
        if domain >= 0:
            if values[_S_SAMPLER] >= 0:
                key = _u(values[_S_SAMPLER])
                rate = find(known.keys, _u(domain), key, _u(SAMPLER_KEY))
            active, idle = known.facts[domain, F_ACTIVE], known.facts[domain, F_IDLE]
            boot = values[_S_BOOT] if values[_S_BOOT] > 0 else known.facts[domain, F_BOOT]
        if rate < 1:
            rate = _rate_of(values)
        if rate < 1:
            rate = default
        reason = _put_row(plan, values, exported, uptime, boot, rate, active, idle, rows)
        rows.counts[reason] += 1
    return at, False


@njit(cache=True, nogil=True)
def _decode_fixed(base, captured, kind, cursor, known, values, rows):
    """Decodes a message of v1, v5 or v7."""
    exported = be32(base + _u(8)) * 1_000_000 + be32(base + _u(12)) // 1000
    uptime = be32(base + _u(4))
    header, number, rate = 24, _PLAN_V7, 1
    if kind == V1:
        header, number = 16, _PLAN_V1
        if captured == short_v1(be16(base + _u(2))):
            number = _PLAN_SHORT_V1
    elif kind == V5:
        number = _PLAN_V5
        if captured >= header:
            rate = be16(base + _u(22)) & 0x3FFF  # the upper two bits tell how it is sampled
    at = cursor[_RECORD] if cursor[_RECORD] else header
    at, full = _run_plan(
        base, at, captured, number, exported, uptime, -1, rate, known, values, rows
    )
    if full:
        cursor[_RECORD] = at
        return _FULL
    return _DONE if at == captured else _MALFORMED_REST


_MALFORMED_REST = 100


@njit(cache=True, nogil=True)
def stamp_of(base, kind, transient):
    """Returns what decides whether a template is still, or at all, that of some data.

    Args:
        base: Memory address of a message of v9 or IPFIX.
        kind: V9 or IPFIX.
        transient: Whether it came over the network; otherwise it is of a file.

    Returns:
        The second of its export, since 1970; of v9 in a file that of the exporter's start.
    """
    if kind == IPFIX:
        return be32(base + _u(4))
    second = be32(base + _u(8))
    return second if transient else (second - be32(base + _u(4)) // 1000) & 0xFFFFFFFF


@njit(cache=True, nogil=True)
def _template_of(known, domain, number, base, kind, source, transient):
    """Returns the plan of a set's template, -1 when it is not known, or void."""
    value = find(known.keys, _u(domain), _u(number), _u(TEMPLATE_KEY))
    if value == 0:
        return -1
    age = abs(stamp_of(base, kind, transient) - ((value >> 32) & 0xFFFFFFFF))
    limit = _SAME_START if kind == V9 else _ABOUT
    own = (value >> 20) & (SOURCES - 1) == source
    if age > _LIFETIME if transient else age > limit and not own:
        return -1
    return (value & 0xFFFFF) - 1


@njit(cache=True, nogil=True)
def _digest(keys, base, at, end):
    """Returns a hash of some bytes, under the secret factors of the index."""
    factor = keys[keys.shape[0] - 1, 1]
    h = _u(end - at)
    while at + 4 <= end:
        h = (h ^ _u(be32(base + _u(at)))) * factor
        h ^= h >> _u(29)
        at += 4
    while at < end:
        h = (h ^ _u(u8(base + _u(at)))) * factor
        h ^= h >> _u(29)
        at += 1
    return h


@njit(cache=True, nogil=True)
def _is_in_force(known, domain, digest, stamp, source):
    """Returns whether a set of templates says what is known already."""
    value = find(known.keys, _u(domain), digest, _u(SET_KEY))
    state = value & (STATES - 1)
    same = state == known.facts[domain, F_STATE] and (value >> 20) & (SOURCES - 1) == source
    return same and abs(stamp - ((value >> 32) & 0xFFFFFFFF)) < _FRESH


@njit(cache=True, nogil=True)
def _is_zero(base, at, end):
    while at < end:
        if u8(base + _u(at)):
            return False
        at += 1
    return True


@njit(cache=True, nogil=True)
def _decode_sets(datagrams, i, cursor, known, source, transient, values, rows):
    """Decodes a message of v9 or IPFIX, from where the cursor stands."""
    base, kind = datagrams.address[i], datagrams.kind[i]
    end = min(datagrams.captured[i], datagrams.size[i])
    if kind == V9:
        header, uptime, second = V9_HEADER, be32(base + _u(4)), be32(base + _u(8))
        identity = be32(base + _u(16))
    else:
        header, uptime, second = IPFIX_HEADER, UNKNOWN, be32(base + _u(4))
        identity = be32(base + _u(12))
    key = _u(DOMAIN_KEY) | _u(datagrams.port[i]) << _u(36) | _u(kind) << _u(32) | _u(identity)
    domain = find(known.keys, datagrams.hi[i], datagrams.lo[i], key) - 1
    if domain < 0:
        return _NEW_DOMAIN
    cursor[_DOMAIN] = domain
    at = max(cursor[_SET], header)
    while at < end:
        if end - at < 4 or be32(base + _u(at)) == 0:
            step = min(4, end - at)
            if not _is_zero(base, at, at + step):
                return _MALFORMED_REST
            at += step
            continue
        number, length = be16(base + _u(at)), be16(base + _u(at + 2))
        if not is_set(kind, number, length) or length > datagrams.size[i] - at:
            return _MALFORMED_REST
        stop = min(at + length, end)
        cursor[_SET], cursor[_SET_END] = at, stop
        if number < FIRST_DATA:
            digest = _digest(known.keys, base, at, stop)
            stamp = stamp_of(base, kind, transient)
            if not _is_in_force(known, domain, digest, stamp, source):
                cursor[_DIGEST] = np.int64(digest)
                return _TEMPLATES
            at += length
            continue
        plan = _template_of(known, domain, number, base, kind, source, transient)
        if plan < 0 and length > 4:
            return _NO_TEMPLATE
        if plan >= 0:
            record = max(cursor[_RECORD], at + 4)
            record, full = _run_plan(
                base,
                record,
                stop,
                plan,
                second * 1_000_000,
                uptime,
                domain,
                known.facts[domain, F_RATE],
                known,
                values,
                rows,
            )
            if full:
                cursor[_RECORD] = record
                return _FULL
            cursor[_RECORD] = 0
            # Fewer than four bytes align the set; some exporters leave old bytes there.
            if record < 0 or (stop - record > 3 and not _is_zero(base, record, stop)):
                return _MALFORMED_REST
        at += length
    return _DONE if at == end == datagrams.size[i] else _MALFORMED_REST


@njit(cache=True, nogil=True)
def _decode(datagrams, n, cursor, known, source, transient, values, rows):
    """Decodes messages until all are, or something is left to Python.

    Returns:
        _DONE, _FULL (take the rows), _NEW_DOMAIN (number it), _TEMPLATES (learn the set at the
        cursor, go on behind it) or _NO_TEMPLATE (keep the set, go on behind it).
    """
    while cursor[_AT] < n:
        i = cursor[_AT]
        kind = datagrams.kind[i]
        status = _DONE
        if kind == NO_EXPORT:
            rows.counts[_NOT_AN_EXPORT] += 1
        elif kind == V9 or kind == IPFIX:
            status = _decode_sets(datagrams, i, cursor, known, source, transient, values, rows)
        elif kind != SFLOW:
            base, captured = datagrams.address[i], datagrams.captured[i]
            status = _decode_fixed(base, captured, kind, cursor, known, values, rows)
        if status == _MALFORMED_REST:
            rows.counts[_MALFORMED] += 1
        elif status != _DONE:
            return status
        cursor[_AT] += 1
        cursor[_SET] = cursor[_RECORD] = 0
    return _DONE


class FlowDecoder:
    """Decodes the messages of one source."""

    def __init__(self, templates: Templates, counts: I64, transient: bool) -> None:
        """Starts a source.

        Args:
            templates: What is known, added to.
            counts: Records by `Reason`, added to.
            transient: Whether messages came over the network, where templates expire.
        """
        self._templates = templates
        templates.next_source()
        self._transient = transient
        self._values = np.empty(_SLOTS, np.int64)
        self._rows = Rows.empty(counts)
        self._held: dict[tuple[int, int], list[tuple[bytes, int, int, int]]] = {}
        self._room = _HELD_BYTES

    def decode(self, datagrams: Datagrams, n: int, may_wait: bool = True) -> Iterator[RawBatch]:
        """Yields the rows of the first `n` messages, as far as they fill batches.

        Data without a template waits for it if it may, and is counted otherwise.
        """
        cursor = np.zeros(6, np.int64)
        while True:
            known = self._templates.known
            source = self._templates.source
            status = _decode(
                datagrams, n, cursor, known, source, self._transient, self._values, self._rows
            )
            if status == _DONE:
                return
            if status == _FULL:
                yield self._take()
            elif status == _NEW_DOMAIN:
                self._add_domain(datagrams, int(cursor[_AT]))
            elif status == _TEMPLATES:
                yield from self._learn(datagrams, cursor)
            else:
                self._hold(datagrams, cursor, may_wait)

    def finish(self) -> Iterator[RawBatch]:
        """Yields what is left; counts data whose template never came."""
        self._give_up()
        if self._rows.used[0]:
            yield self._take()

    def _take(self) -> RawBatch:
        batch = self._rows.batch()
        self._rows = Rows.empty(self._rows.counts)
        return batch

    def _add_domain(self, datagrams: Datagrams, i: int) -> None:
        kind = int(datagrams.kind[i])
        at = 16 if kind == V9 else 12
        identity = int.from_bytes(_bytes_of(datagrams, i, at, at + 4))
        key = DOMAIN_KEY | int(datagrams.port[i]) << 36 | kind << 32 | identity
        if not self._templates.add_domain(int(datagrams.hi[i]), int(datagrams.lo[i]), key):
            self._give_up()

    def _learn(self, datagrams: Datagrams, cursor: I64) -> Iterator[RawBatch]:
        """Learns the templates of the set at the cursor, and decodes what waited for them."""
        i, start, stop, domain = (int(cursor[c]) for c in (_AT, _SET, _SET_END, _DOMAIN))
        kind = int(datagrams.kind[i])
        if self._templates.is_full():
            self._templates.forget()
            self._give_up()
            return  # the set is met again, under a new number of its domain
        stamp = int(stamp_of(datagrams.address[i], kind, self._transient))
        body = _bytes_of(datagrams, i, start, stop)
        digest = int(cursor[_DIGEST]) & 0xFFFFFFFFFFFFFFFF
        learnt, whole = self._templates.learn(kind, domain, stamp, body, digest)
        whole &= len(body) == int.from_bytes(body[2:4])
        if not whole:
            stop = int(datagrams.captured[i])
            # Of a message that was cut the kernel counts the rest.
            self._rows.counts[_MALFORMED] += stop == datagrams.size[i]
        cursor[_SET] = stop
        for template in learnt:
            if held := self._held.pop((domain, template), None):
                yield from self._retry(kind, held)

    def _hold(self, datagrams: Datagrams, cursor: I64, may_wait: bool) -> None:
        """Keeps the set at the cursor, with its message's header, until its template comes."""
        i, start, stop, domain = (int(cursor[c]) for c in (_AT, _SET, _SET_END, _DOMAIN))
        header = V9_HEADER if datagrams.kind[i] == V9 else IPFIX_HEADER
        needed = header + stop - start + _HELD_COST
        if not may_wait or needed > self._room:
            self._rows.counts[int(Reason.NO_TEMPLATE)] += 1
        else:
            self._room -= needed
            data = _bytes_of(datagrams, i, 0, header) + _bytes_of(datagrams, i, start, stop)
            exporter = int(datagrams.hi[i]), int(datagrams.lo[i]), int(datagrams.port[i])
            key = domain, int.from_bytes(data[header : header + 2])
            self._held.setdefault(key, []).append((data, *exporter))
        cursor[_SET] = stop

    def _retry(self, kind: int, held: list[tuple[bytes, int, int, int]]) -> Iterator[RawBatch]:
        messages, hi, lo, port = zip(*held, strict=True)
        buffer = np.frombuffer(b"".join(messages), np.uint8)
        sizes = np.array([len(message) for message in messages])
        datagrams = Datagrams.empty(len(held))
        datagrams.address[:] = buffer.ctypes.data + np.cumsum(sizes) - sizes
        datagrams.captured[:] = datagrams.size[:] = sizes
        datagrams.hi[:], datagrams.lo[:], datagrams.port[:] = hi, lo, port
        datagrams.kind[:] = kind
        self._room += len(buffer) + _HELD_COST * len(held)
        # Once: what this template does not fit, no later one will.
        yield from self.decode(datagrams, len(held), may_wait=False)

    def _give_up(self) -> None:
        """Counts what waits for a template that did not come."""
        self._rows.counts[int(Reason.NO_TEMPLATE)] += sum(map(len, self._held.values()))
        self._held.clear()
        self._room = _HELD_BYTES


def _bytes_of(datagrams: Datagrams, i: int, start: int, stop: int) -> bytes:
    return ctypes.string_at(int(datagrams.address[i]) + start, stop - start)
