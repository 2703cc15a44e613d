"""No core dump, no temporary file outside the lake, no file that others may read."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
from pathlib import Path

import pytest
from e2e import CAPTURES, ROOT, command, environment, fixed_key, spawn
from test_crashes import wait_for

NOSY = """#!/bin/sh
exec 3>"{seen}"
echo "core $(ulimit -c)" >&3
echo "umask $(umask)" >&3
echo "tmp $TMPDIR" >&3
env >&3
"""


@pytest.fixture
def nosy(tmp_path: Path) -> Path:
    """A program in place of nfdump that notes how it was started."""
    program = tmp_path / "bin" / "nfdump"
    program.parent.mkdir()
    program.write_text(NOSY.format(seen=tmp_path / "seen"))
    program.chmod(0o755)
    return program


def test_programs_dump_no_core_and_write_inside_the_lake(tmp_path: Path, nosy: Path) -> None:
    lake, key = tmp_path / "lake", fixed_key(tmp_path / "key")
    source = ROOT / "data" / "samples" / "formats" / "nfdump" / "layout2.nfcapd"
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    settings = environment(PATH=f"{nosy.parent}:{os.environ['PATH']}", TMPDIR="/tmp")
    spawn(
        "ingest", source, "--lake", lake, "--key", key, env=settings, umask=0o022,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
    )  # fmt: skip
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen[:3] == ["core 0", "umask 0077", f"tmp {lake.resolve()}/tmp"]
    assert str(source) not in "".join(seen)


def test_the_process_itself_dumps_no_core(tmp_path: Path) -> None:
    """Asked of the kernel while the command waits for its input."""
    lake, key = tmp_path / "lake", fixed_key(tmp_path / "key")
    process = subprocess.Popen(
        command("ingest", "-", "--lake", lake, "--key", key),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), umask=0o022,
    )  # fmt: skip
    assert process.stdin is not None
    with process:
        # The lake is opened after the approval, which confines the process.
        wait_for(process, (lake / "files.sqlite").exists)
        said = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
        umask = Path(f"/proc/{process.pid}/status").read_text()
        process.stdin.write((CAPTURES / "rawip.pcap").read_bytes())
        process.stdin.close()
        assert process.wait(60) == 0
    assert next(line.split()[4:6] for line in said if "core file" in line) == ["0", "0"]
    assert "Umask:\t0077" in umask


def test_all_that_a_run_writes_is_the_owners_alone(tmp_path: Path) -> None:
    lake, key = tmp_path / "lake", fixed_key(tmp_path / "key")
    answer = spawn("run", CAPTURES / "rawip.pcap", "--lake", lake, "--key", key, umask=0)
    assert answer.code == 0
    modes = {
        path.relative_to(lake).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (lake, *lake.rglob("*"))
    }
    folders = {name for name in modes if (lake / name).is_dir()}
    assert {
        name for name, mode in modes.items() if mode != (0o700 if name in folders else 0o600)
    } == set()
