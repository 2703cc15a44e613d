"""What happens in the generated captures: one function a scenario.

To add one, write a function that takes a `World` and gives packets, and enter it in
`SCENARIOS` with the capture it belongs to. Every foreign endpoint a scenario uses must
be labelled; `benign` is the default role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from telemetry.samples.packets import ACK, RST, SYN, TCP, Item, Packet, Tunnel, arp, lldp
from telemetry.samples.plan import (
    FORGED,
    HOME,
    HOME6,
    HOSTILE6,
    HOUR,
    MINUTE,
    SECOND,
    SERVERS,
    World,
)
from telemetry.samples.talks import TcpTalk, datagram, echo, exchange

PRIVATE_CUSTOMER = "192.168.1.10"
"""Several subscribers use this same address behind their own softwire."""
SOFTWIRE_CUSTOMER = "192.0.0.2"
"""The address RFC 6333 gives the customer's end of a softwire."""


# ---- ordinary traffic ---------------------------------------------------------------


def _browse(world: World, talk: TcpTalk) -> Iterator[Packet]:
    """One visit: a few requests with heavy-tailed answers and reading pauses."""
    dice = world.dice
    talk.open()
    for _ in range(1 + dice.below(3)):
        talk.ask(dice.size(180, 1200), dice.size(700, 24_000))
        talk.wait(dice.pause(4 * SECOND))
    talk.close(by=1 if dice.chance(0.4) else 0)
    yield from talk.packets


def web_browsing(world: World) -> Iterator[Item]:
    """Many hosts visit some forty foreign web servers, a few of them far more often."""
    for at in world.at_random(75 * SECOND):
        server = world.label(world.plan.web[world.dice.popular(len(world.plan.web))])
        yield from _browse(world, TcpTalk(world, at, world.home(), server, 443))


def web_ipv6(world: World) -> Iterator[Item]:
    """The same over IPv6."""
    plan, dice = world.plan, world.dice
    for at in world.at_random(150 * SECOND):
        server = world.label(plan.web6[dice.popular(len(plan.web6))])
        yield from _browse(world, TcpTalk(world, at, plan.homes6[dice.below(16)], server, 443))


def web_tagged(world: World) -> Iterator[Item]:
    """Visits under one VLAN tag, or two (QinQ)."""
    for at in world.at_random(6 * MINUTE):
        tags = (100,) if world.dice.chance(0.5) else (200, 31)
        server = world.label(world.plan.web[world.dice.popular(len(world.plan.web))])
        yield from _browse(world, TcpTalk(world, at, world.home(), server, 443, vlans=tags))


def web_domestic(world: World) -> Iterator[Item]:
    """Visits to servers in the same country: must leave no trace."""
    servers = world.dice.addresses(HOME, 6)
    for at in world.at_random(3 * MINUTE):
        server = servers[world.dice.popular(len(servers))]
        yield from _browse(world, TcpTalk(world, at, world.home(), server, 443))


def dns(world: World) -> Iterator[Item]:
    """Name look-ups at foreign and domestic resolvers, some over IPv6."""
    plan, dice = world.plan, world.dice
    resolver6 = world.label(plan.web6[0])
    for at in world.at_random(16 * SECOND):
        ports, sizes = (1024 + dice.below(64000), 53), (28 + dice.below(30), dice.size(60, 480))
        if dice.chance(0.15):
            yield from exchange(world, at, plan.homes6[dice.below(16)], resolver6, ports, sizes)
        elif dice.chance(0.4):
            resolver = plan.home_resolvers[dice.below(2)]
            yield from exchange(world, at, world.home(), resolver, ports, sizes)
        else:
            resolver = world.label(plan.resolvers[dice.below(4)])
            yield from exchange(world, at, world.home(), resolver, ports, sizes)


