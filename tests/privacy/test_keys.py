"""Key files: who may read them, and what derives from them."""

from __future__ import annotations

import errno
import multiprocessing
import os
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
        f"sekisho-key 3\n{MASTER.hex()}\n".encode(),
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


# --- epochs --------------------------------------------------------------------------------------


def made(tmp_path: Path, *epochs: str) -> tuple[Path, Keys]:
    """Makes a key and lets it meet some months."""
    path = tmp_path / "lake.key"
    keys = Keys.create(path)
    keys.subkeys(epochs, "host")
    return path, keys


def test_an_epoch_has_one_secret_from_its_first_use_on(tmp_path: Path) -> None:
    path, keys = made(tmp_path, "2026-03", "2026-04")
    first = keys.subkeys(["2026-03", "2026-04"], "host")
    assert len({*first.values(), keys.subkey("2026-04", "network")}) == 3
    assert Keys.load(path).subkeys(["2026-04", "2026-03"], "host") == first
    assert Keys.load(path).key_id == keys.key_id
    assert path.read_text().count("\n") == 4
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_lakes_with_one_master_would_share_no_month(tmp_path: Path) -> None:
    """A month's secret is random: the head of the file alone gives none of them."""
    path, keys = made(tmp_path, "2026-04")
    head = "".join(path.read_text().splitlines(keepends=True)[:2])
    other = tmp_path / "other.key"
    other.write_text(head)
    other.chmod(0o600)
    assert Keys.load(other).key_id == keys.key_id
    assert Keys.load(other).subkey("2026-04", "host") != keys.subkey("2026-04", "host")


def test_a_destroyed_month_is_gone_from_the_file_and_stays_gone(tmp_path: Path) -> None:
    path, keys = made(tmp_path, "2026-03", "2026-04")
    running = Keys.load(path)  # another process, which has the secret in memory
    before = running.subkeys(["2026-03", "2026-04"], "host")
    digits = path.read_text().splitlines()[2].split()[2]
    assert keys.destroy("2026-03") == 1
    assert digits not in path.read_text()
    assert keys.living("2026-03", "host", "deterministic") == []
    assert running.living("2026-03", "host", "deterministic") == []
    for one in (keys, running, Keys.load(path)):
        assert one.subkey("2026-04", "host") == before["2026-04"], "the other month lives"
        assert one.subkey("2026-03", "host") != before["2026-03"], "late data gets a new secret"
    assert keys.state() == (3, 1)
    assert keys.destroy() == 2 and keys.state() == (3, 3)


def test_rotation_gives_every_month_a_new_secret_and_keeps_the_old(tmp_path: Path) -> None:
    path, keys = made(tmp_path, "2026-03", "2026-04")
    before = keys.subkeys(["2026-03", "2026-04"], "host")
    keys.destroy("2026-03")
    assert keys.rotate() == ["2026-04"]
    after = Keys.load(path).subkey("2026-04", "host")
    assert after != before["2026-04"]
    assert keys.living("2026-04", "host", "deterministic") == [after, before["2026-04"]]


def test_a_key_of_version_1_cannot_forget_a_month() -> None:
    keys = Keys(MASTER)
    for act in (keys.rotate, keys.destroy, lambda: keys.destroy("2026-04")):
        with pytest.raises(KeyFileError, match="version 1 derives all months from one master"):
            act()
    assert keys.secrets() == []


def test_an_epoch_that_is_not_there_is_not_destroyed(tmp_path: Path) -> None:
    _, keys = made(tmp_path, "2026-04")
    with pytest.raises(KeyFileError, match="holds no such epoch"):
        keys.destroy("2026-05")


def test_a_torn_secret_was_never_used_and_is_made_anew(tmp_path: Path) -> None:
    path, _ = made(tmp_path, "2026-03", "2026-04")
    good = path.read_bytes()
    first = Keys.load(path).subkey("2026-03", "host")
    start = good.rindex(b"2026-04")
    for end in range(start, len(good) - 1):
        path.write_bytes(good[:end])
        keys = Keys.load(path)
        assert keys.subkey("2026-03", "host") == first
        assert keys.subkey("2026-05", "host") == Keys.load(path).subkey("2026-05", "host")
        assert len(path.read_bytes()) == len(good)


@pytest.mark.parametrize(
    "line",
    [
        b"2026-04 1 short\n",
        b"2026-4 1 " + b"a" * 64 + b"\n",
        b"2026-04 2 " + b"a" * 64 + b"\n",
        b"\n",
        b"hello\n",
    ],
)
def test_damaged_epochs_are_refused(tmp_path: Path, line: bytes) -> None:
    path, _ = made(tmp_path)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(KeyFileError, match="damaged among its epochs"):
        Keys.load(path)


def test_a_half_overwritten_secret_does_not_live(tmp_path: Path) -> None:
    path, _ = made(tmp_path, "2026-04")
    data = path.read_bytes()
    at = data.index(b"2026-04 1 ") + len(b"2026-04 1 ")
    path.write_bytes(data[:at] + b"destroyed" + data[at + 9 :])
    assert Keys.load(path).living("2026-04", "host", "deterministic") == []
    Keys.load(path).destroy("2026-04")
    assert data[at + 9 : at + 64] not in path.read_bytes(), "a second try overwrites the rest"


def use_months(path: Path, months: list[str]) -> None:
    """Meets months one by one, each through a key of its own."""
    for month in months:
        Keys.load(path).subkey(month, "host")


def test_processes_that_meet_a_month_together_agree_on_its_secret(tmp_path: Path) -> None:
    path, keys = made(tmp_path)
    months = [f"2026-{month:02d}" for month in range(1, 13)]
    context = multiprocessing.get_context("spawn")
    users = [context.Process(target=use_months, args=(path, months)) for _ in range(3)]
    for process in users:
        process.start()
    for process in users:
        process.join()
    assert all(process.exitcode == 0 for process in users)
    assert [(s.epoch, s.generation) for s in keys.secrets()] == [(m, 1) for m in months]


def test_a_key_file_that_cannot_be_written_makes_no_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, keys = made(tmp_path, "2026-04")
    known = keys.subkey("2026-04", "host")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(KeyFileError, match="Cannot write the key file"):
        keys.subkey("2026-05", "host")
    assert Keys.load(path).subkey("2026-04", "host") == known


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
