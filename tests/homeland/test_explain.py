"""`homeland check`: each kind of verdict names the rule that decided."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_homeland_table import fact

from telemetry import homeland
from telemetry.errors import SettingsError
from telemetry.homeland import NAMES, Homeland, Policy
from telemetry.homeland.explain import explain
from telemetry.homeland.origins import Claim
from telemetry.homeland.policy import Rules, of_rules
from telemetry.homeland.refresh import compile_table


@pytest.mark.parametrize(
    ("address", "verdict", "rule", "words"),
    [
        ("133.11.0.1", "domestic", "sources", "Given to JP by registries, routing."),
        ("8.8.8.8", "foreign", "sources", "Given to US by registries, routing."),
        ("139.191.1.1", "foreign", "sources", "Given to BE by routing."),
        ("102.224.0.1", "unallocated", "no source", "No source gives it to any country."),
        ("10.1.1.1", "special", "special purpose", "10.0.0.0/8 (private use, RFC 1918)"),
        ("2002:850b:1::1", "domestic", "sources", "2002::/16 (6to4, RFC 3056) holds"),
        ("64:ff9b::8.8.8.8", "foreign", "sources", "64:ff9b::/96 (NAT64, RFC 6052) holds"),
        ("2001:0:102:304::f5ff:fffe", "special", "special purpose", "2001::/32 (Teredo"),
        ("::ffff:133.11.0.1", "domestic", "sources", "Given to JP"),
    ],
)
def test_each_rule_is_named(
    japan: Homeland, address: str, verdict: str, rule: str, words: str
) -> None:
    found = explain(japan.rules, address)
    assert (found.verdict, found.rule) == (verdict, rule)
    assert words in " ".join(found.because)


def test_home_prefixes_win_and_prefixes_alone_make_the_rest_foreign() -> None:
    home = homeland.load(None, ["10.0.0.0/8"])
    assert explain(home.rules, "10.1.1.1").rule == "home prefix"
    assert explain(home.rules, "2002:a01:101::").rule == "home prefix"
    assert explain(home.rules, "133.11.0.1").rule == "not home"
    assert "all other public space is foreign" in explain(home.rules, "102.224.0.1").because[-1]


@pytest.mark.parametrize(
    ("policy", "verdict"), [("any", "domestic"), ("majority", "foreign"), ("primary", "foreign")]
)
def test_the_policy_and_who_said_what_are_told(policy: Policy, verdict: str) -> None:
    claims = [[Claim(4, 0x09000000, 0x09000000, country, False)] for country in ("US", "US", "JP")]
    table = compile_table([fact(name) for name in ("a", "b", "c")], claims)
    found = explain(Rules((), "JP", policy, table), "9.0.0.0")
    assert (found.verdict, found.rule) == (verdict, "sources")
    assert found.said == {"JP": ["c"], "US": ["a", "b"]}
    assert f"policy '{policy}'" in found.because[-1]


@settings(deadline=None)
@given(st.ip_addresses())
def test_the_verdict_told_is_the_verdict_given(japan: Homeland, address: object) -> None:
    assert explain(japan.rules, str(address)).verdict == NAMES[japan.class_of_text(str(address))]


def test_not_an_address_is_refused_without_repeating_it(japan: Homeland) -> None:
    with pytest.raises(SettingsError) as caught:
        explain(japan.rules, "133.11.0.256")
    assert "133.11" not in str(caught.value)
    assert of_rules(japan.rules).table_sha256 == japan.table_sha256
