"""Geometry of the drawings: numbers in, coordinates out. The template holds the marks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from telemetry.report.facts import Hour, ReportFacts, Totals
from telemetry.report.words import drop, minute, number, plural, share

HOUR_STEPS = (1, 2, 3, 6, 12, 24, 48, 168, 336, 720, 2160, 8760)
"""Widths of a bar in hours that a reader can name: up to a day, a week, a month, a year."""
MAX_BARS = 170
"""A week of hours still shows hour by hour."""
EPOCH = datetime(1970, 1, 5)
"""A Monday, so that bars of whole weeks begin on Mondays."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the funnel.

    Attributes:
        name: What is counted.
        numbers: The counts in words, one for each unit.
        note: What happened on the way here.
        width: Width of the bar, 0 to 100.
        below: Width of the next bar, which the connector narrows to.
    """

    name: str
    numbers: list[str]
    note: str
    width: float
    below: float | None


@dataclass(frozen=True, slots=True)
class Drop:
    """One reason for not keeping, with its share of what was read; width 0 to 100."""

    name: str
    number: str
    share: str
    width: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the timeline, in the units of the drawing."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One row of the timeline with its own scale.

    Attributes:
        name: What its bars count.
        kind: CSS class of the bars.
        top: Upper edge of the panel.
        height: Height of the panel.
        bars: The bars, those of height zero left out.
        ticks: Marks of the scale: position and text.
    """

    name: str
    kind: str
    top: float
    height: float
    bars: list[Bar]
    ticks: list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The drawing of records over time."""

    width: float
    height: float
    left: float
    right: float
    step: str
    panels: list[Panel]
    days: list[tuple[float, str]]


def funnel(facts: ReportFacts, listed: int) -> list[Stage]:
    """Returns the steps from what was read to what is listed.

    Widths follow the logarithm of the count: on a straight scale a list of 30 out of a
    billion packets could not be seen.
    """
    units = [(facts.packets, "packet"), (facts.records, "log record")]
    used = [(total, word) for total, word in units if total.read] or units[:1]
    lost = [plural(t.read - t.kept, word) for t, word in used if t.read > t.kept]
    dropped = f"{' and '.join(lost)} dropped before anything was written" if lost else ""
    steps = [
        ("Read", [(t.read, w) for t, w in used], ""),
        ("Kept", [(t.kept, w) for t, w in used], dropped or "nothing dropped"),
        ("In the lake", [(facts.n_records, "record")], "put together to two-way records"),
        ("Scored", [(facts.n_endpoints, "endpoint")], "grouped by foreign address"),
        ("Listed", [(listed, "endpoint")], "over the threshold"),
    ]
    sums = [sum(count for count, _ in counts) for _, counts, _ in steps]
    widths = _log_widths(sums)
    return [
        Stage(name, [plural(count, word) for count, word in counts], note, width, below)
        for (name, counts, note), width, below in zip(
            steps, widths, [*widths[1:], None], strict=True
        )
    ]


def _log_widths(counts: Sequence[int]) -> list[float]:
    top = math.log1p(max(counts)) or 1.0
    return [round(max(100 * math.log1p(count) / top, 0.8), 2) for count in counts]


def drops(total: Totals) -> list[Drop]:
    """Returns the reasons for not keeping, most frequent first."""
    order = sorted(total.dropped.items(), key=lambda item: (-item[1], item[0]))
    return [
        Drop(drop(label), number(count), share(count, total.read), _straight(count, total.read))
        for label, count in order
        if count
    ]


def _straight(part: int, whole: int) -> float:
    return round(max(100 * part / whole, 0.4), 2) if whole else 0.0


def timeline(hours: Sequence[Hour]) -> Timeline | None:
    """Returns the drawing of records over time, or None when there are none."""
    if not any(hour.records for hour in hours):
        return None
    first, last = min(h.start for h in hours), max(h.start for h in hours)
    span = (last - first) // timedelta(hours=1) + 1
    step = next((s for s in HOUR_STEPS if span <= MAX_BARS * s), math.ceil(span / MAX_BARS))
    index = _binning(step)
    start, bars = index(first), index(last) - index(first) + 1
    other, listed = [0] * bars, [0] * bars
    for hour in hours:
        other[index(hour.start) - start] += hour.records - hour.listed
        listed[index(hour.start) - start] += hour.listed
    left, right, width = 64.0, 8.0, 960.0
    slot = (width - left - right) / bars
    names = [minute(EPOCH + timedelta(hours=step * (start + n))) for n in range(bars)]

    def panel(name: str, kind: str, top: float, height: float, counts: list[int]) -> Panel:
        peak = max(counts)
        scale = nice_ceiling(peak)
        drawn = [
            _bar(
                left + n * slot,
                slot,
                top,
                height,
                count / scale,
                f"{names[n]} UTC: " + plural(count, "record"),
            )
            for n, count in enumerate(counts)
            if count
        ]
        ticks = [(top, number(scale)), (top + height, "0")] if peak else [(top + height, "0")]
        return Panel(name, kind, top, height, drawn, ticks)

    return Timeline(
        width=width,
        height=300.0,
        left=left,
        right=right,
        step=_step_name(step),
        panels=[
            panel("Endpoints not listed", "plain", 28.0, 118.0, other),
            panel("Listed endpoints", "listed", 184.0, 74.0, listed),
        ],
        days=_dates(names, left, slot),
    )


def _binning(step: int) -> Callable[[datetime], int]:
    return lambda moment: (moment - EPOCH) // timedelta(hours=step)


def _bar(x: float, slot: float, top: float, height: float, part: float, title: str) -> Bar:
    tall = max(part * height, 1.5)  # one record must still show
    gap = min(1.0, slot * 0.2)
    thick = min(slot - gap, 48.0)
    return Bar(
        round(x + (slot - thick) / 2, 2),
        round(top + height - tall, 2),
        round(thick, 2),
        round(tall, 2),
        title,
    )


def nice_ceiling(value: int) -> int:
    """Returns the least round number, such as 6, 80 or 2,000, that is not below the value."""
    power = int(10 ** (len(str(value)) - 1))
    return next(m * power for m in (1, 2, 3, 4, 5, 6, 8, 10) if m * power >= value)


def _dates(names: Sequence[str], left: float, slot: float) -> list[tuple[float, str]]:
    """Returns at most six dates under the axis, spread evenly."""
    every = max(math.ceil(len(names) / 6), 1)
    return [
        (round(left + (n + 0.5) * slot, 2), names[n]) for n in range(every // 2, len(names), every)
    ]


def _step_name(hours: int) -> str:
    if hours == 1:
        return "hour"
    if hours < 24:
        return f"{hours} hours"
    days = hours // 24
    return "day" if days == 1 else "week" if days == 7 else f"{days} days"
