"""The command as a user meets it: one clear sentence, the right exit code, a lake that stays whole.

Most commands run inside this process (`call`); those about pipes, users and disks in their own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from e2e import (
    BROKEN,
    CAPTURES,
    ROOT,
    Answer,
    call,
    command,
    count,
    environment,
    fixed_key,
    query_rows,
    sample_run,
    spawn,
    stored,
)

import telemetry.readers
from telemetry.cli import app
from telemetry.lake import Lake
from telemetry.privacy import Keys

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
AUTHORITY = """
id = "test"
basis = "agreement"
purpose = "test"
approver = "nobody"
sensors = ["sample"]
directions = ["out_in", "in_out"]
valid_from = 2020-01-01
valid_until = 2099-12-31
retention_days = 1
"""


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch) -> None:
    """An empty working folder, and no settings from outside."""
    for name in [name for name in os.environ if name.startswith("SEKISHO_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A lake that holds one source; tests work on copies of it."""
    lake = tmp_path_factory.mktemp("filled") / "lake"
    answer = call("ingest", CAPTURES / "cooked.pcap", "--lake", lake)
    assert answer.code == 0, answer
    return lake


@pytest.fixture
def lake(filled, tmp_path) -> Path:
    return _copy(filled, tmp_path)


def _copy(filled: Path, folder: Path) -> Path:
    shutil.copytree(filled, folder / "lake")
    shutil.copy2(filled.with_name("lake.key"), folder / "lake.key")
    # The catalog names files by their place; a lake that moved needs a new one.
    assert call("ingest", CAPTURES / "cooked.pcap", "--lake", folder / "lake").code == 0
    return folder / "lake"


def small_capture(path: Path, seconds: int = 1_700_000_000, packets: int = 3) -> Path:
    """Writes raw-IP SYN packets from abroad to Japan; each second makes another content."""
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    tcp = struct.pack(">HHIIBBHHH", 40000, 22, 1, 0, 0x50, 2, 1024, 0, 0)
    ip = struct.pack(">BBHHHBBH4B4B", 69, 0, 40, 1, 0, 64, 6, 0, 12, 104, 167, 247, 118, 0, 8, 81)
    for number in range(packets):
        data += struct.pack("<IIII", seconds + number, 0, 40, 40) + ip + tcp
    path.write_bytes(data)
    return path


