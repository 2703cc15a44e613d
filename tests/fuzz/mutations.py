"""Changes to bytes of known formats: some know records and lengths, most know nothing."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

from harness import record_sizes

WORDS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 20, 28, 40, 127, 128, 255, 256, 257, 1500, 0x7FFF, 0x8000)
WORDS += (0x0800, 0x8100, 0x86DD, 0x8847, 0x6558, 2152, 3544, 4789, 6081, 1701, 0xFFFE, 0xFFFF)
LONG_WORDS = (*WORDS, 1 << 16, 1 << 26, (1 << 26) + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TEXTS = (b"", b"-", b"0", b"-1", b"00", b"4294967296", b"9" * 19, b"9" * 30, b"1e400", b"NaN")
TEXTS += (b"null", b"[]", b"{}", b'""', b'"', b"\\", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r")
TEXTS += (b"::", b"::ffff:1.2.3.4", b"1.2.3.4", b"0x", b"0.5", b"9999999999.999999", b"\n", b",")
TEXTS += (b"\t", b"|", b"true", b'"\\ud800"', b"[" * 2000, b"2026-02-30T25:61:61Z", b"tcp", b"icmp")
DIGITS = re.compile(rb"[0-9]+")
HEADERS = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\x4d\x3c\xb2\xa1": "<"}

Change = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes], steps: int = 3) -> bytes:
    """Returns bytes after one to `steps` changes.

    Args:
        data: What to change.
        rng: Decides.
        others: Sources of which pieces may be taken.
        steps: Most changes.
    """
    for _ in range(rng.randint(1, steps)):
        data = rng.choice(CHANGES)(data, rng, others)
    return data


def _span(data: bytes, rng: random.Random, longest: int = 64) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.randint(0, longest))


def flip(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.randint(1, 4) if data else 0):
        broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def set_byte(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    at = rng.randint(0, max(len(data) - 1, 0))
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def set_word(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Writes a telling number where a length or type might stand."""
    code, words = rng.choice((("B", WORDS), ("H", WORDS), ("I", LONG_WORDS)))
    size = struct.calcsize(code)
    at = rng.randint(0, max(len(data) - size, 0))
    if size > 1 and rng.random() < 0.7:
        at -= at % 2
    value = rng.choice(words) & ((1 << 8 * size) - 1)
    return data[:at] + struct.pack(rng.choice("<>") + code, value) + data[at + size :]


def nudge_word(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Makes a number of two bytes a little larger or smaller."""
    at = rng.randint(0, max(len(data) - 2, 0))
    order = rng.choice(("big", "little"))
    value = int.from_bytes(data[at : at + 2], order) + rng.choice((-8, -4, -1, 1, 4, 8))
    return data[:at] + (value & 0xFFFF).to_bytes(2, order) + data[at + 2 :]


def cut(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return data[: rng.randint(0, len(data))]


def remove(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def repeat(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] * rng.randint(1, 5) + data[end:]


def splice(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else data
    start, end = _span(other, rng, 200)
    at = rng.randint(0, len(data))
    over = at + (end - start if rng.random() < 0.5 else 0)
    return data[:at] + other[start:end] + data[over:]


def join(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return data + (rng.choice(others) if others else data)


def insert_text(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start, end = _span(data, rng, 12)
    return data[:start] + rng.choice(TEXTS) + data[end:]


def set_number(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Writes something else for a number in text."""
    window = rng.randint(0, len(data))
    found = DIGITS.search(data, window) or DIGITS.search(data)
    if not found:
        return insert_text(data, rng, others)
    return data[: found.start()] + rng.choice(TEXTS) + data[found.end() :]


def move_line(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    line = lines.pop(rng.randrange(len(lines)))
    lines.insert(rng.randint(0, len(lines)), line)
    if rng.random() < 0.5:
        lines.insert(rng.randint(0, len(lines)), line)
    return b"\n".join(lines)


def in_record(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Changes one packet of a classic pcap, whose length stays right; else any bytes."""
    order = HEADERS.get(data[:4])
    sizes = list(record_sizes(data)) if order else []
    if not order or not sizes:
        return rng.choice((flip, set_word))(data, rng, others)
    number = rng.randrange(len(sizes))
    at = 24 + sum(sizes[:number])
    end = at + sizes[number]
    frame = data[at + 16 : end]
    frame = rng.choice((flip, set_byte, set_word, nudge_word, cut, splice, repeat, remove))(
        frame, rng, others
    )
    wire = struct.unpack_from(order + "I", data, at + 12)[0]
    lengths = struct.pack(order + "II", len(frame), rng.choice((wire, len(frame), 65535)))
    return data[: at + 8] + lengths + frame + data[end:]


CHANGES: tuple[Change, ...] = (flip, set_byte, set_word, set_word, nudge_word, cut, remove)
CHANGES += (repeat, splice, join, insert_text, set_number, set_number, move_line)
CHANGES += (in_record,) * 6
