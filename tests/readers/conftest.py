"""Both decoders, for tests that state what either must find."""

from __future__ import annotations

import pytest
from capture_kit import Decoder


@pytest.fixture(params=["kernel", "dpkt"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    """The compiled decoder, then the reference."""
    return Decoder(request.param)
