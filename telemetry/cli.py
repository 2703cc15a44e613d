"""The `sekisho` command. Heavy imports wait inside the functions: `--help` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from telemetry.errors import SekishoError, SettingsError, SourceError

if TYPE_CHECKING:
    from telemetry.records import IngestReport
    from telemetry.settings import Settings


def _version() -> str:
    from importlib.metadata import version

    return version("sekisho")


app = App(
    name="sekisho",
    help="Find foreign attack infrastructure in network telemetry, keeping no domestic "
    "communication and no content.",
    version=_version,
    suppress_keyboard_interrupt=False,  # told in `main`
    help_epilogue="Exit code 0: done. 1: a run failed. 2: wrong usage, or refused.",
)
audit = App(name="audit", help="Verify the ledger.")
homeland = App(name="homeland", help="Show and check what counts as domestic.")
authority = App(name="authority", help="Check approvals.")
keys = App(name="keys", help="Make pseudonym keys.")
samples = App(name="samples", help="List, fetch and make sample captures.")
for group in (audit, homeland, authority, keys, samples):
    app.command(group)


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Options that every command shares.

    Attributes:
        lake: Folder of the lake.
        config: Settings file; otherwise sekisho.toml of this folder, if there is one.
        country: Two-letter home country (default JP).
        home: Domestic prefix, repeatable; alone it replaces the country.
        sensor: Name of the place where the sources were taken.
        authority: File of the approval under which this is done.
        key: Pseudonym key file; otherwise beside the lake, its name with .key.
        decoder: Packet decoder.
        threshold: Score from which an endpoint is listed.
    """

    lake: Path | None = None
    config: Path | None = None
    country: str | None = None
    home: Annotated[tuple[str, ...], Parameter(negative_iterable=(), show_default=False)] = ()
    sensor: str | None = None
    authority: Path | None = None
    key: Path | None = None
    decoder: Literal["kernel", "dpkt"] | None = None
    threshold: float | None = None

    def settings(self) -> Settings:
        """Returns the settings with these options on top."""
        from telemetry.settings import load

        given = asdict(self)
        config = given.pop("config")
        given["key_file"] = given.pop("key")
        given["home"] = given["home"] or None
        return load(config, **given)


def _no_option(_: Any, words: str | tuple[str, ...]) -> None:
    """Refuses misspelt options, which would pass for sources; only `-` is one."""
    for word in (words,) if isinstance(words, str) else words:
        if word.startswith("-") and word != "-":
            raise ValueError(f"Unknown option: {word.partition('=')[0]}.")


