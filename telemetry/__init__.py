"""Sekisho's library: the rooms of the house, wired by `telemetry.pipeline`."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final


def _kernel_cache() -> Path:
    """Returns where compiled kernels are kept: one folder for each state of the sources.

    numba looks only at the file of the function it compiles. A kernel inlines others from
    other files; after an update it would go on with their old code.
    """
    home = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        source = path.read_bytes()
        if b"njit" in source or b"@intrinsic" in source:
            digest.update(source)
    cache = home / "__pycache__"
    if not os.access(cache if cache.is_dir() else home, os.W_OK):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sekisho"
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:  # a service user without a home: compile anew, and leave nothing
            cache = Path(tempfile.mkdtemp(prefix="sekisho-"))
            atexit.register(shutil.rmtree, cache, ignore_errors=True)
    return cache / f"kernels-{digest.hexdigest()[:16]}"


if not os.environ.get("NUMBA_CACHE_DIR"):
    os.environ["NUMBA_CACHE_DIR"] = str(_kernel_cache())
COMPILED: Final = Path(os.environ["NUMBA_CACHE_DIR"])
"""Folder of what is worked out once: compiled kernels, the catalog of an empty lake."""
