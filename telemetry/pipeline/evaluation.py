"""What the scores are worth: data sets with labels are read, scored and compared."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from telemetry.errors import PrivacyError, SettingsError
from telemetry.pipeline.doors import Progress, load_homeland
from telemetry.pipeline.intake import ingest
from telemetry.pipeline.results import read_scores, score
from telemetry.roles import needs
from telemetry.settings import Settings

if TYPE_CHECKING:
    from telemetry.records import ScoredEndpoint
    from telemetry.scoring.evaluation import DataSet, Label

LABELS = "labels.csv"


@needs("operation")
def evaluate(
    settings: Settings,
    corpus: Path,
    more_labels: Sequence[Path] = (),
    keep: Path | None = None,
    progress: Progress | None = None,
    *,
    robustness: bool = False,
    card: Path | None = None,
) -> dict[str, Any]:
    """Reads and scores every data set of a corpus, each in a lake of its own.

    Args:
        settings: Authority, sensor, threshold, and the home of data sets that name none; each has
            a lake of its own.
        corpus: Folder with `labels.csv`, see `telemetry.scoring.evaluation.read_labels`, and
            the files that it names.
        more_labels: Further tables of that form.
        keep: Folder where the lakes stay, so that another evaluation need not read again.
        progress: Watches the reading.
        robustness: Whether the same records are scored too as poorer sources would have told
            them, and by the methods of the field.
        card: File to write the card of the scores to.

    Returns:
        See `telemetry.scoring.evaluation.evaluate`; and `unread`, the data sets of which no
        source could be read, by name. With `robustness`, `views` and `field`: by the name of a
        view of the records, or of a method, what it finds of each role, and false positives.

    Raises:
        SettingsError: There are no labels, or they or what they name make no sense.
        PrivacyError: A data set's name holds an address that is not foreign.
        SekishoError: See `ingest` and `score`.
    """
    from telemetry.scoring.evaluation import brief, read_labels, united
    from telemetry.scoring.evaluation import evaluate as compare

    if card is not None and not os.access(card if card.exists() else card.parent, os.W_OK):
        raise SettingsError(f"The card {card} cannot be written; name a file in a folder of yours.")
    sets: list[DataSet] = []
    labels: list[Label] = []
    for table in (corpus / LABELS, *more_labels):
        try:
            named, told = read_labels(table.read_bytes())
        except OSError as error:
            why = (error.strerror or "input/output error").lower()
            raise SettingsError(f"The labels {table} cannot be read: {why}.") from None
        sets += named
        labels += told
    results: dict[str, Sequence[ScoredEndpoint]] = {}
    views: _Results = {}
    field: _Results = {}
    unread = []
    for one in united(sets):
        _refuse_domestic_name(_settings(settings, one, Path()), one.name)
    with ExitStack() as stack:
        lakes = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lakes.mkdir(mode=0o700, parents=True, exist_ok=True)
        for one in united(sets):
            mine = _settings(settings, one, lakes)
            report = ingest(mine, [str(place) for place in _places(corpus, one)], progress)
            if all(source.status == "refused" for source in report.sources):
                unread.append(one.name)
            score(mine, progress)
            results[one.name] = read_scores(mine, unselected=True)
            if robustness:
                _score_otherwise(mine, one.name, views, field)
    answer = {**compare(results, labels), "unread": unread}
    if robustness:
        for name, others in (("views", views), ("field", field)):
            answer[name] = [
                {"name": other, **brief(compare(found, labels))} for other, found in others.items()
            ]
    if card is not None:
        _write_card(card, answer, settings.threshold)
    return answer


def _refuse_domestic_name(settings: Settings, name: str) -> None:
    """A data set's name is that of a folder, and stands in what is printed and in the card."""
    from telemetry.homeland import FOREIGN

    homeland = load_homeland(settings)
    for parts in re.findall(r"(?<!\d)\d{1,3}(?:[.-]\d{1,3}){3}(?!\d)", name):
        try:
            found = homeland.class_of_text(parts.replace("-", "."))
        except SettingsError:  # four numbers that are no address
            continue
        if found != FOREIGN:
            raise PrivacyError(
                "A data set is named by an address at home; rename it in the labels."
            )


