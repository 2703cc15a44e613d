"""The main job on real captures: the labelled command-and-control host comes first, explained."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from e2e import call, fixed_key


@pytest.mark.parametrize("name", ["quasarrat-09ffabf7", "asyncrat-9596cf60", "asyncrat-cd010953"])
def test_the_c2_of_a_real_capture_is_named_first(corpus: Path, tmp_path: Path, name: str) -> None:
    with (corpus / "labels.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["dataset"] == name]
    labelled = {row["foreign_ip"] for row in rows if row["role"] == "c2"}
    benign = {row["foreign_ip"] for row in rows if row["role"] == "benign"}
    assert labelled and {row["home_prefixes"] for row in rows} == {"192.168.100.0/24"}
    answer = call(
        "run", corpus / "attacks" / name, "--home", "192.168.100.0/24",
        "--lake", tmp_path / "lake", "--key", fixed_key(tmp_path / "key"), "--json",
    )  # fmt: skip
    assert answer.code == 0
    endpoints = answer.json["score"]["endpoints"]
    first = endpoints[0]
    assert first["endpoint"] in labelled
    assert (first["role"], first["listed"]) == ("c2", True)
    with_numbers = [r for r in first["reasons"] if any(c.isdigit() for c in r["text"])]
    assert len(with_numbers) >= 2
    assert len({reason["name"] for reason in with_numbers}) >= 2
    assert first["score"] > max(e["score"] for e in endpoints if e["endpoint"] in benign)
    csv_lines = (tmp_path / "lake" / "lists" / "list.csv").read_text().splitlines()
    assert any(line.startswith(first["endpoint"]) for line in csv_lines)
