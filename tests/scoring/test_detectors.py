"""What endpoints do, written as records, and what they are called for it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import pytest
from stored_rows import connect

from telemetry.features import endpoint_features
from telemetry.records import ScoredEndpoint
from telemetry.scoring import score

Rows = list[dict[str, Any]]
THRESHOLD = 0.6


def call(
    ip: str = "198.51.100.1",
    port: int = 8444,
    host: str = "a",
    times: int = 40,
    every: float = 60,
    protocol: str = "tcp",
    **more: Any,
) -> dict[str, Any]:
    """An inside host calls, sends 400 bytes and gets 300, again and again."""
    flags = {"flags": "SAF"} if protocol == "tcp" else {}
    endpoint = {"ip": ip, "port": port, "bytes": 300, "packets": 3, "at": 0.1, "until": 0.4}
    peer = {"host": host, "port": 20000, "bytes": 400, "packets": 4, "at": 0, "until": 0.3}
    return {
        "endpoint": {**endpoint, **flags, **more.get("endpoint", {})},
        "peer": {**peer, **flags, **more.get("peer", {})},
        "protocol": protocol,
        "repeat": {"times": times, "every": every},
    }


def other_hosts(number: int) -> Rows:
    """Inside hosts that browse, each somewhere else."""
    return [call(f"192.0.2.{n % 256}", 443, f"host{n}", times=1) for n in range(number)]


def scored(rows: Rows, ip: str = "198.51.100.1") -> ScoredEndpoint:
    with connect(rows) as connection:
        result = score(endpoint_features(connection), THRESHOLD)
    return next(endpoint for endpoint in result if endpoint.endpoint == ip)


def test_a_beacon_to_an_odd_port_is_listed_with_its_numbers() -> None:
    found = scored([call(), *other_hosts(30)])
    assert (found.role, found.listed) == ("c2", True)
    assert found.reasons[0].name == "rhythm"
    assert "every 60 s ± 0 s, 40 times" in found.reasons[0].text
    texts = {reason.name: reason.text for reason in found.reasons}
    assert texts["sizes"].startswith("40 conversations of like size: 400 bytes sent ± 0 %")
    assert "1 of 31 inside hosts" in texts["few_hosts"]
    assert "8444" in texts["odd_port"]


def later(days: float, times: int = 1) -> dict[str, Any]:
    """The endpoint of `call`, so many days later: once a day it reads a page of an inside site."""
    begin = 86400 * days
    return call(times=times, every=86400,
                endpoint={"port": 50000, "at": begin, "until": begin + 0.3, "packets": 9},
                peer={"port": 443, "at": begin + 0.1, "until": begin + 0.4})  # fmt: skip


def probes(days: float, number: int) -> Rows:
    """The same endpoint tries doors, so many days later."""
    at = 86400 * days
    return [
        {"endpoint": {"ip": "198.51.100.1", "port": 40000, "flags": "S", "at": at + n},
         "peer": {"host": f"host{n}", "port": 23, "packets": 0}}
        for n in range(number)
    ]  # fmt: skip


@pytest.mark.parametrize("acts", [[call()], probes(0, 25)], ids=["beacon", "scan"])
def test_what_it_did_counts_for_thirty_days_on_which_it_is_seen(acts: Rows) -> None:
    found = {n: scored([*acts, later(1, n), *other_hosts(30)]) for n in (1, 29, 30)}
    assert found[1].listed
    assert found[29].listed
    assert not found[30].listed
    assert found[30].last_seen > found[29].last_seen


def test_a_broken_clock_or_a_late_visit_takes_nothing_away() -> None:
    alone = scored([call(), *other_hosts(30)])
    for days in (400, 25_000):
        found = scored([call(), later(days), *other_hosts(30)])
        assert found.score == pytest.approx(alone.score, abs=0.01)


def test_what_is_done_now_counts_whatever_was_done_before() -> None:
    fresh = {"at": 60 * 86400, "until": 60 * 86400 + 0.3}
    now = call(host="b", times=30, endpoint=fresh, peer=fresh)
    for before in ([call(times=60)], [call(times=60), later(1, 40)]):
        assert scored([*before, now, *other_hosts(30)]).listed


def test_a_stray_packet_does_not_bring_back_what_counts_no_more() -> None:
    old = [*probes(0, 25), later(1, 31), *other_hosts(30)]
    assert not scored([*old, *probes(33, 1)]).listed
    assert scored([*old, *probes(33, 25)]).listed


def over_days(number: int, **more: Any) -> Rows:
    """An inside host that browses the same place once a day."""
    return [call("192.0.2.200", 443, "reader", times=number, every=86400, **more)]


def test_an_endpoint_that_comes_late_to_a_long_lake_counts_a_little_more() -> None:
    late = {"at": 12 * 86400 + 5, "until": 12 * 86400 + 5.3}
    beacon = call(port=443, every=150, endpoint=late, peer=late)
    known = call(port=443, every=86400, times=2)  # met on the first day already
    new = scored([beacon, *over_days(13), *other_hosts(30)])
    old = scored([beacon, known, *over_days(13), *other_hosts(30)])
    texts = {reason.name: reason.text for reason in new.reasons}
    assert texts["first_seen"] == "first seen after 12 days of records without it"
    assert "first_seen" not in {reason.name for reason in old.reasons}
    share = {reason.name: reason.contribution for reason in new.reasons}
    assert 0 < share["first_seen"] < share["rhythm"] / 2
    steady = scored([*over_days(40), *other_hosts(30)], "192.0.2.200")
    assert "first_seen" not in {reason.name for reason in steady.reasons}


@pytest.mark.parametrize(
    ("days", "moved"),
    [
        pytest.param(1, 0, id="hours"),
        pytest.param(3, 0, id="two-days-before"),
        pytest.param(13, 400, id="records-of-another-year"),
    ],
)
def test_without_enough_records_before_it_nobody_is_new(days: int, moved: int) -> None:
    start = (days - 1 + moved) * 86400 + 3600.0
    late = {"at": start, "until": start + 0.3}
    found = scored([call(endpoint=late, peer=late), *over_days(days), *other_hosts(30)])
    alone = scored([call(), *other_hosts(31)])
    assert found.score == alone.score


def test_a_sensor_that_began_late_makes_nobody_new() -> None:
    late = {"at": 12 * 86400.0, "until": 12 * 86400 + 0.3}
    there = {**call(endpoint=late, peer=late), "sensor": "elsewhere"}
    found = scored([there, *over_days(13), *other_hosts(30)])
    assert "first_seen" not in {reason.name for reason in found.reasons}


def test_signs_of_life_inside_one_connection_are_a_beacon_too() -> None:
    beats = [[30 * n, 30 * n + 0.1] for n in range(40)]
    side = {"bursts": beats, "packets": 80, "bytes": 4000}
    found = scored([call(times=1, endpoint=side, peer=side), *other_hosts(30)])
    assert (found.role, found.listed) == ("c2", True)
    assert {"rhythm", "session"} <= {reason.name for reason in found.reasons}


def held(*hours: tuple[int, int], size: int = 1200, hidden: str = "") -> Rows:
    """One connection to an odd port, as an exporter tells of it: a record each half hour."""
    # A first answer, both ways seen whatever is hidden later.
    records = [call(port=4001, times=1, every=0)] if hidden else []
    for begin, end in hours:
        for half in range(2 * begin, 2 * end):
            side = {"packets": 20, "bytes": size, "at": 1800 * half, "until": 1800 * half + 1799.5}
            row = call(port=4001, times=1, endpoint={**side, "flags": "A"}, peer=side)
            if hidden:
                row[hidden] = {
                    key: row[hidden][key] for key in ("ip", "host", "port") if key in row[hidden]
                }
                row[hidden]["unknown"] = True
            records.append(row)
    return [*records, *other_hosts(500)]


def held_for(rows: Rows) -> float:
    """What a connection that is held gives to the score."""
    found = scored(rows)
    return sum(reason.contribution for reason in found.reasons if "at a stretch" in reason.text)


def test_a_connection_held_day_and_night_counts() -> None:
    found = scored(held((0, 24)))
    assert found.role == "c2"
    session = next(reason for reason in found.reasons if reason.name == "session")
    assert session.text.endswith(
        "held port 4001 open for 24 h at a stretch, with 4,800 bytes an hour"
    )
    assert held_for(held((0, 24))) > held_for(held((0, 16))) > 0


def test_who_holds_a_connection_is_listed_only_if_that_is_new() -> None:
    gadget = held((0, 48))
    assert not scored(gadget).listed
    assert scored([*held((240, 288)), *over_days(13)]).listed


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(held((0, 6)), id="an-afternoon"),
        pytest.param(held((0, 5), (24, 29), (48, 53), (72, 77), (96, 101)), id="a-week-at-work"),
        pytest.param(held((0, 48), size=40_000_000), id="a-stream"),
        pytest.param(held((0, 48), size=40_000_000, hidden="endpoint"), id="a-stream-one-way"),
        pytest.param(held((0, 48), hidden="endpoint"), id="half-of-it-unknown"),
    ],
)
def test_what_people_and_programs_hold_does_not_count(rows: Rows) -> None:
    assert not held_for(rows)


def asked(
    size: int, times: int, ip: str = "198.51.100.1", host: str = "a", at: float = 0, **more: Any
) -> dict[str, Any]:
    """An inside host asks for names in packets of so many bytes, headers included."""
    endpoint = {"bytes": 120, "packets": 1, "at": at + 0.1, "until": at + 0.1}
    peer = {"bytes": size, "packets": 1, "at": at, "until": at, **more.get("peer", {})}
    return call(ip, 53, host, times, 6, "udp", endpoint=endpoint, peer=peer)


def pinged(
    mean: int,
    longest: int,
    packets: int = 400,
    reply: int | None = None,
    ip: str = "198.51.100.1",
    kind: int = 8,
) -> dict[str, Any]:
    """An inside host pings; sizes hold the headers."""

    def side(size: int) -> dict[str, Any]:
        return {"packets": packets, "bytes": packets * size, "max_bytes": longest,
                "until": packets}  # fmt: skip

    return {"endpoint": {"ip": ip, "port": kind, "at": 0.1, **side(reply or mean)},
            "peer": {"host": "a", "port": 0, **side(mean)}, "protocol": "icmp"}  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([asked(228, 300)], "300 names in questions of 200 bytes or so, 100 % of its questions"),
        ([asked(228, 300), asked(78, 300, at=1)], "50 % of its questions there"),
        # Harmless pings do not hide the names, nor other servers that are asked once.
        ([asked(228, 300), pinged(828, 828, 4000)], "300 names"),
        ([asked(228, 300), *(asked(78, 1, f"192.0.2.{n}") for n in range(20))], "300 names"),
        ([pinged(206, 1061)], "pinged it 400 times, with 178 bytes on average (1,033 at most)"),
        ([pinged(128, 700, reply=600)], "100 bytes on average (672 at most) and 572 bytes"),
    ],
    ids=["names", "half-of-them", "and-pings", "and-others", "sizes-of-pings", "longer-echoes"],
)
def test_tunnels_through_names_and_pings_are_listed(rows: Rows, text: str) -> None:
    found = scored([*rows, *other_hosts(30)])
    assert (found.role, found.listed) == ("c2", True), found.reasons
    [told] = [reason.text for reason in found.reasons if reason.name == "covert"]
    assert text in told


@pytest.mark.parametrize(
    "rows",
    [
        [asked(78, 3000)],
        [asked(78, 3000), asked(288, 60, at=1)],
        [asked(228, 60)],
        [asked(160, 3000)],
        # A page full of long names: at once, whatever else is asked.
        [asked(228, 500) | {"repeat": {"times": 500, "every": 0.5}}, *other_hosts(100)],
        [asked(228, 150), *(asked(78, 100, f"192.0.2.{n}") for n in range(60))],
        [asked(228, 300, host=f"h{n}") for n in range(20)],
        # A forged question to a service of the host looks like an answer, but comes first.
        [asked(228, 300, peer={"at": 0.2, "until": 0.2})],
        [asked(228, 300, peer={"port": 161})],
        [{**asked(228, 300), "sampling_rate": 100}],
        [pinged(28, 28)],
        [pinged(84, 84, 9000)],
        [pinged(1028, 1028)],
        [pinged(88, 1500)],
        [pinged(750, 1400, 28)],
        [pinged(128, 128, reply=96)],
        [{**pinged(84, 84), "endpoint": {**pinged(206, 1428, 460)["endpoint"]}}],
        [pinged(206, 1061, kind=3)],
    ],
    ids=[
        *("short-names", "a-few-long", "sixty-long", "hashes", "a-page"),
        *("a-resolver", "many-ask-it"),
        *("forged", "of-a-service", "sampled"),
        *("empty-pings", "pings", "long-pings", "one-long-ping", "path-mtu"),
        *("echoes-cut-short", "more-echoes", "no-echoes"),
    ],
)
def test_names_and_pings_of_usual_sizes_are_no_tunnel(rows: Rows) -> None:
    found = scored([*rows, *other_hosts(30)])
    assert not found.listed, found.reasons
    assert found.score < 0.45


def test_a_public_resolver_is_not_listed_for_what_passes_through_it() -> None:
    rows = [asked(228, 300, "9.9.9.9"), pinged(206, 1061, ip="9.9.9.9"), *other_hosts(30)]
    assert "covert" not in {reason.name for reason in scored(rows, "9.9.9.9").reasons}


def polls(port: int, every: float) -> Rows:
    """It calls an inside host, each time up to a third of the interval late."""
    rows, at, dice = [], 0.0, random.Random(5)
    for n in range(60):
        times = {"at": at, "until": at + 0.3}
        rows.append(call(times=1, endpoint={**times, "port": 40000 + n, "packets": 9},
                         peer={"at": at + 0.1, "until": at + 0.4, "port": port}))  # fmt: skip
        at += every * dice.uniform(1, 1.33)
    return rows


def test_a_page_that_polls_a_site_inside_is_not_listed() -> None:
    assert not scored([*polls(443, 10), *other_hosts(30)]).listed
    assert scored([*polls(443, 200), *other_hosts(30)]).score > 0.5
    assert scored([*polls(8444, 10), *other_hosts(30)]).listed


@pytest.mark.parametrize(
    ("port", "up", "down", "stretches", "hosts", "listed"),
    [
        pytest.param(80, 300, 400, 20, 5, True, id="requests"),
        pytest.param(80, 300, 120, 20, 5, False, id="unanswered"),
        pytest.param(80, 110, 110, 40, 5, False, id="keep-alives"),
        pytest.param(80, 300, 400, 7, 5, False, id="few"),
        # 2 kB up and 5 kB down, and twelve pings of a WebSocket.
        pytest.param(443, 280, 530, 12, 5, False, id="greetings"),
        pytest.param(8080, 300, 400, 20, 5, True, id="requests-elsewhere"),
        pytest.param(443, 500, 900, 30, 5, True, id="requests-after-greetings"),
        pytest.param(443, 20_000, 1_500_000, 30, 5, False, id="video"),
        pytest.param(80, 300, 400, 20, 100, False, id="among-a-hundred"),
    ],
)
def test_requests_in_one_connection_count_like_one_connection_each(
    port: int, up: int, down: int, stretches: int, hosts: int, listed: bool
) -> None:
    bursts = [[5 * n, 5 * n + 0.1] for n in range(stretches)]

    def side(size: int) -> dict[str, Any]:
        return {"bursts": bursts, "packets": 2 * stretches, "bytes": size * stretches}

    rows = [call(port=port, times=1, endpoint=side(down), peer=side(up)), *other_hosts(hosts)]
    found = scored(rows)
    assert found.reasons[0].name == "rhythm"
    assert found.listed == listed


def test_a_timer_of_three_minutes_on_a_web_port_is_listed_and_one_of_five_is_not() -> None:
    assert scored([call(port=443, times=60, every=200), *other_hosts(5)]).listed
    assert not scored([call(port=443, times=60, every=300), *other_hosts(5)]).listed


def test_large_stretches_inside_one_connection_are_judged_by_themselves() -> None:
    # A connection is long and large as a whole, whatever its stretches are.
    bursts = [[60 * n, 60 * n + 0.2] for n in range(40)]
    sides = {"bursts": bursts, "packets": 80, "bytes": 40 * 4000}
    assert scored([call(times=1, endpoint=sides, peer=sides), *other_hosts(5)]).listed


def test_a_page_that_waits_for_answers_has_a_jitter_of_its_own() -> None:
    def polled(every: float) -> Rows:
        rows, at, dice = [], 0.0, random.Random(3)
        for n in range(150):
            at += every * dice.uniform(0.75, 1.25)
            sides = {"at": at, "until": at + 0.1}
            rows.append(call(port=443, times=1, endpoint=sides, peer={**sides, "port": 20000 + n}))
        return rows

    assert not scored([*polled(2.5), *other_hosts(400)]).listed
    assert scored([*polled(25), *other_hosts(400)]).listed


def in_turn(up: int, down: int, lasts: float, pause: float, times: int = 60) -> Rows:
    """Calls of which each lasts about so long, and so long after which the next one comes."""
    rows, at, dice = [], 0.0, random.Random(11)
    for n in range(times):
        ended = at + lasts * dice.uniform(0.85, 1.15)
        sides = {
            side: {"at": at, "until": ended, "bytes": size, "packets": 4 + size // 1400}
            for side, size in (("endpoint", down), ("peer", up))
        }
        sides["peer"]["port"] = 20000 + n
        rows.append(call(port=443, times=1, **sides))
        at = ended + pause
    return rows


@pytest.mark.parametrize(
    ("calls", "listed"),
    [
        pytest.param(in_turn(700, 800_000, 0.6, 3.4), False, id="video"),
        pytest.param(in_turn(8_000_000, 4600, 3.3, 0.1), False, id="parts-of-a-backup"),
        pytest.param(in_turn(700, 25_000, 1.5, 1.0), False, id="crawler"),
        pytest.param(in_turn(700, 25_000, 1.5, 8.5), True, id="one-that-waits"),
        pytest.param(in_turn(100_000, 600, 0.8, 9.2), True, id="pictures-of-a-screen"),
        pytest.param(in_turn(700, 600, 60.0, 0.1), True, id="held-open-and-quiet"),
    ],
)
def test_pieces_of_something_large_are_no_beacon(calls: Rows, listed: bool) -> None:
    assert scored([*calls, *other_hosts(5)]).listed == listed


def test_quick_calls_by_chance_are_no_beacon() -> None:
    # Pauses of more than a second, as chance has them: only those count.
    for seed in range(12):
        dice, at, rows = random.Random(seed), 0.0, []
        for n in range(80):
            at += 1 + dice.expovariate(1)
            sides = {"at": at, "until": at + 0.05}
            rows.append(call(times=1, endpoint=sides, peer={**sides, "port": 20000 + n}))
        found = scored([*rows, *other_hosts(5)])
        assert "rhythm" not in {reason.name for reason in found.reasons}


def test_a_jittered_beacon_is_listed() -> None:
    # Cobalt Strike's jitter of 30 %: gaps between 70 and 100 s, from a fixed sequence.
    rows, moment = [], 0.0
    for n in range(60):
        moment += 70 + 30 * ((n * 7919) % 97) / 97
        times = {"at": moment, "until": moment + 0.3}
        rows.append(call(times=1, endpoint=times, peer={**times, "port": 20000 + n}))
    found = scored(rows + other_hosts(30))
    assert (found.role, found.listed) == ("c2", True)


def calls_at(moments: Iterable[float]) -> Rows:
    """The same call at each of the moments."""
    rows = []
    for number, at in enumerate(moments):
        times = {"at": at, "until": at + 0.3}
        rows.append(call(times=1, endpoint=times, peer={**times, "port": 20000 + number}))
    return rows


def test_what_chance_makes_of_many_series_is_no_beacon() -> None:
    def regularity(rows: Rows) -> float:
        with connect(rows) as connection:
            for row in endpoint_features(connection).to_pylist():
                if row["endpoint_ip"] == "198.51.100.1":
                    return float(row["rhythm_regularity"])
        raise AssertionError("not there")

    def crowd(number: int) -> Rows:
        return [call("192.0.2.9", 443, f"h{n}", times=4, every=9000) for n in range(number)]

    rough = calls_at(accumulate([0.0, 3000, 3600, 2700, 3300, 3100, 2200, 3000]))
    among_few = regularity([*rough, *crowd(99)])
    assert 0.3 < among_few < 0.9
    # Sixteen times as many series cost half of four bits, of the fourteen from chance to certain.
    assert regularity([*rough, *crowd(1599)]) == pytest.approx(among_few - 2 / 14)
    # A scanner's calls are no series of anybody's.
    knocks = [knock(f"x{n}", 23, at, "198.51.100.9") for n in range(1500) for at in (0, 9, 18, 27)]
    assert regularity([*rough, *crowd(99), *knocks]) == among_few
    assert regularity([call(), *crowd(1599)]) == 1


def test_a_busy_channel_keeps_no_time_by_what_is_left_out_of_it() -> None:
    # Four calls a second by chance: the few gaps above a second lie close together.
    dice = random.Random(7)
    busy = calls_at(accumulate(dice.expovariate(4) for _ in range(2000)))
    assert not scored([*busy, *other_hosts(30)]).listed


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([call(port=123, protocol="udp", every=64, times=200)], id="clock"),
        pytest.param([call(port=53, protocol="udp", every=30, times=200)], id="names"),
        pytest.param([call(port=443, every=900, times=90)], id="update-check"),
        pytest.param([call(port=443, every=1800, times=40)], id="mail-or-telemetry"),
        pytest.param([call(port=50004, protocol="udp", every=60)], id="voice"),
        pytest.param(
            [
                call(
                    port=5228,
                    times=1,
                    endpoint={"bursts": [[28 * 60 * n, 28 * 60 * n + 1] for n in range(30)]},
                    peer={"bursts": [[28 * 60 * n, 28 * 60 * n + 1] for n in range(30)]},
                )
            ],
            id="push",
        ),
        pytest.param([call(port=443, every=60, host=f"host{n}") for n in range(20)], id="popular"),
        pytest.param(
            [call(port=443, every=37.7 * n**2, times=2) for n in range(1, 9)], id="browsing"
        ),
    ],
)
def test_the_rhythms_of_harmless_software_are_not_listed(rows: Rows) -> None:
    found = scored(rows + other_hosts(30))
    assert not found.listed, found.reasons


def test_among_a_thousand_hosts_only_a_timer_that_wanders_is_listed() -> None:
    many = [call(f"192.0.{n // 200}.{n % 200 + 1}", 443, f"h{n}", times=1) for n in range(1000)]
    exact = [call(port=443)]
    assert scored([*exact, *other_hosts(30)]).listed
    assert not scored([*exact, *many]).listed
    wandering = []
    for n in range(40):
        at = 60 * n + random.Random(n).uniform(-12, 12)
        times = {"at": at, "until": at + 0.3}
        wandering.append(call(port=443, times=1, endpoint=times, peer={**times, "port": 20000 + n}))
    found = scored([*wandering, *many])
    assert (found.role, found.listed) == ("c2", True)


def test_calls_that_never_give_up_on_a_dead_server_are_listed() -> None:
    dead = {"packets": 0}
    # Impatient and patient by turns: no rhythm, only persistence.
    rows = [
        call(
            port=5556,
            times=1,
            endpoint=dead,
            peer={"at": 17 * n**1.5, "until": 17 * n**1.5, "flags": "S", "port": 20000 + n},
        )
        for n in range(60)
    ]
    found = scored(rows + other_hosts(30))
    assert (found.role, found.listed) == ("c2", True)
    assert "retries" in {reason.name for reason in found.reasons}


def test_the_victim_of_a_flood_from_inside_is_not_listed() -> None:
    dead = {"packets": 0}
    rows = [call(port=80, times=900, every=0.02, endpoint=dead, peer={"flags": "S"})]
    assert not scored(rows + other_hosts(30)).listed


def test_the_victims_of_a_scanner_inside_are_not_listed() -> None:
    rows = [
        call(f"198.51.100.{n}", 23, times=3, every=3, endpoint={"packets": 0}, peer={"flags": "S"})
        for n in range(1, 200)
    ]
    with connect(rows) as connection:
        assert not any(e.listed for e in score(endpoint_features(connection), THRESHOLD))


def knock(host: str, port: int, at: float = 0, ip: str = "198.51.100.1") -> dict[str, Any]:
    """The endpoint sends one SYN."""
    return {
        "endpoint": {"ip": ip, "port": 40000, "flags": "S", "at": at},
        "peer": {"host": host, "port": port, "packets": 0},
    }


def acknowledged(packets: int, **more: Any) -> Rows:
    """It acknowledges what was never said, at eight hosts, and is reset."""
    return [
        {"endpoint": {"ip": "198.51.100.1", "port": 40000, "flags": "A", "at": n,
                      "packets": packets},
         "peer": {"host": f"h{n}", "port": 80, "flags": "R", "at": n + 0.01}, **more}
        for n in range(8)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([knock(f"h{n}", 445, n) for n in range(6)], id="horizontal"),
        pytest.param([knock("a", 1000 + 7 * n, n) for n in range(10)], id="vertical"),
        pytest.param([knock(f"h{n % 5}", 20 + n // 5, n) for n in range(25)], id="block"),
        pytest.param([knock(f"h{n}", 22, 21600 * n) for n in range(8)], id="slow"),
        pytest.param(acknowledged(1), id="acknowledgements-of-nothing"),
    ],
)
def test_scans_are_listed(rows: Rows) -> None:
    found = scored(rows + other_hosts(5))
    assert (found.role, found.listed) == ("scanner", True)
    assert found.reasons[0].name == "scan"


@pytest.mark.parametrize(
    "rows", [acknowledged(9), acknowledged(1, sampling_rate=100)], ids=["talk", "samples"]
)
def test_the_rest_of_a_connection_is_no_scan(rows: Rows) -> None:
    assert not scored(rows + other_hosts(5)).listed


def clients(answered: int, lost: int, port: int, hosts: int = 2) -> Rows:
    """It calls services inside; so many calls get no answer."""
    rows: Rows = []
    dice = random.Random(3)
    for n in range(answered + lost):
        at = dice.uniform(0, 86400)
        endpoint = {"ip": "198.51.100.1", "port": 40000 + n, "at": at, "until": at + 0.3}
        peer = {"host": f"h{n % hosts}", "port": port, "at": at + 0.1, "until": at + 0.4}
        if port == 53:
            asks = endpoint | {"payload": 12}
            rows.append({"endpoint": asks, "peer": peer, "protocol": "udp"})
        else:
            endpoint |= {"flags": "SAF", "packets": 8, "bytes": 900, "payload": 500}
            rows.append({"endpoint": endpoint, "peer": peer | {"flags": "SAF", "packets": 8}})
        if n >= answered:
            rows[-1]["peer"] = {"host": peer["host"], "port": port, "packets": 0}
            rows[-1]["endpoint"] = endpoint | {"packets": 1, "bytes": 60, "payload": 0}
            rows[-1]["endpoint"] |= {"flags": "S"} if port != 53 else {}
    return rows


@pytest.mark.parametrize("port", [22, 53, 443, 8444])
def test_calls_that_got_lost_on_their_way_to_a_partner_are_no_scan(port: int) -> None:
    assert not {"knock", "scan"} & {r.name for r in scored(clients(58, 2, port)).reasons}
    # Where it talks with nobody, or at other doors, they are.
    assert scored(clients(0, 4, port, hosts=4)).listed
    assert scored([*clients(58, 0, 443), *clients(0, 4, 23, hosts=4)]).listed


def test_a_door_where_tcp_is_answered_is_known_by_udp_too() -> None:
    quic = [row | {"protocol": "udp"} for row in clients(0, 10, 443)]

    def names(port: int) -> set[str]:
        return {reason.name for reason in scored([*clients(20, 0, port), *quic]).reasons}

    assert "knock" in names(8443)
    assert not {"knock", "scan"} & names(443)


def gone(number: int, port: int) -> Rows:
    """Calls to so many hosts that do not answer."""
    return [row | {"peer": row["peer"] | {"host": f"gone{n}"}}
            for n, row in enumerate(clients(0, number, port))]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "listed"),
    [
        ([*clients(20, 0, 443, hosts=20), *gone(5, 443)], False),
        ([*clients(20, 0, 443, hosts=20), *gone(6, 443)], True),
        ([*clients(200, 0, 443, hosts=200), *gone(20, 443)], True),
        ([*clients(20, 0, 8444, hosts=20), *gone(5, 8444)], True),
        ([*clients(60, 0, 8444, hosts=60), *gone(3, 8444)], False),
        ([*clients(60, 0, 23, hosts=60), *gone(3, 23)], True),
    ],
    ids=["client", "too-many", "too-many-of-many", "elsewhere", "of-very-many", "closed-doors"],
)
def test_who_fails_with_few_of_the_hosts_it_calls_is_a_client(rows: Rows, listed: bool) -> None:
    names = {reason.name for reason in scored(rows).reasons}
    assert bool({"knock", "scan"} & names) == listed


@pytest.mark.parametrize(
    "talk",
    [
        {"flags": "S", "packets": 1, "bytes": 61, "payload": 1},
        {"flags": "SAR", "packets": 3, "bytes": 120, "payload": 0},
    ],
    ids=["data-in-the-syn", "nothing-said"],
)
def test_who_only_touches_doors_has_no_partners(talk: dict[str, Any]) -> None:
    rows = [row | {"endpoint": row["endpoint"] | talk} for row in clients(20, 0, 443, hosts=20)]
    assert scored([*rows, *gone(4, 443)]).listed


def test_a_scanner_cannot_bring_its_own_partners() -> None:
    own = [row | {"peer": {k: v for k, v in row["peer"].items() if k != "host"}
                  | {"ip": f"203.0.113.{n + 1}"}}
           for n, row in enumerate(clients(40, 0, 443))]  # fmt: skip
    assert scored([*own, *gone(5, 443)]).listed


def test_a_single_knock_is_noted_but_not_listed() -> None:
    found = scored([knock("a", 23), *other_hosts(5)])
    assert found.role == "scanner"
    assert 0.3 < found.score < THRESHOLD
    assert found.reasons[0].text == ("1 try of port 23, though nobody inside ever asked for it")


def test_the_forged_sources_of_a_syn_flood_are_not_listed() -> None:
    # The victim answers each SYN; nobody completes the handshake.
    rows = [
        {
            **(row := knock("victim", 80, n / 100, f"198.{18 + n // 250}.7.{n % 250}")),
            "peer": {**row["peer"], "packets": 1, "flags": "SA", "at": n / 100 + 0.001},
        }
        for n in range(600)
    ]
    with connect(rows) as connection:
        assert not any(e.listed for e in score(endpoint_features(connection), THRESHOLD))


def test_password_guessing_is_listed_and_a_night_at_the_terminal_is_not() -> None:
    session = {"flags": "SAF", "packets": 12, "payload": 900, "bytes": 2000}
    guess = {
        "endpoint": {"ip": "198.51.100.1", "port": 40000, "at": 0, "until": 4, **session},
        "peer": {"host": "a", "port": 22, "at": 0.1, "until": 4, **session},
        "repeat": {"times": 30, "every": 9},
    }
    work = {
        "endpoint": {"ip": "198.51.100.2", "port": 40000, "at": 0, "until": 9000, **session},
        "peer": {"host": "a", "port": 22, "at": 0.1, "until": 9000, **session},
        "repeat": {"times": 3, "every": 20000},
    }
    guessing = scored([guess, work, *other_hosts(5)])
    assert (guessing.role, guessing.listed) == ("bruteforce", True)
    assert "30 sessions on port 22 of 1 host" in guessing.reasons[0].text
    assert not scored([guess, work, *other_hosts(5)], "198.51.100.2").listed


def log_ins(port: int, times: int, every: float, size: int = 2500, hosts: int = 1) -> Rows:
    """A foreign address logs in for three seconds, again and again."""
    side = {"flags": "SAF", "packets": 12, "payload": size - 600, "bytes": size, "until": 3}
    return [
        {
            "endpoint": {"ip": "198.51.100.1", "port": 40000, "at": 0, **side},
            "peer": {"host": f"door{n}", "port": port, "at": 0.1, **side},
            "repeat": {"times": times, "every": every},
        }
        for n in range(hosts)
    ]


@pytest.mark.parametrize(
    ("rows", "listed"),
    [
        pytest.param(log_ins(993, 300, 4), True, id="guesses-at-mailboxes"),
        pytest.param(log_ins(993, 576, 300), False, id="a-mail-program-for-two-days"),
        pytest.param(log_ins(993, 15, 10), False, id="a-mail-program-with-many-folders"),
        pytest.param(log_ins(22, 72, 3600), True, id="slow-guesses"),
        pytest.param(log_ins(22, 72, 3600, 40_000), False, id="a-copy-each-hour"),
        pytest.param(log_ins(3389, 72, 30, 40_000), True, id="guesses-at-desktops"),
        pytest.param(log_ins(25, 150, 4, 700), True, id="guesses-at-a-mail-server"),
        pytest.param(log_ins(25, 150, 4, 5000), False, id="a-mailing-list"),
        pytest.param(log_ins(25, 150, 600, 700), False, id="a-server-that-asks-for-addresses"),
    ],
)
def test_who_gets_in_and_who_reads_mail_is_no_guesser(rows: Rows, listed: bool) -> None:
    assert scored([*rows, *other_hosts(30)]).listed is listed


def test_who_is_turned_down_by_many_mail_servers_guesses_no_password() -> None:
    found = scored([*log_ins(25, 3, 4, 700, hosts=50), *other_hosts(30)])
    assert (found.role, found.listed) == ("spam", True)


def one_way(hidden: str, flags: str, times: int, port: int, every: float) -> dict[str, Any]:
    """Sessions of which one direction alone is seen."""
    sides: dict[str, Any] = {
        "endpoint": {"ip": "198.51.100.1", "port": 40000 if port == 22 else port},
        "peer": {"host": "a", "port": port if port == 22 else 40000},
    }
    told = {"flags": flags, "packets": 12, "bytes": 2000, "at": 0, "until": 4}
    for name, side in sides.items():
        side.update({"unknown": True} if name == hidden else told)
    return {**sides, "exported": True, "repeat": {"times": times, "every": every}}


@pytest.mark.parametrize(
    ("hidden", "enough"),
    [
        pytest.param("endpoint", 10, id="of-hosts"),
        # What endpoints send may all be forged: more is asked of it.
        pytest.param("peer", 30, id="of-endpoints"),
    ],
)
def test_guessing_shows_in_one_direction_and_a_flood_without_handshakes_is_none(
    hidden: str, enough: int
) -> None:
    def found(flags: str, times: int) -> ScoredEndpoint:
        return scored([one_way(hidden, flags, times, 22, 9), *other_hosts(5)])

    assert (found("SAF", enough).role, found("SAF", enough).listed) == ("bruteforce", True)
    assert not found("SAF", enough - 4).listed
    assert found("A", enough).role != "bruteforce"


def test_a_beacon_that_could_be_forged_is_worth_less() -> None:
    real, forged = (
        scored([one_way(hidden, "SAF", 40, 8444, 60), *other_hosts(30)])
        for hidden in ("endpoint", "peer")
    )
    assert real.role == forged.role == "c2"
    assert real.listed and forged.score < real.score


def test_amplifiers_in_a_crowd_are_listed_and_a_resolver_is_not() -> None:
    def answer(ip: str, port: int, size: int, at: float) -> dict[str, Any]:
        return {
            "endpoint": {"ip": ip, "port": port, "packets": 3, "bytes": 3 * size, "at": at},
            "peer": {"host": "victim", "port": 3000 + round(at * 10), "packets": 0},
            "protocol": "udp",
        }

    crowd = [answer(f"198.51.100.{n}", 53, 1400, n / 10) for n in range(1, 40)]
    found = scored(crowd + other_hosts(5))
    assert (found.role, found.listed) == ("reflector", True)
    resolver = [answer(f"198.51.100.{n}", 53, 180, n / 10) for n in range(1, 40)]
    assert not scored(resolver + other_hosts(5)).listed


def test_reflected_handshakes_in_a_crowd_are_listed() -> None:
    rows = [
        {
            "endpoint": {
                "ip": f"198.51.{n // 200}.{n % 200}",
                "port": 80,
                "flags": "SA",
                "at": n / 100,
            },
            "peer": {"host": "victim", "port": 2000 + n, "packets": 0},
        }
        for n in range(300)
    ]
    with connect(rows + other_hosts(3)) as connection:
        found = score(endpoint_features(connection), THRESHOLD)
    roles = {e.role for e in found if e.endpoint.startswith("198.51.") and e.listed}
    assert roles == {"reflector"}


def samples(senders: range, flags: str = "SA", *, of_host: bool = False, at: float = 0) -> Rows:
    """Single packets between others and a host, each one in a hundred."""
    rows = []
    for n in senders:
        told = {"packets": 1, "bytes": 52, "flags": flags, "at": at + n / 100}
        sides: dict[str, Any] = {
            "endpoint": {"ip": f"198.51.{n // 200}.{n % 200}", "port": 443},
            "peer": {"host": "a", "port": 1000 + n},
        }
        for name, side in sides.items():
            side.update(told if (name == "peer") == of_host else {"unknown": True})
        rows.append({**sides, "exported": True, "sampling_rate": 100})
    return rows


CROWD = samples(range(300))


@pytest.mark.parametrize(
    ("others", "roles"),
    [
        pytest.param([], {"reflector"}, id="reflected"),
        pytest.param(samples(range(300), "R", of_host=True), {"reflector"}, id="reset"),
        pytest.param(samples(range(300, 330), "A"), {"reflector"}, id="hardly-more"),
        # Who was called goes on, and so does who called.
        pytest.param(samples(range(300, 331), "A"), set(), id="went-on"),
        pytest.param(samples(range(300, 331), "A", at=50), set(), id="went-on-later"),
        pytest.param(samples(range(300, 331), "AR", of_host=True), set(), id="called"),
        # One talk is none of all.
        pytest.param(samples(range(300, 301), "A") * 40, {"reflector"}, id="one-who-went-on"),
    ],
)
def test_a_crowd_of_answers_that_is_only_sampled_is_listed_if_nothing_follows(
    others: Rows, roles: set[str]
) -> None:
    with connect([*CROWD, *others]) as connection:
        found = score(endpoint_features(connection), THRESHOLD)
    assert {e.role for e in found if e.listed} == roles


def test_a_crowd_of_sampled_datagrams_may_be_that_of_a_popular_site() -> None:
    crowd = [{**row, "protocol": "udp"} for row in samples(range(300))]
    with connect(crowd) as connection:
        assert not any(e.listed for e in score(endpoint_features(connection), THRESHOLD))


def test_a_flood_that_is_spread_over_a_network_is_listed() -> None:
    def spread(packets: int) -> list[ScoredEndpoint]:
        rows = [
            {"endpoint": {"ip": f"198.51.100.{n}", "port": 5000, "packets": packets,
                          "bytes": 900 * packets, "at": n / 10, "until": n / 10 + 0.5},
             "peer": {"host": f"host{n}", "port": 6000 + n, "packets": 0}, "protocol": "udp"}
            for n in range(80)
        ]  # fmt: skip
        with connect([*rows, *other_hosts(5)]) as connection:
            found = score(endpoint_features(connection), THRESHOLD)
        return [one for one in found if one.endpoint.startswith("198.51")]

    flood = spread(20)
    assert len(flood) == 80
    assert all((one.role, one.listed) == ("ddos", True) for one in flood)
    assert "in a crowd of 80 within ten seconds on one network" in flood[0].reasons[0].text
    assert not any(one.listed for one in spread(3))


def test_a_flood_from_one_source_is_listed() -> None:
    flood = {
        "endpoint": {
            "ip": "198.51.100.1",
            "port": 9999,
            "packets": 90000,
            "bytes": 90000000,
            "at": 0,
            "until": 30,
        },
        "peer": {"host": "victim", "port": 9998, "packets": 0},
        "protocol": "udp",
    }
    found = scored([flood, *other_hosts(3)])
    assert (found.role, found.listed) == ("ddos", True)
    assert "3,000 a second" in found.reasons[0].text


def test_sampled_tries_are_believed_less() -> None:
    rows = [knock(f"h{n}", 445, n) for n in range(3)]
    plain = scored(rows + other_hosts(5))
    sampled = scored([{**row, "sampling_rate": 100} for row in rows] + other_hosts(5))
    assert sampled.score < plain.score


def bot(every: float = 60, port: int = 80) -> Rows:
    """Keeps time with one server, and says the same out of time to another."""
    irregular = [0.0, 31, 300, 340, 610, 1500]
    return [
        call("198.51.100.2", port, times=30, every=every),
        *(
            call(port=port, times=1, peer={"port": 30000 + number, "at": at, "until": at + 0.3},
                 endpoint={"at": at + 0.1, "until": at + 0.4})
            for number, at in enumerate(irregular)
        ),
    ]  # fmt: skip


def test_who_is_told_the_same_as_a_beacon_is_its_kin() -> None:
    found = {reason.name: reason for reason in scored(bot()).reasons}
    assert found["kin"].contribution > 0.3
    assert "sends it 400 bytes at a time on port 80" in found["kin"].text
    assert "as it does in a rhythm to 1 other address" in found["kin"].text


def test_servers_of_one_update_service_are_no_kin_of_a_beacon() -> None:
    found = {reason.name: reason for reason in scored(bot(every=900)).reasons}
    assert found.get("kin") is None or found["kin"].contribution < 0.2


def mail(ip: str, host: str, at: float, size: int) -> dict[str, Any]:
    """One delivery to the mail server of an inside network."""
    talk = {"flags": "SAF", "packets": 9, "payload": 300}
    return {
        "endpoint": {"ip": ip, "port": 40000, "at": at, "until": at + 4, "bytes": size, **talk},
        "peer": {"host": host, "port": 25, "at": at + 0.1, "until": at + 4, "bytes": 700, **talk},
    }


def test_mail_that_thirty_servers_turn_down_is_spam_and_a_newsletter_is_not() -> None:
    rows = [mail("198.51.100.1", f"mx{n}", 40.3 * n**1.1, 600 + n) for n in range(30)]
    rows += [mail("198.51.100.2", f"mx{n}", 37.1 * n**1.1, 9000 + 70 * n) for n in range(30)]
    found = scored(rows)
    assert (found.role, found.listed) == ("spam", True)
    assert "30 mail sessions with 30 inside hosts" in found.reasons[0].text
    assert not scored(rows, "198.51.100.2").listed
    assert not scored(rows[:4]).listed


def test_who_passes_on_what_it_gets_is_a_relay() -> None:
    talk = {"flags": "SAF", "packets": 9, "payload": 500}

    def passed(ip: str, n: int, size: int) -> Rows:
        at = 400.0 * n**1.1
        into = {"ip": ip, "port": 1080, "at": at + 0.1, "until": at + 3, "bytes": 5000, **talk}
        source = {"host": "a", "port": 9000 + n, "at": at, "until": at + 3, "bytes": size, **talk}
        on = {"ip": ip, "port": 9500 + n, "at": at + 0.4, "until": at + 3, "bytes": 900 + n, **talk}
        target = {"host": f"t{n}", "port": 22, "at": at + 0.5, "until": at + 3, **talk}
        return [
            {"endpoint": into, "peer": source},
            {"endpoint": on, "peer": {**target, "bytes": 5100}},
        ]

    relay = [row for n in range(12) for row in passed("198.51.100.1", n, 930 + n)]
    found = scored([*relay, *other_hosts(5)])
    assert (found.role, found.listed) == ("relay", True)
    assert "12 connections from 1 inside host went on to 12 other inside hosts" in (
        found.reasons[0].text
    )
    other = [row for n in range(12) for row in passed("198.51.100.1", n, 3000 + 900 * n)]
    assert not scored([*other, *other_hosts(5)]).listed


def test_a_disk_sent_to_an_odd_port_is_exfiltration_and_a_backup_is_not() -> None:
    def sent(port: int, size: int) -> dict[str, Any]:
        peer = {"bytes": size, "packets": size // 1400, "until": 900}
        return call(port=port, times=1, peer=peer, endpoint={"bytes": size // 60, "until": 900})

    found = scored([sent(8444, 2_000_000_000), *other_hosts(30)])
    assert (found.role, found.listed) == ("exfiltration", True)
    assert "sent it 2,000 MB on port 8444, 60 times what it got" in found.reasons[0].text
    for harmless in (sent(443, 2_000_000_000), sent(8444, 9_000_000)):
        assert not scored([harmless, *other_hosts(30)]).listed


def handed_in(
    sizes: Iterable[int], every: float = 1.5, port: int = 443, answers: tuple[int, ...] = (2600,)
) -> Rows:
    """An inside host makes a call for each piece that it sends."""
    return [
        call(port=port, times=1,
             endpoint={"at": every * n + 0.1, "until": every * n + 0.9,
                       "bytes": answers[n % len(answers)]},
             peer={"at": every * n, "until": every * n + 0.9, "bytes": size, "port": 20000 + n,
                   "packets": 4 + size // 1400})
        for n, size in enumerate(sizes)
    ]  # fmt: skip


NOTES = [1200, 900, 1500, 1100, 90_000, 1000, 1400, 950, 300_000, 1300, 1050, 1250]
"""Bytes of what a stealer hands in: orders and short notes, and two finds."""


def test_a_stealer_that_hands_in_what_it_finds_is_listed() -> None:
    found = scored([*handed_in(NOTES), *other_hosts(5)])
    assert (found.role, found.listed) == ("exfiltration", True)
    assert (
        "sent it 402 kB in 12 calls within 17.4 s, half of them of 1,225 bytes or less, and got "
        "answers of like size" in found.reasons[0].text
    )


@pytest.mark.parametrize(
    "harmless",
    [
        pytest.param(handed_in([40_000] * 12), id="photos"),
        pytest.param(handed_in(NOTES, every=1800), id="all-day"),
        pytest.param(handed_in(NOTES, answers=(2600, 3100, 2400, 6000)), id="pages"),
        pytest.param(handed_in(NOTES[:5]), id="few"),
        pytest.param(handed_in([*NOTES, 200_000_000]), id="disk"),
        pytest.param(handed_in(NOTES, port=993), id="mail"),
        pytest.param([{**row, "sampling_rate": 10} for row in handed_in(NOTES)], id="samples"),
    ],
)
def test_who_sends_otherwise_is_no_stealer(harmless: Rows) -> None:
    found = scored([*harmless, *other_hosts(5)])
    assert not found.listed
    assert found.role != "exfiltration" or found.score < 0.3


def test_a_fetch_before_a_beacon_is_told_but_never_listed() -> None:
    big = {"bytes": 300_000, "packets": 210}
    fetch = call("198.51.100.2", 80, times=1, endpoint=big)
    later = {"at": 90, "until": 90.4}
    beacon = call(times=40, endpoint=later, peer={"at": 89.9, "until": 90.3})
    found = scored([fetch, beacon, *other_hosts(30)], "198.51.100.2")
    assert (found.role, found.listed) == ("malware_download", False)
    assert "fetched 300,000 bytes from port 80 and 89.9 s later began" in found.reasons[0].text
    pages = [call(f"198.51.100.{n}", 80, times=1, endpoint=big) for n in range(3, 20)]
    among = scored([fetch, beacon, *pages, *other_hosts(30)], "198.51.100.2")
    assert among.score < 0.25 * found.score