DEFAULTS = Options()
Sources = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_no_option)]
Json = Annotated[bool, Parameter(negative=())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    try:
        app(
            arguments,
            exit_on_error=False,
            print_error=True,
            result_action="return_value",
        )
        print(end="", flush=True)
    except CycloptsError:
        return 2
    except SekishoError as error:
        print(f"sekisho: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, RuntimeError) as stop:
        # DuckDB tells of Ctrl-C in its own way.
        if isinstance(stop, RuntimeError) and "interrupted" not in str(stop).lower():
            raise
        print("sekisho: Stopped; nothing that was stored is lost.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _settle_stdout()
        return 1
    except OSError as error:
        _settle_stdout()
        why = error.strerror or "input/output error"
        print(f"sekisho: The system says: {why}; mend that and run again.", file=sys.stderr)
        return 1
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def _settle_stdout() -> None:
    """Sends what nobody takes any more nowhere, so that the interpreter's end is quiet."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command
def run(*sources: Sources, json: Json = False, options: Options = DEFAULTS) -> None:
    """Ingest sources, score every foreign endpoint, write the list and the report.

    Args:
        sources: Files, folders or - for standard input.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry import pipeline
    from telemetry.console import Console

    with Console(json) as console:
        report = pipeline.run(options.settings(), sources, console)
        console.ran(report)
    _fail_if_refused(report.ingest)


@app.command
def ingest(*sources: Sources, json: Json = False, options: Options = DEFAULTS) -> None:
    """Read sources into the lake; each is read once, whatever its name.

    Args:
        sources: Files, folders or - for standard input.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry import pipeline
    from telemetry.console import Console

    with Console(json) as console:
        report = pipeline.ingest(options.settings(), sources, console)
        console.ingested(report)
    _fail_if_refused(report)


def _fail_if_refused(report: IngestReport) -> None:
    from telemetry.pipeline import failure

    if sentence := failure(report):
        raise SourceError(sentence)


@app.command
def score(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Score every endpoint in the lake.

    Args:
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry import pipeline
    from telemetry.console import Console

    with Console(json) as console:
        console.scored(pipeline.score(options.settings(), console))


@app.command(name="list")
def list_(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Write the list of attack infrastructure from the newest scores.

    Args:
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry import pipeline
    from telemetry.console import Console

    if options.threshold is not None:
        raise SettingsError("The list follows the scores; give --threshold to `sekisho score`.")
    with Console(json) as console:
        console.listed(*pipeline.make_list(options.settings(), console))


@app.command
def report(*, options: Options = DEFAULTS) -> None:
    """Write the HTML report of the newest scores.

    Args:
        options: Shared options.
    """
    from telemetry import pipeline

    print(pipeline.make_report(options.settings()))


@app.command
def query(sql: str, *, json: Json = False, options: Options = DEFAULTS) -> None:
    """Ask the catalog in SQL, read-only.

    Args:
        sql: One query, such as "SELECT * FROM scores LIMIT 10".
        json: Answer in JSON Lines.
        options: Shared options.
    """
    from telemetry.console import print_table
    from telemetry.lake import query as ask

    print_table(ask(options.settings().lake, sql), json)


@audit.command
def verify(
    *,
    anchor: str | None = None,
    public_key: Path | None = None,
    json: Json = False,
    options: Options = DEFAULTS,
) -> None:
    """Check that no entry of the ledger was changed, removed or reordered.

    Args:
        anchor: Head hash noted earlier; it must still be in the chain.
        public_key: Ed25519 public key (PEM) that the entries are signed with.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_facts
    from telemetry.pipeline import verify_ledger

    result = verify_ledger(options.settings(), public_key, anchor)
    end = "" if result.anchored else " Entries cut off at its end show only against an --anchor."
    print_facts(f"The ledger is whole.{end}", asdict(result), json)


@homeland.command
def show(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Show which tables say what is domestic.

    Args:
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_facts
    from telemetry.pipeline import load_homeland

    print_facts("Homeland", load_homeland(options.settings()).describe(), json)


@homeland.command(name="check")
def check_address(address: str, *, json: Json = False, options: Options = DEFAULTS) -> None:
    """Say how an address is classed.

    Args:
        address: IPv4 or IPv6 address.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_facts
    from telemetry.homeland import NAMES
    from telemetry.pipeline import load_homeland

    kind = NAMES[load_homeland(options.settings()).class_of_text(address)]
    print_facts("Class", {"address": address, "class": kind}, json)


@authority.command(name="check")
def check_authority(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Say whether the authority covers a run now.

    Args:
        json: Answer in JSON.
        options: Shared options.
    """
    from datetime import UTC, datetime

    from telemetry.console import print_facts
    from telemetry.privacy import Authority

    settings = options.settings()
    found = Authority.load(settings.authority, settings.overseer_key)
    found.check(settings.sensor, datetime.now(UTC))
    facts = {"id": found.id, "sha256": found.sha256, "sensor": settings.sensor}
    print_facts("The authority covers a run now.", facts, json)


@keys.command
def new(path: Path) -> None:
    """Make a pseudonym key, readable by its owner alone.

    Args:
        path: Where to write it; outside the lake, backed up, never published.
    """
    from telemetry.privacy import Keys

    print(f"Key {Keys.create(path).key_id} written to {path}.")


@samples.command(name="list")
def list_samples(*, json: Json = False) -> None:
    """List public captures that can be fetched.

    Args:
        json: Answer in JSON Lines.
    """
    import pyarrow as pa

    from telemetry.console import print_table
    from telemetry.samples import public_list

    print_table(pa.Table.from_pylist([asdict(row) for row in public_list()]), json)


@samples.command
def fetch(folder: Path, *names: str, mirror: Path | None = None) -> None:
    """Download public captures and verify their hashes.

    Args:
        folder: Where they go.
        names: Which; all when none is named.
        mirror: Take them from a local folder laid out alike, not from the internet.
    """
    from telemetry.samples import fetch as get

    for path in get(folder, mirror, names):
        print(path)


@samples.command
def make(folder: Path, *, seed: int = 20261123) -> None:
    """Make labelled sample captures.

    Args:
        folder: Where they go.
        seed: Equal seeds make equal bytes.
    """
    from telemetry.samples import make as build

    for path in build(folder, seed):
        print(path)


@app.command
def doctor(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Say whether this installation can work, and what it reads.

    Args:
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_facts
    from telemetry.pipeline import examine

    print_facts("Sekisho", examine(options.settings()), json)


if __name__ == "__main__":
    raise SystemExit(main())
