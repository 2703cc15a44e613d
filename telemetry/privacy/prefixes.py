"""Prefix-preserving encryption of addresses, many at once.

Two addresses that share their first n bits get pseudonyms that share their
first n bits, and differ in the next. That keeps the shape of networks for
tools that want it, and gives it to an attacker too: see README.

`ipcrypt_pfx` is the mode ipcrypt-pfx of draft-denis-ipcrypt; `cryptopan` is
Crypto-PAn (Xu, Fan, Ammar, Moon: Prefix-preserving IP address anonymization,
ICNP 2002), for IPv6 with 128 rounds as its implementations have it. Both take
a key of 32 bytes, and IPv4 as ::ffff:a.b.c.d, of which only the last 32 bits
change.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from telemetry.privacy.blocks import encrypt_blocks, is_v4, to_bytes
from telemetry.raw import U64

Bits = Callable[[U64, U64, int], npt.NDArray[np.uint8]]
"""Gives, for the first n bits of each address, whether its next bit is flipped (0 or 1)."""

_CHUNK = 1 << 16
"""Addresses done at once, so that the blocks of a round stay in the cache."""
_ALL = (1 << 64) - 1


def ipcrypt_pfx(key: bytes, hi: U64, lo: U64, reverse: bool = False) -> tuple[U64, U64]:
    """Encrypts addresses with ipcrypt-pfx, or decrypts them.

    Args:
        key: 32 bytes, two different AES-128 keys.
        hi: Upper halves (n).
        lo: Lower halves (n).
        reverse: Whether to decrypt.

    Returns:
        Both halves of the result (n each).
    """
    one, other = key[:16], key[16:]

    def bits(hi: U64, lo: U64, n: int) -> npt.NDArray[np.uint8]:
        blocks = to_bytes(*_padded(hi, lo, n))
        mixed = encrypt_blocks(one, blocks)[:, 15] ^ encrypt_blocks(other, blocks)[:, 15]
        return mixed & np.uint8(1)

    v4 = is_v4(hi, lo)
    out_hi, out_lo = hi.copy(), lo.copy()
    out_hi[v4], out_lo[v4] = _walk(bits, hi[v4], lo[v4], range(96, 128), reverse)
    out_hi[~v4], out_lo[~v4] = _walk(bits, hi[~v4], lo[~v4], range(128), reverse)
    return out_hi, out_lo


def cryptopan(key: bytes, hi: U64, lo: U64, reverse: bool = False) -> tuple[U64, U64]:
    """Encrypts addresses with Crypto-PAn, or decrypts them.

    Args:
        key: 32 bytes: the AES-128 key, and what the padding is made from.
        hi: Upper halves (n).
        lo: Lower halves (n).
        reverse: Whether to decrypt.

    Returns:
        Both halves of the result (n each).
    """
    pad = int.from_bytes(encrypt_blocks(key[:16], np.frombuffer(key[16:], np.uint8)).tobytes())

    def bits(hi: U64, lo: U64, n: int) -> npt.NDArray[np.uint8]:
        top = (1 << 128) - (1 << 128 - n)
        fill = pad & ~top
        blocks = to_bytes(
            hi & np.uint64(top >> 64) | np.uint64(fill >> 64),
            lo & np.uint64(top & _ALL) | np.uint64(fill & _ALL),
        )
        return encrypt_blocks(key[:16], blocks)[:, 0] >> np.uint8(7)

    v4 = is_v4(hi, lo)
    out_hi, out_lo = hi.copy(), lo.copy()
    half, mapped = np.uint64(32), np.uint64(0xFFFF << 32)
    four = lo[v4] << half  # Crypto-PAn puts the four bytes first
    out_lo[v4] = _walk(bits, four, np.zeros_like(four), range(32), reverse)[0] >> half | mapped
    out_hi[~v4], out_lo[~v4] = _walk(bits, hi[~v4], lo[~v4], range(128), reverse)
    return out_hi, out_lo


def _walk(bits: Bits, hi: U64, lo: U64, positions: range, reverse: bool) -> tuple[U64, U64]:
    """Flips the bits at some positions, each by what stands before it in the clear."""
    out_hi, out_lo = hi.copy(), lo.copy()
    for start in range(0, len(hi), _CHUNK):
        rows = slice(start, start + _CHUNK)
        done = out_hi[rows], out_lo[rows]
        # Going back, the bits before have been turned into the clear already.
        clear = done if reverse else (hi[rows], lo[rows])
        for n in positions:
            half, shift = done[n // 64], np.uint64(63 - n % 64)
            half ^= bits(*clear, n).astype(np.uint64) << shift
    return out_hi, out_lo


def _padded(hi: U64, lo: U64, n: int) -> tuple[U64, U64]:
    """Returns a 1 and the first n bits, as the lowest bits of 128."""
    one = np.uint64(1)
    if n <= 64:
        low = hi >> np.uint64(64 - n) if n else np.zeros_like(hi)
        return np.full_like(hi, n == 64), low if n == 64 else low | one << np.uint64(n)
    cut, rest = np.uint64(128 - n), np.uint64(n - 64)
    return hi >> cut | one << rest, lo >> cut | hi << rest
