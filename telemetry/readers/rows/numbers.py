"""From texts to numbers: counts, times, ports, protocols, flags, addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import numpy as np

from telemetry.raw import I64, U64, UNKNOWN
from telemetry.readers.rows import kernels
from telemetry.readers.rows.texts import Flags, Table, Texts

Unit: TypeAlias = Literal["s", "ms", "us", "ns"]
"""Units of numbers that are times or durations."""

PROTOCOLS = {
    "hopopt": 0,
    "ip": 0,
    "unknown_transport": 0,
    "icmp": 1,
    "igmp": 2,
    "ggp": 3,
    "ipip": 4,
    "ipnip": 4,
    "ipv4": 4,
    "st": 5,
    "st2": 5,
    "tcp": 6,
    "egp": 8,
    "igp": 9,
    "udp": 17,
    "rdp": 27,
    "dccp": 33,
    "ipv6": 41,
    "ipv6-route": 43,
    "ipv6-frag": 44,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmp6": 58,
    "icmpv6": 58,
    "ipv6-icmp": 58,
    "ipv6-no": 59,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "eigrp": 88,
    "ospf": 89,
    "ospfigp": 89,
    "ospfig": 89,
    "etherip": 97,
    "encap": 98,
    "pim": 103,
    "ipcomp": 108,
    "vrrp": 112,
    "l2tp": 115,
    "isis": 124,
    "sctp": 132,
    "mobility": 135,
    "udplite": 136,
    "udplt": 136,
    "mpls-in-ip": 137,
}
"""IANA's numbers by its keywords and by the names that flow tools print, in small letters."""
ICMP, TCP, ICMP6 = 1, 6, 58
NO_TYPE = 255
"""Type and code of ICMP where none is told: reserved, and in no use (RFC 4727)."""
REQUESTS = {
    (ICMP, 0): 8,
    (ICMP, 14): 13,
    (ICMP, 16): 15,
    (ICMP, 18): 17,
    (ICMP6, 129): 128,
    (ICMP6, 140): 139,
}
"""ICMP types of replies, by protocol, and the request under which both are one record."""

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
LETTERS = np.full(256, UNKNOWN, dtype=np.int64)
"""TCP flags by the letters that flow tools print, blanks and fillers included."""
for _letters, _bits in (
    ("Ff", FIN),
    ("Ss", SYN),
    ("Rr", RST),
    ("Pp", PSH),
    ("Aa", ACK),
    ("Uu", URG),
    ("Ee", ECE),
    ("Cc", CWR),
    (" .-*_,|", 0),
):
    for _letter in _letters:
        LETTERS[ord(_letter)] = _bits

Addresses: TypeAlias = tuple[U64, U64, Flags]
"""Upper and lower halves of addresses, and which rows have one."""
Kind: TypeAlias = Literal["count", "name", "span", "time"]
_PLACES = {"s": 6, "ms": 3, "us": 0, "ns": -3}
_NOTHING = ("-", "(empty)", "null", "NULL", "None", "nan", "NaN", "N/A")
_MILLISECONDS = 10**17  # larger times, in microseconds, were milliseconds
_LARGEST = 2**53  # no record counts more
_UNREADABLE = -2


