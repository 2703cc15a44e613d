"""What a source could not see is no evidence: samples, one side, an exporter's own clock."""

from __future__ import annotations

from typing import Any

import pytest
from stored_rows import connect

from telemetry.features import endpoint_features
from telemetry.records import ScoredEndpoint
from telemetry.scoring import score

Rows = list[dict[str, Any]]
THRESHOLD = 0.6
IP = "198.51.100.1"
TOLD = {"active_timeout_s": 60, "idle_timeout_s": 15}


def everyone(rows: Rows) -> dict[str, ScoredEndpoint]:
    with connect(rows) as connection:
        return {e.endpoint: e for e in score(endpoint_features(connection), THRESHOLD)}


def reasons(endpoint: ScoredEndpoint) -> set[str]:
    return {reason.name for reason in endpoint.reasons}


def exchange(
    n: int = 0, ip: str = IP, port: int = 8444, peer: str = "a", **more: Any
) -> dict[str, Any]:
    """A whole TCP connection that the inside host opens, as an exporter tells it."""
    start = more.pop("at", 0.0)
    end = start + more.pop("lasts", 0.4)
    endpoint = {"ip": ip, "port": port, "flags": "SAF", "packets": 9, "bytes": 3000}
    host = {"host": peer, "port": 20000 + n, "flags": "SAF", "packets": 9, "bytes": 4000}
    return {
        "endpoint": {**endpoint, "at": start + 0.01, "until": end, **more.pop("endpoint", {})},
        "peer": {**host, "at": start, "until": end, **more.pop("other", {})},
        "exported": True,
        **more,
    }


def others(**more: Any) -> Rows:
    """Thirty inside hosts that browse, each somewhere else."""
    return [exchange(n, f"192.0.2.{n}", 443, f"host{n}", **more) for n in range(1, 31)]


def one_way(row: dict[str, Any], side: str) -> dict[str, Any]:
    """The row without what one side sent."""
    return {**row, side: {**row[side], "unknown": True}}


@pytest.mark.parametrize(
    "timeouts",
    [
        pytest.param(TOLD, id="told"),
        pytest.param({"active_timeout_s": 60}, id="active-told"),
        pytest.param({}, id="not-told"),
    ],
)
def test_an_active_timeout_is_no_beacon(timeouts: dict[str, int]) -> None:
    # A chat that stirs every few seconds for an hour and a half: records of a minute each.
    def piece(n: int) -> dict[str, Any]:
        pause = 2 + (n * 7919) % 5
        row = exchange(at=62.0 * n + pause, lasts=59.0 - pause, **timeouts)
        sides = {side: {**row[side], "flags": "A"} for side in ("endpoint", "peer")}
        return row if n == 0 else {**row, **sides}

    found = everyone([piece(n) for n in range(90)] + others())[IP]
    assert not reasons(found) & {"rhythm", "session", "sizes"}
    assert not found.listed


def test_a_beacon_in_short_records_is_still_one() -> None:
    # Each sign of life is a record of its own: the exporter's idle timeout ended the last.
    rows = [exchange(at=45.0 * n + 0.003 * (n % 7), **TOLD) for n in range(90)]
    found = everyone(rows + others())[IP]
    assert "rhythm" in reasons(found)
    assert "every 45 s" in next(r.text for r in found.reasons if r.name == "rhythm")


def test_times_in_whole_seconds_are_no_perfect_clock() -> None:
    # Polls every 4 to 5 s, of which rounding leaves 4 and 5.
    moments = [round(4.6 * n + 0.35 * ((n * 7919) % 3)) for n in range(5)]
    rounded = everyone([exchange(n, at=float(m)) for n, m in enumerate(moments)] + others())
    exact = everyone([exchange(n, at=4.6 * n) for n in range(5)] + others())
    assert rounded[IP].score < exact[IP].score


def test_samples_of_a_steady_stream_are_no_beacon() -> None:
    beats = [[10.0 * n, 10.0 * n] for n in range(200)]
    side = {"bursts": beats, "packets": 200}
    row = exchange(endpoint=side, other=side, sampling_rate=1000, exported=False)
    found = everyone([row, *others()])[IP]
    assert not reasons(found) & {"rhythm", "sizes"}