def ntp(world: World) -> Iterator[Item]:
    """Clocks set every 64 seconds from shared servers: regular as a beacon, harmless."""
    plan, dice = world.plan, world.dice
    for number, host in enumerate(plan.homes[:7]):
        clock = plan.home_clock if number == 0 else world.label(plan.clocks[number % 2])
        for at in world.every(64 * SECOND, 0.01):
            yield from exchange(world, at, host, clock, (123, 123), (48, 48))
            if dice.chance(0.002):  # the daemon starts anew
                break


def updates(world: World) -> Iterator[Item]:
    """Hourly update checks with jitter at a content network; now and then a download."""
    plan, dice = world.plan, world.dice
    for host in plan.homes[:24]:
        for at in world.every(HOUR, 0.1):
            talk = TcpTalk(world, at, host, world.label(plan.updates[dice.below(4)]), 443)
            talk.open()
            talk.ask(420, 60_000 if dice.chance(0.05) else 640)
            talk.close()
            yield from talk.packets


def mail(world: World) -> Iterator[Item]:
    """IMAP clients that look for mail every few minutes, and servers that send it."""
    plan, dice = world.plan, world.dice
    for number, host in enumerate(plan.homes[10:22]):
        server = world.label(plan.mail[number % 2])
        for at in world.every((3 + number % 4) * MINUTE, 0.05):
            talk = TcpTalk(world, at, host, server, 993)
            talk.open()
            talk.ask(310, dice.size(240, 4000))
            talk.close()
            yield from talk.packets
    for at in world.at_random(5 * MINUTE):
        ours, theirs = plan.home_mail[dice.below(3)], world.label(plan.mail[2 + dice.below(2)])
        ends = (ours, theirs) if dice.chance(0.5) else (theirs, ours)
        talk = TcpTalk(world, at, *ends, 25)
        talk.open()
        talk.say(1, 70)
        talk.ask(40, 90)
        talk.ask(dice.size(900, 20_000), 60)
        talk.close()
        yield from talk.packets


def push(world: World) -> Iterator[Item]:
    """Connections kept for hours for notifications: long-lived, rhythmic, harmless."""
    plan, dice = world.plan, world.dice
    for number, host in enumerate(plan.homes[20:34]):
        server = world.label(plan.push[number % 3])
        talk = TcpTalk(world, world.start + int(dice.between(0, 10 * MINUTE)), host, server, 5228)
        talk.open()
        talk.ask(517, 2100)
        period = (5, 10, 14)[number % 3] * MINUTE
        while talk.now + period < world.end:
            talk.wait(dice.jitter(period, 0.08))
            if dice.chance(0.25):
                talk.say(1, dice.size(180, 2400))  # a message arrives
            else:
                talk.ask(26, 26)
        yield from talk.packets


def domestic_calls(world: World) -> Iterator[Item]:
    """Telephone calls inside the country: SIP, then RTP both ways every 20 ms."""
    plan, dice = world.plan, world.dice
    for _ in range(6):
        at, (one, other) = world.somewhere(MINUTE), dice.addresses(HOME, 2)
        yield from exchange(world, at, one, other, (5060, 5060), (780, 420))
        ports = (16384 + 2 * dice.below(8000), 16384 + 2 * dice.below(8000))
        for number in range(180):
            moment = at + 2 * SECOND + number * 20_000 + dice.below(900)
            yield datagram(world, moment, one, other, ports, 172)
            yield datagram(world, moment + 7000, other, one, ports[::-1], 172)
        yield from exchange(world, at + 6 * SECOND, one, other, (5060, 5060), (410, 390))
        yield from exchange(world, at, one, plan.home_resolvers[0], (40000, 53), (40, 90))


def ping(world: World) -> Iterator[Item]:
    """A monitoring host pings a foreign and a domestic server; somebody pings by hand."""
    plan = world.plan
    for number, at in enumerate(world.every(5 * MINUTE, 0.01)):
        for target in (world.label(plan.web[0]), plan.home_clock):
            yield from echo(world, at, plan.homes[1], target, number)
    at = world.somewhere(MINUTE)
    for number in range(5):
        target = world.label(plan.web6[1])
        yield from echo(world, at + number * SECOND, plan.homes6[0], target, number)


