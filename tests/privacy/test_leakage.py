"""Leakage and over-drop are reported exactly as planted, and bounded exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from e2e import CAPTURES, call, count, query_rows, sample_run, settings_in
from leak_kit import write_capture, write_tables
from scipy.stats import binom

from telemetry import homeland, pipeline
from telemetry.errors import SettingsError
from telemetry.homeland import DOMESTIC, FOREIGN, SPECIAL, Homeland, borderless, parse_address
from telemetry.privacy.leakage import bound_per_million, per_million, read_labels


@pytest.mark.parametrize("decoder", ["kernel", "dpkt"])
def test_leaks_and_over_drop_are_found_exactly_as_planted(tmp_path: Path, decoder: str) -> None:
    ours, theirs = write_tables(tmp_path, seed=11)
    number = 100_000 if decoder == "kernel" else 3_000
    planted = write_capture(tmp_path / "traffic.pcap", number, seed=11)
    assert planted.leaks and planted.over_drop and planted.domestic_domestic
    answer = call("audit", "leakage", tmp_path / "traffic.pcap", "--against", theirs,
                  "--homeland", ours, "--lake", tmp_path / "lake", "--decoder", decoder,
                  "--json")  # fmt: skip
    assert answer.code == 0
    assert (answer.json["leaks"], answer.json["over_drop"]) == (planted.leaks, planted.over_drop)
    assert answer.json["compared"] == answer.json["read"] == number
    table = answer.json["ours_by_theirs"]
    assert table["kept"]["kept"] == planted.kept_kept
    assert table["domestic"]["domestic"] == planted.domestic_domestic
    assert answer.json["leaks_per_million"] == 1e6 * planted.leaks / number
    assert not (tmp_path / "lake").exists(), "measuring stores nothing"
    assert (
        "leaks per million"
        in call(
            "audit", "leakage", tmp_path / "traffic.pcap", "--against", theirs, "--homeland", ours
        ).words
    )


def test_labels_are_a_second_opinion_on_what_they_name_alone(tmp_path: Path) -> None:
    ours, _ = write_tables(tmp_path, seed=11)
    write_capture(tmp_path / "traffic.pcap", 20_000, seed=11)
    labels = tmp_path / "labels.csv"
    labels.write_text("address,class\n9.0.0.1,domestic\n9.0.0.2,domestic\n")
    answer = call("audit", "leakage", tmp_path / "traffic.pcap", "--against", labels,
                  "--homeland", ours, "--json")  # fmt: skip
    assert answer.code == 0
    assert answer.json["compared"] + answer.json["untold"] == 20_000
    assert answer.json["untold"] > 19_000


@pytest.mark.parametrize("line", ["9.0.0.1", "9.0.0.1,home", "9.0.0.256,domestic",
                                  "9.0.0.9,foreign"])  # fmt: skip
def test_wrong_labels_are_refused_without_repeating_an_address(
    tmp_path: Path, line: str, japan: Homeland
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(f"9.0.0.9,domestic\n{line}\n")
    with pytest.raises(SettingsError, match="Line 2") as caught:
        read_labels(labels, japan)
    assert "9.0.0" not in str(caught.value)


def test_stored_records_are_judged_again(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    pipeline.ingest(settings, [str(CAPTURES / "border-b.pcapng")])
    lake = ["--lake", settings.lake, "--key", settings.key_path]
    same = call("audit", "leakage", "--against", homeland.SHIPPED, *lake, "--json")
    assert same.code == 0
    assert (same.json["leaks"], same.json["compared"]) == (
        0,
        count(settings.lake, "stored_records"),
    )
    (endpoint,) = query_rows(
        settings.lake, "SELECT min(endpoint_ip) AS a FROM stored_records WHERE peer_ip IS NULL"
    )
    labels = tmp_path / "labels.csv"
    labels.write_text(f"{endpoint['a']},domestic\n")
    found = call("audit", "leakage", "--against", labels, *lake, "--json")
    assert found.json["leaks"] > 0
    assert found.json["over_drop"] is None, "what was dropped was never stored"
    entries = [
        json.loads(line) for line in (settings.lake / "ledger.jsonl").read_text().splitlines()
    ]
    assert [e["facts"]["leaks"] for e in entries if e["kind"] == "leakage"] == [
        0,
        found.json["leaks"],
    ]


def test_every_sample_is_counted_once_with_home_japan() -> None:
    run = sample_run()
    answer = call("audit", "leakage", CAPTURES, "--against", homeland.SHIPPED, "--json")
    assert answer.code == 0
    read = sum(s.packets_read + s.records_read for s in run.report.ingest.sources)
    kept = sum(s.kept for s in run.report.ingest.sources)
    assert answer.json["read"] == read
    assert answer.json["compared"] + sum(answer.json["not_compared"].values()) == read
    assert (answer.json["leaks"], answer.json["over_drop"]) == (0, 0)
    assert answer.json["ours_by_theirs"]["kept"]["kept"] == kept


@pytest.fixture(scope="module")
def japan() -> Homeland:
    return homeland.load("JP")


def test_without_a_border_all_public_addresses_and_home_prefixes_are_foreign() -> None:
    bare = borderless(homeland.load("JP", ["10.0.0.0/8"]))
    texts = {
        "133.11.0.1": FOREIGN, "8.8.8.8": FOREIGN, "102.224.0.1": FOREIGN, "10.1.1.1": FOREIGN,
        "192.168.1.1": SPECIAL, "2001:200::1": FOREIGN, "fe80::1": SPECIAL,
    }  # fmt: skip
    hi, lo = np.array([parse_address(text) for text in texts], np.uint64).T.copy()
    assert bare.classify(hi, lo).tolist() == list(texts.values())
    assert homeland.load("JP", ["10.0.0.0/8"]).class_of_text("10.1.1.1") == DOMESTIC


@pytest.mark.parametrize(("found", "of"), [(0, 1), (0, 1000), (3, 1000), (999, 1000), (40, 10**7)])
def test_the_bound_is_that_of_clopper_and_pearson(found: int, of: int) -> None:
    """At the bound, so few or fewer are found with probability 1 - confidence, no more, no less."""
    bound = bound_per_million(found, of, 0.95)
    assert bound is not None
    assert binom.cdf(found, of, bound / 1e6) == pytest.approx(0.05)
    rate = per_million(found, of)
    assert rate is not None
    assert rate < bound


def test_the_bound_of_everything_and_of_nothing() -> None:
    assert bound_per_million(5, 5, 0.95) == 1e6
    assert bound_per_million(0, 0, 0.95) is None
    assert per_million(0, 0) is None
