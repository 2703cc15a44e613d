"""The ledger: whatever is done to it must be found, and writers must not harm it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.errors import KeyFileError, LakeError, LedgerError, PrivacyError
from telemetry.privacy.ledger import GENESIS, Ledger, canonical, entry_hash, verify


def fill(path: Path, entries: int = 5, sign_key: Path | None = None) -> str:
    """Writes some entries and returns the head."""
    ledger = Ledger(path, sign_key)
    head = GENESIS
    for number in range(entries):
        head = ledger.append(
            "ingest", authority="a", kept=number, dropped={"domestic": 3}, source="ab" * 32
        )
    return head


def test_entries_chain_and_verify(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    heads = [
        Ledger(path).append("run", authority="a", at_home="日本", share=0.5, none=None)
        for _ in range(3)
    ]
    entries = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [entry["seq"] for entry in entries] == [1, 2, 3]
    assert [entry["prev"] for entry in entries] == [GENESIS, *heads[:2]]
    assert [entry["hash"] for entry in entries] == heads
    assert entries[0]["facts"] == {"authority": "a", "at_home": "日本", "share": 0.5, "none": None}
    assert entries[0]["at"].endswith("Z")
    report = verify(path)
    assert (report.entries, report.head) == (3, heads[-1])
    assert not report.signed
    assert not report.anchored


def test_new_ledger_is_private(tmp_path: Path) -> None:
    fill(tmp_path / "ledger.jsonl", 1)
    assert stat.S_IMODE((tmp_path / "ledger.jsonl").stat().st_mode) == 0o600


def test_empty_ledger_verifies_and_missing_does_not(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with pytest.raises(LedgerError, match="No such file"):
        verify(path)
    assert Ledger(path).last() is None
    path.touch()
    assert Ledger(path).last() is None
    assert verify(path).head == GENESIS


def test_the_last_entry_is_the_last_whole_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("first", authority="a")
    ledger.append("second", authority="a", number=2)
    with ledger.path.open("ab") as torn:
        torn.write(b'{"seq":3')
    last = ledger.last()
    assert last is not None
    assert (last["kind"], last["facts"]) == ("second", {"authority": "a", "number": 2})


def mutations(lines: list[bytes]) -> dict[str, list[bytes]]:
    """Returns every dropped, swapped and doubled line."""
    out = {}
    for i in range(len(lines)):
        if i < len(lines) - 1:
            out[f"drop {i}"] = lines[:i] + lines[i + 1 :]
        out[f"double {i}"] = lines[: i + 1] + lines[i:]
        for j in range(i + 1, len(lines)):
            swapped = list(lines)
            swapped[i], swapped[j] = lines[j], lines[i]
            out[f"swap {i} {j}"] = swapped
    return out


def test_dropped_swapped_and_doubled_entries_are_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for name, changed in mutations(lines).items():
        path.write_bytes(b"".join(changed))
        with pytest.raises(LedgerError, match=r"entry \d+ does not verify \(sequence\)"):
            verify(path)
            pytest.fail(name)


@pytest.mark.parametrize("signed", [False, True])
def test_every_flipped_byte_is_found(
    tmp_path: Path, signer: tuple[Path, Path], signed: bool
) -> None:
    path = tmp_path / "ledger.jsonl"
    fill(path, 3, signer[0] if signed else None)
    public = signer[1] if signed else None
    good = path.read_bytes()
    dice = random.Random(7)
    for at in range(len(good)):
        flips = {1 << dice.randrange(8), 0x20, dice.randrange(1, 256)}
        for flip in flips:
            path.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
            expected = good[:at].count(b"\n") + 1
            with pytest.raises(LedgerError, match=rf"entry {expected} does not verify"):
                verify(path, public)
                pytest.fail(f"byte {at} with {flip:#x}")


def test_truncation_is_found_against_an_anchor(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    head = fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    assert verify(path, anchor=head).anchored
    for keep in range(1, len(lines)):
        path.write_bytes(b"".join(lines[:keep]))
        assert verify(path).entries == keep  # nothing but the anchor can know
        with pytest.raises(LedgerError, match=f"anchor is missing among its {keep} entries"):
            verify(path, anchor=head)


def test_anchor_of_an_older_head_still_holds(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    old = fill(path, 2)
    fill(path, 2)
    assert verify(path, anchor=old).anchored


def test_changed_entry_with_a_fresh_hash_breaks_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    entry = json.loads(lines[1])
    entry["facts"]["kept"] = 0
    entry["hash"] = entry_hash(entry)
    path.write_bytes(b"".join([lines[0], canonical(entry) + b"\n", *lines[2:]]))
    with pytest.raises(LedgerError, match=r"entry 3 does not verify \(chain\)"):
        verify(path)


def reforge(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes entries and recomputes the whole chain, as an insider would."""
    prev, out = GENESIS, []
    for line in path.read_bytes().splitlines():
        entry = json.loads(line)
        change(entry)
        entry["prev"] = prev
        entry["hash"] = prev = entry_hash(entry)
        out.append(canonical(entry) + b"\n")
    path.write_bytes(b"".join(out))