def abandoned_servers(world: World) -> Iterator[Item]:
    """Home hosts try foreign servers that no longer answer, or refuse."""
    for at in world.at_random(15 * MINUTE):
        server = world.label(world.dice.address(SERVERS))
        talk = TcpTalk(world, at, world.home(), server, 443)
        talk.knock()
        if world.dice.chance(0.5):
            talk.refuse()
        yield from talk.packets


def transit(world: World) -> Iterator[Item]:
    """Foreign hosts whose connections only cross the country."""
    for at in world.at_random(12 * MINUTE):
        one, other = (world.label(address) for address in world.dice.addresses(SERVERS, 2))
        yield from _browse(world, TcpTalk(world, at, one, other, 443))


def link_noise(world: World) -> Iterator[Item]:
    """What routers say on the wire: ARP, and LLDP with the system's name."""
    for at in world.every(4 * MINUTE, 0.1):
        yield arp(at, "10.255.0.1", "10.255.0.2")
    for at in world.every(10 * MINUTE, 0.01):
        yield lldp(at, world.canary[:60])


def tunnels(world: World) -> Iterator[Item]:
    """GRE and 6in4: the pair inside decides, unless both inner ends are private."""
    plan, dice = world.plan, world.dice
    near, far = dice.addresses(HOME, 2)
    branch = world.label(dice.address(SERVERS))
    between, abroad = Tunnel(near, far, "gre"), Tunnel(near, branch, "gre")
    relay = Tunnel(plan.homes[2], far)
    for at in world.at_random(9 * MINUTE):
        server = world.label(plan.web[dice.below(10)])
        yield from _browse(world, TcpTalk(world, at, world.home(), server, 443, tunnel=between))
    for at in world.at_random(12 * MINUTE):
        yield from _browse(world, TcpTalk(world, at, "10.1.0.5", "10.2.0.9", 445, tunnel=abroad))
    for at in world.at_random(9 * MINUTE):
        server = world.label(plan.web6[dice.below(6)])
        yield from _browse(world, TcpTalk(world, at, plan.homes6[3], server, 443, tunnel=relay))


def dual_stack_lite(world: World) -> Iterator[Item]:
    """IPv4 inside IPv6 to the provider's gateway; subscribers share an inner address."""
    plan, dice = world.plan, world.dice
    customers = (PRIVATE_CUSTOMER, PRIVATE_CUSTOMER, PRIVATE_CUSTOMER, SOFTWIRE_CUSTOMER)
    for number, element in enumerate(plan.homes6[4:12]):
        softwire, inner = Tunnel(element, plan.aftr), customers[number % 4]
        for at in world.at_random(15 * MINUTE):
            server = world.label(plan.web[dice.popular(len(plan.web))])
            yield from _browse(world, TcpTalk(world, at, inner, server, 443, tunnel=softwire))
        for at in world.at_random(9 * MINUTE):
            abroad = dice.chance(0.6)
            resolver = world.label(plan.resolvers[0]) if abroad else plan.home_resolvers[0]
            ports = (1024 + dice.below(64000), 53)
            yield from exchange(world, at, inner, resolver, ports, (44, 120), softwire)


# ---- hostile traffic ----------------------------------------------------------------


def _beat(world: World, at: int, host: str, server: str, port: int, up: int, down: int) -> TcpTalk:
    talk = TcpTalk(world, at, host, server, port)
    talk.open()
    talk.ask(up, down)
    talk.close()
    return talk


def c2_minute(world: World) -> Iterator[Item]:
    """Two infected hosts call every 60 seconds, a fifth more or less."""
    server = world.foe("c2")
    for host in world.plan.homes[3:5]:
        for at in world.every(MINUTE, 0.2):
            talk = _beat(world, at, host, server, 8443, 236 + world.dice.below(8), 148)
            yield from talk.packets


