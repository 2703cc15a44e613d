"""Leaks: searches every byte that was left behind for what must not stand there.

What is searched for are the domestic addresses of sources, and needles: names, MAC
addresses, e-mail addresses and pieces of payload. Each is found in text of any spelling, in
binary of both byte orders, in hex, in UUIDs and in base64; shapes of e-mail addresses are
found whosever they are.

Chance. All of these carry enough bits that a hit is never chance, save one: the 32 bits of a
bare IPv4 address, as a number, four bytes or eight hex digits. `</td` is an address in Japan.
Bare numbers are looked for where values are told apart from noise (columns of Parquet, SQLite
and DuckDB; decimal and hex digits in text), and count as a leak unless chance explains them:
as many numbers as found would meet the addresses about as often if they were moved a little.
Those that chance explains are counted apart. Findings are counts; what was found is not told.

Mirrored. A foreign address may spell a secret one from its last octet to its first, as 1.0.0.10
spells 10.0.0.1. Where the sources hold the foreign one, it may stand anywhere, and the secret
one is looked for in its own order alone. Nor is a number of three bytes or fewer an address
mirrored, x.y.z.0: ports and counts are such numbers.
"""

from __future__ import annotations

import math
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from telemetry.errors import LakeError
from telemetry.homeland import DOMESTIC, FOREIGN, SPECIAL, Homeland
from telemetry.privacy.scan import HEAD, marks_of, scan

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

KINDS: Final = ("address", "header", "name", "mac", "email", "payload", "file_name", "number")
"""What a finding is; `header` is the two addresses of a packet side by side."""
ADDRESS, HEADER, NAME, MAC, EMAIL, PAYLOAD, FILE_NAME, NUMBER = range(8)

