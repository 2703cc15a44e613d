"""Settings: defaults, then a TOML file, then SEKISHO_ environment variables, then options.

A misspelt key is an error in each of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from telemetry.errors import SettingsError
from telemetry.memory import DEFAULT, Budget, budget

_HERE = Path(__file__).resolve().parent
ASSETS = _HERE.parent if (_HERE.parent / "sql").is_dir() else _HERE / "_assets"
"""Folder that holds sql/, models/ and data/: the checkout, or the installed package."""
DEFAULT_CONFIG = Path("sekisho.toml")
Role = Literal["operator", "analyst", "auditor"]
STRICTNESS: dict[Role, int] = {"operator": 0, "analyst": 1, "auditor": 2}
"""The stricter a role, the less it may: each may do what a stricter one may."""


class Settings(BaseSettings):
    """Everything a run can be told.

    Attributes:
        role: What whoever runs this may do; the strictest that any source names.
        lake: Folder of the lake.
        country: Two-letter home country; None when `home` alone says what is domestic.
        home: Further domestic prefixes; in the environment parted by commas.
        homeland: Table that `homeland refresh` made; None means the one that is shipped.
        home_policy: Whose word counts when the table's sources disagree.
        sensor: Name of the place where the sources were taken.
        authority: TOML file of the approval under which the run is made.
        overseer_key: Ed25519 public key (PEM); when set, authorities and revocations must
            be signed.
        revocations: TOML file of the authorities that were taken back, if any.
        key_file: Pseudonym key; None means beside the lake, `<lake>.key`.
        pseudonyms: How domestic addresses are encrypted; the lake has one kind for ever.
        link_epochs: Whether a host keeps its pseudonym from month to month.
        reidentify_hours: Hours for which a re-identified address may be used.
        ledger_key: Ed25519 private key (PEM) that signs ledger entries, if any.
        oversight: TOML file of what overseers count themselves, for their report.
        memory: Memory that a run may take, such as `1GB`.
        decoder: Packet decoder; `dpkt` is the slow reference.
        captures: Whether captures hold `traffic` or flow `exports`; `auto` lets each tell.
        mapping: TOML file that says which column of a table of records means what.
        threshold: Score from which an endpoint is listed.
        list_days: Days until an entry of a list expires.
        selection_rules: TOML file of the rules of automatic selection; None means the shipped
            ones. When `overseer_key` is set, a file named here must be signed.
        quarantine_days: Days until records that were not selected are erased.
    """

    model_config = SettingsConfigDict(env_prefix="SEKISHO_", extra="forbid", frozen=True)

    role: Role = "operator"
    lake: Path = Path("lake")
    country: str | None = "JP"
    home: Annotated[tuple[str, ...], NoDecode] = ()
    homeland: Path | None = None
    home_policy: Literal["any", "majority", "primary"] = "any"
    sensor: str = Field(default="sample", pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    authority: Path = ASSETS / "data" / "samples" / "authority.toml"
    overseer_key: Path | None = None
    revocations: Path | None = None
    key_file: Path | None = None
    pseudonyms: Literal["deterministic", "prefix", "cryptopan"] = "deterministic"
    link_epochs: bool = False
    reidentify_hours: int = Field(default=24, ge=1, le=720)
    ledger_key: Path | None = None
    oversight: Path | None = None
    memory: str = DEFAULT
    decoder: Literal["kernel", "dpkt"] = "kernel"
    captures: Literal["auto", "traffic", "exports"] = "auto"
    mapping: Path | None = None
    threshold: float = Field(default=0.6, ge=0.0, le=1.0)
    list_days: int = Field(default=14, ge=1, le=365)
    selection_rules: Path | None = None
    quarantine_days: int = Field(default=30, ge=1, le=3650)

    @property
    def key_path(self) -> Path:
        """Where the pseudonym key is: outside the lake, always."""
        return self.key_file or self.beside(".key")

    @property
    def pseudonym_kind(self) -> str:
        """What a lake must have been made with to be added to."""
        return f"{self.pseudonyms}{', linked' if self.link_epochs else ''}"

    def beside(self, suffix: str) -> Path:
        """Returns the path beside the lake that has its name and a suffix.

        Raises:
            SettingsError: The lake is the root folder, which has nothing beside it.
        """
        lake = self.lake if self.lake.name not in ("", "..") else self.lake.resolve()
        if not lake.name:
            raise SettingsError("The root folder cannot be a lake; give another --lake.")
        return lake.with_name(lake.name + suffix)

    @property
    def budget(self) -> Budget:
        """What each part of a run gets of the memory."""
        return budget(self.memory)

    @field_validator("memory")
    @classmethod
    def _enough(cls, value: str) -> str:
        budget(value)
        return value

    @field_validator("lake")
    @classmethod
    def _folder(cls, value: Path) -> Path:
        if value.exists() and not value.is_dir():
            raise ValueError(f"{value} is a file, not the folder of a lake; name another")
        return value

    @field_validator("home", mode="before")
    @classmethod
    def _prefixes(cls, value: Any) -> Any:
        """Reads the one line that an environment variable can hold."""
        return value.replace(",", " ").split() if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _home_alone(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Prefixes without a country replace it, wherever they stand."""
        return {"country": None} | given if given.get("home") else given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Orders the sources: options, environment, file; the strictest role of them counts."""
        ordered = (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))
        return (_StrictestRole(settings_cls, ordered), *ordered)


class _StrictestRole(PydanticBaseSettingsSource):
    """Takes the role from whichever source names the strictest: none can raise another's."""

    def __init__(
        self, settings_cls: type[BaseSettings], sources: Sequence[PydanticBaseSettingsSource]
    ) -> None:
        super().__init__(settings_cls)
        self._sources = sources

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not asked: `__call__` gives the one value there is."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Returns the role, or a value that is none, which is then refused."""
        named = [found["role"] for source in self._sources if "role" in (found := source())]
        wrong = [role for role in named if not isinstance(role, str) or role not in STRICTNESS]
        role = wrong[0] if wrong else max(named, key=STRICTNESS.__getitem__, default=None)
        return {} if role is None else {"role": role}


