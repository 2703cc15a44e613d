"""Pseudonyms of domestic hosts and of their networks.

A host becomes one AES-128 block of its 16-byte address, which is the mode
`ipcrypt-deterministic` of draft-denis-ipcrypt; its network (/24 for IPv4, /48
for IPv6) the same under another sub-key. Both keep what an analysis needs (the
same host, the same subnet) and show nothing else: a prefix-preserving scheme
would let a scanner that knows some addresses read the neighbours of the rest.

The ciphertext is written in the form of a UUID because everybody's tools know
how to store and compare that. It is not an RFC 9562 UUID: no version or
variant bits are set, all 128 bits are the ciphertext, so that it can be
reversed by whoever holds the key and nobody else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from telemetry.privacy.distinct import distinct
from telemetry.privacy.keys import Keys, Purpose
from telemetry.raw import I64, U64

_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)
"""The two hex digits of each byte, as one number so that a look-up moves both."""
_UUID_CHARS = 36
_UUID_SPANS = ((0, 4, 0), (4, 6, 9), (6, 8, 14), (8, 10, 19), (10, 16, 24))
"""First byte, end byte and first character of each group of 8-4-4-4-12 hex digits."""
_V4_MAPPED = np.uint64(0xFFFF)
"""Upper 64 + 32 bits of ::ffff:a.b.c.d, as the value of `lo >> 32` while `hi` is 0."""


class Pseudonyms:
    """Turns domestic addresses into pseudonyms under the sub-keys of their months."""

    def __init__(self, keys: Keys) -> None:
        """Takes the key that the lake was made with."""
        self._keys = keys

    def hosts(
        self, hi: U64, lo: U64, month_index: I64
    ) -> tuple[pa.DictionaryArray, pa.DictionaryArray]:
        """Gives each address its two pseudonyms.

        Args:
            hi: Upper halves of the addresses (n), IPv4 as ::ffff:a.b.c.d.
            lo: Lower halves (n).
            month_index: Months since 1970 of each record's first packet (n).

        Returns:
            Host and network pseudonyms as UUID text in dictionary arrays (n each).
        """
        months = month_index.view(np.uint64)
        index, (hi, lo, months) = distinct(hi, lo, months)
        net_index, nets = distinct(*network(hi, lo), months)
        return (
            _dictionary(index, self._encrypt("host", hi, lo, months)),
            _dictionary(net_index[index], self._encrypt("network", *nets)),
        )

    def _encrypt(self, purpose: Purpose, hi: U64, lo: U64, months: U64) -> npt.NDArray[np.uint8]:
        plain, out = to_bytes(hi, lo), np.empty((len(hi), 16), np.uint8)
        order = np.argsort(months, kind="stable")
        cuts = np.flatnonzero(np.diff(months[order])) + 1
        for rows in np.split(order, cuts):
            if len(rows):
                key = self._keys.subkey(epoch(int(months[rows[0]].astype(np.int64))), purpose)
                out[rows] = encrypt_blocks(key, plain[rows])
        return out


def encrypt_blocks(key: bytes, blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Encrypts n blocks of 16 bytes, each for itself, with AES-128.

    Each block is one whole address and each is encrypted once, so the weakness
    of ECB on long messages does not apply: equal in, equal out is the purpose.
    """
    cipher = Cipher(AES(key), ECB()).encryptor()
    return np.frombuffer(cipher.update(blocks.tobytes()), np.uint8).reshape(-1, 16)


def network(hi: U64, lo: U64) -> tuple[U64, U64]:
    """Returns the networks of addresses: /24 for IPv4 (as ::ffff:a.b.c.0), /48 for IPv6."""
    v4 = is_v4(hi, lo)
    return (
        np.where(v4, hi, hi & ~np.uint64(0xFFFF)),
        np.where(v4, lo & ~np.uint64(0xFF), np.uint64(0)),
    )


def is_v4(hi: U64, lo: U64) -> npt.NDArray[np.bool_]:
    """Tells which addresses are IPv4."""
    mapped: npt.NDArray[np.bool_] = (hi == 0) & (lo >> np.uint64(32) == _V4_MAPPED)
    return mapped


def epoch(month_index: int) -> str:
    """Returns the name of a month since 1970, such as "2026-04" for 675."""
    return f"{1970 + month_index // 12:04d}-{month_index % 12 + 1:02d}"


def months_of(times: I64) -> I64:
    """Returns months since 1970 of times in microseconds since 1970 (UTC)."""
    return times.view("M8[us]").astype("M8[M]").astype(np.int64)


def to_bytes(hi: U64, lo: U64) -> npt.NDArray[np.uint8]:
    """Returns addresses as 16 bytes each, in network order (n, 16)."""
    halves = np.empty((len(hi), 2), ">u8")
    halves[:, 0], halves[:, 1] = hi, lo
    return halves.view(np.uint8).reshape(-1, 16)


def uuid_text(blocks: npt.NDArray[np.uint8]) -> pa.StringArray:
    """Writes n blocks of 16 bytes as lower-case UUID text."""
    n = len(blocks)
    text = np.full((n, _UUID_CHARS), ord("-"), np.uint8)
    digits = _HEX[blocks].view(np.uint8).reshape(n, 32)
    for first, end, at in _UUID_SPANS:
        text[:, at : at + 2 * (end - first)] = digits[:, 2 * first : 2 * end]
    offsets = np.arange(n + 1, dtype=np.int32) * _UUID_CHARS
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text))


def _dictionary(index: npt.NDArray[np.int32], blocks: npt.NDArray[np.uint8]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(index, uuid_text(blocks))
