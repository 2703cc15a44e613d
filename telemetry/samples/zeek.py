"""Zeek's conn.log, text and JSON, made from packets as Zeek would meter them.

Field names and the vocabulary of `conn_state` and `history` follow Zeek's
documentation of Conn::Info.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from zlib import crc32

from telemetry.samples.packets import ACK, FIN, RST, SYN, TCP, UDP, Packet
from telemetry.samples.plan import MINUTE, is_foreign

FIELDS: tuple[tuple[str, str], ...] = (
    ("ts", "time"),
    ("uid", "string"),
    ("id.orig_h", "addr"),
    ("id.orig_p", "port"),
    ("id.resp_h", "addr"),
    ("id.resp_p", "port"),
    ("proto", "enum"),
    ("service", "string"),
    ("duration", "interval"),
    ("orig_bytes", "count"),
    ("resp_bytes", "count"),
    ("conn_state", "string"),
    ("local_orig", "bool"),
    ("local_resp", "bool"),
    ("missed_bytes", "count"),
    ("history", "string"),
    ("orig_pkts", "count"),
    ("orig_ip_bytes", "count"),
    ("resp_pkts", "count"),
    ("resp_ip_bytes", "count"),
    ("tunnel_parents", "set[string]"),
    ("orig_l2_addr", "string"),
    ("site_note", "string"),
)
"""Zeek's columns, the optional link address, and a column of the site's own."""
SERVICES = {53: "dns", 443: "ssl", 25: "smtp", 993: "ssl", 22: "ssh", 3389: "rdp", 5060: "sip"}
SILENCE = {TCP: 5 * MINUTE, UDP: MINUTE}
LINK_ADDRESS = "02:ca:fe:4a:50:01"


@dataclass(slots=True)
class _Connection:
    first: Packet
    last: int
    packets: list[int] = field(default_factory=lambda: [0, 0])
    bytes: list[int] = field(default_factory=lambda: [0, 0])
    ip_bytes: list[int] = field(default_factory=lambda: [0, 0])
    history: str = ""

    def add(self, packet: Packet) -> None:
        side = 0 if packet.src == self.first.src else 1
        self.last = packet.time
        self.packets[side] += 1
        self.bytes[side] += packet.length
        head = 8 if packet.protocol == UDP else 28 if packet.flags & SYN else 20
        self.ip_bytes[side] += packet.length + head + (40 if ":" in packet.src else 20)
        for letter in _letters(packet):
            mark = letter.upper() if side == 0 else letter
            if mark not in self.history:
                self.history += mark

    def state(self) -> str:
        """Zeek's summary of how the connection went."""
        seen = set(self.history)
        if self.first.protocol != TCP:
            return "SF" if self.packets[1] else "S0"
        if "S" not in seen:
            return "OTH"
        if "h" not in seen:
            return "REJ" if "r" in seen else "S0"
        if "R" in seen or "r" in seen:
            return "RSTO" if "R" in seen else "RSTR"
        return "SF" if {"F", "f"} <= seen else "S1"


def _letters(packet: Packet) -> str:
    if packet.protocol == UDP:
        return "d" if packet.length else ""
    if packet.flags & SYN:
        return "h" if packet.flags & ACK else "s"
    return "".join(
        letter
        for letter, holds in (
            ("a", packet.flags & ACK and not packet.length and not packet.flags & (FIN | RST)),
            ("d", packet.length),
            ("f", packet.flags & FIN),
            ("r", packet.flags & RST),
        )
        if holds
    )


def _connections(packets: Iterable[Packet]) -> list[_Connection]:
    """Groups packets, in time order, by addresses and ports until a long silence."""
    done: list[_Connection] = []
    active: dict[tuple[object, ...], _Connection] = {}
    for packet in packets:
        ends = sorted([(packet.src, packet.src_port), (packet.dst, packet.dst_port)])
        key = (packet.protocol, *ends)
        connection = active.get(key)
        if connection is None or packet.time - connection.last > SILENCE[packet.protocol]:
            connection = active[key] = _Connection(packet, packet.time)
            done.append(connection)
        connection.add(packet)
    return done


def rows(packets: Iterable[Packet]) -> list[dict[str, object]]:
    """One row a connection, in order of their first packet; absent values are None."""
    result: list[dict[str, object]] = []
    for number, connection in enumerate(_connections(packets)):
        first = connection.first
        answered = connection.packets[1] > 0
        mark = crc32(f"{number}/{first.time}/{first.src}".encode())
        values: tuple[object, ...] = (
            first.time / 1e6,
            f"C{mark:08x}{number:06d}",
            first.src,
            first.src_port,
            first.dst,
            first.dst_port,
            "tcp" if first.protocol == TCP else "udp",
            SERVICES.get(first.dst_port) if answered else None,
            (connection.last - first.time) / 1e6 if sum(connection.packets) > 1 else None,
            connection.bytes[0] if answered else None,
            connection.bytes[1] if answered else None,
            connection.state(),
            not is_foreign(first.src),
            not is_foreign(first.dst),
            0,
            connection.history,
            connection.packets[0],
            connection.ip_bytes[0],
            connection.packets[1],
            connection.ip_bytes[1],
            None,
            LINK_ADDRESS,
            first.canary.decode().split()[0],
        )
        result.append(dict(zip((name for name, _ in FIELDS), values, strict=True)))
    return result


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "T" if value else "F"
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def as_text(table: list[dict[str, object]]) -> bytes:
    """Zeek's tab-separated form, with its header and closing line."""
    lines = [
        "#separator \\x09",
        "#set_separator\t,",
        "#empty_field\t(empty)",
        "#unset_field\t-",
        "#path\tconn",
        "#open\t2026-10-14-00-00-00",
        "#fields\t" + "\t".join(name for name, _ in FIELDS),
        "#types\t" + "\t".join(kind for _, kind in FIELDS),
    ]
    lines += ["\t".join(_text(value) for value in row.values()) for row in table]
    lines.append("#close\t2026-10-14-06-00-00")
    return ("\n".join(lines) + "\n").encode()


def as_json(table: list[dict[str, object]]) -> bytes:
    """Zeek's JSON form: one object a line, absent values left out."""
    return "".join(
        json.dumps({name: value for name, value in row.items() if value is not None}) + "\n"
        for row in table
    ).encode()