_EXACT = (ADDRESS, HEADER)
_WORDS = (NAME, PAYLOAD, FILE_NAME)
_BLOCK, _OVERLAP = 1 << 23, 1 << 12
_NEAR: Final = 1 << 23
_CHANCE: Final = 1e-4
_COLONS = re.compile(rb"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*")
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DIGITS = re.compile(rb"[0-9A-Fa-f]{8,}")
_SPACED = re.compile(rb"(?:[0-9A-Fa-f]{2}[:\- ]){3,}[0-9A-Fa-f]{2}")
_FOUR_IN_BASE64 = re.compile(rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{6}==")
_EMAIL = re.compile(rb"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}")
_DIGESTS = (16, 32, 40, 64)
"""Lengths of digests in hex, whose eight digits are noise."""
_DIGEST = re.compile("|".join(rf"\b(?=[0-9]*[a-f])[0-9a-f]{{{length}}}\b" for length in _DIGESTS))
_NUMERALS = re.compile(rb"[0-9A-Fa-f:.]+")
_LEAST_SET = 4
"""Bytes other than zero in an IPv6 address that is searched for in binary: ::1 is everywhere."""
_LEAST_NUMBER = 1 << 24
"""The least bare number that may be an address."""
_LEAST_VARIED = 6
"""Different bytes in a pair of addresses that is searched for: 10.0.0.1, 10.0.0.2 is a list."""
_GAP = ord("\n")


def _letters(letters: bytes, *more: bytes) -> U8:
    """Returns the value of each byte as a digit of an alphabet; 255 for none."""
    table = np.full(256, 255, np.uint8)
    for alphabet in (letters, *more):
        table[np.frombuffer(alphabet, np.uint8)] = np.arange(len(alphabet), dtype=np.uint8)
    return table


_HEX = _letters(b"0123456789abcdef", b"0123456789ABCDEF")
_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BASE64 = _letters(
    _UPPER + _UPPER.lower() + b"0123456789+/", _UPPER + _UPPER.lower() + b"0123456789-_"
)
_LOWER = np.frombuffer(bytes(range(256)).lower(), np.uint8)


@dataclass(frozen=True)
class Secrets:
    """What must not be found.

    Attributes:
        v4: Domestic IPv4 addresses as numbers, sorted, shape (n,).
        mirrored: Those of them that are searched for from last octet to first, too, sorted.
        v6: Domestic IPv6 addresses, 16 bytes each.
        needles: Other bytes that must not be found, and their kind. Letters match in any case,
            but for headers.
    """

    v4: U32 = field(repr=False)
    mirrored: U32 = field(repr=False)
    v6: frozenset[bytes] = field(repr=False)
    needles: Mapping[bytes, int] = field(repr=False)

    @classmethod
    def of(
        cls,
        addresses: Iterable[int],
        needles: Mapping[bytes, int],
        foreign: Iterable[int] = (),
    ) -> Secrets:
        """Makes secrets of addresses and needles.

        Args:
            addresses: 128 bits, IPv4 under ::ffff:0:0/96.
            needles: As in the attributes.
            foreign: Addresses of the same form that may be found.
        """
        v4, v6 = [], set()
        for address in addresses:
            if address >> 32 == 0xFFFF:
                v4.append(address & 0xFFFFFFFF)
            else:
                v6.add(address.to_bytes(16, "big"))
        ours = np.unique(np.array(v4, np.uint32))
        theirs = np.array([a & 0xFFFFFFFF for a in foreign if a >> 32 == 0xFFFF], np.uint32)
        mirrored = np.setdiff1d(ours, theirs.byteswap())
        return cls(ours, mirrored, frozenset(v6), needles)

    @classmethod
    def from_traces(
        cls,
        homeland: Homeland,
        addresses: Iterable[int],
        pairs: Iterable[tuple[int, int]],
        words: Mapping[str, Iterable[bytes]],
        macs: Iterable[bytes],
    ) -> Secrets:
        """Makes secrets of what sources hold: of the addresses, those that are not foreign.

        Args:
            homeland: Says what is domestic or special; special addresses that are no host's
                (multicast, loopback and the like) are let go.
            addresses: 128 bits, IPv4 under ::ffff:0:0/96.
            pairs: Source and target of IPv4 headers, 32 bits each.
            words: Other needles by kind, of KINDS.
            macs: MAC addresses, 6 bytes.
        """
        listed = [address for address in addresses if _is_host(address)]
        hi = np.array([address >> 64 for address in listed], np.uint64)
        lo = np.array([address & 0xFFFFFFFFFFFFFFFF for address in listed], np.uint64)
        classes = homeland.classify(hi, lo)
        is_home = np.isin(classes, (DOMESTIC, SPECIAL))
        foreign = [a for a, of_a in zip(listed, classes, strict=True) if of_a == FOREIGN]
        ours = {address for address, home in zip(listed, is_home, strict=True) if home}
        theirs = b"\n".join(_text(address) for address in foreign)
        needles = {
            word: KINDS.index(kind)
            for kind, of_kind in words.items()
            for word in of_kind
            # Content names foreign hosts too, and their addresses may stand anywhere.
            if not (_NUMERALS.fullmatch(word) and word.lower() in theirs)
        }
        for pair in pairs:
            packed = b"".join(address.to_bytes(4, "big") for address in pair)
            is_ours = any(0xFFFF << 32 | address in ours for address in pair)
            if is_ours and len({*packed}) >= _LEAST_VARIED:
                needles[packed] = HEADER
        for mac in macs:
            digits = mac.hex()
            needles |= dict.fromkeys((mac.hex(":").encode(), mac.hex("-").encode()), MAC)
            if len({*mac}) >= _LEAST_SET and not mac.isascii():
                needles |= {mac: MAC, digits.encode(): MAC}
        return cls.of(ours, needles, foreign)

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self.v4) + len(self.v6) + len(self.needles)


@dataclass
class Found:
    """What a search found.

    Attributes:
        counts: Findings by kind.
        by_chance: Bare numbers that chance explains.
    """

    counts: Counter[str] = field(default_factory=Counter)
    by_chance: int = 0

    def add(self, other: Found) -> None:
        """Adds what another search found."""
        self.counts.update(other.counts)
        self.by_chance += other.by_chance

    def __bool__(self) -> bool:
        """Whether there is a leak."""
        return bool(self.counts)


@dataclass
class _Hits:
    """What was found so far: addresses at 0 of `needles`, then each needle."""

    needles: I64
    emails: int = 0
    numbers: list[U32] = field(default_factory=list)


