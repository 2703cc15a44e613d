"""Text to numbers and back."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.homeland import format_addresses, parse_address

V6 = st.one_of(
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**64 - 1),
    st.lists(st.sampled_from([0, 0, 1, 0xABC, 0xFFFF]), min_size=8, max_size=8).map(
        lambda groups: sum(g << 16 * i for i, g in enumerate(groups))
    ),
)
ADDRESSES = st.one_of(st.ip_addresses(v=4), V6.map(ipaddress.IPv6Address))


def _format(texts: list[str]) -> list[str]:
    halves = [parse_address(text) for text in texts]
    hi = np.array([h for h, _ in halves], np.uint64)
    lo = np.array([low for _, low in halves], np.uint64)
    return format_addresses(hi, lo).to_pylist()  # type: ignore[no-any-return]


@given(st.lists(ADDRESSES))
def test_round_trip_in_canonical_text(
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> None:
    canonical = [
        str(a.ipv4_mapped) if isinstance(a, ipaddress.IPv6Address) and a.ipv4_mapped else str(a)
        for a in addresses
    ]
    assert _format([a.exploded for a in addresses]) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("::FFFF:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("::192.0.2.1", "::c000:201"),
        ("::ffff:0:0:1", "::ffff:0:0:1"),
        ("0::0", "::"),
    ],
)
def test_canonical_text_of_rfc_5952(text: str, canonical: str) -> None:
    assert _format([text]) == [canonical]


@pytest.mark.parametrize("group", [0x1, 0x12, 0x123, 0x1234])
def test_every_pattern_of_zero_groups(group: int) -> None:
    texts = [":".join(f"{group * (bits >> i & 1):x}" for i in range(8)) for bits in range(256)]
    assert _format(texts) == [str(ipaddress.IPv6Address(text)) for text in texts]


def test_halves() -> None:
    assert parse_address("192.0.2.1") == (0, 0xFFFF_C000_0201)
    assert parse_address("2001:db8::1") == (0x2001_0DB8 << 32, 1)


@pytest.mark.parametrize("text", ["", "-", "192.0.2.256", "192.0.2", "2001:db8::g", "192.0.2.01"])
def test_not_an_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not an IP address$"):
        parse_address(text)
