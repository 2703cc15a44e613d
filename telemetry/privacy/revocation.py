"""The revocation list: approvals that were taken back before they end.

It is a TOML file that the overseer keeps, signed like an authority when the
overseer's public key is known. An entry names an authority by its id (all files
of that id) or by the SHA-256 of one file, or both:

    [[revoked]]
    id = "ACD-2026/17"
    from = 2026-05-01T00:00:00Z
    reason = "the agreement was ended"

The list is read again at every check, so that it stops a run that is under way.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from telemetry.errors import AuthorityError
from telemetry.privacy.authority import Authority, Line, instant, parse_toml
from telemetry.privacy.signatures import verify_file


class Revocation(BaseModel):
    """One approval that was taken back.

    Attributes:
        id: Its name; None when only one file is meant.
        sha256: Hash of its file; None when all files of the name are meant.
        since: First moment, UTC, at which it no longer holds.
        reason: Why, in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Line | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    since: Annotated[datetime, BeforeValidator(instant), Field(alias="from")]
    reason: Line

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.id is None and self.sha256 is None:
            raise ValueError("name the authority by id, sha256 or both")
        return self

    def meets(self, authority: Authority) -> bool:
        """Whether it takes this authority back."""
        return self.id in (None, authority.id) and self.sha256 in (None, authority.sha256)


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    revoked: list[Revocation] = []


def check_not_revoked(
    authority: Authority, now: datetime, path: Path, overseer_key: Path | None
) -> None:
    """Refuses an authority that the list takes back.

    Args:
        authority: What is asked for.
        now: The moment of the act; without a zone it is taken as UTC.
        path: The revocation list.
        overseer_key: Ed25519 public key (PEM); when given, the list must be signed.

    Raises:
        AuthorityError: It is revoked; or the list is missing, unsigned or wrong, so that
            nobody can know whether it is.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AuthorityError(
            f"Cannot read the revocation list {path}: {error.strerror}; put it back, or correct "
            "the setting 'revocations'."
        ) from None
    what = f"The revocation list {path}"
    if overseer_key is not None:
        verify_file(path, data, overseer_key, what)
    for revocation in parse_toml(_List, data, what).revoked:
        if revocation.meets(authority) and instant(now) >= revocation.since:
            raise AuthorityError(
                f"Authority {authority.id} was revoked from {revocation.since:%Y-%m-%dT%H:%M:%SZ}: "
                f"{revocation.reason}; ask the approver for another."
            )
