"""No domestic address, payload or source name in any byte that a run leaves behind.

How chance hits are treated. Text forms (dotted, any spelling of IPv6, hex, base64, decimal)
and 16-byte forms carry enough bits that a hit is never chance; they are searched in every
byte of every file. A bare 4-byte address would turn up by chance in compressed data, and
`</td` is an address in Japan; it is searched where values are told apart from noise: in
every value of every column of Parquet, SQLite and DuckDB. Of eight hex digits in a row only
those inside digests (16, 32, 40 or 64 digits) are let go.
"""

from __future__ import annotations

import base64
import csv
import os
import pty
import random
import re
import socket
import sqlite3
import struct
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e import CAPTURES, TRUTH, command, environment, fixed_key, sample_run, settings_in

from telemetry import pipeline

MAPPED = bytes(10) + b"\xff\xff"
DOTTED = re.compile(rb"(?=((?<!\d)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}))")
COLONS = re.compile(rb"[0-9A-Fa-f:]*:[0-9A-Fa-f]*:[0-9A-Fa-f:]*")
UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
HEX = re.compile(rb"[0-9A-Fa-f]{8,}")
SPACED_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}[:\- ]){3,}[0-9A-Fa-f]{2}")
DECIMAL = re.compile(rb"(?<!\d)\d{7,10}(?!\d)")
BASE64 = re.compile(rb"([A-Za-z0-9+/_-]{6,})(={0,2})")
DIGESTS = (16, 32, 40, 64)