class Searcher:
    """Finds secrets in bytes, values and files."""

    def __init__(self, secrets: Secrets) -> None:
        """Args: secrets: What must not be found."""
        self._secrets = secrets
        self._v4 = secrets.v4
        mirrored = secrets.mirrored.byteswap()
        self._numbers = np.union1d(secrets.v4, mirrored[mirrored >= _LEAST_NUMBER])

    @cached_property
    def _rows(self) -> list[tuple[int, bytes, int]]:
        """Returns the first six bytes of each needle, the needle and its kind, sorted."""
        listed = {(n if k in _EXACT else n.lower(), k) for n, k in self._secrets.needles.items()}
        for address in self._secrets.v6:
            halves = address[7::-1] + address[:7:-1]
            if 16 - address.count(0) >= _LEAST_SET:
                listed |= {(form, ADDRESS) for form in (address, address[::-1], halves)}
        return sorted(
            (int.from_bytes(needle[:HEAD].lower(), "big"), needle, kind)
            for needle, kind in listed
            if len(needle) >= HEAD
        )

    @cached_property
    def _needles(self) -> tuple[Any, ...]:
        """Returns the needles as arrays."""
        rows = self._rows
        prefix = np.array([row[0] for row in rows], np.uint64)
        prefixes, starts = np.unique(prefix, return_index=True)
        sizes = np.array([len(row[1]) for row in rows], np.int64)
        return (
            marks_of(prefixes),
            prefixes,
            np.append(starts, len(rows)).astype(np.int64),
            np.frombuffer(b"".join(row[1] for row in rows), np.uint8),
            np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            np.array([row[2] in _EXACT for row in rows], np.bool_),
        )

    # Bytes

    def raw(self, data: bytes) -> Found:
        """Searches bytes of any kind."""
        hits = self._hits()
        self._block(data, len(data), hits)
        return self._told(hits)

    def stream(self, file: IO[bytes]) -> Found:
        """Searches a file in bounded memory."""
        hits, data = self._hits(), b""
        is_text: bool | None = None
        while more := file.read(_BLOCK):
            data += more
            is_text = b"\0" not in data and is_text is not False
            until = max(0, len(data) - _OVERLAP)
            self._block(data, until, hits, is_text=is_text)
            data = data[until:]
        self._block(data, len(data), hits, is_text=bool(is_text))
        return self._told(hits)

    def without(self, text: bytes) -> Searcher:
        """Returns a searcher that lets go words which a text holds: the program's own."""
        hits = self._hits()
        self._plain(np.frombuffer(text, np.uint8), len(text), hits)
        own = {row[1] for row, n in zip(self._rows, hits.needles[1:], strict=True) if n}
        kept = {
            needle: kind
            for needle, kind in self._secrets.needles.items()
            if kind not in _WORDS or needle.lower() not in own
        }
        return Searcher(replace(self._secrets, needles=kept))

    def __len__(self) -> int:
        """Returns how many secrets are searched for."""
        return len(self._secrets)

    def _hits(self) -> _Hits:
        return _Hits(np.zeros(len(self._rows) + 1, np.int64))

    def _block(self, data: bytes, until: int, hits: _Hits, *, is_text: bool = False) -> None:
        """Searches what starts before `until`, in all encodings."""
        if not until:
            return
        if is_text:
            hits.emails += sum(1 for m in _EMAIL.finditer(data) if m.start() < until)
        array = np.frombuffer(data, np.uint8)
        hits.numbers.append(self._plain(array, until, hits))
        for decoded, packed in ((_from_hex(array), 2), (_from_base64(array), 4 / 3)):
            for part in decoded:
                self._plain(part, math.ceil(until / packed), hits)
        uuids = b"\n".join(
            bytes.fromhex(m[0].replace(b"-", b"").decode())
            for m in _UUID.finditer(data)
            if m.start() < until
        )
        if uuids:
            self._plain(np.frombuffer(uuids, np.uint8), len(uuids), hits)
        hits.needles[0] += sum(self._colons(m[0]) for m in _COLONS.finditer(data[: until + 64]))
        if len(self._v4):
            hits.numbers.append(_windows(_short_digits(data[: until + 64])))

    def _plain(self, data: U8, until: int, hits: _Hits) -> U32:
        """Searches bytes as they are; returns decimal numbers that may be addresses."""
        numbers = np.empty(len(data) // 8 + 1, np.uint32)
        data = np.ascontiguousarray(data)
        v4 = self._v4, self._secrets.mirrored
        noted = scan(data, until, v4, self._needles, _LOWER, hits.needles, numbers)
        return np.unique(numbers[:noted])

    def _colons(self, text: bytes) -> bool:
        for token in {text, text.rstrip(b":"), text.lstrip(b":")}:
            try:
                packed = socket.inet_pton(socket.AF_INET6, token.decode())
            except OSError:
                continue
            number = int.from_bytes(packed, "big")
            is_ours = number >> 32 == 0xFFFF and np.isin(number & 0xFFFFFFFF, self._v4)
            if is_ours or packed in self._secrets.v6:
                return True
        return False

    def _told(self, hits: _Hits) -> Found:
        counts = Counter({KINDS[ADDRESS]: int(hits.needles[0]), KINDS[EMAIL]: hits.emails})
        for at in np.flatnonzero(hits.needles[1:]):
            counts[KINDS[self._rows[at][2]]] += int(hits.needles[at + 1])
        found = Found(+counts)
        found.add(self._judged(hits.numbers))
        return found

    def _judged(self, numbers: list[U32]) -> Found:
        """Counts numbers that are domestic addresses of either order, unless chance explains."""
        values = np.unique(np.concatenate(numbers)) if numbers else np.empty(0, np.uint32)
        hits = int(np.isin(values, self._numbers, assume_unique=True).sum())
        if not hits:
            return Found()
        wide = values.astype(np.int64)
        listed = self._numbers.astype(np.int64)
        near = np.searchsorted(listed, wide + _NEAR) - np.searchsorted(listed, wide - _NEAR)
        if _at_least(hits, float(near.sum()) / (2 * _NEAR)) > _CHANCE:
            return Found(by_chance=hits)
        return Found(Counter({KINDS[NUMBER]: hits}))

    # Values

    def values(self, values: npt.NDArray[Any] | Iterable[Any]) -> Found:
        """Searches the values of one column, where a bare number may be an address.

        Args:
            values: Numbers in an array, or values of any kind, nested ones too.
        """
        if isinstance(values, np.ndarray):
            return self._judged([_low_words(values)])
        texts: list[bytes] = []
        numbers: list[int] = []
        windows: list[bytes] = []
        emails = 0
        for value in _leaves(values):
            if isinstance(value, int | float):
                numbers.append(int(value) if math.isfinite(value) and value == int(value) else 0)
            elif isinstance(value, bytes):
                texts.append(value)
                if len(value) < 16:
                    windows.append(value)
            else:
                texts.append(str(value).encode())
                emails += sum(1 for _ in _EMAIL.finditer(texts[-1]))
        kept = [n for n in numbers if -(1 << 63) <= n < 1 << 63]
        found = self._judged([_low_words(np.array(kept, np.int64)), _windows(windows)])
        found.add(self.raw(b"\n".join(texts)))
        if emails:
            found.counts[KINDS[EMAIL]] += emails
        return found


def _from_hex(data: U8) -> Iterator[U8]:
    """Yields what hex digits stand for, from even and from odd places; other bytes are gaps."""
    digits = _HEX[data]
    for start in range(2):
        even = digits[start:][: (len(data) - start) // 2 * 2]
        high, low = even[::2], even[1::2]
        whole = (high << 4) | low
        yield np.where((high < 16) & (low < 16), whole, np.uint8(_GAP))


def _from_base64(data: U8) -> Iterator[U8]:
    """Yields what base64 (RFC 4648) stands for, from each of four places; others are gaps."""
    sextets = np.append(_BASE64[data], np.full(4, 255, np.uint8))
    for start in range(4):
        four = sextets[start:][: (len(sextets) - start) // 4 * 4].reshape(-1, 4)
        is_digit = four < 64
        three = np.empty((len(four), 3), np.uint8)
        for i in range(3):
            byte = (four[:, i] << (2 * i + 2)) | (four[:, i + 1] >> (4 - 2 * i))
            three[:, i] = np.where(is_digit[:, i] & is_digit[:, i + 1], byte, np.uint8(_GAP))
        yield three.reshape(-1)


def _is_host(address: int) -> bool:
    if address >> 32 == 0xFFFF:
        return 0 < (address >> 24 & 0xFF) < 224 and address >> 24 & 0xFF != 127
    return address > 1 and address >> 120 != 0xFF


def _text(address: int) -> bytes:
    if address >> 32 == 0xFFFF:
        return socket.inet_ntoa((address & 0xFFFFFFFF).to_bytes(4, "big")).encode()
    return socket.inet_ntop(socket.AF_INET6, address.to_bytes(16, "big")).encode()


def _short_digits(data: bytes) -> list[bytes]:
    """Returns bytes in hex or base64 in which a bare address may stand."""
    rest = _UUID.sub(b"/", data)
    runs = [m[0] for m in _DIGITS.finditer(rest) if len(m[0]) not in _DIGESTS]
    runs += [re.sub(rb"[:\- ]", b"", m[0]) for m in _SPACED.finditer(rest)]
    evened = [run[i:][: (len(run) - i) // 2 * 2] for run in runs for i in (0, 1)]
    found = [bytes.fromhex(run.decode()) for run in evened]
    for match in _FOUR_IN_BASE64.finditer(data):
        found.append(next(_from_base64(np.frombuffer(match[0], np.uint8))).tobytes()[:4])
    return found


def _windows(values: Iterable[bytes]) -> U32:
    """Returns every four bytes in a row of each value, as numbers."""
    fours = b"".join(value[i : i + 4] for value in values for i in range(len(value) - 3))
    numbers: U32 = np.frombuffer(fours, ">u4").astype(np.uint32)
    return numbers


def _low_words(values: npt.NDArray[Any]) -> U32:
    """Returns the numbers that may be addresses."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values) & (np.abs(values) < 1 << 53)]
    wide = values.astype(np.int64)
    high = wide >> 32
    fits = (high == 0) | (high == 0xFFFF) | (high == -1)
    low: U32 = (wide[fits] & 0xFFFFFFFF).astype(np.uint32)
    return low


def _leaves(value: Any) -> Iterator[Any]:
    """Yields what nested values hold."""
    if isinstance(value, dict):
        yield from _leaves([*value, *value.values()])
    elif isinstance(value, str | bytes | int | float) or not isinstance(value, Iterable):
        if value is not None and not isinstance(value, bool):
            yield value
    else:
        for inner in value:
            yield from _leaves(inner)


def _at_least(hits: int, expected: float) -> float:
    """Returns how likely chance finds so many where it finds `expected` on average (Poisson)."""
    from scipy.special import gammainc

    return float(gammainc(hits, expected)) if expected else 0.0


def search(
    searcher: Searcher,
    roots: Iterable[Path],
    values_of: Callable[[Path], Iterator[npt.NDArray[Any] | Iterable[Any]]],
) -> tuple[dict[str, Found], int]:
    """Searches the name, the bytes and the values of every file at or below some places.

    Args:
        searcher: Knows what to search for.
        roots: Files and folders; what is not there is passed by.
        values_of: Yields the values of a file, column by column.

    Returns:
        What was found, by file; and how many bytes were searched. A name in which something was
        found is not told.

    Raises:
        LakeError: A file cannot be read, so that it is unknown what it holds.
    """
    found: dict[str, Found] = {}
    size = 0
    for root in roots:
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            name = path.relative_to(root.parent).as_posix()
            of_name = _search_name(searcher, name)
            of_file = Found()
            of_file.add(of_name)
            if path.is_file() and not path.is_symlink():
                size += path.stat().st_size
                of_file.add(_search_file(searcher, path, values_of))
            if of_file or of_file.by_chance:
                found.setdefault("a name that must not be told" if of_name else name, Found())
                found["a name that must not be told" if of_name else name].add(of_file)
    return found, size


def _search_name(searcher: Searcher, name: str) -> Found:
    """Searches the name of a file; a number in the digits of a digest is noise there."""
    found = searcher.values([name])
    if KINDS[NUMBER] in found.counts:
        rest = searcher.values([_DIGEST.sub("/", name)])
        found.counts[KINDS[NUMBER]] = rest.counts[KINDS[NUMBER]]
        found.counts = +found.counts
    return found


def _search_file(
    searcher: Searcher,
    path: Path,
    values_of: Callable[[Path], Iterator[npt.NDArray[Any] | Iterable[Any]]],
) -> Found:
    try:
        with path.open("rb") as file:
            found = searcher.stream(file)
        for values in values_of(path):
            found.add(searcher.values(values))
    except FileNotFoundError:  # a run that goes on meanwhile took it away
        return Found()
    except (OSError, ValueError):
        raise LakeError(
            "A file under the lake cannot be read, so that nobody knows what it holds; check "
            "owners and modes, or remove the file if it is not the lake's."
        ) from None
    return found
