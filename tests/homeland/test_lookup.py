"""The compiled look-up against the slow one, and both against what is known."""

from __future__ import annotations

import ipaddress

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from telemetry import homeland
from telemetry.errors import SettingsError
from telemetry.homeland import (
    DOMESTIC,
    FOREIGN,
    SPECIAL,
    UNALLOCATED,
    Homeland,
    Tables,
    class_of,
    parse_address,
)
from telemetry.homeland.ranges import Family
from telemetry.homeland.special import SPECIALS

MAPPED = 0xFFFF << 32
LOW_64 = (1 << 64) - 1

V4 = st.integers(0, 2**32 - 1)
ANY = st.one_of(
    st.integers(0, 2**128 - 1),
    V4.map(lambda n: MAPPED + n),
    V4.map(lambda n: (0x64FF9B << 96) + n),
    V4.map(lambda n: (0xFFFF << 48) + n),
    V4,
    st.tuples(V4, st.integers(0, 2**80 - 1)).map(lambda t: (0x2002 << 112) + (t[0] << 80) + t[1]),
    st.integers(0, 2**96 - 1).map(lambda n: (0x20010000 << 96) + n),
    st.integers(0x2000 << 112, (0x2C10 << 112) - 1),
)

PREFIXES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
            lambda t: str(ipaddress.ip_network(t, strict=False))
        ),
        st.tuples(ANY, st.integers(0, 128)).map(
            lambda t: str(ipaddress.IPv6Network(t, strict=False))
        ),
    ),
    min_size=1,
    max_size=5,
)


def fast(home: Homeland, numbers: list[int]) -> list[int]:
    hi = np.array([n >> 64 for n in numbers], np.uint64)
    lo = np.array([n & LOW_64 for n in numbers], np.uint64)
    return [int(c) for c in home.classify(hi, lo)]


def slow(home: Homeland, numbers: list[int]) -> list[int]:
    return [home.rules.class_of(n) for n in numbers]


def number_of(text: str) -> int:
    hi, lo = parse_address(text)
    return hi << 64 | lo


def edges(rows: Family, family: int) -> list[int]:
    """Returns start-1, start, end and end+1 of every range as 128-bit numbers."""
    shift, base = (0, MAPPED) if family == 4 else (64, 0)
    starts = {(n << shift) + base for n in rows.start.tolist()}
    afters = {((n + 1) << shift) + base for n in rows.end.tolist()}
    return sorted({n - back for n in starts | afters for back in (0, 1)})


@settings(max_examples=300, deadline=None)
@given(numbers=st.lists(ANY, min_size=1, max_size=50))
def test_kernel_equals_slow_look_up_anywhere(japan: Homeland, numbers: list[int]) -> None:
    assert fast(japan, numbers) == slow(japan, numbers)


