"""Exfiltration: an inside host sends out far more than it gets, to where few send anything."""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, one_of, ramp, steps
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


DETECTOR = Detector("upload", "exfiltration", 0.65, _evaluate)
