"""Argus: who began, who sent what, and nothing lost, from text and through `ra`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from capture_kit import border
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_kit import Save, one, read, saver

from telemetry.errors import SourceError
from telemetry.raw import NEVER, UNKNOWN
from telemetry.readers import Session, argus, find_reader, open_source
from telemetry.reasons import Reason
from telemetry.records import Tally

ROW = {
    "StartTime": "2011/08/10 09:46:59.607825",
    "Dur": "1.026539",
    "Proto": "tcp",
    "SrcAddr": "203.0.113.7",
    "Sport": "1577",
    "Dir": "   ->",
    "DstAddr": "192.0.2.1",
    "Dport": "6881",
    "State": "SPA_SA",
    "sTos": "0",
    "dTos": "0",
    "TotPkts": "9",
    "TotBytes": "900",
    "SrcBytes": "600",
    "SrcPkts": "5",
    "Label": "flow=Canary",
}
START = 1_312_969_619_607_825


def text(*rows: dict[str, str | None], separator: str = ",") -> bytes:
    """Returns a file of rows, each ROW with changes; a None takes the column away."""
    full = [{k: v for k, v in (ROW | row).items() if v is not None} for row in rows]
    lines = [separator.join(full[0]), *(separator.join(row.values()) for row in full)]
    return "\n".join([*lines, ""]).encode()


@pytest.fixture
def save(tmp_path: Path) -> Save:
    return saver(tmp_path)


def record(save: Save, **changes: str | None) -> dict[str, Any]:
    return one(read(argus.READER, save(text(changes)))[0])


def test_a_record_of_both_sides(save: Save) -> None:
    row = record(save)
    assert (row["a_lo"], row["b_lo"]) == (0xFFFF_CB00_7107, 0xFFFF_C000_0201)
    assert (row["a_port"], row["b_port"], row["protocol"]) == (1577, 6881, 6)
    assert (row["a.packets"], row["b.packets"]) == (5, 4)
    assert (row["a.bytes"], row["b.bytes"]) == (600, 300)
    assert (row["a.tcp_flags"], row["b.tcp_flags"]) == (0x1A, 0x12)
    assert (row["a.first"], row["b.first"]) == (START, START + 1)
    assert row["a.last"] == row["b.last"] == START + 1_026_539
    assert row["a.payload_bytes"] == UNKNOWN


@pytest.mark.parametrize(
    ("changes", "packets", "octets"),
    [
        ({"SrcPkts": None}, (UNKNOWN, UNKNOWN), (600, 300)),
        ({"SrcPkts": None, "SrcBytes": None}, (UNKNOWN, UNKNOWN), (UNKNOWN, UNKNOWN)),
        ({"SrcPkts": None, "SrcBytes": "900"}, (9, 0), (900, 0)),
        ({"SrcPkts": None, "SrcBytes": "0"}, (0, 9), (0, 900)),
        ({"SrcPkts": None, "TotPkts": "2"}, (1, 1), (600, 300)),
        ({"SrcPkts": None, "SrcBytes": None, "State": "S_"}, (9, 0), (900, 0)),
        ({"SrcPkts": None, "SrcBytes": None, "State": "_R"}, (0, 9), (0, 900)),
        (
            {"SrcPkts": None, "SrcBytes": None, "Proto": "udp", "State": "INT"},
            (9, 0),
            (900, 0),
        ),
        (
            {"SrcPkts": None, "SrcBytes": None, "Proto": "udp", "State": "CON", "Dir": "  <->"},
            (UNKNOWN, UNKNOWN),
            (UNKNOWN, UNKNOWN),
        ),
        ({"TotPkts": None, "TotBytes": None, "DstPkts": "7", "DstBytes": "70"}, (5, 7), (600, 70)),
        ({"TotPkts": None, "TotBytes": None}, (5, UNKNOWN), (600, UNKNOWN)),
    ],
)
def test_totals_are_shared_out_where_nothing_is_guessed(
    save: Save,
    changes: dict[str, str | None],
    packets: tuple[int, int],
    octets: tuple[int, int],
) -> None:
    row = record(save, **changes)
    assert (row["a.packets"], row["b.packets"]) == packets
    assert (row["a.bytes"], row["b.bytes"]) == octets
    for side, count in zip("ab", packets, strict=True):
        assert (row[f"{side}.first"] == NEVER) == (count == 0)


def test_the_direction_tells_who_began(save: Save) -> None:
    row = record(save, Dir="  <-", State="SA_SPA")
    assert (row["a_port"], row["b_port"]) == (6881, 1577)
    assert (row["a.packets"], row["b.packets"]) == (4, 5)
    assert (row["a.tcp_flags"], row["a.first"], row["b.first"]) == (0x1A, START, START + 1)
    for direction in ("<?>", " ?>", "  <->", "   ->"):
        assert record(save, Dir=direction)["a_port"] == 1577


@pytest.mark.parametrize(
    ("state", "flags"),
    [
        ("S_RA", (0x02, 0x14)),
        ("FSRPAEC_FSRPA", (0xDF, 0x1F)),
        ("PA_", (0x18, UNKNOWN)),
        ("REQ", (0x02, UNKNOWN)),
        ("CON", (0x12, 0x12)),
        ("RST", (UNKNOWN, UNKNOWN)),
        ("S0", (UNKNOWN, UNKNOWN)),
    ],
)
def test_states(save: Save, state: str, flags: tuple[int, int]) -> None:
    row = record(save, State=state)
    assert (row["a.tcp_flags"], row["b.tcp_flags"]) == flags


@pytest.mark.parametrize(
    ("proto", "sport", "dport", "ports"),
    [
        ("icmp", "0x0008", "0x7208", (8, 0)),
        ("icmp", "0x0303", "0xd829", (3, 3)),
        ("icmp", "0x0403", "0x0000", (3, 4)),
        ("icmp", "0x03", "0x03", (3, 3)),
        ("icmp", "0x0000", "0x7208", (8, 0)),
        ("ipv6-icmp", "143", "0", (143, 0)),
        ("igmp", "", "", (0, 0)),
    ],
)
def test_protocols_without_ports(
    save: Save, proto: str, sport: str, dport: str, ports: tuple[int, int]
) -> None:
    six = {"SrcAddr": "2001:db8::1", "DstAddr": "ff02::1"} if proto == "ipv6-icmp" else {}
    row = record(save, Proto=proto, Sport=sport, Dport=dport, State="ECO", **six)
    assert (row["a_port"], row["b_port"]) == ports


def test_columns_in_any_order_and_other_delimiters(save: Save) -> None:
    expected = read(argus.READER, save(text({}, {"Dur": "2"})))[0]
    turned = [dict(reversed((ROW | row).items())) for row in ({}, {"Dur": "2"})]
    for separator in ("\t", "|", ";", ","):
        lines = [separator.join(turned[0]), *(separator.join(row.values()) for row in turned)]
        content = "\r\n".join([*lines, ""]).encode()
        assert read(argus.READER, save(b"\xef\xbb\xbf" + content))[0] == expected


def test_seconds_instead_of_dates_and_an_end_instead_of_a_duration(save: Save) -> None:
    row = record(save, StartTime="1312969619.607825", Dur=None, LastTime="1312969620.5")
    assert (row["a.first"], row["a.last"]) == (START, 1_312_969_620_500_000)


def test_what_is_no_record_is_counted(save: Save) -> None:
    rows: list[dict[str, str | None]] = [
        {"Proto": "man", "SrcAddr": "0", "DstAddr": "0"},
        {"Proto": "arp", "Dir": "  who"},
        {"Proto": "carrier pigeon"},
        {"TotPkts": "2"},
        {"SrcAddr": "host.example"},
        {},
    ]
    columns, tally = read(argus.READER, save(text(*rows) + text({})))
    assert len(columns["a_hi"]) == 2
    assert dict(tally.dropped) == {
        Reason.NOT_IP.label: 2,
        Reason.MALFORMED_ROW.label: 2,
        Reason.NO_ADDRESS.label: 1,
    }


def test_labels_are_not_passed_on(save: Save) -> None:
    assert "Canary" not in repr(read(argus.READER, save(text({}))))


def test_columns_and_dates_that_are_missing_are_named(save: Save) -> None:
    with pytest.raises(SourceError, match=r"lacks the columns StartTime, Dport;"):
        record(save, StartTime=None, Dport=None)
    with pytest.raises(SourceError, match="times without dates"):
        record(save, StartTime="09:46:59.607825")


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_text_gives_records_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    sample = text({}, {"Proto": "udp"}, {"Sport": "0x0008", "Proto": "icmp"})
    start, end = sorted(data.draw(st.tuples(*[st.integers(60, len(sample))] * 2)))
    junk = st.text(alphabet='\n\r",_-.0x<>?', max_size=30).map(str.encode) | st.binary(max_size=50)
    content = sample[:start] + data.draw(junk) + sample[end:]
    try:
        read(argus.READER, saver(tmp_path_factory.getbasetemp())(content))
    except SourceError as error:
        assert "203.0.113.7" not in str(error)


def test_every_row_of_the_corpus_is_a_record_or_counted(corpus: Path) -> None:
    paths = sorted(corpus.rglob("*.binetflow*"))
    assert len(paths) >= 9
    for path in paths:
        columns, tally = read(argus.READER, open_source(str(path)))
        assert Reason.MALFORMED_ROW.label not in tally.dropped, path
        # `0`, a truncated multicast address and MAC addresses apart
        assert tally.dropped[Reason.NO_ADDRESS.label] == 0, path
        assert len(columns["a_hi"]) > 0


# -- binary files


@pytest.fixture(scope="session")
def binary(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a binary file of a capture of the corpus."""
    if not (shutil.which("argus") and shutil.which("ra")):
        pytest.skip("argus and ra are not installed")
    capture = corpus / "attacks" / "ssh-bruteforce-lab" / "ssh-bruteforce.pcap"
    path = tmp_path_factory.mktemp("argus") / "binary"
    subprocess.run(["argus", "-r", capture, "-w", path], check=True, capture_output=True)
    return path


