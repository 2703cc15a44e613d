"""Relays: called by one inside host, they call another at once and pass on the same.

Proxies and operational relay boxes abroad show at the border as two connections, in and out
(FOCI 2026).
"""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, count, ramp, steps


def _evaluate(f: Columns) -> Evidence:
    passed, calls = f["relay_passed_on"], np.maximum(f["relay_calls"], 1)
    # Once or twice may be chance.
    sub = steps(passed, {2: 0.0, 4: 0.5, 10: 0.9, 30: 1.0}) * ramp(passed / calls, 0.2, 0.7)

    def sentence(i: int) -> str:
        return (
            f"{count(passed[i], 'connection')} from "
            f"{count(f['relay_sources'][i], 'inside host')} went on to "
            f"{count(f['relay_targets'][i], 'other inside host')} within two seconds, with as "
            f"many bytes each way; {100 * passed[i] / calls[i]:.0f} % of its calls"
        )

    return Evidence(sub, sentence)


DETECTOR = Detector("relay", "relay", 0.85, _evaluate)
