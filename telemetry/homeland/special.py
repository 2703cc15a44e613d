"""Special-purpose addresses: never foreign, whatever a country table says.

Our own reading of the IANA IPv4 and IPv6 special-purpose address registries
(RFC 6890 as updated by RFC 8190, entries up to RFC 9780), with multicast,
site-local, the 6to4 relay prefix, and IPv4-compatible and IPv4-translated
addresses (RFC 2765, whose heir RFC 7915 no longer uses them) added. The
`ipaddress` module is not used for this: Python 3.11.7 calls 3fff::/20, 5f00::/16
and 64:ff9b:1::/48 global.

The registries call some prefixes globally reachable. Those marked `anycast` or
`overlay` here have no country: who answers depends on where one asks, or the
address names a host rather than a place. They are SPECIAL too (fail closed:
never listed, pseudonymized where they are kept). Prefixes that carry an IPv4
address take the class of that address. Where prefixes nest, the longest counts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from telemetry.homeland.classes import INSIDE_6TO4, INSIDE_LOW, INSIDE_TEREDO, SPECIAL


class Special(NamedTuple):
    """One special-purpose prefix.

    Attributes:
        prefix: In CIDR notation.
        name: What it is for.
        rfc: Number of the RFC that says so.
        mark: SPECIAL, or where the IPv4 address that decides is found.
    """

    prefix: str
    name: str
    rfc: int
    mark: int = SPECIAL


SPECIALS: Final = (
    Special("0.0.0.0/8", "this network", 791),
    Special("0.0.0.0/32", "this host", 1122),
    Special("10.0.0.0/8", "private use", 1918),
    Special("100.64.0.0/10", "shared address space", 6598),
    Special("127.0.0.0/8", "loopback", 1122),
    Special("169.254.0.0/16", "link local", 3927),
    Special("172.16.0.0/12", "private use", 1918),
    Special("192.0.0.0/24", "IETF protocol assignments", 6890),
    Special("192.0.0.0/29", "IPv4 service continuity (DS-Lite)", 7335),
    Special("192.0.0.8/32", "IPv4 dummy address", 7600),
    Special("192.0.0.9/32", "port control protocol, anycast", 7723),
    Special("192.0.0.10/32", "TURN, anycast", 8155),
    Special("192.0.0.170/32", "NAT64/DNS64 discovery", 8880),
    Special("192.0.0.171/32", "NAT64/DNS64 discovery", 8880),
    Special("192.0.2.0/24", "documentation (TEST-NET-1)", 5737),
    Special("192.31.196.0/24", "AS112-v4, anycast", 7535),
    Special("192.52.193.0/24", "multicast tunnelling (AMT), anycast", 7450),
    Special("192.88.99.0/24", "6to4 relay, anycast, deprecated", 7526),
    Special("192.88.99.2/32", "6a44 relay, anycast", 6751),
    Special("192.168.0.0/16", "private use", 1918),
    Special("192.175.48.0/24", "AS112 direct delegation, anycast", 7534),
    Special("198.18.0.0/15", "benchmarking", 2544),
    Special("198.51.100.0/24", "documentation (TEST-NET-2)", 5737),
    Special("203.0.113.0/24", "documentation (TEST-NET-3)", 5737),
    Special("224.0.0.0/4", "multicast", 5771),
    Special("240.0.0.0/4", "reserved", 1112),
    Special("255.255.255.255/32", "limited broadcast", 8190),
    Special("::/128", "unspecified", 4291),
    Special("::1/128", "loopback", 4291),
    Special("::/96", "IPv4-compatible, deprecated", 4291, INSIDE_LOW),
    Special("::ffff:0:0/96", "IPv4-mapped", 4291, INSIDE_LOW),
    Special("::ffff:0:0:0/96", "IPv4-translated, deprecated", 2765, INSIDE_LOW),
    Special("64:ff9b::/96", "NAT64", 6052, INSIDE_LOW),
    Special("64:ff9b:1::/48", "NAT64, local use", 8215),
    Special("100::/64", "discard only", 6666),
    Special("100:0:0:1::/64", "dummy prefix", 9780),
    Special("2001::/23", "IETF protocol assignments", 2928),
    Special("2001::/32", "Teredo", 4380, INSIDE_TEREDO),
    Special("2001:1::1/128", "port control protocol, anycast", 7723),
    Special("2001:1::2/128", "TURN, anycast", 8155),
    Special("2001:1::3/128", "DNS-SD service registration, anycast", 9665),
    Special("2001:2::/48", "benchmarking", 5180),
    Special("2001:3::/32", "multicast tunnelling (AMT), anycast", 7450),
    Special("2001:4:112::/48", "AS112-v6, anycast", 7535),
    Special("2001:10::/28", "ORCHID, overlay, deprecated", 4843),
    Special("2001:20::/28", "ORCHIDv2, overlay", 7343),
    Special("2001:30::/28", "drone remote identification, overlay", 9374),
    Special("2001:db8::/32", "documentation", 3849),
    Special("2002::/16", "6to4", 3056, INSIDE_6TO4),
    Special("2620:4f:8000::/48", "AS112 direct delegation, anycast", 7534),
    Special("3fff::/20", "documentation", 9637),
    Special("5f00::/16", "segment routing (SRv6) identifiers", 9602),
    Special("fc00::/7", "unique local", 4193),
    Special("fe80::/10", "link local", 4291),
    Special("fec0::/10", "site local, deprecated", 3879),
    Special("ff00::/8", "multicast", 4291),
)
