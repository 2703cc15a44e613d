"""Exfiltration: an inside host sends out far more than it gets, to where few send anything."""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, one_of, ramp, span, steps
from telemetry.scoring.detectors.rhythm import popularity


def _evaluate(f: Columns) -> Evidence:
    sent, got = f["upload_bytes"], f["upload_got_bytes"]
    ratio = sent / np.maximum(got, 1)
    # Photos and documents are megabytes; what is worth stealing by the disk is more.
    sub = steps(sent, {2e7: 0.0, 1e8: 0.6, 1e9: 1.0}) * ramp(ratio, 4, 20)
    kind = f["upload_kind"]
    # Backups and calls send much too, on ports of theirs.
    sub = sub * np.where(one_of(kind, "web", "share"), 0.5, 1.0)
    sub = sub * np.where(one_of(kind, "tunnel", "talk", "peer", "mail"), 0.3, 1.0)
    sub = sub * popularity(f)

    def sentence(i: int) -> str:
        return (
            f"an inside host sent it {sent[i] / 1e6:,.0f} MB on port {f['upload_port'][i]:.0f}, "
            f"{ratio[i]:,.0f} times what it got"
        )

    return Evidence(sub, sentence)


def _loot(f: Columns) -> Evidence:
    """Stealers hand in what they find piece by piece, within a minute or so, and are gone.

    Each piece is a call of its own (MITRE ATT&CK T1041), and the server says the same to all: most
    are orders and short notes, few are what was stolen. Programs that send photos, parts of
    backups or reports in calls of their own send them in like sizes, or all day long.
    """
    sent, calls, median = f["upload_bytes"], f["upload_calls"], f["upload_median_bytes"]
    few_carry_all = ramp(sent / np.maximum(calls * median, 1), 3, 12) * (1 - ramp(median, 5e3, 2e4))
    answers_alike = 1 - ramp(np.nan_to_num(f["upload_got_dispersion"], nan=1.0), 0.02, 0.05)
    quick = 1 - steps(f["upload_span_s"], {300: 0.0, 1800: 1.0})
    sub = ramp(calls, 5, 10) * few_carry_all * answers_alike * quick
    sub = (
        sub
        * steps(sent, {5e4: 0.0, 3e5: 1.0, 2e7: 1.0, 1e8: 0.0})
        * ramp(sent / np.maximum(f["upload_got_bytes"], 1), 4, 8)
    )
    sub = np.where(one_of(f["upload_kind"], "web", "other", "rat"), sub, 0.0) * popularity(f)
    # Samples tell nothing of how calls differ.
    sub = np.where(f["sampling_rate"] == 1, sub, 0.0)

    def sentence(i: int) -> str:
        return (
            f"an inside host sent it {sent[i] / 1e3:,.0f} kB in {calls[i]:,.0f} calls within "
            f"{span(f['upload_span_s'][i])}, half of them of {median[i]:,.0f} bytes or less, and "
            "got answers of like size"
        )

    return Evidence(sub, sentence)


DETECTOR = Detector("upload", "exfiltration", 0.65, _evaluate)
LOOT = Detector("loot", "exfiltration", 0.65, _loot)
