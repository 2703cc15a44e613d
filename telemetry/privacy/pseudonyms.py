"""Pseudonyms of domestic hosts and of their networks.

A host becomes one block of 16 bytes under the sub-key of its month, its network
(/24 for IPv4, /48 for IPv6) another under a sub-key of its own. A lake has one
scheme for ever:

    deterministic  AES-128 of the address: ipcrypt-deterministic of draft-denis-ipcrypt
    prefix         ipcrypt-pfx of the same draft
    cryptopan      Crypto-PAn

The first keeps what an analysis needs (the same host, the same network) and
shows nothing else. The others let whoever knows some addresses read the
neighbours of the rest; they are there for exchange with tools that want them.

The ciphertext is written in the form of a UUID because everybody's tools know
how to store and compare that. It is not an RFC 9562 UUID: no version or
variant bits are set, all 128 bits are the ciphertext, so that it can be
reversed by whoever holds the key and nobody else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telemetry.privacy.blocks import (
    Blocks,
    decrypt_blocks,
    encrypt_blocks,
    from_bytes,
    is_v4,
    to_bytes,
)
from telemetry.privacy.distinct import distinct
from telemetry.privacy.epochs import LINKED
from telemetry.privacy.keys import Keys, Purpose, Scheme
from telemetry.privacy.prefixes import cryptopan, ipcrypt_pfx
from telemetry.raw import I64, U64

_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)
"""The two hex digits of each byte, as one number so that a look-up moves both."""
_UUID_CHARS = 36
_FIRST, _LAST = (1 - 1970) * 12, (9999 - 1970) * 12 + 11
"""The first month of year 1 and the last of year 9999, in months since 1970."""
_UUID_SPANS = ((0, 4, 0), (4, 6, 9), (6, 8, 14), (8, 10, 19), (10, 16, 24))
"""First byte, end byte and first character of each group of 8-4-4-4-12 hex digits."""


class Pseudonyms:
    """Turns domestic addresses into pseudonyms under the sub-keys of their months."""

    def __init__(self, keys: Keys, scheme: Scheme = "deterministic", linked: bool = False) -> None:
        """Takes what the lake was made with.

        Args:
            keys: The pseudonym key.
            scheme: How an address is encrypted.
            linked: Whether all months share one epoch, so that a host keeps its pseudonym.
        """
        self._keys = keys
        self._scheme = scheme
        self._linked = linked

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

        Raises:
            KeyFileError: The secret of a new month cannot be written.
        """
        months = np.zeros(len(hi), np.uint64) if self._linked else month_index.view(np.uint64)
        index, (hi, lo, months) = distinct(hi, lo, months)
        net_index, nets = distinct(*network(hi, lo), months)
        return (
            _dictionary(index, self._encrypt("host", hi, lo, months)),
            _dictionary(net_index[index], self._encrypt("network", *nets)),
        )

    def _encrypt(self, purpose: Purpose, hi: U64, lo: U64, months: U64) -> Blocks:
        out = np.empty((len(hi), 16), np.uint8)
        order = np.argsort(months, kind="stable")
        cuts = np.flatnonzero(np.diff(months[order])) + 1
        groups = [rows for rows in np.split(order, cuts) if len(rows)]
        names = [self._epoch(int(months[rows[0]].astype(np.int64))) for rows in groups]
        keys = self._keys.subkeys(names, purpose, self._scheme)
        for rows, name in zip(groups, names, strict=True):
            out[rows] = encrypt(self._scheme, keys[name], hi[rows], lo[rows])
        return out

    def _epoch(self, month_index: int) -> str:
        # The lake takes no time outside these years; the key file must not learn of one either.
        return LINKED if self._linked else epoch(min(max(month_index, _FIRST), _LAST))


def encrypt(scheme: Scheme, key: bytes, hi: U64, lo: U64) -> Blocks:
    """Encrypts n addresses; returns n blocks of 16 bytes."""
    if scheme == "deterministic":
        return encrypt_blocks(key, to_bytes(hi, lo))
    return to_bytes(*(ipcrypt_pfx if scheme == "prefix" else cryptopan)(key, hi, lo))


def decrypt(scheme: Scheme, key: bytes, blocks: Blocks) -> tuple[U64, U64]:
    """Reverses `encrypt`; returns both halves of n addresses."""
    if scheme == "deterministic":
        return from_bytes(decrypt_blocks(key, blocks))
    preserving = ipcrypt_pfx if scheme == "prefix" else cryptopan
    return preserving(key, *from_bytes(blocks), reverse=True)


def network(hi: U64, lo: U64) -> tuple[U64, U64]:
    """Returns the networks of addresses: /24 for IPv4 (as ::ffff:a.b.c.0), /48 for IPv6."""
    v4 = is_v4(hi, lo)
    return (
        np.where(v4, hi, hi & ~np.uint64(0xFFFF)),
        np.where(v4, lo & ~np.uint64(0xFF), np.uint64(0)),
    )


def epoch(month_index: int) -> str:
    """Returns the name of a month since 1970, such as "2026-04" for 675."""
    return f"{1970 + month_index // 12:04d}-{month_index % 12 + 1:02d}"


def months_of(times: I64) -> I64:
    """Returns months since 1970 of times in microseconds since 1970 (UTC)."""
    return times.view("M8[us]").astype("M8[M]").astype(np.int64)


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