def test_binary_files_hold_all_packets(binary: Path, corpus: Path) -> None:
    columns, tally = read(argus.READER, open_source(str(binary)))
    text_of_same = corpus / "records" / "derived" / "ssh-bruteforce-lab.binetflow"
    text_columns, _ = read(argus.READER, open_source(str(text_of_same)))
    assert sum(columns["a.bytes"] + columns["b.bytes"]) == sum(
        text_columns["a.bytes"] + text_columns["b.bytes"]
    )
    capture = open_source(str(corpus / "attacks" / "ssh-bruteforce-lab" / "ssh-bruteforce.pcap"))
    session, packets = Session(border()), Tally()
    for _ in find_reader(capture, session).read(capture, session, packets):
        pass
    assert sum(columns["a.packets"] + columns["b.packets"]) == packets.read
    assert set(tally.dropped) <= {Reason.NOT_IP.label}
    assert all(flags > 0 for flags in columns["a.tcp_flags"])
    assert tally.damage is None


def test_a_binary_file_cut_short_gives_what_is_there(binary: Path, save: Save) -> None:
    content = binary.read_bytes()
    whole = len(read(argus.READER, save(content))[0]["a_hi"])
    cut = len(read(argus.READER, save(content[: len(content) // 2]))[0]["a_hi"])
    assert 0 < cut < whole
    for broken in (content[:4] + bytes(200), content[:60]):
        with pytest.raises(SourceError, match="nothing that ra can read"):
            read(argus.READER, save(broken))


def test_without_the_program_its_package_is_named(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match="needs the program ra; install the Debian package argus"):
        read(argus.READER, save(argus._MAGICS[0] + bytes(200)))


def test_its_first_time_is_told() -> None:
    later = {"StartTime": "2011/08/10 09:47:59.607825", "Dir": "  <-"}
    assert argus.READER.starts(text(later, {})) == START
    assert argus.READER.starts(argus._MAGICS[0] + bytes(100)) is None


def test_text_that_is_laid_out_for_the_eye_is_refused(save: Save) -> None:
    text = b"    StartTime    Proto   SrcAddr  Sport   Dir   DstAddr  Dport  State\n"
    with pytest.raises(SourceError, match="laid out for the eye; print it again with `ra -c ,"):
        read(argus.READER, save(text + b"  1795700398.5   tcp  192.0.2.1 1 -> 192.0.2.2 2 CON\n"))


def test_ports_by_name_are_refused_and_not_lost_row_by_row(save: Save) -> None:
    header = b"StartTime,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State\n"
    row = b"1795700398.5,tcp,192.0.2.1,50000,->,192.0.2.2,%b,CON\n"
    for named in (b"https", b"netbios-ns"):
        with pytest.raises(SourceError, match="names its ports; print it again with `ra -n`"):
            read(argus.READER, save(header + row % b"443" + row % named))
    columns, tally = read(argus.READER, save(header + 99 * (row % b"443") + row % b"oops"))
    assert (len(columns["a_hi"]), dict(tally.dropped)) == (99, {"malformed_row": 1})
