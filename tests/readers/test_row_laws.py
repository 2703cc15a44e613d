"""Laws of the readers of JSON and of cloud flow logs, on their samples.

Whatever happens to the bytes, they give records or counts, and every item is in one of them.
"""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from capture_kit import border
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows_kit import records_of

from telemetry.errors import SourceError
from telemetry.privacy import Gate, Keys
from telemetry.readers import Session, find_reader
from telemetry.readers.source import Source
from telemetry.records import Tally

FORMATS = Path(__file__).resolve().parents[2] / "data" / "samples" / "formats"
READERS = ("suricata", "goflow2", "pmacct", "gcp_vpc", "aws_vpc", "azure_flow")
SAMPLES = [
    path
    for name in READERS
    for path in sorted((FORMATS / name).iterdir())
    if path.name != "expect.json"
]
LINES = [path for path in SAMPLES if path.parent.name != "azure_flow" and "array" not in path.name]
HOSTILE = st.sampled_from(
    [b"{", b"}", b'"', b"\\", b"[", b"]", b",", b"\n", b"\x00", b"\xff\xfe", b"-1", b"1e400", b""]
) | st.sampled_from(
    [b"9" * 30, b'"\\ud800"', b"null", b"[[[[", b"0x", b"NaN", b" ", b"\r\n", b"1" * 5000]
)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(border(), Keys.create(tmp_path_factory.mktemp("key") / "key"), "link")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}-{path.name}")
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_changed_bytes_give_records_or_counts(gate: Gate, path: Path, data: st.DataObject) -> None:
    content = path.read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 40)))
        content = content[:start] + data.draw(HOSTILE | st.binary(max_size=6)) + content[end:]
    tally, session = Tally(), Session(border())
    try:
        source = Source("-", _file(content))
        reader = find_reader(source, session)
        for batch in reader.read(source, session, tally):
            batch.check()
            gate.admit(batch, tally, reader.gated)
    except SourceError as error:
        assert not any(address in str(error) for address in ("133.11", "8.8.8.8", "1.1.1.1"))
    assert tally.read == tally.kept + sum(tally.dropped.values())


@pytest.mark.parametrize("path", LINES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_cut_costs_no_line_before_it(path: Path) -> None:
    content = path.read_bytes()
    for cut in range(len(content) // 2, len(content), 11):
        lines = content[: content.rfind(b"\n", 0, cut) + 1]
        whole = records_of(lines, path.parent.name)[0] if lines else []
        if whole:  # else it is refused
            rows, _ = records_of(content[:cut], path.parent.name)
            assert Counter(map(str, whole)) <= Counter(map(str, rows)), cut


@pytest.mark.parametrize("path", LINES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_logs_one_after_the_other_are_one_log(path: Path) -> None:
    content = path.read_bytes()
    if path.name == "eve.json":
        content = content[: content.rindex(b"\n") + 1]  # its last line is cut
    whole, _ = records_of(content, path.parent.name)
    twice, _ = records_of(content.rstrip(b"\n") + b"\n" + content, path.parent.name)
    assert Counter(map(str, twice)) == Counter(map(str, whole * 2))


UNREADABLE = {
    "zeek": "#fields\tts\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\n"
    "soon\t192.0.2.1\t50000\t203.0.113.7\t443\ttcp\n",
    "argus": "StartTime,Proto,SrcAddr,Sport,DstAddr,Dport\n"
    "09-11-18+09:00:03,tcp,192.0.2.1,50000,203.0.113.7,443\n",
    "silk": "sIP|dIP|sPort|dPort|pro|sTime|\n3405803783|3221225985|50000|443|6|1772323200|\n",
    "suricata": '{"event_type": "flow", "timestamp": "", "src_ip": "192.0.2.1"}\n',
    "azure_flow": '{"flowTuples": ["1772323200,192.0.2.1,203.0.113.7,50000,443,T,O,X"]}',
    "gcp_vpc": '{"connection": {"src_ip": "192.0.2.1", "dest_ip": "203.0.113.7"}, '
    '"reporter": "SRC"}\n',
    "goflow2": '{"src_addr": "192.0.2.1", "dst_addr": "203.0.113.7", "time_received": 1}\n',
    "pmacct": '{"ip_src": "192.0.2.1", "ip_dst": "203.0.113.7", "packets": 1}\n',
    "aws_vpc": "srcaddr dstaddr srcport dstport protocol start\n"
    "192.0.2.1 203.0.113.7 https 50000 6 1772323200\n",
}
"""By reader, rows that lack what a record needs, or spell it in no known way."""


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_source_of_which_no_row_can_be_read_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match=r"None of its rows can be read; each needs"):
        records_of(UNREADABLE[name].encode(), name)


def test_what_is_no_ip_does_not_hide_that_no_row_can_be_read() -> None:
    text = UNREADABLE["argus"] + "1772323200.5,arp,192.0.2.1,,192.0.2.2,\n"
    with pytest.raises(SourceError, match="None of its rows"):
        records_of(text.encode(), "argus")


def test_a_source_without_records_is_not_refused() -> None:
    rows, tally = records_of(b'{"event_type": "dns", "timestamp": "2026-03-01"}\n', "suricata")
    assert (rows, tally.dropped) == ([], Counter(not_a_record=1))


def _file(content: bytes) -> io.FileIO:
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the source closes it
    assert isinstance(file, io.FileIO)
    file.write(content or b" ")
    return file