def _write_card(path: Path, answer: dict[str, Any], threshold: float) -> None:
    from importlib.metadata import version

    from telemetry.pipeline.doors import utc_now
    from telemetry.scoring import card
    from telemetry.scoring.detectors import DETECTORS

    text = card.card(answer, utc_now().date(), version("sekisho"), len(DETECTORS), threshold)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        why = (error.strerror or "input/output error").lower()
        raise SettingsError(f"The card {path} cannot be written: {why}.") from None


_Results = dict[str, dict[str, Sequence["ScoredEndpoint"]]]
_CALLS = """
SELECT endpoint_ip, peer, first_seen, peer_bytes FROM contacts
WHERE peer_is_domestic AND opens AND NOT from_endpoint AND peer_sent
"""


def _score_otherwise(settings: Settings, name: str, views: _Results, field: _Results) -> None:
    """Scores a lake's records as poorer sources tell them, and by the methods of the field."""
    import numpy as np

    from telemetry.features import endpoint_features
    from telemetry.lake import holding, query
    from telemetry.samples.poorer import VIEWS
    from telemetry.scoring import nemea, rita
    from telemetry.scoring import score as judge

    records = query(settings.lake, "FROM stored_records", unselected=True)
    for view, poorer in VIEWS.items():
        with holding(poorer(records, np.random.default_rng(1))) as connection:
            features = endpoint_features(connection)
        views.setdefault(view, {})[name] = judge(features, settings.threshold)
        if view == "as read":
            calls = query(settings.lake, _CALLS, unselected=True)
            field.setdefault("RITA's formula", {})[name] = rita.of_lake(calls, features)
            field.setdefault("NEMEA's thresholds", {})[name] = nemea.score(features)


@needs("operation")
def evaluate_beacons(
    settings: Settings,
    pairs: int = 10_000,
    hosts: int = 2_000,
    each: int = 3,
    days: int = 7,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Generates periodic calls, reads and scores them, and compares with RITA's formula.

    Args:
        settings: Authority, sensor and threshold; home and lake are those of what is generated.
        pairs: Harmless pairs, at least.
        hosts: Inside hosts.
        each: Beacons in each cell of interval, jitter and loss.
        days: How long they call.
        seed: Any whole number from 0; the same gives the same calls.
        progress: Watches the reading.

    Returns:
        See `telemetry.scoring.evaluation.compare_beacons`.

    Raises:
        SettingsError: A number is too small.
        SekishoError: See `ingest` and `score`.
    """
    from telemetry.samples import rhythms
    from telemetry.samples.plan import HOME
    from telemetry.scoring import rita
    from telemetry.scoring.evaluation import Trial, compare_beacons

    if min(pairs, each, days) < 1 or hosts < 10 or seed < 0:
        raise SettingsError("There must be a pair, a beacon, a day and ten hosts, and no less.")
    drawn = rhythms.draw_pairs(pairs, hosts, each, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = rhythms.write_rhythms(rhythms.play(drawn, days, seed), folder / "calls")
        mapping = folder / "mapping.toml"
        mapping.write_text(rhythms.MAPPING)
        home = tuple(str(prefix) for prefix in HOME)
        mine = settings.model_copy(
            update={"lake": folder / "lake", "key_file": None, "mapping": mapping,
                    "home": home, "country": None}
        )  # fmt: skip
        ingest(mine, [str(file) for file in files], progress)
        scores = {one.endpoint: one.score for one in score(mine, progress)}
    callers = Counter(pair.endpoint for pair in drawn)
    trials = [
        Trial(
            pair.kind, pair.interval, pair.jitter, pair.loss, scores.get(pair.endpoint, 0.0),
            rita.score(calls.starts, calls.sent, days, callers[pair.endpoint] / hosts),
        )
        for pair, calls in zip(drawn, rhythms.play(drawn, days, seed), strict=True)
    ]  # fmt: skip
    return compare_beacons(trials, settings.threshold)


def _settings(settings: Settings, one: DataSet, lakes: Path) -> Settings:
    """Returns the settings for a data set: its home, and a lake with a key of its own."""
    home = {"home": one.home, "country": None} if one.home else {}
    return settings.model_copy(update={"lake": lakes / one.name, "key_file": None, **home})


def _places(corpus: Path, one: DataSet) -> list[Path]:
    root = corpus.resolve()
    places = [(root / name).resolve() for name in one.files]
    for place in places:
        if not (place.is_relative_to(root) and place.exists()):
            raise SettingsError(
                f"The data set {one.name} names a file that the corpus lacks; add or correct it."
            )
    return places
