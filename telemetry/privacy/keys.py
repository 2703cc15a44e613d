"""The pseudonym key: one file outside the lake, from which every sub-key derives.

The file is text. Version 2, which `create` writes, holds a header, 32 random
bytes in hex that identify the key, and one random secret for each epoch (a
month) that was met; see `epochs`. Sub-keys come from an epoch's secret by
HKDF-SHA256 (RFC 5869), one for each purpose and scheme. So the pseudonyms of
two months, or of hosts and networks, cannot be matched without the file, and
those of a month whose secret was destroyed by nobody.

Version 1 is a header and a master of 32 bytes, from which HKDF derives the
epochs' keys too. It is read as ever; since every month can be derived from the
master, no month of it can be destroyed, nor its key be rotated.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from telemetry.errors import KeyFileError
from telemetry.privacy.epochs import EpochFile, Secret

Purpose = Literal["host", "network"]
Scheme = Literal["deterministic", "prefix", "cryptopan"]

HEADER = "sekisho-key 1"
HEADER_2 = "sekisho-key 2"
_MASTER_BYTES = 32
_KEY_BYTES: dict[Scheme, int] = {"deterministic": 16, "prefix": 32, "cryptopan": 32}
_LIMIT = 1 << 24
_START = re.compile(rb"(sekisho-key [12])\n([0-9a-fA-F]{64})\n")


class Keys:
    """The key in memory; it prints as its id and never as itself."""

    __slots__ = ("_epochs", "_master", "key_id")

    def __init__(self, master: bytes, epochs: EpochFile | None = None) -> None:
        """Takes the 32 bytes of the key file; use `load` or `create`.

        Args:
            master: The bytes; they give the key its id, and without `epochs` its sub-keys.
            epochs: The secrets that sub-keys come from instead.

        Raises:
            KeyFileError: The key has another length.
        """
        if len(master) != _MASTER_BYTES:
            raise KeyFileError("A pseudonym key has 32 bytes; make one with `sekisho keys new`.")
        self._master = master
        self._epochs = epochs
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
            _write_synced(aside, f"{HEADER_2}\n{master.hex()}\n".encode())
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
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Reads a key file.

        Raises:
            KeyFileError: The file is missing, readable by others, or not a key file.
        """
        data = read_secret(path)
        start = _START.match(data)
        if start is None or (start[1].decode() == HEADER and start.end() != len(data)):
            raise _malformed(path)
        master = bytes.fromhex(start[2].decode())
        if start[1].decode() == HEADER:
            return cls(master)
        return cls(master, EpochFile(path, start.end()))

    def subkeys(
        self, epochs: Iterable[str], purpose: Purpose, scheme: Scheme = "deterministic"
    ) -> dict[str, bytes]:
        """Returns the sub-key in use of each epoch; makes the secrets of new ones.

        Args:
            epochs: Months such as "2026-04", or "linked".
            purpose: What it is for.
            scheme: Which needs 16 bytes (AES-128) or 32.

        Raises:
            KeyFileError: A secret cannot be written.
        """
        if self._epochs is None:
            return {epoch: self._of_master(epoch, purpose, scheme) for epoch in set(epochs)}
        found = self._epochs.newest(epochs)
        return {epoch: _of_secret(secret, purpose, scheme) for epoch, secret in found.items()}

    def subkey(self, epoch: str, purpose: Purpose, scheme: Scheme = "deterministic") -> bytes:
        """Returns the sub-key in use of one epoch."""
        return self.subkeys([epoch], purpose, scheme)[epoch]

    def living(self, epoch: str, purpose: Purpose, scheme: Scheme) -> list[bytes]:
        """Returns the sub-keys of all generations of an epoch that are not destroyed."""
        if self._epochs is None:
            return [self._of_master(epoch, purpose, scheme)]
        return [_of_secret(secret, purpose, scheme) for secret in self._epochs.living(epoch)]

    def rotate(self) -> list[str]:
        """Gives every epoch a new secret from now on; returns the names of the epochs.

        Raises:
            KeyFileError: The file is of version 1, or cannot be written.
        """
        return self._of_version_2().rotate()

    def destroy(self, epoch: str | None = None) -> int:
        """Destroys the secrets of an epoch, or of all; returns how many there were.

        What was encrypted under them can then be reversed by nobody, and no further
        address gets a pseudonym under them.

        Raises:
            KeyFileError: The file is of version 1, holds no such epoch, or cannot be written.
        """
        epochs = self._of_version_2()
        self.check_epoch(epoch)
        return epochs.destroy({s.epoch for s in epochs.all()} if epoch is None else [epoch])

    def check_epoch(self, epoch: str | None) -> None:
        """Refuses the name of an epoch that cannot be destroyed; None means all.

        Raises:
            KeyFileError: The file is of version 1, or holds no such epoch.
        """
        if epoch not in {None, *(secret.epoch for secret in self._of_version_2().all())}:
            raise KeyFileError(
                "The key file holds no such epoch; `sekisho keys show` names those it holds."
            )

    def secrets(self) -> list[Secret]:
        """Returns every generation of every epoch; none for a file of version 1."""
        return [] if self._epochs is None else self._epochs.all()

    def state(self) -> tuple[int, int]:
        """Returns how many secrets were ever made, and how many of them are destroyed.

        Neither ever falls, unless an older copy of the file is put in its place.
        """
        made = self.secrets()
        return len(made), sum(secret.value is None for secret in made)

    def _of_version_2(self) -> EpochFile:
        if self._epochs is None:
            raise KeyFileError(
                "A key file of version 1 derives all months from one master, so none can be "
                "rotated or destroyed; fill a new lake under a key of `sekisho keys new`."
            )
        return self._epochs

    def _of_master(self, epoch: str, purpose: Purpose, scheme: Scheme) -> bytes:
        label = f"{epoch}/{purpose}" + ("" if scheme == "deterministic" else f"/{scheme}")
        return self._derive(label, _KEY_BYTES[scheme])

    def tag(self, text: str) -> str:
        """Returns a keyed hash of a text that would be guessed from a plain one, in hex."""
        return hmac.digest(self._derive("tag", 32), text.encode(), "sha256").hex()

    def _derive(self, info: str, length: int) -> bytes:
        return _hkdf(self._master, f"sekisho/1/{info}", length)


def _of_secret(secret: bytes, purpose: Purpose, scheme: Scheme) -> bytes:
    return _hkdf(secret, f"sekisho/2/{purpose}/{scheme}", _KEY_BYTES[scheme])


def _hkdf(secret: bytes, info: str, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info.encode()).derive(secret)


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
            return handle.read(_LIMIT)
    except FileNotFoundError:
        raise KeyFileError(
            f"No key file at {path}; put the lake's own back, or for a new lake make one with "
            "`sekisho keys new`."
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
