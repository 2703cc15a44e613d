"""Automatic selection: which scored endpoints' records may be kept, by versioned rules.

Rules are data, a TOML file with a version, a reason and at least one `[[rule]]`. Whoever
stands on the list is selected whatever the rules say.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from telemetry.columns import Layer, schema
from telemetry.errors import SettingsError
from telemetry.records import Role
from telemetry.scoring.contract import Bools
from telemetry.scoring.scores import Scores

_Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_./-]{0,63}$")]


class Rule(BaseModel):
    """One rule; an endpoint meets it when all that it says holds, which is one thing at least.

    Attributes:
        name: Its name, which the selection keeps.
        listed: Whether the endpoint must stand on the list, or must not; None for either.
        min_score: Least score, 0..1; None for any.
        roles: Roles that it may have; empty for any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Name
    listed: bool | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    roles: list[Role] = []

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.listed is None and self.min_score is None and not self.roles:
            raise ValueError("a rule must say listed, min_score or roles")
        return self

    def met_by(self, scores: pa.Table) -> Bools:
        """Returns which rows of `Layer.SCORE` meet the rule."""
        met = np.ones(scores.num_rows, np.bool_)
        if self.listed is not None:
            met &= scores["listed"].to_numpy() == self.listed
        if self.min_score is not None:
            met &= scores["score"].to_numpy() >= self.min_score
        if self.roles:
            met &= pc.is_in(scores["role"], pa.array(self.roles)).to_numpy()
        return met


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: _Name
    reason: _Line
    rule: Annotated[list[Rule], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Rules:
    """A set of rules.

    Attributes:
        version: Its name.
        sha256: Hash of the file's bytes.
        rules: In the order in which they are asked; the first that is met names the endpoint.
    """

    version: str
    sha256: str
    rules: tuple[Rule, ...]


def read_rules(data: bytes) -> Rules:
    """Reads a file of rules.

    Args:
        data: Its bytes.

    Raises:
        SettingsError: It is not TOML, or says something else than rules.
    """
    try:
        file = _File.model_validate(tomllib.loads(data.decode("utf-8")))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file as a whole"
        raise SettingsError(
            f"The selection rules are wrong at {where}: {first['msg'].lower()}; correct them."
        ) from None
    except ValueError as error:
        raise SettingsError(
            f"The selection rules are not valid TOML: {error}; correct them."
        ) from None
    return Rules(file.version, hashlib.sha256(data).hexdigest(), tuple(file.rule))


LISTED = Rule(name="listed", listed=True)
"""What no file of rules can leave out: the list must not outlive its evidence."""


def select(endpoints: Scores, rules: Rules, now: datetime, until: datetime) -> pa.Table:
    """Selects endpoints.

    Args:
        endpoints: Scored endpoints, all or some of them.
        rules: The rules.
        now: The moment of selection, naive UTC.
        until: When their retention ends, naive UTC.

    Returns:
        Who is selected and by which rule, ordered by address as text; the columns of
        `Layer.SELECTION`. Equal input gives equal rows.
    """
    scores = endpoints.table
    asked = (*rules.rules, LISTED)
    first = np.select([rule.met_by(scores) for rule in asked], range(len(asked)), -1)
    chosen = scores["endpoint"].filter(pa.array(first >= 0))
    names = np.array([rule.name for rule in asked])[first[first >= 0]]
    same = {"since": now, "until": until, "rules": rules.version}
    columns = {name: [value] * len(names) for name, value in same.items()}
    table = pa.table({"endpoint": chosen, **columns, "rule": names}, schema=schema(Layer.SELECTION))
    return table.sort_by("endpoint")
