"""Command and control by a long talk: a connection held open, small turns, more up than down.

Or held day and night with next to nothing said, as records of exporters tell of it, which know
no turns.
"""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import (
    Columns,
    Detector,
    Evidence,
    Floats,
    count,
    one_of,
    ramp,
    span,
    steps,
)
from telemetry.scoring.detectors.rhythm import popularity


def _evaluate(f: Columns) -> Evidence:
    share = upload(f)
    # Two minutes outlast a page or a mail (HTTP servers close idle connections after 5 to
    # 75 s); six pauses of a second or more are turns of a talk, not one transfer; clients
    # of ordinary services receive far more than they send.
    lasting = steps(f["talk_talked_s"], {20: 0.0, 300: 1.0})
    turns = ramp(f["talk_pauses"], 2, 8)
    upward = ramp(share, 0.35, 0.55)
    talk = np.cbrt(lasting * turns * upward)
    # Who sits at a program goes home in the evening; what is copied, watched or listened to takes
    # kilobytes a second. Gadgets hold a connection too, and cannot be told from a bot by that: with
    # nothing else but an odd port and few hosts it stays below the threshold.
    rate = f["talk_held_bytes"] / np.maximum(f["talk_held_s"], 1)
    held = 0.85 * steps(f["talk_held_s"], {21_600: 0.0, 86_400: 1.0})
    held = held * np.where(np.isnan(rate), 0.0, 1 - steps(rate, {2000: 0.0, 20_000: 1.0}))
    sub = np.maximum(talk, held) * popularity(f)
    unusual = one_of(f["talk_kind"], "other", "rat") & (f["talk_protocol"] == 6)
    sub[~unusual | (f["talk_opened_by_endpoint"] > 0)] = 0.0
    sub = sub * (1 - 0.6 * ramp(f["talk_host_unusual_endpoints"], 8, 40))

    def sentence(i: int) -> str:
        port = f"an inside host held port {f['talk_port'][i]:.0f} open for"
        if held[i] > talk[i]:
            return (
                f"{port} {span(f['talk_held_s'][i])} at a stretch, with "
                f"{3600 * rate[i]:,.0f} bytes an hour"
            )
        return (
            f"{port} {span(f['talk_talked_s'][i])}, with {count(f['talk_pauses'][i], 'pause')} of "
            f"{span(f['talk_pause_s'][i])} or so, and sent {100 * share[i]:.0f} % of the bytes"
        )

    return Evidence(sub, sentence)


def upload(f: Columns) -> Floats:
    """Returns the inside host's share of the bytes of the longest talk, 0..1.

    It is NaN where more than one connection in ten may have bytes that were not seen.
    """
    sent, got = f["talk_peer_bytes"], f["talk_endpoint_bytes"]
    return np.where(f["talk_half_seen_share"] <= 0.1, sent / np.maximum(sent + got, 1), np.nan)


DETECTOR = Detector("session", "c2", 0.32, _evaluate)
