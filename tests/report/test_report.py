"""The analysts' page: its numbers, its silence towards the outside, hostile text."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from telemetry.errors import LakeError
from telemetry.reasons import DROPS
from telemetry.records import Reason, Role, ScoredEndpoint
from telemetry.report import Hour, ReportFacts, SourceFacts, Totals, write_report
from telemetry.report.drawing import HOUR_STEPS, MAX_BARS, funnel, nice_ceiling, timeline
from telemetry.report.words import drop, share

START = datetime(2026, 3, 1)
HOSTILE = "</p><script>alert(1)</script><img src=//evil.example/x onerror='x'>\"{{ 7*7 }}"


def scored(number: int, role: Role = "c2", text: str = "it calls every 60.1 s") -> ScoredEndpoint:
    score = 1 - number / 100
    return ScoredEndpoint(
        endpoint=f"198.51.100.{number}",
        score=score,
        role=role,
        listed=score >= 0.6,
        confidence=100 - number,
        reasons=[Reason("rhythm", text, 0.4375)],
        first_seen=START,
        last_seen=START + timedelta(hours=30),
        records=1000 + number,
    )


FACTS = ReportFacts(
    run="run-0001",
    authority="sample-1",
    made_at=datetime(2026, 3, 3, 2, 15),
    period=(START, START + timedelta(hours=31)),
    sources=[
        SourceFacts("ab" * 32, "pcap", "ingested", 5_000_000, 0, 1_860_000, 3_140_000, 190_000),
        SourceFacts("cd" * 32, "zeek-conn", "ingested", 0, 120_000, 44_000, 76_000, 20_300),
        SourceFacts(None, None, "refused", 0, 0, 0, 0, 0),
    ],
    packets=Totals(5_000_000, 1_860_000, {"domestic": 3_139_988, "unallocated": 12}),
    records=Totals(120_000, 44_000, {"domestic": 75_990, "malformed_row": 10}),
    n_records=210_300,
    n_endpoints=14_220,
    endpoints=[scored(n) for n in range(1, 61)],
    timeline=[Hour(START + timedelta(hours=h), 100 + h, h % 3) for h in range(31)],
)
EMPTY = ReportFacts(
    "run-0", "sample-1", START, None, [], Totals(), Totals(), 0, 0, endpoints=[], timeline=[]
)


class Page(HTMLParser):
    """Collects what a browser would see: elements, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def page(facts: ReportFacts, folder: Path) -> str:
    path = folder / "report.html"
    write_report(facts, path)
    return path.read_text("utf-8")


def with_reason(text: str) -> ReportFacts:
    return dataclasses.replace(FACTS, endpoints=[scored(1, text=text)])


def test_the_summary_says_whom_the_list_leaves_out(tmp_path: Path) -> None:
    def summary(left_out: int) -> str:
        write_report(dataclasses.replace(FACTS, left_out=left_out), tmp_path / "report.html")
        return Page((tmp_path / "report.html").read_text(encoding="utf-8")).text

    assert "The list leaves out 7 of these" in summary(7)
    assert "leaves out" not in summary(0)


def test_funnel_numbers(tmp_path: Path) -> None:
    text = Page(page(FACTS, tmp_path)).text
    for words in (
        "5,000,000 packets",
        "120,000 log records",
        "3,140,000 packets and 76,000 log records dropped",
        "1,860,000 packets",
        "44,000 log records",
        "210,300 records",
        "14,220 endpoints",
        "40 endpoints",
        "5,000,000 read = 1,860,000 kept + 3,140,000 dropped",
        "120,000 read = 44,000 kept + 76,000 dropped",
    ):
        assert words in text