class Searcher:
    """Finds domestic addresses in any form, and forbidden words."""

    def __init__(
        self, v4: Callable[[int], bool], v6: Iterable[bytes] = (), words: Iterable[str] = ()
    ) -> None:
        self._is_v4 = v4
        self._v6 = set(v6)
        self._words = sorted({form.encode() for word in words for form in (word, word.lower())})

    @classmethod
    def of(cls, addresses: Iterable[str], words: Iterable[str]) -> Searcher:
        v4 = {int(IPv4Address(a)) for a in addresses if ":" not in a}
        v6 = {socket.inet_pton(socket.AF_INET6, a) for a in addresses if ":" in a}
        return cls(v4.__contains__, v6, words)

    def raw(self, data: bytes) -> set[str]:
        """Searches bytes of any kind."""
        return {*self._plain(data), *self._hex(data), *self._base64(data), *self._wide(data)}

    def value(self, value: Any) -> set[str]:
        """Searches one stored value, where a bare number may be an address."""
        if isinstance(value, bool) or value is None:
            return set()
        if isinstance(value, int):
            number = value & 0xFFFFFFFF
            swapped = int.from_bytes(number.to_bytes(4, "little"), "big")
            low = 0 <= value < 1 << 32 or value >> 32 in (0xFFFF, -1)
            return {f"number {value}"} if low and (self._v4(number) or self._v4(swapped)) else set()
        if isinstance(value, bytes):
            windows = (value[i : i + 4] for i in range(len(value) - 3))
            narrow = {f"4 bytes {w.hex()}" for w in windows if self._packed(w)}
            return self.raw(value) | narrow
        if isinstance(value, dict):
            return self.values([*value, *value.values()])
        if isinstance(value, list | tuple):
            return self.values(value)
        return self.raw(str(value).encode())

    def values(self, values: Iterable[Any]) -> set[str]:
        return {finding for value in values for finding in self.value(value)}

    def _v4(self, number: int) -> bool:
        return self._is_v4(number)

    def _packed(self, four: bytes) -> bool:
        return self._v4(int.from_bytes(four, "big")) or self._v4(int.from_bytes(four, "little"))

    def _sixteen(self, data: bytes) -> bool:
        if data in self._v6 or data[::-1] in self._v6:
            return True
        return data[:12] == MAPPED and self._packed(data[12:])

    def _plain(self, data: bytes) -> Iterator[str]:
        for match in DOTTED.finditer(data):
            octets = [int(part) for part in match[1].split(b".")]
            if max(octets) < 256 and self._v4(int.from_bytes(bytes(octets), "big")):
                yield f"dotted {match[1].decode()}"
        for match in COLONS.finditer(data):
            for token in {match[0], match[0].rstrip(b":"), match[0].lstrip(b":")}:
                try:
                    packed = socket.inet_pton(socket.AF_INET6, token.decode())
                except OSError:
                    continue
                if self._sixteen(packed):
                    yield f"colons {token.decode()}"
        for match in DECIMAL.finditer(data):
            if self._v4(int(match[0])):
                yield f"decimal {match[0].decode()}"
        lower = data.lower()
        for word in self._words:
            if word.lower() in lower or word.hex().encode() in lower:
                yield f"word {word.decode()}"

    def _hex(self, data: bytes) -> Iterator[str]:
        for match in UUID.finditer(data):
            if self._sixteen(bytes.fromhex(match[0].replace(b"-", b"").decode())):
                yield f"uuid {match[0].decode()}"
        rest = UUID.sub(b"/", data)
        spaced = (re.sub(rb"[:\- ]", b"", m[0]) for m in SPACED_HEX.finditer(rest))
        for run in [m[0] for m in HEX.finditer(rest)] + list(spaced):
            for start in range(len(run) - 31):
                if self._sixteen(bytes.fromhex(run[start : start + 32].decode())):
                    yield f"hex {run.decode()[:80]}"
            for start in range(len(run) - 7) if len(run) not in DIGESTS else ():
                if self._packed(bytes.fromhex(run[start : start + 8].decode())):
                    yield f"hex {run.decode()[:80]}"

    def _base64(self, data: bytes) -> Iterator[str]:
        for match in BASE64.finditer(data):
            run = match[1].replace(b"-", b"+").replace(b"_", b"/")
            for start in range(4):
                part = run[start:]
                whole = base64.b64decode(part[: len(part) // 4 * 4] or b"", validate=True)
                tail = part[len(part) // 4 * 4 :]
                if len(tail) > 1:
                    whole += base64.b64decode(tail + b"=" * (4 - len(tail)))
                bare = start == 0 and len(whole) == 4 and match[2] and self._packed(whole)
                wide = any(self._sixteen(whole[i : i + 16]) for i in range(len(whole) - 15))
                if bare or wide or any(self._plain(whole)):
                    yield f"base64 {match[0].decode()[:80]}"

    def _wide(self, data: bytes) -> Iterator[str]:
        for match in re.finditer(rb"(?s)(?=\0{10}\xff\xff(.{4}))", data):
            if self._packed(match[1]):
                yield f"16 bytes {match[1].hex()}"
        for match in re.finditer(rb"(?s)(?=(.{4})\xff\xff\0\0)", data):
            if self._v4(int.from_bytes(match[1], "little")):
                yield f"8 bytes, little-endian {match[1].hex()}"
        for address in self._v6:
            halves = address[7::-1] + address[:7:-1]
            if address in data or address[::-1] in data or halves in data:
                yield f"16 bytes {address.hex()}"


def search_lake(searcher: Searcher, lake: Path) -> dict[str, set[str]]:
    """Searches every file below a folder, raw and value by value; returns findings by file."""
    found: dict[str, set[str]] = {}
    for path in sorted(lake.rglob("*")):
        findings = searcher.raw(path.relative_to(lake).as_posix().encode())
        if path.is_file():
            data = path.read_bytes()
            findings |= searcher.raw(data)
            if data.startswith(b"PAR1"):
                findings |= _parquet(searcher, path)
            elif data.startswith(b"SQLite format 3\0"):
                findings |= _sqlite(searcher, path)
            elif data[8:12] == b"DUCK":
                findings |= _duckdb(searcher, path)
        if findings:
            found[path.relative_to(lake).as_posix()] = findings
    return found


def _parquet(searcher: Searcher, path: Path) -> set[str]:
    found: set[str] = set()
    with pq.ParquetFile(path) as file:
        meta = file.metadata
        found |= searcher.values([*(meta.metadata or {}).items(), meta.created_by])
        found |= searcher.values(file.schema_arrow.names)
        for group in range(meta.num_row_groups):
            for number in range(meta.num_columns):
                statistics = meta.row_group(group).column(number).statistics
                if statistics is not None and statistics.has_min_max:
                    found |= searcher.values([statistics.min, statistics.max])
        for column in file.read().columns:
            found |= searcher.values(_distinct(column))
    return found


def _distinct(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_list(kind):
        return _distinct(
            pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
        )
    if pa.types.is_struct(kind):
        return [v for field in column.flatten() for v in _distinct(field)]
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    values: list[Any] = column.unique().to_pylist()
    return values


def _sqlite(searcher: Searcher, path: Path) -> set[str]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = [name for (name,) in names]
        found = searcher.values(connection.execute("SELECT * FROM sqlite_master").fetchall())
        for table in tables:
            found |= searcher.values(connection.execute(f"SELECT * FROM {table}").fetchall())
    finally:
        connection.close()
    return found


def _duckdb(searcher: Searcher, path: Path) -> set[str]:
    with duckdb.connect(str(path), read_only=True) as connection:
        found: set[str] = set()
        for catalog in ("duckdb_tables", "duckdb_views", "duckdb_columns"):
            rows = connection.execute(f"SELECT * FROM {catalog}() WHERE NOT internal").fetchall()
            found |= searcher.values(rows)
        names = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        for (name,) in names:
            found |= searcher.values(connection.execute(f'SELECT * FROM "{name}"').fetchall())
    return found


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
    return Searcher.of([V4, V6], [CANARY])


@pytest.mark.parametrize("form", PLANTED)
def test_a_planted_leak_is_found(one: Searcher, form: str) -> None:
    assert one.raw(PLANTED[form])
    noise = random.Random(form).randbytes(10_000).replace(b"\xff\xff", b"\xff\xfe")
    assert one.raw(noise + b" " + PLANTED[form] + b" " + noise)


@pytest.mark.parametrize("value", [V4, FOUR, FOUR[::-1], int(IPv4Address(V4)),
                                   int.from_bytes(FOUR, "little"), int(IPv4Address(V4)) - (1 << 32),
                                   SIXTEEN, [V4], {"a": V6}, CANARY], ids=str)  # fmt: skip
def test_a_planted_value_is_found_in_each_store(one: Searcher, tmp_path: Path, value: Any) -> None:
    assert one.value(value)
    pq.write_table(pa.table({"a": [value] * 3}), tmp_path / "a.parquet", compression="zstd")
    plain = value if isinstance(value, str | bytes | int) else str(value)
    sql = sqlite3.connect(tmp_path / "b.sqlite")
    sql.execute("CREATE TABLE t (a)")
    sql.execute("INSERT INTO t VALUES (?)", (plain,))
    sql.commit()
    sql.close()
    with duckdb.connect(str(tmp_path / "c.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT ? AS a FROM range(3000)", [plain])
    assert set(search_lake(one, tmp_path)) == {"a.parquet", "b.sqlite", "c.duckdb"}


def test_a_name_in_metadata_or_of_a_file_is_found(one: Searcher, tmp_path: Path) -> None:
    table = pa.table({"a": [1]}).replace_schema_metadata({"source": V4})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    (tmp_path / f"{CANARY}.txt").write_bytes(b"")
    assert len(search_lake(one, tmp_path)) == 2


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
    return Searcher.of(
        addresses,
        [*canaries, *TRUTH["canary_words"], *macs, *(mac.replace(":", "-") for mac in macs),
         *(mac.replace(":", "") for mac in macs), *names],
    )  # fmt: skip


def test_the_samples_hold_what_is_searched_for(secrets: Searcher) -> None:
    found = secrets.raw((CAPTURES / "conn.log").read_bytes())
    assert any(finding.startswith("dotted") for finding in found)
    assert any("canary" in finding for finding in found)


def test_no_byte_of_the_lake_tells_of_a_domestic_host(secrets: Searcher) -> None:
    run = sample_run()
    lake = run.settings.lake
    kinds = {path.suffix for path in lake.rglob("*") if path.is_file()}
    assert kinds >= {".parquet", ".sqlite", ".duckdb", ".jsonl", ".csv", ".txt", ".json", ".html"}
    assert search_lake(secrets, lake) == {}


def test_no_word_of_the_command_tells_of_a_domestic_host(secrets: Searcher) -> None:
    said = sample_run().said
    assert "Endpoints" in said.out
    assert secrets.raw((said.out + said.err).encode()) == set()


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
    assert secrets.raw(said) == set()
    assert search_lake(secrets, tmp_path / "lake") == {}


# --- real captures -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quasarrat-09ffabf7", "asyncrat-9596cf60", "trickbot-http"])
def test_real_captures_leave_nothing_of_the_home_behind(
    corpus: Path, tmp_path: Path, name: str
) -> None:
    with (corpus / "labels.csv").open() as stream:
        homes = {row["home_prefixes"] for row in csv.DictReader(stream) if row["dataset"] == name}
    networks = [ip_network(prefix) for home in homes for prefix in home.split(";")]
    assert networks
    settings = settings_in(tmp_path, home=tuple(map(str, networks)))
    report = pipeline.run(settings, [str(corpus / "attacks" / name)])
    assert any(source.kept for source in report.ingest.sources)
    v4 = [(int(n.network_address), int(n.broadcast_address)) for n in networks if n.version == 4]
    searcher = Searcher(lambda number: any(a <= number <= b for a, b in v4))
    assert search_lake(searcher, settings.lake) == {}