def names(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def is_one_sentence(answer: Answer) -> bool:
    """Whether stderr is one line that the command wrote on purpose, and stdout empty."""
    line = answer.err.removesuffix("\n")
    return (
        answer.out == ""
        and line.startswith("sekisho: ")
        and line.endswith(".")
        and "\n" not in line
        and answer.has_no_traceback()
    )


def assert_still_whole(lake: Path, sources: int, *options: object) -> None:
    """The sources before are there, the ledger verifies, and a later ingest works."""
    assert call("audit", "verify", "--lake", lake).code == 0
    assert count(lake, "sources") == sources
    before = stored(lake)
    later = small_capture(Path("later.pcap"), packets=2)
    assert call("ingest", later, "--lake", lake, *options).code == 0
    assert count(lake, "sources") == sources + 1
    assert len(stored(lake)) == len(before) + 1
    assert call("audit", "verify", "--lake", lake).code == 0


# --- help ----------------------------------------------------------------------------------------


def commands(group=app, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name in group:
        if not name.startswith("-"):
            yield from commands(group[name], (*path, name))


def test_the_commands_are_those_of_this_version():
    assert {" ".join(path) for path in commands() if path} >= {
        "run", "ingest", "score", "list", "report", "query", "doctor",
        "audit verify", "homeland show", "homeland check", "authority check", "keys new",
        "samples list", "samples fetch", "samples make",
    }  # fmt: skip


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help_is_there_for_every_command(path):
    answer = call(*path, "--help")
    assert answer.code == 0
    assert answer.err == ""
    assert answer.out.startswith(f"Usage: {' '.join(['sekisho', *path])}")
    assert "Exit code 0: done. 1: a run failed. 2: wrong usage, or refused." in answer.words
    if "--lake" in answer.out:
        for option in ("--config", "--home", "--country", "--authority", "--key", "--sensor"):
            assert option in answer.out


def test_sekisho_alone_shows_its_help():
    alone = call()
    assert (alone.code, alone.out) == (0, call("--help").out)


def test_the_version_is_that_of_the_package():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert call("--version").out.strip() == version


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys; from telemetry.cli import main; main(['--help']); main(['run', '--help'])\n"
        "heavy = {'duckdb', 'numba', 'numpy', 'polars', 'prefect', 'pyarrow', 'sklearn'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- sources that cannot be read -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty.pcap", "It is empty."),
        ("not_a_capture.txt", "Its format is not recognised"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(lake, name, sentence):
    answer = call("ingest", BROKEN / name, "--lake", lake)
    assert answer.code == 1
    assert "1 refused" in answer.words and sentence in answer.words
    assert answer.has_no_traceback()
    assert_still_whole(lake, 1)


@pytest.mark.parametrize(
    ("name", "packets", "sentence"),
    [
        ("truncated_tail.pcap", 199, "ends inside a packet; the packets before it were read"),
        ("snaplen_cut_headers.pcap", 96, ""),
        ("no_packets.pcap", 0, ""),
    ],
)
def test_a_damaged_capture_is_read_as_far_as_it_goes(lake, name, packets, sentence):
    answer = call("ingest", BROKEN / name, "--lake", lake, "--json")
    [source] = answer.json["sources"]
    assert (answer.code, source["status"], source["packets_read"]) == (0, "ingested", packets)
    assert sentence in (source["error"] or "")
    assert bool(sentence) == bool(source["error"])
    assert_still_whole(lake, 2)


@pytest.mark.parametrize("cut", [1, 10, 23, 24, 30])
def test_a_capture_cut_inside_its_headers_is_no_crash(lake, cut):
    data = (CAPTURES / "rawip.pcap").read_bytes()
    Path("cut.pcap").write_bytes(data[:cut])
    answer = call("ingest", "cut.pcap", "--lake", lake, "--json")
    [source] = answer.json["sources"]
    assert source["packets_read"] == 0
    assert (source["status"] == "refused") == (cut < 24) == (answer.code == 1)
    assert bool(source["error"]) == (cut != 24)


@pytest.mark.parametrize("tool", ["gzip", "zstd"])
def test_a_compressed_capture_cut_short_says_so(lake, tool):
    name = {"gzip": "border-c.pcap.gz", "zstd": "border-a.pcap.zst"}[tool]
    data = (CAPTURES / name).read_bytes()
    Path("cut").write_bytes(data[: len(data) // 2])
    [source] = call("ingest", "cut", "--lake", lake, "--json").json["sources"]
    assert source["status"] == "ingested"
    assert source["packets_read"] > 1000
    assert f"the {tool} stream ends early" in source["error"]


def test_one_bad_source_does_not_stop_the_others(lake):
    good = small_capture(Path("good.pcap"))
    answer = call("ingest", BROKEN / "empty.pcap", good, "--lake", lake, "--json")
    assert answer.code == 1
    assert [s["status"] for s in answer.json["sources"]] == ["refused", "ingested"]
    assert count(lake, "sources") == 2


def test_a_missing_file_is_wrong_usage_and_nothing_is_read(lake):
    good = small_capture(Path("good.pcap"))
    answer = call("ingest", good, "nowhere.pcap", "--lake", lake)
    assert answer.code == 2
    assert is_one_sentence(answer) and "no file or folder nowhere.pcap" in answer.err
    assert_still_whole(lake, 1)


def test_a_name_that_cannot_exist_is_refused(lake):
    answer = call("ingest", "a" * 300, "--lake", lake, "--json")
    assert answer.code == 1
    assert "file name too long" in answer.json["sources"][0]["error"]


@pytest.mark.parametrize("path", ["/dev/null", "fifo"])
def test_what_is_no_file_is_refused(lake, path):
    os.mkfifo("fifo")
    answer = call("ingest", path, "--lake", lake, "--json")
    assert answer.code == 1
    assert answer.json["sources"][0]["error"] == "It is no file."


def test_nothing_to_read_is_wrong_usage(lake):
    answer = call("ingest", "--lake", lake)
    assert answer.code == 2 and is_one_sentence(answer)


# --- folders and standard input ------------------------------------------------------------------


def test_a_folder_is_walked_past_hidden_files():
    for place in ("in/b", "in/a", "in/.hidden"):
        Path(place).mkdir(parents=True)
        small_capture(Path(place, "x.pcap"), seconds=1_700_000_000 + 1000 * len(place))
    small_capture(Path("in/.secret.pcap"), seconds=1_700_009_000)
    small_capture(Path("in/b/y.pcap"), seconds=1_700_010_000)
    answer = call("ingest", "in", "--json").json
    assert [s["path"] for s in answer["sources"]] == ["in/a/x.pcap", "in/b/x.pcap", "in/b/y.pcap"]


def test_a_folder_without_files_is_wrong_usage():
    Path("none/.git").mkdir(parents=True)
    answer = call("ingest", "none")
    assert answer.code == 2
    assert is_one_sentence(answer) and "holds no file" in answer.err
    assert names() == ["none"]


def test_a_folder_of_texts_only_is_a_failed_run(lake):
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("hello\n")
    Path("texts/b.csv").write_text("x,y\n1,2\n")
    answer = call("ingest", "texts", "--lake", lake, "--json")
    assert answer.code == 1
    assert [s["status"] for s in answer.json["sources"]] == ["refused", "refused"]
    assert_still_whole(lake, 1)


def test_a_text_beside_captures_in_a_folder_is_no_failure(lake):
    Path("mixed").mkdir()
    Path("mixed/README.txt").write_text("hello\n")
    small_capture(Path("mixed/a.pcap"))
    answer = call("ingest", "mixed", "--lake", lake, "--json")
    assert answer.code == 0
    assert [s["status"] for s in answer.json["sources"]] == ["ingested", "refused"]


def test_what_a_folder_holds_besides_is_passed_over_and_named(lake):
    Path("mixed").mkdir()
    small_capture(Path("mixed/a.pcap"))
    for number in range(5):
        Path(f"mixed/{number}.txt").write_text("hello\n")
    answer = call("ingest", "mixed", "--lake", lake)
    assert answer.code == 0
    assert "1 read, 5 passed over" in answer.words and "refused" not in answer.words
    assert "mixed/0.txt, mixed/1.txt, mixed/2.txt and 2 more" in answer.words


def test_a_run_says_which_time_it_read():
    small_capture(Path("a.pcap"), packets=3)
    small_capture(Path("b.pcap"), 1_700_086_400)
    answer = call("ingest", "a.pcap", "b.pcap", "--lake", "own")
    assert "Period 2023-11-14T22:13:20 to 2023-11-15T22:13:22 UTC" in answer.words
    again = call("ingest", "a.pcap", "--lake", "own")
    assert "Period" not in again.words


def test_a_cut_copy_is_another_source_and_counts_again():
    small_capture(Path("whole.pcap"), packets=3)
    small_capture(Path("cut.pcap"), packets=2)
    assert call("ingest", "cut.pcap", "whole.pcap", "--lake", "own").code == 0
    assert call("ingest", "whole.pcap", "--lake", "own").code == 0
    assert sum(stored(Path("own"))["endpoint_packets"].to_pylist()) == 5


def test_what_is_left_unscored_by_an_erasure_stops_it_not():
    small_capture(Path("a.pcap"))
    assert call("run", "a.pcap", "--lake", "own", "--threshold", "0").code == 0
    with closing(sqlite3.connect("own/files.sqlite")) as table, table:
        table.execute("UPDATE files SET since = '2020-01-01T00:00:00.000000'")
    for paper in [*Path("own/lists").iterdir(), *Path("own/reports").iterdir()]:
        os.utime(paper, (1, 1))
    assert call("ingest", CAPTURES / "cooked.pcap", "--lake", "own").code == 0
    answer = call("retention", "run", "--lake", "own")
    assert answer.code == 0 and answer.has_no_traceback()
    assert query_rows(Path("own"), "SELECT count(*) AS n FROM scores") == [{"n": 0}]
    assert len(stored(Path("own")))
    assert "entries: 0" in Path("own/lists/list.txt").read_text()


@pytest.mark.parametrize("ahead", [900, 86_400_000])
def test_what_is_later_than_now_is_listed_nowhere_and_the_clock_is_doubted(ahead):
    small_capture(Path("a.pcap"), int(time.time()) + ahead)
    answer = call("run", "a.pcap", "--lake", "own", "--threshold", "0")
    assert "The list holds nobody: all 1 listed are dated later than now." in answer.words
    assert "all entries are dated later than now" in Path("own/lists/list.txt").read_text()


@pytest.mark.parametrize("verb", [("list",), ("report",), ("explain", "12.104.167.247")])
def test_what_was_not_scored_is_no_all_clear(verb):
    small_capture(Path("a.pcap"))
    assert call("ingest", "a.pcap", "--lake", "own").code == 0
    answer = call(*verb, "--lake", "own")
    assert answer.code == 2
    assert is_one_sentence(answer) and "run `sekisho score` first" in answer.err
    assert call("score", "--threshold", "0", "--lake", "own").code == 0
    assert call(*verb, "--lake", "own").code == 0


def test_names_in_a_folder_give_a_terminal_no_orders(lake):
    Path("odd").mkdir()
    small_capture(Path("odd/a.pcap"))
    Path("odd/b\x1b[2J\nSources 9 read").write_text("hello\n")
    answer = call("ingest", "odd", "--lake", lake)
    assert "odd/b?[2J?Sources 9 read" in answer.out and "\x1b" not in answer.out


def test_a_folder_with_nothing_to_read_says_so(lake):
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("hello\n")
    answer = call("ingest", "texts", "--lake", lake)
    assert answer.code == 1 and "refused" not in answer.words
    assert "Nothing that was found could be read. Its format" in answer.err


def test_a_folder_or_a_pattern_is_read_in_time_order():
    Path("in").mkdir()
    times = {"c": 1_700_000_000, "a": 1_700_002_000, "b": 1_700_001_000}
    for name, seconds in times.items():
        small_capture(Path("in", f"{name}.pcap"), seconds)
    Path("in/0.txt").write_text("hello\n")
    folder = call("ingest", "in", "--json").json
    paths = ["in/c.pcap", "in/b.pcap", "in/a.pcap"]
    assert [s["path"] for s in folder["sources"]] == [*paths, "in/0.txt"]
    for pattern in ("in/*.pcap", "*/?.pcap", "**/*.pcap", Path("in/*.pcap").absolute()):
        answer = call("ingest", pattern, "--json").json
        assert [Path(s["path"]).name for s in answer["sources"]] == ["c.pcap", "b.pcap", "a.pcap"]
    answer = call("ingest", "in/*.nothing")
    assert answer.code == 2 and is_one_sentence(answer)


def test_a_file_whose_name_looks_like_a_pattern_is_a_file():
    small_capture(Path("[a].pcap"))
    small_capture(Path("a.pcap"), seconds=1_700_001_000)
    answer = call("ingest", "[a].pcap", "--json").json
    assert [s["path"] for s in answer["sources"]] == ["[a].pcap"]


def test_the_members_of_a_zip_file_are_sources():
    with zipfile.ZipFile("set.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for name, seconds in {"z/late.pcap": 1_700_001_000, "early.pcap": 1_700_000_000}.items():
            made.write(small_capture(Path("one.pcap"), seconds), name)
        made.writestr("README.txt", "hello\n")
    answer = call("ingest", "set.zip", "--json")
    assert answer.code == 0
    found = [(s["path"], s["status"], s["packets_read"]) for s in answer.json["sources"]]
    assert found == [
        ("set.zip/early.pcap", "ingested", 3),
        ("set.zip/z/late.pcap", "ingested", 3),
        ("set.zip/README.txt", "refused", 0),
    ]
    again = call("ingest", "one.pcap", "set.zip", "--json").json["sources"]
    assert [s["status"] for s in again] == ["already_ingested"] * 3 + ["refused"]
    stored = b"".join(path.read_bytes() for path in Path("lake").rglob("*") if path.is_file())
    assert b"late.pcap" not in stored and b"set.zip" not in stored


def test_a_zip_file_in_a_pipe_is_refused(monkeypatch):
    with zipfile.ZipFile("a.zip", "w") as made:
        made.write(small_capture(Path("a.pcap")), "a.pcap")
    assert call("ingest", "a.zip").code == 0
    monkeypatch.setattr(sys, "stdin", piped(Path("a.zip").read_bytes()))
    answer = call("ingest", "-")
    assert answer.code == 1 and "zip file in a pipe" in answer.err


def test_a_walk_leaves_out_the_lake_and_its_key():
    small_capture(Path("a.pcap"))
    assert call("ingest", ".").code == 0
    answer = call("ingest", ".", "--json")
    assert [s["path"] for s in answer.json["sources"]] == ["a.pcap"]


def test_the_same_content_under_two_names_comes_in_once():
    small_capture(Path("a.pcap"))
    small_capture(Path("b.pcap"))
    answer = call("ingest", "a.pcap", "b.pcap", "--json").json
    assert [s["status"] for s in answer["sources"]] == ["ingested", "already_ingested"]
    assert count(Path("lake"), "sources") == 1
    Path("a.pcap").rename("c.pcap")
    assert call("ingest", "c.pcap", "--json").json["sources"][0]["status"] == "already_ingested"


def test_the_same_content_from_another_sensor_is_another_source():
    Path("two.toml").write_text(AUTHORITY.replace('["sample"]', '["one", "two"]'))
    small_capture(Path("a.pcap"))
    for sensor in ("one", "two"):
        options = ("--sensor", sensor, "--authority", "two.toml", "--json")
        assert call("ingest", "a.pcap", *options).json["sources"][0]["status"] == "ingested"
    assert count(Path("lake"), "sources") == 2
    assert stored(Path("lake"))["sensor"].to_pylist() == ["one", "two"]


def piped(data: bytes) -> io.TextIOWrapper:
    """Returns the reading end of a real pipe that holds `data`."""
    ours, theirs = os.pipe()
    os.write(theirs, data)  # small enough for the pipe
    os.close(theirs)
    return os.fdopen(ours)


def test_a_pipe_known_already_is_not_ingested_again(monkeypatch):
    data = gzip.compress(small_capture(Path("a.pcap")).read_bytes())
    for status in ("ingested", "already_ingested"):
        monkeypatch.setattr(sys, "stdin", piped(data))
        [source] = call("ingest", "-", "--json").json["sources"]
        assert (source["status"], source["sha256"]) == (status, hashlib.sha256(data).hexdigest())
    assert count(Path("lake"), "sources") == 1


@pytest.mark.parametrize("place", [["-"], ["-", "--lake", "lake"], ["--lake", "lake", "-"]])
def test_standard_input_is_a_source(place, monkeypatch):
    data = small_capture(Path("a.pcap")).read_bytes()
    monkeypatch.setattr(sys, "stdin", piped(data))
    answer = call("ingest", *place, "--json")
    [source] = answer.json["sources"]
    assert answer.code == 0
    assert (source["path"], source["status"], source["packets_read"]) == ("-", "ingested", 3)


def test_an_empty_standard_input_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", piped(b""))
    answer = call("ingest", "-", "--json")
    assert (answer.code, answer.json["sources"][0]["error"]) == (1, "It is empty.")


def test_a_closed_standard_input_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    answer = call("ingest", "-", "--json")
    assert answer.code == 1
    assert answer.json["sources"][0]["error"] == "Standard input is closed."


# --- refused before anything is read or written --------------------------------------------------


@pytest.fixture
def unread(monkeypatch) -> list[str]:
    """Names of the sources that were opened."""
    opened: list[str] = []
    real = telemetry.readers.open_source

    def watched(path, *arguments):
        opened.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(telemetry.readers, "open_source", watched)
    return opened


REFUSED = {
    "misspelt option": (["--lkae", "x"], {}, "Unknown option: --lkae; you may mean --lake."),
    "unlikely option": (["--quickly"], {}, "Unknown option: --quickly; --help names"),
    "file as lake": (["--lake", "bad.toml"], {}, "not the folder of a lake"),
    "misspelt option with value": (["--thresold=0.5"], {}, "Unknown option: --thresold"),
    "option without value": (["--lake"], {}, "requires an argument"),
    "wrong kind of value": (["--threshold", "high"], {}, "unable to convert"),
    "value out of range": (["--threshold", "7"], {}, "less than or equal to 1"),
    "unknown decoder": (["--decoder", "tshark"], {}, "tshark"),
    "misspelt key in the file": (["--config", "bad.toml"], {}, "'lkae'"),
    "broken file": (["--config", "broken.toml"], {}, "not valid TOML"),
    "missing file": (["--config", "nowhere.toml"], {}, "No settings file"),
    "misspelt variable": ([], {"SEKISHO_LKAE": "x"}, "SEKISHO_LKAE"),
    "wrong variable": ([], {"SEKISHO_LIST_DAYS": "0"}, "list_days"),
    "unknown country": (["--country", "XX"], {}, "No country 'XX'"),
    "prefix that is none": (["--home", "10.0.0.0/33"], {}, "is not a prefix"),
    "missing key": (["--key", "nowhere.key"], {}, "No key file at nowhere.key"),
    "key readable by others": (["--key", "open.key"], {}, "Others may use the key file"),
    "key that is none": (["--key", "none.key"], {}, "is not a Sekisho key file"),
    "key inside the lake": (["--key", "lake/key"], {}, "must not lie inside the lake"),
    "no authority": (["--authority", "nowhere.toml"], {}, "Cannot read the authority"),
    "expired authority": (["--authority", "expired.toml"], {}, "ended at 2021-01-01"),
    "authority not yet valid": (["--authority", "early.toml"], {}, "holds only from 2098"),
    "authority that is none": (["--authority", "bad.toml"], {}, "is wrong at"),
    "wrong sensor": (["--sensor", "elsewhere"], {}, "does not cover sensor 'elsewhere'"),
    "authority not signed": ([], {"SEKISHO_OVERSEER_KEY": "overseer.pem"}, "is not signed"),
    "missing signing key": ([], {"SEKISHO_LEDGER_KEY": "nowhere.pem"}, "No key file"),
}


@pytest.mark.parametrize(
    ("verb", "case"), [*(("ingest", case) for case in REFUSED), ("run", "no authority")]
)
def test_wrong_usage_is_refused_before_anything_is_read_or_written(
    verb, case, unread, monkeypatch, tmp_path
):
    options, variables, hint = REFUSED[case]
    _write_settings(tmp_path)
    before = names()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    answer = call(verb, "a.pcap", *options)
    assert answer.code == 2
    assert hint in answer.words
    # Wrong options are told in a box by the command-line library, all else in one line.
    assert is_one_sentence(answer) or answer.err.startswith("╭─ Error ─")
    assert answer.out == "" and answer.has_no_traceback()
    assert unread == []
    assert names() == before


def _write_settings(folder: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    small_capture(folder / "a.pcap")
    (folder / "bad.toml").write_text('lkae = "x"\n')
    (folder / "broken.toml").write_text("lake = \n")
    fixed_key(folder / "open.key").chmod(0o640)
    (folder / "none.key").write_text("hello\n")
    (folder / "none.key").chmod(0o600)
    early = AUTHORITY.replace("2020-01-01", "2098-01-01")
    (folder / "early.toml").write_text(early)
    (folder / "expired.toml").write_text(AUTHORITY.replace("2099-12-31", "2020-12-31"))
    public = Ed25519PrivateKey.generate().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "overseer.pem").write_bytes(pem)


def _content(folder: Path) -> dict[str, bytes]:
    names = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith("-shm"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in names}


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--home", "192.0.2.0/24"], "another policy of what is domestic"),
        (["--country", "DE"], "another policy of what is domestic"),
        (["--key", "other.key"], "another pseudonym key"),
    ],
)
def test_another_home_or_key_than_the_lakes_is_refused(lake, options, hint, unread):
    fixed_key(Path("other.key"))
    before = _content(lake)
    unread.clear()
    answer = call("ingest", small_capture(Path("a.pcap")), "--lake", lake, *options)
    assert answer.code == 2
    assert is_one_sentence(answer) and hint in answer.err
    assert unread == []
    assert _content(lake) == before


def test_a_lake_without_its_key_is_refused_and_gets_no_new_one(lake):
    lake.with_name("lake.key").rename("away.key")
    answer = call("ingest", small_capture(Path("a.pcap")), "--lake", lake)
    assert answer.code == 2
    assert is_one_sentence(answer) and "put the lake's own back" in answer.err
    assert not lake.with_name("lake.key").exists()
    assert_still_whole(lake, 1, "--key", "away.key")


def test_an_empty_folder_may_become_a_lake():
    Path("lake").mkdir()
    assert call("ingest", small_capture(Path("a.pcap"))).code == 0
    assert Path("lake").stat().st_mode & 0o777 == 0o700


def test_a_folder_of_other_things_does_not_become_a_lake():
    Path("mine").mkdir()
    Path("mine/photo.jpg").write_text("x")
    key = fixed_key(Path("k"))
    answer = call("ingest", small_capture(Path("a.pcap")), "--lake", "mine", "--key", key)
    assert is_one_sentence(answer) and answer.code == 1
    assert names("mine") == ["photo.jpg"]


@pytest.mark.parametrize("verb", ["score", "list", "report"])
def test_work_on_no_lake_says_so(verb):
    answer = call(verb, "--lake", "nowhere")
    assert answer.code == 1
    assert is_one_sentence(answer) and "ingest sources first" in answer.err
    assert names() == []


@pytest.mark.parametrize("verb", ["score", "list", "report"])
def test_without_an_authority_nothing_is_scored_or_exported(lake, verb):
    assert call("score", "--lake", lake).code == 0
    before = _content(lake)
    answer = call(verb, "--lake", lake, "--authority", "nowhere.toml")
    assert answer.code == 2 and is_one_sentence(answer)
    after = _content(lake)
    for name in ("analyst.duckdb", "files.sqlite", "files.sqlite-wal"):
        before.pop(name, None), after.pop(name, None)
    assert after == before


def test_a_list_for_another_home_is_refused(lake):
    assert call("score", "--lake", lake).code == 0
    answer = call("list", "--lake", lake, "--country", "DE")
    assert answer.code == 2 and is_one_sentence(answer)
    assert not list((lake / "lists").iterdir())


@pytest.mark.parametrize("verb", [["frobnicate"], ["audit", "burn"], ["query"], ["keys", "new"]])
def test_a_wrong_command_is_wrong_usage(verb):
    answer = call(*verb)
    assert answer.code == 2
    assert answer.out == "" and answer.err.startswith("╭─ Error ─")


# --- places that cannot be written ---------------------------------------------------------------


def test_a_lake_below_a_file_is_refused():
    Path("file").write_text("x")
    good, key = small_capture(Path("a.pcap")), fixed_key(Path("k"))
    for options in ([], ["--key", key]):
        answer = call("ingest", good, "--lake", "file/lake", *options)
        assert answer.code in (1, 2)
        assert is_one_sentence(answer)
    answer = call("ingest", good, "--lake", "file", "--key", key)
    assert answer.code == 2 and is_one_sentence(answer)
    assert Path("file").read_text() == "x"


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="sekisho-public-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_file_without_read_permission_is_refused(public_folder, filled):
    lake = _copy(filled, public_folder)
    secret = small_capture(public_folder / "secret.pcap")
    secret.chmod(0)
    as_user: tuple[str, ...] = ()
    if os.geteuid() == 0:
        as_user = NOBODY
        if not _can_become_nobody():
            pytest.skip("root reads every file, and cannot become nobody here")
        for path in (public_folder, lake.with_name("lake.key"), lake, *lake.rglob("*")):
            os.chown(path, 65534, 65534)
    home = environment(HOME=str(public_folder), NUMBA_CACHE_DIR=str(public_folder / "cache"))
    answer = spawn(
        "ingest", secret, "--lake", lake, "--json", before=as_user, env=home, cwd=public_folder
    )
    assert answer.code == 1, answer
    [source] = answer.json["sources"]
    assert (source["status"], source["sha256"]) == ("refused", None)
    assert source["error"] == "It cannot be opened: permission denied."
    assert answer.err.startswith("sekisho: 1 of 1 sources refused.") and answer.err.count("\n") == 1
    assert_still_whole(lake, 1)


def test_a_lake_of_somebody_else_is_refused(public_folder, filled):
    if os.geteuid() != 0 or not _can_become_nobody():
        pytest.skip("needs root that can become nobody")
    lake = _copy(filled, public_folder)
    key = fixed_key(public_folder / "k")
    os.chown(key, 65534, 65534)
    good = small_capture(public_folder / "a.pcap")
    home = environment(HOME=str(public_folder), NUMBA_CACHE_DIR="/tmp")
    answer = spawn(
        "ingest", good, "--lake", lake, "--key", key, before=NOBODY, env=home, cwd=public_folder
    )
    assert answer.code == 1
    assert is_one_sentence(answer) and "check its place and rights" in answer.err
    assert_still_whole(lake, 1)


def _can_become_nobody() -> bool:
    if shutil.which("setpriv") is None:
        return False
    probe = subprocess.run(
        [*NOBODY, sys.executable, "-c", "import telemetry.cli"],
        capture_output=True,
        env=environment(),
        check=False,
    )
    return probe.returncode == 0


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 8 MB, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=8m", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_nothing(small_disk, filled):
    """The disk fills up at ever later moments: at the ledger, the records, the table, the views."""
    lake = _copy(filled, small_disk)
    before = stored(lake)
    ballast = small_disk / "ballast"
    codes = []
    for free_kb in (0, 4, 16, 64, 256, 1024, 2048, 4096):
        ballast.unlink(missing_ok=True)
        state = os.statvfs(small_disk)
        ballast.write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - free_kb * 1024)))
        answer = call("ingest", CAPTURES / "ddos.pcap.gz", "--lake", lake)
        codes.append(answer.code)
        if answer.code == 0:
            break
        assert answer.code == 1 and is_one_sentence(answer), (free_kb, answer)
        assert "full" in answer.err or "No space left" in answer.err, (free_kb, answer)
        assert call("audit", "verify", "--lake", lake).code == 0
        sources = count(lake, "sources")
        assert sources in (1, 2)
        if sources == 1:
            assert stored(lake).equals(before)
    assert codes.count(1) >= 3
    ballast.unlink(missing_ok=True)
    again = call("ingest", CAPTURES / "ddos.pcap.gz", CAPTURES / "cooked.pcap", "--lake", lake)
    assert again.code == 0
    whole = call(
        "ingest", CAPTURES / "ddos.pcap.gz", CAPTURES / "cooked.pcap",
        "--lake", "whole", "--key", lake.with_name("lake.key"),
    )  # fmt: skip
    assert whole.code == 0
    assert stored(lake).equals(stored(Path("whole")))
    assert list((lake / "tmp").iterdir()) == []
    assert_still_whole(lake, 2)