def test_funnel_narrows() -> None:
    widths = [stage.width for stage in funnel(FACTS, 40)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == 100
    assert widths[-1] > 1


def test_account_that_does_not_balance_is_told(tmp_path: Path) -> None:
    wrong = dataclasses.replace(FACTS, packets=Totals(10, 4, {"domestic": 5}))
    text = Page(page(wrong, tmp_path)).text
    assert "does not balance: 10 read, 4 kept, 5 dropped" in text
    assert "does not balance" not in Page(page(FACTS, tmp_path)).text


def test_header_sources_and_verification(tmp_path: Path) -> None:
    html = page(FACTS, tmp_path)
    text = Page(html).text
    for words in (
        "run-0001",
        "sample-1",
        "2026-03-01 00:00 to 2026-03-02 07:00",
        "2026-03-03 02:15",
    ):
        assert words in text
    for words in ("abababababab", "zeek-conn", "not recognised", "sekisho audit verify"):
        assert words in text
    assert "ab" * 7 not in html


def test_top_is_the_highest_fifty(tmp_path: Path) -> None:
    shuffled = dataclasses.replace(FACTS, endpoints=FACTS.endpoints[::-1])
    text = Page(page(shuffled, tmp_path)).text
    shown = re.findall(r"198\.51\.100\.\d+", text)
    assert shown == [f"198.51.100.{n}" for n in range(1, 51)]
    assert text.count("below the threshold") - 1 == 10
    assert "0.44 it calls every 60.1 s" in text
    assert "99 of 100" in text


def test_equal_facts_give_equal_bytes(tmp_path: Path) -> None:
    assert page(FACTS, tmp_path) == page(FACTS, tmp_path)


@pytest.mark.parametrize("place", ["reason", "run", "authority", "format"])
def test_hostile_text_stays_text(place: str, tmp_path: Path) -> None:
    facts = {
        "reason": with_reason(HOSTILE),
        "run": dataclasses.replace(FACTS, run=HOSTILE),
        "authority": dataclasses.replace(FACTS, authority=HOSTILE),
        "format": dataclasses.replace(
            FACTS, sources=[dataclasses.replace(FACTS.sources[0], format=HOSTILE)]
        ),
    }[place]
    hostile = Page(page(facts, tmp_path))
    tags = {tag for tag, _ in hostile.elements}
    assert HOSTILE in hostile.text
    assert not tags & {"script", "img"}
    assert not any(
        name.startswith("on") for _, attributes in hostile.elements for name in attributes
    )


def test_hostile_reason_adds_no_element(tmp_path: Path) -> None:
    hostile = Page(page(with_reason(HOSTILE), tmp_path))
    assert hostile.elements == Page(page(with_reason("calm"), tmp_path)).elements


@pytest.mark.parametrize("facts", [FACTS, EMPTY], ids=["full", "empty"])
def test_nothing_from_outside(facts: ReportFacts, tmp_path: Path) -> None:
    html = page(facts, tmp_path)
    elements = Page(html).elements
    assert not {tag for tag, _ in elements} & {"script", "link", "iframe", "object", "base", "form"}
    assert not {name for _, attributes in elements for name in attributes} & {"src", "href"}
    assert not re.search(r"https?:|//|url\(|@import", html)
    policy = next(a["content"] for t, a in elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def test_drawings_and_tables_can_be_read_aloud(tmp_path: Path) -> None:
    html = page(FACTS, tmp_path)
    for drawing in re.findall(r"<svg.*?</svg>", html, re.S):
        assert "<title" in drawing or 'aria-hidden="true"' in drawing.split(">")[0]
    elements = Page(html).elements
    assert all("scope" in attributes for tag, attributes in elements if tag == "th")
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_empty_lake_is_said_in_words(tmp_path: Path) -> None:
    text = Page(page(EMPTY, tmp_path)).text
    assert "No foreign endpoint was seen: the list of this run is empty." in text
    assert "The lake holds no records." in text
    assert "No source was read." in text


def test_nothing_listed_is_said_in_words(tmp_path: Path) -> None:
    none = dataclasses.replace(FACTS, endpoints=[scored(55)])
    assert "No endpoint reached the threshold" in Page(page(none, tmp_path)).text


@pytest.mark.parametrize("hours", [1, 24, 170, 171, 24 * 40, 24 * 365 * 14, 24 * 365 * 7900])
def test_timeline_keeps_every_record(hours: int) -> None:
    every = [Hour(START + timedelta(hours=h), 10, 4) for h in {0, hours // 3, hours - 1}]
    drawn = timeline(every)
    assert drawn is not None
    for panel, each in zip(drawn.panels, (6, 4), strict=True):
        titles = " ".join(bar.title for bar in panel.bars)
        assert sum(map(int, re.findall(r": (\d+) rec", titles))) == each * len(every)
        assert len(panel.bars) <= MAX_BARS + 1
        for bar in panel.bars:
            assert drawn.left <= bar.x <= bar.x + bar.width <= drawn.width - drawn.right + 0.1
            assert panel.top - 0.1 <= bar.y <= bar.y + bar.height <= panel.top + panel.height + 0.1


def test_timeline_step_grows_with_the_period() -> None:
    days = [Hour(START + timedelta(days=d), 1, 0) for d in range(60)]
    drawn = timeline(days)
    assert drawn is not None
    assert drawn.step == "12 hours"
    assert 12 in HOUR_STEPS


def test_words() -> None:
    assert [share(*pair) for pair in ((0, 10), (1, 10_000), (9_999, 10_000), (10, 10), (0, 0))] == [
        "0 %",
        "< 0.1 %",
        "> 99.9 %",
        "100 %",
        "none",
    ]
    assert all(drop(reason.label) != reason.label.replace("_", " ") for reason in DROPS)
    assert drop("some_new_reason") == "some new reason"
    assert [nice_ceiling(n) for n in (0, 1, 7, 10, 11, 5400)] == [1, 1, 8, 10, 20, 6000]


def test_file_is_private_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(FACTS, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(LakeError, match="cannot be written"):
        write_report(FACTS, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_chromium_draws_it(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    page(FACTS, tmp_path)
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-sync",
        "--no-first-run",
        "--window-size=500,900",
    ]
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [
            chromium,
            *options,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={picture}",
            "--enable-logging=stderr",
            (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert picture.stat().st_size > 20_000  # a blank page is far smaller
    assert "Content Security Policy" not in done.stderr
