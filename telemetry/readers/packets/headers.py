"""Headers before an IP header: link layers, tags, labels and their like, stepped over.

They stand on links and inside tunnels alike. Sources, beside those named in `link`:
IEEE 802.1Q, 802.1ah, 802.1AE, 802.1BR, 802.1CB, 802.2 and 802.11; RFC 1661 and 1990
(PPP), 2427 (frame relay), 2516 (PPPoE), 2684 (ATM), 3032 and 4448 (MPLS), 6325
(TRILL), 8300 (NSH); radiotap.org; Endace's ERF guide.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from telemetry.loads import be16, be32, le16, le32, u8
from telemetry.readers.packets.link import LINKS, Sight
from telemetry.reasons import Reason

U64 = np.uint64

IP4: Final = 4
IP6: Final = 6
ANY_IP: Final = 0
"""An IP header of the version that its first nibble says."""

# Headers that are stepped over; all numbers below the first are ends: IP, or minus a reason.
_HEADERS: Final = 16
(
    LINK,  # whose type is the value that goes with it
    ETHERNET,
    TYPE,  # what the Ethernet type in the value says
    LLC,  # ends at the offset in the value, or at NO_END
    ATM,  # LLC with the padding that bridged frames have over ATM
    PPP,
    PPPOE,
    CISCO_HDLC,
    FRAME_RELAY,
    MPLS,
    WLAN,  # the value is one of the three below
    NSH,
) = range(_HEADERS, _HEADERS + 12)
WLAN_PLAIN, WLAN_PADDED, WLAN_SWAPPED = range(3)
NO_END: Final = 1 << 40

_NOT_IP: Final = -int(Reason.NOT_IP)
_BAD: Final = -int(Reason.UNREADABLE_LINK)
_UNSUPPORTED: Final = -int(Reason.LINK_TYPE_UNSUPPORTED)
_NO_IP_LINKS = np.zeros(512, np.bool_)
_NO_IP_LINKS[[number for number, link in LINKS.items() if link.sight is Sight.NO_IP]] = True
_INET6 = (10, 23, 24, 28, 30)  # AF_INET6 of Linux, Windows and the BSDs


@njit(cache=True, nogil=True, inline="always")
def link_payload(base, captured, link):
    """Finds the IP header behind the link layer.

    Args:
        base: Memory address of the frame.
        captured: Bytes captured of it.
        link: LINKTYPE_ number.

    Returns:
        (offset, version): the offset of the IP header and 4, 6 or 0 (look at the
        first nibble); or (offset, -reason).
    """
    if link == 1 and captured >= 18:
        offset = 14
        ethertype = be16(base + U64(12))
        if ethertype == 0x8100:
            offset = 18
            ethertype = be16(base + U64(16))
        if ethertype == 0x0800:
            return offset, IP4
        if ethertype == 0x86DD:
            return offset, IP6
    return open_headers(base, 0, captured, LINK, link)


@njit(cache=True, nogil=True)
def open_headers(base, offset, captured, header, value):
    """Steps over all headers before an IP header; each step moves on, so the frame bounds it.

    Args:
        base: Memory address of the frame.
        offset: Where the first header begins.
        captured: Bytes captured of the frame.
        header: What it is, such as ETHERNET.
        value: What that header needs to be read, or 0.

    Returns:
        (offset, version) as `link_payload`: the reason is NOT_IP when something else is
        carried, UNREADABLE_LINK when a header is cut short or contradicts itself, or
        LINK_TYPE_UNSUPPORTED.
    """
    while header >= _HEADERS:
        if header == ETHERNET:
            offset, header, value = _ethernet(base, offset, captured)
        elif header == TYPE:
            offset, header, value = _ethertype(base, offset, captured, value)
        elif header == LLC:
            offset, header, value = _llc(base, offset, captured, value, 0)
        elif header == ATM:
            offset, header, value = _llc(base, offset, captured, NO_END, 2)
        elif header == PPP:
            offset, header, value = _ppp(base, offset, captured)
        elif header == PPPOE:
            offset, header, value = _pppoe(base, offset, captured)
        elif header == CISCO_HDLC:
            offset, header, value = _cisco_hdlc(base, offset, captured)
        elif header == FRAME_RELAY:
            offset, header, value = _frame_relay(base, offset, captured)
        elif header == MPLS:
            offset, header, value = _mpls(base, offset, captured)
        elif header == WLAN:
            offset, header, value = _wlan(base, offset, captured, value)
        elif header == NSH:
            offset, header, value = _nsh(base, offset, captured)
        else:
            offset, header, value = _link(base, offset, captured, value)
    if header >= 0 and offset > captured:
        return offset, _BAD
    return offset, header


# Each step returns (offset, header, value) of what follows.


@njit(cache=True, nogil=True)
def _ethernet(base, offset, captured):
    if captured < offset + 14:
        return offset, _BAD, 0
    return offset + 14, TYPE, be16(base + U64(offset + 12))


@njit(cache=True, nogil=True)
def _typed(base, offset, captured, size):
    """Steps over a header of `size` bytes that ends with an Ethernet type."""
    if captured < offset + size:
        return offset, _BAD, 0
    return offset + size, TYPE, be16(base + U64(offset + size - 2))


@njit(cache=True, nogil=True)
def _typed_without_length(base, offset, captured, size):
    """The same where a number below 0x600 is no length: what it means carries no IP."""
    offset, header, value = _typed(base, offset, captured, size)
    return offset, _NOT_IP if header == TYPE and value < 0x600 else header, value


@njit(cache=True, nogil=True)
def _ethertype(base, offset, captured, value):
    if value == 0x0800:
        return offset, IP4, 0
    if value == 0x86DD:
        return offset, IP6, 0
    if value < 0x600:
        return offset, LLC, offset + value
    if value in (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300):
        return _typed(base, offset, captured, 4)
    if value == 0x8847 or value == 0x8848:
        return offset, MPLS, 0
    if value == 0x8864:
        return offset, PPPOE, 0
    if value == 0x88E7:  # service tag, then the customer's frame
        return offset + 4, ETHERNET, 0
    if value == 0x8926 or value == 0x892F or value == 0xF1C1:  # VN-Tag, HSR, 802.1CB
        return _typed(base, offset, captured, 6)
    if value == 0x893F or value == 0x8909:  # E-Tag, Cisco MetaData
        return _typed(base, offset, captured, 8)
    if value == 0x88E5:
        return _macsec(base, offset, captured)
    if value == 0x8903:  # FabricPath: forwarding tag, then the inner frame
        return offset + 2, ETHERNET, 0
    if value == 0x22F3:
        return _trill(base, offset, captured)
    if value == 0x894F:
        return offset, NSH, 0
    if value == 0x880B:
        return offset, PPP, 0
    if value == 0x6558:
        return offset, ETHERNET, 0
    return offset, _NOT_IP, 0


@njit(cache=True, nogil=True)
def _macsec(base, offset, captured):
    if captured < offset + 1:
        return offset, _BAD, 0
    control = u8(base + U64(offset))
    if control & 0x8C:  # another version, encrypted or changed
        return offset, _NOT_IP, 0
    return _typed(base, offset, captured, 16 if control & 0x20 else 8)


@njit(cache=True, nogil=True)
def _trill(base, offset, captured):
    if captured < offset + 2:
        return offset, _BAD, 0
    word = be16(base + U64(offset))
    if word >> 14:
        return offset, _BAD, 0
    return offset + 6 + 4 * ((word >> 6) & 31), ETHERNET, 0


@njit(cache=True, nogil=True)
def _nsh(base, offset, captured):
    if captured < offset + 4:
        return offset, _BAD, 0
    word = be32(base + U64(offset))
    words = (word >> 16) & 63
    if word >> 30 or words < 2:
        return offset, _BAD, 0
    offset += 4 * words
    following = word & 0xFF
    if following == 1:
        return offset, IP4, 0
    if following == 2:
        return offset, IP6, 0
    if following == 3:
        return offset, ETHERNET, 0
    if following == 4:
        return offset, NSH, 0
    if following == 5:
        return offset, MPLS, 0
    return offset, _NOT_IP, 0


@njit(cache=True, nogil=True)
def _llc(base, offset, captured, end, padding):
    if captured < offset + 3:
        return offset, _NOT_IP if end <= captured else _BAD, 0
    word = be16(base + U64(offset))
    if u8(base + U64(offset + 2)) != 3:
        return offset, _NOT_IP, 0
    if word == 0x0606:
        return offset + 3, ANY_IP, 0
    if word == 0xFEFE:
        offset, header, value = _nlpid(base, offset + 3, captured)
    elif word == 0xAAAA:
        offset, header, value = _snap(base, offset + 3, captured, padding)
    else:
        return offset, _NOT_IP, 0
    if header == _BAD and end <= captured:
        header = _NOT_IP
    return offset, header, value


@njit(cache=True, nogil=True)
def _snap(base, offset, captured, padding):
    if captured < offset + 5:
        return offset, _BAD, 0
    organisation = be32(base + U64(offset)) >> 8
    if organisation == 0 or organisation == 0x0000F8:
        return _typed_without_length(base, offset, captured, 5)
    if organisation == 0x0080C2:  # bridged frames, RFC 2684 and 2427
        kind = be16(base + U64(offset + 3))
        if kind == 1 or kind == 7:
            return offset + 5 + padding, ETHERNET, 0
    return offset, _NOT_IP, 0


@njit(cache=True, nogil=True)
def _nlpid(base, offset, captured):
    if captured < offset + 1:
        return offset, _BAD, 0
    kind = u8(base + U64(offset))
    if kind == 0xCC:
        return offset + 1, IP4, 0
    if kind == 0x8E:
        return offset + 1, IP6, 0
    if kind == 0xCF:
        return offset + 1, PPP, 0
    return offset, _NOT_IP, 0


@njit(cache=True, nogil=True)
def _ppp(base, offset, captured):
    if captured < offset + 2:  # of one byte it cannot be told whether it is an address
        return offset, _BAD, 0
    start = be16(base + U64(offset))
    if start == 0x0F00 or start == 0x8F00:
        return offset, CISCO_HDLC, 0
    if start == 0xFF03:
        offset += 2
    if captured < offset + 1:
        return offset, _BAD, 0
    word = u8(base + U64(offset))
    offset += 1
    if not word & 1:  # not compressed to one byte
        if captured < offset + 1:
            return offset, _BAD, 0
        word = (word << 8) | u8(base + U64(offset))
        offset += 1
    if word == 0x21:
        return offset, IP4, 0
    if word == 0x57:
        return offset, IP6, 0
    if word == 0x281 or word == 0x283:
        return offset, MPLS, 0
    if word == 0x3D:
        if captured < offset + 4:
            return offset, _BAD, 0
        if u8(base + U64(offset)) & 0xC0 == 0xC0:  # first and last piece at once
            return offset + 4, PPP, 0
    return offset, _NOT_IP, 0


@njit(cache=True, nogil=True)
def _pppoe(base, offset, captured):
    if captured < offset + 2:
        return offset, _BAD, 0
    word = be16(base + U64(offset))
    if word >> 8 != 0x11:
        return offset, _BAD, 0
    if word & 0xFF:  # discovery
        return offset, _NOT_IP, 0
    return offset + 6, PPP, 0


@njit(cache=True, nogil=True)
def _cisco_hdlc(base, offset, captured):
    if captured < offset + 2:
        return offset, _BAD, 0
    if be16(base + U64(offset)) == 0xFF03:
        return offset, PPP, 0
    return _typed_without_length(base, offset, captured, 4)


@njit(cache=True, nogil=True)
def _frame_relay(base, offset, captured):
    if captured < offset + 2:
        return offset, _BAD, 0
    if u8(base + U64(offset)) & 1:
        return offset, _BAD, 0
    size = 2
    while not u8(base + U64(offset + size - 1)) & 1:  # the address goes on
        size += 1
        if size > 4 or captured < offset + size:
            return offset, _BAD, 0
    offset += size
    if captured < offset + 2:
        return offset, _BAD, 0
    if u8(base + U64(offset)) != 3:
        return _typed_without_length(base, offset, captured, 2)
    offset += 1
    if u8(base + U64(offset)) == 0:
        offset += 1
        if captured < offset + 1:
            return offset, _BAD, 0
    if u8(base + U64(offset)) == 0x80:
        return _snap(base, offset + 1, captured, 0)
    return _nlpid(base, offset, captured)


@njit(cache=True, nogil=True)
def _mpls(base, offset, captured):
    bottom = False
    while not bottom:
        if captured < offset + 4:
            return offset, _BAD, 0
        bottom = be32(base + U64(offset)) & 0x100 != 0
        offset += 4
    if captured < offset + 1:
        return offset, _BAD, 0
    nibble = u8(base + U64(offset)) >> 4
    if nibble == 4:
        return offset, IP4, 0
    if nibble == 6:
        return offset, IP6, 0
    if nibble == 0:  # a control word, or an address without one before it
        if captured < offset + 18:
            return offset, _BAD, 0
        if _may_lead_to_ip(be16(base + U64(offset + 16))):
            return offset + 4, ETHERNET, 0
    if captured < offset + 14:
        return offset, _BAD, 0
    if _may_lead_to_ip(be16(base + U64(offset + 12))):
        return offset, ETHERNET, 0
    return offset, _NOT_IP, 0


@njit(cache=True, nogil=True)
def _may_lead_to_ip(ethertype):
    return ethertype in (0x0800, 0x86DD, 0x8100, 0x88A8, 0x9100, 0x9200, 0x9300) or ethertype in (
        0x8847,
        0x8848,
        0x8864,
        0x88E7,
    )


@njit(cache=True, nogil=True)
def _wlan(base, offset, captured, form):
    if captured < offset + 2:
        return offset, _BAD, 0
    control = u8(base + U64(offset))
    flags = u8(base + U64(offset + 1))
    piece = 22
    if form == WLAN_SWAPPED and control & 15 != 8 and flags & 15 == 8:
        control, flags = flags, control
        piece = 23
    # Data that is there and not encrypted; its first piece.
    if control & 0x4F != 8 or flags & 0x40:
        return offset, _NOT_IP, 0
    if captured < offset + 24:
        return offset, _BAD, 0
    if u8(base + U64(offset + piece)) & 15:
        return offset, _NOT_IP, 0
    size = 30 if flags & 3 == 3 else 24
    aggregate = False
    if control & 0x80:
        if captured < offset + size + 1:
            return offset, _BAD, 0
        aggregate = u8(base + U64(offset + size)) & 0x80 != 0
        size += 6 if flags & 0x80 else 2
    if form == WLAN_PADDED:
        size = (size + 3) & ~3
    if aggregate:
        size += 14
    return offset + size, LLC, NO_END


@njit(cache=True, nogil=True)
def family_version(word):
    """Returns the end that an address family, in either byte order, stands for."""
    if word > 0xFFFF:
        word = (
            (word >> 24) | ((word >> 8) & 0xFF00) | ((word & 0xFF00) << 8) | ((word & 0xFF) << 24)
        )
    if word == 2:
        return IP4
    return IP6 if word in _INET6 else _NOT_IP


@njit(cache=True, nogil=True)
def _link(base, offset, captured, link):
    if link == 1:
        return offset, ETHERNET, 0
    if link in (12, 14, 101):
        return offset, ANY_IP, 0
    if link == 228:
        return offset, IP4, 0
    if link == 229:
        return offset, IP6, 0
    if link == 113 or link == 276:
        return _cooked(base, offset, captured, link)
    if link in (0, 108, 109):
        size = 12 if link == 109 else 4
        if captured < offset + size:
            return offset, _BAD, 0
        return offset + size, family_version(be32(base + U64(offset))), 0
    if link in (9, 50, 204):
        return offset + (1 if link == 204 else 0), PPP, 0
    if link == 104 or link == 205:
        return offset + (1 if link == 205 else 0), CISCO_HDLC, 0
    if link == 107 or link == 206:
        return offset + (1 if link == 206 else 0), FRAME_RELAY, 0
    if link == 51:
        return offset, PPPOE, 0
    if link == 100:
        return offset, ATM, 0
    if link == 219:
        return offset, MPLS, 0
    if link in (105, 119, 127, 163):
        return _wlan_link(base, offset, captured, link)
    if link in (149, 192, 197, 175, 176, 239, 252, 258):
        return _wrapped(base, offset, captured, link)
    return _rare_link(base, offset, captured, link)


@njit(cache=True, nogil=True)
def _cooked(base, offset, captured, link):
    size = 16 if link == 113 else 20
    if captured < offset + size:
        return offset, _BAD, 0
    protocol = be16(base + U64(offset + (14 if link == 113 else 0)))
    offset += size
    if protocol >= 0x600:
        return offset, TYPE, protocol
    if protocol == 4:
        return offset, LLC, NO_END
    if protocol == 7:
        return offset, PPP, 0
    return offset, _NOT_IP, 0  # the other numbers of Linux's own


@njit(cache=True, nogil=True)
def _wlan_link(base, offset, captured, link):
    if link == 105:
        return offset, WLAN, WLAN_PLAIN
    if captured < offset + 8:
        return offset, _BAD, 0
    if link == 127:
        return _radiotap(base, offset, captured)
    if link == 119 and be32(base + U64(offset)) not in (0x80211001, 0x80211002):
        return offset + 144, WLAN, WLAN_PLAIN
    size = be32(base + U64(offset + 4))
    return offset + size, WLAN if size >= 8 else _BAD, WLAN_PLAIN


@njit(cache=True, nogil=True)
def _radiotap(base, offset, captured):
    size = le16(base + U64(offset + 2))
    if u8(base + U64(offset)) or size < 8 or captured < offset + size:
        return offset, _BAD, 0
    present = le32(base + U64(offset + 4))
    at = 8
    more = present
    while more & 0x80000000:
        if at + 4 > size:
            return offset, _BAD, 0
        more = le32(base + U64(offset + at))
        at += 4
    if present & 1:  # a time of 8 bytes stands before the flags
        at = ((at + 7) & ~7) + 8
    padded = present & 2 and at < size and u8(base + U64(offset + at)) & 0x20
    return offset + size, WLAN, WLAN_PADDED if padded else WLAN_PLAIN


@njit(cache=True, nogil=True)
def _wrapped(base, offset, captured, link):
    """Headers of capture programs around a packet of another link type."""
    if link == 192:
        if captured < offset + 8:
            return offset, _BAD, 0
        size = le16(base + U64(offset + 2))
        inner = le32(base + U64(offset + 4))
        return offset + size, LINK if u8(base + U64(offset)) == 0 and size >= 8 else _BAD, inner
    if link == 149 or link == 258:
        size = le32(base + U64(offset)) if captured >= offset + 4 else 0
        if link == 149 and size != 108:  # somebody else's use of that number
            return offset, _UNSUPPORTED, 0
        if captured < offset + 12:
            return offset, _BAD, 0
        if size < 12:
            return offset, _BAD, 0
        if le32(base + U64(offset + 4)) != 1:
            return offset, _NOT_IP, 0
        return offset + size, LINK, le32(base + U64(offset + 8))
    if link == 239:
        return _nflog(base, offset, captured)
    if link == 252:
        return _upper_pdu(base, offset, captured)
    return _erf(base, offset, captured)


@njit(cache=True, nogil=True)
def _erf(base, offset, captured):
    if captured < offset + 16:
        return offset, _BAD, 0
    kind = u8(base + U64(offset + 8))
    more = kind
    offset += 16
    while more & 0x80:
        if captured < offset + 8:
            return offset, _BAD, 0
        more = u8(base + U64(offset))
        offset += 8
    kind &= 0x7F
    if kind in (2, 11, 16, 20):
        return offset + 2, ETHERNET, 0
    if kind in (1, 10, 15, 19):
        return offset, PPP, 0
    if kind == 5 or kind == 17:
        return offset + 4, PPP, 0
    if kind == 22:
        return offset, IP4, 0
    if kind == 23:
        return offset, IP6, 0
    return offset, _UNSUPPORTED, 0


@njit(cache=True, nogil=True)
def _nflog(base, offset, captured):
    if captured < offset + 4:
        return offset, _BAD, 0
    family = u8(base + U64(offset))
    if u8(base + U64(offset + 1)):
        return offset, _BAD, 0
    offset += 4
    while captured > offset:
        if captured < offset + 4:
            return offset, _BAD, 0
        size = le16(base + U64(offset))
        kind = le16(base + U64(offset + 2))
        if kind > 0xFF:  # written by a machine of the other byte order
            size = be16(base + U64(offset))
            kind = be16(base + U64(offset + 2))
        if size < 4:
            return offset, _BAD, 0
        if kind == 9:
            version = family_version(family)
            return offset + 4, version if family == 2 or family == 10 else _NOT_IP, 0
        offset += (size + 3) & ~3
    return offset, _NOT_IP, 0


@njit(cache=True, nogil=True)
def _upper_pdu(base, offset, captured):
    """Reads the tags of Wireshark's exported PDUs; one names what follows them."""
    found = _NOT_IP
    while captured >= offset + 4:
        tag = be16(base + U64(offset))
        size = be16(base + U64(offset + 2))
        offset += 4
        if tag == 0:
            return offset, found, 0
        if tag == 12:
            if captured < offset + size:
                return offset, _BAD, 0
            found = _dissector(base + U64(offset), size)
        offset += size
    return offset, _BAD, 0


