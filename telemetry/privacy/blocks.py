"""Addresses as blocks of 16 bytes, and AES-128 over many of them at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from telemetry.raw import U64

Blocks = npt.NDArray[np.uint8]
_V4_MAPPED = np.uint64(0xFFFF)
"""Upper 64 + 32 bits of ::ffff:a.b.c.d, as the value of `lo >> 32` while `hi` is 0."""


def encrypt_blocks(key: bytes, blocks: Blocks) -> Blocks:
    """Encrypts n blocks of 16 bytes, each for itself, with AES-128.

    Each block is one whole address and each is encrypted once, so the weakness
    of ECB on long messages does not apply: equal in, equal out is the purpose.
    """
    cipher = Cipher(AES(key), ECB()).encryptor()
    return np.frombuffer(cipher.update(blocks.tobytes()), np.uint8).reshape(-1, 16)


def decrypt_blocks(key: bytes, blocks: Blocks) -> Blocks:
    """Reverses `encrypt_blocks`."""
    cipher = Cipher(AES(key), ECB()).decryptor()
    return np.frombuffer(cipher.update(blocks.tobytes()), np.uint8).reshape(-1, 16)


def to_bytes(hi: U64, lo: U64) -> Blocks:
    """Returns addresses as 16 bytes each, in network order (n, 16)."""
    halves = np.empty((len(hi), 2), ">u8")
    halves[:, 0], halves[:, 1] = hi, lo
    return halves.view(np.uint8).reshape(-1, 16)


def from_bytes(blocks: Blocks) -> tuple[U64, U64]:
    """Returns the two halves of n blocks of 16 bytes in network order."""
    halves = np.ascontiguousarray(blocks).view(">u8").reshape(-1, 2).astype(np.uint64)
    return halves[:, 0], halves[:, 1]


def is_v4(hi: U64, lo: U64) -> npt.NDArray[np.bool_]:
    """Tells which addresses are IPv4."""
    mapped: npt.NDArray[np.bool_] = (hi == 0) & (lo >> np.uint64(32) == _V4_MAPPED)
    return mapped
