"""Pseudonyms: published vectors, and the laws that analysis rests on."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from telemetry.privacy.blocks import encrypt_blocks, from_bytes, to_bytes
from telemetry.privacy.distinct import distinct
from telemetry.privacy.keys import Keys, Scheme
from telemetry.privacy.prefixes import cryptopan, ipcrypt_pfx
from telemetry.privacy.pseudonyms import (
    Pseudonyms,
    decrypt,
    encrypt,
    epoch,
    months_of,
    network,
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


BASIC = "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301"
PREFIX = "2b7e151628aed2a6abf7158809cf4f3ca9f5ba40db214c3798f2e1c23456789a"
IPCRYPT_PFX = [  # draft-denis-ipcrypt, test vectors of ipcrypt-pfx
    (BASIC, "0.0.0.0", "151.82.155.134"),
    (BASIC, "255.255.255.255", "94.185.169.89"),
    (BASIC, "192.0.2.1", "100.115.72.131"),
    (BASIC, "2001:db8::1", "c180:5dd4:2587:3524:30ab:fa65:6ab6:f88"),
    (PREFIX, "10.0.0.47", "19.214.210.244"),
    (PREFIX, "10.0.0.129", "19.214.210.80"),
    (PREFIX, "10.0.0.234", "19.214.210.30"),
    (PREFIX, "172.16.5.193", "210.78.229.136"),
    (PREFIX, "172.16.97.42", "210.78.179.241"),
    (PREFIX, "172.16.248.177", "210.78.121.215"),
    (PREFIX, "2001:db8::a5c9:4e2f:bb91:5a7d", "7cec:702c:1243:f70:1956:125:b9bd:1aba"),
    (PREFIX, "2001:db8::7234:d8f1:3c6e:9a52", "7cec:702c:1243:f70:a3ef:c8e:95c1:cd0d"),
    (PREFIX, "2001:db8::f1e0:937b:26d4:8c1a", "7cec:702c:1243:f70:443c:c8e:6a62:b64d"),
    (PREFIX, "2001:db8:3a5c:0:e7d1:4b9f:2c8a:f673", "7cec:702c:3503:bef:e616:96bd:be33:a9b9"),
    (PREFIX, "2001:db8:9f27:0:b4e2:7a3d:5f91:c8e6", "7cec:702c:a504:b74e:194a:3d90:b047:2d1a"),
]
CRYPTOPAN_KEY = bytes.fromhex("1522178d33a4cf80130a5b1649907d10d8988f837979652762574c2d2a842202")
# The sample trace of the Crypto-PAn distribution, raw and sanitized.
CRYPTOPAN = """
128.11.68.132 135.242.180.132  129.118.74.4 134.136.186.123  130.132.252.244 133.68.164.234
141.223.7.43 141.167.8.160  141.233.145.108 141.129.237.235  152.163.225.39 151.140.114.167
156.29.3.236 147.225.12.42  165.247.96.84 162.9.99.234  166.107.77.190 160.132.178.185
192.102.249.13 252.138.62.131  192.215.32.125 252.43.47.189  192.233.80.103 252.25.108.8
192.41.57.43 252.222.221.184  193.150.244.223 253.169.52.216  195.205.63.100 255.186.223.5
198.200.171.101 249.199.68.213  198.26.132.101 249.36.123.202  198.36.213.5 249.7.21.132
198.51.77.238 249.18.186.254  199.217.79.101 248.38.184.213  202.49.198.20 245.206.7.234
203.12.160.252 244.248.163.4  204.184.162.189 243.192.77.90  204.202.136.230 243.178.4.198
204.29.20.4 243.33.20.123  205.178.38.67 242.108.198.51  205.188.147.153 242.96.16.101
205.188.248.25 242.96.88.27  205.245.121.43 242.21.121.163  207.105.49.5 241.118.205.138
207.135.65.238 241.202.129.222  207.155.9.214 241.220.250.22  207.188.7.45 241.255.249.220
207.25.71.27 241.33.119.156  207.33.151.131 241.1.233.131  208.147.89.59 227.237.98.191
208.234.120.210 227.154.67.17  208.28.185.184 227.39.94.90  208.52.56.122 227.8.63.165
209.12.231.7 226.243.167.8  209.238.72.3 226.6.119.243  209.246.74.109 226.22.124.76
209.68.60.238 226.184.220.233  209.85.249.6 226.170.70.6  212.120.124.31 228.135.163.231
212.146.8.236 228.19.4.234  212.186.227.154 228.59.98.98  212.204.172.118 228.71.195.169
212.206.130.201 228.69.242.193  216.148.237.145 235.84.194.111  216.157.30.252 235.89.31.26
216.184.159.48 235.96.225.78  216.227.10.221 235.28.253.36  216.254.18.172 235.7.16.162
216.32.132.250 235.192.139.38  216.35.217.178 235.195.157.81  24.0.250.221 100.15.198.226
24.13.62.231 100.2.192.247  24.14.213.138 100.1.42.141  24.5.0.80 100.9.15.210
24.7.198.88 100.10.6.25  24.94.26.44 100.88.228.35  38.15.67.68 64.3.66.187
4.3.88.225 124.60.155.63  63.14.55.111 95.9.215.7  63.195.241.44 95.179.238.44
63.97.7.140 95.97.9.123  64.14.118.196 0.255.183.58  64.34.154.117 0.221.154.117
64.39.15.238 0.219.7.41  10.185.25.118 117.161.29.118
::1 78ff:f001:9fc0:20df:8380:b1f1:704:ed  ::2 78ff:f001:9fc0:20df:8380:b1f1:704:ef
::ffff 78ff:f001:9fc0:20df:8380:b1f1:704:f838
2001:db8::1 4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1e
2001:db8::2 4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1c
"""


@pytest.mark.parametrize(("key", "address", "expected"), IPCRYPT_PFX)
def test_published_vectors_of_ipcrypt_pfx(key: str, address: str, expected: str) -> None:
    both = ipcrypt_pfx(bytes.fromhex(key), *halves(address))
    assert np.array_equal(both, halves(expected))
    assert np.array_equal(ipcrypt_pfx(bytes.fromhex(key), *both, reverse=True), halves(address))


def test_published_vectors_of_cryptopan() -> None:
    """All 70 addresses of the sample trace, and the IPv6 ones of later implementations, at once."""
    words = CRYPTOPAN.split()
    raw, sanitized = halves(*words[::2]), halves(*words[1::2])
    assert len(raw[0]) == 70 + 1 + 5
    assert np.array_equal(cryptopan(CRYPTOPAN_KEY, *raw), sanitized)
    assert np.array_equal(cryptopan(CRYPTOPAN_KEY, *sanitized, reverse=True), raw)


SCHEMES: list[Scheme] = ["deterministic", "prefix", "cryptopan"]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["prefix", "cryptopan"]), st.binary(min_size=32, max_size=32),
    st.one_of(st.tuples(*[st.ip_addresses(v=v)] * 2) for v in (4, 6)), st.integers(0, 128),
)  # fmt: skip
def test_shared_prefixes_stay_shared_and_nothing_more(
    scheme: Scheme, key: bytes, pair: tuple[Any, Any], keep: int
) -> None:
    """The first n bits of two are equal if and only if those of their pseudonyms are."""
    bits = 32 if pair[0].version == 4 else 128
    keep = min(keep, bits)
    one = int(pair[0])
    other = one ^ (int(pair[1]) >> keep)  # they share at least `keep` bits
    assume(bits == 32 or 0xFFFF not in (one >> 32, other >> 32))  # those are IPv4
    kind = type(pair[0])
    texts = [str(kind(one)), str(kind(other))]
    (hi, lo) = from_bytes(encrypt(scheme, key, *halves(*texts)))
    values = [(int(h) << 64 | int(w)) & (1 << bits) - 1 for h, w in zip(hi, lo, strict=True)]
    assert (values[0] ^ values[1]).bit_length() == (one ^ other).bit_length()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SCHEMES), st.binary(min_size=32, max_size=32), st.lists(st.ip_addresses()))
def test_decryption_reverses_encryption(scheme: Scheme, key: bytes, given: list[Any]) -> None:
    plain = halves(*map(str, given))
    key = key[:16] if scheme == "deterministic" else key
    blocks = encrypt(scheme, key, *plain)
    assert np.array_equal(decrypt(scheme, key, blocks), plain)
    assert len({block.tobytes() for block in blocks}) == len(set(zip(*plain, strict=True)))


def test_chunks_do_not_show() -> None:
    rng = np.random.default_rng(3)
    lo = rng.integers(0, 1 << 32, 70_000, np.uint64) | np.uint64(0xFFFF << 32)
    hi = np.zeros_like(lo)
    whole = cryptopan(CRYPTOPAN_KEY, hi, lo)[1]
    for rows in (slice(0, 5), slice(65_530, 65_545)):
        assert np.array_equal(cryptopan(CRYPTOPAN_KEY, hi[rows], lo[rows])[1], whole[rows])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_months_can_be_linked_and_are_not_by_default(scheme: Scheme) -> None:
    months = np.array([APRIL_2026 - 1, APRIL_2026], np.int64)
    for linked in (False, True):
        host, net = Pseudonyms(KEYS, scheme, linked).hosts(*halves(*["203.0.113.1"] * 2), months)
        assert (host[0].as_py() == host[1].as_py()) is linked
        assert (net[0].as_py() == net[1].as_py()) is linked


def test_schemes_share_no_key() -> None:
    for epoch_name in ("2026-04", "linked"):
        keys = [KEYS.subkey(epoch_name, p, s) for p in ("host", "network") for s in SCHEMES]
        assert len({key[:16] for key in keys}) == 6


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


def test_a_hostile_time_does_not_spoil_the_key_file(tmp_path: Path) -> None:
    """A packet can claim any time; a line that the key file cannot hold would cost the lake."""
    keys = Keys.create(tmp_path / "key")
    months = np.array([-(1 << 40), -30_000, -1, 0, 100_000, 1 << 40], np.int64)
    Pseudonyms(keys).hosts(*halves(*["203.0.113.1"] * 6), months)
    names = [secret.epoch for secret in Keys.load(tmp_path / "key").secrets()]
    assert names == ["0001-01", "1969-12", "1970-01", "9999-12"]


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