def test_a_run_says_whom_the_list_leaves_out(tmp_path):
    later = tmp_path / "conn.log"
    later.write_text(
        '{"ts": 1795132800.0, "uid": "C1", "id.orig_h": "133.11.0.1", "id.orig_p": 40000, '
        '"id.resp_h": "8.8.8.8", "id.resp_p": 53, "proto": "udp", "conn_state": "SF", '
        '"duration": 0.1, "orig_pkts": 1, "orig_ip_bytes": 60, "resp_pkts": 1, '
        '"resp_ip_bytes": 90}\n'
    )
    lake = ("--lake", tmp_path / "lake")
    alone = call("run", CAPTURES / "border-b.pcapng", *lake)
    assert "before the newest data" not in alone.words
    number = len(call("list", *lake, "--json").json["endpoints"])
    both = call("run", later, *lake)
    assert f"The list holds 0; {number} more were last seen over 14 days before" in both.words
    assert (tmp_path / "lake" / "lists" / "list.txt").read_text().count("\n1") == 0


def test_a_run_asks_whether_the_home_is_right_where_nothing_has_an_end_there(tmp_path):
    home = ("--home", "9.9.9.0/24", "--lake", tmp_path / "lake")
    found = call("run", CAPTURES / "border-b.pcapng", *home)
    assert found.code == 0
    assert "100.0 % of the records are between two foreign addresses" in found.words
    reasons = [
        reason
        for one in call("list", *home, "--json").json["endpoints"]
        for reason in one["reasons"]
    ]
    assert reasons and not any("inside" in reason["text"] for reason in reasons)
    mine = call("run", CAPTURES / "border-b.pcapng", "--lake", tmp_path / "mine")
    assert "between two foreign" not in mine.words


