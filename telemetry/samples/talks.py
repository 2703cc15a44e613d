"""Conversations between two hosts, packet by packet, as a border sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from telemetry.samples.packets import (
    ACK,
    FIN,
    ICMP,
    ICMP6,
    PSH,
    RST,
    SYN,
    TCP,
    UDP,
    Packet,
    Tunnel,
)
from telemetry.samples.plan import SECOND, World, is_foreign

SEGMENT = 1400
MILLISECOND = 1000
LEAST = 16
"""Shortest payload that still holds the canary's marker, in bytes."""


def round_trip(world: World, host: str) -> int:
    """Microseconds from the border to the host and back."""
    low, high = (60, 240) if is_foreign(host) else (3, 18)
    return int(world.dice.between(low, high) * MILLISECOND)


def link_of(
    tunnel: Tunnel | None, vlans: tuple[int, ...], forward: bool
) -> tuple[tuple[Tunnel, ...], tuple[int, ...]]:
    """The tunnel and tags of one direction."""
    if tunnel is None:
        return (), vlans
    return (tunnel if forward else tunnel.back(),), vlans


class TcpTalk:
    """A TCP connection under construction; `packets` holds what was said so far."""

    def __init__(
        self,
        world: World,
        at: int,
        client: str,
        server: str,
        port: int,
        *,
        tunnel: Tunnel | None = None,
        vlans: tuple[int, ...] = (),
    ) -> None:
        """Prepares the connection; nothing is sent before `open`."""
        dice = world.dice
        self._world = world
        self.now = at
        self._ends = (client, server)
        self._ports = (32768 + dice.below(28000), port)
        self._seq = [dice.below(1 << 32), dice.below(1 << 32)]
        self._trip = (round_trip(world, client), round_trip(world, server))
        self._links = [link_of(tunnel, vlans, forward) for forward in (True, False)]
        self.packets: list[Packet] = []

    def _send(self, side: int, flags: int, length: int = 0, later: int = 0) -> None:
        tunnels, vlans = self._links[side]
        other = 1 - side
        self.packets.append(
            Packet(
                time=self.now + later,
                src=self._ends[side],
                dst=self._ends[other],
                protocol=TCP,
                src_port=self._ports[side],
                dst_port=self._ports[other],
                length=length,
                canary=self._world.canary,
                flags=flags,
                seq=self._seq[side],
                ack=self._seq[other] if flags & ACK else 0,
                tunnels=tunnels,
                vlans=vlans,
            )
        )
        self._seq[side] += length + (1 if flags & (SYN | FIN) else 0)

    def knock(self) -> None:
        """The client's SYN alone."""
        self._send(0, SYN)

    def refuse(self) -> None:
        """The server's reset to a SYN."""
        self.now += self._trip[1]
        self._send(1, RST | ACK)

    def accept(self) -> None:
        """The server's SYN-ACK."""
        self.now += self._trip[1]
        self._send(1, SYN | ACK)

    def open(self) -> None:
        """The whole handshake."""
        self.knock()
        self.accept()
        self.now += self._trip[0]
        self._send(0, ACK)

    def say(self, side: Literal[0, 1], length: int) -> None:
        """Data from the client (0) or server (1), acknowledged every second segment."""
        sent = 0
        while sent < length:
            part = min(SEGMENT, length - sent)
            if 0 < length - sent - part < LEAST:  # no segment too short for the canary
                part -= LEAST
            sent += part
            self._send(side, ACK | (PSH if sent >= length else 0), part)
            self.now += 150 + self._world.dice.below(200)
            if sent >= length or self.packets[-2].length:
                self._send(1 - side, ACK, later=self._trip[1 - side])

    def ask(self, up: int, down: int) -> None:
        """A request and its answer, one round trip apart."""
        self.say(0, up)
        self.now += self._trip[1]
        self.say(1, down)
        self.now += self._trip[0]

    def wait(self, microseconds: int) -> None:
        """Silence."""
        self.now += microseconds

    def close(self, by: Literal[0, 1] = 0) -> None:
        """An orderly end, started by one side."""
        self.now += self._trip[by] + SECOND // 1000
        self._send(by, FIN | ACK)
        self.now += self._trip[1 - by]
        self._send(1 - by, FIN | ACK)
        self.now += self._trip[by]
        self._send(by, ACK)

    def reset(self, by: Literal[0, 1] = 0) -> None:
        """An abrupt end."""
        self.now += self._trip[by]
        self._send(by, RST | ACK)


def datagram(
    world: World, at: int, src: str, dst: str, ports: tuple[int, int], length: int
) -> Packet:
    """One UDP datagram."""
    return Packet(at, src, dst, UDP, ports[0], ports[1], length, world.canary)


def exchange(
    world: World,
    at: int,
    client: str,
    server: str,
    ports: tuple[int, int],
    lengths: tuple[int, int],
    tunnel: Tunnel | None = None,
    vlans: tuple[int, ...] = (),
) -> Iterator[Packet]:
    """A UDP question and its answer."""
    ask = datagram(world, at, client, server, ports, lengths[0])
    later = at + round_trip(world, server)
    answer = datagram(world, later, server, client, (ports[1], ports[0]), lengths[1])
    for packet, forward in ((ask, True), (answer, False)):
        tunnels, tags = link_of(tunnel, vlans, forward)
        yield replace(packet, tunnels=tunnels, vlans=tags)


def echo(world: World, at: int, client: str, server: str, number: int) -> Iterator[Packet]:
    """A ping and its answer."""
    protocol, kinds = (ICMP6, (128, 129)) if ":" in client else (ICMP, (8, 0))
    first = Packet(at, client, server, protocol, kinds[0], 0, 56, world.canary, seq=number)
    yield first
    later = at + round_trip(world, server)
    yield replace(first, time=later, src=server, dst=client, src_port=kinds[1])
