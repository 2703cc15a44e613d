"""The notebook that an analyst opens first runs, draws, and shows nobody at home."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from telemetry import pipeline
from telemetry.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "first_look.ipynb"
SAMPLES = ("border-c.pcap.gz", "conn.json.log")


def _notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Executes the notebook on a small lake; returns what its cells show."""
    lake = tmp_path_factory.mktemp("notebook") / "lake"
    captures = ROOT / "data" / "samples" / "captures"
    pipeline.run(Settings(lake=lake), [str(captures / name) for name in SAMPLES])
    notebook = _notebook()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEKISHO_LAKE", str(lake))
        patch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing may need the network
        patch.setenv("https_proxy", "http://127.0.0.1:9")
        NotebookClient(
            notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
        ).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_it_is_kept_without_outputs() -> None:
    cells = _notebook().cells
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


def test_it_draws_and_warns_of_nothing(outputs: list[Any]) -> None:
    shown = [output for output in outputs if output.output_type == "execute_result"]
    drawn = [output.data["image/svg+xml"] for output in shown if "image/svg+xml" in output.data]
    assert [output for output in outputs if output not in shown] == []
    assert len(drawn) == 5
    # Marks of real data: a bar or a point of each chart, not an empty frame.
    assert all(chart.count('aria-roledescription="bar"') >= 2 for chart in drawn[:3])
    assert drawn[3].count('aria-roledescription="point"') > 4
    assert drawn[4].count('aria-roledescription="circle"') > 20


def test_it_shows_the_listed_c2_and_no_domestic_host(outputs: list[Any]) -> None:
    text = json.dumps(outputs)
    truth = json.loads((ROOT / "data" / "samples" / "truth.json").read_text())
    with (ROOT / "data" / "samples" / "labels.csv").open() as file:
        c2 = {
            row["foreign_ip"]
            for row in csv.DictReader(file)
            if row["dataset"] in SAMPLES and row["role"] == "c2"
        }
    domestic = {a for name in SAMPLES for a in truth["files"][f"captures/{name}"]["domestic"]}
    assert domestic
    assert not {address for address in domestic if address in text}
    assert len(c2) == 2
    assert {address for address in c2 if address in text} == c2