@njit(cache=True, nogil=True)
def _dissector(name, size):
    """Returns what the name of a dissector stands for: `ip`, `ipv6`, `eth` and `eth_…`."""
    third = u8(name + U64(2)) if size > 2 else 0
    fourth = u8(name + U64(3)) if size > 3 else 0
    fifth = u8(name + U64(4)) if size > 4 else 0
    word = be16(name) if size >= 2 else 0
    if word == 0x6970 and third == 0:
        return ANY_IP
    if word == 0x6970 and third == 0x76 and fourth == 0x36 and fifth == 0:
        return IP6
    if word == 0x6574 and third == 0x68 and fourth in (0, 0x5F):
        return ETHERNET
    return _NOT_IP


@njit(cache=True, nogil=True)
def _rare_link(base, offset, captured, link):
    if link == 8:
        return offset + 16, ANY_IP, 0
    if link == 102:
        return offset + 24, ANY_IP, 0
    if link in (6, 10, 122, 123, 19, 106):
        return _llc_link(base, offset, captured, link)
    if link == 7 or link == 129:
        return _arcnet(base, offset, captured, link)
    if link == 117:
        if captured < offset + 4:
            return offset, _BAD, 0
        stated = u8(base + U64(offset))
        size = (stated + 3) & ~3
        if stated < 4 or captured < offset + size:
            return offset, _BAD, 0
        return offset + size, family_version(u8(base + U64(offset + 1))), 0
    if link == 138:
        return _typed_without_length(base, offset, captured, 18)
    if link == 143:
        return _docsis(base, offset, captured)
    if link == 166:
        if captured < offset + 2:
            return offset, _BAD, 0
        return offset + (2 if u8(base + U64(offset + 1)) == 3 else 1), PPP, 0
    if link in (178, 179, 180, 181):
        return _juniper(base, offset, captured, link)
    if link == 182:
        if captured < offset + 2:
            return offset, _BAD, 0
        whole = u8(base + U64(offset)) & 0xE0 == 0xC0
        return offset + 2, FRAME_RELAY if whole else _NOT_IP, 0
    if link == 226:
        if captured < offset + 24:
            return offset, _BAD, 0
        family = u8(base + U64(offset + 1))
        return offset + 24, IP4 if family == 2 else IP6 if family == 26 else _NOT_IP, 0
    if link == 240:
        return offset + 4, ETHERNET, 0
    if link == 241:  # with preamble
        return offset + 12, ETHERNET, 0
    if link == 242:
        if captured < offset + 44:
            return offset, _BAD, 0
        value = be16(base + U64(offset + 40))
        return offset + 44, TYPE if value >= 0x600 else _NOT_IP, value
    if link == 281 or link == 284:
        return _typed(base, offset, captured, 18)
    if link == 285:
        return _typed(base, offset, captured, 22)
    if link == 282:
        return offset + 4, ETHERNET, 0
    return offset, _NOT_IP if 0 <= link < 512 and _NO_IP_LINKS[link] else _UNSUPPORTED, 0


