"""A short search for bytes that break a reader; `make fuzz` searches for long.

What a search found stands in `samples/<family>/`, named for what is wrong with it.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Given, check, guarded, record_sizes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutate
from seeds import FAMILIES, SAMPLES, seeds
from seeds import given as how

HERE = Path(__file__).parent
FOUND = [path for path in sorted((HERE / "samples").rglob("*")) if path.is_file()]
BEHIND = """
import numpy as np
from numba import njit
from harness import guarded
from telemetry.loads import u8
load = njit(lambda address: u8(address))
bytes_ = guarded(b"abc")
print(load(np.uint64(bytes_.ctypes.data + 2)), flush=True)
load(np.uint64(bytes_.ctypes.data + 3))
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_changed_samples_give_records_or_a_refusal(family: str) -> None:
    pool, session = seeds(family), how(family)

    # The same search each time; shrinking is left out, since random bytes shrink badly.
    @settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(pool), st.integers(0, 2**32))
    def search(seed: bytes, number: int) -> None:
        check(mutate(seed, random.Random(number), pool), session)

    search()


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_themselves_are_read(family: str) -> None:
    readers = {found.reader for seed in seeds(family) for found in check(seed, how(family))}
    assert readers >= set(FAMILIES[family])


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_stays_mended(path: Path) -> None:
    check(path.read_bytes(), how(path.parent.name))


@pytest.mark.parametrize("path", sorted((SAMPLES / "broken").iterdir()), ids=lambda path: path.name)
def test_broken_samples_give_records_or_a_refusal(path: Path) -> None:
    check(path.read_bytes(), Given())


def test_a_byte_behind_guarded_memory_is_a_crash() -> None:
    child = subprocess.run(
        [sys.executable, "-c", BEHIND], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert child.stdout == "99\n"
    assert child.returncode == -signal.SIGSEGV
    assert guarded(b"").size == 0


def test_records_of_captures_are_found() -> None:
    for seed in seeds("captures"):
        if seed[:4] in (b"\xd4\xc3\xb2\xa1", b"\x0a\x0d\x0d\x0a") and len(seed) < 1200:
            assert sum(record_sizes(seed)) + (24 if seed[0] == 0xD4 else 0) >= len(seed)
