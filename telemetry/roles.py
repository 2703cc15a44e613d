"""Roles: what whoever runs a command may do. Functions of the pipeline declare what they need.

    role       may
    operator   everything
    analyst    ask the catalog, write the report; and what an auditor may
    auditor    see the ledger, counters and settings; never a record, score or list

A role binds whoever works through Sekisho with given settings. What a person may do
with the files of a lake behind its back is for the file system to say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Literal, ParamSpec, TypeVar

from telemetry.errors import RoleError
from telemetry.settings import STRICTNESS, Role, Settings

Need = Literal["operation", "records", "counters"]
"""What an act needs: to change something, to see records, or to see counts alone."""
LEAST: dict[Need, Role] = {"operation": "operator", "records": "analyst", "counters": "auditor"}
"""The strictest role that may do what needs this."""

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")
_Act = Callable[Concatenate[Settings, _Given], _Answer]


def needs(need: Need) -> Callable[[_Act[_Given, _Answer]], _Act[_Given, _Answer]]:
    """Returns a decorator: a function of settings then refuses roles that may not do it.

    Args:
        need: What the function does.
    """

    def declare(act: _Act[_Given, _Answer]) -> _Act[_Given, _Answer]:
        @wraps(act)
        def guarded(settings: Settings, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Answer:
            check(settings.role, need)
            return act(settings, *args, **kwargs)

        guarded.__dict__["need"] = need
        return guarded

    return declare


def check(role: Role, need: Need) -> None:
    """Refuses what a role may not do.

    Raises:
        RoleError: It may not.
    """
    if STRICTNESS[role] > STRICTNESS[LEAST[need]]:
        raise RoleError(
            f"The role {role} may not do this; ask somebody whose settings have the role "
            f"{LEAST[need]}."
        )
