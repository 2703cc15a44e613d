"""Scanning: one port on many hosts, many ports on a host, or both."""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, count, span, steps
from telemetry.scoring.detectors.knock import believable, only_scans


def _evaluate(f: Columns) -> Evidence:
    # Threshold random walk (Jung et al., S&P 2004) decides after some four to six failed
    # first contacts; Zeek's scan detector after 25 hosts or 15 ports.
    wide = steps(f["widest_port_hosts"], {1: 0.0, 2: 0.5, 4: 0.75, 10: 0.9, 25: 1.0})
    tall = steps(f["most_ports_on_a_host"], {1: 0.0, 2: 0.6, 4: 0.75, 8: 0.9, 15: 1.0})
    # Voice and peer-to-peer software try a few UDP ports, not dozens.
    udp = np.where(f["both_ways"], steps(f["udp_ports"], {5: 0.0, 10: 0.7, 30: 0.95}), 0.0)
    sub = 1 - (1 - wide) * (1 - np.maximum(tall, udp))
    sub = np.where(f["asked_for"], 0.5 * sub, sub) * believable(f) * only_scans(f)

    def sentence(i: int) -> str:
        ports, hosts = max(f["tried_ports"][i], f["udp_ports"][i]), max(f["tried_hosts"][i], 1)
        within = f"within {span(f['tried_span_s'][i])}, and did nothing there"
        tried = f"tried {count(ports, 'port')} on {count(hosts, 'host')} {within}"
        if ports == 1 or hosts == 1:
            return tried
        most = max(f["most_ports_on_a_host"][i], f["udp_ports"][i])
        widest = f["widest_port_hosts"][i]
        return f"{tried}; one port on up to {widest:,.0f} of them, up to {most:,.0f} ports on one"

    return Evidence(sub, sentence)


DETECTOR = Detector("scan", "scanner", 0.92, _evaluate)