@pytest.mark.parametrize(
    "words", ["query FROM+sources", "list", "score", "report", "explain 8.8.8.8", "audit verify"]
)
def test_a_lake_that_is_not_there_is_said_in_one_way(tmp_path, words):
    nowhere = tmp_path / "nowhere"
    answer = call(*(word.replace("+", " ") for word in words.split()), "--lake", nowhere)
    assert answer.code == 1 and is_one_sentence(answer)
    assert f"There is no lake at {nowhere}; check --lake" in answer.err
    assert not nowhere.exists()


def test_a_lake_that_another_run_holds_is_refused(lake):
    meta = Lake.peek(lake)
    with Lake.create_or_open(lake, policy_tag=meta.policy_tag, key_id=meta.key_id):
        answer = call("ingest", small_capture(Path("a.pcap")), "--lake", lake)
    assert answer.code == 1
    assert is_one_sentence(answer) and "Another run holds the lake" in answer.err
    assert_still_whole(lake, 1)


@pytest.mark.parametrize("verb", [("list",), ("report",), ("explain", "198.51.100.1")])
def test_what_follows_the_scores_takes_no_threshold(verb, lake):
    answer = call(*verb, "--threshold", "0.5", "--lake", lake)
    assert answer.code == 2
    assert is_one_sentence(answer) and "give --threshold to `sekisho score`" in answer.err


