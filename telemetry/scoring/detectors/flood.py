"""DDoS: sources that flood, and reflectors that others make flood.

One of many sources looks harmless by itself; what gives it away is the crowd: how many
addresses begin to send the same kind of unasked packets to the same host within the same
ten seconds. A popular site gets crowds too, but of visitors that shake hands.
"""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, count, ramp, steps


def _reflection(f: Columns) -> Evidence:
    amplified = steps(f["crowd_amplified"], {4: 0.0, 8: 0.6, 20: 0.85, 50: 1.0})
    size = f["amplified_bytes"] / np.maximum(f["amplified_packets"], 1)
    # Alone, it must send many large answers that nobody asked for. An honest DNS answer
    # stays below 1232 bytes and comes one to a question.
    alone = ramp(f["amplified_packets"], 10, 100) * ramp(size, 200, 600) * 0.8
    alone = np.where(f["both_ways"] & ~f["asked_for"], alone, 0.0)
    bounced = steps(f["crowd_reflected"], {15: 0.0, 30: 0.6, 100: 0.9, 300: 1.0})
    # Of one side alone, the victims of a scan from inside look like reflectors. But forged
    # calls come from any port, and no host makes calls from those below 1024 (RFC 6335).
    scanned = (f["half_seen_share"] > 0.5) & (f["reflected_to_system_ports"] < 3)
    bounced = np.where(scanned, 0.6 * bounced, bounced)
    answers = np.maximum(amplified, alone)
    sub = np.maximum(answers, bounced)
    sub = np.where(f["asked_for"], 0.6 * sub, sub)

    def sentence(i: int) -> str:
        if answers[i] >= bounced[i]:
            return (
                f"{count(f['amplified_packets'][i], 'unasked answer')} of "
                f"{size[i]:,.0f} bytes from a port that amplifies, while "
                f"{count(f['crowd_amplified'][i], 'such address', 'such addresses')} did the "
                "same to one host within ten seconds"
            )
        return (
            "answers TCP calls that the host never made, as did "
            f"{count(f['crowd_reflected'][i], 'address', 'addresses')} within ten seconds"
        )

    return Evidence(sub, sentence)


def _flood(f: Columns) -> Evidence:
    # Carpet bombing spreads a flood over the hosts of a network, so that each gets little.
    on_one = np.maximum(f["crowd_udp"], f["crowd_tcp"])
    crowd = np.maximum(on_one, f["crowd_net"])
    together = steps(crowd, {15: 0.0, 40: 0.6, 200: 1.0})
    rate = f["one_way_packets_per_s"]
    alone = steps(rate, {50: 0.0, 200: 0.7, 2000: 1.0}) * steps(
        f["one_way_packets"], {300: 0.0, 2000: 1.0}
    )
    # In a view of one side alone, every conversation looks one-way.
    alone = np.where(f["both_ways"], alone, 0.0)
    # The sources of a SYN flood are forged more often than not: worth a word, no listing.
    forged = 0.3 * steps(f["crowd_syn"], {100: 0.0, 300: 1.0})
    sub = np.maximum.reduce([together, alone, forged])
    sub = np.where(f["asked_for"], 0.5 * sub, sub)

    def sentence(i: int) -> str:
        if forged[i] >= max(together[i], alone[i]):
            return (
                f"one of {f['crowd_syn'][i]:,.0f} addresses that sent bare SYNs to one host "
                "within ten seconds; such sources are mostly forged"
            )
        return (
            f"{count(f['one_way_packets'][i], 'packet')} that got no answer, up to "
            f"{max(rate[i], 1):,.0f} a second, in a crowd of {crowd[i]:,.0f} within ten seconds"
            f"{' on one network' if crowd[i] > on_one[i] else ''}"
        )

    return Evidence(sub, sentence)


REFLECTION = Detector("reflection", "reflector", 0.92, _reflection)
FLOOD = Detector("flood", "ddos", 0.9, _flood)
