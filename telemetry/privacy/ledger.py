"""The ledger: an append-only, hash-chained account of every act.

One entry is one line of canonical JSON (sorted keys, no spaces, UTF-8):

    {"at": "2026-04-01T00:00:00.000000Z", "facts": {...}, "hash": "...",
     "kind": "ingest", "prev": "...", "seq": 1, "signature": "..."}

`seq` counts from 1. `hash` is SHA-256, in hex, of the canonical JSON of the
entry without `hash` and `signature`; `prev` is the hash of the entry before, 64
zeros for the first. `signature`, if any, is Ed25519 over the 64 characters of
`hash`, in hex. A line that is not byte for byte the canonical JSON of its
entry does not verify, so that there is nothing in the file that can be changed
unseen. That entries are missing at the end shows against an anchor, number and
hash of an entry: the lake keeps the newest in its file table, and the overseer
one elsewhere, which nobody who can write to the lake can change.

`data/ledger.schema.json` describes the entries, `data/verify_ledger.py` checks
them without this package.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from telemetry.errors import LakeError, LedgerError, PrivacyError, SettingsError
from telemetry.privacy.keys import load_public_key, load_signing_key, sync_folder

GENESIS = "0" * 64
"""`prev` of the first entry."""

Entry = dict[str, Any]

_FIELDS = {"seq", "at", "kind", "facts", "prev", "hash"}
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
# Wide on purpose: four numbers with dots, `::`, six groups with colons (MAC addresses
# too). A refused fact can be worded otherwise, a leaked one cannot be unsaid.
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|::|(?:[0-9a-fA-F]{1,4}:){5}[0-9a-fA-F]{1,4}")
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a ledger that verifies holds.

    Attributes:
        entries: Number of entries.
        head: Hash of the last, 64 zeros when there is none.
        anchor: Both, as `entries:head`: what to keep elsewhere.
        signed: Whether every entry's signature was checked against the public key.
        anchored: Whether an anchor was given, and met.
    """

    entries: int
    head: str
    anchor: str
    signed: bool
    anchored: bool


Anchor = tuple[int, str]
"""Number and hash of an entry that was there once."""


class Ledger:
    """The ledger of one lake; safe for concurrent writers, in one process or many."""

    def __init__(self, path: Path, sign_key: Path | None = None) -> None:
        """Names the file; it is created by the first entry.

        Args:
            path: The JSON Lines file, in an existing folder.
            sign_key: Ed25519 private key (PEM) that signs each entry.

        Raises:
            KeyFileError: The signing key is missing, readable by others or not a key.
        """
        self.path = path
        self._key = None if sign_key is None else load_signing_key(sign_key)
        self._note: Callable[[int, str], None] = lambda seq, head: None

    def follow(self, noted: Anchor | None, note: Callable[[int, str], None]) -> None:
        """Compares the ledger with the newest entry that was noted, and notes those to come.

        Args:
            noted: Number and hash of that entry; None when none was.
            note: Takes number and hash of each new entry, once it is durable.

        Raises:
            LedgerError: The ledger ends before the noted entry, or with another.
        """
        last = self.last()
        if noted is not None:
            seq, head = (last["seq"], last["hash"]) if last else (0, GENESIS)
            if seq < noted[0] or (seq == noted[0] and head != noted[1]):
                raise _cut(seq, noted)
        self._note = note

    def append(self, kind: str, /, *, authority: str, **facts: object) -> str:
        """Writes one entry and makes it durable.

        A torn last line, which a crash leaves behind, was never acknowledged to
        anybody: it is cut off, and an entry of kind `repair` says how many bytes.

        Args:
            kind: What was done, such as "ingest".
            authority: Id of the approval under which it was done.
            **facts: Its numbers and hashes; JSON values only, and never an address.

        Returns:
            Hash of the new entry, the head of the ledger.

        Raises:
            PrivacyError: A fact looks like an address, or is not JSON.
            LedgerError: The last entry is not valid, so that nothing can be chained to it.
            LakeError: The file cannot be written; it is left as it was.
        """
        facts = {"authority": authority} | facts
        _check_facts(kind, facts)
        try:
            with _locked(self.path) as handle:
                seq, head, torn = _tail(handle)
                if torn:
                    repair = {"authority": authority, "bytes_cut": torn}
                    os.ftruncate(handle, os.fstat(handle).st_size - torn)
                    seq, head = self._write(handle, seq, head, "repair", repair)
                seq, head = self._write(handle, seq, head, kind, facts)
        except OSError as error:
            raise LakeError(
                f"Cannot write the ledger {self.path}: {error.strerror}; make room or mend its "
                "mode, then run again."
            ) from None
        self._note(seq, head)
        return head

    def last(self) -> Entry | None:
        """Returns the last whole entry, or None when there is no ledger or it is empty.

        Raises:
            LedgerError: The last entry is not valid.
        """
        if not self.path.exists():
            return None
        with _locked(self.path) as handle:
            return _last(handle)[0]

    def newest(self) -> list[Entry]:
        """Returns the entries in the last 64 KiB of the ledger, oldest first."""
        if not self.path.exists():
            return []
        with _locked(self.path) as handle:
            size = os.fstat(handle).st_size
            start = max(0, size - _TAIL_BYTES)
            data = os.pread(handle, size - start, start)
        lines = data.split(b"\n")[1 if start else 0 : -1]
        return [_parse(line, 0) for line in lines]

    def _write(
        self, handle: int, seq: int, head: str, kind: str, facts: dict[str, object]
    ) -> tuple[int, str]:
        entry: Entry = {
            "seq": seq + 1,
            "at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "kind": kind,
            "facts": facts,
            "prev": head,
        }
        entry["hash"] = entry_hash(entry)
        if self._key is not None:
            entry["signature"] = _sign(self._key, entry["hash"])
        _write_line(handle, canonical(entry) + b"\n")
        return seq + 1, entry["hash"]