# --- questions -----------------------------------------------------------------------------------


def test_a_question_is_answered_as_a_table_or_in_json_lines(lake):
    assert call("score", "--threshold", "0", "--lake", lake).code == 0  # selects everybody
    sql = "SELECT endpoint_port AS port, count(*) AS n FROM stored_records GROUP BY 1 ORDER BY 1"
    table = call("query", sql, "--lake", lake)
    assert table.code == 0 and table.out.split()[:2] == ["port", "n"]
    lines = call("query", sql, "--lake", lake, "--json")
    import json

    rows = [json.loads(line) for line in lines.out.splitlines()]
    assert rows == sorted(rows, key=lambda row: row["port"])
    assert sum(row["n"] for row in rows) == len(stored(lake))


FORBIDDEN = [
    "INSERT INTO sources SELECT * FROM sources",
    "DELETE FROM sources",
    "DROP VIEW stored_records",
    "CREATE TABLE mine AS SELECT 1",
    "ATTACH '/etc/passwd' AS other",
    "COPY (SELECT 1) TO '/tmp/out.csv'",
    "COPY (SELECT 1) TO '{lake}/records/evil.parquet'",
    "COPY sources FROM '/etc/passwd'",
    "EXPORT DATABASE '/tmp/out'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "PRAGMA database_list; SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM read_blob('{lake}.key')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_text('{lake}/records/../../lake.key')",
    "SELECT * FROM read_json('{lake}/ledger.jsonl')",
    "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
    "SELECT nonsense FROM stored_records",
    "selekt",
    "",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/out.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/records/evil.parquet'",
]


