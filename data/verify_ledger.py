"""Checks a Sekisho ledger without Sekisho: one file, Python 3.8 or later, nothing to install.

    python verify_ledger.py LEDGER [--anchor N:HASH] [--public-key PEM]

LEDGER is `ledger.jsonl` of a lake, what `sekisho audit export` printed, or - for standard
input. Exit code 0: every entry verifies. 1: one does not, or the anchor is not met. 2: wrong
usage, or the file cannot be read. Only --public-key needs the package `cryptography`.

What is checked, line by line (`ledger.schema.json` describes an entry):
  1. the line is one JSON object in canonical form: keys sorted, no spaces, UTF-8, one newline;
  2. it has the fields of an entry and no others, and its `seq` is the number of the line;
  3. `prev` is the `hash` of the line before, 64 zeros for the first;
  4. `hash` is the SHA-256 of the canonical form without `hash` and `signature`;
  5. with --public-key, `signature` is Ed25519 over the 64 characters of `hash`;
  6. with --anchor, entry N is there and has that hash, so nothing was cut off before it.
Without an anchor that was kept elsewhere, nobody can tell whether entries are missing at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

FIELDS = {"seq", "at", "kind", "facts", "prev", "hash"}


class Broken(Exception):
    """An entry, or the ledger as a whole, does not verify."""


def canonical(value: object) -> bytes:
    """Returns the one form in which a value may be written."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def parse(line: bytes) -> dict:
    """Reads a line, which must be in canonical form."""
    if not line.endswith(b"\n"):
        raise Broken("its line does not end")
    try:
        entry = json.loads(line[:-1].decode("utf-8"))
        exact = canonical(entry) == line[:-1]
    except (ValueError, RecursionError):
        raise Broken("it is not JSON") from None
    if not isinstance(entry, dict) or set(entry) - {"signature"} != FIELDS:
        raise Broken("it has not the fields of an entry")
    if not exact:
        raise Broken("it is not written in the canonical form")
    return entry


def check(line: bytes, seq: int, prev: str, key: object) -> str:
    """Checks a line against its place and returns its hash."""
    entry = parse(line)
    if type(entry["seq"]) is not int or entry["seq"] != seq:
        raise Broken("its number is another: entries are missing or moved")
    if entry["prev"] != prev:
        raise Broken("it does not continue the entry before")
    rest = {name: entry[name] for name in entry if name not in ("hash", "signature")}
    if entry["hash"] != hashlib.sha256(canonical(rest)).hexdigest():
        raise Broken("its content was changed")
    if key is not None:
        check_signature(key, entry.get("signature"), entry["hash"])
    return entry["hash"]


def check_signature(key: object, text: str, digest: str) -> None:
    """Checks a signature, which must be written in lower-case hex."""
    try:
        signature = bytes.fromhex(text)
        if signature.hex() == text:
            key.verify(signature, digest.encode("ascii"))
            return
    except Exception:  # whatever is wrong with it, it does not hold
        pass
    raise Broken("it is not signed with this key")


def verify(lines: object, anchor: tuple | None = None, key: object = None) -> tuple:
    """Checks all lines; returns the number of entries and the hash of the last."""
    seq, head = 0, "0" * 64
    for seq, line in enumerate(lines, 1):
        try:
            head = check(line, seq, head, key)
        except Broken as error:
            raise Broken(f"entry {seq}: {error}") from None
        if anchor is not None and seq == anchor[0] and head != anchor[1]:
            raise Broken(f"entry {seq}: it is not the anchor: the ledger was written anew")
    if anchor is not None and seq < anchor[0]:
        raise Broken(f"it ends at entry {seq}, the anchor is entry {anchor[0]}: its end is cut off")
    return seq, head


def anchor_of(text: str) -> tuple:
    """Reads an anchor, N:HASH."""
    number, colon, digest = text.partition(":")
    if not colon or not number.isdigit() or len(digest) != 64:
        raise argparse.ArgumentTypeError("an anchor is N:HASH, as `sekisho audit verify` prints it")
    return int(number), digest


def public_key(path: str) -> object:
    """Reads an Ed25519 public key in PEM form."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(Path(path).read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 public key")
    return key


def main() -> int:
    """Runs the verifier; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check a Sekisho ledger.")
    parser.add_argument("ledger", help="ledger.jsonl, an export of it, or -")
    parser.add_argument("--anchor", type=anchor_of, help="N:HASH, kept from an earlier check")
    parser.add_argument("--public-key", help="Ed25519 public key (PEM) of the ledger")
    given = parser.parse_args()
    try:
        key = public_key(given.public_key) if given.public_key else None
        with sys.stdin.buffer if given.ledger == "-" else Path(given.ledger).open("rb") as lines:
            entries, head = verify(lines, given.anchor, key)
    except Broken as error:
        print(f"The ledger does not verify: {error}.", file=sys.stderr)
        return 1
    except (ImportError, OSError, ValueError) as error:
        print(f"Cannot check: {error}.", file=sys.stderr)
        return 2
    print(f"The ledger is whole: {entries} entries. Keep this anchor: {entries}:{head}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
