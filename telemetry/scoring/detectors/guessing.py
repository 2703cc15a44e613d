"""Password guessing: many short sessions, all alike, at a door that asks for a password."""

from __future__ import annotations

import numpy as np

from telemetry.scoring.contract import Columns, Detector, Evidence, Floats, count, ramp, span, steps

ALL_DAY = (110, 143, 465, 587, 993, 995, 4190, 5060, 5061)
"""Doors at which the mail programs and telephones of honest people log in all day long."""
LAVISH = (139, 445, 3389, 5900, 5901)
"""Doors that show a desktop or shares: an attempt may take any number of bytes."""


def _evaluate(f: Columns) -> Evidence:
    sessions = f["login_sessions"]
    # fail2ban bans after five failures by default; ten sessions from abroad that all end
    # alike are no slip of the keyboard. Nemea's detectors ask for thirty of the last fifty.
    sub = steps(sessions, {4: 0.0, 6: 0.5, 8: 0.65, 10: 0.74, 30: 0.92, 100: 1.0})
    # OpenSSH gives 120 s to log in; who works there stays longer.
    sub = sub * (1 - 0.6 * ramp(f["login_duration_s"], 150, 900))
    # Failed log-ins resemble each other; real sessions do not.
    sub = sub * (1 - 0.4 * ramp(f["login_dispersion"], 0.3, 1.0))
    # A log-in that fails on OpenSSH takes 3 to 8 kB, both ways and key exchange together, on other
    # services less; who gets in and copies something takes more.
    carried = ramp(f["login_bytes"], 12_000, 60_000)
    sub = np.where(np.isin(f["login_port"], LAVISH), sub, (1 - 0.7 * carried) * sub)
    # Mail programs look for new mail every few minutes, over several connections at once; phones
    # register anew.
    hasty = _hasty(sessions, f["login_span_s"])
    sub = np.where(np.isin(f["login_port"], ALL_DAY), hasty * sub, sub)
    # One session a host is a look at the banner; three or more are guesses.
    sub = sub * (0.5 + 0.5 * ramp(f["login_sessions_per_host"], 1, 3))
    sub = np.where(f["asked_for"], 0.6 * sub, sub)
    # Where nothing of the host is seen, a forger could have said it all.
    sub = np.where(f["login_unseen_share"] > 0.5, 0.7 * sub, sub)

    def sentence(i: int) -> str:
        return (
            f"{count(sessions[i], 'session')} on port {f['login_port'][i]:.0f} of "
            f"{count(f['login_hosts'][i], 'host')} within {span(f['login_span_s'][i])}, "
            f"typically {span(f['login_duration_s'][i])} long and of like size"
        )

    return Evidence(sub, sentence)


def _at_mail(f: Columns) -> Evidence:
    """Session after session at port 25, where servers bring mail, in which no mail is brought.

    One with a mail takes 1,200 bytes and more with all headers, one with AUTH (RFC 4954) some 700.
    Servers that only ask whether an address exists do so now and then.
    """
    sessions, hosts = f["delivery_sessions"], f["delivery_hosts"]
    sub = _hasty(sessions, f["delivery_span_s"]) * ramp(sessions / np.maximum(hosts, 1), 5, 20)
    sub = sub * (1 - ramp(f["delivery_bytes"], 800, 1200))

    def sentence(i: int) -> str:
        return (
            f"{count(sessions[i], 'session')} at the mail port of {count(hosts[i], 'host')} within "
            f"{span(f['delivery_span_s'][i])}, and half of them or more too short for any mail"
        )

    return Evidence(sub, sentence)


def _hasty(sessions: Floats, span_s: Floats) -> Floats:
    """Returns how far so many sessions in that time are more than honest programs need, 0..1."""
    pause = span_s / np.maximum(sessions, 1)
    return steps(sessions, {20: 0.0, 100: 1.0}) * (1 - ramp(pause, 30, 120))


DETECTOR = Detector("guessing", "bruteforce", 0.95, _evaluate)
AT_MAIL = Detector("guessing_at_mail", "bruteforce", 0.8, _at_mail)
