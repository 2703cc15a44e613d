"""What can go wrong, and what the command's exit code says about it.

    SekishoError (exit 1: a run failed)
    ├── SourceError          this input cannot be read; the others can
    ├── LakeError            the lake cannot be read or written
    │   └── LakeBusy         another run holds the lake: a retry can help
    ├── LedgerError          the ledger is broken or gone
    └── Refused (exit 2: wrong usage, or not allowed)
        ├── SettingsError    misspelt, missing or contradictory settings
        ├── AuthorityError   no approval covers this run
        ├── RoleError        the settings' role may not do this
        ├── KeyFileError     the pseudonym key is missing, unsafe or wrong
        └── PrivacyError     something would have broken the closed world

Every message is one sentence that says what to do next, and never holds an
address, a payload byte or a name taken from a source's content.
"""

from __future__ import annotations


class SekishoError(Exception):
    """Base of all errors that Sekisho raises on purpose."""

    exit_code = 1
    transient = False
    """True when the same call may succeed later without any change."""


class SourceError(SekishoError):
    """One source cannot be read; nothing of it was stored."""


class LakeError(SekishoError):
    """The lake cannot be read or written."""


class LakeBusy(LakeError):
    """Another run holds the lake."""

    transient = True


class Refused(SekishoError):
    """Wrong usage, or something that must not be done."""

    exit_code = 2


class SettingsError(Refused):
    """Settings are misspelt, missing or contradict each other."""


class AuthorityError(Refused):
    """No valid authority covers what was asked."""


class RoleError(Refused):
    """The role of the settings may not do what was asked."""


class KeyFileError(Refused):
    """The key file is missing, readable by others, or not the lake's."""


class PrivacyError(Refused):
    """A step would have let something through that must not pass."""


class LedgerError(SekishoError):
    """The ledger is broken, gone or does not verify: something happened to it."""
