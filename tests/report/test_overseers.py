"""The overseers' report: figures that add up from both sides, differences that show."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import Page

from telemetry.errors import SettingsError
from telemetry.reasons import DROPS
from telemetry.report import Account, LakeSide, make_account
from telemetry.report.account import PLACES, Unit
from telemetry.report.overseers import facts, render, sections
from telemetry.report.oversight import ARTICLES, OUTLINED, Oversight, read_oversight
from telemetry.report.terms import TERMS
from telemetry.report.words import LANGUAGES, drop

SCHEMA = json.loads(Path(__file__).with_name("overseers.schema.json").read_text())
MADE = datetime(2027, 4, 1, 9)
HOSTILE = "</li><script>alert(1)</script><img src=//evil.example/x>{{ 7*7 }}"


@dataclass
class Source:
    """A source as the lake's file table holds it."""

    sha256: str
    unit: Unit
    read: int
    kept: int
    dropped: dict[str, int]
    records_written: int
    sensor: str = "tokyo"

    def told(self) -> dict[str, Any]:
        """The source as the ledger's `ingest` holds it."""
        return {
            "sha256": self.sha256,
            "format": "pcap",
            "packets_read": self.read if self.unit == "packets" else 0,
            "records_read": self.read if self.unit == "records" else 0,
            "kept": self.kept,
            "dropped": self.dropped,
            "records_written": self.records_written,
        }


