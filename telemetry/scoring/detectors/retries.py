"""Command and control by persistence: calls to a server that is gone, again and again.

People give up after a few tries and software with a directory of servers turns to the
next one; a bot with a built-in address does not.
"""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import (
    Columns,
    Detector,
    Evidence,
    count,
    one_of,
    ramp,
    span,
    steps,
)


def _evaluate(f: Columns) -> Evidence:
    tries = f["retry_failed_seconds"]
    sub = steps(tries, {8: 0.0, 12: 0.4, 40: 0.85, 100: 1.0})
    sub = sub * ramp(
        f["retry_failed"] / np.maximum(f["retry_failed"] + f["retry_answered"], 1), 0.2, 0.6
    )
    sub[f["retry_protocol"] != 6] = 0.0
    kind = f["retry_kind"]
    sub[one_of(kind, "web", "talk")] *= 0.6
    sub[one_of(kind, "login", "mail", "share", "tunnel", "plumbing")] *= 0.4
    sub[one_of(kind, "name", "clock")] = 0.0
    # Many calls in each second are an inside host flooding a victim, not asking for orders.
    pace = f["retry_failed"] / np.maximum(tries, 1)
    sub = sub * (1 - ramp(pace, 2, 4))
    # An inside host that fails with hundreds of addresses is scanning them.
    sub = sub * (1 - 0.8 * steps(f["retry_host_failed_endpoints"], {20: 0.0, 200: 1.0}))

    def sentence(i: int) -> str:
        return (
            f"an inside host called port {f['retry_port'][i]:.0f} in vain at "
            f"{count(tries[i], 'moment')} over {span(f['retry_span_s'][i])} and never gave up "
            f"({count(f['retry_answered'][i], 'answer')})"
        )

    return Evidence(sub, sentence)


DETECTOR = Detector("retries", "c2", 0.6, _evaluate)
