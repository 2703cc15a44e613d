"""No domestic address, payload or source name in any byte that a run leaves behind."""

from __future__ import annotations

import base64
import csv
import json
import os
import pty
import random
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import tarfile
import uuid
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e import (
    CAPTURES,
    TRUTH,
    Answer,
    call,
    command,
    environment,
    fixed_key,
    sample_run,
    settings_in,
)

from telemetry import pipeline
from telemetry.homeland import load as load_homeland
from telemetry.lake.table import FileTable
from telemetry.lake.values import values_of
from telemetry.pipeline import oversight
from telemetry.privacy.leaks import PAYLOAD, Found, Searcher, Secrets, search

MAPPED = bytes(10) + b"\xff\xff"
MAPPED_AT = 0xFFFF << 32


def searcher_of(addresses: Iterable[str], words: Iterable[str]) -> Searcher:
    numbers = [
        int(ip_address(a)) if ":" in a else MAPPED_AT | int(IPv4Address(a)) for a in addresses
    ]
    return Searcher(Secrets.of(numbers, {word.encode(): PAYLOAD for word in words}))


def search_lake(searcher: Searcher, lake: Path) -> dict[str, Found]:
    """Searches every file below a folder; returns leaks by file."""
    return {name: found for name, found in search(searcher, [lake], values_of)[0].items() if found}


# --- the searcher finds what it is for -----------------------------------------------------------

V4, V6, CANARY = "118.0.103.138", "240b:10:32ef:4b12:25b9:f7bf:4a92:d023", "CANARY-7a9ed187"
FOUR, SIXTEEN = socket.inet_aton(V4), socket.inet_pton(socket.AF_INET6, V6)
PLANTED = {
    "text": f"host {V4}.".encode(),
    "text in JSON": f'{{"a":"{V4}"}}'.encode(),
    "text behind a letter": f"x{V4}x".encode(),
    "text with a port": f"{V4}:443".encode(),
    "mapped": f"::ffff:{V4}".encode(),
    "mapped in hex": b"::ffff:7600:678a",
    "decimal": f"addr={int(IPv4Address(V4))};".encode(),
    "hex": FOUR.hex().encode(),
    "hex in capitals": b"0x" + FOUR.hex().upper().encode(),
    "hex, reversed": FOUR[::-1].hex().encode(),
    "hex with colons": FOUR.hex(":").encode(),
    "hex, 16 bytes": (MAPPED + FOUR).hex().encode(),
    "hex inside a digest's length": (bytes(16) + MAPPED + FOUR).hex().encode(),
    "a uuid made of it": str(uuid.UUID(bytes=MAPPED + FOUR)).encode(),
    "base64 of the text": base64.b64encode(f"host {V4}".encode()),
    "base64 of the text, shifted": b"x" + base64.b64encode(f"host {V4}".encode()),
    "base64 of four bytes": base64.b64encode(FOUR),
    "base64 of sixteen bytes": base64.b64encode(MAPPED + FOUR).rstrip(b"="),
    "16 bytes": b"abc" + MAPPED + FOUR + b"def",
    "16 bytes, last octet first": b"abc" + MAPPED + FOUR[::-1],
    "two little-endian halves": struct.pack("<QQ", 0, 0xFFFF << 32 | int(IPv4Address(V4))),
    "IPv6": f"[{V6}]:443".encode(),
    "IPv6 in capitals": V6.upper().encode(),
    "IPv6 spelled out": b"240b:0010:32ef:4b12:25b9:f7bf:4a92:d023",
    "IPv6 in hex": SIXTEEN.hex().encode(),
    "IPv6 as uuid": str(uuid.UUID(bytes=SIXTEEN)).encode(),
    "IPv6 in base64": base64.urlsafe_b64encode(SIXTEEN),
    "IPv6 in bytes": b"\x01" + SIXTEEN,
    "IPv6 reversed": SIXTEEN[::-1],
    "IPv6 in two little-endian halves": struct.pack("<QQ", *struct.unpack(">QQ", SIXTEEN)),
    "word": f"GET /{CANARY} HTTP".encode(),
    "word in small letters": CANARY.lower().encode(),
    "word in hex": CANARY.encode().hex().encode(),
    "word in base64": base64.b64encode(f"user:{CANARY}".encode()),
}  # fmt: skip


@pytest.fixture(scope="module")
def one() -> Searcher:
    return searcher_of([V4, V6], [CANARY])


