"""What a source holds that must never be found anywhere else; it is kept in memory alone.

Of a capture: the addresses of every IP header of every frame, at all layers, dropped or kept,
as the reference decoder finds them, and those of ARP; MAC addresses; host names of DNS
(RFC 1035), TLS (RFC 6066) and HTTP; e-mail addresses; and pieces of payload. Of anything else:
what its reader hands over where no address is domestic, and what its text shows.
"""

from __future__ import annotations

import mmap
import os
import re
import socket
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from telemetry.readers.contract import Session
from telemetry.readers.packets.reference import Frame, frames_of, layers_of
from telemetry.readers.rows.programs import seekable
from telemetry.readers.source import Place, Source, open_source
from telemetry.records import Tally

MOST_PIECES: Final = 50_000
"""Pieces of payload that are kept of a source."""
_LEAST_PIECE, _MOST_PIECE = 12, 24
_LEAST_NAME = 6
_LEAST_LETTERS = 6
_MOST_PAIRS = 1 << 20

_CAPTURES = (b"\xa1\xb2", b"\xd4\xc3\xb2\xa1", b"\x34\xcd\xb2\xa1", b"\x4d\x3c\xb2\xa1",
             b"\n\r\r\n", b"snoop\0\0\0")  # fmt: skip
_ETHERNET, _IEEE802_11, _SLL, _RADIOTAP, _SLL2 = 1, 105, 113, 127, 276
_MACS_AT = {_ETHERNET: (0, 6), _SLL: (6,), _IEEE802_11: (4, 10, 16), _SLL2: (12,)}
_DNS = (53, 5353, 5355)

