"""Flow exports made by hand: what each must become."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from capture_kit import Packet, border, ethernet, icmp, ip, pcap, tcp, udp
from export_kit import (
    EXPORTER,
    HOME,
    HOME6,
    NOW,
    OUT,
    OUT6,
    UPTIME,
    VARIABLE,
    Field,
    Fixed,
    Template,
    a_set,
    carried,
    counter_sample,
    fixed,
    flow_sample,
    ipfix,
    message,
    raw_header,
    read,
    sampled_ip,
    sflow,
    v9,
    withdrawal,
)

from telemetry.errors import SourceError
from telemetry.raw import NEVER, UNKNOWN
from telemetry.readers import Session
from telemetry.readers.exports import flows, templates
from telemetry.readers.exports.carriers import NO_MESSAGE_FROM_HERE
from telemetry.readers.exports.reader import READER

BOOT_US = (NOW * 1000 - UPTIME) * 1000
SOURCE, TARGET = Field(8, 4), Field(12, 4)
PORTS = Field(7, 2), Field(11, 2)
COUNTERS = Field(2, 4), Field(1, 4)
SIMPLE = Template(256, [SOURCE, TARGET, *PORTS, Field(4, 1), *COUNTERS])
RECORD = (OUT, HOME, 443, 50000, 6, 3, 200)
KINDS = pytest.mark.parametrize("kind", [9, 10])


def described(kind: int, template: Template = SIMPLE, *records: tuple[object, ...]) -> bytes:
    """Returns a message with a template and its records."""
    return message(kind, template.announced(kind), template.data(*(records or (RECORD,))))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exports"


# Formats without templates


@pytest.mark.parametrize("version", [1, 5, 7])
@pytest.mark.parametrize("in_capture", [True, False])
def test_a_fixed_record(path: Path, version: int, in_capture: bool) -> None:
    data = fixed(version, Fixed(), Fixed(source=HOME, target=OUT))
    got = read(path, carried([data]) if in_capture else data)
    assert (got.name, got.tally.unit, got.tally.read, got.tally.packets) == (
        "exports",
        "records",
        2,
        1,
    )
    row, back = got.rows()
    half = 500_000
    assert row == {
        "source": OUT,
        "target": HOME,
        "a_port": 443,
        "b_port": 50000,
        "protocol": 6,
        "sampling_rate": 1,
        "active_timeout": UNKNOWN,
        "idle_timeout": UNKNOWN,
        "a.packets": 3,
        "a.bytes": 200,
        "a.min_bytes": UNKNOWN,
        "a.max_bytes": UNKNOWN,
        "a.tcp_flags": 0x1B,
        "a.first": BOOT_US + half + (UPTIME - 5000) * 1000,
        "a.last": BOOT_US + half + (UPTIME - 1000) * 1000,
        "b.packets": UNKNOWN,
        "b.bytes": UNKNOWN,
        "b.min_bytes": UNKNOWN,
        "b.max_bytes": UNKNOWN,
        "b.tcp_flags": UNKNOWN,
        "b.first": NEVER,
        "b.last": NEVER,
    }
    assert (back["source"], back["target"]) == (HOME, OUT)


def test_records_of_v1_may_lack_the_four_bytes_that_mean_nothing(path: Path) -> None:
    records = (Fixed(), Fixed(source=HOME, target=OUT), Fixed(octets=999))
    long, short = (
        read(path, carried([fixed(1, *records, short=short)])).rows() for short in (False, True)
    )
    assert len(long) == 3
    assert short == long


def test_the_header_of_v5_tells_the_sampling_rate(path: Path) -> None:
    assert read(path, fixed(5, Fixed(), sampling=0x4000 | 100)).one()["sampling_rate"] == 100


def test_v5_has_type_and_code_of_icmp_in_the_port(path: Path) -> None:
    data = fixed(5, Fixed(protocol=1, ports=(0, 3 << 8 | 1)), Fixed(protocol=1, ports=(0, 0)))
    found = [(row["a_port"], row["b_port"]) for row in read(path, data).rows()]
    assert found == [(3, 1), (8, 0)]  # a reply stands under its request


def test_the_counter_of_milliseconds_starts_anew(path: Path) -> None:
    record = Fixed(first=2**32 - 1000, last=500)
    row = read(path, fixed(5, record, uptime=2000)).one()
    export = NOW * 1_000_000 + 500_000
    assert (row["a.first"], row["a.last"]) == (export - 3_000_000, export - 1_500_000)


# Templates


@KINDS
@pytest.mark.parametrize("in_capture", [True, False])
def test_a_template_and_its_data(path: Path, kind: int, in_capture: bool) -> None:
    data = described(kind, SIMPLE, RECORD, (HOME, OUT, 50000, 443, 6, 2, 120))
    got = read(path, carried([data]) if in_capture else data)
    assert (got.tally.read, dict(got.tally.dropped)) == (2, {})
    row, back = got.rows()
    assert (row["source"], row["a_port"], row["a.packets"], row["a.bytes"]) == (OUT, 443, 3, 200)
    assert (back["source"], back["a.bytes"], back["b.packets"]) == (HOME, 120, UNKNOWN)
    # Without times of its own a record has that of its export.
    assert row["a.first"] == row["a.last"] == NOW * 1_000_000


@KINDS
def test_addresses_of_both_families(path: Path, kind: int) -> None:
    six = Template(257, [Field(27, 16), Field(28, 16)])
    both = Template(258, [*six.fields, SOURCE, TARGET])
    said = Template(259, [*both.fields, Field(60, 1)])
    sets = [
        six.data((OUT6, HOME6)),
        both.data((OUT6, HOME6, "0.0.0.0", "0.0.0.0"), ("::", "::", OUT, HOME)),
        said.data((OUT6, HOME6, OUT, HOME, 6), (OUT6, HOME6, OUT, HOME, 4)),
    ]
    data = message(kind, *(t.announced(kind) for t in (six, both, said)), *sets)
    found = [row["source"] for row in read(path, data).rows()]
    assert found == [OUT6, OUT6, OUT, OUT6, OUT]


@KINDS
def test_without_both_addresses(path: Path, kind: int) -> None:
    macs = Template(256, [Field(56, 6), Field(80, 6), *COUNTERS])
    half = Template(257, [SOURCE, *COUNTERS])
    data = message(
        kind,
        macs.announced(kind),
        half.announced(kind),
        macs.data((bytes(6), bytes(6), 1, 2)),
        half.data((OUT, 1, 2)),
    )
    got = read(path, data)
    assert (got.tally.read, dict(got.tally.dropped)) == (2, {"no_address": 2})


@KINDS
def test_integers_of_any_width(path: Path, kind: int) -> None:
    for width in range(1, 9):
        template = Template(256, [SOURCE, TARGET, Field(1, width), Field(2, width)])
        octets = (1 << min(8 * width, 63)) - 1
        row = read(path, described(kind, template, (OUT, HOME, octets, 7))).one()
        assert (row["a.bytes"], row["a.packets"]) == (octets, 7)


def test_fields_of_variable_length_and_of_enterprises(path: Path) -> None:
    template = Template(
        256,
        [
            Field(82, VARIABLE),
            SOURCE,
            Field(7, 40, enterprise=9),
            Field(95, VARIABLE, enterprise=9),
            TARGET,
            Field(1, VARIABLE),
        ],
    )
    long = b"x" * 300
    body = b"".join(
        f.encode(value)
        for record in (
            (b"name", OUT, bytes(40), b"", HOME, 70_000),
            (long, HOME, b"y" * 40, b"z", OUT, 0),
        )
        for f, value in zip(template.fields, record, strict=True)
    )
    got = read(path, ipfix(template.announced(10), a_set(256, body)))
    assert [(r["source"], r["a_port"], r["a.bytes"]) for r in got.rows()] == [
        (OUT, 0, 70_000),
        (HOME, 0, UNKNOWN),
    ]


def test_both_directions_in_one_record(path: Path) -> None:
    reverse = 29305
    template = Template(
        256,
        [
            *SIMPLE.fields,
            Field(152, 8),
            Field(153, 8),
            Field(6, 2),
            *(Field(e, w, reverse) for e, w in ((2, 8), (1, 8), (6, 1), (152, 8), (153, 8))),
        ],
    )
    start = NOW * 1000
    record = (*RECORD, start, start + 90, 2, 5, 900, 18, start + 10, start + 70)
    silent = (*RECORD, start, start + 90, 2, 0, 0, 0, 0, 0)
    row, unanswered = read(path, described(10, template, record, silent)).rows()
    assert {n: row[n] for n in row if n.startswith("b.")} == {
        "b.packets": 5,
        "b.bytes": 900,
        "b.min_bytes": UNKNOWN,
        "b.max_bytes": UNKNOWN,
        "b.tcp_flags": 18,
        "b.first": (start + 10) * 1000,
        "b.last": (start + 70) * 1000,
    }
    assert (row["a.first"], row["a.last"]) == (start * 1000, (start + 90) * 1000)
    assert (unanswered["b.packets"], unanswered["b.first"]) == (0, NEVER)


def test_initiator_and_responder(path: Path) -> None:
    template = Template(256, [SOURCE, TARGET, *(Field(e, 4) for e in (231, 232, 298, 299))])
    row = read(path, described(10, template, (OUT, HOME, 10, 20, 1, 2))).one()
    sums = [row[n] for n in ("a.bytes", "b.bytes", "a.packets", "b.packets")]
    assert sums == [10, 20, 1, 2]
    assert row["b.first"] == row["a.first"]


@KINDS
def test_counters_of_what_was_seen_on_its_way_out(path: Path, kind: int) -> None:
    template = Template(256, [SOURCE, TARGET, *(Field(e, 4) for e in (1, 2, 23, 24))])
    data = described(kind, template, (OUT, HOME, 0, 0, 90, 2), (OUT, HOME, 50, 1, 40, 1))
    found = [(row["a.bytes"], row["a.packets"]) for row in read(path, data).rows()]
    assert found == [(90, 2), (50, 1)]


@KINDS
def test_which_counters_count(path: Path, kind: int) -> None:
    for elements, wanted in (((85, 1, 23), 2), ((23, 85), 2), ((23,), 1)):
        template = Template(256, [SOURCE, TARGET, *(Field(e, 4) for e in elements)])
        values = range(1, len(elements) + 1)
        row = read(path, described(kind, template, (OUT, HOME, *values))).one()
        assert row["a.bytes"] == wanted, elements


def ntp(microseconds: int) -> int:
    """Returns a moment since 1970 in the format of RFC 5905, rounded up."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return (seconds + 2_208_988_800) << 32 | -(-(rest << 32) // 1_000_000)


