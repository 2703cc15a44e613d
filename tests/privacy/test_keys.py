"""Key files: who may read them, and what derives from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from telemetry.errors import KeyFileError
from telemetry.privacy.keys import HEADER, Keys, load_public_key, load_signing_key

MASTER = bytes(range(32))


def test_created_key_is_private_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lake.key"
    created = Keys.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keys.load(path).key_id == created.key_id
    assert [entry.name for entry in path.parent.iterdir()] == ["lake.key"]


def test_two_keys_differ(tmp_path: Path) -> None:
    one, two = Keys.create(tmp_path / "1"), Keys.create(tmp_path / "2")
    assert one.key_id != two.key_id
    assert one.subkey("2026-04", "host") != two.subkey("2026-04", "host")


def test_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "lake.key"
    Keys.create(path)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="exists already"):
        Keys.create(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_that_cannot_hold_a_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="Cannot write the key file"):
        Keys.create(tmp_path / "file" / "lake.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "lake.key"
    Keys.create(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Keys.load(path)


def test_missing_key(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No key file"):
        Keys.load(tmp_path / "none")


def test_folder_as_key(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="Cannot read the key file"):
        Keys.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        MASTER,
        MASTER.hex().encode(),
        f"{HEADER}\n".encode(),
        f"{HEADER}\n{MASTER.hex()[:-2]}\n".encode(),
        f"{HEADER}\n{MASTER.hex()}".encode(),
        f"{HEADER}\n{MASTER.hex()}\nmore".encode(),
        f"{HEADER}\n{'g' * 64}\n".encode(),
        f"sekisho-key 2\n{MASTER.hex()}\n".encode(),
        b"\xff" * 90,
    ],
)
def test_malformed_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lake.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a Sekisho key file"):
        Keys.load(path)


def test_master_of_wrong_length() -> None:
    with pytest.raises(KeyFileError, match="32 bytes"):
        Keys(b"short")


def test_subkeys_differ_by_epoch_and_purpose() -> None:
    keys = Keys(MASTER)
    derived = {
        keys.subkey(month, purpose)
        for month in ("2026-03", "2026-04")
        for purpose in ("host", "network")
    }
    assert len(derived) == 4
    assert all(len(key) == 16 for key in derived)


def test_derivation_does_not_change() -> None:
    """A change here would orphan the pseudonyms of every existing lake."""
    keys = Keys(MASTER)
    assert keys.key_id == "15a500e7ad35a3ee"
    assert keys.subkey("2026-04", "host").hex() == "5d0bb5e7c1672514c958c9d8f2d6b601"


def test_key_never_shows_itself() -> None:
    keys = Keys(MASTER)
    shown = repr(keys) + str(keys) + keys.key_id
    assert MASTER.hex()[:8] not in shown
    assert keys.key_id in repr(keys)


def test_signing_key_that_others_may_read_is_refused(
    tmp_path: Path, signer: tuple[Path, Path]
) -> None:
    private, _ = signer
    private.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_signing_key(private)


def test_keys_of_other_kinds_are_refused(tmp_path: Path, signer: tuple[Path, Path]) -> None:
    private, public = signer
    public.chmod(0o600)
    with pytest.raises(KeyFileError, match="no Ed25519 private key"):
        load_signing_key(public)
    with pytest.raises(KeyFileError, match="no Ed25519 public key"):
        load_public_key(private)
    with pytest.raises(KeyFileError, match="Cannot read the public key"):
        load_public_key(tmp_path / "none")
