"""Objects of JSON are found however they are laid out, and what is none is counted."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.readers.rows import objects
from telemetry.records import Tally

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a{}[]",\\ \n\u00e9', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(alphabet='ab"{', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
rows = st.lists(
    st.dictionaries(st.text(max_size=3), values, min_size=1, max_size=3), min_size=1, max_size=5
)


def lines_of(data: bytes, tally: Tally) -> list[bytes]:
    return b"".join(objects.object_lines(data, io.BytesIO(data), tally)).splitlines()


@settings(deadline=None)
@given(rows, st.sampled_from(["lines", "array", "pretty", "pretty array"]), st.integers(1, 40))
def test_objects_are_the_same_in_any_layout(
    found: list[dict[str, Any]], layout: str, block: int
) -> None:
    indent = 2 if "pretty" in layout else None
    longest = max(len(json.dumps(row, indent=4)) for row in found)
    if "array" in layout:
        text = json.dumps(found, indent=indent)
    else:
        text = "\n".join(json.dumps(row, indent=indent) for row in found)
    tally = Tally()
    with pytest.MonkeyPatch.context() as patch:
        if layout != "lines":
            patch.setattr(objects, "CHUNK", longest + block)
        assert [json.loads(line) for line in lines_of(text.encode(), tally)] == found
    assert tally.read == 0


@pytest.mark.parametrize(
    ("text", "whole", "malformed"),
    [
        pytest.param('[{"a":1},x,{"a":2}]', 2, 1, id="junk-between"),
        pytest.param('[{"a":1},{"a":2', 1, 1, id="cut"),
        pytest.param('{\n"a":1}\n{\n"a":', 1, 1, id="pretty-cut"),
        pytest.param('[{"a":"}"},{"a":"\\""}]', 2, 0, id="braces-in-texts"),
        pytest.param("[]", 0, 0, id="empty"),
    ],
)
def test_what_is_no_object_is_counted(text: str, whole: int, malformed: int) -> None:
    tally = Tally()
    assert len(lines_of(text.encode(), tally)) == whole
    assert tally.read == sum(tally.dropped.values()) == malformed


def test_an_endless_object_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "CHUNK", 100)
    tally = Tally()
    text = '[{"a":1},{"a":"' + "x" * 1000 + '"},{"a":2}]'
    found = lines_of(text.encode(), tally)
    assert found[0] == b'{"a":1}'
    assert tally.dropped["malformed_row"] >= 1