def verify(
    path: Path,
    public_key: Path | None = None,
    anchor: str | None = None,
    noted: Anchor | None = None,
) -> VerifyReport:
    """Checks every entry of a ledger.

    Args:
        path: The ledger.
        public_key: Ed25519 public key (PEM); when given, every entry must be signed.
        anchor: `N:HASH` or `HASH` kept from an earlier report: that entry must be there.
        noted: Number and hash of the newest entry that the lake noted.

    Raises:
        LedgerError: The first bad entry and what is wrong with it.
        KeyFileError: The public key cannot be used.
        SettingsError: The anchor is none.
    """
    kept = None if anchor is None else _anchor(anchor)
    met = kept is None or kept[1] == GENESIS
    seq, head = 0, GENESIS
    for seq, head, _ in verified(path, public_key):
        if noted is not None and seq == noted[0] and head != noted[1]:
            raise _bad(seq, "anchor", "it is not the one that the lake noted")
        met = met or (kept is not None and head == kept[1] and kept[0] in (0, seq))
    if noted is not None and seq < noted[0]:
        raise _cut(seq, noted)
    if kept is not None and not met:
        if seq < kept[0]:
            raise _cut(seq, kept)
        raise LedgerError(
            f"Ledger {path}: the anchor is missing among its {seq} entries, so entries were cut "
            f"off after entry {seq} or the ledger was replaced; restore it from a copy."
        )
    return VerifyReport(seq, head, f"{seq}:{head}", public_key is not None, kept is not None)


def verified(path: Path, public_key: Path | None = None) -> Iterator[tuple[int, str, bytes]]:
    """Yields number, hash and line of each entry, as long as they verify.

    Raises:
        LedgerError: The first bad entry and what is wrong with it.
        KeyFileError: The public key cannot be used.
    """
    key = None if public_key is None else load_public_key(public_key)
    head = GENESIS
    for seq, line in enumerate(_lines(path), start=1):
        head = _check(line, seq, head, key)
        yield seq, head, line


def _anchor(text: str) -> Anchor:
    """Reads an anchor; number 0 when it has none."""
    number, _, digest = text.strip().rpartition(":")
    if re.fullmatch(r"[0-9a-f]{64}", digest) is None or not (number or "0").isdecimal():
        raise SettingsError("An anchor is N:HASH, as `sekisho audit verify` prints it; give that.")
    return int(number or 0), digest


def _cut(seq: int, anchor: Anchor) -> LedgerError:
    return LedgerError(
        f"The ledger ends with entry {seq}, and entry {anchor[0]} was noted once: its end was cut "
        "off or replaced; keep the file as evidence and restore it from a copy."
    )


