"""The list files: golden files, what consumers rely on, and the last privacy check."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

import pytest

from telemetry.errors import LakeError, PrivacyError
from telemetry.lists import (
    FORMATS,
    ListEntry,
    ListFormat,
    ListHeader,
    is_left_out,
    write_lists,
)
from telemetry.lists.csv import guard
from telemetry.lists.writing import write_all
from telemetry.records import Reason, Role, ScoredEndpoint

GOLDEN = Path(__file__).with_name("golden")
FIRST = datetime(2026, 3, 1, 4, 5, 6, 7)
LAST = datetime(2026, 3, 2, 23, 59, 59, 999999)
HEADER = ListHeader(run="run-0001", made_at=LAST, authority="sample-1", days=14)


def scored(address: str, role: Role, *texts: str, listed: bool = True) -> ScoredEndpoint:
    reasons = [Reason(f"reason_{n}", text, 0.5 / (n + 1)) for n, text in enumerate(texts)]
    return ScoredEndpoint(address, 0.875, role, listed, 88, reasons, FIRST, LAST, 42)


ENTRIES = [
    scored("2001:db8::beef", "scanner", "it tried 1,024 ports on 3 hosts"),
    scored("203.0.113.20", "bruteforce", "-1 of 900 log-ins succeeded", "=2+5 is no formula"),
    scored("198.51.100.7", "c2", 'it calls every 60.0 s, "jitter" 2 %', "48 h, 2 hosts"),
    scored("198.51.100.100", "spam", "mail to 77 hosts", listed=False),
    scored("203.0.113.3", "reflector", "answers 54 times as large as the questions"),
]
KINDS = ("identity", "indicator", "infrastructure", "relationship")
ADDRESSES = ["198.51.100.7", "203.0.113.3", "203.0.113.20", "2001:db8::beef"]


def allow(address: str) -> bool:
    return False


def write(
    folder: Path, entries: Sequence[ScoredEndpoint] = ENTRIES, header: ListHeader = HEADER
) -> dict[str, bytes]:
    paths = write_lists(entries, folder, header, allow)
    assert sorted(folder.iterdir()) == sorted(paths)
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_golden(form: ListFormat, tmp_path: Path) -> None:
    name = f"list{form.suffix}"
    assert write(tmp_path)[name].decode() == (GOLDEN / name).read_text("utf-8")


def test_manifest_golden_and_true(tmp_path: Path) -> None:
    files = write(tmp_path)
    manifest = json.loads(files["manifest.json"])
    assert manifest == json.loads((GOLDEN / "manifest.json").read_text("utf-8"))
    assert manifest["entries"] == 4
    assert manifest["roles"] == {"bruteforce": 1, "c2": 1, "reflector": 1, "scanner": 1}
    assert [file["name"] for file in manifest["files"]] == [f"list{f.suffix}" for f in FORMATS]
    for file in manifest["files"]:
        assert hashlib.sha256(files[file["name"]]).hexdigest() == file["sha256"]
        assert len(files[file["name"]]) == file["bytes"]


def test_names_and_suffixes_are_unique() -> None:
    assert len({form.name for form in FORMATS}) == len({form.suffix for form in FORMATS})
    assert len({form.name for form in FORMATS}) == len(FORMATS)


def test_rerun_and_other_order_give_equal_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    assert write(tmp_path / "a") == first
    assert write(tmp_path / "b", ENTRIES[::-1]) == first


def test_only_listed_in_numeric_order(tmp_path: Path) -> None:
    files = write(tmp_path)
    plain = files["list.txt"].decode().splitlines()
    assert [line for line in plain if not line.startswith("#")] == ADDRESSES
    assert [json.loads(line)["endpoint"] for line in files["list.jsonl"].splitlines()] == ADDRESSES
    rows = csv.DictReader(io.StringIO(files["list.csv"].decode()))
    assert [row["endpoint"] for row in rows] == ADDRESSES
    assert not any(b"198.51.100.100" in data for data in files.values())


def test_files_are_private(tmp_path: Path) -> None:
    write(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_expiry_follows_last_seen_even_in_the_past(tmp_path: Path) -> None:
    old = dataclasses.replace(ENTRIES[2], first_seen=datetime(2011, 1, 1), last_seen=FIRST)
    files = write(tmp_path, [old])
    row = json.loads(files["list.jsonl"])
    assert row["valid_until"] == "2026-03-15T04:05:06.000007Z"
    assert row["reasons"][0]["text"] == 'it calls every 60.0 s, "jitter" 2 %'
    assert b"# first entry expires: 2026-03-15T04:05:06.000007Z" in files["list.txt"]


def test_a_wrong_clock_makes_no_entry_immortal(tmp_path: Path) -> None:
    last_day = datetime(9999, 12, 31)
    wrong = dataclasses.replace(ENTRIES[2], first_seen=last_day, last_seen=last_day)
    files = write(tmp_path, [wrong])
    (row,) = map(json.loads, files["list.jsonl"].splitlines())
    assert row["valid_until"] == "2026-03-16T23:59:59.999999Z"
    indicator = importlib.import_module("stix2").parse(files["list.stix.json"].decode()).objects[3]
    assert indicator.type == "indicator"
    assert indicator.valid_from == LAST.replace(tzinfo=UTC) < indicator.valid_until
    assert indicator.modified <= LAST.replace(tzinfo=UTC)


def test_expired_entries_are_left_out_and_counted(tmp_path: Path) -> None:
    days = timedelta(days=14)
    ends = [LAST - days - timedelta(microseconds=1), LAST - days, LAST]
    entries = [
        dataclasses.replace(entry, first_seen=datetime(2011, 1, 1), last_seen=end)
        for entry, end in zip(ENTRIES, ends, strict=False)
    ]
    files = write(tmp_path, entries)
    gone, *kept = (entry.endpoint for entry in entries)
    assert not any(gone.encode() in data for data in files.values())
    assert [json.loads(line)["endpoint"] for line in files["list.jsonl"].splitlines()] == kept[::-1]
    manifest = json.loads(files["manifest.json"])
    assert (manifest["entries"], manifest["expired"]) == (2, 1)
    assert b"# entries: 2\n# expired: 1\n" in files["list.txt"]
    assert [is_left_out(tmp_path, end) for end in ends] == [True, False, False]
    assert not is_left_out(tmp_path, datetime.max)
    assert not is_left_out(tmp_path / "none", ends[0])


def test_all_expired(tmp_path: Path) -> None:
    files = write(tmp_path, [dataclasses.replace(ENTRIES[2], last_seen=datetime(2011, 1, 1))])
    assert b"This list is empty: all entries have expired." in files["list.txt"]


def test_without_a_time_to_trust_nothing_is_listed(tmp_path: Path) -> None:
    write_lists(ENTRIES, tmp_path, dataclasses.replace(HEADER, made_at=None), allow)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["entries"], manifest["expired"]) == (0, 4)


def test_empty_list_is_valid(tmp_path: Path) -> None:
    files = write(tmp_path, [ENTRIES[3]])
    assert b"This list is empty: no endpoint reached the threshold." in files["list.txt"]
    assert files["list.csv"].count(b"\n") == 1
    assert files["list.jsonl"] == b""
    kinds = [item["type"] for item in json.loads(files["list.stix.json"])["objects"]]
    assert kinds == ["marking-definition", "identity"]
    assert json.loads(files["manifest.json"])["entries"] == 0


def test_no_data_at_all(tmp_path: Path) -> None:
    write_lists([], tmp_path, dataclasses.replace(HEADER, made_at=None), allow)
    assert "data up to: no data" in (tmp_path / "list.txt").read_text()
    assert json.loads((tmp_path / "manifest.json").read_text())["data_up_to"] is None


def test_line_break_in_an_id_cannot_add_an_address(tmp_path: Path) -> None:
    write_lists([], tmp_path, dataclasses.replace(HEADER, run="r\n192.0.2.1"), allow)
    assert all(line.startswith("#") for line in (tmp_path / "list.txt").read_text().splitlines())


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_csv_guards_formulas(start: str, tmp_path: Path) -> None:
    text = f"{start}HYPERLINK(1)"
    assert guard(text) == "'" + text
    files = write(tmp_path, [scored("198.51.100.7", "c2", text)])
    (row,) = csv.DictReader(io.StringIO(files["list.csv"].decode(), newline=""))
    assert row["reasons"] == "'" + text


def test_csv_row_stays_one_line(tmp_path: Path) -> None:
    files = write(tmp_path, [scored("198.51.100.7", "c2", "\t=1\r\n@2\n192.0.2.1")])
    assert files["list.csv"].count(b"\n") == 2
    assert b"\r" not in files["list.csv"]
    assert b",'=1 @2 192.0.2.1," in files["list.csv"]
    assert guard("\t=1") == "'\t=1"


def test_csv_leaves_other_cells_alone() -> None:
    assert [guard(cell) for cell in ("", "a=b", "2001:db8::1", "0.5")] == [
        "",
        "a=b",
        "2001:db8::1",
        "0.5",
    ]


def test_stix_parses_back(tmp_path: Path) -> None:
    stix2 = importlib.import_module("stix2")
    bundle = stix2.parse(write(tmp_path)["list.stix.json"].decode())
    of = {kind: [o for o in bundle.objects if o.type == kind] for kind in KINDS}
    ids = {item.id: item for item in bundle.objects}
    assert len(ids) == len(bundle.objects) == 2 + 5 * len(ADDRESSES)
    assert [i.pattern for i in of["indicator"]] == [
        "[ipv4-addr:value = '198.51.100.7']",
        "[ipv4-addr:value = '203.0.113.3']",
        "[ipv4-addr:value = '203.0.113.20']",
        "[ipv6-addr:value = '2001:db8::beef']",
    ]
    assert [i.get("infrastructure_types") for i in of["infrastructure"]] == [
        ["command-and-control"],
        ["amplification"],
        None,
        ["reconnaissance"],
    ]
    for indicator in of["indicator"]:
        assert indicator.confidence == 88
        assert indicator.valid_from == FIRST.replace(tzinfo=UTC)
        assert indicator.valid_until == (LAST + timedelta(days=14)).replace(tzinfo=UTC)
        assert ids[indicator.created_by_ref].type == "identity"
        assert [ids[ref].name for ref in indicator.object_marking_refs] == ["TLP:AMBER"]
    assert "it calls every 60.0 s" in of["indicator"][0].description
    links = {
        (ids[r.source_ref].type, r.relationship_type, ids[r.target_ref].type)
        for r in of["relationship"]
    }
    assert links == {
        ("indicator", "indicates", "infrastructure"),
        ("infrastructure", "consists-of", "ipv4-addr"),
        ("infrastructure", "consists-of", "ipv6-addr"),
    }


def test_stix_ids_stay_when_an_endpoint_is_seen_again(tmp_path: Path) -> None:
    again = LAST + timedelta(days=3)
    header = dataclasses.replace(HEADER, made_at=again)
    before, after = (
        {o["type"]: o for o in json.loads(files["list.stix.json"])["objects"]}
        for files in (
            write(tmp_path / "a", [ENTRIES[2]]),
            write(tmp_path / "b", [dataclasses.replace(ENTRIES[2], last_seen=again)], header),
        )
    )
    assert before["indicator"]["id"] == after["indicator"]["id"]
    assert before["indicator"]["modified"] < after["indicator"]["modified"]


@pytest.mark.parametrize("address", ["2001:db8::beef", "203.0.113.20"])
def test_forbidden_address_leaves_nothing(address: str, tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    with pytest.raises(PrivacyError, match=r"^1 of 4 entries") as refused:
        write_lists(ENTRIES, folder, HEADER, lambda a: a == address)
    assert not folder.exists()
    assert address not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "it called 192.0.2.9.",
        "to 192.0.2.9:443 only",
        "host:192.0.2.9",
        "it called 2001:db8:5::9.",
        "to [2001:db8:5::9]:443",
        "2001:db8:5::9: 3 times",
        "in 2001:DB8:5::9/128",
    ],
)
def test_forbidden_address_inside_a_reason(text: str, tmp_path: Path) -> None:
    forbidden = {"192.0.2.9", "2001:db8:5::9"}
    with pytest.raises(PrivacyError):
        write_lists([scored("198.51.100.7", "c2", text)], tmp_path, HEADER, forbidden.__contains__)
    assert list(tmp_path.iterdir()) == []


def test_numbers_and_times_are_no_addresses(tmp_path: Path) -> None:
    asked: list[str] = []

    def remember(address: str) -> bool:
        asked.append(address)
        return False

    text = "at 23:59:59 UTC, 1.5 of 3.25 MB, ports 80:443, 1,024.5 s: done."
    write_lists([scored("198.51.100.7", "c2", text)], tmp_path, HEADER, remember)
    assert asked == ["198.51.100.7"]


def test_entry_without_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="not an address"):
        write_lists([scored("host.example", "c2", "x")], tmp_path, HEADER, allow)
    assert list(tmp_path.iterdir()) == []


def test_failing_format_leaves_the_old_list(tmp_path: Path) -> None:
    class Full:
        name = "full"
        suffix = ".full"

        def write(self, entries: Sequence[ListEntry], header: ListHeader, stream: TextIO) -> None:
            raise OSError(28, "No space left on device")

    before = write(tmp_path)
    with pytest.raises(LakeError, match="No space left"):
        write_all((*FORMATS, Full()), ENTRIES[:1], tmp_path, HEADER, allow)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "lists").write_text("")
    with pytest.raises(LakeError):
        write_lists(ENTRIES, tmp_path / "lists", HEADER, allow)
