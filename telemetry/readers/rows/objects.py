"""JSON objects one after the other: a line each, spread over lines, or the elements of an array."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import IO, Any

import numba as nb
import numpy as np

from telemetry.raw import I64
from telemetry.readers.rows.texts import BOM, CHUNK, Bytes, chunks, drop, json_object
from telemetry.reasons import Reason
from telemetry.records import Tally

_LOOKED_AT = 64
"""Objects of a head by which formats are recognised."""


def any_object(head: bytes, test: Callable[[dict[str, Any]], bool]) -> bool:
    """Returns whether one of the first objects of a source passes a test."""
    return any(test(row) for row in first_objects(head))


def object_lines(head: bytes, stream: IO[bytes], tally: Tally) -> Iterator[bytes]:
    """Yields objects, a line each, in chunks of whole lines.

    Where objects stand a line each, a broken line costs that line alone. Where they do not,
    what is no object, or ends before its object does, is counted as malformed.

    Args:
        head: The first bytes, by which the layout is known.
        stream: All bytes.
        tally: Counts what is no object.
    """
    if _one_a_line(head):
        yield from chunks(stream, tally)
    else:
        yield from _elements(stream, tally)


@lru_cache(maxsize=1)
def first_objects(head: bytes) -> tuple[dict[str, Any], ...]:
    """Returns some of the first objects; only one where they do not stand a line each."""
    text = _plain(head)
    if text[:1] not in (b"{", b"["):
        return ()
    if _one_a_line(head):
        rows = map(json_object, text.split(b"\n", _LOOKED_AT)[:_LOOKED_AT])
        return tuple(row for row in rows if row is not None)
    first = _decoded(text)
    return () if first is None else (first,)


def _one_a_line(head: bytes) -> bool:
    text = _plain(head)
    return text.startswith(b"{") and (
        json_object(text.split(b"\n", 1)[0]) is not None or _decoded(text) is None
    )


def _plain(head: bytes) -> bytes:
    return head.removeprefix(BOM).lstrip()


def _decoded(text: bytes) -> dict[str, Any] | None:
    """Returns the first object, whatever its lines."""
    _, brace, rest = text.partition(b"{")
    try:
        value, _ = json.JSONDecoder().raw_decode((brace + rest).decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _elements(stream: IO[bytes], tally: Tally) -> Iterator[bytes]:
    rest = b""
    state = np.zeros(4, dtype=np.int64)
    while block := stream.read(CHUNK):
        data = np.frombuffer(block, dtype=np.uint8)
        lines = np.empty(2 * len(data), dtype=np.uint8)
        written, cut = _flatten(data, lines, state)
        text = rest + lines[:written].tobytes()
        whole = len(rest) + cut if cut else 0
        if whole:
            yield text[:whole]
        rest = text[whole:]
        if len(rest) > CHUNK:
            drop(tally, Reason.MALFORMED_ROW, 1)
            rest = b""
            state[:3] = 0
    drop(tally, Reason.MALFORMED_ROW, int(state[3]) + bool(rest))


@nb.njit(cache=True)
def _flatten(
    data: Bytes, lines: Bytes, state: I64
) -> tuple[int, int]:  # pragma: no cover - compiled
    """Writes each object as a line; returns the bytes written, and those of whole lines.

    Args:
        data: Bytes of JSON.
        lines: Where to write to; twice as long.
        state: Depth of brackets, within a text, after a backslash, and runs of what stands
            between objects and should not; goes on with the next bytes.
    """
    depth, quoted, escaped, odd = state[0], state[1], state[2], False
    at = cut = 0
    for byte in data:
        if depth == 0:
            if byte == 0x7B:
                depth = 1
                lines[at] = byte
                at += 1
            # Blanks, commas, brackets, and a byte order mark.
            fits = byte in (0x7B, 0x20, 0x09, 0x0A, 0x0D, 0x2C, 0x5B, 0x5D, 0xEF, 0xBB, 0xBF)
            if not fits and not odd:
                state[3] += 1
            odd = not fits
            continue
        lines[at] = 0x20 if byte in (0x0A, 0x0D) else byte
        at += 1
        if escaped:
            escaped = 0
        elif quoted:
            if byte == 0x5C:
                escaped = 1
            elif byte == 0x22:
                quoted = 0
        elif byte == 0x22:
            quoted = 1
        elif byte in (0x7B, 0x5B):
            depth += 1
        elif byte in (0x7D, 0x5D):
            depth -= 1
            if depth == 0:
                lines[at] = 0x0A
                at += 1
                cut = at
    state[0], state[1], state[2] = depth, quoted, escaped
    return at, cut
