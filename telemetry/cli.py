"""The `sekisho` command. Heavy imports wait inside the functions: `--help` is quick."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

from telemetry.errors import LakeError, LedgerError, SekishoError, SettingsError, SourceError

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
    help_epilogue="Exit code 0: done. 1: a run failed. 2: wrong usage, or refused. 130: stopped.",
)
audit = App(name="audit", help="Verify, export and report the ledger; measure leakage; find leaks.")
homeland = App(name="homeland", help="Show, check and refresh what counts as domestic.")
authority = App(name="authority", help="Check and sign approvals.")
keys = App(name="keys", help="Make, show, rotate and destroy pseudonym keys.")
retention = App(name="retention", help="Show and erase what may stay no longer.")
model = App(name="model", help="Measure what the scores are worth.")
samples = App(name="samples", help="List, fetch and make sample captures; list what is read.")
for group in (audit, homeland, authority, keys, retention, model, samples):
    app.command(group)


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Options that every command shares.

    Attributes:
        lake: Folder of the lake.
        role: What you may do; an option can take from the settings' role, never add to it.
        config: Settings file; otherwise sekisho.toml of this folder, if there is one.
        country: Two-letter home country (default JP).
        home: Domestic prefix, repeatable; alone it replaces the country.
        homeland: Table that `homeland refresh` made; otherwise the one that is shipped.
        home_policy: Whose word counts when the table's sources disagree.
        sensor: Name of the place where the sources were taken.
        authority: File of the approval under which this is done.
        key: Pseudonym key file; otherwise beside the lake, its name with .key.
        oversight: File of what overseers count themselves, for `audit report`.
        memory: Memory that a run may take, such as 800MB or 4GB (default 1GB).
        decoder: Packet decoder.
        captures: Whether captures hold traffic, or exports of flow records; auto looks.
        mapping: File that says which column of a table of records means what.
        threshold: Score from which an endpoint is listed.
    """

    lake: Path | None = None
    role: Literal["operator", "analyst", "auditor"] | None = None
    config: Path | None = None
    country: str | None = None
    home: Annotated[tuple[str, ...], Parameter(negative_iterable=(), show_default=False)] = ()
    homeland: Path | None = None
    home_policy: Literal["any", "majority", "primary"] | None = None
    sensor: str | None = None
    authority: Path | None = None
    key: Path | None = None
    oversight: Path | None = None
    memory: str | None = None
    decoder: Literal["kernel", "dpkt"] | None = None
    captures: Literal["auto", "traffic", "exports"] | None = None
    mapping: Path | None = None
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
            from difflib import get_close_matches

            given = word.partition("=")[0]
            known = ["--json", *(f"--{f.name.replace('_', '-')}" for f in fields(Options))]
            near = get_close_matches(given, known, 1)
            hint = f"you may mean {near[0]}." if near else "--help names those there are."
            raise SettingsError(f"Unknown option: {given}; {hint}")


DEFAULTS = Options()
STOP_AGAIN = 0.5  # seconds
STOPPED = 128 + signal.SIGINT  # as shells tell of a process that the signal ended
Sources = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_no_option)]
Json = Annotated[bool, Parameter(negative=())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return stoppable(lambda: _answer(arguments))


def stoppable(run: Callable[[], int]) -> int:
    """Runs a command that Ctrl-C stops with a sentence; returns the exit code."""
    interrupted = False

    def interrupt(*_: Any) -> None:
        nonlocal interrupted
        interrupted = True
        # A library that is called at that moment may swallow it: say it until it is heard.
        signal.setitimer(signal.ITIMER_REAL, STOP_AGAIN)
        raise KeyboardInterrupt

    with suppress(ValueError):  # not the main thread: no Ctrl-C comes here
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGALRM, interrupt)
            signal.signal(signal.SIGINT, interrupt)
    try:
        return run()
    except (KeyboardInterrupt, RuntimeError, SystemError) as stop:
        # Compiled code that Ctrl-C meets tells of it in its own way.
        if not (interrupted or isinstance(stop, KeyboardInterrupt)):
            raise
        print(
            "sekisho: Stopped; nothing that was stored is lost. Run it again for the rest.",
            file=sys.stderr,
        )
        return STOPPED
    finally:
        if interrupted:
            signal.setitimer(signal.ITIMER_REAL, 0)


