"""Pseudonyms: published vectors, and the laws that analysis rests on."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.privacy.distinct import distinct
from telemetry.privacy.keys import Keys
from telemetry.privacy.pseudonyms import (
    Pseudonyms,
    encrypt_blocks,
    epoch,
    months_of,
    network,
    to_bytes,
    uuid_text,
)

KEYS = Keys(bytes(range(32)))
APRIL_2026 = (2026 - 1970) * 12 + 3


def halves(*addresses: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two halves of addresses, IPv4 as ::ffff:a.b.c.d."""
    numbers = []
    for text in addresses:
        address = ipaddress.ip_address(text)
        mapped = 0xFFFF << 32 if address.version == 4 else 0
        numbers.append(mapped | int(address))
    return (
        np.array([number >> 64 for number in numbers], np.uint64),
        np.array([number & (1 << 64) - 1 for number in numbers], np.uint64),
    )


def ids(addresses: list[str], months: list[int], keys: Keys = KEYS) -> list[tuple[str, str]]:
    """Returns (host, network) pseudonyms of addresses."""
    host, net = Pseudonyms(keys).hosts(*halves(*addresses), np.array(months, np.int64))
    return list(zip(host.to_pylist(), net.to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("key", "address", "expected"),
    [
        # Test vectors of draft-denis-ipcrypt, and the IPv6 one of its reference code.
        ("0123456789abcdeffedcba9876543210", "0.0.0.0", "bde9:6789:d353:824c:d7c6:f58a:6bd2:26eb"),
        (
            "1032547698badcfeefcdab8967452301",
            "255.255.255.255",
            "aed2:92f6:ea23:58c3:48fd:8b8:74e8:45d8",
        ),
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "192.0.2.1",
            "1dbd:c1b9:fff1:7586:7d0b:67b4:e76e:4777",
        ),
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "2001:db8::1",
            "10ea:8047:d631:d47d:150d:53dc:6ff3:9302",
        ),
    ],
)
def test_published_vectors(key: str, address: str, expected: str) -> None:
    block = encrypt_blocks(bytes.fromhex(key), to_bytes(*halves(address)))
    assert ipaddress.IPv6Address(block.tobytes()) == ipaddress.IPv6Address(expected)


def test_host_is_ipcrypt_under_the_months_subkey() -> None:
    block = encrypt_blocks(KEYS.subkey("2026-04", "host"), to_bytes(*halves("203.0.113.7")))
    [(host, _)] = ids(["203.0.113.7"], [APRIL_2026])
    assert host.replace("-", "") == block.tobytes().hex()


def test_uuid_text_has_the_groups_of_a_uuid() -> None:
    text = uuid_text(np.arange(16, dtype=np.uint8).reshape(1, 16)).to_pylist()
    assert text == ["00010203-0405-0607-0809-0a0b0c0d0e0f"]


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
rows = st.lists(st.tuples(addresses, st.integers(-24, 1200)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_distinct_in_distinct_out_and_equal_in_equal_out(rows: list[tuple[str, int]]) -> None:
    found = ids([a for a, _ in rows], [m for _, m in rows])
    hosts = dict(zip(found, rows, strict=True))
    # v4-mapped IPv6 and IPv4 are one address.
    plain = [(tuple(int(h[0]) for h in halves(a)), m) for a, m in rows]
    assert len({host for host, _ in found}) == len(set(plain)) == len(hosts)


@settings(max_examples=60, deadline=None)
@given(rows, st.randoms())
def test_order_and_batching_do_not_show(rows: list[tuple[str, int]], dice: Random) -> None:
    alone = {row: ids([row[0]], [row[1]])[0] for row in rows}
    dice.shuffle(rows)
    assert ids([a for a, _ in rows], [m for _, m in rows]) == [alone[row] for row in rows]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.1", "203.0.113.254", True),
        ("203.0.113.1", "203.0.112.1", False),
        ("2001:db8:1::1", "2001:db8:1:ffff::2", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("0.0.0.1", "::1", False),
    ],
)
def test_networks_are_24_and_48_bits(one: str, other: str, same: bool) -> None:
    (host_1, net_1), (host_2, net_2) = ids([one, other], [0, 0])
    assert host_1 != host_2
    assert (net_1 == net_2) is same
    assert {host_1, host_2}.isdisjoint({net_1, net_2})


def test_network_of_the_address_of_a_network_is_no_host_id() -> None:
    """Host and network have sub-keys of their own, so the two never meet."""
    [(host, net)] = ids(["203.0.113.0"], [0])
    assert network(*halves("203.0.113.0")) == halves("203.0.113.0")
    assert host != net


def test_month_and_key_change_everything() -> None:
    (march, april) = ids(["203.0.113.1"] * 2, [APRIL_2026 - 1, APRIL_2026])
    [other_key] = ids(["203.0.113.1"], [APRIL_2026], Keys(bytes(32)))
    assert len({*march, *april, *other_key}) == 6


def test_dictionaries_hold_each_value_once() -> None:
    host, net = Pseudonyms(KEYS).hosts(
        *halves(*["203.0.113.1", "203.0.113.2"] * 50), np.zeros(100, np.int64)
    )
    assert host.type == net.type == pa.dictionary(pa.int32(), pa.string())
    assert (len(host.dictionary), len(net.dictionary)) == (2, 1)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))
def test_months_of_times(moment: datetime) -> None:
    microseconds = int(moment.replace(tzinfo=UTC).timestamp()) * 1_000_000
    [month] = months_of(np.array([microseconds], np.int64))
    assert epoch(int(month)) == moment.strftime("%Y-%m")


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3)))
def test_distinct_finds_each_row_again(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, np.uint64).reshape(-1, 3)
    index, values = distinct(*table.T)
    assert len(values[0]) == len(set(rows))
    assert [tuple(int(v[i]) for v in values) for i in index] == rows