@pytest.mark.parametrize("form", PLANTED)
def test_a_planted_leak_is_found(one: Searcher, form: str) -> None:
    assert one.raw(PLANTED[form])
    noise = random.Random(form).randbytes(10_000).replace(b"\xff\xff", b"\xff\xfe")
    assert one.raw(noise + b" " + PLANTED[form] + b" " + noise)


@pytest.mark.parametrize("value", [V4, FOUR, FOUR[::-1], int(IPv4Address(V4)),
                                   int.from_bytes(FOUR, "little"), int(IPv4Address(V4)) - (1 << 32),
                                   SIXTEEN, [V4], {"a": V6}, CANARY], ids=str)  # fmt: skip
def test_a_planted_value_is_found_in_each_store(one: Searcher, tmp_path: Path, value: Any) -> None:
    assert one.values([value])
    pq.write_table(pa.table({"a": [value] * 3}), tmp_path / "a.parquet", compression="zstd")
    plain = value if isinstance(value, str | bytes | int) else str(value)
    sql = sqlite3.connect(tmp_path / "b.sqlite")
    sql.execute("CREATE TABLE t (a)")
    sql.execute("INSERT INTO t VALUES (?)", (plain,))
    sql.commit()
    sql.close()
    with duckdb.connect(str(tmp_path / "c.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT ? AS a FROM range(3000)", [plain])
    names = {Path(name).name for name in search_lake(one, tmp_path)}
    assert names == {"a.parquet", "b.sqlite", "c.duckdb"}


def test_a_name_in_metadata_or_of_a_file_is_found(one: Searcher, tmp_path: Path) -> None:
    table = pa.table({"a": [1]}).replace_schema_metadata({"source": V4})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    (tmp_path / f"{CANARY}.txt").write_bytes(b"")
    assert len(search_lake(one, tmp_path)) == 2


@pytest.mark.parametrize(("name", "is_leak"), [
    ("a{}.parquet", True), ("{}", True), ("{}-0123456789abcdef", True),
    ("0000{}0000000000000000{}", False), ("f09d{}0be73e9fd91cbbe6e7", False),
])  # fmt: skip
def test_a_number_in_a_files_name_is_a_leak_but_not_within_a_random_one(
    one: Searcher, tmp_path: Path, name: str, is_leak: bool
) -> None:
    number = int(IPv4Address(V4))
    (tmp_path / name.format(number, "ab")).touch()
    assert bool(search_lake(one, tmp_path)) == is_leak


def test_what_a_dictionary_holds_is_found_though_no_row_uses_it(
    one: Searcher, tmp_path: Path
) -> None:
    unused = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), ["kept", f"at {V4}"])
    pq.write_table(pa.table({"a": unused}), tmp_path / "a.parquet", compression="zstd")
    assert search_lake(one, tmp_path)


@pytest.mark.parametrize("value", [V4, FOUR.hex(), MAPPED + FOUR, SIXTEEN, CANARY], ids=str)
def test_deleted_rows_are_found_in_free_pages_and_in_the_log(
    one: Searcher, tmp_path: Path, value: str | bytes
) -> None:
    sql = sqlite3.connect(tmp_path / "free.sqlite")
    sql.execute("PRAGMA secure_delete = OFF")
    _plant_and_delete(sql, value)
    sql.close()
    logged = sqlite3.connect(tmp_path / "log.sqlite")
    logged.execute("PRAGMA journal_mode = WAL")
    logged.execute("PRAGMA secure_delete = ON")
    _plant_and_delete(logged, value)
    assert {Path(name).name for name in search_lake(one, tmp_path)} == {
        "free.sqlite", "log.sqlite-wal"
    }  # fmt: skip
    logged.close()
    assert {Path(name).name for name in search_lake(one, tmp_path)} == {"free.sqlite"}


@pytest.mark.parametrize("value", [V4, FOUR.hex(), MAPPED + FOUR, SIXTEEN, CANARY], ids=str)
def test_the_file_table_keeps_nothing_of_a_deleted_row(
    one: Searcher, tmp_path: Path, value: str | bytes
) -> None:
    table = FileTable(tmp_path, writer=True)
    _plant_and_delete(table._sql, value)
    table.close()
    assert (tmp_path / "files.sqlite").stat().st_size > 4096
    assert search_lake(one, tmp_path) == {}


