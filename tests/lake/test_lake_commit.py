"""A lake holds whole batches only: whatever is killed, refused or torn."""

import gzip
import hashlib
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from lake_segments import Packet, Row, meter, rows_of, source, table, traffic
from lake_writer import PACKETS, SOURCES, main

from telemetry import lake as room
from telemetry.columns import RECORD
from telemetry.errors import KeyFileError, LakeBusy, LakeError, PrivacyError, SourceError
from telemetry.lake import Catalog, Lake
from telemetry.lake.files import read_records
from telemetry.lake.merge import merge_segments
from telemetry.lake.table import SCHEMA_VERSION

connect, query = (partial(f, unselected=True) for f in (room.connect, room.query))
WRITER = Path(__file__).with_name("lake_writer.py")
ROOT = WRITER.parents[2]


def open_lake(path: Path, policy: str = "policy", key: str = "key") -> Lake:
    return Lake.create_or_open(path, policy_tag=policy, key_id=key, buckets=4)


def take_in(lake: Lake, number: int, segments: pa.Table) -> bool:
    with lake.source() as batch:
        batch.stage(segments)
        return batch.accept(source(number, batch.rows))


def content(lake: Lake) -> dict[str, list[Row]]:
    return {f.name: rows_of(read_records(lake.path / f.name)) for f in lake.files()}


def on_disk(path: Path) -> set[str]:
    return {p.relative_to(path).as_posix() for p in path.rglob("*.parquet")}