def command() -> NoReturn:
    """Runs the command as the whole of a process."""
    # Most of what is made here lives to the end: searching it for garbage is time lost.
    gc.set_threshold(100_000)
    # Arrow's own pool keeps what tables of one size took from those of another.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    leave(main())


def leave(code: int) -> NoReturn:
    """Ends the process at once."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:  # whoever starts us may have closed it
                stream.flush()
    # Everything is closed. To take compiled code and libraries down one by one is half a second.
    os._exit(code)


def _answer(arguments: Sequence[str] | None) -> int:
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
        sources: Files, folders, quoted patterns, zip and tar files, or - for standard input.
        json: Answer in JSON.
        options: Shared options.
    """
    settings = options.settings()
    _load_kernels()
    from telemetry import pipeline
    from telemetry.console import Console

    with Console(json) as console:
        report = pipeline.run(settings, sources, console)
        console.ran(report)
    _fail_if_refused(report.ingest)


@app.command
def ingest(*sources: Sources, json: Json = False, options: Options = DEFAULTS) -> None:
    """Read sources into the lake; each is read once, whatever its name.

    Args:
        sources: Files, folders, quoted patterns, zip and tar files, or - for standard input.
        json: Answer in JSON.
        options: Shared options.
    """
    settings = options.settings()
    _load_kernels()
    from telemetry import pipeline
    from telemetry.console import Console

    with Console(json) as console:
        report = pipeline.ingest(settings, sources, console)
        console.ingested(report)
    _fail_if_refused(report)


def _load_kernels() -> None:
    """Loads numba as if there was no BLAS, which takes 0.2 s; no kernel multiplies matrices.

    numba 0.68 asks SciPy for it as this module is imported. Without it `np.dot` and the like do
    not compile; SciPy itself is as ever afterwards.
    """
    blas = "scipy.linalg.cython_blas"
    if blas not in sys.modules:
        sys.modules[blas] = None  # type: ignore[assignment]  # what cannot be imported
        try:
            importlib.import_module("numba.np.arraymath")
        finally:
            del sys.modules[blas]


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

    _follows_scores("list", options)
    with Console(json) as console:
        console.listed(*pipeline.make_list(options.settings(), console))


def _follows_scores(what: str, options: Options) -> None:
    """Refuses a threshold where what was scored under another is told."""
    if options.threshold is not None:
        raise SettingsError(f"The {what} follows the scores; give --threshold to `sekisho score`.")


@app.command
def report(*, options: Options = DEFAULTS) -> None:
    """Write the HTML report of the newest scores.

    Args:
        options: Shared options.
    """
    from telemetry import pipeline

    _follows_scores("report", options)
    print(pipeline.make_report(options.settings()))


@app.command
def query(
    sql: str,
    *,
    unselected: Annotated[bool, Parameter(negative=())] = False,
    reason: str | None = None,
    json: Json = False,
    options: Options = DEFAULTS,
) -> None:
    """Ask the catalog in SQL, read-only, about selected endpoints.

    Args:
        sql: One query, such as "SELECT * FROM scores LIMIT 10".
        unselected: See records of endpoints that are not selected too, if the authority
            allows it; the ledger tells of it.
        reason: Why they must be seen; it is kept in the ledger, so name no address.
        json: Answer in JSON Lines.
        options: Shared options.
    """
    from telemetry import pipeline
    from telemetry.console import print_table

    if unselected != bool(reason and reason.strip()):
        raise SettingsError("--unselected and --reason go together; give both or none.")
    answer = pipeline.query(options.settings(), sql, reason if unselected else None)
    print_table(answer, json)
    if not answer.num_rows and not unselected:
        print(
            "No rows. What there is of endpoints that are not selected is kept apart and never "
            "among them (README, What is selected).",
            file=sys.stderr,
        )