_PRINTED = re.compile(rb"[\x20-\x7e]{%d,}" % _LEAST_PIECE)
_EMAIL = re.compile(rb"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}")
_HOST = re.compile(rb"(?i)(?:\bHost: *|://)((?:[a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{1,62})")
_SNI = re.compile(rb"(?s)\0\0(..)(..)\0(..)([A-Za-z0-9._-]{4,255})")
_DOTTED = re.compile(rb"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_COLONS = re.compile(rb"(?<![0-9A-Fa-f:])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
_MAC = re.compile(rb"(?<![0-9A-Fa-f:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:-])")


@dataclass
class Traces:
    """What sources hold.

    Attributes:
        addresses: All addresses, 128 bits, IPv4 under ::ffff:0:0/96.
        pairs: Source and target of IPv4 headers, of at most a million.
        words: Names, MAC addresses, e-mail addresses and pieces of payload, by kind.
        macs: MAC addresses as bytes.
    """

    addresses: set[int] = field(default_factory=set, repr=False)
    pairs: set[tuple[int, int]] = field(default_factory=set, repr=False)
    words: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set), repr=False)
    macs: set[bytes] = field(default_factory=set, repr=False)

    def add_source(self, place: Place, session: Session) -> None:
        """Reads a source and notes what it holds.

        Args:
            place: The source.
            session: What its reader needs; no address may be domestic by its border.

        Raises:
            SourceError: It cannot be read.
        """
        from telemetry.readers import find_reader

        self._add_file_name(place)
        with closing(open_source(place)) as source:
            reader = find_reader(source, session)
            is_capture = source.head.startswith(_CAPTURES)
            for batch in reader.read(source, session, Tally()):
                for hi, lo in ((batch.a_hi, batch.a_lo), (batch.b_hi, batch.b_lo)):
                    self._add_halves(hi, lo)
        with closing(open_source(place)) as source:
            if is_capture:
                self._add_capture(source)
            else:
                self._add_text(source)

    def _add_file_name(self, place: Place) -> None:
        for path in (place.path, place.name):
            name = Path(path).name.encode(errors="replace")
            if len(name) >= _LEAST_NAME and re.search(rb"[A-Za-z]", name):
                self.words["file_name"].add(name)

    def _add_halves(self, hi: Any, lo: Any) -> None:
        halves = np.unique(np.column_stack((hi, lo)), axis=0)
        self.addresses.update(high << 64 | low for high, low in halves.tolist())

    # Captures

    def _add_capture(self, source: Source) -> None:
        descriptor = seekable(source)
        try:
            with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
                seen: set[bytes] = set()
                # The frames are cut out of it as if it were bytes.
                for frame in frames_of(data, Tally()):  # type: ignore[arg-type]
                    self.add_frame(frame, seen)
        finally:
            os.close(descriptor)

    def add_frame(self, frame: Frame, seen: set[bytes]) -> None:
        """Notes what a frame holds.

        Args:
            frame: As a capture holds it.
            seen: Beginnings of printed runs that were noted already.
        """
        if frame.link is None:
            return
        layers, _ = layers_of(frame.data, frame.wire, frame.link)
        for layer in layers:
            self.addresses |= {layer.source, layer.target}
            if layer.version == 4 and len(self.pairs) < _MOST_PAIRS:
                self.pairs.add((layer.source & 0xFFFFFFFF, layer.target & 0xFFFFFFFF))
        self._add_link(frame.data, frame.link)
        if layers and layers[-1].protocol == 17:
            self._add_dns(layers[-1].inside.data)
        self._add_payload(frame.data, seen)

    def _add_link(self, data: bytes, link: int) -> None:
        start = 0
        if link == _RADIOTAP and len(data) > 4:
            start, link = int.from_bytes(data[2:4], "little"), _IEEE802_11
        for at in _MACS_AT.get(link, ()):
            mac = data[start + at : start + at + 6]
            if len(mac) == 6 and mac not in self.macs and not mac[0] & 1 and any(mac):
                self.macs.add(mac)
        if link == _ETHERNET and data[12:20] == b"\x08\x06\0\1\x08\0\6\4" and len(data) >= 42:
            for at in (28, 38):
                self.addresses.add(0xFFFF << 32 | int.from_bytes(data[at : at + 4], "big"))

    def _add_dns(self, datagram: bytes) -> None:
        if len(datagram) < 20:
            return
        if not {*struct.unpack(">HH", datagram[:4])} & {*_DNS}:
            return
        labels, at = [], 8 + 12
        while at < len(datagram) and 0 < datagram[at] < 64:
            labels.append(datagram[at + 1 : at + 1 + datagram[at]])
            at += 1 + datagram[at]
        self._add_name(b".".join(labels))

    def _add_payload(self, data: bytes, seen: set[bytes]) -> None:
        for match in _PRINTED.finditer(data):
            run = match[0]
            piece = run[:_MOST_PIECE]
            if piece not in seen:
                seen.add(piece)
                self._add_piece(piece)
            for name in _HOST.findall(run):
                self._add_name(name)
            if b"@" in run:
                self.words["email"].update(_EMAIL.findall(run))
        if b"\x16\x03" in data:
            for match in _SNI.finditer(data):
                whole, listed, size = (int.from_bytes(match[i], "big") for i in (1, 2, 3))
                if whole == listed + 2 == size + 5 and len(match[4]) >= size:
                    self._add_name(match[4][:size])

    def _add_name(self, name: bytes) -> None:
        name = name.strip(b".").lower()
        if len(name) >= _LEAST_NAME and re.fullmatch(rb"[\x21-\x7e]+\.[a-z][a-z0-9-]+", name):
            self.words["name"].add(name)

    def _add_piece(self, piece: bytes) -> None:
        """Keeps a piece unless it is padding or a count-up, which stand in many files."""
        steps = np.diff(np.frombuffer(piece, np.uint8).astype(np.int16))
        common = np.bincount(steps + 128).max(initial=0)
        if len({*piece}) < _LEAST_LETTERS or common > len(piece) // 2:
            return
        if len(self.words["payload"]) < MOST_PIECES:
            self.words["payload"].add(piece)

    # Records

    def _add_text(self, source: Source) -> None:
        """Notes addresses that the text of a source shows, whatever its reader made of them."""
        rest = b""
        stream = source.stream()
        while block := stream.read(1 << 20):
            data = rest + block
            cut = max(data.rfind(b"\n"), len(data) - 256) if len(block) == 1 << 20 else len(data)
            rest, data = data[cut:], data[:cut]
            if b"\0" in data:
                return
            self.addresses.update(_addresses_in(data))
            macs = (re.sub(rb"[:-]", b"", text).decode() for text in _MAC.findall(data))
            self.macs.update(map(bytes.fromhex, macs))
            self.words["email"].update(_EMAIL.findall(data))


def _addresses_in(data: bytes) -> Iterator[int]:
    for family, pattern in ((socket.AF_INET, _DOTTED), (socket.AF_INET6, _COLONS)):
        for text in {*pattern.findall(data)}:
            try:
                packed = socket.inet_pton(family, text.decode())
            except OSError:
                continue
            number = int.from_bytes(packed, "big")
            yield number if len(packed) == 16 else 0xFFFF << 32 | number
