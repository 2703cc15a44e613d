"""Rules of the house that no other tool checks."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from e2e import CAPTURES, ROOT, call, sample_run

from telemetry.cli import app

TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".sql", ".j2", ".ipynb", ".csv", ".json", ".lock"}
CODE = sorted((ROOT / "telemetry").rglob("*.py"))


def files(*folders: str) -> Iterator[Path]:
    """Yields the project's own files: those that git knows or would take in."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z", *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    yield from (path for path in paths if path.is_file())


def text_files() -> Iterator[Path]:
    for path in files():
        if path.suffix in TEXT or path.name in ("Makefile", "LICENSE") or path.parent.name == ".ci":
            yield path


# --- code and tests ------------------------------------------------------------------------------


def _imported(path: Path) -> set[str]:
    """Returns every module of telemetry that a file names in its imports, parents included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_module_is_reached_from_the_tests() -> None:
    """A module is imported by a test, or by a module that is."""
    tests = [path for path in (ROOT / "tests").rglob("*.py") if ".mypy_cache" not in path.parts]
    reached = {name for path in tests for name in _imported(path)}
    used = {_module(path): _imported(path) | _named(path) for path in CODE}
    while new := {n for module in reached & set(used) for n in used[module]} - reached:
        reached |= new
    assert sorted(set(used) - reached) == []


def _named(path: Path) -> set[str]:
    """Returns modules that are named in text, for imports that wait until they are needed."""
    module = _module(path)
    words = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value
    }
    return words | {f"{module}.{word}" for word in words if word.isidentifier()}


def test_every_room_has_a_folder_of_tests() -> None:
    rooms = {
        path.name for path in (ROOT / "telemetry").iterdir() if (path / "__init__.py").exists()
    }
    tested = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert rooms - tested == set()


def test_no_test_hides_another_of_the_same_name() -> None:
    """Two functions of one name in a file: pytest would run the later one only."""
    doubled = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text())
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        doubled += [f"{path.name}: {name}" for name in set(names) if names.count(name) > 1]
    assert doubled == []


def test_nothing_is_pickled_evaluated_or_sent() -> None:
    """No pickle, eval or connection in the library; only samples may fetch."""
    found = []
    for path in CODE:
        tree = ast.parse(path.read_text())
        bad = _imported(path) & {"pickle", "marshal", "shelve", "joblib", "requests", "httpx"}
        if path.parent.name != "samples":
            bad |= _imported(path) & {"urllib.request", "http.client", "ftplib", "smtplib"}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                bad |= {node.func.id} & {"eval", "exec"}
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                words = f"{node.value.id}.{node.attr}"
                bad |= {words} & {"socket.socket", "socket.create_connection", "os.system"}
        if bad:
            found.append((_module(path), sorted(bad)))
    assert found == []


# --- queries -------------------------------------------------------------------------------------

QUERIES = sorted(path for path in (ROOT / "sql").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", QUERIES, ids=lambda path: path.name)
def test_a_query_is_described_and_has_a_golden_case(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"query.sql", "about.yaml"}
    about = yaml.safe_load((folder / "about.yaml").read_text())
    assert {"grain", "columns", "why"} <= set(about)
    assert all(about[key] for key in ("grain", "columns", "why"))
    cases = [path for path in (ROOT / "tests" / "sql" / folder.name).iterdir() if path.is_dir()]
    assert cases
    for case in cases:
        assert {path.name for path in case.iterdir()} >= {"input.yaml", "expect.yaml"}


def test_no_golden_case_is_left_of_a_query_that_is_gone() -> None:
    cases = {p.name for p in (ROOT / "tests" / "sql").iterdir() if p.is_dir() and p.name[0] != "_"}
    assert cases - {"golden"} <= {folder.name for folder in QUERIES}


# --- files ---------------------------------------------------------------------------------------


def test_no_file_names_a_machine() -> None:
    """Paths of somebody's machine, or a registry's address, do not belong in the project."""
    machine = re.compile(r"/(?:home|Users|root|work)/\w|[A-Z]:\\\\Users")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in text_files()
        if path != Path(__file__).resolve()
        for match in machine.finditer(path.read_text(errors="replace"))
    ]
    assert found == []


def test_lock_files_hold_hashes_and_no_address() -> None:
    locks = sorted(ROOT.glob("requirements*.lock"))
    assert len(locks) >= 2
    for lock in locks:
        text = lock.read_text()
        assert not re.search(r"https?:|//|--(extra-)?index|--find-links| @ ", text), lock.name
        pinned = re.findall(r"^[A-Za-z0-9][^\s=]*==\S+", text, flags=re.M)
        assert len(pinned) > (0 if re.search("peers|fuzz", lock.name) else 30)
        blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.M)
        assert all("--hash=sha256:" in block for block in blocks if block.strip()), lock.name


def test_the_samples_are_small() -> None:
    samples = [path for path in (ROOT / "data" / "samples").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in samples) <= 6_000_000


def test_nothing_made_by_a_run_is_kept() -> None:
    made = [p for p in files() if p.suffix in (".duckdb", ".sqlite", ".key", ".pem", ".pickle")]
    assert made == []


# --- README --------------------------------------------------------------------------------------


def readme_commands() -> list[str]:
    """Returns the lines of README's code blocks that call `sekisho`."""
    blocks = re.findall(r"^```(?:sh|bash|console|shell)?\n(.*?)^```", _readme(), flags=re.M | re.S)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("sekisho ")]


