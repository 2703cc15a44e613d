"""Homelands that several tests look into."""

from __future__ import annotations

import pytest

from telemetry import homeland
from telemetry.homeland import Homeland


@pytest.fixture(scope="session")
def japan() -> Homeland:
    """The default homeland."""
    return homeland.load("JP")