def c2_five_minutes(world: World) -> Iterator[Item]:
    """One infected host calls every five minutes, a tenth more or less."""
    server = world.foe("c2")
    for at in world.every(5 * MINUTE, 0.1):
        answer = 2600 if world.dice.chance(0.04) else 196  # now and then an order
        yield from _beat(world, at, world.plan.homes[6], server, 443, 312, answer).packets


def c2_ipv6(world: World) -> Iterator[Item]:
    """A beacon over IPv6 every two minutes."""
    server = world.foe("c2", HOSTILE6)
    for at in world.every(2 * MINUTE, 0.15):
        yield from _beat(world, at, world.plan.homes6[2], server, 443, 280, 160).packets


def c2_sleepy(world: World) -> Iterator[Item]:
    """A beacon that misses beats and is told to sleep longer half-way."""
    server, dice = world.foe("c2"), world.dice
    middle, now = (world.start + world.end) // 2, world.start + MINUTE
    while now < world.end:
        if not dice.chance(0.15):
            yield from _beat(world, now, world.plan.homes[8], server, 4444, 190, 90).packets
        now += dice.jitter(45 * SECOND if now < middle else 6 * MINUTE, 0.12)


def c2_long(world: World) -> Iterator[Item]:
    """One connection for hours, with a heartbeat inside and orders in between."""
    server, dice = world.foe("c2"), world.dice
    talk = TcpTalk(world, world.start + 4 * MINUTE, world.plan.homes[9], server, 1337)
    talk.open()
    talk.ask(260, 120)
    while talk.now < world.end - MINUTE:
        talk.wait(dice.jitter(30 * SECOND, 0.1))
        talk.ask(48, 40)
        if dice.chance(0.01):
            talk.say(0, dice.size(2000, 30_000))
    yield from talk.packets


def c2_softwire(world: World) -> Iterator[Item]:
    """A beacon of one subscriber behind DS-Lite, every 90 seconds."""
    server, softwire = world.foe("c2"), Tunnel(world.plan.homes6[5], world.plan.aftr)
    for at in world.every(90 * SECOND, 0.1):
        talk = TcpTalk(world, at, PRIVATE_CUSTOMER, server, 443, tunnel=softwire)
        talk.open()
        talk.ask(222, 130)
        talk.close()
        yield from talk.packets


def _probe(world: World, at: int, source: str, target: str, port: int) -> Iterator[Packet]:
    """One SYN: mostly no answer, sometimes a refusal, seldom an open port."""
    talk = TcpTalk(world, at, source, target, port)
    talk.knock()
    if world.dice.chance(0.12):
        talk.refuse()
    elif world.dice.chance(0.02):
        talk.accept()
        talk.reset()
    yield from talk.packets


def scan_fast(world: World) -> Iterator[Item]:
    """Forty probes a second through home addresses, one port each source."""
    for port in (445, 23):
        source, at = world.foe("scanner"), world.somewhere(5 * MINUTE)
        for target in world.dice.addresses(HOME, 900):
            at += world.dice.pause(SECOND / 40)
            yield from _probe(world, at, source, target, port)


def scan_slow(world: World) -> Iterator[Item]:
    """One probe every few minutes for hours, a new target each time."""
    source = world.foe("scanner")
    for at in world.every(3 * MINUTE, 0.4):
        yield from _probe(world, at, source, world.dice.address(HOME), 3389)


def scan_vertical(world: World) -> Iterator[Item]:
    """The low ports of one host, in random order."""
    source, target, at = world.foe("scanner"), world.home(), world.somewhere(5 * MINUTE)
    first = world.dice.below(1000)
    for step in range(1000):
        at += world.dice.pause(SECOND / 30)
        yield from _probe(world, at, source, target, 1 + (first + step * 387) % 1000)


