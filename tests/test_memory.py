"""How memory is shared out."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e import settings_in

from telemetry import memory
from telemetry.errors import SettingsError
from telemetry.lake import store
from telemetry.memory import DEFAULT, LEAST, budget
from telemetry.pipeline import ingest
from telemetry.samples import generate_packets
from telemetry.settings import load


@pytest.mark.parametrize("amount", [LEAST, DEFAULT, "2500MB", "64GB", "999999GB"])
def test_the_parts_stay_within_the_whole(amount: str) -> None:
    total = int(amount[:-2]) * {"MB": 10**6, "GB": 10**9}[amount[-2:]]
    flows, segments, engine, records = budget(amount)
    assert flows & (flows - 1) == 0
    assert 1 << 16 <= flows <= 1 << 21
    assert flows * 224 + segments * 1100 <= total - 530 * 10**6
    assert int(engine.removesuffix("MB")) * 10**6 <= total // 2
    assert records * 800 < total


@pytest.mark.parametrize("amount", ["1 GB", "1gb", "0GB", "-1GB", "1e9", "", "1.5GB", "1GiB"])
def test_what_is_no_amount_of_memory_is_refused(amount: str) -> None:
    with pytest.raises(SettingsError, match="whole number of MB or GB"):
        load(memory=amount)


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(SettingsError, match="give 800MB or more"):
        load(memory="799MB")


def test_a_lake_does_not_show_how_much_memory_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = tmp_path / "capture.pcap"
    generate_packets(capture, packets=60_000, flows=20_000)

    def files(name: str) -> set[str]:
        settings = settings_in(tmp_path / name)
        ingest(settings, [str(capture)])
        assert not any((settings.lake / "tmp").iterdir())
        found = settings.lake.rglob("*.parquet")
        return {path.relative_to(settings.lake).as_posix() for path in found}

    roomy = files("roomy")
    # Some hundred flows at once, some hundred segments in memory, and far more spills of a
    # partition than are merged at once.
    monkeypatch.setattr(memory, "_FLOW", 200_000)
    monkeypatch.setattr(memory, "_SEGMENT", 700_000)
    monkeypatch.setattr(store, "_FAN_IN", 3)
    assert budget(DEFAULT).flows < 1000
    assert budget(DEFAULT).segments < 1000
    assert files("narrow") == roomy  # a file is named after what is in it