def test_calls_whose_answers_pass_elsewhere_are_not_in_vain() -> None:
    calls = [
        one_way(exchange(n, at=17 * n**1.5, other={"flags": "S", "packets": 2}), "endpoint")
        for n in range(60)
    ]
    blind = everyone(calls + [one_way(row, "endpoint") for row in others()])[IP]
    assert "retries" not in reasons(blind)
    # The same calls, where the exporter shows the answers that others get.
    seeing = everyone(calls + others())[IP]
    assert "retries" in reasons(seeing)
    sampled = [{**row, "sampling_rate": 100} for row in calls]
    assert "retries" not in reasons(everyone(sampled + others())[IP])


def test_a_share_of_bytes_needs_both_sides() -> None:
    pauses = [[60.0 * n, 60.0 * n + 5] for n in range(40)]
    side = {"bursts": pauses, "packets": 200, "bytes": 9000}
    talk = exchange(endpoint={**side, "bytes": 90}, other=side, exported=False)
    assert "session" in reasons(everyone([talk, *others()])[IP])
    halves = [one_way(exchange(n, at=9000.0 + n), "endpoint") for n in range(1, 4)]
    assert "session" not in reasons(everyone([talk, *halves, *others()])[IP])


def visitors(kind: str) -> Rows:
    """A hundred callers of one host within a second, of whom only what they send is seen."""
    return [
        {
            **one_way(exchange(n, f"198.51.100.{n}", 40000 + n, "site", at=n / 100), "peer"),
            "protocol": kind,
        }
        for n in range(100)
    ]


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_visitors_of_a_site_seen_one_way_are_no_flood(kind: str) -> None:
    rows = visitors(kind) + [one_way(row, "peer") for row in others()]
    assert not any(e.role in ("ddos", "reflector") for e in everyone(rows).values())


def test_a_crowd_of_amplifiers_is_seen_from_one_side() -> None:
    rows = [
        one_way(
            exchange(
                ip=f"198.51.100.{n}",
                port=53,
                peer="victim",
                at=n / 10,
                endpoint={"packets": 30, "bytes": 42000},
                protocol="udp",
            ),
            "peer",
        )
        for n in range(1, 40)
    ]
    found = everyone(rows + [one_way(row, "peer") for row in others()])[IP]
    assert (found.role, found.listed) == ("reflector", True)


def test_answers_seen_one_way_are_noted_but_not_listed() -> None:
    # An inside host that scans gets the same answers as one whose address was forged.
    answer = {"flags": "SA", "packets": 2, "bytes": 88}
    rows = [
        one_way(exchange(n, f"198.51.100.{n}", 80, "a", at=n / 20, endpoint=answer), "peer")
        for n in range(120)
    ]
    found = everyone(rows + [one_way(row, "peer") for row in others()])[IP]
    assert (found.role, found.listed) == ("reflector", False)
    assert found.score > 0.3
    silent = [{**row, "peer": {**row["peer"], "unknown": False, "packets": 0}} for row in rows]
    assert everyone(silent + others())[IP].listed
    # Forged calls come from any port; no host calls from port 7.
    forged = [{**row, "peer": {**row["peer"], "port": 7}} for row in rows[::20]]
    assert everyone(rows + forged + [one_way(row, "peer") for row in others()])[IP].listed


def knock(n: int, **more: Any) -> dict[str, Any]:
    """One SYN to the SMB port of a host; nothing is told of the host."""
    side = {"ip": IP, "port": 40000, "flags": "S", "at": float(n)}
    return {
        "endpoint": side,
        "peer": {"host": f"h{n}", "port": 445, "unknown": True},
        "exported": True,
        **more,
    }


def test_one_side_and_samples_make_knocks_less_sure_and_wide_scans_no_less_visible() -> None:
    blind = [one_way(row, "peer") for row in others()]
    one = everyone([knock(0), *blind])[IP]
    seen = everyone([knock(0), *others()])[IP]
    assert 0 < one.score < seen.score
    for more in ({}, {"sampling_rate": 100}):
        found = everyone([knock(n, **more) for n in range(40)] + blind)[IP]
        assert (found.role, found.listed) == ("scanner", True)


def test_samples_of_calls_that_go_on_are_no_tries() -> None:
    calls = [knock(n, sampling_rate=100) for n in range(40)]
    rest = [{**row, "endpoint": {**row["endpoint"], "flags": "A", "port": 41000}} for row in calls]
    assert not reasons(everyone(calls + rest + others())[IP]) & {"scan", "knock"}