def load(config: Path | None = None, **options: Any) -> Settings:
    """Reads the settings.

    Args:
        config: TOML file; without it `sekisho.toml` of the working folder, if there is one.
        **options: Values given on the command line; None means not given. `home`
            without `country` replaces the country.

    Raises:
        SettingsError: The file is missing or not TOML, or a key or value is wrong.
    """
    if config is not None and not config.is_file():
        raise SettingsError(f"No settings file at {config}; check --config.")
    given = {key: value for key, value in options.items() if value is not None}
    if given.get("home") and "country" not in given:
        given["country"] = None
    _refuse_unknown_environment()
    path = config or DEFAULT_CONFIG

    class _Settings(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return _Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(Settings.model_fields)
            raise SettingsError(f"There is no setting '{where}'; there are {known}.") from None
        own = first.get("ctx", {}).get("error")
        why = str(own) if isinstance(own, ValueError) else first["msg"].lower()
        raise SettingsError(
            f"Setting '{where}': {why}; correct it in the options, the "
            "environment or the settings file."
        ) from None
    except ValueError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}; correct it.") from None
    except OSError as error:
        raise SettingsError(
            f"Cannot read the settings file {path}: {error.strerror}; check its owner and mode."
        ) from None


def _refuse_unknown_environment() -> None:
    known = {f"SEKISHO_{name}".upper() for name in Settings.model_fields} | {"SEKISHO_CORPUS"}
    for name in os.environ:
        if name.startswith("SEKISHO_") and name not in known:
            raise SettingsError(f"Environment variable {name} is not a setting; remove or mend it.")