@app.command
def explain(endpoint: str, *, json: Json = False, options: Options = DEFAULTS) -> None:
    """Show all that is known of one selected endpoint: score, reasons, services, course.

    Args:
        endpoint: Its address.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry import pipeline
    from telemetry.console import print_case

    _follows_scores("case", options)
    print_case(pipeline.explain(options.settings(), endpoint), json)


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
        anchor: N:HASH, as an earlier check printed it; that entry must still be there.
        public_key: Ed25519 public key (PEM) that the entries are signed with.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_facts
    from telemetry.pipeline import verify_ledger

    result = verify_ledger(options.settings(), public_key, anchor)
    end = "" if result.anchored else " Keep its anchor elsewhere, and give it with --anchor."
    print_facts(f"The ledger is whole.{end}", asdict(result), json)


@audit.command(name="export")
def export_ledger(
    *,
    verifier: Annotated[bool, Parameter(negative=())] = False,
    schema: Annotated[bool, Parameter(negative=())] = False,
    options: Options = DEFAULTS,
) -> None:
    """Print the ledger in JSON Lines, each entry verified.

    Args:
        verifier: Print the program that checks a ledger without Sekisho instead.
        schema: Print the JSON Schema of an entry instead.
        options: Shared options.
    """
    from telemetry.pipeline import export_ledger as lines
    from telemetry.settings import ASSETS

    if verifier or schema:
        name = "verify_ledger.py" if verifier else "ledger.schema.json"
        print((ASSETS / "data" / name).read_text(encoding="utf-8"), end="")
        return
    for line in lines(options.settings()):
        print(line.decode("utf-8"), end="")


@audit.command(name="report")
def overseers_report(
    *,
    html: Path | None = None,
    lang: Literal["en", "ja"] = "en",
    json: Json = False,
    options: Options = DEFAULTS,
) -> None:
    """Report to the overseers: their counters and ours, from ledger and lake, and if they agree.

    No record is looked at. Exit code 1 when ledger and lake differ in any number.

    Args:
        html: Write the report as one HTML page.
        lang: Language of the page and of what is printed.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_account, print_facts
    from telemetry.pipeline import audit_report

    made = audit_report(options.settings(), html, lang)
    if json:
        print_facts("", made.facts, json)
    elif html is not None:
        print(html)
    else:
        print_account(made, lang)
    if different := len(made.account.differences):
        raise LedgerError(
            f"Ledger and lake differ in {different} numbers, so trust none of them; if a run was "
            "killed, run again, and otherwise keep both as evidence."
        )


@audit.command
def leakage(
    *sources: Sources,
    against: Path,
    confidence: float = 0.95,
    json: Json = False,
    options: Options = DEFAULTS,
) -> None:
    """Measure what is kept though a second opinion calls it domestic, and the reverse.

    Sources are read and judged twice, and nothing is stored. Without sources, the records of
    the lake are judged again; what was dropped is not there to be judged.

    Args:
        sources: Files, folders or - for standard input.
        against: Another homeland table, or a CSV file of `address,domestic|foreign`.
        confidence: Of the one-sided upper bounds (Clopper-Pearson).
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry import pipeline
    from telemetry.console import Console, print_facts

    if not 0 < confidence < 1:
        raise SettingsError("A confidence lies between 0 and 1; give one such as 0.95.")
    with Console(json) as console:
        answer = pipeline.leakage(
            options.settings(), sources, against, console, confidence=confidence
        )
    if not json:
        table = answer.pop("ours_by_theirs")
        for ours, row in table.items():
            told = [f"{theirs} {number:,}" for theirs, number in row.items() if number]
            answer[f"ours {ours}"] = f"theirs: {', '.join(told) or 'none'}"
        answer = {name: "cannot be told" if v is None else v for name, v in answer.items()}
    print_facts("Leakage", answer, json)


@audit.command
def leaks(
    *,
    against: Annotated[tuple[str, ...], Parameter(negative_iterable=())],
    also: Annotated[tuple[Path, ...], Parameter(negative_iterable=())] = (),
    json: Json = False,
    options: Options = DEFAULTS,
) -> None:
    """Search every byte that was left behind for what sources hold.

    The lake, its lists and reports, Prefect's state beside it and what is named besides are
    searched for domestic addresses in text, binary, hex and base64, for MAC addresses, host
    names, e-mail addresses, pieces of payload and file names. Findings are counted by file and
    kind, and never shown.

    Args:
        against: Source that was read into the lake: file, folder or pattern; repeatable.
        also: Further file or folder to search, such as logs; repeatable.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry import pipeline
    from telemetry.console import Console, print_facts

    with Console(json) as console:
        answer = pipeline.leaks(options.settings(), against, also, console)
    found = answer["found"]
    if not json:
        for name, kinds in answer.pop("files").items():
            answer[name] = ", ".join(f"{kind} {number:,}" for kind, number in kinds.items())
        kinds = answer.pop("by_kind")
        answer["by_kind"] = ", ".join(f"{k} {n:,}" for k, n in kinds.items()) or "none"
    print_facts("Leaks", answer, json)
    if found:
        raise LakeError(
            f"{found:,} leaks were found; keep the lake from everybody and tell who oversees it."
        )


