"""Real key files for the privacy tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


def write_signer(folder: Path, name: str) -> tuple[Path, Path]:
    """Writes a new Ed25519 pair and returns its private and public file."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.touch(0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def signer(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key file."""
    return write_signer(tmp_path, "overseer")


@pytest.fixture
def stranger(tmp_path: Path) -> tuple[Path, Path]:
    """Another pair, that nobody trusts."""
    return write_signer(tmp_path, "stranger")