@pytest.mark.parametrize(
    ("elements", "values", "first", "last"),
    [
        ((150, 151), (NOW - 9, NOW - 3), (NOW - 9) * 10**6, (NOW - 3) * 10**6),
        ((152, 153), (NOW * 1000 - 9, NOW * 1000), NOW * 10**6 - 9000, NOW * 10**6),
        ((154, 155), (ntp(NOW * 10**6 + 7), ntp(NOW * 10**6 + 9)), NOW * 10**6 + 7, None),
        ((156, 157), (ntp(NOW * 10**6 + 7), ntp(NOW * 10**6 + 9)), NOW * 10**6 + 7, None),
        ((158, 159), (5000, 2000), NOW * 10**6 - 5000, NOW * 10**6 - 2000),
        ((323,), (NOW * 1000 + 5,), NOW * 10**6 + 5000, NOW * 10**6 + 5000),
        ((152, 323), (NOW * 1000, NOW * 1000 + 5), NOW * 10**6, NOW * 10**6 + 5000),
        ((152, 161), (NOW * 1000, 40), NOW * 10**6, NOW * 10**6 + 40_000),
        ((153, 162), (NOW * 1000, 40), NOW * 10**6 - 40, NOW * 10**6),
        ((160, 22, 21), (NOW * 1000, 50, 80), NOW * 10**6 + 50_000, NOW * 10**6 + 80_000),
        ((22, 21), (50, 80), NOW * 10**6, NOW * 10**6),
    ],
)
def test_times_of_ipfix(
    path: Path,
    elements: tuple[int, ...],
    values: tuple[int, ...],
    first: int,
    last: int | None,
) -> None:
    narrow = (22, 21, 150, 151, 158, 159, 161, 162)
    times = [Field(e, 4 if e in narrow else 8) for e in elements]
    template = Template(256, [SOURCE, TARGET, *times])
    row = read(path, described(10, template, (OUT, HOME, *values))).one()
    assert (row["a.first"], row["a.last"]) == (first, NOW * 10**6 + 9 if last is None else last)


