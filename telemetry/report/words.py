"""How numbers, times and names are said on the page."""

from __future__ import annotations

from datetime import datetime

from telemetry.reasons import Reason
from telemetry.records import Role

ROLES: dict[Role, tuple[str, str]] = {
    "c2": ("command and control", "gives orders to infected hosts"),
    "scanner": ("scanner", "looks for open ports and services"),
    "bruteforce": ("password guessing", "tries log-ins again and again"),
    "ddos": ("denial of service", "floods hosts with traffic"),
    "reflector": ("reflector", "sends large answers to forged questions"),
    "relay": ("relay", "hides where others' traffic comes from"),
    "spam": ("spam", "sends mail in bulk"),
    "malware_download": ("malware download", "hands out malicious files"),
    "unknown": ("unclear", "stands out, but fits no role"),
}
"""Role to its name and what an endpoint of that role does."""

DROPS: dict[str, str] = {
    Reason.DOMESTIC.label: "Neither end is foreign",
    Reason.UNALLOCATED.label: "An end lies in no registry's table",
    Reason.DIRECTION_NOT_ALLOWED.label: "Direction not covered by the authority",
    Reason.NOT_IP.label: "Not IP (ARP and the like)",
    Reason.LINK_TYPE_UNSUPPORTED.label: "Link layer not supported",
    Reason.UNREADABLE_LINK.label: "Link header not readable",
    Reason.UNREADABLE_IP.label: "IP header not readable",
    Reason.UNREADABLE_INNER.label: "Inside of a tunnel not readable",
    Reason.UNREADABLE_TRANSPORT.label: "Ports cut off",
    Reason.MALFORMED_ROW.label: "Log line that does not parse",
    Reason.NO_ADDRESS.label: "Log line without two addresses",
    Reason.BAD_TIME.label: "Time out of range",
}
"""Label of a drop reason to the words for it."""

STATUS = {"ingested": "ingested", "already_ingested": "already there", "refused": "refused"}


def drop(label: str) -> str:
    """Returns the words for a drop reason."""
    return DROPS.get(label, label.replace("_", " "))


def number(value: int) -> str:
    """Returns a whole number with commas, such as `1,234`."""
    return f"{value:,}"


def share(part: int, whole: int) -> str:
    """Returns a share in percent that is never rounded to nothing or to all."""
    if not whole:
        return "none"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def plural(value: int, word: str) -> str:
    """Returns a count with its noun, such as `1 packet` or `2 packets`."""
    return f"{value:,} {word}" + ("" if value == 1 else "s")


def minute(moment: datetime) -> str:
    """Returns a time to the minute, such as `2026-03-01 04:05`."""
    return moment.strftime("%Y-%m-%d %H:%M")
