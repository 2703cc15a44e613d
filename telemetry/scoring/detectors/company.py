"""What makes command and control more credible, though it lists nobody alone.

Sizes that repeat, a port of no common service, a default port of malware or tools for remote
control, few inside hosts that have to do with the endpoint, and a first contact late in the
records.
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
    count,
    one_of,
    ramp,
    steps,
)
from telemetry.scoring.detectors.rhythm import popularity
from telemetry.scoring.detectors.session import upload


def _sizes(f: Columns) -> Evidence:
    sent, got = f["rhythm_peer_dispersion"], f["rhythm_endpoint_dispersion"]
    # A MAD of a tenth of the median is what padding and changing host names leave.
    alike = 1 - 0.6 * ramp(sent, 0.05, 0.5) - 0.4 * ramp(got, 0.05, 0.5)
    one = np.where(np.isnan(sent), got, sent)
    alike = np.where(np.isnan(sent + got), 0.7 * (1 - ramp(one, 0.05, 0.5)), alike)
    # A few samples of a conversation say nothing about its size.
    enough = (f["rhythm_answered"] >= 4) & (f["rhythm_regularity"] > 0) & (f["sampling_rate"] == 1)
    # The sizes of time and of names are always alike.
    enough &= ~one_of(f["rhythm_kind"], "clock", "name")
    sub = np.where(enough & ~np.isnan(one), alike, 0.0)

    def sentence(i: int) -> str:
        told = [
            f"{f[f'rhythm_{side}_bytes'][i]:,.0f} bytes {done} ± {100 * spread[i]:.0f} %"
            for side, done, spread in (("peer", "sent", sent), ("endpoint", "received", got))
            if not np.isnan(spread[i])
        ]
        many = count(f["rhythm_answered"][i], "conversation")
        return f"{many} of like size: {', '.join(told)}"

    return Evidence(sub, sentence)


def _odd_port(f: Columns) -> Evidence:
    rhythmic = f["rhythm_regularity"] >= 0.3
    retried = ~rhythmic & (f["retry_failed_seconds"] > 8)

    def picked(name: str) -> npt.NDArray[Any]:
        return np.where(
            rhythmic, f[f"rhythm_{name}"], np.where(retried, f[f"retry_{name}"], f[f"talk_{name}"])
        )

    odd = one_of(picked("kind"), "other", "rat") & (picked("protocol") == 6)
    called = np.where(rhythmic, f["rhythm_opened_by_endpoint"], f["talk_opened_by_endpoint"]) == 0
    answered = (f["talk_peer_bytes"] > 0) & (f["talk_endpoint_bytes"] > 0)
    sub = np.where(odd & called & (rhythmic | retried | answered), 1.0, 0.0)
    # Who sends more than it gets is no customer.
    sub = sub * (0.6 + 0.4 * ramp(upload(f), 0.3, 0.5)) * popularity(f) * _of_a_quiet_host(f)
    port = picked("port")

    def sentence(i: int) -> str:
        return f"an inside host calls port {port[i]:.0f}, which belongs to no common service"

    return Evidence(sub, sentence)


def _tool_port(f: Columns) -> Evidence:
    called = one_of(f["talk_kind"], "rat") & (f["talk_opened_by_endpoint"] == 0)
    sub = np.where(called & (f["talk_protocol"] == 6), 1.0, 0.0)
    sub = sub * ramp(f["talk_peer_bytes"], 0, 200) * _of_a_quiet_host(f)

    def sentence(i: int) -> str:
        return f"port {f['talk_port'][i]:.0f} is a default of malware or tools for remote control"

    return Evidence(sub, sentence)


def _of_a_quiet_host(f: Columns) -> Floats:
    """Returns less than 1 where the inside host scans or runs peer-to-peer software."""
    scans = steps(f["retry_host_failed_endpoints"], {20: 0.0, 200: 1.0})
    shares = ramp(f["talk_host_unusual_endpoints"], 8, 40)
    return (1 - 0.8 * scans) * (1 - 0.6 * shares)


def _few_hosts(f: Columns) -> Evidence:
    share = f["hosts"] / np.maximum(f["all_hosts"], 1)
    # One host of thousands is much; of ten, little; with fewer in view, next to nothing.
    told_by = steps(f["all_hosts"], {10: 0.3, 100: 0.6, 1000: 1.0})
    rare = np.maximum(1 - ramp(share, 0.01, 0.1), np.where(f["hosts"] <= 2, 0.8, 0.0))
    sub = np.where(f["all_hosts"] >= 10, rare * told_by, np.where(f["hosts"] == 1, 0.2, 0.0))
    # Where it has to do with foreign addresses alone, they are not counted.
    sub[(f["all_hosts"] == 0) | ~(f["seen_out_in"] | f["seen_in_out"])] = 0.0

    def sentence(i: int) -> str:
        return (
            f"{f['hosts'][i]:,.0f} of {count(f['all_hosts'][i], 'inside host')} "
            f"{'has' if f['hosts'][i] == 1 else 'have'} to do with it"
        )

    return Evidence(sub, sentence)


def _first_seen(f: Columns) -> Evidence:
    days = f["days_before"]
    # A destination without a past is a coarse sign of infection (Beehive, Yen et al., ACSAC
    # 2013, with a month of history). Two days tell nothing; after two weeks each habit of a
    # week has had two chances to show. New servers are mostly harmless: the weight is small.
    sub = ramp(days, 2, 14)

    def sentence(i: int) -> str:
        return f"first seen after {count(days[i], 'day')} of records without it"

    return Evidence(sub, sentence)


SIZES = Detector("sizes", "c2", 0.25, _sizes, supports=True)
ODD_PORT = Detector("odd_port", "c2", 0.25, _odd_port)
TOOL_PORT = Detector("tool_port", "c2", 0.42, _tool_port)
FEW_HOSTS = Detector("few_hosts", "c2", 0.25, _few_hosts, supports=True)
FIRST_SEEN = Detector("first_seen", "c2", 0.12, _first_seen, supports=True)