@dataclass
class Books:
    """A ledger and its lake, kept side by side as a run does."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)
    scores: int = 0

    def enter(self, kind: str, **told: Any) -> None:
        number = len(self.entries) + 1
        self.entries.append(
            {
                "seq": number,
                "at": f"2026-10-01T00:{number // 60:02d}:{number % 60:02d}.000000Z",
                "kind": kind,
                "facts": {"authority": "ACD-2026/17"} | told,
                "hash": f"{number:064x}",
            }
        )

    def ingest(self, run: str, sources: list[Source], end: str = "commit") -> None:
        """Enters sources; `end` is commit, abandoned, or how a killed run left it."""
        self.enter("ingest", run=run, sensor="tokyo", sources=[s.told() for s in sources])
        if end in ("commit", "abandoned"):
            self.enter(end, run=run, sources=len(sources))
        if end in ("commit", "killed after"):
            self.sources += sources
            for source in sources:
                self.places["quarantined"] += source.records_written

    def move(self, number: int, to: str) -> int:
        moved = min(number, self.places["quarantined"])
        self.places["quarantined"] -= moved
        self.places[to] += moved
        return moved

    def lake(self, **changes: Any) -> LakeSide:
        places = {place: self.places[place] for place in PLACES}
        written = sum(source.records_written for source in self.sources)
        side = LakeSide(self.sources, self.scores, date(2026, 9, 30), {"written": written} | places)
        return dataclasses.replace(side, **changes)

    def account(self, **changes: Any) -> Account:
        return make_account(self.entries, self.lake(**changes))


def books() -> Books:
    """Two runs, an abandoned one between, a purge and an erasure."""
    kept = Books()
    kept.enter("run", run="r1", basis="out_out_measure", homeland_sha256="a" * 64)
    kept.ingest(
        "r1",
        [
            Source("a1", "packets", 1000, 600, {"domestic": 390, "not_ip": 10}, 70),
            Source("a2", "records", 50, 45, {"malformed_row": 5}, 45),
        ],
    )
    kept.ingest("r2", [Source("a3", "packets", 9, 9, {}, 9)], end="abandoned")
    kept.enter("refused", run="r2", sha256=None, reason="broken")
    kept.enter("score", run="r1", threshold=0.6, endpoints=30, listed=4)
    kept.enter("selection", run="r1", rules_sha256="c" * 64, endpoints=4, records=20)
    kept.move(20, "selected")
    kept.move(15, "merged")
    kept.enter("export", run="r1", entries=4)
    lost = {"records": kept.move(3, "purged"), "scores": 2, "seconds": 1.25}
    kept.enter("purge", run="r3", purge="p1", homeland_sha256="b" * 64, **lost)
    kept.enter("run", run="r3", basis="out_out_measure", homeland_sha256="b" * 64)
    gone = kept.move(10, "erased")
    told = {"unselected": gone - 1, "selected": 1, "scores": 8, "seconds": 0.5, "late_s": 3600}
    kept.enter("erasure", run="r3", erasure="e1", **told)
    kept.enter("reidentify", outcome="found")
    kept.enter("reidentify", outcome="no record")
    kept.enter("leaks", leaks=2)
    kept.enter("leakage", leaks=7)
    kept.scores = 20
    return kept


PROCEEDINGS = Oversight.model_validate(
    {
        "period_from": date(2026, 10, 1),
        "article_17": {"requests": 3, "approvals": 2},
        "inspections": ["One inspection, nothing found.", HOSTILE],
        "notices": [],
    }
)


def test_the_figures_are_those_of_the_books() -> None:
    account = books().account()
    assert account.differences == []
    assert (account.entries, account.anchor) == (16, f"16:{16:064x}")
    assert account.traffic["packets"].read == 1000
    assert account.traffic["packets"].dropped == {"domestic": 390, "not_ip": 10}
    assert account.traffic["records"].kept == 45
    assert {name: n for name, n in account.acts.items() if n} == {
        "runs": 2,
        "sources_stored": 2,
        "sources_refused": 1,
        "sources_abandoned": 1,
        "endpoints_scored": 30,
        "endpoints_listed": 4,
        "selections": 1,
        "records_selected": 20,
        "exports": 1,
        "entries_exported": 4,
        "reidentification_requests": 2,
        "reidentifications": 1,
        "leak_searches": 1,
        "leaks_found": 2,
        "leakage_measures": 1,
        "leakage_leaks": 7,
        "purges": 1,
        "records_purged": 3,
        "erasures": 1,
        "unselected_erased": 9,
        "selected_erased": 1,
        "table_changes": 1,
    }
    assert account.seconds == {"purge": 1.25, "erasure": 0.5, "erasure_late": 3600}
    (approval,) = account.approvals
    assert (approval.id, approval.basis, approval.runs) == ("ACD-2026/17", "out_out_measure", 2)


def test_an_empty_ledger_of_an_empty_lake_agrees() -> None:
    account = Books().account(oldest=None)
    assert account.differences == []
    assert (account.entries, account.first, account.oldest) == (0, None, None)
    for language in LANGUAGES:
        assert TERMS["agree"][LANGUAGES.index(language)] in render(
            account, Oversight(), MADE, language
        )


@pytest.mark.parametrize("end", ["killed before", "killed after"])
def test_a_run_that_was_killed_around_its_commit_is_no_difference(end: str) -> None:
    kept = books()
    kept.ingest("r9", [Source("a9", "packets", 5, 4, {"domestic": 1}, 2)], end=end)
    account = kept.account()
    assert account.differences == []
    assert account.acts["sources_stored"] == (3 if end == "killed after" else 2)


def test_a_purge_that_the_ledger_does_not_hold_yet_is_told() -> None:
    kept = books()
    kept.move(4, "purged")
    kept.scores -= 1
    pending = {"kind": "purge", "facts": {"purge": "p2", "records": 4, "scores": 1}}
    assert kept.account().differences
    account = kept.account(pending=[pending])
    assert account.differences == []
    assert (account.acts["not_entered"], account.acts["records_purged"]) == (1, 7)
    kept.enter("purge", run="r4", homeland_sha256="b" * 64, seconds=1.0, **pending["facts"])
    account = kept.account(pending=[pending])
    assert (account.differences, account.acts["not_entered"]) == ([], 0)


SOURCES = st.builds(
    lambda unit, kept, dropped, written: Source(
        "", unit, kept + sum(dropped.values()), kept, dropped, written
    ),
    st.sampled_from(["packets", "records"]),
    st.integers(0, 10**12),
    st.dictionaries(st.sampled_from([r.label for r in DROPS]), st.integers(1, 10**12), max_size=4),
    st.integers(0, 10**9),
)


@given(
    runs=st.lists(
        st.tuples(st.lists(SOURCES, min_size=1, max_size=3), st.sampled_from(
            ["commit", "commit", "abandoned", "killed before", "killed after"])),
        min_size=1,
        max_size=6,
    ),
    data=st.data(),
)  # fmt: skip
def test_whatever_number_is_changed_on_either_side_shows(
    runs: list[tuple[list[Source], str]], data: st.DataObject
) -> None:
    kept = Books()
    for number, (sources, end) in enumerate(runs):
        named = [dataclasses.replace(s, sha256=f"{number}-{n}") for n, s in enumerate(sources)]
        kept.ingest(f"r{number}", named, end)
        kept.enter("score", run=f"r{number}", endpoints=number, listed=0, threshold=0.6)
        kept.scores = number
    assert kept.account().differences == []
    changed = copy.deepcopy(kept)
    if kept.sources:
        source = data.draw(st.sampled_from(changed.sources))
        what = data.draw(st.sampled_from(["read", "kept", "records_written"]))
        setattr(source, what, getattr(source, what) + data.draw(st.integers(1, 9)))
        assert changed.account().differences
    # A source of a run that was killed may be stored or not: its loss cannot show.
    settled = {f"{number}-" for number, (_, end) in enumerate(runs) if end == "commit"}
    if sure := [s for s in kept.sources if s.sha256.startswith(tuple(settled))]:
        lost = copy.deepcopy(kept)
        lost.sources.remove(data.draw(st.sampled_from(sure)))
        assert lost.account().differences
    place = data.draw(st.sampled_from(PLACES))
    kept.places[place] += 1
    assert kept.account().differences
    kept.places[place] -= 1
    assert kept.account(scores=kept.scores + 1).differences


def test_a_difference_is_red_with_both_numbers() -> None:
    kept = books()
    kept.sources[0].kept = 599
    account = kept.account()
    html = render(account, PROCEEDINGS, MADE, "en")
    (row, *_) = re.findall(r'<tr class="bad">.*?</tr>', html)
    cells = Page(row).text.split()
    assert ("600" in cells, "599" in cells, "differs" in cells) == (True, True, True)
    assert TERMS["disagree"][0] in Page(html).text
    assert "tr.bad" in html
    alarms = [line for _, lines in sections(account, PROCEEDINGS, "en") for line in lines]
    assert any(line.alarm and "600" in line.value and "599" in line.value for line in alarms)
    assert not facts(account, PROCEEDINGS, MADE)["agrees"]
    calm = render(books().account(), PROCEEDINGS, MADE, "en")
    assert 'class="bad"' not in calm
    assert TERMS["agree"][0] in Page(calm).text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_loads_nothing_runs_nothing_and_says_its_language(language: Any) -> None:
    html = render(books().account(), PROCEEDINGS, MADE, language)
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "base", "form"}
    assert ("html", {"lang": language}) in page.elements
    policy = [a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a]
    assert policy == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    ]
    assert not [a for _, a in page.elements if set(a) & {"src", "href", "onclick", "style"}]
    assert HOSTILE in page.text
    assert "@media print" in html


def test_one_table_holds_all_words_in_both_languages() -> None:
    japanese = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
    for key, (english, other) in TERMS.items():
        assert english.isascii() and japanese.search(other), key
    for reason in DROPS:
        assert drop(reason.label, "en").isascii()
        assert japanese.search(drop(reason.label, "ja"))
    account = books().account()
    text = Page(render(account, PROCEEDINGS, MADE, "ja")).text
    for word in ("外外通信目的送信措置", "特定外内通信目的送信措置", "選別後通信情報", "再識別化"):
        assert word in text
    said = {TERMS[key][1] for key in [*ARTICLES, *OUTLINED, *account.acts, *account.seconds]}
    assert [word for word in said if word not in text] == []


def test_what_nobody_recorded_is_not_zero() -> None:
    told = facts(books().account(), PROCEEDINGS, MADE)["diet"]
    assert told["approval"]["article_17"] == {"requests": 3, "approvals": 2}
    assert told["approval"]["article_33_19"] == {"requests": None, "approvals": None}
    assert (told["notices"]["number"], told["demands"]["number"]) == (0, None)
    assert told["inspections"]["number"] == 2
    text = Page(render(books().account(), Oversight(), MADE, "en")).text
    assert text.count("not recorded") == 2 * len(ARTICLES) + len(OUTLINED)


def test_the_facts_keep_to_their_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for account in (books().account(), Books().account(oldest=None)):
        for proceedings in (PROCEEDINGS, Oversight()):
            answer = json.loads(json.dumps(facts(account, proceedings, MADE), allow_nan=False))
            jsonschema.validate(answer, SCHEMA)


GOOD = """
period_from = 2026-10-01
period_until = 2027-03-31
inspections = ["One."]
notices = []
[article_17]
requests = 3
approvals = 2
[article_32_19]
requests = 0
approvals = 0
"""


def test_an_oversight_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "oversight.toml"
    path.write_text(GOOD)
    found = read_oversight(path)
    under = found.under("article_17")
    assert under is not None
    assert (under.requests, under.approvals) == (3, 2)
    assert (found.outlines("inspections"), found.outlines("demands")) == (["One."], None)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (GOOD.replace("article_17", "article_18"), "article_18"),
        (GOOD.replace("approvals = 2", "aprovals = 2"), "article_17"),
        (GOOD.replace("requests = 3", "requests = -3"), "article_17.requests"),
        (GOOD.replace("requests = 3", 'requests = "3"'), "article_17.requests"),
        (GOOD.replace('["One."]', "1"), "inspections"),
        (GOOD.replace('["One."]', '[""]'), "inspections"),
        ("requests = ", "not valid TOML"),
        ("\xff", "not valid TOML"),
    ],
)
def test_a_misspelt_oversight_file_is_refused(tmp_path: Path, text: str, hint: str) -> None:
    path = tmp_path / "oversight.toml"
    path.write_text(text, "latin-1")
    with pytest.raises(SettingsError) as caught:
        read_oversight(path)
    sentence = str(caught.value)
    assert hint in sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_a_missing_oversight_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--oversight"):
        read_oversight(tmp_path / "nowhere.toml")