def _plant_and_delete(sql: sqlite3.Connection, value: str | bytes) -> None:
    sql.execute("CREATE TABLE planted (a)")
    sql.executemany("INSERT INTO planted VALUES (?)", [(value,)] * 2000)
    sql.commit()
    sql.execute("DELETE FROM planted")
    sql.commit()


def test_a_leak_across_the_blocks_of_a_file_is_found(one: Searcher, tmp_path: Path) -> None:
    for before in range((1 << 23) - 12, (1 << 23) + 2, 5):
        (tmp_path / "a").write_bytes(b"x" * before + PLANTED["text"] + b"x" * 100)
        assert search_lake(one, tmp_path)


def test_bare_numbers_that_chance_explains_are_no_leak() -> None:
    """Of a million numbers some are addresses of a hundred thousand hosts by chance."""
    rng = np.random.default_rng(5)
    hosts = rng.choice(1 << 28, 100_000, replace=False) + (7 << 28)
    searcher = Searcher(Secrets.of((MAPPED_AT | int(host) for host in hosts), {}))
    counters = rng.integers(7 << 28, 1 << 31, 1_000_000)
    found = searcher.values(counters)
    assert found.by_chance > 100 and not found
    leaked = np.concatenate([counters, hosts[:1000]])
    assert searcher.values(leaked).counts["number"] >= 1000


def _written(address: str) -> tuple[bytes, int]:
    """Returns an address in 16 bytes, and as a number."""
    packed = socket.inet_aton(address)
    return MAPPED + packed, int.from_bytes(packed, "big")


@pytest.mark.parametrize(("ours", "theirs"), [("10.0.0.1", "1.0.0.10"),
                                              ("169.254.100.1", "1.100.254.169"),
                                              ("118.0.103.138", "138.103.0.118")])  # fmt: skip
def test_a_foreign_address_that_spells_a_domestic_one_mirrored_is_no_leak(
    ours: str, theirs: str
) -> None:
    """Only the sources can tell: where they do not hold the foreign one, it is the domestic one."""
    secret, foreign = (MAPPED_AT | int(IPv4Address(address)) for address in (ours, theirs))
    knowing = Searcher(Secrets.of([secret], {}, [foreign]))
    packed, number = _written(theirs)
    values = ([packed], [packed[12:]], [number], np.array([number]))
    for value in values:
        assert not knowing.values(value)
        assert Searcher(Secrets.of([secret], {})).values(value)
    assert not knowing.raw(packed) and not knowing.raw(packed.hex().encode())
    packed, number = _written(ours)
    for value in ([packed], [packed[12:]], [number], np.array([number]), [ours]):
        assert knowing.values(value)
    assert knowing.raw(packed) and knowing.raw(packed[12:].hex().encode())


@pytest.mark.parametrize("theirs", ["93.184.216.34", "2606:2800:220:1::2"])
def test_content_that_names_a_foreign_host_is_no_leak_where_it_stands_as_an_endpoint(
    theirs: str,
) -> None:
    ours = "118.0.103.138"
    numbers = [
        MAPPED_AT | int(IPv4Address(a)) if "." in a else int(ip_address(a)) for a in (theirs, ours)
    ]
    words = {"payload": [theirs[:12].encode(), theirs.encode(), b"93.184.216.99", b"secret-piece"]}
    secrets = Secrets.from_traces(load_homeland("JP"), numbers, [], words, [])
    searcher = Searcher(secrets)
    assert not searcher.raw(theirs.encode()) and not searcher.values([theirs])
    for leak in (ours, "93.184.216.99", "secret-piece"):
        assert searcher.raw(leak.encode()), leak


def test_words_of_the_programs_own_files_tell_nothing_of_a_source() -> None:
    """A capture of SQL holds words that the file table's schema holds too."""
    own = [b"create table sources (", b"<!doctype html>", b"from contacts"]
    words = {"payload": [*own, b"create table victims ("]}
    secrets = Secrets.from_traces(load_homeland("JP"), [], [], words, [])
    searcher = Searcher(secrets).without(oversight._own_text())
    assert not any(searcher.raw(word) for word in own)
    assert searcher.raw(b"create table victims (")


def test_ports_and_counts_are_no_addresses_mirrored() -> None:
    """169.254.0.0 from last octet to first is the port 65193."""
    searcher = searcher_of(["169.254.0.0", "10.0.1.0"], [])
    ports = np.array([443, 65193, int.from_bytes(socket.inet_aton("10.0.1.0"), "little")])
    assert not searcher.values(ports) and not searcher.values(ports.tolist())
    assert searcher.values([_written("169.254.0.0")[1]])
    assert searcher.raw(MAPPED + socket.inet_aton("169.254.0.0")[::-1])


