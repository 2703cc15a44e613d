"""What an outsider holds in hand: an export, its schema, and a verifier that is not ours to bend.

Each test is named for what somebody did to the ledger; both verifiers must find it.
"""

from __future__ import annotations

import ast
import json
import random
import re
import runpy
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from e2e import CAPTURES, ROOT, call, fixed_key, sample_run

from telemetry.errors import LedgerError, SettingsError
from telemetry.privacy.ledger import Ledger, verify

VERIFIER = ROOT / "data" / "verify_ledger.py"
SCHEMA = json.loads((ROOT / "data" / "ledger.schema.json").read_text())
OUTSIDE = runpy.run_path(str(VERIFIER))
LEDGER = "ledger.jsonl"


def fill(path: Path, entries: int, sign_key: Path | None = None) -> str:
    """Writes entries and returns the anchor."""
    ledger = Ledger(path, sign_key)
    for number in range(entries):
        ledger.append("ingest", authority="a/1", kept=number, dropped={"domestic": 3})
    return verify(path).anchor


def found_by_both(path: Path, data: bytes, anchor: str, public: Path | None = None) -> bool:
    """Whether our verifier and the outsider's both say that these bytes are not the ledger."""
    path.write_bytes(data)
    try:
        verify(path, public, anchor)
        ours = False
    except LedgerError:
        ours = True
    key = OUTSIDE["public_key"](str(public)) if public else None
    try:
        OUTSIDE["verify"](data.splitlines(keepends=True), OUTSIDE["anchor_of"](anchor), key)
        theirs = False
    except OUTSIDE["Broken"]:
        theirs = True
    assert ours == theirs, "the two verifiers do not agree"
    return ours


@pytest.mark.parametrize("signed", [False, True])
def test_no_byte_can_be_flipped(tmp_path: Path, signer: tuple[Path, Path], signed: bool) -> None:
    path = tmp_path / LEDGER
    anchor = fill(path, 3, signer[0] if signed else None)
    public = signer[1] if signed else None
    good = path.read_bytes()
    assert not found_by_both(path, good, anchor, public)
    dice = random.Random(11)
    for at in range(len(good)):
        for flip in {1 << dice.randrange(8), 0x20}:
            data = good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :]
            assert found_by_both(path, data, anchor, public), f"byte {at} with {flip:#x}"