@pytest.fixture(scope="module")
def asked(filled, tmp_path_factory) -> Path:
    return _copy(filled, tmp_path_factory.mktemp("asked"))


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_a_question_can_only_read_the_catalog(asked, sql):
    before = _content(asked)
    answer = call("query", sql.format(lake=asked), "--lake", asked)
    assert answer.code == 2, answer
    assert answer.out == "" and answer.err.startswith("sekisho: ")
    assert "root:" not in answer.err and answer.has_no_traceback()
    assert _content(asked) == before
    assert not Path("/tmp/out.csv").exists() and not Path("/tmp/out").exists()


# --- small commands ------------------------------------------------------------------------------


def test_a_key_is_made_once():
    first = call("keys", "new", "my.key")
    assert first.code == 0 and Keys.load(Path("my.key")).key_id in first.out
    again = call("keys", "new", "my.key")
    assert again.code == 2 and is_one_sentence(again)


def test_homeland_and_authority_answer():
    assert call("homeland", "check", "118.0.8.81", "--json").json["class"] == "domestic"
    assert call("homeland", "check", "12.104.167.247", "--json").json["class"] == "foreign"
    assert call("homeland", "check", "10.0.0.1", "--json").json["class"] == "special"
    wrong = call("homeland", "check", "1.2.3")
    assert wrong.code == 2 and is_one_sentence(wrong)
    assert call("homeland", "show", "--json").json["country"] == "JP"
    assert call("authority", "check", "--json").json["id"] == "sample-evaluation"
    assert call("authority", "check", "--sensor", "elsewhere").code == 2