def test_nothing_is_found_where_nothing_is(one: Searcher, tmp_path: Path) -> None:
    rng = random.Random(7)
    words = b"118.0.103.13 18.0.103.138 118.0.103 240b:10:32ef:4b12:25b9:f7bf:4a92:d024 CANARY-"
    (tmp_path / "noise").write_bytes(words + rng.randbytes(300_000))
    ids = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(3000)]
    pq.write_table(pa.table({"a": ids, "b": range(3000)}), tmp_path / "a.parquet")
    assert search_lake(one, tmp_path) == {}


# --- a run over the samples ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def secrets() -> Searcher:
    """Everything that the truth of the samples says must not be seen again."""
    files = [truth for name, truth in TRUTH["files"].items() if name.startswith("captures/")]
    addresses = {address for truth in files for address in truth["domestic"]}
    canaries = {canary for truth in files for canary in truth["canaries"]}
    macs = [mac for mac in TRUTH["macs"]]
    names = [path.name for path in CAPTURES.iterdir()]
    assert len(addresses) > 2000 and len(canaries) > 30
    return searcher_of(
        addresses,
        [*canaries, *TRUTH["canary_words"], *macs, *(mac.replace(":", "-") for mac in macs),
         *(mac.replace(":", "") for mac in macs), *names],
    )  # fmt: skip


def test_the_samples_hold_what_is_searched_for(secrets: Searcher) -> None:
    found = secrets.raw((CAPTURES / "conn.log").read_bytes())
    assert found.counts["address"] > 100 and found.counts["payload"]


def test_no_byte_of_the_lake_tells_of_a_domestic_host(secrets: Searcher) -> None:
    run = sample_run()
    lake = run.settings.lake
    kinds = {path.suffix for path in lake.rglob("*") if path.is_file()}
    assert kinds >= {".parquet", ".sqlite", ".duckdb", ".jsonl", ".csv", ".txt", ".json", ".html"}
    assert search_lake(secrets, lake) == {}


def test_no_word_of_the_command_tells_of_a_domestic_host(secrets: Searcher) -> None:
    said = sample_run().said
    assert "Endpoints" in said.out
    assert not secrets.raw((said.out + said.err).encode())


def test_mac_addresses_are_nowhere_in_bytes_either() -> None:
    macs = [bytes.fromhex(mac.replace(":", "")) for mac in TRUTH["macs"]]
    for path in sample_run().settings.lake.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(mac in data for mac in macs), path.name


def test_a_terminal_sees_numbers_only(secrets: Searcher, tmp_path: Path) -> None:
    """Progress, counts and errors on a terminal, a damaged and a refused source among them."""
    truncated = tmp_path / "x1"
    truncated.write_bytes((CAPTURES / "isp-dslite.pcap").read_bytes()[:-100])
    refused = tmp_path / "x2"
    refused.write_bytes((CAPTURES / "border-b.pcapng").read_bytes()[28:])
    key = fixed_key(tmp_path / "key")
    sources = [CAPTURES / "border-b.pcapng", CAPTURES / "conn.log", truncated, refused]
    master, slave = pty.openpty()
    arguments = command("run", *sources, "--lake", tmp_path / "lake", "--key", key)
    process = subprocess.Popen(arguments, stdout=slave, stderr=slave, env=environment())
    os.close(slave)
    said = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not part:
            break
        said += part
    os.close(master)
    assert process.wait() == 1
    assert b"Reading" in said and b"1 refused" in said and b"damaged" in said
    assert not secrets.raw(said)
    assert search_lake(secrets, tmp_path / "lake") == {}