@settings(max_examples=30, deadline=None)
@given(prefixes=PREFIXES, country=st.sampled_from([None, "JP"]), numbers=st.lists(ANY))
def test_prefixes_win_and_kernel_equals_slow_look_up(
    prefixes: list[str], country: str | None, numbers: list[int]
) -> None:
    home = homeland.load(country, prefixes)
    bounds = [
        (number_of(str(network[0])), number_of(str(network[-1])))
        for network in map(ipaddress.ip_network, prefixes)
    ]
    inside = [n for a, z in bounds for n in (a, (a + z) // 2, z)]
    assert set(fast(home, inside)) == {DOMESTIC}
    near = [n for a, z in bounds for n in (a - 1, z + 1) if 0 <= n < 1 << 128]
    assert fast(home, near + numbers) == slow(home, near + numbers)


@pytest.mark.parametrize("family", [4, 6])
def test_kernel_equals_slow_look_up_at_edges(japan: Homeland, family: int) -> None:
    table = japan.rules.table
    rows = table.v4 if family == 4 else table.v6
    home = rows.country == table.countries.index("JP")
    some = home | (np.arange(len(home)) % 50 == 0)  # every Japanese range, and a sample
    numbers = edges(Family(*(column[some] for column in rows)), family)
    assert len(numbers) > 2 * 400
    assert fast(japan, numbers) == slow(japan, numbers)


@pytest.mark.parametrize("alone", [False, True])
def test_kernel_equals_slow_look_up_at_special_edges(japan: Homeland, alone: bool) -> None:
    home = homeland.load(None, ["192.168.0.0/16"]) if alone else japan
    networks = [ipaddress.ip_network(text) for text in ("2000::/3", *(s.prefix for s in SPECIALS))]
    spans = [(number_of(str(n[0])), number_of(str(n[-1]))) for n in networks]
    near = {n for a, z in spans for n in (a - 1, a, a + 1, z - 1, z, z + 1)}
    numbers = sorted(n for n in near if 0 <= n < 1 << 128)
    assert fast(home, numbers) == slow(home, numbers)


KNOWN = {
    DOMESTIC: [
        "133.11.0.1",  # the University of Tokyo
        "202.12.27.33",  # M root
        "2001:200::1",  # WIDE
        "2001:dc3::35",  # M root
        "::ffff:133.11.0.1",
        *("64:ff9b::133.11.0.1", "::133.11.0.1", "::ffff:0:133.11.0.1"),
        "2002:850b:1::1",
        "2001:0:102:304:0:0:7af4:fffe",  # Teredo of 133.11.0.1
    ],
    FOREIGN: [
        "8.8.8.8",
        "9.9.9.9",
        "193.0.6.139",
        "139.191.1.1",  # held by the European Union: only routing knows it
        "2001:4860:4860::8888",
        "2a00:1450:4001::1",
        *("64:ff9b::8.8.8.8", "::8.8.8.8", "::ffff:0:8.8.8.8"),
        "2002:808:808::1",
        "2001:0:102:304:0:0:f7f7:f7f7",
    ],
    SPECIAL: [
        *("0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1"),
        *("169.254.1.1", "172.16.0.1", "172.31.255.255", "192.168.0.1"),
        *("192.0.0.1", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170", "192.0.0.255"),
        *("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255"),
        *("192.31.196.1", "192.52.193.1", "192.88.99.1", "192.88.99.2", "192.175.48.1"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.254", "255.255.255.255"),
        *(
            "::",
            "::1",
            "::2",
            "::10.0.0.1",
            "::ffff:0:10.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
        ),
        *("100::1", "100:0:0:1::1", "2001:1::1", "2001:1::2", "2001:1::3", "2001:1::4"),
        *("2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1", "2001:30::1"),
        *("2001:db8::1", "2620:4f:8000::1", "3fff::1", "3fff:fff::1", "5f00::1"),
        *("fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1"),
        "2001:0:102:304:0:0:f5ff:fffe",  # Teredo of 10.0.0.1
    ],
    UNALLOCATED: [
        *("102.224.0.1", "::1:0:0", "::ffff:1:0:1", "100:0:0:2::1", "4000::1", "3fff:1000::1"),
        *("64:ff9b:0:1::1", "2d00::1", "fe00::1", "2002:66e0:1::1"),
    ],
}


@pytest.mark.parametrize(("expected", "text"), [(c, t) for c in KNOWN for t in KNOWN[c]])
def test_known_addresses(japan: Homeland, expected: int, text: str) -> None:
    assert fast(japan, [number_of(text)]) == [expected]
    assert japan.class_of_text(text) == expected


@settings(max_examples=200, deadline=None)
@given(v4=V4, server=V4, rest=st.integers(0, 2**80 - 1))
def test_embedded_ipv4_decides(japan: Homeland, v4: int, server: int, rest: int) -> None:
    forms = [
        MAPPED + v4,
        (0x64FF9B << 96) + v4,
        (0xFFFF << 48) + v4,
        *([v4] if v4 > 1 else []),  # :: and ::1 are addresses of their own
        (0x2002 << 112) + (v4 << 80) + rest,
        (0x20010000 << 96) + (server << 64) + (rest & 0xFFFFFFFF) * 2**32 + (v4 ^ 0xFFFFFFFF),
    ]
    assert len(set(fast(japan, forms))) == 1


@njit(nogil=True)
def count_foreign(tables: Tables, hi: npt.NDArray[np.uint64], lo: npt.NDArray[np.uint64]) -> int:
    foreign = 0
    for row in range(len(hi)):
        foreign += class_of(tables, hi[row], lo[row]) == FOREIGN
    return foreign


def test_kernel_works_inside_another_kernel(japan: Homeland) -> None:
    hi = np.zeros(2, np.uint64)
    lo = np.array([MAPPED + 0x08080808, MAPPED + 0x0A000001], np.uint64)
    assert count_foreign(japan.tables, hi, lo) == 1


def test_not_an_address(japan: Homeland) -> None:
    with pytest.raises(SettingsError) as caught:
        japan.class_of_text("133.11.0.256")
    assert "133.11" not in str(caught.value)
