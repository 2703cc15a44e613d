"""Command and control by kinship: a host talks to this address as it does to a beacon.

Bots come with several servers, by a list or an algorithm, and say the same to each of them
(clusters of hosts and servers that communicate alike: BotMiner, Gu et al., USENIX Security
2008). The rhythm may break off at each of them; the words stay.
"""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, count, one_of, ramp
from telemetry.scoring.detectors.rhythm import exact_timer, popularity, timetable, transfers


def _evaluate(f: Columns) -> Evidence:
    # How exact the timer is, is not known here; gadgets have several servers too.
    habit = timetable(f["kin_kind"], f["kin_median_s"])
    asked = np.where(one_of(f["kin_kind"], "web"), exact_timer(f), 1.0)
    sub = f["kin_regularity"] * np.minimum(habit, asked) * popularity(f)
    sub = sub * (1 - 0.8 * transfers(f))
    # What software with many partners says to each of them is a protocol, not an order.
    sub = sub * (1 - 0.8 * ramp(f["kin_endpoints"], 20, 60))
    sub = sub * (1 - 0.6 * ramp(f["rhythm_host_unusual_endpoints"], 8, 40))
    # Mail and chat keep connections to several servers of one provider, all alike.
    sub[one_of(f["kin_kind"], "mail", "login", "talk", "share", "tunnel", "peer")] *= 0.4
    sub = np.where(f["sampling_rate"] == 1, sub, 0.0)

    def sentence(i: int) -> str:
        return (
            f"an inside host sends it {f['kin_request_bytes'][i]:,.0f} bytes at a time on port "
            f"{f['kin_port'][i]:.0f}, as it does in a rhythm to "
            f"{count(f['kin_endpoints'][i], 'other address', 'other addresses')}"
        )

    return Evidence(sub, sentence)


DETECTOR = Detector("kin", "c2", 0.4, _evaluate)
