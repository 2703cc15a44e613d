"""Command and control inside pings or look-ups of names, by the sizes of both.

An echo returns what it got, and tools that ping send one size again and again; names are short.
Tunnels through either (ptunnel, icmpsh; iodine, dnscat2, dns2tcp) fill what there is room for.
"""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, Floats, count, ramp, steps
from telemetry.scoring.detectors.rhythm import popularity


def _evaluate(f: Columns) -> Evidence:
    names = f["covert_protocol"] == 17
    sub = np.where(names, _in_names(f), _in_pings(f)) * popularity(f)
    sub[f["covert_protocol"] == 0] = 0.0

    def sentence(i: int) -> str:
        what, usual = (
            ("asked it for names", "names are shorter")
            if names[i]
            else ("pinged it", "pings and their echoes are all of one size")
        )
        return (
            f"an inside host {what} {count(f['covert_exchanges'][i], 'time')}, with "
            f"{_sizes(f, 'request', i)} and {_sizes(f, 'reply', i)} in return; {usual}"
        )

    return Evidence(sub, sentence)


def _sizes(f: Columns, side: str, i: int) -> str:
    longest = f[f"covert_longest_{side}_bytes"][i]
    told = f"{f[f'covert_{side}_bytes'][i]:,.0f} bytes on average"
    return told if np.isnan(longest) else f"{told} ({longest:,.0f} at most)"


def _in_names(f: Columns) -> Floats:
    # A question is 16 bytes and the name, with EDNS some 30 and the name (RFC 1035, RFC 6891);
    # a look-up in a virus scanner's cloud may take 120. One of 220 holds a name that is full.
    long = ramp(f["covert_request_bytes"], 100, 140)
    full = 0.85 * ramp(f["covert_longest_request_bytes"], 180, 230)
    sub = np.maximum(long, full) * steps(f["covert_exchanges"], {30: 0.0, 100: 0.85, 300: 1.0})
    # A resolver asks hundreds of servers, in whatever names its clients use.
    return sub * (1 - ramp(f["covert_host_name_servers"], 4, 20))


def _in_pings(f: Columns) -> Floats:
    asked, got = f["covert_request_bytes"], f["covert_reply_bytes"]
    unlike = ramp(1 - np.minimum(asked, got) / np.maximum(np.maximum(asked, got), 1), 0.1, 0.3)
    longest = np.fmax(f["covert_longest_request_bytes"], f["covert_longest_reply_bytes"])
    # Who looks for the largest packet that passes tries a dozen sizes, not hundreds.
    uneven = ramp(1 - np.fmax(asked, got) / np.maximum(longest, 1), 0.1, 0.4)
    return np.maximum(unlike, uneven) * steps(f["covert_exchanges"], {40: 0.0, 150: 0.85, 400: 1.0})


DETECTOR = Detector("covert", "c2", 0.72, _evaluate)