@njit(cache=True, nogil=True)
def _llc_link(base, offset, captured, link):
    if link == 122:
        return offset + 16, LLC, NO_END
    if link == 123:
        if captured < offset + 4:
            return offset, _BAD, 0
        kind = u8(base + U64(offset)) & 15
        if kind == 1:  # LAN emulation
            return offset + 6, ETHERNET, 0
        return offset + 4, ATM if kind == 2 else _NOT_IP, 0
    if link == 19 or link == 106:
        snap = captured >= offset + 3 and be16(base + U64(offset)) == 0xAAAA
        snap = snap and u8(base + U64(offset + 2)) == 3
        return offset, ATM if snap else ANY_IP, 0
    if link == 10:
        if captured < offset + 1:
            return offset, _BAD, 0
        data = u8(base + U64(offset)) & 0x70 == 0x50
        return offset + 13, LLC if data else _NOT_IP, NO_END
    if captured < offset + 14:
        return offset, _BAD, 0
    if u8(base + U64(offset + 1)) & 0xC0 != 0x40:
        return offset, _NOT_IP, 0
    size = 14
    if u8(base + U64(offset + 8)) & 0x80:
        if captured < offset + 15:
            return offset, _BAD, 0
        route = u8(base + U64(offset + 14)) & 0x1F
        if route < 2:
            return offset, _BAD, 0
        size += route
    return offset + size, LLC, NO_END


