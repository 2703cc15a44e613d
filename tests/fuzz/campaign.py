"""A long search, guided by what code a source reaches: `make fuzz MINUTES=10`.

Compiled code hides where it goes. So `explore` runs kernels as the Python they are written in,
slowly, and keeps every source that reaches something new; `check` runs those, and changes of
them, compiled, with bounds checked and on guarded memory, as the tests do.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import atheris

FOUND, KEPT = Path("found"), Path("corpus")
_LONGEST = 8192


def main() -> None:
    """Searches one family of readers; ends by itself when it finds nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("how", choices=("explore", "check"))
    parser.add_argument("family")
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="what is kept, from run to run")
    options = parser.parse_args()
    if options.how == "explore":
        import plain

        plain.install()
    import harness
    import mutations
    import seeds

    given = seeds.given(options.family)
    pool = seeds.seeds(options.family)
    pool += list(seeds.corpus_seeds(options.family))
    kept = options.folder / options.family / KEPT
    found = options.folder / options.family / FOUND
    for folder in (kept, found):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in pool:
        (kept / hashlib.sha256(seed).hexdigest()[:20]).write_bytes(seed)
    warnings.simplefilter("ignore")

    def one(data: bytes) -> None:
        try:
            harness.check(data, given)
        except Exception as error:
            # Python's numbers are no machine words, so that `explore` decides nothing.
            if options.how == "check":
                _keep(data, error, found)

    def change(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(data, longest))
        return mutations.mutate(data, rng, pool)[:longest]

    for seed in pool if options.how == "check" else pool[:1]:
        one(seed)  # compiles what it needs, which must not count as slowness
    for function in _functions():
        atheris.instrument_func(function)
    settings = [
        f"-max_total_time={options.seconds}",
        f"-max_len={_LONGEST}",
        f"-artifact_prefix={found}/",
        "-timeout=60",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-len_control=0",
    ]
    atheris.Setup([sys.argv[0], *settings, str(kept)], one, custom_mutator=change)
    atheris.Fuzz()


def _keep(data: bytes, error: Exception, found: Path) -> None:
    """Keeps what broke a reader, once for each kind of fault, so that the search goes on."""
    kind = re.sub(r"\d+", "0", "".join(traceback.format_exception(error))[-2000:])
    path = found / f"{type(error).__name__}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"
    if not path.exists():
        path.write_bytes(data)
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))
        print(f"FOUND {path}: {str(error)[:300]}", flush=True)


def _functions() -> Iterator[FunctionType]:
    """Yields the functions of readers, methods too; compiled ones are none."""
    for name, module in list(sys.modules.items()):
        if not name.startswith("telemetry.readers"):
            continue
        for value in vars(module).values():
            owners = [value] if isinstance(value, FunctionType) else []
            if isinstance(value, type):
                owners = [f for f in vars(value).values() if isinstance(f, FunctionType)]
            yield from (f for f in owners if f.__module__ == name)


if __name__ == "__main__":
    main()