def test_times_of_v9_count_from_the_start_of_the_exporter(path: Path) -> None:
    template = Template(256, [SOURCE, TARGET, Field(22, 4), Field(21, 4)])
    row = read(path, described(9, template, (OUT, HOME, UPTIME - 70, UPTIME + 30))).one()
    assert row["a.first"] == NOW * 1_000_000 - 70_000
    assert row["a.last"] == NOW * 1_000_000 + 30_000


def test_a_time_out_of_range(path: Path) -> None:
    template = Template(256, [SOURCE, TARGET, Field(152, 8)])
    got = read(path, described(10, template, (OUT, HOME, 2**63 - 1)))
    assert dict(got.tally.dropped) == {"bad_time": 1}


def test_types_of_icmp(path: Path) -> None:
    one = Template(256, [SOURCE, TARGET, Field(4, 1), Field(32, 2)])
    two = Template(257, [Field(27, 16), Field(28, 16), Field(4, 1), Field(178, 1), Field(179, 1)])
    old = Template(258, [SOURCE, TARGET, Field(4, 1), Field(11, 2)])
    data = ipfix(
        *(t.announced(10) for t in (one, two, old)),
        one.data((OUT, HOME, 1, 3 << 8 | 2)),
        two.data((OUT6, HOME6, 58, 129, 0)),
        old.data((OUT, HOME, 1, 11 << 8)),
    )
    found = [(row["a_port"], row["b_port"]) for row in read(path, data).rows()]
    assert found == [(3, 2), (128, 0), (11, 0)]


