"""Spam: mail to many inside hosts, most of it turned down at the door or of a few words."""

from __future__ import annotations

from telemetry.scoring.contract import Columns, Detector, Evidence, count, span, steps


def _evaluate(f: Columns) -> Evidence:
    # Many mail servers, or the same few again and again.
    reach = f["delivery_hosts"] + f["delivery_sessions"] / 20
    sub = steps(reach, {4: 0.0, 10: 0.6, 20: 0.9, 40: 1.0})
    # Who is refused has sent greeting, sender and recipient: some 600 bytes with all headers.
    # Mail of today comes under TLS and signed (RFC 8461, RFC 6376): 5,000 bytes and more.
    sub = sub * steps(f["delivery_bytes"], {2000: 1.0, 6000: 0.3})

    def sentence(i: int) -> str:
        return (
            f"{count(f['delivery_sessions'][i], 'mail session')} with "
            f"{count(f['delivery_hosts'][i], 'inside host')} within "
            f"{span(f['delivery_span_s'][i])}, in which it mostly sent "
            f"{f['delivery_bytes'][i]:,.0f} bytes or so, headers and all"
        )

    return Evidence(sub, sentence)


DETECTOR = Detector("delivery", "spam", 0.75, _evaluate)