def test_a_packed_tar_file_leaves_nothing_behind_and_says_nothing(tmp_path: Path) -> None:
    packed = tmp_path / "kawasaki-branch-office.tar.gz"
    with tarfile.open(packed, "w:gz") as made:
        for name in ("border-b.pcapng", "isp-dslite.pcap"):
            made.add(CAPTURES / name, f"folder-of-tanaka/{name}")
    said = call("run", packed, "--lake", tmp_path / "lake")
    assert said.code == 0
    answer = call("audit", "leaks", "--against", packed, "--lake", tmp_path / "lake", "--json")
    assert answer.json["secrets"] > 10
    assert answer.json["files"] == {}
    truth = json.loads((CAPTURES.parent / "truth.json").read_text())["files"]
    domestic = {ip for n in ("border-b.pcapng", "isp-dslite.pcap")
                for ip in truth[f"captures/{n}"]["domestic"]}  # fmt: skip
    assert domestic and not domestic & set(re.split(r"[^0-9a-f.:]+", said.words))
    for path in (tmp_path / "lake").rglob("*"):
        assert not path.is_file() or not {b"kawasaki", b"tanaka"} & set(
            re.findall(rb"kawasaki|tanaka", path.read_bytes())
        )


# --- real captures -------------------------------------------------------------------------------


def test_foreign_addresses_that_are_mirrored_domestic_ones_are_found_in_no_lake(
    corpus: Path, tmp_path: Path
) -> None:
    settings = settings_in(tmp_path, country="JP", home=())
    sources = [str(corpus / "records" / "zeek-rolling"), str(corpus / "records" / "exports")]
    assert pipeline.run(settings, sources).ingest.sources
    answer = pipeline.leaks(settings, sources)
    assert answer["secrets"] > 10
    assert answer["files"] == {}


@pytest.mark.parametrize("name", ["quasarrat-09ffabf7", "asyncrat-9596cf60", "trickbot-http"])
@pytest.mark.parametrize("country", [None, "JP"], ids=["home", "JP"])
def test_real_captures_leave_nothing_of_the_home_behind(
    corpus: Path, tmp_path: Path, name: str, country: str | None
) -> None:
    with (corpus / "labels.csv").open() as stream:
        homes = {row["home_prefixes"] for row in csv.DictReader(stream) if row["dataset"] == name}
    home = () if country else tuple(prefix for some in homes for prefix in some.split(";"))
    settings = settings_in(tmp_path, country=country, home=home)
    sources = [str(corpus / "attacks" / name)]
    report = pipeline.run(settings, sources)
    for source in report.ingest.sources:
        read = source.packets_read + source.records_read
        assert read == source.kept + sum(source.dropped.values())
    answer = pipeline.leaks(settings, sources)
    assert answer["secrets"] > 10
    assert answer["files"] == {}


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A copy of the samples' lake."""
    shutil.copytree(sample_run().settings.lake, tmp_path / "lake")
    return tmp_path / "lake"


def _leaks(lake: Path, *more: object) -> Answer:
    return call("audit", "leaks", "--against", CAPTURES, "--lake", lake, "--json", *more)


def test_the_command_finds_nothing_after_a_run(lake: Path) -> None:
    answer = _leaks(lake)
    assert (answer.code, answer.json["files"]) == (0, {})
    assert answer.json["secrets"] > 2000 and answer.json["sources_refused"] == 0
    entry = json.loads((lake / "ledger.jsonl").read_text().splitlines()[-1])
    assert (entry["kind"], entry["facts"]["found"]) == ("leaks", 0)
    assert entry["facts"]["secrets"] == answer.json["secrets"]


def test_the_command_finds_what_is_planted_and_does_not_show_it(lake: Path) -> None:
    truths = [truth for name, truth in TRUTH["files"].items() if name.startswith("captures/")]
    address = next(a for truth in truths for a in truth["domestic"] if "." in a)
    mac = TRUTH["macs"][0]
    (lake / "lists" / "list.txt").write_text(f"{address}\n{mac}\nsomebody@example.jp\n")
    (lake / "reports" / f"{address}.html").write_text("")
    log = lake.parent / "log"
    log.write_bytes(base64.b64encode(f"host {address}".encode()))
    answer = _leaks(lake, "--also", log)
    assert answer.code == 1 and "leaks were found" in answer.err
    assert answer.json["files"] == {
        "lake/lists/list.txt": {"address": 1, "mac": 1, "email": 1},
        "log": {"address": 1},
        "a name that must not be told": {"address": 1},
    }
    assert address not in answer.out + answer.err and mac not in answer.out


def test_the_command_refuses_what_it_cannot_search(lake: Path, tmp_path: Path) -> None:
    assert _leaks(lake, "--also", tmp_path / "nowhere").code == 2
    assert _leaks(tmp_path / "no_lake").code == 1
    assert call("audit", "leaks", "--against", "-", "--lake", lake).code == 2
    assert call("audit", "leaks", "--lake", lake).code == 2