@KINDS
def test_translated_addresses_and_names_are_stepped_over(path: Path, kind: int) -> None:
    template = Template(256, [Field(225, 4), SOURCE, Field(227, 2), TARGET, Field(228, 2)])
    row = read(path, described(kind, template, ("9.9.9.9", OUT, 1, HOME, 2))).one()
    assert (row["source"], row["target"], row["a_port"]) == (OUT, HOME, 0)


# What exporters tell of themselves


@KINDS
def test_options_tell_sampling_and_timeouts(path: Path, kind: int) -> None:
    scope = Field(1 if kind == 9 else 149, 4)
    options = Template(300, [scope, Field(34, 4), Field(36, 2), Field(37, 2)], scope=1)
    data = message(
        kind,
        SIMPLE.announced(kind),
        options.announced(kind),
        SIMPLE.data(RECORD),
        options.data((7, 64, 60, 15)),
        SIMPLE.data(RECORD),
    )
    got = read(path, data)
    assert got.tally.read == 2
    told = [(r["sampling_rate"], r["active_timeout"], r["idle_timeout"]) for r in got.rows()]
    assert told == [(1, UNKNOWN, UNKNOWN), (64, 60, 15)]


@pytest.mark.parametrize(
    ("kind", "sampler", "fields", "values", "rate"),
    [
        (9, 48, (49, 50), (2, 1000), 1000),
        (10, 302, (304, 305, 306), (1, 1, 999), 1000),
        (10, 302, (304, 309, 310), (3, 10, 5000), 500),
        (10, 302, (305,), (128,), 128),
    ],
)
def test_a_record_names_its_sampler(
    path: Path, kind: int, sampler: int, fields: tuple[int, ...], values: tuple[int, ...], rate: int
) -> None:
    scope = Field(1, 4) if kind == 9 else Field(sampler, 2)
    rest = ([Field(sampler, 2)] if kind == 9 else []) + [Field(e, 4) for e in fields]
    options = Template(300, [scope, *rest], scope=1)
    named = Template(256, [SOURCE, TARGET, Field(sampler, 2)])
    record = (0, 5, *values) if kind == 9 else (5, *values)
    data = message(
        kind,
        options.announced(kind),
        options.data(record),
        named.announced(kind),
        named.data((OUT, HOME, 5), (OUT, HOME, 6)),
    )
    assert [row["sampling_rate"] for row in read(path, data).rows()] == [rate, 1]