def canonical(value: object) -> bytes:
    """Returns the one JSON form of a value: sorted keys, no spaces, UTF-8."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def entry_hash(entry: Entry) -> str:
    """Returns the hash that an entry must carry."""
    signed_over = {name: entry[name] for name in entry if name not in ("hash", "signature")}
    return sha256(canonical(signed_over)).hexdigest()


def _check(line: bytes, seq: int, prev: str, key: Ed25519PublicKey | None) -> str:
    """Checks one line against its place and returns its hash."""
    if not line.endswith(b"\n"):
        raise _bad(seq, "torn", "its line does not end; the next run repairs it")
    entry = _parse(line[:-1], seq)
    if type(entry["seq"]) is not int or entry["seq"] != seq:  # True == 1 in Python
        raise _bad(seq, "sequence", "its number is another, so entries are missing or moved")
    if entry["prev"] != prev:
        raise _bad(seq, "chain", "it does not continue the entry before")
    if entry["hash"] != entry_hash(entry):
        raise _bad(seq, "hash", "its content was changed")
    if key is not None and not _signature_holds(key, entry):
        raise _bad(seq, "signature", "it is not signed with this key")
    return str(entry["hash"])


def _parse(text: bytes, seq: int) -> Entry:
    try:
        entry = json.loads(text)
        exact = canonical(entry) == text
    except (ValueError, RecursionError):
        raise _bad(seq, "not JSON", "it cannot be read") from None
    if not isinstance(entry, dict) or set(entry) - {"signature"} != _FIELDS:
        raise _bad(seq, "not JSON", "it has not the fields of an entry")
    if not exact:
        raise _bad(seq, "not JSON", "it is not written in the canonical form")
    return entry


def _bad(seq: int, why: str, meaning: str) -> LedgerError:
    return LedgerError(
        f"Ledger entry {seq} does not verify ({why}): {meaning}; keep the file as evidence and "
        "compare it with a copy."
    )


def _sign(key: Ed25519PrivateKey, digest: str) -> str:
    return key.sign(digest.encode("ascii")).hex()


def _signature_holds(key: Ed25519PublicKey, entry: Entry) -> bool:
    text = entry.get("signature")
    try:
        signature = bytes.fromhex(text) if isinstance(text, str) else b""
        key.verify(signature, entry["hash"].encode("ascii"))
    except (ValueError, InvalidSignature):
        return False
    return signature.hex() == text  # upper case or spaces would be another spelling


def _check_facts(kind: str, facts: dict[str, object]) -> None:
    if _KIND.fullmatch(kind) is None:
        raise PrivacyError("A ledger entry's kind is a short lower-case word; name it so.")
    if not isinstance(facts["authority"], str) or not facts["authority"]:
        raise PrivacyError("A ledger entry names the authority of its act; name it.")
    for name, value in facts.items():
        if _holds_address(name) or _holds_address(value):
            raise PrivacyError(
                f"The ledger fact '{_safe(name)}' looks like an address; write a hash or a count."
            )
    try:
        if json.loads(canonical(facts)) != facts:
            raise ValueError
    except (TypeError, ValueError, RecursionError):
        raise PrivacyError(
            "A ledger fact is not plain JSON; give text, whole numbers, lists and dictionaries."
        ) from None


def _holds_address(value: object) -> bool:
    if isinstance(value, str):
        return _ADDRESS.search(value) is not None
    if isinstance(value, dict):
        return any(_holds_address(key) or _holds_address(item) for key, item in value.items())
    if isinstance(value, list):
        return any(_holds_address(item) for item in value)
    return False


def _safe(name: str) -> str:
    return "?" if _holds_address(name) else name


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Opens the ledger, alone among all writers, and makes a new one durable."""
    # O_APPEND: even a writer that ignores the lock could not overwrite an entry.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    handle = os.open(path, flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_size == 0:
            sync_folder(path.parent)
        yield handle
    finally:
        os.close(handle)


def _tail(handle: int) -> tuple[int, str, int]:
    """Returns number and hash of the last entry, and the bytes of a torn line after it."""
    entry, torn = _last(handle)
    return (0, GENESIS, torn) if entry is None else (entry["seq"], entry["hash"], torn)


def _last(handle: int) -> tuple[Entry | None, int]:
    """Returns the last entry, and the bytes of a torn line after it.

    Only the end of the file is read, whatever its length.
    """
    size = os.fstat(handle).st_size
    span, data = 0, b""
    while span < size and data.count(b"\n") < 2:
        span = min(size, max(2 * span, _TAIL_BYTES))
        data = os.pread(handle, span, size - span)
    whole, newline, torn = data.rpartition(b"\n")
    if not newline:
        return None, len(torn)
    last = whole.rpartition(b"\n")[2]
    try:
        entry = _parse(last, 0)
        if entry["hash"] == entry_hash(entry) and type(entry["seq"]) is int:
            return entry, len(torn)
    except LedgerError:
        pass
    raise LedgerError(
        "The last entry of the ledger was changed, nothing can be chained to it; run `sekisho "
        "audit verify` and restore the ledger from a copy."
    )


def _write_line(handle: int, line: bytes) -> None:
    """Appends a line whole, or leaves the file as it was."""
    size = os.fstat(handle).st_size
    try:
        written = 0
        while written < len(line):
            written += os.write(handle, line[written:])
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise


def _lines(path: Path) -> Iterator[bytes]:
    """Yields the lines that stood when the reading began; writers may go on meanwhile."""
    try:
        with path.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            left = os.fstat(handle.fileno()).st_size
            fcntl.flock(handle, fcntl.LOCK_UN)
            while left > 0 and (line := handle.readline(left)):
                left -= len(line)
                yield line
    except OSError as error:
        if not path.parent.exists():
            raise LedgerError(
                f"There is no lake at {path.parent}; check --lake, or ingest sources first."
            ) from None
        raise LedgerError(
            f"Cannot read the ledger {path}: {error.strerror}; check --lake."
        ) from None
