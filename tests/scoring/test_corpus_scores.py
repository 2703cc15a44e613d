"""The card says what the scores reach on the real corpus; they still do."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from e2e import call

CARD = Path(__file__).resolve().parents[2] / "models" / "endpoint_risk" / "v1" / "CARD.md"
FOUND = "| role | found |"
BY_SET = "| dataset | endpoints |"
INFECTED = "iot23-slice-a"


def table(text: str, head: str) -> list[str]:
    return text[text.index(head) :].split("\n\n")[0].splitlines()


@pytest.mark.timeout(600)
def test_the_scores_are_worth_what_the_card_says(tmp_path: Path, corpus: Path) -> None:
    card, kept = tmp_path / "CARD.md", tmp_path / "lakes"
    done = call("model", "evaluate", "--corpus", corpus, "--keep", kept, "--card", card)
    assert done.code == 0, done.words
    now, then = card.read_text(encoding="utf-8"), CARD.read_text(encoding="utf-8")
    # Precision, the last two columns, rests on harmless addresses that the corpus does not hold.
    cut = [row.rsplit(" | ", 2)[0] for row in table(now, FOUND)]
    assert cut == [row.rsplit(" | ", 2)[0] for row in table(then, FOUND)]
    # The card also knows sets that are told of elsewhere.
    assert set(table(now, BY_SET)) <= set(table(then, BY_SET))
    _no_victim_is_listed(corpus / "attacks" / INFECTED / "victims.csv", kept / INFECTED)


def _no_victim_is_listed(victims: Path, lake: Path) -> None:
    """Whom an infected host attacks is met by it as its master is."""
    told = call("query", "SELECT endpoint FROM scores WHERE listed", "--lake", lake, "--json")
    listed = {json.loads(line)["endpoint"] for line in told.out.splitlines()}
    with victims.open() as file:
        attacked = {row["foreign_ip"] for row in csv.DictReader(file)}
    assert listed and attacked and not listed & attacked
