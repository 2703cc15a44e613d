"""Tables made from local files of many vendors, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdb_kit import mmdb

from telemetry import homeland
from telemetry.errors import SettingsError
from telemetry.homeland import DOMESTIC, FOREIGN, UNALLOCATED, Homeland, Policy, parse_address
from telemetry.homeland.address import MAPPED
from telemetry.homeland.origins import Claim
from telemetry.homeland.policy import Rules, of_rules
from telemetry.homeland.ranges import HomelandTable, SourceFact, read
from telemetry.homeland.refresh import compile_table, refresh

APNIC = """\
# statistics
2.3|apnic|20260627|5|19830613|20260626|+1000
apnic|*|asn|*|1|summary
apnic|*|ipv4|*|3|summary
apnic|*|ipv6|*|1|summary
apnic|JP|asn|2497|1|19970101|allocated|A1
apnic|JP|ipv4|9.0.0.0|768|19830613|allocated|A1
apnic|AU|ipv4|9.1.0.0|256|19830613|assigned|A2
apnic||ipv4|9.2.0.0|256||available|
apnic|JP|ipv6|2400:1000::|32|20000101|allocated|A1
"""
AWS = {
    "syncToken": "1",
    "createDate": "2026-11-01-00-00-00",
    "prefixes": [
        {"ip_prefix": "9.3.0.0/16", "region": "ap-northeast-1", "service": "AMAZON"},
        {"ip_prefix": "9.3.7.0/24", "region": "us-east-1", "service": "EC2"},
        {"ip_prefix": "9.3.8.0/24", "region": "ap-northeast-1", "service": "EC2",
         "network_border_group": "ap-northeast-1-tpe-1"},
        {"ip_prefix": "9.4.0.0/24", "region": "GLOBAL", "service": "CLOUDFRONT"},
        {"ip_prefix": "9.5.0.0/24", "region": "xx-moon-1", "service": "EC2"},
    ],
    "ipv6_prefixes": [{"ipv6_prefix": "2406:da14::/36", "region": "ap-northeast-3"}],
}  # fmt: skip
GCP = {
    "syncToken": "1",
    "creationTime": "2026-11-02T10:00:00",
    "prefixes": [
        {"ipv4Prefix": "9.6.0.0/24", "service": "Google Cloud", "scope": "asia-northeast2"},
        {"ipv6Prefix": "2600:1900:4050::/44", "service": "Google Cloud", "scope": "us-west1"},
    ],
}
AZURE = {
    "changeNumber": 1,
    "cloud": "Public",
    "values": [
        {"name": "AzureCloud.japanwest", "id": "AzureCloud.japanwest",
         "properties": {"region": "japanwest", "addressPrefixes": ["9.7.0.0/24"]}},
        {"name": "ActionGroup", "id": "ActionGroup",
         "properties": {"region": "", "addressPrefixes": ["9.8.0.0/24"]}},
    ],
}  # fmt: skip
VENDORS: dict[str, Any] = {
    "GeoLite2-Country": {"country": {"iso_code": "JP"}, "registered_country": {"iso_code": "US"}},
    "registered only": {"registered_country": {"iso_code": "JP"}},
    "ipinfo": {"country_code": "JP", "country": "Japan", "asn": "AS1"},
    "ipinfo old": {"country": "JP", "country_name": "Japan"},
    "iptoasn": {"country_code": "JP"},
    "camel": {"countryCode": "JP"},
}


def class_of(home: Homeland, text: str) -> int:
    hi, lo = parse_address(text)
    found = int(home.classify(np.array([hi], np.uint64), np.array([lo], np.uint64))[0])
    assert found == home.class_of_text(text)
    return found


def table_of(folder: Path, content: str | bytes, name: str = "source") -> HomelandTable:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return refresh([str(path)], [], folder / "table.parquet")


def classes(folder: Path, texts: Sequence[str]) -> list[int]:
    home = homeland.load("JP", path=folder / "table.parquet")
    return [class_of(home, text) for text in texts]


def test_registry_statistics_count_addresses_not_prefixes(tmp_path: Path) -> None:
    table = table_of(tmp_path, APNIC)
    (source,) = table.sources
    assert (source.name, source.kind, source.date, source.rows) == (
        "apnic", "registry", "2026-06-27", 3,
    )  # fmt: skip
    assert source.licence == "not stated"
    texts = ["9.0.0.0", "9.0.2.255", "9.0.3.0", "9.1.0.1", "9.2.0.1", "2400:1000::1"]
    expected = [DOMESTIC, DOMESTIC, UNALLOCATED, FOREIGN, UNALLOCATED, DOMESTIC]
    assert classes(tmp_path, texts) == expected


@pytest.mark.parametrize("name", ["afrinic", "arin", "lacnic", "ripencc"])
def test_registry_statistics_of_every_registry(tmp_path: Path, name: str) -> None:
    text = APNIC.replace("apnic", name).replace("20260627", "1782518400")
    assert table_of(tmp_path, text).sources[0].name == name
    assert table_of(tmp_path, text).sources[0].date == "2026-06-27"


@pytest.mark.parametrize(
    "change",
    [
        ("apnic|JP|ipv6|2400:1000::|32|20000101|allocated|A1\n", ""),  # cut short
        ("|768|", "|x|"),
        ("|768|", "|0|"),
        ("|768|", "|99999999999|"),
        ("|32|", "|200|"),
        ("|allocated|", "|borrowed|"),
        ("9.0.0.0", "9.0.0.300"),
        ("|JP|ipv4", "|Japan|ipv4"),
        ("|ipv6|2400", "|ipv8|2400"),
    ],
)
def test_registry_statistics_that_are_cut_or_wrong(tmp_path: Path, change: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match="get it again") as caught:
        table_of(tmp_path, APNIC.replace(*change))
    assert "9.0.0" not in str(caught.value)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("version", [4, 6])
def test_mmdb_of_every_vendor(tmp_path: Path, vendor: str, version: int) -> None:
    networks = {"9.0.0.0/23": VENDORS[vendor], "9.1.0.0/24": {"note": 1}}
    if version == 6:
        networks |= {"2400:1000::/32": VENDORS[vendor], "2400:2000::/32": {"country_code": "CN"}}
    (source,) = table_of(tmp_path, mmdb(networks, vendor, version)).sources
    assert (source.kind, source.date) == ("mmdb", "2026-05-28")
    licence = "GeoLite2 End User License Agreement" if "GeoLite2" in vendor else "not stated"
    assert source.licence == licence
    assert classes(tmp_path, ["9.0.1.255", "9.1.0.1"]) == [DOMESTIC, UNALLOCATED]
    if version == 6:
        assert classes(tmp_path, ["2400:1000::9", "2400:2000::9"]) == [DOMESTIC, FOREIGN]


def test_a_damaged_mmdb_is_refused_never_a_crash(tmp_path: Path) -> None:
    whole = mmdb({"9.0.0.0/23": {"country_code": "JP"}, "2400::/32": {"country": "JP"}}, "x")
    rng = random.Random(5)
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            table_of(tmp_path, bytes(broken))
        except SettingsError as error:
            assert "source" in str(error)  # names the file, and nothing of what is in it


@pytest.mark.parametrize(
    "text",
    [
        "9.0.0.0,9.0.1.255,JP\n2400:1000::,2400:1000:0:ffff:ffff:ffff:ffff:ffff,JP\n9.1.0.0,9.1.0.9,ZZ",
        "start,end,country\n9.0.0.0,9.0.1.255,jp\n2400:1000::,2400:1000:0:ffff:ffff:ffff:ffff:ffff,JP",
        "network,country\n9.0.0.0/23,JP\n2400:1000::/48,JP",
        "# feed\n9.0.0.0/23,JP,JP-13,Tokyo,\n2400:1000::/48,JP,,,\n9.1.0.0/24,,,,\n",
        '"150994944","150995455","JP","Japan"\n'
        '"47852532366810629851263837326112980992","47852532366811838777083451955287687167","JP","Japan"',
    ],
    ids=["ranges", "header", "prefixes", "geofeed", "decimal numbers"],
)  # fmt: skip
def test_text_of_many_forms(tmp_path: Path, text: str) -> None:
    (source,) = table_of(tmp_path, text).sources
    assert source.kind == ("geofeed" if "Tokyo" in text else "csv")
    texts = ["9.0.1.255", "9.0.2.0", "9.1.0.1"]
    assert classes(tmp_path, texts) == [DOMESTIC, UNALLOCATED, UNALLOCATED]
    assert classes(tmp_path, ["2400:1000::1"]) == [DOMESTIC]


@pytest.mark.parametrize(
    "line",
    ["8.0.0.9,8.0.0.0,US", "8.0.0.0,2400::,US", "8.0.0.0,8.0.0.9,USA", "8.0.0.0,8.0.0.9",
     "here,there,US", "8.0.0.1/24,US", "8.0.0.0/33,US", "8.0.0.0"],
)  # fmt: skip
def test_text_with_a_bad_line_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError, match="line 2 ") as caught:
        table_of(tmp_path, f"8.0.1.0,8.0.1.255,US\n{line}\n")
    assert "8.0.0" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\0\1\2", b"{}", b'{"createDate": 1}', b"[1]", b"{"])
def test_what_is_no_source_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SettingsError, match="source"):
        table_of(tmp_path, content)


def test_missing_files_and_too_many_licences(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="check its name"):
        refresh([str(tmp_path / "none")], [], tmp_path / "table.parquet")
    with pytest.raises(SettingsError, match="--licence"):
        refresh(["a", "b", "c"], ["x", "y"], tmp_path / "table.parquet")
    with pytest.raises(SettingsError, match="Name 1 to 32"):
        refresh([], [], tmp_path / "table.parquet")


def test_clouds_say_where_their_regions_lie(tmp_path: Path) -> None:
    sources = []
    for name, content in (("a", AWS), ("g", GCP), ("m", AZURE)):
        (tmp_path / name).write_text(json.dumps(content))
        sources.append(str(tmp_path / name))
    table = refresh(sources, [], tmp_path / "table.parquet")
    assert [(s.name, s.kind, s.date) for s in table.sources] == [
        ("aws", "cloud", "2026-11-01"),
        ("gcp", "cloud", "2026-11-02"),
        ("azure", "cloud", "not stated"),
    ]
    home = ["9.3.0.1", "2406:da14::1", "9.6.0.1", "9.7.0.1"]
    abroad = ["9.3.7.1", "9.3.8.1", "2600:1900:4050::1"]
    silent = ["9.4.0.1", "9.5.0.1", "9.8.0.1"]
    expected = [DOMESTIC] * 4 + [FOREIGN] * 3 + [UNALLOCATED] * 3
    assert classes(tmp_path, home + abroad + silent) == expected


def test_equal_files_give_equal_bytes_whatever_they_are_called(tmp_path: Path) -> None:
    made = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.txt").write_text(APNIC)
        (tmp_path / folder / f"{folder}.json").write_text(json.dumps(AWS))
        into = tmp_path / folder / "table.parquet"
        files = [tmp_path / folder / f"{folder}.txt", tmp_path / folder / f"{folder}.json"]
        refresh([str(file) for file in files], [], into)
        made.append(into.read_bytes())
    assert made[0] == made[1]


def test_names_and_licences_are_recorded(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"9.0.{len(name)}.0/24,JP\n")
    (tmp_path / "three").write_text("9.9.0.0/24,US\n")
    sources = [f"held={tmp_path / 'one'}", f"held={tmp_path / 'two'}", str(tmp_path / "three")]
    table = refresh(sources, ["X", "X", "Y"], tmp_path / "table.parquet")
    assert [(s.name, s.rows, s.licence) for s in table.sources] == [
        ("held", 2, "X"),
        ("csv", 1, "Y"),
    ]
    with pytest.raises(SettingsError, match="differ in kind or licence"):
        refresh(sources, ["X", "Z", "Y"], tmp_path / "table.parquet")


def test_ipv6_finer_than_a_64_is_said_by_its_source_beside_what_else_it_says(
    tmp_path: Path,
) -> None:
    table_of(
        tmp_path, "2400::/32,JP\n2400::1/128,US\n2400:0:0:1::/64,US\n2401::5/128,JP\n2401::/32,US"
    )
    texts = ["2400::1", "2400::2", "2400:0:0:1::1", "2401::9", "2401:0:0:1::1"]
    expected = [DOMESTIC, DOMESTIC, FOREIGN, DOMESTIC, FOREIGN]
    assert classes(tmp_path, texts) == expected


def test_the_narrower_range_of_one_source_counts(tmp_path: Path) -> None:
    table_of(tmp_path, "9.0.0.0/8,JP\n9.0.0.0/16,US\n9.0.5.0/24,JP\n9.255.0.0/16,US\n9.0.5.0/24,CN")
    texts = ["9.1.0.0", "9.0.0.1", "9.0.5.1", "9.0.6.1", "9.255.255.255", "10.0.0.0"]
    found = classes(tmp_path, texts)
    assert found[:5] == [DOMESTIC, FOREIGN, DOMESTIC, FOREIGN, FOREIGN]
    table = read(tmp_path / "table.parquet")
    assert table.said_of(int(ip_address("9.0.5.1")), 4) == {"JP": 1, "CN": 1}


# --- laws -------------------------------------------------------------------------------------

COUNTRY = st.sampled_from(["JP", "US", "CN"])
CLAIMS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 60), st.integers(0, 20), COUNTRY).map(
            lambda t: Claim(4, t[0], t[0] + t[1], t[2], False)
        ),
        st.tuples(st.integers(0, 60), st.integers(0, 20), COUNTRY, st.booleans()).map(
            lambda t: Claim(6, (0x2400 << 48) + t[0], (0x2400 << 48) + t[0] + t[1] * (not t[3]),
                            t[2], t[3])
        ),
    ),
    max_size=12,
)  # fmt: skip
SOURCES = st.lists(CLAIMS, min_size=1, max_size=5)
POLICIES: list[Policy] = ["any", "majority", "primary"]


def said(claims: list[Claim], family: int, key: int) -> set[str]:
    """What one source says of an address, by the rules as they are written."""
    here = [c for c in claims if c.family == family and c.start <= key <= c.end]
    found = {c.country for c in here if c.finer}
    coarse = [c for c in here if not c.finer]
    if coarse:
        narrow = min(c.end - c.start for c in coarse)
        narrowest = [c for c in coarse if c.end - c.start == narrow]
        latest = max(c.start for c in narrowest)
        found |= {c.country for c in narrowest if c.start == latest}
    return found


def verdict(policy: str, words: list[set[str]]) -> int:
    speakers = [w for w in words if w]
    if not speakers:
        return UNALLOCATED
    homes = ["JP" in w for w in speakers]
    home = {
        "any": any(homes),
        "majority": any(homes) and 2 * sum(homes) >= len(homes),
        "primary": homes[0],
    }[policy]
    return DOMESTIC if home else FOREIGN


def compiled(sources: list[list[Claim]]) -> HomelandTable:
    facts = [
        SourceFact(f"s{n}", "csv", "0" * 64, "not stated", len(s), "not stated")
        for n, s in enumerate(sources)
    ]
    return compile_table(facts, sources)


@settings(deadline=None, max_examples=60)
@given(SOURCES, st.sampled_from(POLICIES))
def test_any_claims_and_policy_give_what_the_rules_say(
    sources: list[list[Claim]], policy: Policy
) -> None:
    table = compiled(sources)
    home = of_rules(Rules((), "JP", policy, table))
    base = 0x2400 << 48
    # Special-purpose 0.0.0.0/8 lies above what is generated, so rules are asked below it.
    for key in range(0, 85):
        words = [said(s, 4, key) for s in sources]
        masks = table.said_of(key, 4)
        assert masks == {
            c: sum(1 << n for n, w in enumerate(words) if c in w) for c in set().union(*words)
        }
        assert home.rules._by_country(key, 4) == verdict(policy, words)
    keys = np.arange(base, base + 85, dtype=np.uint64)
    found = home.classify(keys, np.full(len(keys), 7, np.uint64)).tolist()
    assert found == [verdict(policy, [said(s, 6, base + n) for s in sources]) for n in range(85)]
    assert found == [home.rules.class_of((base + n) << 64 | 7) for n in range(85)]


@settings(deadline=None, max_examples=60)
@given(SOURCES, st.sampled_from(POLICIES))
def test_compiled_look_up_equals_slow_rules_for_any_table_and_policy(
    sources: list[list[Claim]], policy: Policy
) -> None:
    moved = [
        [c._replace(start=c.start + 0x09000000, end=c.end + 0x09000000) if c.family == 4 else c
         for c in claims]
        for claims in sources
    ]  # fmt: skip
    home = of_rules(Rules((), "JP", policy, compiled(moved)))
    numbers = [MAPPED + 0x09000000 + n for n in range(-2, 85)]
    lo = np.array(numbers, np.uint64)
    assert home.classify(np.zeros(len(lo), np.uint64), lo).tolist() == [
        home.rules.class_of(number) for number in numbers
    ]


@settings(deadline=None, max_examples=60)
@given(SOURCES, st.randoms())
def test_the_order_of_lines_does_not_matter(sources: list[list[Claim]], rng: random.Random) -> None:
    shuffled = [rng.sample(claims, len(claims)) for claims in sources]
    assert compiled(sources).sha256 == compiled(shuffled).sha256


def test_a_bad_first_line_is_no_header(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="line 1 "):
        table_of(tmp_path, "8.0.0.300,8.0.1.255,US\n8.0.1.0,8.0.1.255,US\n")
