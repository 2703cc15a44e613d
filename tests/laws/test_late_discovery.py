"""Late discovery: a better table calls stored addresses domestic, and they go everywhere."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from e2e import CAPTURES, call, query_rows, settings_in, stored

from telemetry import pipeline
from telemetry.homeland import SHIPPED
from telemetry.homeland.ranges import read
from telemetry.lake import Lake
from telemetry.pipeline import doors
from telemetry.privacy import Ledger
from telemetry.settings import Settings

SOURCES = ("border-b.pcapng", "conn.log")


@dataclass(frozen=True)
class Late:
    """A lake filled under the shipped table, and what a better table knows of it."""

    settings: Settings
    better: Settings
    now_home: list[str]


def better_table(folder: Path, seen: list[str], now_home: list[str]) -> Path:
    """Returns a table that knows Japan and what was seen, and calls some of that Japanese."""
    shipped = read(SHIPPED)
    japan = shipped.countries.index("JP")
    lines = []
    for rows, shift in ((shipped.v4, 0), (shipped.v6, 64)):
        ours = rows.country == japan
        for start, end in zip(rows.start[ours].tolist(), rows.end[ours].tolist(), strict=True):
            last = ((end + 1) << shift) - 1
            lines.append(f"{ip_address(start << shift)},{ip_address(last)},JP\n")
    lines += [f"{address},US\n" for address in seen]
    (folder / "known.csv").write_text("".join(lines))
    (folder / "found.csv").write_text("".join(f"{address},JP\n" for address in now_home))
    table = folder / "better.parquet"
    made = call("homeland", "refresh", "--into", table, folder / "known.csv", folder / "found.csv")
    assert made.code == 0
    return table


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = settings_in(tmp_path_factory.mktemp("original"))
    pipeline.run(settings, [str(CAPTURES / name) for name in SOURCES])
    return settings


@pytest.fixture
def filled(original: Settings, tmp_path: Path) -> Settings:
    """A lake of its own for each test."""
    shutil.copytree(original.lake, tmp_path / "lake")
    settings = settings_in(tmp_path)
    meta = Lake.peek(settings.lake)
    with Lake.create_or_open(settings.lake, policy_tag=meta.policy_tag, key_id=meta.key_id) as lake:
        doors.publish(lake)  # the copied catalog names the files of the original
    return settings


@pytest.fixture
def found(filled: Settings, tmp_path: Path) -> Late:
    """A lake, some of whose endpoints, listed ones too, and foreign peers are domestic."""
    listed = [e.endpoint for e in pipeline.read_scores(filled) if e.listed]
    endpoints, peers = (
        [row["address"] for row in query_rows(
            filled.lake, f"SELECT DISTINCT {column} AS address FROM stored_records "
            f"WHERE {column} IS NOT NULL ORDER BY 1")]
        for column in ("endpoint_ip", "peer_ip")
    )  # fmt: skip
    now_home = sorted({*listed[:3], *random.Random(3).sample(endpoints, 5), *peers[:2]})
    table = better_table(tmp_path, sorted({*endpoints, *peers}), now_home)
    return Late(filled, filled.model_copy(update={"homeland": table}), now_home)


def addresses_below(folder: Path, addresses: list[str]) -> dict[str, list[str]]:
    """Returns which files hold which of the addresses, as text or as bytes."""
    wanted = {a: {a.encode(), ip_address(a).packed} for a in addresses}
    wanted = {a: {w for w in ws if len(w) > 4} | {_mapped(a)} for a, ws in wanted.items()}
    return {
        str(path.relative_to(folder)): found
        for path in folder.rglob("*")
        if path.is_file() and (found := [
            a for a, ws in wanted.items() if any(w in content(path) for w in ws)])
    }  # fmt: skip


def _mapped(address: str) -> bytes:
    packed = ip_address(address).packed
    return packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed


def content(path: Path) -> bytes:
    """Returns a file's bytes, and of Parquet the values behind the compression too."""
    data = path.read_bytes()
    if path.suffix != ".parquet":
        return data
    rows = pq.read_table(path).to_pylist()
    values = [str(row).encode() for row in rows]
    binary = [v for row in rows for v in row.values() if isinstance(v, bytes)]
    return data + b"\n".join(values) + b"\n".join(binary)


