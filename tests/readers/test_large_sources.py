"""Large sources are hashed, unpacked and read in threads; nothing else may differ."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from capture_kit import (
    DOMESTIC4,
    FOREIGN4,
    NOON,
    UDP,
    Packet,
    border,
    ethernet,
    ip4,
    merged,
    pcap,
    read_source,
    udp,
)
from e2e import settings_in, stored

from telemetry.errors import SourceError
from telemetry.pipeline import ingest
from telemetry.readers import open_source, source
from telemetry.readers.ahead import ahead
from telemetry.readers.packets import capture
from telemetry.readers.packets.meter import FlowTable

CAPTURE = pcap(
    Packet(NOON + n, ethernet(ip4(DOMESTIC4, FOREIGN4, UDP, udp(1024 + n % 5000, 53, b"q"))))
    for n in range(40_000)
)


class _SmallTable(FlowTable):
    def __init__(self, _: int) -> None:
        super().__init__(1024)


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"ahead", "hash"}


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(source, "LARGE", 0)
    monkeypatch.setattr(source, "_UNPACKED", 1 << 16)
    monkeypatch.setattr(capture, "_BUFFER", 1 << 16)
    monkeypatch.setattr(capture, "FlowTable", _SmallTable)
    yield
    assert not _threads()


def _outcome(path: Path) -> tuple[object, ...]:
    opened = open_source(str(path))
    try:
        reading = read_source(opened, border())
        opened.finish()
    finally:
        opened.close()
    return merged([reading]).to_pylist(), reading.tally, opened.sha256, opened.content_sha256


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        zstandard.ZstdCompressor().compress,
        lambda data: gzip.compress(data)[:-100_000],
        lambda data: data[:-5],
    ],
    ids=["plain", "gzip", "zstd", "cut gzip", "cut"],
)
def test_a_large_source_is_read_as_a_small_one(
    tmp_path: Path, pack: Callable[[bytes], bytes], request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "source"
    path.write_bytes(pack(CAPTURE))
    small = _outcome(path)
    request.getfixturevalue("all_large")
    assert _outcome(path) == small
    assert small[2] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("all_large")
def test_a_large_source_that_is_known_is_given_up_while_it_is_read(tmp_path: Path) -> None:
    path, settings = tmp_path / "source", settings_in(tmp_path)
    path.write_bytes(CAPTURE)
    assert [s.status for s in ingest(settings, [str(path)]).sources] == ["ingested"]
    before = stored(settings.lake)
    (again,) = ingest(settings, [str(path)]).sources
    assert (again.status, again.records_written) == ("already_ingested", 0)
    assert stored(settings.lake).equals(before)


@pytest.mark.usefixtures("all_large")
def test_a_large_source_that_is_refused_is_named_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"nothing that is known" * 10_000)
    (report,) = ingest(settings_in(tmp_path), [str(path)]).sources
    assert (report.status, report.sha256) == (
        "refused",
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )


@pytest.mark.usefixtures("all_large")
def test_whoever_stops_early_leaves_nothing_running(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(gzip.compress(CAPTURE))
    opened = open_source(str(path))
    opened.stream().read(10)
    assert "ahead" in _threads()
    opened.close()


@pytest.mark.usefixtures("all_large")
def test_a_file_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(CAPTURE)
    opened = open_source(str(path))
    read_source(opened, border())
    path.write_bytes(CAPTURE[:-100])
    with pytest.raises(SourceError, match="changed"):
        opened.finish()
    opened.close()


def test_what_is_made_ahead_comes_in_order_without_none() -> None:
    assert list(ahead(iter([1, None, 2, None, 3]))) == [1, 2, 3]
    assert not _threads()


def test_an_error_ahead_is_raised_behind_what_was_made() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise SourceError("It ends here.")

    made = ahead(items())
    assert next(made) == 1
    with pytest.raises(SourceError, match="ends here"):
        next(made)
    assert not _threads()


def test_a_few_items_are_made_while_another_is_used() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in itertools.count():
            made.append(number)
            yield number

    behind = ahead(items())
    assert next(behind) == 0
    deadline = time.monotonic() + 10
    while len(made) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(made) >= 2
    time.sleep(0.05)
    assert len(made) <= 4  # used, two that wait, and one that waits for its place
    behind.close()
    assert not _threads()


def test_work_without_an_item_can_be_stopped() -> None:
    ended = threading.Event()

    def items() -> Iterator[io.BytesIO | None]:
        try:
            yield io.BytesIO()
            while True:
                time.sleep(0.001)
                yield None
        finally:
            ended.set()

    behind = ahead(items())
    next(behind)
    behind.close()
    assert ended.is_set()
    assert not _threads()