def scan_ipv6(world: World) -> Iterator[Item]:
    """Known networks searched for SSH over IPv6."""
    source, at = world.foe("scanner", HOSTILE6), world.somewhere(20 * MINUTE)
    for target in world.dice.addresses(HOME6, 150):
        at += world.dice.pause(3 * SECOND)
        yield from _probe(world, at, source, target, 22)


def guess_ssh(world: World) -> Iterator[Item]:
    """Password guessing against SSH: many short sessions alike."""
    dice = world.dice
    for _ in range(3):
        source, targets = world.foe("bruteforce"), dice.addresses(HOME, 3)
        at = world.somewhere(25 * MINUTE)
        for number in range(90):
            at += dice.pause(9 * SECOND)
            talk = TcpTalk(world, at, source, targets[number % 3], 22)
            talk.open()
            talk.say(1, 41)
            talk.ask(21, 1080)
            talk.ask(1232, 452)
            for _ in range(1 + dice.below(3)):
                talk.ask(84, 52)
            talk.close(by=1)
            yield from talk.packets


def guess_rdp(world: World) -> Iterator[Item]:
    """Password guessing against remote desktops."""
    dice = world.dice
    for _ in range(2):
        source, targets = world.foe("bruteforce"), dice.addresses(HOME, 2)
        at = world.somewhere(30 * MINUTE)
        for number in range(80):
            at += dice.pause(15 * SECOND)
            talk = TcpTalk(world, at, source, targets[number % 2], 3389)
            talk.open()
            talk.ask(43, 19)
            talk.ask(190, 1260)
            talk.ask(560, 112)
            talk.reset(by=1)
            yield from talk.packets


def spam(world: World) -> Iterator[Item]:
    """One host delivers to the mail servers of many networks."""
    source, targets, dice = world.foe("spam"), world.dice.addresses(HOME, 35), world.dice
    for number, at in enumerate(world.every(4 * MINUTE, 0.5)):
        talk = TcpTalk(world, at, source, targets[number % 35], 25)
        talk.open()
        talk.say(1, 70)
        talk.ask(30, 90)
        if dice.chance(0.5):
            talk.ask(60, 44)  # refused
        else:
            talk.ask(1500 + dice.below(200), 60)
        talk.close()
        yield from talk.packets


def reflection_ntp(world: World) -> Iterator[Item]:
    """Time servers answer what the victim never asked, all within minutes."""
    dice, victim, begin = world.dice, world.plan.homes[30], world.somewhere(10 * MINUTE)
    for _ in range(110):
        reflector, at = world.foe("reflector"), begin + dice.below(20 * SECOND)
        port = 1024 + dice.below(60000)
        for _ in range(12):
            at += dice.pause(6 * SECOND)
            yield datagram(world, at, reflector, victim, (123, port), 440)


def reflection_dns(world: World) -> Iterator[Item]:
    """Resolvers answer with datagrams so large that they come in fragments."""
    dice, victim, begin = world.dice, world.plan.homes[31], world.somewhere(10 * MINUTE)
    for _ in range(70):
        reflector, at = world.foe("reflector"), begin + dice.below(20 * SECOND)
        for _ in range(7):
            at += dice.pause(8 * SECOND)
            size = 3200 + dice.below(700)
            yield datagram(world, at, reflector, victim, (53, 1024 + dice.below(60000)), size)


def flood_udp(world: World) -> Iterator[Item]:
    """Sixty bots flood one host together; their own addresses, no reflection."""
    dice, victim, begin = world.dice, world.plan.homes[32], world.somewhere(5 * MINUTE)
    for _ in range(60):
        bot, at, port = world.foe("ddos"), begin + dice.below(3 * SECOND), 1024 + dice.below(60000)
        for _ in range(45):
            at += dice.pause(2 * SECOND)
            yield datagram(world, at, bot, victim, (port, 80), 512)


