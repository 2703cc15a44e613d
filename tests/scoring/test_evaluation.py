"""What scores are worth: labels are read strictly, figures counted by hand come out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from e2e import CAPTURES, SAMPLES, call
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.errors import SettingsError
from telemetry.records import Role, ScoredEndpoint
from telemetry.samples.poorer import VIEWS
from telemetry.scoring.evaluation import (
    DataSet,
    Label,
    Trial,
    by_threshold,
    compare_beacons,
    evaluate,
    read_labels,
    united,
    upper_bound,
)

HEADER = "dataset,home_prefixes,foreign_ip,role,confidence,file\n"
WHEN = datetime(2026, 4, 1)


def scored(
    address: str, score: float, role: Role, listed: bool, records: int = 9
) -> ScoredEndpoint:
    return ScoredEndpoint(address, score, role, listed, 50, [], WHEN, WHEN, records)


RESULTS = {
    "one": [
        scored("198.51.100.1", 0.9, "c2", True),
        scored("198.51.100.2", 0.7, "scanner", True, 3),
        scored("198.51.100.3", 0.19, "unknown", False),
        scored("198.51.100.4", 0.8, "c2", True),
        scored("2001:db8::1", 0.1, "unknown", False, 1),
    ],
    "two": [scored("203.0.113.1", 0.7, "reflector", True, 30)],
}
LABELS = [
    Label("one", "198.51.100.1", "c2", False),
    Label("one", "198.51.100.2", "c2", False),
    Label("one", "198.51.100.9", "c2", False),
    Label("one", "198.51.100.3", "benign", False),
    Label("one", "2001:db8::1", "benign", False),
    Label("one", "198.51.100.4", "scanner", True),
    Label("two", "203.0.113.1", "ddos", False),
    Label("elsewhere", "203.0.113.7", "ddos", False),
]


def test_figures_counted_by_hand() -> None:
    found = evaluate(RESULTS, LABELS)
    c2 = found["roles"]["c2"]
    assert (c2["positives"], c2["found"], c2["right_role"]) == (3, 2, 1)
    assert c2["recall"] == c2["mean_recall_of_sets"] == 0.6667
    assert c2["found_by_records"] == {"2-4": [1, 1], "5-19": [1, 1]}
    assert found["roles"]["ddos"]["right_role"] == 1, "a reflector is a source of DDoS"
    assert (found["harmless"], found["false_positives"], found["per_10000"]) == (2, 0, 0.0)
    assert [one["listed_unlabelled"] for one in found["sets"]] == [1, 0]
    # Two of two were harmless: at most 1 - sqrt(0.05) of all are listed.
    bound = 1 - 0.05**0.5
    assert found["per_10000_at_most"] == round(1e4 * bound, 1)
    least = 1e-3 * 0.6667 / (1e-3 * 0.6667 + 0.999 * bound)
    assert found["precision"]["c2"]["0.001"] == round(least, 4)
    # Both labelled harmless ones lie in the lowest fifth, the bad ones in the two highest.
    assert [one["share_bad"] for one in found["calibration"]] == [0.0, 1.0, 1.0]
    told = {one["threshold"]: one["found"] for one in found["thresholds"]}
    assert told[0.7] == {"c2": 2, "ddos": 1}
    assert told[0.8] == {"c2": 1, "ddos": 0}
    assert {one["false_positives"] for one in found["thresholds"]} == {0}
    assert by_threshold(found)[-1]["c2"] == "1 of 3"


def test_a_role_without_harmless_ones_beside_it_has_no_average_precision() -> None:
    found = evaluate(RESULTS, LABELS)
    assert found["roles"]["ddos"]["average_precision"] is None
    # The third is found behind both harmless ones, where it stands with score 0.
    assert found["roles"]["c2"]["average_precision"] == round((1 + 1 + 3 / 5) / 3, 4)


def test_novelty_is_judged_as_a_rank_of_its_own() -> None:
    found = [
        replace(one, novelty=novelty)
        for one, novelty in zip(RESULTS["one"], (0.2, 0.9, 0.4, None, 0.1), strict=True)
    ]
    c2 = evaluate({"one": found}, LABELS)["roles"]["c2"]
    # Second, harmless, first, harmless, the one that was not seen.
    assert c2["average_precision_of_novelty"] == round((1 + 2 / 3 + 3 / 5) / 3, 4)


def test_nothing_to_compare_is_no_error() -> None:
    found = evaluate({"one": []}, [])
    assert (found["roles"], found["per_10000"]) == ({}, None)
    assert found["per_10000_at_most"] == 10_000.0


@given(st.integers(1, 5000))
def test_the_bound_of_nothing_found_is_the_root_of_one_in_twenty(of: int) -> None:
    assert upper_bound(0, of) == pytest.approx(1 - 0.05 ** (1 / of))


@settings(deadline=None)  # SciPy is loaded at the first call
@given(st.integers(0, 200), st.integers(1, 200))
def test_the_bound_lies_above_the_rate_and_falls_with_more_looked_at(found: int, more: int) -> None:
    assert found / (found + more) < upper_bound(found, found + more) < 1
    assert upper_bound(found, found + more + 1) < upper_bound(found, found + more)
    assert upper_bound(found, found) == 1


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=3, max_size=3))
def test_who_has_no_label_counts_nowhere_but_among_the_unlabelled(listed: Sequence[bool]) -> None:
    more = [
        scored(f"192.0.2.{number}", 0.5, "c2", is_listed) for number, is_listed in enumerate(listed)
    ]
    with_them = evaluate({**RESULTS, "two": [*RESULTS["two"], *more]}, LABELS)
    without = evaluate(RESULTS, LABELS)
    assert with_them["sets"][1].pop("listed_unlabelled") == sum(listed)
    assert with_them["sets"][1].pop("endpoints") == 4
    for name in ("listed_unlabelled", "endpoints"):
        without["sets"][1].pop(name)
    assert with_them == without


def test_labels_are_read_in_any_spelling_of_an_address() -> None:
    table = (
        "one,192.0.2.0/24;2001:db8:1::/48,::ffff:198.51.100.1,malware-download,strict,a.pcap\n"
        "one,192.0.2.0/24,2001:DB8:0::1,benign,inferred,b.pcap\n"
    )
    sets, labels = read_labels((HEADER + table).encode())
    assert sets == [DataSet("one", ("192.0.2.0/24", "2001:db8:1::/48"), ("a.pcap", "b.pcap"))]
    assert labels == [
        Label("one", "198.51.100.1", "malware_download", False),
        Label("one", "2001:db8::1", "benign", True),
    ]
    again = DataSet("one", ("192.0.2.0/25",), ("a.pcap",))
    assert united([*sets, again]) == [
        DataSet("one", (*sets[0].home, "192.0.2.0/25"), ("a.pcap", "b.pcap"))
    ]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("", "lack the columns"),
        ("dataset,foreign_ip\n", "lack the columns home_prefixes"),
        (HEADER.replace("file", "file,who"), "no label has"),
        (HEADER + "../up,::/0,192.0.2.1,c2,strict,a.pcap\n", "no name of a folder"),
        (HEADER + "one,::/0,host.example,c2,strict,a.pcap\n", "no table of addresses"),
        (HEADER + "one,::/0\n", "no table of addresses"),
        ("\xff", "lack the columns"),
    ],
)
def test_labels_that_make_no_sense_are_refused(table: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        read_labels(table.encode())
    with pytest.raises(SettingsError):
        read_labels(b"\xff" + table.encode())


def _corpus(folder: Path) -> Path:
    """A corpus of one sample capture."""
    (folder / "captures").mkdir(parents=True)
    shutil.copy(CAPTURES / "conn.log", folder / "captures")
    header, *rows = (SAMPLES / "labels.csv").read_text().splitlines()
    rows = [row for row in rows if row.startswith("conn.log,")]
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_the_command_reads_scores_and_compares(tmp_path: Path) -> None:
    corpus, kept = _corpus(tmp_path / "corpus"), tmp_path / "lakes"
    found = call("model", "evaluate", "--corpus", corpus, "--keep", kept, "--json")
    assert (found.code, found.json["unread"]) == (0, [])
    assert {role: facts["found"] for role, facts in found.json["roles"].items()} == {
        "c2": 1,
        "scanner": 1,
    }
    assert (found.json["harmless"], found.json["false_positives"]) == (43, 0)
    again = call("model", "evaluate", "--corpus", corpus, "--keep", kept, "--json")
    assert again.json == found.json, "lakes that stay are not read again"
    shown = call("model", "evaluate", "--corpus", corpus, "--keep", kept)
    assert "False positives 0 of 43 harmless: 0.0 per 10,000" in shown.words
    assert "At other thresholds:" in shown.words


def test_the_card_and_the_poorer_views_tell_the_same_of_what_is_read(tmp_path: Path) -> None:
    corpus, card = _corpus(tmp_path / "corpus"), tmp_path / "CARD.md"
    found = call(
        "model", "evaluate", "--corpus", corpus, "--robustness", "--card", card, "--json"
    ).json
    views = {view.pop("name"): view for view in found["views"]}
    assert list(views) == list(VIEWS)
    same = {"c2": "1 of 1", "scanner": "1 of 1", "false_positives": "0 of 43"}
    assert views["as read"] == same
    assert views["one packet in 1,000"]["c2"] == "0 of 0"
    field = {method.pop("name"): method for method in found["field"]}
    assert field["NEMEA's thresholds"] == {**same, "c2": "0 of 1"}
    assert field["RITA's formula"]["scanner"] == "0 of 1"
    text = card.read_text()
    for words in (
        "| c2 | 1 of 1 | 1.0 |",
        "| as read | 1 of 1 | 1 of 1 | 0 of 43 |",
        "0.0 in 10,000",
    ):
        assert words in text, words
    full = call("model", "evaluate", "--corpus", corpus, "--card", tmp_path / "no" / "CARD.md")
    assert (full.code, "cannot be written; name a file" in full.words) == (2, True)


@pytest.mark.parametrize("name", ["host-133.11.0.1", "10-3-11-101.pcap", "at-192.168.7.9-x"])
def test_a_data_set_named_by_an_address_at_home_is_refused(tmp_path: Path, name: str) -> None:
    corpus, card = _corpus(tmp_path / "corpus"), tmp_path / "CARD.md"
    table = (corpus / "labels.csv").read_text()
    (corpus / "labels.csv").write_text(table.replace("\nconn.log,", f"\n{name},"))
    answer = call(
        "model", "evaluate", "--corpus", corpus, "--keep", tmp_path / "kept", "--card", card
    )
    assert (answer.code, answer.out) == (2, "")
    assert name not in answer.err
    assert not card.exists()
    assert not (tmp_path / "kept").exists()


def test_a_corpus_that_is_none_is_refused(tmp_path: Path) -> None:
    nowhere = call("model", "evaluate", "--corpus", tmp_path)
    assert (nowhere.code, "cannot be read: no such file" in nowhere.words) == (2, True)
    corpus = _corpus(tmp_path / "corpus")
    (corpus / "captures" / "conn.log").unlink()
    lacking = call("model", "evaluate", "--corpus", corpus)
    assert (lacking.code, "names a file that the corpus lacks" in lacking.words) == (2, True)


def test_what_cannot_be_read_is_named_and_counts_as_not_found(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "corpus")
    (corpus / "captures" / "conn.log").write_bytes(b"no capture at all")
    found = call("model", "evaluate", "--corpus", corpus, "--json").json
    assert found["unread"] == ["conn.log"]
    assert found["roles"]["c2"]["found"] == 0
    assert found["roles"]["c2"]["positives"] == 1


def test_beacons_are_counted_above_what_harmless_software_reaches() -> None:
    harmless = [Trial("clock", 1, 0, 0, n / 30_000, n / 15_000) for n in range(10_000)]
    harmless += [Trial("mail", 1, 0, 0, 0.9, 0.1)]
    beacons = [
        Trial("beacon", 60, 0.1, 0, 0.95, 0.3),
        Trial("beacon", 60, 0.4, 0, 0.5, 0.9),
        Trial("beacon", 300, 0.4, 0, 0.1, 0.9),
    ]
    found = compare_beacons([*harmless, *beacons], 0.6)
    assert found["harmless"] == 10_001
    assert found["wrongly_listed"] == {"clock": 0, "mail": 1}
    # One in 10,001 may lie above: the second highest of each is where finding begins.
    assert [row["per_10000"] for row in found["false_positives"]] == [1, 10, 100, 1000]
    assert [row["recall"] for row in found["false_positives"]] == [0.667] * 4
    assert found["all"] == {"beacons": 3, "listed": 1, "recall": 0.667, "rita": 0.667}
    assert found["interval"] == [
        {"interval": 60, "beacons": 2, "listed": 1, "recall": 1.0, "rita": 0.5},
        {"interval": 300, "beacons": 1, "listed": 0, "recall": 0.0, "rita": 1.0},
    ]


def test_four_numbers_that_are_no_address_may_name_a_data_set(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "corpus")
    table = (corpus / "labels.csv").read_text()
    (corpus / "labels.csv").write_text(table.replace("\nconn.log,", "\nrelease-999.0.0.1,"))
    assert call("model", "evaluate", "--corpus", corpus, "--json").code == 0
