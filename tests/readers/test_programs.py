"""Programs that readers call: what becomes of their input, and what bounds them."""

from __future__ import annotations

import io
import resource
import subprocess
from pathlib import Path

import pytest
from rows_kit import saver

from telemetry.errors import SourceError
from telemetry.readers.rows import programs
from telemetry.readers.rows.programs import Program, output_of

CAT = Program("cat", "coreutils", ())


class Failing(io.BytesIO):
    """A stream whose bytes can be read once, and then no more."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise SourceError("It cannot be read: input/output error.")
        return super().read(8)


def test_a_source_passes_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    with output_of(CAT, saver(tmp_path)(content)) as output:
        assert output.stream.read() == content
        output.end()
        assert not output.complained


def test_a_source_that_cannot_be_read_to_its_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saver(tmp_path)(bytes(100))
    monkeypatch.setattr(source, "stream", lambda: Failing(bytes(100)))
    with (
        pytest.raises(SourceError, match="cannot be read"),
        output_of(CAT, source) as output,
    ):
        assert output.stream.read() == bytes(8)
        output.end()


def test_limits_that_are_set_are_not_raised() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        lower = 1 << 30
        resource.prlimit(process.pid, resource.RLIMIT_AS, (lower, lower))
        programs._bound(process.pid, 1)
        assert resource.prlimit(process.pid, resource.RLIMIT_AS) == (lower, lower)
    finally:
        process.kill()
        process.wait()
