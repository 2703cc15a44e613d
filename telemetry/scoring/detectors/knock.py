"""Knocking: an address that nobody inside ever asked for tries a door and leaves.

What reaches closed doors unasked is scanning or the echo of attacks (Moore et al., Network
Telescopes, 2004), and the echoes are told apart by their flags. Yet a single try may be a
mistyped or an outdated address: it is noted, and three or more of them are
listed, or two at services that are not for strangers.
"""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, Floats, count, ramp, steps


def believable(f: Columns) -> Floats:
    """Returns how far tries can be blamed on the address they name, 0..1.

    Hundreds of addresses that send a bare SYN to one host within ten seconds are a flood,
    and most likely forged. Samples may hide that the try went on; they and one side alone
    may hide that somebody inside asked for it.
    """
    forged = 1 - 0.9 * ramp(f["crowd_syn"], 100, 300)
    hidden = (f["sampling_rate"] > 1) | (f["half_seen_share"] > 0.5)
    return forged * np.where(hidden, 0.7, 1.0)


def only_scans(f: Columns) -> Floats:
    """Returns 1, or less for who also guesses passwords: that is the name to give it."""
    return 1 - 0.5 * ramp(f["login_sessions_per_host"], 3, 10)


def _evaluate(f: Columns) -> Evidence:
    tcp, udp, echo = f["tcp_tries"], f["udp_tries"], f["echo_tries"]
    candidates = [
        # Nobody abroad has honest business at a Telnet, SMB or database port here.
        np.where(f["tcp_probed_tries"] > 0, 1.0, 0.0),
        # System ports are services, which a stranger may call by mistake.
        np.where((tcp > 0) & (f["widest_port"] < 1024), 0.92, 0.0),
        # High ports are where stale peer-to-peer partners call.
        np.where(tcp > 0, 0.7 + 0.2 * ramp(tcp, 1, 5), 0.0),
        np.where(f["both_ways"] & (f["udp_probed_tries"] > 0), 0.9, 0.0),
        # Peer-to-peer software calls from one port of its own; others take a new one each time.
        np.where(f["both_ways"] & (udp > 0), 0.4 + 0.5 * ramp(f["udp_from_ports"], 2, 5), 0.0),
        # Pings measure the net as often as they scan it.
        np.where(echo > 0, 0.3 + 0.6 * ramp(f["echo_hosts"], 1, 5), 0.0),
    ]
    again = steps(tcp + udp + f["echo_hosts"], {1: 0.75, 3: 0.93, 5: 1.0})
    # Who comes a second time to a door that is not for strangers is not mistaken about it.
    again = np.where(f["tcp_closed_tries"] >= 2, np.maximum(again, 0.9), again)
    sub = np.maximum.reduce(candidates) * again * believable(f) * only_scans(f)
    sub[f["asked_for"]] = 0.0

    def sentence(i: int) -> str:
        parts = []
        if tcp[i] or udp[i]:
            tries = count(tcp[i] + udp[i], "try", "tries")
            ports = f["all_tried_ports"][i]
            one = ports == 1 and f["widest_port"][i] > 0
            named = f"port {f['widest_port'][i]:.0f}" if one else count(ports, "port")
            parts.append(f"{tries} of {named}")
        if echo[i]:
            parts.append(f"{count(echo[i], 'ping')} of {count(f['echo_hosts'][i], 'host')}")
        return f"{' and '.join(parts)}, though nobody inside ever asked for it"

    return Evidence(sub, sentence)


DETECTOR = Detector("knock", "scanner", 0.67, _evaluate)
