"""What the tool says it reads is what the tables say by which it reads."""

from __future__ import annotations

from e2e import ROOT, call

from telemetry.raw import TUNNELS
from telemetry.readers import reader_names
from telemetry.readers.formats import names, readable, with_table


def test_the_readme_says_what_is_read_now() -> None:
    text = (ROOT / "README.md").read_text()
    assert with_table(text) == text, "run `make readme`"


def test_the_command_lists_every_kind() -> None:
    rows = call("samples", "formats", "--json").out.splitlines()
    assert len(rows) == len(readable()) > 100
    text = call("samples", "formats").out
    for one in readable():
        assert f"{one.kind}  " in text and one.name in text and one.about in text
    assert names("format") == reader_names()
    packed = {"gzip", "zstd", "lz4", "bzip2", "xz", "zip", "tar"}
    assert set(names("container")) == {*packed, "envelope"}
    assert set(TUNNELS[1:]) <= set(names("encapsulation"))


def test_nothing_is_listed_twice_and_all_is_said_in_words() -> None:
    pairs = [(one.kind, one.name) for one in readable()]
    assert len(pairs) == len(set(pairs))
    assert all(one.about.strip() for one in readable())


def test_doctor_has_the_short_form() -> None:
    answer = call("doctor", "--json").json
    for key, kind in {
        "formats": "format",
        "containers": "container",
        "link_types": "link type",
        "encapsulations": "encapsulation",
    }.items():
        assert answer[key] == names(kind)
