"""Command and control by its rhythm: calls or signs of life at even intervals.

The regularity is that of `rhythms` and `endpoint_features` of sql/: how surprising it is, among all
series there are, that so many gaps are alike.
It says that a machine keeps time, not that it is malicious: most machines that keep time
are clocks, update checks and push services. The factors below say so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from telemetry.scoring.contract import (
    Columns,
    Detector,
    Evidence,
    Floats,
    one_of,
    ramp,
    span,
    steps,
)

TIMER = 0.4
"""What an exact timer on a common port is worth where a thousand hosts are in view."""


def _evaluate(f: Columns) -> Evidence:
    series = f["rhythm_series"].astype(str)
    sub = f["rhythm_regularity"] * _habit(f) * popularity(f)
    # Where nothing of the host is seen, a forger could have said it all.
    sub = np.where(f["rhythm_unseen_share"] > 0.5, 0.7 * sub, sub)
    # Fewer than some twenty seconds of rhythm are one page loading, whatever its pace.
    sub = sub * ramp(f["rhythm_gaps"] * f["rhythm_median_s"], 10, 45)
    # A host with dozens of unusual partners runs peer-to-peer software.
    unusual = one_of(f["rhythm_kind"], "other")
    sub = np.where(unusual, sub * (1 - 0.6 * ramp(f["rhythm_host_unusual_endpoints"], 8, 40)), sub)

    def sentence(i: int) -> str:
        what = {
            "start": "an inside host connects",
            "beat": "a conversation stirs",
            "start_in": "it connects to an inside host",
        }[str(series[i])]
        return (
            f"{what} every {span(f['rhythm_median_s'][i])} ± {span(f['rhythm_mad_s'][i])}, "
            f"{f['rhythm_gaps'][i] + 1:.0f} times, "
            f"{100 * f['rhythm_near_share'][i]:.0f} % of the pauses about that long"
        )

    return Evidence(sub, sentence)


def _habit(f: Columns) -> Floats:
    """Returns how far a rhythm is unlike the habits of harmless software, 0..1."""
    kind = f["rhythm_kind"]
    series = f["rhythm_series"].astype(str)
    from_outside = (series == "start_in") | (
        (series == "beat") & (2 * f["rhythm_opened_by_endpoint"] > f["rhythm_connections"])
    )
    factor = np.ones(len(kind))
    # NTP (RFC 5905) polls at powers of two seconds; resolvers ask again when a name's
    # time to live ends.
    factor[one_of(kind, "clock", "name")] = 0.05
    factor[one_of(kind, "mail", "login", "share", "plumbing", "talk", "peer")] = 0.5
    factor[one_of(kind, "tunnel")] = 0.3
    # The timers of honest software are mostly exact; jitter is what beacons are given to look
    # human (Cobalt Strike, Sliver).
    web = one_of(kind, "web") & ~from_outside
    slow = timetable(kind, f["rhythm_median_s"])
    unsteady = _jitter(f) > 0.02 * f["rhythm_median_s"]
    factor[web] = np.where(unsteady, np.sqrt(slow), slow)[web]
    # Makers spread the calls of all their customers; what wanders by a tenth of its interval or
    # more, and for one host or two of a thousand, was made not to look like a timer.
    alone = _many_in_view(f) * (1 - ramp(f["hosts"], 2, 6))
    wanders = ramp(_jitter(f) / np.maximum(f["rhythm_median_s"], 1e-6), 0.06, 0.09)
    # Some tenths of a second are how servers answer now sooner, now later, and pages wait for that.
    wanders = wanders * ramp(_jitter(f), 0.3, 1)
    factor[web] += (alone * wanders * (1 - factor))[web]
    timers = (web | one_of(kind, "login")) & ~from_outside
    most = exact_timer(f)
    factor[timers] = np.minimum(factor, most + (1 - most) * wanders)[timers]
    # A site inside is called by monitors and feeds, whose timers are exact, and every few seconds
    # by pages that are open.
    site = one_of(kind, "web") & from_outside
    factor[site] = (0.3 + 0.7 * wanders * ramp(f["rhythm_median_s"], 20, 60))[site]
    # Signs of life inside one connection are what keep-alives of browsers, chat and
    # middleboxes look like (Chrome's TCP keep-alive is 45 s); RFC 1122, 4.2.3.6.
    inside = (series == "beat") & (f["rhythm_connections"] < 0.5 * f["rhythm_gaps"])
    factor[inside & one_of(kind, "talk")] *= 0.5
    factor[inside & web] *= (0.5 + 0.5 * _requests(f))[inside & web]
    # Voice, games and tunnels hold their ports open in NATs over UDP (RFC 4787 asks for
    # two minutes); pings watch hosts.
    factor[f["rhythm_protocol"] == 17] *= 0.6
    factor[(f["rhythm_protocol"] == 1) | (f["rhythm_protocol"] == 58)] *= 0.4
    # Calls from outside that get no answer are a scan; answered and exact, a monitor of
    # services; only jitter makes them remarkable.
    exact = _jitter(f) < 0.05 * f["rhythm_median_s"]
    factor[from_outside & exact] *= 0.7
    factor[from_outside & ~exact] *= 0.9
    factor[from_outside & (f["rhythm_answered"] == 0)] *= 0.1
    return factor * (1 - 0.8 * transfers(f))


def transfers(f: Columns) -> Floats:
    """Returns how far calls at a pace are the pieces of something large, 0..1.

    Video comes every few seconds in pieces of hundreds of kilobytes, and what is copied or fetched
    in turn goes at the pace of the line: a piece begins when the one before has ended. A beacon
    waits far longer than it talks, and a call that is held open says next to nothing.
    """
    up, down = f["rhythm_peer_bytes"], f["rhythm_endpoint_bytes"]
    # Whoever watches a screen sends a picture of it at a time.
    large = np.maximum(ramp(down, 3e4, 1e5), ramp(up, 5e5, 2e6))
    lasts = np.maximum(f["rhythm_duration_s"], 0.01)
    in_turn = ramp(lasts / np.maximum(f["rhythm_median_s"], 0.01), 0.3, 0.6)
    busy: Floats = in_turn * ramp((up + down) / lasts, 2e3, 1e4)
    told = np.maximum(np.nan_to_num(large), np.nan_to_num(busy))
    # Of stretches inside one connection, it is not known how long and how large they are.
    inside = (f["rhythm_series"].astype(str) == "beat") & (
        f["rhythm_connections"] < 0.5 * f["rhythm_gaps"]
    )
    return np.where(inside, 0.0, told)


def _requests(f: Columns) -> Floats:
    """Returns how far stretches of talk in one connection look like requests with answers, 0..1.

    Whether a program opens a connection for each request or keeps one is up to its library; the
    web services of Empire and Covenant keep one. An HTTP request with its acknowledgement takes
    some 250 bytes, a ping of HTTP/2 or of a WebSocket under TLS less than 200 (RFC 9113, 6455);
    before either, TLS greets with some 2 kB up and 6 kB down. Video takes hundreds of kilobytes a
    stretch. Pages that are open look like that too, and each ten hosts bring one: it is believed of
    few hosts only.
    """
    stretches = f["rhythm_gaps"] + 1
    greeted = f["rhythm_connections"] * np.isin(f["rhythm_port"], (443, 4433, 8443, 9443))
    all_up, all_down = (
        f["rhythm_connections"] * f[f"rhythm_{side}_bytes"] for side in ("peer", "endpoint")
    )
    up = (all_up - 2000 * greeted) / stretches
    down = (all_down - 6000 * greeted) / stretches
    asks: Floats = ramp(up, 180, 260) * ramp(down, 180, 260) * ramp(f["rhythm_gaps"], 6, 9)
    streams: Floats = np.maximum(ramp(down, 30_000, 100_000), ramp(up, 5_000, 15_000))
    return asks * (1 - streams) * few_in_view(f)


def timetable(kind: npt.NDArray[Any], median_s: Floats) -> Floats:
    """Returns how far calls at that pace are unlike those of software that asks for news, 0..1.

    On web ports, checks for updates, mail and telemetry keep even time too, but from some five
    minutes upward, as their makers pay for every call (Windows 15 and 28 minutes, browsers 5
    and 30 minutes and more).
    """
    slow = steps(median_s, {180: 1.0, 300: 0.55, 900: 0.4})
    return np.where(one_of(kind, "web"), slow, 1.0)


def exact_timer(f: Columns) -> Floats:
    """Returns the most that an exact timer on a common port is worth, 0..1.

    Gadgets and the monitoring of rented machines call an address of their own by an exact timer,
    as plain bots do. Each hundred hosts bring some: among a thousand, whoever listed them all
    would list little else.
    """
    return 1 - (1 - TIMER) * _many_in_view(f)


def few_in_view(f: Columns) -> Floats:
    """Returns 1 up to ten inside hosts, 0 from a hundred on: what is rare is known by then."""
    return 1 - steps(f["all_hosts"], {10: 0.0, 100: 1.0})


def _many_in_view(f: Columns) -> Floats:
    return steps(f["all_hosts"], {100: 0.0, 1000: 1.0})


def _jitter(f: Columns) -> Floats:
    """Returns how far the gaps scatter, in seconds, less what rounding of times can do."""
    scatter: Floats = np.maximum(f["rhythm_mad_s"] - f["rhythm_resolution_s"], 0.0)
    return scatter


def popularity(f: Columns) -> Floats:
    """Returns 1 for what few inside hosts contact, less for what many share.

    With fewer than ten inside hosts in view nothing is known, and nothing is taken off; nor for
    the first three hosts. That one host in a hundred obeys the same master is an epidemic; that
    it runs the same software is Tuesday.
    """
    share = np.where(f["hosts"] > 3, f["hosts"] / np.maximum(f["all_hosts"], 1), 0.0)
    known = f["all_hosts"] >= 10
    return np.where(known, steps(share, {0.003: 1.0, 0.02: 0.6, 0.1: 0.35, 0.4: 0.25}), 1.0)


DETECTOR = Detector("rhythm", "c2", 0.62, _evaluate)
