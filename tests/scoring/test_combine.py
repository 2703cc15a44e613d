"""Laws of the combined score, on any features at all."""

from __future__ import annotations

import random
from datetime import datetime

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_rows import connect

from telemetry.features import endpoint_features
from telemetry.scoring import score, sub_scores
from telemetry.scoring.combine import LEAST
from telemetry.scoring.detectors import DETECTORS
from telemetry.scoring.scores import Scores


def _empty() -> pa.Table:
    with connect([]) as connection:
        return endpoint_features(connection)


EMPTY = _empty()
SERIES = ("start", "beat", "start_in")
KINDS = ("other", "web", "clock", "rat", "login")
SHARES = ("regularity", "share", "dispersion", "novelty")


def random_features(rng: random.Random, rows: int) -> pa.Table:
    """Returns a table of any values that the columns can hold, nulls among them."""
    columns = {}
    for field in EMPTY.schema:
        values = [_value(field, rng, row) for row in range(rows)]
        columns[field.name] = pa.array(values, field.type)
    return pa.table(columns)


def _value(field: pa.Field, rng: random.Random, row: int) -> object:
    if field.name == "endpoint_ip":
        return f"198.51.{row // 256}.{row % 256}"
    if pa.types.is_string(field.type):
        return rng.choice(SERIES if field.name == "rhythm_series" else KINDS)
    if pa.types.is_timestamp(field.type):
        return datetime(2026, 1, 1 + row % 28)
    if pa.types.is_boolean(field.type):
        return rng.random() < 0.5
    if field.name.endswith("_dispersion") and rng.random() < 0.3:
        return None  # a source that tells no bytes
    if any(word in field.name for word in SHARES):
        return rng.random()
    largest = 250 if field.type.bit_width == 8 else 60000
    value = rng.choice([0, 1, rng.randrange(2, 20), rng.randrange(20, largest)])
    return float(value) if pa.types.is_floating(field.type) else value


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_scores_stay_in_range_and_reasons_add_up(seed: int) -> None:
    features = random_features(random.Random(seed), 60)
    for found in sub_scores(features).values():
        assert np.all((found >= 0) & (found <= 1)), found
    for endpoint in score(features, 0.5):
        assert 0 <= endpoint.score < 1
        assert endpoint.listed == (endpoint.score >= 0.5)
        assert endpoint.confidence == round(100 * endpoint.score)
        assert 0 <= endpoint.novelty <= 1
        given_for = sum(reason.contribution for reason in endpoint.reasons)
        assert endpoint.score - len(DETECTORS) * LEAST <= given_for <= endpoint.score + 1e-3
        assert (endpoint.role == "unknown") == (endpoint.score == 0)
        contributions = [reason.contribution for reason in endpoint.reasons]
        assert contributions == sorted(contributions, reverse=True)
        assert all("nan" not in reason.text.split() for reason in endpoint.reasons)


def test_scores_do_not_depend_on_the_order_or_the_company_of_rows() -> None:
    features = random_features(random.Random(3), 300)
    whole = score(features, 0.6)
    order = random.Random(4).sample(range(300), 300)
    assert score(features.take(order), 0.6) == whole
    parts = [score(features.slice(n, 60), 0.6).table for n in range(0, 300, 60)]
    assert Scores.ranked(parts) == whole
    assert [whole[n] for n in range(300)] == list(whole) == list(Scores.of(whole))
    assert list(whole.listed) == [one for one in whole if one.listed]


def test_scores_that_an_older_release_stored_have_no_novelty() -> None:
    whole = score(random_features(random.Random(6), 20), 0.6)
    older = Scores.ranked([whole.table.drop_columns(["novelty", "novelty_in"])])
    assert [one.score for one in older] == [one.score for one in whole]
    assert {(one.novelty, one.novelty_in) for one in older} == {(None, None)}


def test_highest_first_and_ties_by_address() -> None:
    found = score(random_features(random.Random(5), 200), 0.6)
    keys = [(-endpoint.score, endpoint.endpoint) for endpoint in found]
    assert keys == sorted(keys)


def test_no_endpoints_no_scores() -> None:
    assert list(score(EMPTY, 0.6)) == []


def test_times_beyond_the_calendar_are_held_at_its_ends() -> None:
    features = random_features(random.Random(6), 1)
    huge = pa.array([2**62], pa.int64()).cast(pa.timestamp("us"))
    at = features.schema.get_field_index("last_seen")
    (endpoint,) = score(features.set_column(at, "last_seen", huge), 0.6)
    assert endpoint.last_seen == datetime.max


def test_a_supporting_detector_gives_nothing_alone() -> None:
    supports = {detector.name for detector in DETECTORS if detector.supports}
    assert supports
    for endpoint in score(random_features(random.Random(8), 400), 0.6):
        names = {reason.name for reason in endpoint.reasons}
        assert not names or names - supports


def test_names_of_detectors_are_distinct() -> None:
    assert len({detector.name for detector in DETECTORS}) == len(DETECTORS)
