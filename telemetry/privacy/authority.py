"""The authority: the approval under which a source may be ingested.

It is a small TOML file. When the overseer's public key is known, a sibling file
`NAME.toml.sig` must hold the Ed25519 signature of the file's bytes in base64.

Each basis is a provision of Japan's Act 42 of 2025 and bounds the directions that
may be named under it; a file that names more is refused, not narrowed:

    basis              provision   directions
    agreement          Arts 11-16  out_in, in_out, out_out (the party's own, across the border)
    out_out_measure    Arts 17-20  out_out
    specific_out_in    Art 32      out_in
    specific_in_out    Art 33      in_out
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from telemetry.errors import AuthorityError
from telemetry.privacy.signatures import verify_file
from telemetry.records import DIRECTIONS, Direction

Basis = Literal["agreement", "out_out_measure", "specific_out_in", "specific_in_out"]
FurtherPurpose = Literal["re_identification", "unselected_records"]
BASIS_DIRECTIONS: dict[Basis, tuple[Direction, ...]] = {
    "agreement": DIRECTIONS,
    "out_out_measure": ("out_out",),
    "specific_out_in": ("out_in",),
    "specific_in_out": ("in_out",),
}
DIRECTION_BITS: dict[Direction, int] = {"out_in": 1, "in_out": 2, "out_out": 4}


def instant(value: object) -> datetime:
    """Reads a TOML date (its first moment) or time stamp, as UTC when no zone is given."""
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise ValueError("must be a TOML date or time stamp, without quotes")


def _end(value: object) -> datetime:
    """Reads an end: a bare date is included to its last moment."""
    whole_day = isinstance(value, date) and not isinstance(value, datetime)
    try:
        return instant(value) + timedelta(days=1 if whole_day else 0)
    except OverflowError:
        raise ValueError("lies too far in the future; use an earlier year") from None


Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Sensor = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


Model = TypeVar("Model", bound=BaseModel)


class Terms(BaseModel):
    """What an authority file may say, and nothing else.

    Attributes:
        id: Name of the approval; every ledger entry of a run carries it.
        basis: Provision of the law it rests on.
        purpose: What the records may be used for, in words.
        further_purposes: Acts that are off unless they are named: `re_identification`
            (turn a pseudonym back into an address), `unselected_records` (look at records
            that were not selected).
        approver: Who approved it.
        sensors: Where sources may have been taken.
        directions: Directions of communication that may be kept.
        valid_from: First moment, UTC.
        valid_until: Moment from which it no longer holds; a bare date is included.
        retention_days: Days that selected records may be kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,63}$")]
    basis: Basis
    purpose: Line
    further_purposes: list[FurtherPurpose] = []
    approver: Line
    sensors: Annotated[list[Sensor], Field(min_length=1)]
    directions: Annotated[list[Direction], Field(min_length=1)]
    valid_from: Annotated[datetime, BeforeValidator(instant)]
    valid_until: Annotated[datetime, BeforeValidator(_end)]
    retention_days: Annotated[int, Field(ge=1, le=36500)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.valid_from >= self.valid_until:
            raise ValueError("valid_from must lie before valid_until")
        return self

    @model_validator(mode="after")
    def _within_the_basis(self) -> Self:
        allowed = BASIS_DIRECTIONS[self.basis]
        if set(self.directions) - set(allowed):
            raise ValueError(f"basis {self.basis} allows only directions {', '.join(allowed)}")
        return self


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority that was read, and whose signature holds if one was asked for.

    Attributes:
        terms: What the file says.
        sha256: Hash of the file's bytes.
        signed: Whether the overseer's signature was verified.
    """

    terms: Terms
    sha256: str
    signed: bool

    @classmethod
    def load(cls, path: Path, overseer_key: Path | None = None) -> Authority:
        """Reads an authority file.

        Args:
            path: The TOML file.
            overseer_key: Ed25519 public key (PEM); when given, the file must be signed.

        Raises:
            AuthorityError: The file is missing, says something else than an
                authority, or its signature is missing or wrong.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise AuthorityError(
                f"Cannot read the authority {path}: {error.strerror}; name the file of a valid "
                "approval with --authority."
            ) from None
        if overseer_key is not None:
            # The bytes that were verified are the bytes that are parsed.
            verify_file(path, data, overseer_key, f"The authority {path}")
        return cls(_parse(path, data), sha256(data).hexdigest(), overseer_key is not None)

    @property
    def id(self) -> str:
        """Name of the approval."""
        return self.terms.id

    @property
    def allowed_mask(self) -> int:
        """Directions that may be kept: OUT_IN=1, IN_OUT=2, OUT_OUT=4, added up."""
        return sum(DIRECTION_BITS[direction] for direction in set(self.terms.directions))

    def require(self, purpose: FurtherPurpose) -> None:
        """Refuses an act that the approval does not name among its further purposes.

        Raises:
            AuthorityError: It does not.
        """
        if purpose not in self.terms.further_purposes:
            raise AuthorityError(
                f"Authority {self.id} does not allow {purpose}; name one with --authority whose "
                "further_purposes do."
            )

    def check(self, sensor: str, now: datetime) -> None:
        """Refuses a sensor or a moment that the approval does not cover.

        Args:
            sensor: Where the source was taken.
            now: The moment of the act; without a zone it is taken as UTC.

        Raises:
            AuthorityError: The sensor is not named, or the approval has not
                begun or has ended.
        """
        moment, terms = instant(now), self.terms
        if sensor not in terms.sensors:
            raise AuthorityError(
                f"Authority {self.id} does not cover sensor '{sensor}'; it covers "
                f"{', '.join(terms.sensors)}: ask the approver for one that does."
            )
        if moment < terms.valid_from:
            raise AuthorityError(
                f"Authority {self.id} holds only from {_text(terms.valid_from)}; wait until then "
                "or name another."
            )
        if moment >= terms.valid_until:
            raise AuthorityError(
                f"Authority {self.id} ended at {_text(terms.valid_until)}; ask the approver to "
                "renew it."
            )


def _parse(path: Path, data: bytes) -> Terms:
    return parse_toml(Terms, data, f"The authority {path}")


def parse_toml(model: type[Model], data: bytes, what: str) -> Model:
    """Reads a closed TOML file of the overseer's.

    Args:
        model: What it may say.
        data: Its bytes.
        what: Its name at the beginning of a sentence.

    Raises:
        AuthorityError: It is not TOML, or says something else.
    """
    try:
        content = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise AuthorityError(f"{what} is not UTF-8 text; name another.") from None
    except tomllib.TOMLDecodeError as error:
        raise AuthorityError(f"{what} is not valid TOML: {error}; correct it.") from None
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file as a whole"
        reason = first["msg"].removeprefix("Value error, ")
        raise AuthorityError(
            f"{what} is wrong at {where}: {reason[:1].lower()}{reason[1:]}; correct it and have "
            "it approved again."
        ) from None


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