def test_the_doctor_looks_without_touching():
    answer = call("doctor", "--json")
    assert answer.code == 0 and {"pcap", "pcapng"} < set(answer.json["formats"])
    assert names() == []


def test_a_changed_ledger_does_not_verify(lake):
    ledger = lake / "ledger.jsonl"
    good = call("audit", "verify", "--lake", lake, "--json").json
    assert call("audit", "verify", "--lake", lake, "--anchor", good["head"]).code == 0
    text = ledger.read_text()
    ledger.write_text(text.replace('"kept":1944', '"kept":1943'))
    assert ledger.read_text() != text
    answer = call("audit", "verify", "--lake", lake)
    assert answer.code == 1 and is_one_sentence(answer)
    ledger.write_text("".join(text.splitlines(keepends=True)[:-1]))
    assert call("audit", "verify", "--lake", lake, "--anchor", good["head"]).code == 1


def test_a_scored_lake_lists_and_reports(lake):
    assert call("score", "--lake", lake).code == 0
    listed = call("list", "--lake", lake)
    assert listed.code == 0 and "list.csv" in listed.out
    report = call("report", "--lake", lake)
    assert report.code == 0 and Path(report.out.strip()).is_file()
    assert call("audit", "verify", "--lake", lake).code == 0


# --- pipes ---------------------------------------------------------------------------------------


