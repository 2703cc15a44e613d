"""Malware download: a host fetches something large once and begins to beacon elsewhere.

Browsing looks alike whenever a page is read before an update check, so this is a hint beside the
beacon, never a listing of its own.
"""

from __future__ import annotations

from telemetry.scoring.contract import Columns, Detector, Evidence, count, span, steps
from telemetry.scoring.detectors.rhythm import popularity, timetable


def _evaluate(f: Columns) -> Evidence:
    beacon = f["download_regularity"] * timetable(f["download_kind"], f["download_median_s"])
    # Of several fetches one at most is the one that matters.
    alone = steps(f["download_fetches"], {1: 1.0, 4: 0.4, 16: 0.1})
    sub = beacon * alone * popularity(f) * (f["download_bytes"] > 0)

    def sentence(i: int) -> str:
        others = f["download_fetches"][i] - 1
        return (
            f"an inside host fetched {f['download_bytes'][i]:,.0f} bytes from port "
            f"{f['download_port'][i]:.0f} and {span(f['download_before_s'][i])} later began to "
            f"call another address every {span(f['download_median_s'][i])}; it fetched from "
            f"{count(others, 'other address', 'other addresses')} in the ten minutes before"
        )

    return Evidence(sub, sentence)


DETECTOR = Detector("download", "malware_download", 0.45, _evaluate)