def test_recomputed_chain_needs_an_anchor_or_a_signature(
    tmp_path: Path, signer: tuple[Path, Path]
) -> None:
    path = tmp_path / "ledger.jsonl"
    head = fill(path, 4, signer[0])

    def less(entry: dict[str, Any]) -> None:
        entry["facts"]["kept"] = 0

    reforge(path, less)
    assert verify(path).entries == 4
    with pytest.raises(LedgerError, match="anchor is missing"):
        verify(path, anchor=head)
    with pytest.raises(LedgerError, match=r"entry 2 does not verify \(signature\)"):
        verify(path, signer[1])


def test_signatures(tmp_path: Path, signer: tuple[Path, Path], stranger: tuple[Path, Path]) -> None:
    path = tmp_path / "ledger.jsonl"
    fill(path, 2, signer[0])
    assert verify(path, signer[1]).signed
    with pytest.raises(LedgerError, match=r"entry 1 does not verify \(signature\)"):
        verify(path, stranger[1])
    fill(path, 1)  # a writer without the key
    with pytest.raises(LedgerError, match=r"entry 3 does not verify \(signature\)"):
        verify(path, signer[1])
    with pytest.raises(KeyFileError):
        Ledger(path, tmp_path / "none.pem")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\n", "not JSON"),
        (b"{}\n", "not JSON"),
        (b"[]\n", "not JSON"),
        (b"NaN\n", "not JSON"),
        (b'{"a":"\\ud800"}\n', "not JSON"),
        (b"[" * 100_000 + b"\n", "not JSON"),
    ],
)
def test_lines_that_are_no_entries(tmp_path: Path, text: bytes, why: str) -> None:
    path = tmp_path / "ledger.jsonl"
    fill(path, 2)
    with path.open("ab") as handle:
        handle.write(text)
    with pytest.raises(LedgerError, match=rf"entry 3 does not verify \({why}\)"):
        verify(path)
    with pytest.raises(LedgerError, match="last entry of the ledger was changed"):
        Ledger(path).append("run", authority="a")


def test_other_spelling_of_an_entry_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    fill(path, 1)
    entry = json.loads(path.read_bytes())
    path.write_text(json.dumps(entry) + "\n")
    with pytest.raises(LedgerError, match="canonical form"):
        verify(path)
    path.write_bytes(canonical(entry | {"more": 1}) + b"\n")
    with pytest.raises(LedgerError, match="fields of an entry"):
        verify(path)


def test_torn_tail_of_any_length_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    fill(path, 3)
    good = path.read_bytes()
    start = good.rindex(b"\n", 0, -1) + 1
    for end in range(start + 1, len(good)):
        path.write_bytes(good[:end])
        with pytest.raises(LedgerError, match=r"entry 3 does not verify \(torn\)"):
            verify(path)
        Ledger(path).append("run", authority="a")
        repair, run = [json.loads(line) for line in path.read_bytes().splitlines()[2:]]
        assert (repair["kind"], repair["facts"]) == (
            "repair",
            {"authority": "a", "bytes_cut": end - start},
        )
        assert run["kind"] == "run"
        assert verify(path).entries == 4


def test_torn_first_line_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"at":')
    Ledger(path).append("run", authority="a")
    assert verify(path).entries == 2


def test_entries_longer_than_the_tail_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for size in (1, 70_000, 300_000, 5):
        Ledger(path).append("run", authority="a", text="x" * size)
    with path.open("ab") as handle:
        handle.write(b"y" * 150_000)
    Ledger(path).append("run", authority="a")
    assert verify(path).entries == 6


def append_many(path: Path, writer: int, count: int) -> None:
    """Appends entries, each through a ledger of its own."""
    for number in range(count):
        Ledger(path).append("ingest", authority="a", writer=writer, number=number)


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(path, w, 25)) for w in range(4)]
    for process in writers:
        process.start()
    while any(process.is_alive() for process in writers):
        if path.exists():
            verify(path)  # a reader never meets half an entry
    assert all(process.exitcode == 0 for process in writers)
    assert verify(path).entries == 100
    facts = [json.loads(line)["facts"] for line in path.read_bytes().splitlines()]
    for writer in range(4):
        mine = [fact["number"] for fact in facts if fact["writer"] == writer]
        assert mine == list(range(25))