def test_no_byte_of_a_long_ledger_can_be_flipped_cut_or_doubled(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    anchor = fill(path, 200)
    good = path.read_bytes()
    dice = random.Random(12)
    for at in dice.sample(range(len(good)), 60):
        flipped = good[:at] + bytes([good[at] ^ 1 << dice.randrange(8)]) + good[at + 1 :]
        for data in (flipped, good[:at] + good[at + 1 :], good[: at + 1] + good[at:]):
            if data != good:
                assert found_by_both(path, data, anchor), at


def test_no_entry_can_be_dropped_swapped_doubled_or_cut_off(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    anchor = fill(path, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    for i in range(6):
        assert found_by_both(path, b"".join(lines[:i]), anchor), "cut off"
        assert found_by_both(path, b"".join(lines[:i] + lines[i + 1 :]), anchor), "dropped"
        assert found_by_both(path, b"".join(lines[: i + 1] + lines[i:]), anchor), "doubled"
        for j in range(i + 1, 6):
            swapped = list(lines)
            swapped[i], swapped[j] = lines[j], lines[i]
            assert found_by_both(path, b"".join(swapped), anchor), "swapped"


def test_a_ledger_written_anew_from_some_entry_on_is_found(tmp_path: Path) -> None:
    """An insider recomputes every hash; the anchor still names the entry that was."""
    path = tmp_path / LEDGER
    anchor = fill(path, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(5):
        path.write_bytes(b"".join(lines[:kept]))
        for number in range(kept, 8):
            Ledger(path).append("ingest", authority="a/1", kept=number + 1, dropped={})
        assert verify(path).entries == 8
        assert found_by_both(path, path.read_bytes(), anchor)


def test_an_older_anchor_is_met_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    old = fill(path, 2)
    fill(path, 2)
    assert verify(path, anchor=old).anchored
    assert verify(path, anchor=old.partition(":")[2]).anchored, "the hash alone will do"
    with pytest.raises(LedgerError):
        verify(path, anchor="1" + old[1:])
    for junk in ("", "2:", "x:" + old[2:], old[:-1], old.upper()):
        with pytest.raises(SettingsError, match="N:HASH"):
            verify(path, anchor=junk)


# --- a whole lake --------------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    options = ("--lake", tmp_path / "lake", "--key", fixed_key(tmp_path / "key"))
    assert call("ingest", CAPTURES / "rawip.pcap", *options).code == 0
    return tmp_path / "lake"


def test_a_ledger_cut_at_its_end_is_found_without_any_anchor(lake: Path) -> None:
    """The lake notes the head, so a cut shows, and nothing is appended to what is left."""
    path = lake / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        path.write_bytes(b"".join(lines[:kept]))
        answer = call("audit", "verify", "--lake", lake)
        assert answer.code == 1 and "ledger" in answer.err, kept
        for verb in ("score", "report"):
            assert call(verb, "--lake", lake, "--key", lake.parent / "key").code == 1
        assert path.read_bytes() == b"".join(lines[:kept])


def test_a_last_entry_that_was_replaced_is_found_without_any_anchor(lake: Path) -> None:
    path = lake / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    Ledger(path).append("read", authority="sample-evaluation", ingested=0)
    assert verify(path).entries == len(lines), "by itself it is whole"
    assert "not the one that the lake noted" in call("audit", "verify", "--lake", lake).err
    assert call("report", "--lake", lake).code == 1
    Ledger(path).append("read", authority="sample-evaluation", ingested=0)
    assert call("audit", "verify", "--lake", lake).code == 1, "nor does going on help"


def test_a_crash_between_ledger_and_note_is_no_alarm(lake: Path) -> None:
    with sqlite3.connect(lake / "files.sqlite") as table:
        (noted,) = table.execute("SELECT value FROM meta WHERE key = 'ledger_head'").fetchone()
    Ledger(lake / LEDGER).append("report", authority="sample-evaluation", sha256="0" * 64)
    assert call("audit", "verify", "--lake", lake).code == 0
    assert call("score", "--lake", lake).code == 0
    with sqlite3.connect(lake / "files.sqlite") as table:
        (later,) = table.execute("SELECT value FROM meta WHERE key = 'ledger_head'").fetchone()
    assert int(later.split()[0]) == int(noted.split()[0]) + 3  # report, selection, score


def run_verifier(*arguments: object, given: bytes | None = None) -> subprocess.CompletedProcess:
    """Runs the verifier as an outsider does: none of this project can be imported."""
    return subprocess.run(
        [sys.executable, "-I", "verify_ledger.py", *map(str, arguments)],
        input=given,
        capture_output=True,
        check=False,
    )


def test_an_outsider_can_check_an_export(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside").mkdir()
    monkeypatch.chdir(tmp_path / "outside")
    program = call("audit", "export", "--verifier")
    Path("verify_ledger.py").write_text(program.out)
    assert Path("verify_ledger.py").read_bytes() == VERIFIER.read_bytes()
    assert program.out.count("\n") < 150
    exported = call("audit", "export", "--lake", lake).out.encode()
    assert exported == (lake / LEDGER).read_bytes()
    Path("export.jsonl").write_bytes(exported)
    anchor = call("audit", "verify", "--lake", lake, "--json").json["anchor"]

    good = run_verifier("export.jsonl", "--anchor", anchor)
    assert (good.returncode, good.stderr) == (0, b"")
    assert anchor in good.stdout.decode()
    assert run_verifier("-", given=exported).stdout == good.stdout
    changed = run_verifier("-", given=exported.replace(b'"kept":2755', b'"kept":2754'))
    assert changed.returncode == 1 and b"its content was changed" in changed.stderr
    cut = run_verifier("-", "--anchor", anchor, given=b"".join(exported.splitlines(True)[:-1]))
    assert cut.returncode == 1 and b"its end is cut off" in cut.stderr
    for wrong in (["none.jsonl"], ["export.jsonl", "--anchor", "1"], []):
        assert run_verifier(*wrong).returncode == 2


def test_an_outsider_can_check_signatures(
    tmp_path: Path, signer: tuple[Path, Path], stranger: tuple[Path, Path], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("verify_ledger.py").write_bytes(VERIFIER.read_bytes())
    fill(tmp_path / LEDGER, 3, signer[0])
    assert run_verifier(LEDGER, "--public-key", signer[1]).returncode == 0
    assert run_verifier(LEDGER, "--public-key", stranger[1]).returncode == 1
    assert run_verifier(LEDGER, "--public-key", signer[0]).returncode == 2


def test_a_broken_ledger_is_exported_no_further_than_it_is_good(lake: Path) -> None:
    path = lake / LEDGER
    text = path.read_text()
    path.write_text(text.replace('"kept":2755', '"kept":2754'))
    answer = call("audit", "export", "--lake", lake)
    assert answer.code == 1 and "does not verify" in answer.err
    assert text.startswith(answer.out)


# --- schema --------------------------------------------------------------------------------------


def test_every_entry_of_a_run_follows_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    lines = (sample_run().settings.lake / LEDGER).read_text().splitlines()
    for line in lines:
        validator.validate(json.loads(line))
    assert {json.loads(line)["kind"] for line in lines} >= {"run", "ingest", "score", "export"}
    assert json.loads(call("audit", "export", "--schema").out) == SCHEMA


def change(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda entry: entry.update({name: value})


@pytest.mark.parametrize(
    "spoil",
    [
        change("seq", 0),
        change("at", "2026-04-01"),
        change("kind", "Run"),
        change("more", 1),
        change("signature", ""),
        lambda entry: entry["facts"].pop("authority"),
        lambda entry: entry["facts"].pop("key_id"),
        lambda entry: entry.pop("prev"),
    ],
)
def test_the_schema_refuses_what_is_no_entry(spoil: Callable[[dict[str, Any]], None]) -> None:
    entry = json.loads((sample_run().settings.lake / LEDGER).read_text().splitlines()[0])
    jsonschema.Draft202012Validator(SCHEMA).validate(entry)
    spoil(entry)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(entry)


WRITERS = r"^enter$|[lL]edger(\(.*\))?\.append$"


def test_every_kind_that_the_code_writes_is_described() -> None:
    """Whoever adds an entry describes it in `data/ledger.schema.json`."""
    described = {rule["if"]["properties"]["kind"]["const"] for rule in SCHEMA["allOf"]}
    written = {"repair"}
    for path in (ROOT / "telemetry").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and re.search(WRITERS, ast.unparse(node.func)):
                written |= {
                    found.value
                    for argument in node.args[:2]
                    for found in ast.walk(argument)
                    if isinstance(found, ast.Constant) and isinstance(found.value, str)
                }
    assert written == described
    assert all(SCHEMA["$defs"][kind]["description"] for kind in described)
