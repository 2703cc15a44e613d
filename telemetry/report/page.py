"""The page: facts through the template into one file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from telemetry.errors import LakeError
from telemetry.records import ScoredEndpoint
from telemetry.report import drawing, words
from telemetry.report.facts import ReportFacts, SourceFacts, Totals

TOP = 50
"""Endpoints shown with their reasons; the lists hold all."""
MOST_SOURCES = 100
"""Sources shown one by one; the table by format counts all."""


@dataclass(frozen=True, slots=True)
class FormatRow:
    """The sources of one format, added up."""

    format: str
    sources: int
    read: str
    kept: int
    dropped: int
    written: int


@dataclass(frozen=True, slots=True)
class RoleRow:
    """The listed endpoints of one role; width 0 to 100."""

    name: str
    meaning: str
    listed: int
    width: float


def write_report(facts: ReportFacts, path: Path) -> None:
    """Writes the analysts' page: one HTML file that refers to nothing outside itself.

    It is written aside and renamed, with mode 0600; equal facts give equal bytes.

    Args:
        facts: What the page says.
        path: The file; its folder is made if it is missing.

    Raises:
        LakeError: The file cannot be written; an earlier page stays as it was.
    """
    write_page(render(facts), path)


def write_page(text: str, path: Path) -> None:
    """Writes a page aside and renames it, with mode 0600; see `write_report`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
    except OSError as error:
        raise LakeError(
            f"The report cannot be written to {path} ({error.strerror}); "
            "make room or give a path that can be written."
        ) from None


def environment() -> Environment:
    """Returns what pages are made with: everything is escaped, nothing may be missing."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # by name it would be off: the templates do not end in .html
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=words.number, minute=words.minute, drop=words.drop, plural=words.plural
    )
    return made


def render(facts: ReportFacts) -> str:
    """Returns the page as text; see `write_report`."""
    ranked = sorted(facts.endpoints, key=lambda e: (-e.score, e.endpoint))
    listed = sum(e.listed for e in ranked)
    return (
        environment()
        .get_template("analysts.html.j2")
        .render(
            facts=facts,
            summary=_summary(facts, listed),
            funnel=drawing.funnel(facts, listed),
            units=[
                (name, total, drawing.drops(total))
                for name, total in (("packets", facts.packets), ("log records", facts.records))
                if total.read
            ],
            timeline=drawing.timeline(facts.timeline),
            top=ranked[:TOP],
            n_listed=listed,
            role_names={role: name for role, (name, _) in words.ROLES.items()},
            roles=_roles(ranked),
            formats=_formats(facts.sources),
            sources=_sources(facts.sources)[:MOST_SOURCES],
            status=words.STATUS,
        )
    )


def _summary(facts: ReportFacts, listed: int) -> str:
    def kept(total: Totals, word: str) -> str:
        return f"{words.plural(total.read, word)} ({words.share(total.kept, total.read)} kept)"

    pairs = ((facts.packets, "packet"), (facts.records, "log record"))
    read = " and ".join(kept(total, word) for total, word in pairs if total.read)
    old = (
        f" The list leaves out {words.number(facts.left_out)} of these, last seen long before "
        "the newest data."
    )
    return (
        f"{read or 'Nothing'} read, {words.plural(facts.n_endpoints, 'foreign endpoint')} "
        f"scored, {words.number(listed)} listed as attack infrastructure."
        + (old if facts.left_out else "")
    )


def _roles(endpoints: Sequence[ScoredEndpoint]) -> list[RoleRow]:
    counts = Counter(e.role for e in endpoints if e.listed)
    most = max(counts.values(), default=1)
    return [
        RoleRow(name, meaning, counts[role], round(100 * counts[role] / most, 2))
        for role, (name, meaning) in words.ROLES.items()
        if counts[role]
    ]


def _formats(sources: Sequence[SourceFacts]) -> list[FormatRow]:
    rows = []
    for name in sorted({source.format or "" for source in sources}):
        of = [source for source in sources if (source.format or "") == name]
        counts = (
            (sum(s.packets_read for s in of), "packet"),
            (sum(s.records_read for s in of), "record"),
        )
        rows.append(
            FormatRow(
                name or "not recognised",
                len(of),
                ", ".join(words.plural(count, word) for count, word in counts if count) or "0",
                sum(s.kept for s in of),
                sum(s.dropped for s in of),
                sum(s.records_written for s in of),
            )
        )
    return rows


def _sources(sources: Sequence[SourceFacts]) -> list[SourceFacts]:
    return sorted(sources, key=lambda source: (source.sha256 or "~", source.format or ""))


def _replace(path: Path, text: str) -> None:
    # mkstemp makes it readable by its owner only; the same folder keeps the rename atomic.
    handle, name = mkstemp(dir=path.parent, prefix=".aside-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