KILLED = """
import sys
from pathlib import Path
from telemetry.privacy.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
while True:
    print(ledger.append("ingest", authority="a", text="x" * 50_000), flush=True)
"""


def test_killed_writer_loses_no_acknowledged_entry(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        seen = [writer.stdout.readline() for _ in range(3)]
        writer.kill()
        seen += writer.stdout.readlines()
        writer.wait()
        Ledger(path).append("run", authority="a")
        for head in (line.strip() for line in seen if line.endswith("\n")):
            assert verify(path, anchor=head).anchored


def test_full_disk_leaves_the_ledger_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"
    fill(path, 2)
    good = path.read_bytes()
    write = os.write

    def short_write(handle: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:50])

    monkeypatch.setattr(os, "write", short_write)
    with pytest.raises(LakeError, match="No space left on device"):
        Ledger(path).append("run", authority="a", text="x" * 100)
    assert path.read_bytes() == good


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="Cannot write the ledger"):
        Ledger(tmp_path / "none" / "ledger.jsonl").append("run", authority="a")


def test_append_to_a_changed_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    fill(path, 2)
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"kept":1', b'"kept":2'))
    with pytest.raises(LedgerError, match="last entry of the ledger was changed"):
        Ledger(path).append("run", authority="a")


@given(st.ip_addresses(), st.text(max_size=5), st.text(max_size=5))
def test_addresses_never_enter(address: Any, before: str, after: str) -> None:
    text = f"{before} {address} {after}"
    for value in (text, [text], {"a": {"b": [text]}}, {text: 1}):
        with pytest.raises(PrivacyError) as caught:
            Ledger(Path("unused")).append("run", authority="a", fact=value)
        assert str(address) not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "from_192.0.2.1.pcap",
        "192.0.2.0/24",
        "::ffff:192.0.2.1",
        "2001:0db8:0000:0000:0000:0000:0000:0001",
        "fe80::1%eth0",
        "00:1b:44:11:3a:b7",
    ],
)
def test_address_forms_never_enter(value: str) -> None:
    with pytest.raises(PrivacyError, match="looks like an address"):
        Ledger(Path("unused")).append("run", authority="a", fact=value)
    with pytest.raises(PrivacyError, match="looks like an address"):
        Ledger(Path("unused")).append("run", authority="a", **{value: 1})


@pytest.mark.parametrize(
    "value",
    [
        "1.2.3",
        "2.0.0rc1",
        "2026-04-01T12:30:00.000000+00:00",
        "12:30:00",
        "ab" * 32,
        3.25,
        "a:b",
        "c0a80101-0000-4000-8000-0123456789ab",
    ],
)
def test_versions_times_and_hashes_may_enter(tmp_path: Path, value: Any) -> None:
    Ledger(tmp_path / "ledger.jsonl").append("run", authority="a", fact=value)
    assert verify(tmp_path / "ledger.jsonl").entries == 1


@pytest.mark.parametrize(
    "value", [b"bytes", Path("p"), {1: 2}, (1, 2), {1, 2}, float("nan"), "\ud800", object()]
)
def test_facts_are_plain_json(tmp_path: Path, value: Any) -> None:
    with pytest.raises(PrivacyError, match="not plain JSON"):
        Ledger(tmp_path / "ledger.jsonl").append("run", authority="a", fact=value)
    assert not (tmp_path / "ledger.jsonl").exists()


@pytest.mark.parametrize("kind", ["", "Run", "192.0.2.1", "two words", "x" * 65])
def test_kinds_are_short_words(kind: str) -> None:
    with pytest.raises(PrivacyError, match="short lower-case word"):
        Ledger(Path("unused")).append(kind, authority="a")


@pytest.mark.parametrize("authority", ["", None, 1])
def test_no_act_without_an_authority(tmp_path: Path, authority: Any) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with pytest.raises(PrivacyError, match="names the authority"):
        ledger.append("run", authority=authority)
    with pytest.raises(TypeError, match="authority"):
        ledger.append("run")  # type: ignore[call-arg]
    assert not ledger.path.exists()


def test_append_reads_only_the_tail(tmp_path: Path) -> None:
    """A broken first entry is the verifier's to find; appending must not read that far."""
    path = tmp_path / "ledger.jsonl"
    for _ in range(4):
        Ledger(path).append("run", authority="a", text="x" * 100_000)
    data = path.read_bytes()
    path.write_bytes(b"?" + data[1:])
    Ledger(path).append("run", authority="a")
    with pytest.raises(LedgerError, match=r"entry 1 does not verify \(not JSON\)"):
        verify(path)
