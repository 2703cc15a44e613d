"""Detached signatures of the overseer's files: Ed25519 over the bytes, base64, in `FILE.sig`."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidSignature

from telemetry.errors import AuthorityError, KeyFileError
from telemetry.privacy.keys import load_public_key, load_signing_key


def signature_path(path: Path) -> Path:
    """Returns where the signature of a file is."""
    return path.with_name(path.name + ".sig")


def sign_file(path: Path, private_key: Path) -> Path:
    """Signs a file as it is.

    Args:
        path: The file.
        private_key: Ed25519 private key (PEM) that only its owner may read.

    Returns:
        The signature's file; one that was there is replaced.

    Raises:
        AuthorityError: The file cannot be read, or its signature not be written.
        KeyFileError: The key cannot be used.
    """
    key = load_signing_key(private_key)
    beside = signature_path(path)
    aside = beside.with_name(f".{beside.name}")
    try:
        aside.write_bytes(base64.b64encode(key.sign(path.read_bytes())) + b"\n")
        aside.replace(beside)  # an old signature stays whole until the new one is
    except OSError as error:
        raise AuthorityError(f"Cannot sign {path}: {error.strerror}; check its folder.") from None
    return beside


def verify_file(path: Path, data: bytes, overseer_key: Path, what: str) -> None:
    """Checks the signature beside a file.

    Args:
        path: The file.
        data: Its bytes, as they will be parsed.
        overseer_key: Ed25519 public key (PEM).
        what: Its name at the beginning of a sentence.

    Raises:
        AuthorityError: The signature is missing or wrong, or the key cannot be used.
    """
    beside = signature_path(path)
    try:
        key = load_public_key(overseer_key)
    except KeyFileError as error:
        raise AuthorityError(
            f"The overseer's key that must verify {path} cannot be used: {error}"
        ) from None
    try:
        signature = base64.b64decode(beside.read_bytes().strip(), validate=True)
        key.verify(signature, data)
    except OSError:
        raise AuthorityError(
            f"{what} is not signed, there is no readable {beside.name} beside it; ask the "
            "overseer to sign the file."
        ) from None
    except (binascii.Error, InvalidSignature):
        raise AuthorityError(
            f"The signature in {beside.name} is not the overseer's over {path}; restore both files "
            "as they were signed, or have this one signed."
        ) from None
