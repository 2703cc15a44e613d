"""What makes a command and control rhythm more credible, though it proves nothing alone.

Sizes that repeat, a port that nobody else uses, the default port of a remote-access tool,
and few inside hosts that have to do with the endpoint.
"""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, count, one_of, ramp


def _sizes(f: Columns) -> Evidence:
    sent, got = f["rhythm_peer_dispersion"], f["rhythm_endpoint_dispersion"]
    # A MAD of a tenth of the median is what padding and changing host names leave.
    alike = (1 - ramp(np.nan_to_num(sent, nan=1.0), 0.05, 0.5)) * 0.6
    alike = alike + (1 - ramp(np.nan_to_num(got, nan=1.0), 0.05, 0.5)) * 0.4
    sub = np.where((f["rhythm_answered"] >= 4) & (f["rhythm_regularity"] > 0), alike, 0.0)

    def sentence(i: int) -> str:
        return (
            f"{count(f['rhythm_answered'][i], 'conversation')} of like size: "
            f"{f['rhythm_peer_bytes'][i]:,.0f} bytes sent ± {100 * sent[i]:.0f} %, "
            f"{f['rhythm_endpoint_bytes'][i]:,.0f} received ± {100 * got[i]:.0f} %"
        )

    return Evidence(sub, sentence)


def _odd_port(f: Columns) -> Evidence:
    rhythmic = f["rhythm_regularity"] >= 0.3
    retried = ~rhythmic & (f["retry_failed_seconds"] > 8)
    kind = np.where(rhythmic, f["rhythm_kind"], np.where(retried, f["retry_kind"], f["talk_kind"]))
    port = np.where(rhythmic, f["rhythm_port"], np.where(retried, f["retry_port"], f["talk_port"]))
    sub = np.where(one_of(kind, "other", "rat"), 1.0, 0.0)

    def sentence(i: int) -> str:
        return f"port {port[i]:.0f} belongs to no common service"

    return Evidence(sub, sentence)


def _tool_port(f: Columns) -> Evidence:
    called = one_of(f["talk_kind"], "rat") & (f["talk_opened_by_endpoint"] == 0)
    sub = np.where(called & (f["talk_protocol"] == 6), 1.0, 0.0)
    sub = sub * ramp(f["talk_peer_bytes"], 0, 200)

    def sentence(i: int) -> str:
        return f"port {f['talk_port'][i]:.0f} is the default of a remote-access tool"

    return Evidence(sub, sentence)


def _few_hosts(f: Columns) -> Evidence:
    share = f["hosts"] / np.maximum(f["all_hosts"], 1)
    # With fewer than ten inside hosts in view, a single one says little.
    sub = np.where(
        f["all_hosts"] >= 10,
        1 - ramp(share, 0.01, 0.1),
        np.where(f["hosts"] == 1, 0.5, 0.0),
    )
    sub[f["all_hosts"] == 0] = 0.0
    sub = np.where((f["all_hosts"] >= 10) & (f["hosts"] <= 2), np.maximum(sub, 0.8), sub)

    def sentence(i: int) -> str:
        return (
            f"{f['hosts'][i]:,.0f} of {count(f['all_hosts'][i], 'inside host')} "
            f"{'has' if f['hosts'][i] == 1 else 'have'} to do with it"
        )

    return Evidence(sub, sentence)


SIZES = Detector("sizes", "c2", 0.25, _sizes, supports=True)
ODD_PORT = Detector("odd_port", "c2", 0.22, _odd_port, supports=True)
TOOL_PORT = Detector("tool_port", "c2", 0.42, _tool_port)
FEW_HOSTS = Detector("few_hosts", "c2", 0.12, _few_hosts, supports=True)