@KINDS
def test_a_record_tells_its_own_rate_and_timeouts(path: Path, kind: int) -> None:
    template = Template(256, [SOURCE, TARGET, Field(34, 2), Field(36, 2), Field(37, 2)])
    row = read(path, described(kind, template, (OUT, HOME, 10, 30, 5))).one()
    assert (row["sampling_rate"], row["active_timeout"], row["idle_timeout"]) == (10, 30, 5)


# Many templates, domains, exporters


@KINDS
def test_a_template_is_redefined(path: Path, kind: int) -> None:
    turned = Template(256, [TARGET, SOURCE, *SIMPLE.fields[2:]])
    again = message(kind, SIMPLE.data(RECORD))
    data = [
        described(kind),
        message(kind, turned.announced(kind)),
        again,
        message(kind, turned.announced(kind)),
        again,
        described(kind),
        again,
    ]
    found = [row["source"] for row in read(path, carried(data)).rows()]
    assert found == [OUT, HOME, HOME, OUT, OUT]


@pytest.mark.parametrize("which", [256, 2])
def test_a_template_is_withdrawn(path: Path, which: int) -> None:
    data = [described(10), ipfix(withdrawal(which), SIMPLE.data(RECORD))]
    got = read(path, carried(data))
    assert (len(got.rows()), dict(got.tally.dropped)) == (1, {"no_template": 1})
    assert len(read(path, carried([*data, described(10)])).rows()) == 3


@KINDS
def test_a_template_expires_unless_it_is_repeated(path: Path, kind: int) -> None:
    day = 86_400
    late = message(kind, SIMPLE.data(RECORD), second=NOW + day + 1)
    repeated = message(kind, SIMPLE.announced(kind), second=NOW + 7200)
    assert len(read(path, carried([described(kind), repeated, late])).rows()) == 2
    got = read(path, carried([described(kind), late]))
    assert (len(got.rows()), dict(got.tally.dropped)) == (1, {"no_template": 1})


@KINDS
def test_domains_and_exporters_have_templates_of_their_own(path: Path, kind: int) -> None:
    turned = Template(256, [TARGET, SOURCE, *SIMPLE.fields[2:]])
    plain = SIMPLE.announced(kind), SIMPLE.data(RECORD)
    other = turned.announced(kind), SIMPLE.data(RECORD)
    data = [
        message(kind, *plain),
        message(kind, *other, domain=8),
        message(kind, SIMPLE.data(RECORD)),
    ]
    assert [r["source"] for r in read(path, carried(data)).rows()] == [OUT, HOME, OUT]
    data = [message(kind, *plain), message(kind, *other), message(kind, SIMPLE.data(RECORD))]
    got = read(path, carried(data, [EXPORTER, "2001:db8::1"]))
    assert [r["source"] for r in got.rows()] == [OUT, HOME, OUT]


