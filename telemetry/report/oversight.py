"""What overseers count themselves: the file that they keep, in TOML.

Article 61(2) of Act 42 of 2025 says what the yearly report to the Diet must hold: the
requests for approval and the approvals under Articles 17(1), 19(1), 32(1) and 33(1), and
19(1) as Articles 32(2) and 33(2) apply it; the results of inspections in outline (Article
63(1) and (2)); notices (66(1)), demands (67(1)) and recommendations (68), with outlines.
A lake knows none of it.
"""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from telemetry.errors import SettingsError

Count = Annotated[int, Field(ge=0)]
Outline = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]

ARTICLES = (
    "article_17",
    "article_19",
    "article_32",
    "article_32_19",
    "article_33",
    "article_33_19",
)
"""Under which approval is asked for; `article_32_19` is 19(1) as 32(2) applies it."""
OUTLINED = ("inspections", "notices", "demands", "recommendations")
"""What is told in outline, one text each."""


class Proceedings(BaseModel):
    """Requests for approval and approvals under one article."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    requests: Count
    approvals: Count


class Oversight(BaseModel):
    """What the file may say; what is left out is "not recorded".

    Attributes:
        period_from: First day that the counts are about.
        period_until: Last day.
        article_17: Out-out measure, Article 17(1); so on for `ARTICLES`.
        inspections: Results of each inspection, in outline.
        notices: Each notice, in outline; so on for `OUTLINED`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    period_from: date | None = None
    period_until: date | None = None
    article_17: Proceedings | None = None
    article_19: Proceedings | None = None
    article_32: Proceedings | None = None
    article_32_19: Proceedings | None = None
    article_33: Proceedings | None = None
    article_33_19: Proceedings | None = None
    inspections: list[Outline] | None = None
    notices: list[Outline] | None = None
    demands: list[Outline] | None = None
    recommendations: list[Outline] | None = None

    def under(self, article: str) -> Proceedings | None:
        """Returns what was asked for and approved under one of `ARTICLES`."""
        found: Proceedings | None = getattr(self, article)
        return found

    def outlines(self, kind: str) -> list[str] | None:
        """Returns the outlines of one of `OUTLINED`."""
        found: list[str] | None = getattr(self, kind)
        return found


def read_oversight(path: Path) -> Oversight:
    """Reads the overseers' file.

    Raises:
        SettingsError: It cannot be read, is not TOML, or says something else.
    """
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8"))
        return Oversight.model_validate(content)
    except OSError as error:
        raise SettingsError(
            f"Cannot read the oversight file {path}: {error.strerror}; check --oversight."
        ) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"The oversight file {path} is wrong at {where}: {first['msg'].lower()}; correct it."
        ) from None
    except ValueError:
        raise SettingsError(f"The oversight file {path} is not valid TOML; correct it.") from None
