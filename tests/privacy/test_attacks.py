"""What attacks on our own output yield, held against what README says of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from attacks import SCHEMES, SHARES, VISITS, known_again, population, probes
from e2e import ROOT

from telemetry.privacy.keys import Scheme

HOSTS = 50_000


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    return population(HOSTS)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_a_scanner_learns_of_hosts_it_did_not_probe(
    people: np.ndarray, scheme: Scheme
) -> None:
    readme = (ROOT / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith(f"| `{scheme}`")]
    [cells] = [[cell.strip() for cell in row.strip("|").split("|")][1:] for row in rows]
    for share, cell in zip(SHARES, cells, strict=True):
        learned = probes(scheme, people, share)
        assert learned.wrong == 0, "what the attacker holds for certain is so"
        measured = [learned.share(bits) for bits in (16, 24, 32)]
        stated = [float(text) / 100 for text in re.findall(r"[\d.]+", cell)]
        assert np.allclose(measured, stated, atol=0.0011), (share, measured)
        if scheme == "deterministic":
            assert measured[2] == 0.0, "no address of a host that was not probed"
            assert measured[0] == measured[1], "nor anything beyond the /24 of one that was"


def test_a_host_can_be_known_again_by_whom_it_talks_to() -> None:
    """Keys of their own for every month do not hide habits: README says how little they do."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    [stated] = re.findall(
        r"knew ([\d.]+) %, ([\d.]+) % and ([\d.]+) % of 2,000 hosts again that turn to 2, 5 and 20",
        readme,
    )
    for visits, text in zip(VISITS, stated, strict=True):
        assert abs(known_again(2_000, visits) - float(text) / 100) < 0.0011
