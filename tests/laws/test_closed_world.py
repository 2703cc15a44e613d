"""Closed world: what nobody entered in a table is refused, and content has no column at all."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e import CAPTURES, call, fixed_key, query_rows, sample_run

from telemetry import columns
from telemetry.columns import Layer, check_closed
from telemetry.errors import PrivacyError
from telemetry.features import views
from telemetry.homeland import Border, load
from telemetry.lake import Lake
from telemetry.privacy import Gate, Keys
from telemetry.raw import RawBatch, Side
from telemetry.records import Tally

_WORDS = """
a active activity addr all amplified amplifier answered answers asked at authority be beacon beat
before began begun bits both bucket burst by bytes calls captured category channel channels class
closed column confidence conn connection connections content contribution conversing covert crowd
data day days delivery detail device direction dispersion domestic download dropped dst duration
echo end ended endpoint endpoints ends entries est exchanges expired failed fetch fetches file files
first flags folder for format from gaps got greatest half handshake head held homeland host hosts
hour hours id idle in info ingested ip is kept key kin kind last least length listed lists login
long longest mad main many max meaning median meta metadata min misses most must name names near net
networks novelty num on one opened opens operator originator out outer packets pair passed pause
pauses payload peer per pid pings place port ports probed product protocol purge quarantine rate
read reason reasons recent records reflected regularity relay reply reports request resolution
resolvers retention retired retry rhythm role roles rows rule rules run runs s sampled sampling
score scores seconds seen selected selection sensor sent series service services sessions severity
sha256 share sided silence silent since skew slots source sources span spoke spoken src start
started starts state status steady sure syn system talk talked targets tcp tells text time timeout
to traffic trait traits tried tries tunnel two type udp uid unit unseen until unusual up upload
valid value values variation ver version view was way ways widest written
"""
WORDS = set(_WORDS.split())
"""Every word of which a stored or listed name may be made. A new one is entered here by hand,
after asking what an overseer would say of it."""

_CONTENT = """
url uri host_name hostname domain fqdn dns query question answer rrname sni server_name
agent user username password cookie referer referrer method header body path cert certificate
subject issuer ja3 ja4 fingerprint mime mail email sender recipient message title mac vlan
ssid imsi imei msisdn geo city latitude longitude
"""
CONTENT = set(_CONTENT.split())
"""Words of application fields, of persons and of devices."""


def test_no_word_of_content_is_among_the_words_of_names() -> None:
    assert not WORDS & CONTENT


def names_of_code() -> Iterator[str]:
    for layer in Layer:
        yield from columns.schema(layer).names
    for view in views():
        yield from (column.name for column in view.columns)


def names_of_files(lake: Path) -> Iterator[str]:
    """Yields the name of everything that can hold a value in the files of a lake."""
    for path in lake.rglob("*.parquet"):
        yield from _names(pq.read_schema(path))
    table = sqlite3.connect(f"{(lake / 'files.sqlite').as_uri()}?mode=ro", uri=True)
    for (name,) in table.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
        yield from (row[1] for row in table.execute(f"PRAGMA table_info({name})"))
    table.close()
    sql = "SELECT DISTINCT column_name AS name FROM duckdb_columns() WHERE NOT internal"
    yield from (row["name"] for row in query_rows(lake, sql))
    with (lake / "lists" / "list.csv").open() as file:
        yield from next(csv.reader(file))
    for line in (lake / "lists" / "list.jsonl").read_text().splitlines():
        yield from _keys(json.loads(line))


def _names(fields: pa.Schema | pa.StructType) -> Iterator[str]:
    for field in fields:
        yield field.name
        kind = field.type
        if pa.types.is_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            yield from _names(kind)


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def unknown(names: Iterator[str]) -> set[str]:
    return {name for name in names if not set(name.lower().split("_")) <= WORDS}


def test_every_name_in_tables_and_queries_is_made_of_known_words() -> None:
    assert unknown(names_of_code()) == set()


def test_every_name_in_the_files_of_a_run_is_made_of_known_words() -> None:
    names = list(names_of_files(sample_run().settings.lake))
    assert len(set(names)) > 100
    assert unknown(iter(names)) == set()


@pytest.mark.parametrize("name", ["url", "dns_query", "tls_sni", "user_agent", "mac_address"])
def test_a_column_that_is_not_in_the_table_is_refused(tmp_path: Path, name: str) -> None:
    wanted = columns.schema(Layer.RECORD)
    with pytest.raises(PrivacyError, match="closed"):
        check_closed([*wanted.names, name], Layer.RECORD)
    rows = wanted.empty_table().append_column(name, pa.array([], pa.string()))
    with (
        Lake.create_or_open(tmp_path / "lake", policy_tag="0" * 64, key_id="k") as lake,
        lake.source() as staged,
        pytest.raises(PrivacyError, match="closed"),
    ):
        staged.stage(rows)


@dataclass(slots=True)
class Talkative(RawBatch):
    """A batch of a reader that hands over more than it may."""

    host_name: object = None


@dataclass(slots=True)
class TalkativeSide(Side):
    """A side with content."""

    content: object = None


def test_a_reader_that_hands_over_an_unknown_field_is_refused() -> None:
    border = Border(load(None, ["192.0.2.0/24"]), 7)
    gate = Gate(border, Keys(bytes(32)), "sample")
    one = {n: np.ones(1, np.uint64) for n in ("a_hi", "a_lo", "b_hi", "b_lo")}
    one |= {
        name: np.ones(1, np.int64)
        for name in ("a_port", "b_port", "protocol", "tunnel", "outer", "sampling_rate",
                     "active_timeout", "idle_timeout")
    }  # fmt: skip
    plain, more = Side.unknown(1), TalkativeSide.unknown(1)
    for batch in (Talkative(**one, a=plain, b=plain), RawBatch(**one, a=plain, b=more)):
        with pytest.raises(PrivacyError, match="something else"):
            gate.admit(batch, Tally(), False)
    with pytest.raises(AttributeError):
        RawBatch(**one, a=plain, b=plain).host_name = "x"  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        RawBatch(**one, a=plain, b=plain, host_name="x")  # type: ignore[call-arg]


AUTHORITY = (CAPTURES.parent / "authority.toml").read_text()
MAPPING = """time = "s"\n[columns]\nsrc_ip = "a"\ndst_ip = "b"\nstart = "t"\n"""
MISSPELT = {
    "an authority's key": ("authority", AUTHORITY + '\nhost_names = "kept"\n'),
    "an authority's purpose": ("authority", AUTHORITY + '\nfurther_purposes = ["all"]\n'),
    "a mapping's key": ("mapping", 'urls = "kept"\n' + MAPPING),
    "a mapping's meaning": ("mapping", MAPPING + 'http_host = "h"\n'),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_a_misspelt_key_of_a_file_is_refused(tmp_path: Path, case: str) -> None:
    option, text = MISSPELT[case]
    (tmp_path / "given.toml").write_text(text)
    (tmp_path / "flows.csv").write_text("a,b,t,h\n192.0.2.1,8.8.8.8,1,x\n")
    key = fixed_key(tmp_path / "key")
    answer = call(
        "ingest", tmp_path / "flows.csv", "--lake", tmp_path / "lake", "--key", key,
        f"--{option}", tmp_path / "given.toml",
    )  # fmt: skip
    assert answer.code in (1, 2) and answer.err.startswith("sekisho: ")
    assert not list((tmp_path / "lake").rglob("*.parquet"))


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o640, 0o666])
def test_a_key_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    key = fixed_key(tmp_path / "key")
    key.chmod(mode)
    answer = call("ingest", CAPTURES / "rawip.pcap", "--lake", tmp_path / "lake", "--key", key)
    assert answer.code == 2 and "key file" in answer.err
    assert not (tmp_path / "lake").exists()
