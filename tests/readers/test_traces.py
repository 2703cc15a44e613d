"""What a source holds that must never be found: addresses of all layers, names, MACs, payload."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from e2e import ROOT

from telemetry.homeland import Border, borderless, load
from telemetry.readers import Session, places
from telemetry.readers.packets.reference import Frame
from telemetry.readers.traces import Traces

SAMPLES = ROOT / "data" / "samples" / "formats"
ONE, OTHER, INNER, MAC = "192.0.2.1", "8.8.8.8", "10.1.2.3", "02:11:22:33:44:55"


def ipv4(payload: bytes, protocol: int, source: str = ONE, target: str = OTHER) -> bytes:
    head = struct.pack(">BBHIBBH", 0x45, 0, 20 + len(payload), 0, 64, protocol, 0)
    return head + IPv4Address(source).packed + IPv4Address(target).packed + payload


def udp(payload: bytes, port: int = 9) -> bytes:
    return struct.pack(">HHHH", 4000, port, 8 + len(payload), 0) + payload


def tcp(payload: bytes) -> bytes:
    return struct.pack(">HHIIBBHHH", 4000, 80, 0, 0, 0x50, 0x18, 0, 0, 0) + payload


def traces_of(packet: bytes, ethertype: bytes = b"\x08\0") -> Traces:
    data = b"\x02\0\0\0\0\x09" + bytes.fromhex(MAC.replace(":", "")) + ethertype + packet
    traces = Traces()
    traces.add_frame(Frame(data, len(data), 1, 0), set())
    return traces


def numbers(*addresses: str) -> set[int]:
    return {
        int(ip_address(a)) | (0xFFFF << 32 if ip_address(a).version == 4 else 0) for a in addresses
    }


def test_addresses_of_all_layers_and_both_macs() -> None:
    traces = traces_of(ipv4(ipv4(udp(b""), 17, INNER, "10.9.9.9"), 4))
    assert traces.addresses == numbers(ONE, OTHER, INNER, "10.9.9.9")
    assert (int(IPv4Address(INNER)), int(IPv4Address("10.9.9.9"))) in traces.pairs
    assert {mac.hex(":") for mac in traces.macs} == {MAC, "02:00:00:00:00:09"}


def test_addresses_of_arp() -> None:
    ends = [bytes(6) + IPv4Address(address).packed for address in (INNER, "10.9.9.9")]
    traces = traces_of(b"\0\1\x08\0\6\4\0\1" + b"".join(ends), b"\x08\x06")
    assert traces.addresses == numbers(INNER, "10.9.9.9")


def test_a_name_that_dns_asks_for() -> None:
    question = b"\x03www\x06secret\x07example\0\0\1\0\1"
    traces = traces_of(ipv4(udp(struct.pack(">6H", 1, 256, 1, 0, 0, 0) + question, 53), 17))
    assert traces.words["name"] == {b"www.secret.example"}


def test_a_name_that_tls_greets_with() -> None:
    name = b"mail.secret.example"
    listed = struct.pack(">HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name
    hello = b"\x16\x03\x01\x01\0\x01\0\0\xfc\x03\x03" + bytes(40) + listed + b"\0\x17\0\0"
    assert traces_of(ipv4(tcp(hello), 6)).words["name"] == {name}


def test_what_http_and_mail_say() -> None:
    said = b"GET /a-private-path HTTP/1.1\r\nHost: shop.example.jp\r\n\r\nFrom: taro@example.jp\r\n"
    words = traces_of(ipv4(tcp(said), 6)).words
    assert words["name"] == {b"shop.example.jp"}
    assert words["email"] == {b"taro@example.jp"}
    assert b"GET /a-private-path HTTP" in words["payload"]


@pytest.mark.parametrize("padding", [b"\0" * 50, b"A" * 50, bytes(range(32, 126)), b"0101" * 20])
def test_padding_and_counting_up_tell_nothing(padding: bytes) -> None:
    assert not traces_of(ipv4(udp(padding), 17)).words["payload"]


def test_text_is_searched_whatever_its_reader_makes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "flows-of-the-office.json"
    row = (
        '{"event_type": "dns", "src_ip": "192.0.2.7", "dest_ip": "2001:db8::77", '
        '"who": "x@y.example", "ether": "02:11:22:33:44:55"}'
    )
    path.write_text((SAMPLES / "suricata" / "eve.json").read_text() + row + "\n")
    border = Border(borderless(load("JP")), 7)
    traces = Traces()
    for place in places(str(path)):
        traces.add_source(place, Session(border))
    assert numbers("192.0.2.7", "2001:db8::77") <= traces.addresses
    assert MAC in {mac.hex(":") for mac in traces.macs}
    assert traces.words["email"] == {b"x@y.example"}
    assert traces.words["file_name"] == {b"flows-of-the-office.json"}
