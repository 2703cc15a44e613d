"""Public captures: the list, a mirror, a download from this machine."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import pytest

from telemetry.errors import SettingsError, SourceError
from telemetry.samples import fetch, public_list
from telemetry.samples import public as room
from telemetry.samples.public import Form, PublicSample

DATA = b"CANARY payload of a capture " * 40
RAW = PublicSample(
    "owner/name",
    "0" * 40,
    "dir/a file#1.pcap",
    sha256(DATA).hexdigest(),
    len(DATA),
    "MIT",
    "test",
    "192.0.2.0/24",
    "attacks/one/a.pcap",
    Form.AS_PUBLISHED,
)
PACKED = replace(RAW, path="b.log", corpus_path="attacks/two/b.log.gz", form=Form.GZIP)
CUT = replace(RAW, path="c.pcap", corpus_path="attacks/three/c.snap96.pcap", form=Form.MIRROR_ONLY)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "public_list", lambda: [RAW, PACKED, CUT])


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    root = tmp_path / "mirror"
    for row in (RAW, PACKED, CUT):
        path = root / row.corpus_path
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(DATA) if row.form is Form.GZIP else DATA)
    return root


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_list_is_sound() -> None:
    rows = public_list()
    assert len(rows) > 200
    assert len({row.target for row in rows}) == len(rows)
    for row in rows:
        assert len(row.sha256) == 64 and len(row.commit) == 40 and row.bytes > 0
        assert row.repository.count("/") == 1 and row.licence and row.what
        for path in (row.corpus_path, row.target.as_posix()):
            assert ".." not in path and not PurePosixPath(path).is_absolute()
        assert ("snap96" in row.corpus_path) <= (row.form is Form.MIRROR_ONLY)


def test_broken_list_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "public.csv"
    path.write_text("repository,commit\na/b,c\n")
    with pytest.raises(SourceError, match="restore"):
        public_list(path)


@pytest.mark.usefixtures("listed")
def test_mirror_gives_published_bytes(mirror: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = fetch(out, mirror)
    assert files(out) == ["attacks/one/a.pcap", "attacks/three/c.snap96.pcap", "attacks/two/b.log"]
    assert [path.read_bytes() for path in written] == [DATA] * 3


@pytest.mark.usefixtures("listed")
def test_what_verifies_is_left_alone(mirror: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = [path.stat().st_mtime_ns for path in fetch(out, mirror)]
    for row in (RAW, PACKED, CUT):
        (mirror / row.corpus_path).unlink()
    assert [path.stat().st_mtime_ns for path in fetch(out, mirror)] == before


@pytest.mark.usefixtures("listed")
def test_what_no_longer_verifies_is_replaced(mirror: Path, tmp_path: Path) -> None:
    path = fetch(tmp_path / "out", mirror, ["one"])[0]
    path.write_bytes(DATA[:-1] + b"?")
    assert fetch(tmp_path / "out", mirror, ["one"])[0].read_bytes() == DATA


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("wrong", [DATA[:-1] + b"?", DATA + b"x", DATA[:5], b""])
@pytest.mark.parametrize("row", [RAW, PACKED, CUT])
def test_mismatch_names_the_row_and_writes_nothing(
    row: PublicSample, wrong: bytes, mirror: Path, tmp_path: Path
) -> None:
    data = gzip.compress(wrong) if row.form is Form.GZIP else wrong
    (mirror / row.corpus_path).write_bytes(data)
    with pytest.raises(SourceError, match=row.corpus_path):
        fetch(tmp_path / "out", mirror, [row.corpus_path])
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("listed")
def test_missing_or_broken_mirror_file(mirror: Path, tmp_path: Path) -> None:
    (mirror / RAW.corpus_path).unlink()
    (mirror / PACKED.corpus_path).write_bytes(gzip.compress(DATA)[:-9])
    for name in ("one", "two"):
        with pytest.raises(SourceError, match="--mirror"):
            fetch(tmp_path / "out", mirror, [name])


@pytest.mark.usefixtures("listed")
def test_unwritable_folder_is_one_clear_error(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceError, match="another folder"):
        fetch(tmp_path / "file", mirror, ["one"])


@pytest.mark.usefixtures("listed")
def test_names(mirror: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert len(fetch(out, mirror, ["attacks"])) == 3
    assert len(fetch(out, mirror, ["attacks/two", "one"])) == 2
    assert len(fetch(out, mirror, ["attacks/two/b.log"])) == 1
    with pytest.raises(SettingsError, match="samples list"):
        fetch(out, mirror, ["one", "attacks/on"])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    root = tmp_path / "web"
    for row in (RAW, PACKED):
        path = root / row.repository / row.commit / row.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DATA)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    yield from serve(partial(Quiet, directory=str(root)))


def serve(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


@pytest.mark.usefixtures("listed")
def test_download_from_this_machine(server: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = fetch(out, base_url=server)
    assert [path.read_bytes() for path in written] == [DATA] * 2, "mirror_only is left out"
    with pytest.raises(SourceError, match="mirror"):
        fetch(out, names=["three"], base_url=server)


@pytest.mark.usefixtures("listed")
def test_download_that_differs_or_is_missing(server: str, tmp_path: Path) -> None:
    source = tmp_path / "web" / RAW.repository / RAW.commit / RAW.path
    source.write_bytes(DATA + b"more")
    with pytest.raises(SourceError, match=RAW.corpus_path):
        fetch(tmp_path / "out", names=["one"], base_url=server)
    source.unlink()
    with pytest.raises(SourceError, match="cannot be downloaded"):
        fetch(tmp_path / "out", names=["one"], base_url=server)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("listed")
def test_redirects_are_refused(server: str, tmp_path: Path) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", server + self.path)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    for url in serve(Elsewhere):
        with pytest.raises(SourceError, match="cannot be downloaded"):
            fetch(tmp_path / "out", names=["one"], base_url=url)


@pytest.mark.parametrize("url", ["http://example.org", "file:///etc", "ftp://127.0.0.1"])
def test_only_https_or_this_machine(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="HTTPS"):
        fetch(tmp_path, base_url=url)


def test_whole_list_from_the_corpus(corpus: Path, tmp_path: Path) -> None:
    rows = public_list()
    written = fetch(tmp_path, corpus)
    assert len(written) == len(rows)
    for row, path in zip(rows, written, strict=True):
        assert sha256(path.read_bytes()).hexdigest() == row.sha256
