"""Laws of flow exports: what is encoded is read, and whatever breaks is counted."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from capture_kit import border, ethernet, ip, tcp
from export_kit import (
    HOME,
    HOME6,
    NOW,
    OUT,
    OUT6,
    VARIABLE,
    Field,
    Fixed,
    Read,
    Template,
    carried,
    counter_sample,
    fixed,
    flow_sample,
    message,
    raw_header,
    read,
    sampled_ip,
    sflow,
    withdrawal,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.errors import SourceError
from telemetry.raw import NEVER, UNKNOWN
from telemetry.readers import Session

REVERSE = 29305
NOISE = (10, 14, 5, 15, 56, 82, 95, 225, 226, 227, 371, 459)
ENTERPRISES = (0, 9, 2636, 35632)


class Meant(NamedTuple):
    """A field, the column it fills (None: none), and a strategy for its values."""

    field: Field
    column: str | None
    values: st.SearchStrategy[Any]


def integer(element: int, column: str, most: int, enterprise: int = 0) -> st.SearchStrategy[Meant]:
    """A field of an integer, of any width that holds some of its values."""

    def meant(width: int) -> Meant:
        limit = min(most, (1 << 8 * width) - 1)
        return Meant(Field(element, width, enterprise), column, st.integers(1, limit))

    return st.integers(1, 8).map(meant)


def noise(kind: int) -> st.SearchStrategy[Meant]:
    """A field that no column has, some of variable length."""

    def meant(element: int, enterprise: int, width: int) -> Meant:
        sizes = (0, 300) if width == VARIABLE else (width, width)
        values = st.integers(*sizes).map(lambda n: b"\xab" * n)
        return Meant(Field(element, width, enterprise if kind == 10 else 0), None, values)

    widths = st.one_of(st.integers(0, 40), st.just(VARIABLE))
    return st.builds(meant, st.sampled_from(NOISE), st.sampled_from(ENTERPRISES), widths)


def addresses(pair: tuple[str, str], elements: tuple[int, int]) -> list[Meant]:
    """Fields of both addresses."""
    width = 16 if ":" in pair[0] else 4
    return [
        Meant(Field(element, width), column, st.sampled_from(pair))
        for element, column in zip(elements, ("source", "target"), strict=True)
    ]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, list[Meant]]:
    """A kind of message, and the fields of a template in any order."""
    kind = draw(st.sampled_from((9, 10)))
    four = draw(st.booleans())
    meant = addresses((OUT, HOME), (8, 12)) if four else addresses((OUT6, HOME6), (27, 28))
    optional = [
        integer(7, "a_port", 65535),
        integer(11, "b_port", 65535),
        integer(draw(st.sampled_from((2, 86, 298))), "a.packets", 2**40),
        integer(draw(st.sampled_from((1, 85, 231))), "a.bytes", 2**40),
        integer(25, "a.min_bytes", 65535),
        integer(26, "a.max_bytes", 65535),
        integer(6, "a.tcp_flags", 255),
        integer(34, "sampling_rate", 2**31 - 1),
        integer(36, "active_timeout", 65535),
        integer(37, "idle_timeout", 65535),
    ]
    if kind == 10:
        optional += [
            integer(2, "b.packets", 2**40, REVERSE),
            integer(1, "b.bytes", 2**40, REVERSE),
            integer(6, "b.tcp_flags", 255, REVERSE),
        ]
    meant += [draw(one) for one in optional if draw(st.booleans())]
    meant.append(Meant(Field(4, 1), "protocol", st.sampled_from((6, 17, 132))))
    meant += draw(st.lists(noise(kind), max_size=5))
    return kind, draw(st.permutations(meant))


UNTOLD = {
    "a_port": 0,
    "b_port": 0,
    "sampling_rate": 1,
    "active_timeout": UNKNOWN,
    "idle_timeout": UNKNOWN,
    **{
        f"{side}.{name}": UNKNOWN
        for side in "ab"
        for name in ("packets", "bytes", "min_bytes", "max_bytes", "tcp_flags")
    },
}


def expected(columns: Sequence[str | None], record: Sequence[Any]) -> dict[str, object]:
    """Returns the row of a record without times."""
    told = {c: v for c, v in zip(columns, record, strict=True) if c is not None}
    answered = told.get("b.packets", 0) or told.get("b.bytes", 0)
    moment = NOW * 1_000_000
    back = moment if answered else NEVER
    return UNTOLD | {"a.first": moment, "a.last": moment, "b.first": back, "b.last": back} | told


def read_bytes(data: bytes, session: Session | None = None) -> Read:
    """Reads a source from memory."""
    with tempfile.TemporaryDirectory() as folder:
        return read(Path(folder) / "exports", data, session)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_what_is_encoded_is_read(data: st.DataObject) -> None:
    kind, meant = data.draw(layouts())
    template = Template(data.draw(st.integers(256, 65535)), [one.field for one in meant])
    records = data.draw(st.lists(st.tuples(*(one.values for one in meant)), min_size=1, max_size=8))
    whole = message(kind, template.announced(kind), template.data(*records))
    got = read_bytes(carried([whole]) if data.draw(st.booleans()) else whole)
    columns = [one.column for one in meant]
    assert got.rows() == [expected(columns, record) for record in records]
    assert (got.tally.read, got.tally.dropped.total()) == (len(records), 0)


SIMPLE = [Field(8, 4), Field(12, 4), Field(7, 2), Field(11, 2), Field(4, 1), Field(2, 4)]
ONE = Template(256, SIMPLE)
TWO = Template(257, [*SIMPLE, Field(1, 8), Field(82, VARIABLE)])
OPTIONS = Template(258, [Field(149, 4), Field(34, 4), Field(302, 2)], scope=1)
FRAME = ethernet(ip(OUT, HOME, 6, tcp(443, 50000)))


def row(number: int) -> tuple[Any, ...]:
    """Returns a record for ONE that is told by its port."""
    return (OUT, HOME, 443, number, 6, 3)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from((9, 10)), st.randoms(use_true_random=False), st.integers(1, 12))
def test_the_order_of_messages_does_not_show(kind: int, dice: Any, count: int) -> None:
    """Data waits for its template, wherever it comes."""
    long = [message(kind, TWO.data((*row(i), 9, b"x" * i))) for i in range(count)]
    short = [message(kind, ONE.data(row(i), row(i + 100))) for i in range(count)]
    messages = [*long, *short, message(kind, ONE.announced(kind), TWO.announced(kind))]
    in_order = read_bytes(carried(reversed(messages)))
    dice.shuffle(messages)
    got = read_bytes(carried(messages))
    assert rows_of(got) == rows_of(in_order)
    assert got.tally.read == 3 * count and not got.tally.dropped


def rows_of(got: Read) -> Counter[tuple[object, ...]]:
    """Returns the rows as a multiset."""
    return Counter(tuple(row.values()) for row in got.rows())


def variety(kind: int) -> list[bytes]:
    """Returns messages of all sorts."""
    return [
        message(kind, ONE.announced(kind), TWO.announced(kind), OPTIONS.announced(kind)),
        message(kind, OPTIONS.data((1, 10, 5)), ONE.data(row(1), row(2)), ONE.data(row(3))),
        message(kind, TWO.data((*row(4), 1, b"name"), (*row(5), 1, b"n" * 260))),
        fixed(5, Fixed(), Fixed()),
        sflow(flow_sample(raw_header(FRAME), sampled_ip(OUT, HOME)), counter_sample()),
        sflow(flow_sample(sampled_ip(OUT6, HOME6), expanded=True)),
        fixed(1, Fixed()),
        message(kind, Template(300, SIMPLE).data(row(6))),
        message(kind, withdrawal(256), ONE.data(row(7))),
        fixed(7, Fixed()),
    ]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_breaks_is_counted(data: st.DataObject) -> None:
    """Any cut and any bytes changed: records or counts, never an exception but a refusal."""
    kind, in_capture = data.draw(st.sampled_from((9, 10))), data.draw(st.booleans())
    messages = variety(kind)
    if in_capture and data.draw(st.booleans()):
        messages = [broken(data, one) for one in messages]
        whole = carried(messages)
    else:
        whole = broken(data, carried(messages) if in_capture else b"".join(messages))
    try:
        got = read_bytes(whole, Session(border(), captures="exports"))
    except SourceError:
        return
    kept = sum(map(len, got.batches))
    if got.name == "exports":
        metered = sum(
            int(b.a.packets[i]) + max(int(b.b.packets[i]), 0)
            for b in got.batches
            for i in range(len(b))
            if b.a.payload_bytes[i] != UNKNOWN
        )
        rows = sum(int((b.a.payload_bytes == UNKNOWN).sum()) for b in got.batches)
        assert kept >= rows
        assert got.tally.read == rows + metered + got.tally.dropped.total()


def broken(data: st.DataObject, whole: bytes) -> bytes:
    """Changes some bytes, and cuts some off."""
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.sampled_from((0, 1, 4, 255, changed[at] ^ 1, changed[at] ^ 128)))
    cut = data.draw(st.one_of(st.just(len(changed)), st.integers(1, len(changed))))
    return bytes(changed[:cut])