def _readme() -> str:
    return (ROOT / "README.md").read_text()


def test_the_commands_in_the_readme_exist() -> None:
    for line in readme_commands():
        words = shlex.split(line.split("|")[0].split(" > ")[0], comments=True)[1:]
        group, path = app, ["sekisho"]
        while words and words[0] in set(group):
            path.append(words.pop(0))
            group = group[path[-1]]
        assert len(path) > 1, f"README: no such command: {line}"
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        known = _options(path[1:])
        assert options <= known, f"README: no such option: {sorted(options - known)} in: {line}"


def _options(path: list[str]) -> set[str]:
    return {"--help", *re.findall(r"--[a-z][a-z-]+", call(*path, "--help").out)}


def test_the_output_that_the_readme_shows_is_what_a_run_prints() -> None:
    said = [line.split() for line in sample_run().said.out.splitlines()]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", _readme(), re.M | re.S)
    (shown,) = [block for kind, block in blocks if not kind and "Sources" in block]
    for line in shown.splitlines():
        words = line.split()
        if words[0] == "Sources":  # the seconds differ
            assert words[:3] in [other[:3] for other in said]
        elif words[0] != "…" and not words[0].startswith("lake/"):
            assert words in said, line
    names = {path.name for path in sample_run().report.files}
    assert {Path(line).name for line in shown.split() if line.startswith("lake/")} == names


def test_the_commands_in_the_readme_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captures").mkdir()
    for name in ("rawip.pcap", "conn.log"):
        (tmp_path / "captures" / name).write_bytes((CAPTURES / name).read_bytes())
    (tmp_path / "conn.log").write_bytes((CAPTURES / "conn.log").read_bytes())
    assert len(readme_commands()) >= 9
    for line in readme_commands():
        answer = call(*shlex.split(line, comments=True)[1:])
        assert (answer.code, answer.err) == (0, ""), (line, answer)


def test_targets_in_the_readme_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", " ".join(re.findall(r"`[^`]*`", _readme()))))
    assert named <= targets
    assert {"run", "test", "lint", "bench", "clean"} <= targets


def test_links_in_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", _readme())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_figures_of_the_readme_are_those_of_the_card() -> None:
    text = (ROOT / "models" / "endpoint_risk" / "v1" / "CARD.md").read_text(encoding="utf-8")
    card = {row["role"]: row for row in _table(text, "| role |")}
    readme = {row["role"].split(",")[0]: row for row in _table(_readme(), "| role | found |")}
    assert set(readme) == {"c2", "scanner", "bruteforce", "ddos"}
    for role, row in readme.items():
        assert row["found"].startswith(card[role]["found"]), role
        parts = [card[role][f"{name} records"].split(" of ") for name in ("5-19", "20+")]
        sums = [
            sum(int(part[k].replace(",", "")) for part in parts if len(part) > 1) for k in (0, 1)
        ]
        assert row["with 5 or more records"] == "{:,} of {:,}".format(*sums), role
        assert row["role right"] == card[role]["role right"], role
    unlike = f"precision of {float(card['c2']['by novelty']):.2f} among"
    scored = f"and of {float(card['c2']['average precision']):.2f} by score"
    assert unlike in " ".join(_readme().split()) and scored in " ".join(_readme().split())
    # What the README says of one direction and of samples.
    views = {row["name"]: row for row in _table(text, "| name | bruteforce")}
    shares = {
        (view, role): [int(n.replace(",", "")) for n in row[role].split(" of ")]
        for view, row in views.items()
        for role in ("bruteforce", "c2", "ddos")
    }
    said = re.search(
        r"hosts send.* (\d+) of the c2.*endpoints send.* (\d+) of the c2.*ten.* (\d+) of the c2",
        " ".join(_readme().split()),
    )
    assert said
    poorer = ("only what hosts send", "only what endpoints send", "one packet in 10")
    assert [shares[view, "c2"][0] for view in poorer] == [int(number) for number in said.groups()]
    most = [(view, "bruteforce") for view in poorer] + [("one packet in 10", "ddos")]
    assert all(2 * found > of for found, of in (shares[case] for case in most))
    found = re.search(r"addresses listed: 1 of ([\d,]+), ([\d.]+) in .*?most ([\d.]+)", text)
    assert found
    harmless, rate, bound = found.groups()
    assert f"Of {harmless} harmless endpoints one is listed: {rate} in 10,000, at most {bound}" in (
        _readme()
    )


def _table(text: str, head: str) -> list[dict[str, str]]:
    lines = text[text.index(head) :].split("\n\n")[0].splitlines()
    names, _, *rows = ([cell.strip() for cell in line.strip("| ").split("|")] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in rows]
