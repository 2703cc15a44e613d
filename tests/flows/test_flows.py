"""The flows as a site runs them: from a shell, and on a schedule of a Prefect server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from telemetry import pipeline
from telemetry.console import run_json
from telemetry.lake import Lake, query
from telemetry.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples" / "captures"
BROKEN = ROOT / "data" / "samples" / "broken" / "not_a_capture.txt"
NAMES = ("border-c.pcap.gz", "conn.json.log")
_PREFECT = (sys.executable, "-m", "prefect")
_FLOWS_INGEST = (sys.executable, "-m", "flows.ingest")
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PREFECT_", "SEKISHO_")) and name != "DO_NOT_TRACK"
}


def _run(
    module: str,
    *arguments: str | Path,
    env: dict[str, str] | None = None,
    cwd: Path = ROOT,
    stdin: Path = Path(os.devnull),
) -> subprocess.CompletedProcess[str]:
    with stdin.open("rb") as given:
        return subprocess.run(
            [sys.executable, "-m", f"flows.{module}", *map(str, arguments)],
            cwd=cwd,
            env=CLEAN | (env or {}),
            stdin=given,
            capture_output=True,
            text=True,
            timeout=200,
        )


def _forbidden(names: tuple[str, ...]) -> set[bytes]:
    """Returns what Prefect may never see: who, from which file, and what was said."""
    truth = json.loads((ROOT / "data" / "samples" / "truth.json").read_text())
    found = {*names, *truth["canary_words"]}
    for name in names:
        found |= {*truth["files"][f"captures/{name}"]["domestic"]}
        found |= {*truth["files"][f"captures/{name}"]["canaries"]}
    return {text.encode() for text in found}


def _leaks(folder: Path, forbidden: set[bytes]) -> list[tuple[str, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        (path.name, word)
        for path in files
        for content in [path.read_bytes()]
        for word in forbidden
        if word in content
    ]


# ---- one run, now --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daily(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    """Runs the daily flow once; returns its answer, its lake, and what it said besides."""
    folder = tmp_path_factory.mktemp("daily")
    (folder / "home").mkdir()
    done = _run(
        "daily",
        *(SAMPLES / name for name in NAMES),
        "--lake",
        folder / "lake",
        "--json",
        env={"HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert not list((folder / "home").iterdir()), "something was written into the user's home"
    return json.loads(done.stdout), folder / "lake", done.stderr


def test_the_flow_finds_what_the_pipeline_finds(
    daily: tuple[dict[str, Any], Path, str], tmp_path: Path
) -> None:
    answer, lake, said = daily
    settings = Settings(lake=tmp_path / "lake")
    expected = run_json(pipeline.run(settings, [str(SAMPLES / name) for name in NAMES]))
    assert said == ""
    assert answer["score"]["endpoints"] == json.loads(json.dumps([*expected["score"]["endpoints"]]))
    assert answer["ingest"]["sources"] == expected["ingest"]["sources"]
    assert [Path(p).relative_to(lake) for p in answer["files"]] == [
        Path(p).relative_to(settings.lake) for p in expected["files"]
    ]


def test_the_score_flow_says_what_it_found(
    daily: tuple[dict[str, Any], Path, str], tmp_path: Path
) -> None:
    answer, lake, _ = daily
    copy = shutil.copytree(lake, tmp_path / "lake")
    shutil.copy(lake.with_name("lake.key"), tmp_path)
    told = _run("score", "--lake", copy)
    assert (told.returncode, told.stderr) == (0, "")
    assert f"{len(answer['score']['endpoints'])} scored, " in told.stdout
    assert str(copy / "reports" / "report.html") in told.stdout
    found = json.loads(_run("score", "--lake", copy, "--json").stdout)
    assert found == answer["score"]


def test_all_steps_share_one_run(daily: tuple[dict[str, Any], Path, str]) -> None:
    answer, lake, _ = daily
    entries = [json.loads(line) for line in (lake / "ledger.jsonl").read_text().splitlines()]
    steps = {(entry["kind"], entry["facts"]["run"]) for entry in entries}
    run = answer["ingest"]["run"]
    assert steps >= {(kind, run) for kind in ("ingest", "score", "export", "report")}
    assert {at for _, at in steps} == {run}


def test_prefect_keeps_the_history_and_nothing_else(
    daily: tuple[dict[str, Any], Path, str],
) -> None:
    _, lake, _ = daily
    home = lake.with_name("lake.prefect")
    assert home.stat().st_mode & 0o077 == 0
    assert _leaks(home, _forbidden(NAMES)) == []
    assert _leaks(home, {b"make_report"}), "the search above finds nothing at all"
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        runs = database.execute("SELECT state_type, parameters FROM flow_run").fetchall()
        tasks = database.execute("SELECT name, state_type FROM task_run").fetchall()
    assert runs == [("COMPLETED", '{"inbox": "inbox", "config": null}')]
    assert {(name.rpartition("-")[0], state) for name, state in tasks} == {
        (step, "COMPLETED") for step in ("ingest", "score", "make_list", "make_report", "retention")
    }


def test_standard_input_goes_into_the_working_folder(tmp_path: Path) -> None:
    lake = tmp_path / "here"
    lake.mkdir()
    done = _run("ingest", "-", "--lake", ".", "--json", cwd=lake, stdin=SAMPLES / "rawip.pcap")
    assert (done.returncode, done.stderr) == (0, "")
    (source,) = json.loads(done.stdout)["sources"]
    assert (source["path"], source["packets_read"]) == ("-", 2899)
    assert {path.name for path in tmp_path.iterdir()} == {"here", "here.key", "here.prefect"}


def test_a_run_of_refused_sources_does_its_work_and_fails(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    shutil.copy(BROKEN, inbox)
    lake = tmp_path / "lake"
    done = _run("daily", inbox, "--lake", lake, "--json")
    assert done.returncode == 1
    assert done.stderr.startswith("sekisho: ")
    assert done.stderr.count("\n") == 1
    answer = json.loads(done.stdout)
    assert [source["status"] for source in answer["ingest"]["sources"]] == ["refused"]
    assert answer["files"] and all(Path(path).is_file() for path in answer["files"])
    home = tmp_path / "lake.prefect"
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        ((state, said),) = database.execute(
            "SELECT run.state_type, state.message FROM flow_run AS run "
            "JOIN flow_run_state AS state ON state.id = run.state_id"
        )
    assert state == "FAILED"
    assert "1 of 1 sources refused" in said
    assert _leaks(home, {BROKEN.name.encode()}) == []


@pytest.mark.parametrize(
    "arguments", [(), ("no-such-file",), ("--no-such-option",), (str(SAMPLES), "--home", "x")]
)
def test_wrong_usage_fails_before_prefect_is_imported(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    # With this, importing Prefect is an error.
    (tmp_path / "prefect.py").write_text("raise SystemExit('prefect was imported')")
    done = _run("daily", *arguments, "--lake", lake, env={"PYTHONPATH": str(tmp_path)})
    wrong_home = "--home" in arguments  # found out by the first step, within the flow
    assert ("prefect was imported" in done.stderr) == wrong_home
    assert wrong_home or done.returncode == 2


def test_a_killed_run_leaves_no_server(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from flows._environment import isolate\n"
        "from flows._server import Server\n"
        "home = Path(sys.argv[1]); isolate(home); server = Server(home); server.wait()\n"
        "print(server.url, flush=True); time.sleep(300)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "home")],
        cwd=ROOT,
        env=CLEAN,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    port = int(run.stdout.readline().split(":")[2].split("/")[0])
    assert _post(port, "flow_runs/filter", {})[0] == 401, "anybody on this machine may ask"
    run.kill()
    run.wait()
    _until(lambda: not _listens(port), 20, "the server outlived the run")


# ---- a site with a server of its own -------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, dict[str, str], Path]]:
    """Starts a Prefect server with its scheduler; returns port, environment, its home."""
    home = tmp_path_factory.mktemp("site") / "prefect"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "NO_PROXY": "127.0.0.1",
    }
    with (home.parent / "server.out").open("wb") as out:
        server = subprocess.Popen(
            [*_PREFECT, "server", "start", "--no-ui", "--host", "127.0.0.1", "--port", str(port)],
            cwd=home.parent,
            env=CLEAN | env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        _until(lambda: _listens(port), 90, "the server did not start")
        yield port, env, home
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.fixture(scope="module")
def deployed(site: tuple[int, dict[str, str], Path]) -> tuple[int, dict[str, str], Path]:
    _prefect(site[1], "work-pool", "create", "sekisho", "--type", "process")
    _prefect(site[1], "--no-prompt", "deploy", "--all")
    return site


def test_the_deployment_runs_every_night(deployed: tuple[int, dict[str, str], Path]) -> None:
    port, _, _ = deployed
    _, deployments = _post(port, "deployments/filter", {})
    (deployment,) = deployments
    schedule = deployment["schedules"][0]["schedule"]
    assert (schedule["cron"], schedule["timezone"]) == ("0 3 * * *", "Asia/Tokyo")
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    found: list[dict[str, Any]] = []

    def scheduled() -> bool:
        found[:] = [r for r in _post(port, "flow_runs/filter", {})[1] if r["auto_scheduled"]]
        return len(found) >= 2

    _until(scheduled, 60, "the scheduler made no runs")
    hours = {run["expected_start_time"][11:16] for run in found}
    assert hours == {"18:00"}  # 03:00 in Tokyo


def test_a_worker_takes_in_the_inbox(
    deployed: tuple[int, dict[str, str], Path], tmp_path: Path
) -> None:
    port, env, home = deployed
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    shutil.copy(SAMPLES / "rawip.pcap", inbox)
    _prefect(env, "deployment", "run", "daily/daily", "--param", f"inbox={inbox}")
    worker = ("worker", "start", "--pool", "sekisho", "--run-once")
    said = _prefect(env | {"SEKISHO_LAKE": str(tmp_path / "lake")}, *worker)
    assert "1 sources ingested" in said
    rows = query(tmp_path / "lake", "SELECT sum(read)::BIGINT AS n FROM sources").to_pylist()
    assert rows == [{"n": 2899}]
    done = [r for r in _post(port, "flow_runs/filter", {})[1] if not r["auto_scheduled"]]
    assert "COMPLETED" in {run["state_type"] for run in done}
    # The inbox is a parameter, so its name is known; what lies in it is not.
    assert _leaks(home, {str(inbox).encode()})
    assert _leaks(home, _forbidden(("rawip.pcap",))) == []


def test_a_busy_lake_is_tried_again_and_a_refusal_is_not(
    site: tuple[int, dict[str, str], Path], tmp_path: Path
) -> None:
    port, env, home = site
    settings = Settings(lake=tmp_path / "lake")
    pipeline.ingest(settings, [str(SAMPLES / "rawip.pcap")])
    meta = Lake.peek(settings.lake)
    with Lake.create_or_open(settings.lake, policy_tag=meta.policy_tag, key_id=meta.key_id):
        run = subprocess.Popen(
            [*_FLOWS_INGEST, str(SAMPLES / "cooked.pcap"), "--lake", str(settings.lake)],
            cwd=ROOT,
            env=CLEAN | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert run.stderr is not None
        first = [run.stderr.readline(), run.stderr.readline()]
        assert "sekisho: Trying again soon.\n" in first, first
    assert run.communicate(timeout=120)[1] == ""
    assert run.returncode == 0

    refused = _run(
        "ingest", SAMPLES / "ddos.pcap.gz", "--lake", settings.lake, "--home", "10.0.0.0/8",
        env=env,
    )  # fmt: skip
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "home" in refused.stderr
    tasks: list[dict[str, Any]] = []

    def recorded() -> bool:
        tasks[:] = _post(port, "task_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})[1][:2]
        return all(task["state_type"] in {"FAILED", "COMPLETED"} for task in tasks)

    _until(recorded, 20, "the server did not learn of the steps")
    outcomes = {task["state_type"]: task for task in tasks}
    assert outcomes["COMPLETED"]["run_count"] >= 2
    assert outcomes["FAILED"]["run_count"] == 1
    assert "PrivacyError" in outcomes["FAILED"]["state"]["message"]
    secret = {b"10.0.0.0", b"cooked.pcap", b"ddos.pcap"}
    assert _leaks(home, secret) == []


# ---- helpers -------------------------------------------------------------------------------


def _prefect(env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [*_PREFECT, *arguments],
        cwd=ROOT,
        env=CLEAN | env | {"PWD": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _post(port: int, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers = {"content-type": "application/json"}
        connection.request("POST", f"/api/{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(holds: Any, seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, otherwise
        time.sleep(0.3)