class Numbers:
    """Turns the columns of a table into numbers.

    Attributes:
        table: Where the texts stand.
        bad: Rows in which some field did not parse; grows with every conversion.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._unset = np.frombuffer(table.unset.encode(), dtype=np.uint8)
        self.bad: Flags = np.zeros(len(table), dtype=np.bool_)

    def times(self, name: str, unit: Unit = "s") -> I64:
        """Returns times in microseconds since 1970, UNKNOWN where unset.

        Dates are read whatever the unit; seconds too large to be any are milliseconds.
        """
        return self._decimals(self.table.get(name), _PLACES[unit], "time")

    def durations(self, name: str, unit: Unit = "s") -> I64:
        """Returns durations in microseconds, UNKNOWN where unset."""
        micros = self._decimals(self.table.get(name), _PLACES[unit], "span")
        self.bad |= micros >= _MILLISECONDS
        return micros

    def counts(self, name: str, largest: int = _LARGEST) -> I64:
        """Returns whole numbers up to `largest`, UNKNOWN where unset."""
        counts = self._decimals(self.table.get(name), 0, "count")
        self.bad |= counts > largest
        return counts

    def ports(self, name: str) -> I64:
        """Returns ports, or what stands in their place; UNKNOWN where unset."""
        return self.counts(name, 0xFFFF)

    def protocols(self, name: str, version6: Flags | None = None) -> I64:
        """Returns IANA numbers, UNKNOWN where unset or a name that is none.

        Args:
            name: The column.
            version6: Rows of IPv6, where ICMP means ICMPv6.
        """
        texts = self.table.get(name)
        protocol = looked_up(texts, PROTOCOLS)
        rest = np.flatnonzero(protocol == UNKNOWN)
        if len(rest):
            protocol[rest] = self._decimals(texts.only(rest), 0, "name", rest)
            self.bad |= protocol > 0xFF
        if version6 is not None:
            protocol[(protocol == ICMP) & version6] = ICMP6
        return protocol

    def tcp_flags(self, name: str, hexadecimal: bool = False) -> I64:
        """Returns TCP flags, UNKNOWN where unset.

        They are a number, `0x…`, or letters with or without fillers, such as `..A.S.`; the
        flags above the eighth are left out.

        Args:
            name: The column.
            hexadecimal: Whether numbers are hexadecimal though no `0x` stands before them.
        """
        texts = self.table.get(name)
        flags = np.zeros(len(texts), dtype=np.int64)
        odd = np.ones(len(texts), dtype=np.bool_)
        if hexadecimal:
            odd = kernels.hexadecimals(
                texts.data, texts.starts, texts.ends, self._unset, False, flags
            )
            self.bad |= odd
        else:
            odd = kernels.letters(texts.data, texts.starts, texts.ends, self._unset, LETTERS, flags)
            rest = np.flatnonzero(odd)
            flags[rest] = self._decimals(texts.only(rest), 0, "count", rest)
        return np.where(flags < 0, flags, flags & 0xFF)

    def letters(self, name: str, table: I64) -> I64:
        """Returns the OR of what `table` says of each letter of a text, UNKNOWN where unset."""
        texts = self.table.get(name)
        flags = np.zeros(len(texts), dtype=np.int64)
        kernels.letters(texts.data, texts.starts, texts.ends, self._unset, table, flags)
        return flags

    def _decimals(self, texts: Texts, places: int, kind: Kind, rows: I64 | None = None) -> I64:
        """Returns numbers of 0 or more times 10**places, UNKNOWN where unset or bad.

        Args:
            texts: The texts.
            places: Decimal places that are kept; -3 divides by 1,000.
            kind: A count is whole, a time may be a date, and a name is no fault.
            rows: The rows in which the texts stand, if not all.
        """
        values = np.zeros(len(texts), dtype=np.int64)
        data, starts, ends = texts.data, texts.starts, texts.ends
        odd = kernels.decimals(data, starts, ends, self._unset, max(places, 0), values)
        if places < 0:
            values[values > 0] //= 10**-places
        if kind == "time" and places == _PLACES["s"]:
            late = values >= _MILLISECONDS
            values[late] = (values[late] + 500) // 1000
        left = np.flatnonzero(odd)
        if len(left):
            found = np.zeros(len(left), dtype=np.int64)
            if kind == "time":
                odd = kernels.moments(data, starts[left], ends[left], found)
            else:
                odd = kernels.hexadecimals(data, starts[left], ends[left], self._unset, True, found)
            values[left] = found
            left = left[odd]
        for row in left:
            value = _odd_number(texts.at(int(row)), places, kind)
            if value == _UNREADABLE and kind != "name":
                self.bad[row if rows is None else rows[row]] = True
            values[row] = max(value, UNKNOWN)
        return values


def looked_up(texts: Texts, table: Mapping[str, int]) -> I64:
    """Returns what the table says of each text, whatever its capitals; UNKNOWN for others."""
    hashes = {_hash_of(key): value for key, value in table.items()}
    keys = np.array(sorted(hashes), dtype=np.uint64)
    values = np.array([hashes[int(key)] for key in keys], dtype=np.int64)
    found = kernels.text_hashes(texts.data, texts.starts, texts.ends, True)
    places = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
    return np.where(keys[places] == found, values[places], UNKNOWN)


def addresses(texts: Texts) -> Addresses:
    """Returns both halves of each address and whether it is one.

    Kernels read a.b.c.d and plain IPv6; what is left is read by `ipaddress`.
    """
    hi = np.zeros(len(texts), dtype=np.uint64)
    lo = np.zeros(len(texts), dtype=np.uint64)
    known: Flags = kernels.addresses(texts.data, texts.starts, texts.ends, hi, lo)
    for row in np.flatnonzero(~known):
        try:
            value = int(ipaddress.IPv6Address(texts.at(int(row))))
        except ValueError:
            continue
        hi[row], lo[row], known[row] = value >> 64, value & (1 << 64) - 1, True
    return hi, lo, known


def version6(found: Addresses) -> Flags:
    """Returns which addresses are of IPv6."""
    hi, lo, _ = found
    six: Flags = (hi != 0) | (lo >> np.uint64(32) != 0xFFFF)
    return six


def _hash_of(text: str) -> int:
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    return int(kernels.text_hash(data, 0, len(data), True))


def _odd_number(text: str, places: int, kind: Kind) -> int:
    """Reads what no kernel reads: exponents, `(empty)`, names of months, or no number."""
    if text in _NOTHING:
        return UNKNOWN
    try:
        value = float(text) * 10.0**places
    except ValueError:
        value = _moment(text) if kind == "time" else -1.0
    whole = round(value) if 0 <= value < 2**62 else _UNREADABLE
    return _UNREADABLE if kind in ("count", "name") and whole != value else whole


def _moment(text: str) -> float:
    for form in (None, "%a %b %d %H:%M:%S %Y", "%d %b %Y %H:%M:%S", "%b %d %Y %H:%M:%S"):
        try:
            moment = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
        except ValueError:
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return -1.0