def _into(pipe: str, *arguments: object) -> Answer:
    line = f'set -o pipefail; "$@" {pipe}'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *command(*arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_stops_early_is_met_with_silence(lake, form):
    sql = "SELECT range AS number, 'a line long enough to fill the pipe' AS text FROM range(3000)"
    answer = _into("| head -1", "query", sql, "--lake", lake, *form)
    assert answer.err == ""
    assert answer.out.count("\n") == 1


def test_a_full_standard_output_is_one_sentence():
    answer = _into("> /dev/full", "homeland", "show")
    assert answer.code == 1
    assert is_one_sentence(answer) and "No space left" in answer.err


def test_closed_streams_are_no_crash():
    answer = _into(">&- 2>&-", "homeland", "show")
    assert answer.code == 0


def test_an_answer_shows_bytes_lists_and_records_as_people_and_programs_read_them() -> None:
    lake = sample_run().settings.lake
    sql = "SELECT '\\x01\\xFF'::BLOB AS b, [1, 2, 3, 4] AS l, {'a': 1, 'c': NULL} AS s"
    shown = call("query", sql, "--lake", lake).out.splitlines()[1]
    assert shown.split("  ") == ["01ff", "1; 2; 3; … 4 in all", "a 1, c"]
    assert call("query", sql, "--lake", lake, "--json").json == {
        "b": "01ff",
        "l": [1, 2, 3, 4],
        "s": {"a": 1, "c": None},
    }


@pytest.mark.parametrize(
    ("sql", "hint"),
    [("FROM score", 'Did you mean "scores"?'), ("SELECT endpont FROM scores", '"endpoint"')],
)
def test_a_name_that_is_nearly_right_is_hinted_at(sql: str, hint: str) -> None:
    answer = call("query", sql, "--lake", sample_run().settings.lake)
    assert answer.code == 2
    assert hint in answer.err
