"""Text of rwcut and yafscii: titles in any order, none at all, dates and seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_kit import Save, one, read, saver

from telemetry.errors import SourceError
from telemetry.raw import NEVER, UNKNOWN
from telemetry.readers import silk
from telemetry.reasons import Reason

TITLES = (
    "            sIP|            dIP|sPort|dPort|pro|   packets|     bytes|   flags|"
    "                  sTime| duration|                  eTime|sen|\n"
)
ROWS = (
    "    203.0.113.7|      192.0.2.1|40000|  443|  6|        10|      1200|FS PA   |"
    "2009/02/12T00:00:00.123|    2.500|2009/02/12T00:00:02.623| S0|\n"
    "    2001:db8::1|    2001:db8::2|    0|  768| 58|         1|       100|        |"
    "2009/02/12T00:00:01.000|    0.000|2009/02/12T00:00:01.000| S0|\n"
    "    203.0.113.9|      192.0.2.1|    0| 2048|  1|         1|        84|        |"
    "2009/02/12T00:00:02.000|    0.000|2009/02/12T00:00:02.000| S0|\n"
)
START = 1_234_396_800_123_000


@pytest.fixture
def save(tmp_path: Path) -> Save:
    return saver(tmp_path)


def test_default_columns(save: Save) -> None:
    columns, tally = read(silk.READER, save((TITLES + ROWS).encode()))
    assert columns["a_lo"][0] == 0xFFFF_CB00_7107
    assert columns["a_port"] == [40000, 3, 8]
    assert columns["b_port"] == [443, 0, 0]
    assert columns["protocol"] == [6, 58, 1]
    assert (columns["a.packets"], columns["a.bytes"]) == ([10, 1, 1], [1200, 100, 84])
    assert columns["a.tcp_flags"] == [0x1B, 0, 0]
    assert (columns["a.first"][0], columns["a.last"][0]) == (START, START + 2_500_000)
    assert set(columns["b.packets"]) == {UNKNOWN}
    assert set(columns["b.first"]) == {NEVER}
    assert not tally.dropped


def test_text_without_titles(save: Save) -> None:
    expected = read(silk.READER, save((TITLES + ROWS).encode()))[0]
    assert read(silk.READER, save(ROWS.encode()))[0] == expected
    unended = ROWS.replace(" S0|\n", " S0\n")
    assert read(silk.READER, save(unended.encode()))[0] == expected


def test_other_delimiters_orders_and_titles(save: Save) -> None:
    expected = read(silk.READER, save((TITLES + ROWS).encode()))[0]
    for separator in (",", "|", "\t"):
        lines = [
            [field.strip() for field in line.split("|")[-2::-1]]
            for line in (TITLES + ROWS).splitlines()
        ]
        content = "\n".join(separator.join(line) for line in lines) + "\n"
        assert read(silk.READER, save(content.encode()))[0] == expected


def test_seconds_and_integer_flags(save: Save) -> None:
    content = "sIP,dIP,sPort,dPort,protocol,packets,bytes,flags,sTime,durat\n"
    content += "203.0.113.7,192.0.2.1,40000,443,6,10,1200,27,1234396800.123,2.5\n"
    row = one(read(silk.READER, save(content.encode()))[0])
    assert (row["a.tcp_flags"], row["a.first"], row["a.last"]) == (27, START, START + 2_500_000)


def test_padded_addresses_and_dates_of_old(save: Save) -> None:
    columns = "sIP|dIP|sPort|dPort|pro|sTime|eTime|\n"
    plain = "203.0.113.7|192.0.2.10|40000|443|6|2009/02/12T00:00:00.123|2009/02/12T00:00:01|\n"
    odd = (
        "203.000.113.007|192.000.002.010|40000|443|6|02/12/2009 00:00:00.123|02/12/2009 00:00:01|\n"
    )
    expected, _ = read(silk.READER, save((columns + plain).encode()))
    assert expected["a.first"] == [START]
    for text in (columns + odd, columns + odd.replace("203.000.113.007", "203.0.113.7")):
        assert read(silk.READER, save(text.encode()))[0] == expected
    default = "203.0.113.7|192.0.2.10|40000|443|6|1|40|S|{0}|0.000|{0}|S0|\n"
    old, new = (default.format(t) for t in ("02/12/2009 00:00:00.123", "2009/02/12T00:00:00.123"))
    assert read(silk.READER, save(old.encode()))[0] == read(silk.READER, save(new.encode()))[0]


def test_types_and_codes_of_icmp(save: Save) -> None:
    content = "sIP|dIP|sPort|dPort|pro|sTime|\n"
    content += "203.0.113.7|192.0.2.1|3|1|1|1234396800|\n"  # rwcut --icmp-type-and-code
    content += "203.0.113.7|192.0.2.1|0|769|1|1234396800|\n"
    content += "203.0.113.7|192.0.2.1|0|0|1|1234396800|\n"
    columns, _ = read(silk.READER, save(content.encode()))
    assert (columns["a_port"], columns["b_port"]) == ([3, 3, 8], [1, 1, 0])


def test_both_sides_of_yaf(save: Save) -> None:
    content = (
        "start-time|end-time|duration|rtt|proto|sip|sp|dip|dp|iflags|uflags|riflags|ruflags|"
        "isn|risn|tag|rtag|pkt|oct|rpkt|roct|end-reason\n"
        "2009-02-12 00:00:00.123|2009-02-12 00:00:02.623| 2.500| 0.100|  6|203.0.113.7|40000|"
        "192.0.2.1|  443|       S|   APF|      AS|   APF|1a2b|3c4d|000|000|   10|  1200|    8|"
        "   900|\n"
    )
    row = one(read(silk.READER, save(content.encode()))[0])
    assert (row["a.packets"], row["b.packets"], row["b.bytes"]) == (10, 8, 900)
    assert (row["a.tcp_flags"], row["b.tcp_flags"]) == (0x1B, 0x1B)
    assert (row["a.first"], row["b.last"]) == (START, START + 2_500_000)


def test_lines_that_do_not_fit_are_counted(save: Save) -> None:
    content = TITLES + ROWS + TITLES + "cut|short\n" + ROWS.replace("2001:db8::2", "inside-host")
    columns, tally = read(silk.READER, save(content.encode()))
    assert len(columns["a_hi"]) == 5
    assert dict(tally.dropped) == {Reason.MALFORMED_ROW.label: 1, Reason.NO_ADDRESS.label: 1}


def test_missing_columns_are_named(save: Save) -> None:
    with pytest.raises(SourceError, match=r"lacks the columns dport, sTime;".replace("sT", "st")):
        read(silk.READER, save(b"sIP|dIP|sPort|protocol|\n203.0.113.7|192.0.2.1|1|6|\n"))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_text_gives_records_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    sample = (TITLES + ROWS).encode()
    start, end = sorted(data.draw(st.tuples(*[st.integers(len(TITLES), len(sample))] * 2)))
    junk = st.text(alphabet="\n\r|_-.0 SA:", max_size=30).map(str.encode) | st.binary(max_size=50)
    content = sample[:start] + data.draw(junk) + sample[end:]
    try:
        read(silk.READER, saver(tmp_path_factory.getbasetemp())(content))
    except SourceError as error:
        assert "203.0.113.7" not in str(error)


def test_its_first_time_is_told() -> None:
    assert silk.READER.starts((TITLES + ROWS).encode()) == START
    assert silk.READER.starts(TITLES.encode()) is None
