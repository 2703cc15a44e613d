"""What is read, from the tables by which it is read: for people, programs and the README."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, NamedTuple

from telemetry.readers import all_readers, wrapped
from telemetry.readers.archives import ABOUT_TAR, ABOUT_ZIP
from telemetry.readers.containers import CONTAINERS
from telemetry.readers.packets.link import LINKS, Sight
from telemetry.readers.packets.tunnel import ENCAPSULATIONS

_FROM = "<!-- what it reads: made by `make readme` -->"
_TO = "<!-- end -->"


class Readable(NamedTuple):
    """One thing that is read.

    Attributes:
        kind: What sort of thing.
        name: Its name in reports.
        about: What it is, in a few words.
    """

    kind: Literal["format", "container", "link type", "encapsulation"]
    name: str
    about: str


def readable() -> list[Readable]:
    """Returns every format, container, link type and encapsulation that is read."""
    links = {link.name: link.about for link in LINKS.values() if link.sight is Sight.READ}
    return [
        *(Readable("format", reader.name, reader.about) for reader in all_readers()),
        *(Readable("container", container.name, container.about) for container in CONTAINERS),
        Readable("container", "zip", ABOUT_ZIP),
        Readable("container", "tar", ABOUT_TAR),
        Readable("container", wrapped.NAME, wrapped.ABOUT),
        *(Readable("link type", name, about) for name, about in links.items()),
        *(Readable("encapsulation", name, about) for name, about in ENCAPSULATIONS.items()),
    ]


def names(kind: str) -> list[str]:
    """Returns the names of all that is read of one kind."""
    return [one.name for one in readable() if one.kind == kind]


def readme_table() -> str:
    """Returns the table of the README, in Markdown."""
    rows = ["| kind | read |", "|---|---|"]
    rows += [f"| `{reader.name}` | {reader.about} |" for reader in all_readers()]
    for kind in ("container", "link type", "encapsulation"):
        rows.append(f"| {kind}s | {', '.join(f'`{name}`' for name in names(kind))} |")
    return "\n".join(rows)


def with_table(text: str) -> str:
    """Returns the README's text with the table that is true now between its marks."""
    before, _, rest = text.partition(_FROM)
    _, _, after = rest.partition(_TO)
    return f"{before}{_FROM}\n\n{readme_table()}\n\n{_TO}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text()))