def flood_forged(world: World) -> Iterator[Item]:
    """A SYN flood under forged sources: nobody of them may ever be listed."""
    dice, victim, at = world.dice, world.plan.homes[33], world.somewhere(3 * MINUTE)
    for source in dice.addresses(FORGED, 1200):
        at += dice.pause(SECOND / 20)
        talk = TcpTalk(world, at, world.label(source, "spoofed"), victim, 80)
        talk.knock()
        if dice.chance(0.2):
            talk.accept()
        yield from talk.packets


def backscatter(world: World) -> Iterator[Item]:
    """Foreign victims of somebody else's forged flood answer hosts that never called."""
    dice = world.dice
    for flags in (SYN | ACK, RST | ACK, SYN | ACK):
        victim, at = world.label(dice.address(SERVERS)), world.somewhere(HOUR)
        for target in dice.addresses(HOME, 90):
            at += dice.pause(20 * SECOND)
            bare = datagram(world, at, victim, target, (443, 1024 + dice.below(64000)), 0)
            seq, ack = dice.below(1 << 32), dice.below(1 << 32)
            yield replace(bare, protocol=TCP, flags=flags, seq=seq, ack=ack)


# ---- the list -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario and the capture it happens in.

    Attributes:
        capture: File name without folder.
        play: The function that gives its packets.
        interface: Index of the capture's interface (pcapng).
    """

    capture: str
    play: Callable[[World], Iterator[Item]]
    interface: int = 0

    @property
    def name(self) -> str:
        """The function's name, used in labels."""
        return self.play.__name__


A, B, C, DDOS = "border-a.pcap.zst", "border-b.pcapng", "border-c.pcap.gz", "ddos.pcap.gz"
DSLITE, COOKED, RAW = "isp-dslite.pcap", "cooked.pcap", "rawip.pcap"
ZEEK, ZEEK_JSON = "conn.log", "conn.json.log"

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(A, link_noise),
    Scenario(A, web_browsing),
    Scenario(A, web_domestic),
    Scenario(A, dns),
    Scenario(A, ntp),
    Scenario(A, updates),
    Scenario(A, mail),
    Scenario(A, push),
    Scenario(A, domestic_calls),
    Scenario(A, ping),
    Scenario(A, c2_minute),
    Scenario(A, c2_long),
    Scenario(A, scan_fast),
    Scenario(A, guess_ssh),
    Scenario(B, link_noise),
    Scenario(B, web_ipv6),
    Scenario(B, web_tagged),
    Scenario(B, transit),
    Scenario(B, c2_five_minutes),
    Scenario(B, c2_sleepy, interface=1),
    Scenario(B, scan_slow),
    Scenario(B, scan_vertical, interface=1),
    Scenario(C, web_browsing),
    Scenario(C, abandoned_servers),
    Scenario(C, tunnels),
    Scenario(C, c2_ipv6),
    Scenario(C, guess_rdp),
    Scenario(C, scan_ipv6),
    Scenario(C, spam),
    Scenario(DSLITE, dual_stack_lite),
    Scenario(DSLITE, c2_softwire),
    Scenario(COOKED, updates),
    Scenario(COOKED, web_domestic),
    Scenario(RAW, ping),
    Scenario(RAW, web_ipv6),
    Scenario(DDOS, web_browsing),
    Scenario(DDOS, reflection_ntp),
    Scenario(DDOS, reflection_dns),
    Scenario(DDOS, flood_udp),
    Scenario(DDOS, flood_forged),
    Scenario(DDOS, backscatter),
    Scenario(ZEEK, web_browsing),
    Scenario(ZEEK, dns),
    Scenario(ZEEK, domestic_calls),
    Scenario(ZEEK, c2_five_minutes),
    Scenario(ZEEK, scan_slow),
    Scenario(ZEEK_JSON, web_ipv6),
    Scenario(ZEEK_JSON, c2_ipv6),
    Scenario(ZEEK_JSON, web_domestic),
    Scenario(ZEEK_JSON, guess_rdp),
)
"""Every scenario, in the order in which it is played."""