def test_a_signal_at_the_end_of_a_commit_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_lake(tmp_path / "lake") as lake:
        take_in(lake, 0, table(meter(traffic(1, 40))))
        durable = lake._table.transaction

        @contextmanager
        def interrupted() -> Iterator[None]:
            with durable():
                yield
            raise KeyboardInterrupt

        monkeypatch.setattr(lake._table, "transaction", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lake.commit()
    monkeypatch.undo()
    with open_lake(tmp_path / "lake") as lake:
        listed = {file.name for file in lake.files()}
        assert listed and listed <= on_disk(lake.path)


def test_cuts_order_and_batches_do_not_show(tmp_path: Path) -> None:
    packets = traffic(1, 400, days=2)
    with open_lake(tmp_path / "whole") as whole:
        take_in(whole, 0, table(meter(packets)))
        whole.commit()
        assert whole.merge() == 0  # a partition of one file is merged already
        expected = content(whole)
    random.Random(2).shuffle(packets)
    with open_lake(tmp_path / "cut") as cut:
        cut.buffer_rows = 50
        for number in range(8):
            take_in(cut, number, table(meter(packets[number::8])))
            if number % 2:
                cut.commit()
            if number == 3:
                cut.merge()
        assert cut.merge() == len(expected)
        assert content(cut) == expected  # names too: they come from the bytes
        assert cut.merge() == 0
        cut.remove_retired(0)
        assert on_disk(cut.path) == set(expected)


def test_a_source_comes_in_once(tmp_path: Path) -> None:
    segments = table(meter(traffic(1, 50)))
    with open_lake(tmp_path / "lake") as lake:
        assert take_in(lake, 1, segments)
        assert not take_in(lake, 1, segments)  # waits for the commit
        lake.commit()
        before = content(lake)
        assert lake.known(source(1).sha256, "ix1")
        assert not lake.known(source(1).sha256, "ix2")
        assert not take_in(lake, 1, segments)
        lake.commit()
        assert content(lake) == before
        assert lake.sources() == [source(1, len(segments))]


@pytest.mark.parametrize("packed_first", [True, False])
@pytest.mark.parametrize("commit", [True, False])
def test_content_comes_in_once_plain_or_packed(
    tmp_path: Path, packed_first: bool, commit: bool
) -> None:
    content = b"one capture"
    names = [hashlib.sha256(form).hexdigest() for form in (content, gzip.compress(content))]
    stored = [replace(source(1), sha256=name, content_sha256=names[0]) for name in names]
    first, second = stored[::-1] if packed_first else stored
    with open_lake(tmp_path / "lake") as lake:
        for one, new in ((first, True), (second, False), (replace(second, sensor="ix2"), True)):
            with lake.source() as batch:
                batch.stage(table(meter(traffic(1, 50))))
                assert batch.accept(one) is new
            if commit:
                lake.commit()
            assert lake.known(names[0], one.sensor)
        lake.commit()
        assert {s.sensor for s in lake.sources()} == {"ix1", "ix2"}
        assert lake.counts().sources == 2
        lake.build_catalog()
    shown = query(tmp_path / "lake", "SELECT DISTINCT content_sha256 AS c FROM sources")
    assert shown["c"].to_pylist() == [names[0]]


def test_a_lake_of_another_version_is_refused(tmp_path: Path) -> None:
    open_lake(tmp_path / "lake").close()
    with sqlite3.connect(tmp_path / "lake" / "files.sqlite") as table:
        table.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    table.close()
    with pytest.raises(LakeError, match="version 1, this program needs 4"):
        open_lake(tmp_path / "lake")


def test_other_columns_have_another_version() -> None:
    # Whoever changes the stored columns raises SCHEMA_VERSION, and enters both here.
    stored = "|".join(f"{c.name} {c.type} {c.merge} {c.nullable}" for c in RECORD)
    digest = hashlib.sha256(stored.encode()).hexdigest()[:16]
    assert (SCHEMA_VERSION, digest) == (4, "e7d640c1dfada357")


def test_equal_records_of_two_sources_add_up(tmp_path: Path) -> None:
    segments = table(meter(traffic(1, 50)))
    with open_lake(tmp_path / "lake") as lake:
        for number in (1, 2):
            take_in(lake, number, segments)
            lake.commit()
        lake.merge()
        lake.build_catalog()
    answer = query(
        tmp_path / "lake", "SELECT sum(endpoint_packets + peer_packets)::INT s FROM stored_records"
    )
    assert answer.to_pylist() == [{"s": 100}]


def test_a_refused_source_leaves_nothing(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        lake.buffer_rows = 10  # it has files aside when it is refused
        take_in(lake, 1, table(meter(traffic(1, 50))))
        with pytest.raises(ValueError, match="torn"), lake.source() as batch:
            batch.stage(table(meter(traffic(2, 50))))
            raise ValueError("torn")
        with pytest.raises(SourceError, match="clock"), lake.source() as batch:
            batch.stage(table(meter([Packet(0, "peer", 400_000_000_000_000_000, 60, 2)])))
        with lake.source() as batch:
            batch.stage(table(meter(traffic(3, 50))))  # never accepted
        lake.commit()
        assert not list((lake.path / "tmp").iterdir())
        assert [s.sha256 for s in lake.sources()] == [source(1).sha256]
        rows = [row for rows in content(lake).values() for row in rows]
    assert len(rows) == len(merge_segments(table(meter(traffic(1, 50)))))


def test_what_was_not_committed_is_gone(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        lake.buffer_rows = 10
        take_in(lake, 1, table(meter(traffic(1, 50))))
        assert list((lake.path / "tmp").iterdir())
    with open_lake(tmp_path / "lake") as lake:
        assert lake.counts().sources == lake.counts().files == 0
        assert not list((lake.path / "tmp").iterdir())


def test_strays_are_swept_but_not_the_spill_of_a_living_reader(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    open_lake(lake).close()
    (lake / "records" / "day=2026-03-01" / "bucket=01").mkdir(parents=True)
    (lake / "records" / "day=2026-03-01" / "bucket=01" / "stray.parquet").touch()
    (lake / "tmp" / "00000000").touch()
    (lake / "tmp" / f"spill-{os.getpid()}").mkdir()
    (lake / "tmp" / "spill-999999999").mkdir()
    (lake / "lists" / ".aside-1").mkdir()
    for kept in ("lists/.aside-1/list.csv", "lists/list.csv", "reports/.aside-2", "reports/r.html"):
        (lake / kept).touch()
    open_lake(lake).close()
    assert not on_disk(lake)
    assert [p.name for p in (lake / "lists").iterdir()] == ["list.csv"]
    assert [p.name for p in (lake / "reports").iterdir()] == ["r.html"]
    assert [p.name for p in (lake / "tmp").iterdir()] == [f"spill-{os.getpid()}"]


@pytest.mark.parametrize("spoil", ["type", "order", "null", "extra"])
def test_the_world_is_closed(tmp_path: Path, spoil: str) -> None:
    good = table(meter(traffic(1, 5)))
    nulls = pa.nulls(len(good), pa.uint8())
    place = good.schema.get_field_index("protocol")
    bad = {
        "type": good.set_column(place, "protocol", good["protocol"].cast(pa.int32())),
        "order": good.select(good.column_names[::-1]),
        "null": good.set_column(place, "protocol", nulls),
        "extra": good.append_column("payload", nulls),
    }[spoil]
    with open_lake(tmp_path / "lake") as lake, pytest.raises(PrivacyError), lake.source() as batch:
        batch.stage(bad)


def test_no_metadata_rides_along(tmp_path: Path) -> None:
    segments = table(meter(traffic(1, 50))).replace_schema_metadata({"canary": "from a file"})
    with open_lake(tmp_path / "lake") as lake:
        take_in(lake, 1, segments)
        lake.commit()
        for file in lake.files():
            assert b"canary" not in (lake.path / file.name).read_bytes()


def test_modes(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        take_in(lake, 1, table(meter(traffic(1, 50))))
        lake.commit()
        lake.build_catalog()
        for path in [lake.path, *lake.path.rglob("*")]:
            wanted = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_one_writer(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake"), pytest.raises(LakeBusy):
        open_lake(tmp_path / "lake")
    open_lake(tmp_path / "lake").close()


def test_another_policy_or_key_is_refused(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    open_lake(lake).close()
    with pytest.raises(PrivacyError, match="policy"):
        open_lake(lake, policy="other")
    with pytest.raises(KeyFileError, match="key"):
        open_lake(lake, key="other")
    assert (Lake.peek(lake).policy_tag, Lake.peek(lake).key_id) == ("policy", "key")
    open_lake(lake).close()


def test_places_where_no_lake_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").touch()
    for place in (tmp_path / "file" / "lake", tmp_path / "file", Path("/proc/lake")):
        with pytest.raises(LakeError):
            open_lake(place)
    with pytest.raises(LakeError, match="other files"):
        open_lake(tmp_path / "home")
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["letter.txt"]
    for read in (Lake.peek, connect):
        with pytest.raises(LakeError, match=r"no (lake|catalog)"):
            read(tmp_path / "nowhere")


def test_a_torn_file_is_one_sentence(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        for number in (1, 2):
            take_in(lake, number, table(meter(traffic(number, 50))))
            lake.commit()
        (lake.path / lake.files()[0].name).write_bytes(b"PAR1 torn")
        with pytest.raises(LakeError, match="restore"):
            lake.merge()


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "sekisho-test", str(path)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted as root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("step", ["commit", "catalog"])
def test_a_full_disk_loses_nothing(tmp_path: Path, step: str) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk), open_lake(disk / "lake") as lake:
        take_in(lake, 0, table(meter(traffic(0, 100))))
        lake.commit()
        before = content(lake)
        with pytest.raises(LakeError, match="disk that holds the lake is full"):
            if step == "catalog":
                (disk / "ballast").write_bytes(bytes(1_000_000))
            for number in range(1, 100):
                take_in(lake, number, table(meter(traffic(number, 300, days=9))))
                lake.commit()
                before = content(lake)
                if step == "catalog":
                    lake.build_catalog()
        assert content(lake) == before
        assert not list((lake.path / "tmp").iterdir())
        assert on_disk(lake.path) == set(before)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        take_in(lake, 1000, table(meter(traffic(1000, 300, days=9))))
        lake.commit()
        lake.merge()
        lake.build_catalog()
        assert lake.known(source(1000).sha256, "ix1")


class Reader(threading.Thread):
    """Reads the catalog again and again; keeps what it saw and what went wrong."""

    def __init__(self, lake: Path) -> None:
        super().__init__()
        self.lake, self.seen, self.wrong = lake, [0], list[BaseException]()
        self.done = threading.Event()

    def run(self) -> None:
        sql = "SELECT coalesce(sum(endpoint_packets + peer_packets), 0)::INT n FROM stored_records"
        while not self.done.is_set():
            if not (self.lake / "analyst.duckdb").exists():
                time.sleep(0.01)
                continue
            try:
                self.seen.append(query(self.lake, sql)["n"][0].as_py())
            except Exception as error:
                self.wrong.append(error)


def test_killed_at_any_instant_it_goes_on_to_the_same_lake(tmp_path: Path) -> None:
    main(tmp_path / "calm")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    lake, chance, kills = tmp_path / "killed", random.Random(), 0
    reader = Reader(lake)
    reader.start()
    try:
        for _ in range(3):
            command = [sys.executable, str(WRITER), str(lake)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as writer:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"open\n"
                time.sleep(chance.uniform(0, 0.5))
                writer.kill()
            kills += writer.returncode == -signal.SIGKILL
        assert kills
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    finally:
        reader.done.set()
        reader.join()
    assert not reader.wrong
    assert reader.seen == sorted(reader.seen)
    assert not any(seen % (3 * PACKETS) for seen in reader.seen)
    with open_lake(tmp_path / "calm") as calm, open_lake(lake) as killed:
        assert killed.sources() == calm.sources()
        assert len(killed.sources()) == SOURCES
        assert content(killed) == content(calm)
        killed.remove_retired(0)
        assert on_disk(lake) == set(content(killed))
        assert not list((lake / "tmp").iterdir())
    a, b = (query(p, "FROM stored_records ORDER BY ALL") for p in (lake, tmp_path / "calm"))
    assert a.equals(b)


def test_a_reader_of_the_old_catalog_is_not_cut_off(tmp_path: Path) -> None:
    def total(catalog: Catalog) -> int:
        return int(catalog.sql("SELECT count(*) AS n FROM stored_records")["n"][0].as_py())

    with open_lake(tmp_path / "lake") as lake:
        for number in (1, 2):
            take_in(lake, number, table(meter(traffic(number, 50))))
            lake.commit()
        lake.build_catalog()
        old = connect(lake.path)
        before = total(old)
        lake.merge()
        lake.build_catalog()
        new = connect(lake.path)
        try:
            assert total(old) == before > total(new)
        finally:
            old.close()
            new.close()
    with open_lake(tmp_path / "lake") as lake:
        assert lake.counts().files < len(on_disk(lake.path))  # still within the grace


def test_replaced_files_go_only_under_a_catalog_without_them(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        for number in (1, 2):
            take_in(lake, number, table(meter(traffic(number, 50))))
            lake.commit()
        lake.build_catalog()
        before = on_disk(lake.path)
        assert lake.merge()  # and then the writer is gone, for longer than the grace
    with sqlite3.connect(tmp_path / "lake" / "files.sqlite") as listed:
        listed.execute("UPDATE retired SET since = 0")
    listed.close()
    with open_lake(tmp_path / "lake") as lake:
        assert on_disk(lake.path) > before
        assert query(lake.path, "FROM stored_records").num_rows  # the old catalog still answers
        with pytest.raises(LakeError):
            lake.build_catalog([("wrong", "SELECT nothing FROM nowhere")])
        assert on_disk(lake.path) > before
        lake.build_catalog()
        assert on_disk(lake.path) == {file.name for file in lake.files()}