@KINDS
def test_data_waits_for_its_template(path: Path, kind: int) -> None:
    data = [
        message(kind, SIMPLE.data(RECORD), SIMPLE.data(RECORD)),
        message(kind, Template(257, SIMPLE.fields).data(RECORD)),
        message(kind, SIMPLE.announced(kind)),
        message(kind, SIMPLE.data(RECORD)),
    ]
    got = read(path, carried(data))
    assert len(got.rows()) == 3
    assert (got.tally.read, dict(got.tally.dropped)) == (4, {"no_template": 1})


@KINDS
def test_data_that_its_template_does_not_fit_waits_no_longer(path: Path, kind: int) -> None:
    # Else data of one day would be tried again with each template of another.
    late = message(kind, SIMPLE.announced(kind), second=NOW + 2 * 86_400)
    data = [message(kind, SIMPLE.data(RECORD)), late, described(kind)]
    got = read(path, carried(data))
    assert (len(got.rows()), dict(got.tally.dropped)) == (1, {"no_template": 1})


@KINDS
def test_a_later_source_of_the_run_knows_the_templates(path: Path, kind: int) -> None:
    session = Session(border())
    announced, data = message(kind, SIMPLE.announced(kind)), message(kind, SIMPLE.data(RECORD))
    assert read(path, carried([announced]), session).tally.read == 0
    assert len(read(path, carried([data]), session).rows()) == 1
    assert dict(read(path, carried([data])).tally.dropped) == {"no_template": 1}


@KINDS
def test_files_share_templates_only_if_one_exporter_may_have_written_them(
    path: Path, kind: int
) -> None:
    session = Session(border())
    read(path, message(kind, SIMPLE.announced(kind)), session)
    near, far = NOW + 20, NOW + 3 * 3600
    other = message(kind, SIMPLE.data(RECORD), second=far)  # of v9: one that started later
    assert dict(read(path, other, session).tally.dropped) == {"no_template": 1}
    data = SIMPLE.data(RECORD)
    same = v9(data, second=far, uptime=UPTIME + 3 * 3_600_000)
    got = read(path, same if kind == 9 else ipfix(data, second=near), session)
    assert len(got.rows()) == 1


def test_what_waits_for_templates_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_HELD_BYTES", 1000)
    data = [*[ipfix(SIMPLE.data(RECORD))] * 9, ipfix(SIMPLE.announced(10))]
    got = read(path, carried(data))
    assert 0 < len(got.rows()) < 9
    assert len(got.rows()) + got.tally.dropped["no_template"] == got.tally.read == 9


def test_what_is_known_of_exporters_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "_PLANS", 20)
    data = []
    for i in range(100):
        one = Template(300 + i, [*SIMPLE.fields, Field(95, 1 + i)])
        data += [ipfix(one.announced(10)), ipfix(one.data((*RECORD, bytes(1 + i))), domain=7)]
    session = Session(border())
    got = read(path, carried(data), session)
    assert len(got.rows()) == got.tally.read == 100
    assert len(session.carried["exports"]._plans) < 30
    monkeypatch.setattr(templates, "_DOMAINS", 20)
    session = Session(border())
    data = [message(9, SIMPLE.announced(9), SIMPLE.data(RECORD), domain=i) for i in range(99)]
    assert len(read(path, carried(data), session).rows()) == 99


# Carriers


def test_when_a_source_begins() -> None:
    assert READER.starts(carried([described(9)], time=5)) == 5
    for data in (described(9), described(10), fixed(5, Fixed()), fixed(1, Fixed())):
        assert READER.starts(data) == NOW * 1_000_000
    assert READER.starts(sflow()) is None


@KINDS
def test_messages_one_after_another(path: Path, kind: int) -> None:
    mixed = [  # the sampled packet has no time outside a capture
        described(kind),
        fixed(5, Fixed()),
        sflow(flow_sample(sampled_ip(OUT, HOME))),
        described(kind),
        message(kind, SIMPLE.data(RECORD)),
        fixed(1, Fixed()),
        fixed(7, Fixed()),
    ]
    got = read(path, b"".join(mixed))
    assert (got.tally.packets, got.tally.read, len(got.rows())) == (7, 7, 6)


