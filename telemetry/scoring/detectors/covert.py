"""Command and control inside look-ups of names or pings, by the sizes of both.

Tunnels through either (iodine, dnscat2, dns2tcp; ptunnel, icmpsh) fill what there is room for.
"""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, Floats, count, ramp, steps
from telemetry.scoring.detectors.rhythm import few_in_view, popularity


def _evaluate(f: Columns) -> Evidence:
    names, pings = _in_names(f), _in_pings(f)

    def sentence(i: int) -> str:
        if names[i] >= pings[i]:
            long = f["names_long_exchanges"][i]
            return (
                "looks like a tunnel through names, which are shorter: an inside host asked it for "
                f"{count(long, 'name')} in questions of {f['names_long_bytes'][i]:,.0f} bytes or "
                f"so, {100 * long / max(f['names_exchanges'][i], 1):.0f} % of its questions there"
            )
        return (
            "looks like a tunnel through pings, which are of one size, as are their echoes: an "
            f"inside host pinged it {count(f['pings_exchanges'][i], 'time')}, with "
            f"{_sizes(f, 'request', i)} and {_sizes(f, 'reply', i)} in return"
        )

    return Evidence(np.maximum(names, pings) * popularity(f), sentence)


def _sizes(f: Columns, side: str, i: int) -> str:
    longest = f[f"pings_longest_{side}_bytes"][i]
    told = f"{f[f'pings_{side}_bytes'][i]:,.0f} bytes on average"
    return told if np.isnan(longest) else f"{told} ({longest:,.0f} at most)"


def _in_names(f: Columns) -> Floats:
    long = f["names_long_exchanges"]
    sub = steps(long, {50: 0.0, 100: 0.85, 300: 1.0})
    # Virus scanners and mail servers ask for hashes, block lists for addresses of IPv6: up to some
    # 140 bytes. Tunnels fill the 255 that a name may have.
    sub = sub * ramp(f["names_long_bytes"], 140, 170)
    # Who resolves for others asks this server little of all, and whom everybody asks, little that
    # is long.
    sub = sub * ramp(long / np.maximum(f["names_exchanges"], 1), 0.25, 0.5)
    sub = sub * ramp(long / np.maximum(f["names_host_exchanges"], 1), 0.1, 0.4)
    # A page can make a host look up a thousand names, at once. Of a capture of one host, which may
    # be as short, it is believed.
    return sub * np.where(f["names_long_slots"] < 3, 0.5 + 0.5 * few_in_view(f), 1.0)


def _in_pings(f: Columns) -> Floats:
    asked, got = f["pings_request_bytes"], f["pings_reply_bytes"]
    # Some servers cut long echoes short; none makes them longer.
    longer = ramp(1 - asked / np.maximum(got, 1), 0.1, 0.3)
    longer = np.where((asked >= 0) & (got > 100), longer, 0.0)
    longer = longer * steps(f["pings_exchanges"], {40: 0.0, 150: 0.85, 400: 1.0})
    return np.maximum(longer, np.minimum(_uneven(f, "request"), _uneven(f, "reply")))


def _uneven(f: Columns, side: str) -> Floats:
    """Returns how surely many packets are long and many others less than half of the longest.

    So many must be longer than 100 bytes if the mean is to be what it is, and so many shorter than
    half of the longest. One that is long, or a dozen sizes tried for the largest that passes, do
    not bring the mean of hundreds above 100; tools that ping use 8 to 64.
    """
    mean, longest = f[f"pings_{side}_bytes"], f[f"pings_longest_{side}_bytes"]
    over = np.maximum(longest - 100, 1)
    many_long = f["pings_exchanges"] * np.clip((mean - 100) / over, 0, 1)
    many_short = np.where(longest > 0, 1 - 2 * mean / np.maximum(longest, 1), 0.0)
    return steps(many_long, {15: 0.0, 30: 0.85, 100: 1.0}) * ramp(many_short, 0, 0.3)


DETECTOR = Detector("covert", "c2", 0.72, _evaluate)
