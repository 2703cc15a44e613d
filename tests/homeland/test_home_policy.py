"""What is home: countries, prefixes, their order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from telemetry import homeland
from telemetry.errors import SettingsError
from telemetry.homeland import (
    DOMESTIC,
    FOREIGN,
    NAMES,
    SPECIAL,
    UNALLOCATED,
    Homeland,
    parse_address,
)


def fast(home: Homeland, texts: list[str]) -> list[int]:
    hi, lo = np.array([parse_address(text) for text in texts], np.uint64).T.copy()
    return [int(c) for c in home.classify(hi, lo)]


def test_prefixes_replace_the_country_or_add_to_it() -> None:
    only = homeland.load(None, ["192.168.0.0/16"])
    assert only.class_of_text("192.168.3.4") == DOMESTIC
    assert only.class_of_text("10.0.0.1") == SPECIAL
    assert only.class_of_text("133.11.0.1") == FOREIGN
    assert only.class_of_text("102.224.0.1") == FOREIGN  # in no table, yet surely not in the prefix
    assert fast(only, ["102.224.0.1"]) == [FOREIGN]
    both = homeland.load("JP", ["192.168.0.0/16", "8.8.8.0/24"])
    for text in ("192.168.3.4", "8.8.8.8", "133.11.0.1", "64:ff9b::8.8.8.8", "2002:808:808::1"):
        assert both.class_of_text(text) == DOMESTIC
        assert fast(both, [text]) == [DOMESTIC]


def test_home_ipv4_inside_ipv6_is_home() -> None:
    home = homeland.load(None, ["192.168.0.0/16", "0.0.0.0/30"])
    texts = ["::192.168.1.5", "::ffff:0:192.168.1.5", "::2", "::", "::1"]
    expected = [DOMESTIC, DOMESTIC, DOMESTIC, SPECIAL, SPECIAL]
    assert fast(home, texts) == expected
    assert [home.class_of_text(text) for text in texts] == expected


def test_prefixes_alone_make_no_reserved_ipv6_foreign() -> None:
    home = homeland.load(None, ["192.168.0.0/16"])
    texts = {
        UNALLOCATED: ["1fff:ffff::1", "4000::1", "fe00::1", "::1:0:0", "100:0:0:2::1"],
        FOREIGN: ["2000::1", "2d00::1", "3fff:ffff::1", "2001:4860:4860::8888", "102.224.0.1"],
    }
    for expected, some in texts.items():
        assert fast(home, some) == [expected] * len(some)
        assert [home.class_of_text(text) for text in some] == [expected] * len(some)


def test_prefix_finer_than_a_64() -> None:
    home = homeland.load(None, ["2001:4860:4860::8888/127", "fe80::1/128"])
    texts = ["2001:4860:4860::8887", "2001:4860:4860::8888", "2001:4860:4860::8889", "fe80::1"]
    assert fast(home, texts) == [FOREIGN, DOMESTIC, DOMESTIC, DOMESTIC]
    assert fast(home, ["2001:4860:4860::888a", "fe80::2"]) == [FOREIGN, SPECIAL]


def test_other_countries() -> None:
    germany = homeland.load("de")
    assert germany.class_of_text("129.187.0.1") == DOMESTIC
    assert germany.class_of_text("133.11.0.1") == FOREIGN


@pytest.mark.parametrize(
    ("country", "prefixes", "says"),
    [
        (None, (), "name a home country"),
        ("XX", (), "two-letter code"),
        ("Japan", (), "two-letter code"),
        ("", (), "two-letter code"),
        (None, ("198.51.100.0/24", "198.51.100.9/24"), "number 2 has bits set behind its /24"),
        (None, ("2001:db8::1/64",), "bits set"),
        (None, ("198.51.100.0/33",), "not a prefix"),
        (None, ("198.51.100",), "not a prefix"),
        (None, ("home",), "not a prefix"),
        (None, ("",), "not a prefix"),
    ],
)
def test_refused(country: str | None, prefixes: tuple[str, ...], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        homeland.load(country, prefixes)
    assert "198.51" not in str(caught.value)
    assert "2001:db8" not in str(caught.value)


def test_missing_and_broken_tables(tmp_path: Path) -> None:
    path = tmp_path / "homeland.parquet"
    with pytest.raises(SettingsError, match="install Sekisho again"):
        homeland.load("JP", path=path)
    path.write_bytes(b"no Parquet")
    with pytest.raises(SettingsError, match="install Sekisho again"):
        homeland.load("JP", path=path)


def test_hashes_name_the_policy_and_the_data(japan: Homeland) -> None:
    one = homeland.load("JP", ["10.0.0.0/8", "2001:db8::/32"])
    same = homeland.load("jp", ["2001:DB8::/32", "10.0.0.0/8", "10.0.0.0/8"])
    other = homeland.load("JP", ["10.0.0.0/8"])
    alone = homeland.load(None, ["10.0.0.0/8"])
    assert one.policy_sha256 == same.policy_sha256
    policies = {h.policy_sha256 for h in (one, japan, other, alone)}
    assert len(policies) == 4
    assert one.table_sha256 == japan.table_sha256 == alone.table_sha256
    majority = homeland.load("JP", policy="majority")
    assert majority.policy_sha256 not in policies


def test_nothing_printed_holds_a_prefix() -> None:
    home = homeland.load(None, ["198.51.100.0/24"])
    number = str(parse_address("198.51.100.0")[1])
    for text in (repr(home), repr(home.rules), home.policy_sha256, str(home.describe())):
        assert "198.51" not in text and number not in text
    assert home.policy_sha256 not in str(home.describe())  # all prefixes are soon tried


def test_names_follow_the_numbers() -> None:
    named = (NAMES[DOMESTIC], NAMES[SPECIAL], NAMES[FOREIGN], NAMES[UNALLOCATED])
    assert named == ("domestic", "special", "foreign", "unallocated")