@KINDS
def test_a_file_that_is_cut(path: Path, kind: int) -> None:
    whole = described(kind) * 3
    got = read(path, whole[:-5])
    assert (got.tally.read, dict(got.tally.dropped)) == (3, {"malformed_row": 1})
    got = read(path, whole + b"something else, of no format at all")
    assert len(got.rows()) == 3
    # What follows v9, which tells no length, is taken for a set that is cut.
    assert got.tally.dropped if kind == 9 else got.tally.damage


@pytest.mark.parametrize("length", [0, 4, 15, 17, 19])
def test_a_message_that_says_it_is_shorter_than_a_header(path: Path, length: int) -> None:
    broken = described(10)[:2] + length.to_bytes(2) + described(10)[4:]
    got = read(path, 2 * described(10) + broken + described(10))
    assert len(got.rows()) == 2
    assert got.tally.damage == NO_MESSAGE_FROM_HERE


def test_other_packets_of_a_capture_of_exports(path: Path) -> None:
    frames = [
        ethernet(ip(EXPORTER, "192.0.2.9", 17, udp(1, 2055, fixed(5, Fixed())))),
        ethernet(ip(EXPORTER, "192.0.2.9", 17, udp(1, 2055, fixed(5, Fixed())))),
        ethernet(ip(EXPORTER, "192.0.2.9", 6, tcp(179, 40000))),
        ethernet(bytes(28), 0x0806),
    ]
    got = read(path, pcap([Packet(NOW * 1_000_000, frame) for frame in frames]))
    assert (got.name, got.tally.packets, got.tally.read) == ("exports", 4, 4)
    assert dict(got.tally.dropped) == {"not_an_export": 2}


def test_what_a_capture_is_taken_for(path: Path) -> None:
    exports = [ethernet(ip(OUT, HOME, 17, udp(1, 2055, fixed(5, Fixed()))))]
    others = [ethernet(ip(OUT, HOME, 6, tcp(443, 50000)))]

    def name(frames: list[bytes], captures: str = "auto") -> str:
        data = pcap([Packet(NOW * 1_000_000, frame) for frame in frames])
        return read(path, data, Session(border(), captures=captures)).name

    assert name(exports + others) == "exports"
    assert name(exports + 2 * others) == "pcap"
    assert name(others) == "pcap"
    assert name(exports, "traffic") == "pcap"
    assert name(others, "exports") == "exports"


def test_a_datagram_cut_by_the_snap_length(path: Path) -> None:
    payload = fixed(5, Fixed(), Fixed(), Fixed())
    frame = ethernet(ip(EXPORTER, "192.0.2.9", 17, udp(1, 2055, payload)))
    data = pcap([Packet(NOW * 1_000_000, frame[:-50], len(frame))])
    got = read(path, data, Session(border(), captures="exports"))
    assert (len(got.rows()), dict(got.tally.dropped)) == (1, {"malformed_row": 1})


@KINDS
def test_templates_cut_by_the_snap_length(path: Path, kind: int) -> None:
    frame = ethernet(ip(EXPORTER, "192.0.2.9", 17, udp(1, 2055, described(kind))))
    data = pcap([Packet(NOW * 1_000_000, frame[:80], len(frame))])
    got = read(path, data, Session(border(), captures="exports"))
    assert dict(got.tally.dropped) == {"malformed_row": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x00\x00" + bytes(60),
        b"\x00\x09" + b"text that is no export at all",
        b"\x00\x0a\x00\x10" + bytes(11),
        fixed(5, Fixed())[:-1] + b"",
        b"\x00\x00\x00\x05" + bytes(40),
    ],
)
def test_what_is_no_file_of_exports(path: Path, data: bytes) -> None:
    with pytest.raises(SourceError, match="not recognised"):
        read(path, data)


