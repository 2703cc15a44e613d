"""The gate house: raw batches become clean batches or counted reasons.

The names below are the room's door; each is imported when first asked for, so
that `keys new` does not wait for the packet kernels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from telemetry.privacy.authority import Authority
    from telemetry.privacy.gate import Gate
    from telemetry.privacy.keys import Keys
    from telemetry.privacy.ledger import GENESIS, Ledger, VerifyReport, verified, verify
    from telemetry.privacy.pseudonyms import Pseudonyms
    from telemetry.privacy.revocation import check_not_revoked
    from telemetry.privacy.signatures import sign_file, verify_file

__all__ = [
    "GENESIS",
    "Authority",
    "Gate",
    "Keys",
    "Ledger",
    "Pseudonyms",
    "VerifyReport",
    "check_not_revoked",
    "sign_file",
    "verified",
    "verify",
    "verify_file",
]

_MODULES = {
    "Authority": "authority",
    "GENESIS": "ledger",
    "Gate": "gate",
    "Keys": "keys",
    "Ledger": "ledger",
    "Pseudonyms": "pseudonyms",
    "VerifyReport": "ledger",
    "check_not_revoked": "revocation",
    "sign_file": "signatures",
    "verified": "ledger",
    "verify": "ledger",
    "verify_file": "signatures",
}


if not TYPE_CHECKING:  # a type checker would take it to mean that any name exists

    def __getattr__(name: str) -> object:
        """Imports a public name from its module."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
