"""The pseudonym key: one file outside the lake, from which every sub-key derives.

The file is two lines of text, a header that names the version and 32 random
bytes in hex. Sub-keys come from HKDF-SHA256 (RFC 5869), one for each epoch (a
month) and purpose, so that the pseudonyms of two months or of hosts and
networks cannot be matched without the file.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from hashlib import sha256
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from telemetry.errors import KeyFileError

Purpose = Literal["host", "network"]

HEADER = "sekisho-key 1"
_MASTER_BYTES = 32


class Keys:
    """The master key in memory; it prints as its id and never as itself."""

    __slots__ = ("_master", "key_id")

    def __init__(self, master: bytes) -> None:
        """Takes the 32 bytes of the key file; use `load` or `create`.

        Raises:
            KeyFileError: The key has another length.
        """
        if len(master) != _MASTER_BYTES:
            raise KeyFileError("A pseudonym key has 32 bytes; make one with `sekisho keys new`.")
        self._master = master
        self.key_id: str = sha256(self._derive("id", 32)).hexdigest()[:16]
        """Name of the key, 16 hex digits: a hash of a derived value, never of the key."""

    def __repr__(self) -> str:
        """Shows the id only."""
        return f"Keys(key_id={self.key_id!r})"

    @classmethod
    def create(cls, path: Path) -> Keys:
        """Writes a new random key, readable by its owner only.

        The key appears under its name whole or not at all, and an existing file
        is never replaced: losing a key means losing the meaning of its pseudonyms.

        Raises:
            KeyFileError: The file exists already or cannot be written.
        """
        master = secrets.token_bytes(_MASTER_BYTES)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_synced(aside, f"{HEADER}\n{master.hex()}\n".encode())
            try:
                os.link(aside, path)  # unlike a rename, fails when the name is taken
            except FileExistsError:
                raise KeyFileError(
                    f"{path} exists already; choose another name, a key is never overwritten."
                ) from None
            finally:
                aside.unlink()
            sync_folder(path.parent)
        except OSError as error:
            raise KeyFileError(
                f"Cannot write the key file {path}: {error.strerror}; choose a writable folder."
            ) from None
        return cls(master)

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Reads a key file.

        Raises:
            KeyFileError: The file is missing, readable by others, or not a key file.
        """
        lines = read_secret(path).decode("ascii", "replace").split("\n")
        if len(lines) != 3 or lines[0] != HEADER or lines[2] or len(lines[1]) != 2 * _MASTER_BYTES:
            raise _malformed(path)
        try:
            return cls(bytes.fromhex(lines[1]))
        except ValueError:
            raise _malformed(path) from None

    def subkey(self, epoch: str, purpose: Purpose) -> bytes:
        """Returns the AES-128 key (16 bytes) of a month such as "2026-04" and a purpose."""
        return self._derive(f"{epoch}/{purpose}", 16)

    def tag(self, text: str) -> str:
        """Returns a keyed hash of a text that would be guessed from a plain one, in hex."""
        return hmac.digest(self._derive("tag", 32), text.encode(), "sha256").hex()

    def _derive(self, info: str, length: int) -> bytes:
        label = f"sekisho/1/{info}".encode()
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=label).derive(self._master)


def read_secret(path: Path) -> bytes:
    """Reads a file that only its owner may read.

    Raises:
        KeyFileError: The file is missing, not a plain file, or group or others may use it.
    """
    try:
        with path.open("rb") as handle:
            # The mode of the opened file, not of the name: nobody can swap it in between.
            status = os.fstat(handle.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeyFileError(f"{path} is not a file; name a key file.")
            if status.st_mode & 0o077:
                raise KeyFileError(
                    f"Others may use the key file {path}; run `chmod 600` on it, and make a new "
                    "key if somebody may have read it."
                )
            return handle.read(1 << 16)
    except FileNotFoundError:
        raise KeyFileError(
            f"No key file at {path}; make one with `sekisho keys new`, or put the lake's own back."
        ) from None
    except OSError as error:
        raise KeyFileError(
            f"Cannot read the key file {path}: {error.strerror}; check its owner and mode."
        ) from None


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Reads an Ed25519 private key (PEM, no passphrase) that only its owner may read.

    Raises:
        KeyFileError: The file is missing, readable by others, or not such a key.
    """
    data = read_secret(path)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(
            f"{path} is no Ed25519 private key in PEM form without a passphrase; make one with "
            "`openssl genpkey -algorithm ed25519`."
        )
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Reads an Ed25519 public key (PEM).

    Raises:
        KeyFileError: The file is missing or not such a key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise KeyFileError(
            f"Cannot read the public key {path}: {error.strerror}; check the path."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(
            f"{path} is no Ed25519 public key in PEM form; make it with `openssl pkey -pubout`."
        )
    return key


def sync_folder(folder: Path) -> None:
    """Makes a new name in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _malformed(path: Path) -> KeyFileError:
    return KeyFileError(
        f"{path} is not a Sekisho key file; name the right one, or put it back from its copy."
    )
