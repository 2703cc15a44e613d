"""The commands of the group `homeland`, as a person or a program calls them."""

from __future__ import annotations

import json
from pathlib import Path

from e2e import call


def test_a_refreshed_table_is_used_shown_and_compared(tmp_path: Path) -> None:
    (tmp_path / "feed").write_text("8.8.8.0/24,JP,JP-13,Tokyo,\n2400::/32,JP,,,\n")
    table = tmp_path / "table.parquet"
    made = call("homeland", "refresh", f"mine={tmp_path / 'feed'}", "--into", table,
                "--licence", "CC0 1.0")  # fmt: skip
    assert made.code == 0
    assert "mine: 2 ranges, not stated, CC0 1.0" in made.words

    found = call("homeland", "check", "8.8.8.8", "--homeland", table, "--json").json
    assert (found["class"], found["sources"]) == ("domestic", {"JP": ["mine"]})
    assert call("homeland", "check", "8.8.8.8", "--json").json["class"] == "foreign"
    assert "Given to JP by mine." in call("homeland", "check", "8.8.8.8", "--homeland", table).words

    shown = call("homeland", "show", "--homeland", table, "--json").json
    assert [source["name"] for source in shown["sources"]] == ["mine"]
    assert "CC0 1.0" in call("homeland", "show", "--homeland", table).words

    changed = call("homeland", "diff", table, table, "--json").json
    assert changed["ipv4"] == {"ranges": 0, "totals": {}, "largest": []}
    assert "IPv4: 0 ranges change" in call("homeland", "diff", table, table).words

    lines = call("homeland", "report", "--homeland", table, "--json").out.splitlines()
    (row,) = (row for row in map(json.loads, lines) if row["stratum"] == "other, IPv4")
    assert (row["home_by_any"], row["disputed"]) == (256, 0)


def test_a_table_that_was_changed_is_refused_by_every_command(tmp_path: Path) -> None:
    (tmp_path / "feed").write_text("8.8.8.0/24,JP\n")
    table = tmp_path / "table.parquet"
    assert call("homeland", "refresh", tmp_path / "feed", "--into", table).code == 0
    table.write_bytes(table.read_bytes().replace(b"csv", b"cvs"))
    for words in (["homeland", "show"], ["homeland", "check", "8.8.8.8"], ["homeland", "report"]):
        answer = call(*words, "--homeland", table)
        assert (answer.code, answer.out) == (2, "")
        assert "make it again" in answer.err