@homeland.command
def refresh(
    *sources: Sources, into: Path, licence: tuple[str, ...] = (), options: Options = DEFAULTS
) -> None:
    """Make a table of who is where from local files; no connection is opened.

    Registries' delegated-extended statistics, MMDB databases, CSV, geofeeds (RFC 8805), and
    the region lists of Amazon, Google and Microsoft are recognised by their content.

    Args:
        sources: Files, as PATH or NAME=PATH; files of one name are one source. Their order
            is that of --home-policy primary.
        into: The table to write; name it with --homeland or in the settings afterwards.
        licence: Terms of the sources: one for all, or one for each in order.
        options: Shared options.
    """
    from telemetry.pipeline import refresh_homeland

    table = refresh_homeland(options.settings(), sources, licence, into)
    print(f"{len(table.v4.start) + len(table.v6.start):,} rows written to {into}, from")
    for source in table.sources:
        print(f"  {source.name}: {source.rows:,} ranges, {source.date}, {source.licence}")


@homeland.command
def show(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Show which sources say what is domestic, with date, rows and licence.

    Args:
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_facts
    from telemetry.pipeline import load_homeland

    facts = load_homeland(options.settings()).describe()
    if not json:
        for source in facts.pop("sources"):
            facts[source["name"]] = "{kind}, {date}, {rows:,} rows, {licence}".format(**source)
    print_facts("Homeland", facts, json)


@homeland.command(name="check")
def check_address(address: str, *, json: Json = False, options: Options = DEFAULTS) -> None:
    """Say how an address is classed, and which rule and which sources decide.

    Args:
        address: IPv4 or IPv6 address.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_facts
    from telemetry.homeland.explain import explain
    from telemetry.pipeline import load_homeland

    found = explain(load_homeland(options.settings()).rules, address)
    facts = {"address": found.address, "class": found.verdict, "rule": found.rule}
    if json:
        print_facts("", facts | {"because": found.because, "sources": found.said}, json)
    else:
        print_facts("Class", facts, json)
        print("\n".join(f"  {sentence}" for sentence in found.because))


@homeland.command
def diff(
    old: Path, new: Path, *, ranges: int = 10, json: Json = False, options: Options = DEFAULTS
) -> None:
    """Show what becomes domestic or foreign when one table takes the place of another.

    IPv4 is counted in addresses, IPv6 in /64 networks.

    Args:
        old: Table in use.
        new: Table that `homeland refresh` made.
        ranges: How many of the largest ranges to show of each family.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_facts
    from telemetry.homeland import compare
    from telemetry.pipeline import load_homeland

    before, after = (load_homeland(options.settings(), table) for table in (old, new))
    answer: dict[str, Any] = {}
    for family in (4, 6):
        found = compare.changes(before, after, family)
        answer[f"ipv{family}"] = {
            "ranges": len(found.start),
            "totals": compare.totals(found),
            "largest": compare.largest(found, family, ranges),
        }
    if json:
        print_facts("", answer, json)
        return
    for family, unit in ((4, "addresses"), (6, "/64 networks")):
        facts = answer[f"ipv{family}"]
        sums = {kind: f"{size:,} {unit}" for kind, size in facts["totals"].items()}
        print_facts(f"IPv{family}: {facts['ranges']:,} ranges change", sums, json)
        for row in facts["largest"]:
            print("    {first} - {last}  {size:,}  {before} to {after}".format(**row))


@homeland.command(name="report")
def disagreement(
    *, strata: Path | None = None, json: Json = False, options: Options = DEFAULTS
) -> None:
    """Report where the sources of the table disagree about the home country.

    Networks in a cloud's own list are `cloud`. Fixed and mobile networks are told apart
    only by --strata: the table holds no names of networks.

    Args:
        strata: CSV file of `prefix,stratum`, such as 192.0.2.0/24,mobile.
        json: Answer in JSON Lines.
        options: Shared options.
    """
    import pyarrow as pa

    from telemetry.console import print_table
    from telemetry.homeland import compare
    from telemetry.pipeline import load_homeland

    known = compare.read_strata(strata) if strata else compare.NO_STRATA
    rows = compare.disagreement(load_homeland(options.settings()).rules, known)
    print_table(pa.Table.from_pylist(rows), json)


@homeland.command
def purge(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Class stored records again, and erase those whose address is now domestic.

    Every run under another table than the lake's does so first. What is foreign now and was
    domestic before was never stored, and cannot come back.

    Args:
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry import pipeline
    from telemetry.console import Console, print_facts

    with Console(json) as console:
        done = asdict(pipeline.purge(options.settings(), console))
    del done["id"]
    print_facts("Purged; what was domestic before was never stored.", done, json)


@retention.command(name="run")
def run_retention(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Erase records that may stay no longer, verify that they are gone, and certify it.

    Args:
        json: Answer in JSON, as the certificate says it.
        options: Shared options.
    """
    from telemetry import pipeline
    from telemetry.console import Console

    with Console(json) as console:
        console.retained(pipeline.retention(options.settings(), console))


@retention.command(name="show")
def show_retention(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Show which records are erased when.

    Args:
        json: Answer in JSON Lines.
        options: Shared options.
    """
    import pyarrow as pa

    from telemetry.console import print_table
    from telemetry.pipeline import retention_due

    rows = [asdict(due) for due in retention_due(options.settings())]
    names = ("due", "selected", "files", "records")
    print_table(pa.table({name: [row[name] for row in rows] for name in names}), json)


@authority.command(name="check")
def check_authority(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Show the terms of the authority, and say whether it covers a run now.

    Args:
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_facts
    from telemetry.pipeline import examine_authority

    facts, refusal = examine_authority(options.settings())
    covers = "covers a run now." if refusal is None else "does not cover a run now."
    print_facts(f"The authority {covers}", facts | {"covers": refusal is None}, json)
    if refusal is not None:
        raise refusal


@authority.command(name="sign")
def sign_authority(file: Path, *, key: Path) -> None:
    """Sign an authority or a revocation list, as its overseer.

    Args:
        file: What to sign; the signature is written beside it, its name with .sig.
        key: Ed25519 private key (PEM) of the overseer.
    """
    from telemetry.privacy import sign_file

    print(sign_file(file, key))


@keys.command
def new(path: Path, *, options: Options = DEFAULTS) -> None:
    """Make a pseudonym key, readable by its owner alone.

    Args:
        path: Where to write it; outside the lake, backed up, never published.
        options: Shared options.
    """
    from telemetry.pipeline import new_key

    print(f"Key {new_key(options.settings(), path)} written to {path}.")


@keys.command(name="show")
def show_keys(*, json: Json = False, options: Options = DEFAULTS) -> None:
    """Show the epochs of the lake's key, never their secrets.

    Args:
        json: Answer in JSON Lines.
        options: Shared options.
    """
    import pyarrow as pa

    from telemetry.console import print_table
    from telemetry.pipeline import show_keys as rows

    names = ["epoch", "generation", "state"]
    found = rows(options.settings())
    print_table(pa.table({name: [row[name] for row in found] for name in names}), json)


@keys.command
def rotate(*, options: Options = DEFAULTS) -> None:
    """Give every month a new secret: what is read from now on gets new pseudonyms.

    Args:
        options: Shared options.
    """
    from telemetry.pipeline import rotate_keys

    print(f"Epochs with a new secret: {len(rotate_keys(options.settings()))}")


@keys.command
def destroy(what: str, *, options: Options = DEFAULTS) -> None:
    """Destroy the secrets of a month, or all: its pseudonyms can never be reversed again.

    Args:
        what: A month such as 2026-04, or the path of the lake's key file for all.
        options: Shared options.
    """
    from telemetry.pipeline import destroy_keys

    print(f"Secrets destroyed: {destroy_keys(options.settings(), what)}; destroy their copies too.")


@app.command
def reidentify(pid: str, *, reason: str, json: Json = False, options: Options = DEFAULTS) -> None:
    """Turn a host's pseudonym back into its address, if the authority allows it.

    Args:
        pid: The pseudonym, a value of peer_pid.
        reason: Why; it is kept in the ledger, so name no address.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import print_facts
    from telemetry.pipeline import reidentify as ask

    print_facts("For this use alone; keep it nowhere.", ask(options.settings(), pid, reason), json)


@model.command(name="evaluate")
def evaluate_model(
    *,
    corpus: Path,
    labels: tuple[Path, ...] = (),
    keep: Path | None = None,
    robustness: Annotated[bool, Parameter(negative=())] = False,
    card: Path | None = None,
    json: Json = False,
    options: Options = DEFAULTS,
) -> None:
    """Read and score data sets with labels; show what is found and what is wrongly listed.

    Each data set has a lake of its own, and a home where its labels name one; --lake has no say.

    Args:
        corpus: Folder with labels.csv and the files that it names.
        labels: Further tables of that form; repeatable.
        keep: Folder where the lakes stay, so that another evaluation need not read again.
        robustness: Also score the same records as poorer sources would have told them, sampled
            or of one direction, and by the methods of RITA and NEMEA.
        card: File to write the card of the scores to, as Markdown.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import Console, print_evaluation
    from telemetry.pipeline import evaluate

    with Console(json) as console:
        answer = evaluate(
            options.settings(), corpus, labels, keep, console, robustness=robustness, card=card
        )
    print_evaluation(answer, json)


@model.command
def beacons(
    *,
    pairs: int = 10_000,
    hosts: int = 2_000,
    each: int = 3,
    days: int = 7,
    seed: int = 1,
    json: Json = False,
    options: Options = DEFAULTS,
) -> None:
    """Hide generated beacons among harmless rhythms; show what is found, beside RITA's formula.

    Ten million calls take some minutes; --lake, --home and --country have no say.

    Args:
        pairs: Harmless pairs of host and address, at least.
        hosts: Inside hosts.
        each: Beacons for each interval, jitter and loss.
        days: How long they call.
        seed: The same number gives the same calls.
        json: Answer in JSON.
        options: Shared options.
    """
    from telemetry.console import Console, print_beacons
    from telemetry.pipeline import evaluate_beacons

    with Console(json) as console:
        answer = evaluate_beacons(options.settings(), pairs, hosts, each, days, seed, console)
    print_beacons(answer, json)


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
def formats(*, json: Json = False) -> None:
    """List every format, container, link type and encapsulation that is read.

    Args:
        json: Answer in JSON Lines.
    """
    import pyarrow as pa

    from telemetry.console import print_table
    from telemetry.readers.formats import readable

    print_table(pa.Table.from_pylist([row._asdict() for row in readable()]), json)


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
    command()