@KINDS
def test_sense_ends_inside_a_message(path: Path, kind: int) -> None:
    reserved = struct.pack(">HH", 100, 8) + bytes(4)
    short = struct.pack(">HH", 256, 2)
    long = struct.pack(">HH", 256, 400) + bytes(4)
    for rest in (reserved, short, long):
        whole = [SIMPLE.announced(kind), SIMPLE.data(RECORD), rest, SIMPLE.data(RECORD)]
        good = described(kind)
        got = read(path, carried([good, message(kind, *whole), good]))
        assert dict(got.tally.dropped) == {"malformed_row": 1}
        assert len(got.rows()) == got.tally.read - 1 == 3


# sFlow


def test_sampled_packets_go_through_the_packet_kernel(path: Path) -> None:
    out_in = ethernet(ip(OUT, HOME, 6, tcp(443, 50000, payload=b"x" * 60)))
    in_out = ethernet(ip(HOME, OUT, 6, tcp(50000, 443)))
    inside = ethernet(ip(HOME, "133.11.0.2", 6, tcp(50000, 443)))
    samples = [
        flow_sample(raw_header(out_in[:60], wire=len(out_in)), rate=512),
        flow_sample(raw_header(in_out), rate=512, expanded=True),
        counter_sample(),
        flow_sample(raw_header(out_in[:60]), rate=16),
        flow_sample(raw_header(inside), rate=512),
        flow_sample(raw_header(ip(OUT, HOME, 1, icmp(8)), protocol=11), rate=512),
        flow_sample(raw_header(out_in, protocol=4), rate=512),
    ]
    got = read(path, carried([sflow(*samples), sflow(counter_sample(), agent="2001:db8::1")]))
    assert got.tally.read == 6
    assert dict(got.tally.dropped) == {"domestic": 1, "link_type_unsupported": 1}
    found = {
        (r["sampling_rate"], r["protocol"], r["a.packets"], r["b.packets"]) for r in got.rows()
    }
    assert found == {(512, 6, 1, 1), (16, 6, 1, 0), (512, 1, 1, 0)}
    assert {r["a.bytes"] for r in got.rows() if r["protocol"] == 6} == {100}


def test_more_rates_than_a_table_tells_apart(path: Path) -> None:
    frame = ethernet(ip(OUT, HOME, 6, tcp(443, 50000)))
    samples = [flow_sample(raw_header(frame), rate=1 + i) for i in range(600)]
    got = read(path, carried([sflow(*samples[i : i + 10]) for i in range(0, 600, 10)]))
    assert sorted(int(str(r["sampling_rate"])) for r in got.rows()) == list(range(1, 601))


def test_sampled_header_fields(path: Path) -> None:
    samples = [
        flow_sample(sampled_ip(OUT, HOME), rate=8),
        flow_sample(sampled_ip(OUT6, HOME6, octets=1280), rate=8),
        flow_sample(),
    ]
    got = read(path, carried([sflow(*samples)]))
    assert dict(got.tally.dropped) == {"no_address": 1}
    one, two = got.rows()
    assert (one["source"], one["a_port"], one["a.packets"], one["a.bytes"]) == (OUT, 443, 1, 100)
    assert (two["source"], two["a.bytes"], two["sampling_rate"]) == (OUT6, 1280, 8)
    assert one["a.first"] == one["a.last"] == NOW * 1_000_000


def test_a_packet_header_in_a_file_has_no_time(path: Path) -> None:
    frame = ethernet(ip(OUT, HOME, 6, tcp(443, 50000)))
    got = read(path, sflow(flow_sample(raw_header(frame))))
    assert dict(got.tally.dropped) == {"bad_time": 1}


def test_a_broken_sample_ends_the_message(path: Path) -> None:
    whole = sflow(flow_sample(sampled_ip(OUT, HOME)), flow_sample(sampled_ip(OUT, HOME)))
    broken = whole[:-80] + struct.pack(">II", 1, 5000) + whole[-72:]
    got = read(path, carried([whole, broken]))
    assert (got.tally.read, dict(got.tally.dropped)) == (4, {"malformed_row": 1})
