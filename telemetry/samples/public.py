"""Public captures: the list of them, and how a user obtains them.

`fetch` is the only function of the project that would open a connection, and only on
the user's explicit command. Every file is checked against its size and SHA-256 before
it is written.
"""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from telemetry.errors import SettingsError, SourceError
from telemetry.settings import ASSETS

LIST = ASSETS / "data" / "samples" / "public.csv"
GITHUB = "https://raw.githubusercontent.com"
TIMEOUT = 60.0
"""Seconds without an answer after which a download is given up."""
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Form(StrEnum):
    """How a mirror keeps a file."""

    AS_PUBLISHED = "as_published"
    GZIP = "gzip"  # compressed, otherwise as published
    MIRROR_ONLY = "mirror_only"  # packets cut or rows selected: cannot be downloaded


@dataclass(frozen=True, slots=True)
class PublicSample:
    """One row of `public.csv`.

    Attributes:
        repository: Owner and name at GitHub.
        commit: The commit that holds the file.
        path: Path in the repository.
        sha256: Of the file as published (of the mirror's copy when `mirror_only`).
        bytes: Size of the same.
        licence: As stated in the repository.
        what: One line about it.
        home_prefixes: What counts as domestic in it, separated by `;`.
        corpus_path: Where a mirror keeps it.
        form: How a mirror keeps it.
    """

    repository: str
    commit: str
    path: str
    sha256: str
    bytes: int
    licence: str
    what: str
    home_prefixes: str
    corpus_path: str
    form: Form

    @property
    def target(self) -> PurePosixPath:
        """Where `fetch` puts it below its folder: a gzip copy is stored unpacked."""
        path = PurePosixPath(self.corpus_path)
        return path.with_suffix("") if self.form is Form.GZIP else path

    def is_named(self, name: str) -> bool:
        """Whether a name means this row: its path, a folder above it, or its data set."""
        path = PurePosixPath(self.corpus_path)
        wanted = PurePosixPath(name)
        return wanted in (path, self.target, *path.parents) or name == path.parts[1]


def public_list(path: Path = LIST) -> list[PublicSample]:
    """Returns the public captures, in the order of the list.

    Raises:
        SourceError: The list is missing or a row of it is broken.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_row(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"The list of public samples cannot be read ({type(error).__name__}); "
            "restore data/samples/public.csv."
        ) from None


def _row(row: dict[str, str]) -> PublicSample:
    return PublicSample(
        repository=row["repository"],
        commit=row["commit"],
        path=row["path"],
        sha256=row["sha256"],
        bytes=int(row["bytes"]),
        licence=row["licence"],
        what=row["what"],
        home_prefixes=row["home_prefixes"],
        corpus_path=row["corpus_path"],
        form=Form(row["form"]),
    )


def fetch(
    folder: Path,
    mirror: Path | None = None,
    names: Sequence[str] = (),
    base_url: str = GITHUB,
) -> list[Path]:
    """Obtains public captures and verifies them.

    A file that is there already and verifies is left alone. Nothing is written of a
    file that does not verify.

    Args:
        folder: Where to write; the files keep the mirror's layout below it.
        mirror: Local folder to copy from; without it the files are downloaded.
        names: Which to obtain: paths, folders or data sets of the list. Without names,
            all that can be had.
        base_url: Where downloads start; HTTPS, or HTTP on this very machine.

    Returns:
        The files that stand in the folder now, one for each row.

    Raises:
        SettingsError: A name is not on the list, or the URL is not HTTPS.
        SourceError: A file is missing, cannot be had or does not verify.
    """
    _check_url(base_url)
    return [_obtain(row, folder, mirror, base_url) for row in _chosen(names, mirror is None)]


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise SettingsError("Public samples are downloaded over HTTPS only; correct the URL.")


def _chosen(names: Sequence[str], download: bool) -> list[PublicSample]:
    rows = public_list()
    for name in names:
        if not any(row.is_named(name) for row in rows):
            raise SettingsError(f"No public sample is called {name}; see 'sekisho samples list'.")
    if names:
        return [row for row in rows if any(row.is_named(name) for name in names)]
    return [row for row in rows if not download or row.form is not Form.MIRROR_ONLY]


def _obtain(row: PublicSample, folder: Path, mirror: Path | None, base_url: str) -> Path:
    target = folder / row.target
    if target.is_file() and target.stat().st_size == row.bytes and _holds(row, target.read_bytes()):
        return target
    data = _download(row, base_url) if mirror is None else _copy(row, mirror)
    if not _holds(row, data):
        raise SourceError(
            f"{row.corpus_path} is not the file the list names (size or SHA-256 differ); "
            "nothing was written, obtain it from another mirror."
        )
    _write_aside(target, data)
    return target


def _holds(row: PublicSample, data: bytes) -> bool:
    return len(data) == row.bytes and sha256(data).hexdigest() == row.sha256


def _copy(row: PublicSample, mirror: Path) -> bytes:
    try:
        with (mirror / row.corpus_path).open("rb") as raw:
            if row.form is not Form.GZIP:
                return raw.read(row.bytes + 1)
            with gzip.GzipFile(fileobj=raw) as file:
                return file.read(row.bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(
            f"{row.corpus_path} cannot be read from the mirror ({type(error).__name__}); "
            "check --mirror."
        ) from None


class _NoRedirect(HTTPRedirectHandler):
    """Refuses to be sent elsewhere: the list names the only place."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Returns no new request, so that the redirection is an error."""


def _download(row: PublicSample, base_url: str) -> bytes:
    if row.form is Form.MIRROR_ONLY:
        raise SourceError(
            f"{row.corpus_path} differs from what its repository publishes; "
            "take it from a mirror with --mirror."
        )
    url = f"{base_url}/{row.repository}/{row.commit}/{quote(row.path)}"
    try:
        with build_opener(_NoRedirect).open(Request(url), timeout=TIMEOUT) as answer:
            data: bytes = answer.read(row.bytes + 1)
    except (URLError, OSError, HTTPException) as error:
        raise SourceError(
            f"{row.corpus_path} cannot be downloaded ({type(error).__name__}); "
            "try again later or use --mirror."
        ) from None
    return data


def _write_aside(target: Path, data: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise SourceError(
            f"{target} cannot be written ({error.strerror}); choose another folder."
        ) from None
