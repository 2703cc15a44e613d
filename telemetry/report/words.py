"""How numbers, times and names are said on the page."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from telemetry.reasons import Reason
from telemetry.records import Role

Language = Literal["en", "ja"]
LANGUAGES: tuple[Language, ...] = ("en", "ja")
"""In the order in which words are given."""

ROLES: dict[Role, tuple[str, str]] = {
    "c2": ("command and control", "gives orders to infected hosts"),
    "scanner": ("scanner", "looks for open ports and services"),
    "bruteforce": ("password guessing", "tries log-ins again and again"),
    "ddos": ("denial of service", "floods hosts with traffic"),
    "reflector": ("reflector", "sends large answers to forged questions"),
    "relay": ("relay", "hides where others' traffic comes from"),
    "spam": ("spam", "sends mail in bulk"),
    "malware_download": ("malware download", "hands out malicious files"),
    "exfiltration": ("exfiltration", "takes in what hosts inside send out"),
    "unknown": ("unclear", "stands out, but fits no role"),
}
"""Role to its name and what an endpoint of that role does."""

DROPS: dict[str, tuple[str, str]] = {
    Reason.DOMESTIC.label: ("Neither end is foreign", "両端とも国内（内内通信）"),
    Reason.UNALLOCATED.label: (
        "An end lies in no registry's table",
        "割り当てのないアドレスのため分類できない",
    ),
    Reason.DIRECTION_NOT_ALLOWED.label: (
        "Direction not covered by the authority",
        "承認の対象でない方向の通信",
    ),
    Reason.NOT_IP.label: ("Not IP (ARP and the like)", "IP でない（ARP など）"),
    Reason.LINK_TYPE_UNSUPPORTED.label: ("Link layer not supported", "対応していないリンク層"),
    Reason.UNREADABLE_LINK.label: ("Link header not readable", "リンク層ヘッダーを読めない"),
    Reason.UNREADABLE_IP.label: ("IP header not readable", "IP ヘッダーを読めない"),
    Reason.UNREADABLE_INNER.label: ("Inside of a tunnel not readable", "トンネルの内側を読めない"),
    Reason.UNREADABLE_TRANSPORT.label: ("Ports cut off", "ポート番号が切れている"),
    Reason.MALFORMED_ROW.label: ("Record that does not parse", "解釈できない記録"),
    Reason.NO_ADDRESS.label: ("Record without two addresses", "二つのアドレスがそろわない記録"),
    Reason.BAD_TIME.label: ("Time out of range", "範囲外の時刻"),
    Reason.SUPERSEDED.label: (
        "Snapshot of a connection that a later one tells better",
        "後の行がより正しく示す途中経過",
    ),
    Reason.NOT_AN_EXPORT.label: ("Not a flow export", "フロー情報でないパケット"),
    Reason.NO_TEMPLATE.label: (
        "Export whose template never came",
        "テンプレートが届かなかったフロー情報",
    ),
    Reason.ALERT.label: ("Alert of an intrusion detector", "侵入検知の警報"),
    Reason.NOT_A_RECORD.label: ("Line that tells of no traffic", "通信を示さない行"),
}
"""Label of a drop reason to the words for it, in English and Japanese."""

STATUS = {"ingested": "ingested", "already_ingested": "already there", "refused": "refused"}


def drop(label: str, language: Language = "en") -> str:
    """Returns the words for a drop reason."""
    bare = label.replace("_", " ")
    return DROPS.get(label, (bare, bare))[LANGUAGES.index(language)]


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
