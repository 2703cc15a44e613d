"""What several tests of readers need: both decoders, and a place for a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from capture_kit import Decoder


@pytest.fixture(params=["kernel", "dpkt"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    """The compiled decoder, then the reference."""
    return Decoder(request.param)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bytes], str]:
    """Saves bytes as a file, always the same one, and returns its name."""

    def save(data: bytes) -> str:
        path = tmp_path / "source"
        path.write_bytes(data)
        return str(path)

    return save