@njit(cache=True, nogil=True)
def _arcnet(base, offset, captured, link):
    at = offset + (2 if link == 7 else 4)
    if captured < at + 1:
        return offset, _BAD, 0
    kind = u8(base + U64(at))
    if kind == 240:  # RFC 1051
        return at + 1, IP4, 0
    if captured < at + 2:
        return offset, _BAD, 0
    size = 4
    flag = u8(base + U64(at + 1))
    if link == 7:
        if flag == 0xFF:
            size = 8
            if captured < at + 6:
                return offset, _BAD, 0
            flag = u8(base + U64(at + 5))
        if flag and not flag & 1:  # a later piece
            return offset, _NOT_IP, 0
    if kind == 212:  # RFC 1201
        return at + size, IP4, 0
    return at + size, IP6 if kind == 196 else _NOT_IP, 0


@njit(cache=True, nogil=True)
def _docsis(base, offset, captured):
    if captured < offset + 2:
        return offset, _BAD, 0
    control = u8(base + U64(offset))
    if control >> 6:
        return offset, _NOT_IP, 0
    return offset + 6 + (u8(base + U64(offset + 1)) if control & 1 else 0), ETHERNET, 0


@njit(cache=True, nogil=True)
def _juniper(base, offset, captured, link):
    if captured < offset + 6:
        return offset, _BAD, 0
    word = be32(base + U64(offset))
    if word >> 8 != 0x4D4743:
        return offset, _BAD, 0
    size = 4
    if word & 0x80:
        size = 6 + be16(base + U64(offset + 4))
    if word & 2:  # without a link layer
        return offset + size + 4, ANY_IP, 0
    if link == 178:
        return offset + size, ETHERNET, 0
    if link == 179:
        return offset + size, PPP, 0
    return offset + size, FRAME_RELAY if link == 180 else CISCO_HDLC, 0