def test_what_turned_out_domestic_is_gone_from_records_scores_lists_and_reports(
    found: Late,
) -> None:
    lake = found.settings.lake
    before = stored(lake)
    assert addresses_below(lake, found.now_home), "nothing to purge: the test shows nothing"

    answer = call("homeland", "purge", "--lake", lake, "--key", found.settings.key_path,
                  "--homeland", found.better.homeland, "--json")  # fmt: skip
    assert answer.code == 0
    named = pc.or_kleene(
        pc.is_in(before["endpoint_ip"].cast(pa.string()), pa.array(found.now_home)),
        pc.fill_null(
            pc.is_in(before["peer_ip"].cast(pa.string()), pa.array(found.now_home)), False
        ),
    )
    assert answer.json["records"] == pc.sum(named).as_py() > 0
    assert stored(lake).equals(before.filter(pc.invert(named)))
    assert addresses_below(lake, found.now_home) == {}
    assert (lake / "lists" / "list.csv").exists()
    assert call("audit", "verify", "--lake", lake).code == 0

    entries = [json.loads(line) for line in (lake / "ledger.jsonl").read_text().splitlines()]
    (entry,) = [e["facts"] for e in entries if e["kind"] == "purge"]
    assert entry["records"] == answer.json["records"]
    assert entry["endpoints"] == answer.json["endpoints"]
    assert entry["scores"] > 0
    assert entry["seconds"] >= 0

    again = call("homeland", "purge", "--lake", lake, "--key", found.settings.key_path,
                 "--homeland", found.better.homeland, "--json")  # fmt: skip
    assert again.json["records"] == 0
    kinds = [json.loads(line)["kind"] for line in (lake / "ledger.jsonl").read_text().splitlines()]
    assert kinds.count("purge") == 1


def test_any_run_under_a_better_table_purges_first(found: Late, tmp_path: Path) -> None:
    before = len(stored(found.settings.lake))
    report = pipeline.ingest(found.better, [str(CAPTURES / "rawip.pcap")])
    assert 0 < report.purged < before
    assert addresses_below(found.settings.lake, found.now_home) == {}
    left = stored(found.settings.lake).to_pylist()
    fresh = settings_in(tmp_path / "fresh", homeland=found.better.homeland)
    pipeline.ingest(fresh, [str(CAPTURES / name) for name in (*SOURCES, "rawip.pcap")])
    # The fresh lake also knows the foreign sides of records whose other side was purged.
    known = {str(row) for row in stored(fresh.lake).to_pylist()}
    assert left
    assert all(str(row) in known for row in left)


def test_a_list_made_under_a_better_table_withdraws_what_it_calls_domestic(found: Late) -> None:
    listed, _ = pipeline.make_list(found.better)
    assert listed
    assert not {e.endpoint for e in listed} & set(found.now_home)
    assert addresses_below(found.settings.lake, found.now_home) == {}


def test_a_table_that_forgets_a_country_erases_nothing_and_lists_nothing_of_it(
    filled: Settings, tmp_path: Path
) -> None:
    settings = filled
    before = stored(settings.lake)
    (tmp_path / "poor.csv").write_text("133.0.0.0/8,JP\n")
    poor = tmp_path / "poor.parquet"
    assert call("homeland", "refresh", "--into", poor, tmp_path / "poor.csv").code == 0
    listed, _ = pipeline.make_list(settings.model_copy(update={"homeland": poor}))
    assert not listed
    assert stored(settings.lake).equals(before)


def test_another_home_is_still_refused_and_purges_nothing(filled: Settings) -> None:
    settings = filled
    before = stored(settings.lake)
    answer = call("homeland", "purge", "--lake", settings.lake, "--key", settings.key_path,
                  "--country", "US")  # fmt: skip
    assert answer.code == 2
    other = call("homeland", "purge", "--lake", settings.lake, "--key", settings.key_path,
                 "--home-policy", "primary")  # fmt: skip
    assert other.code == 2
    assert stored(settings.lake).equals(before)


@pytest.mark.parametrize("stop", ["publish", "erase_replaced", "append", "end_purge"])
def test_stopped_between_any_two_steps_the_purge_is_ended_and_entered_once(
    found: Late, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        owner = {"publish": doors, "append": Ledger}.get(stop, Lake)
        patched.setattr(owner, stop, fail)
        with pytest.raises(Stopped):
            pipeline.purge(found.better)
    pipeline.purge(found.better)
    assert addresses_below(found.settings.lake, found.now_home) == {}
    ledger = (found.settings.lake / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in ledger].count("purge") == 1
    assert call("audit", "verify", "--lake", found.settings.lake).code == 0
