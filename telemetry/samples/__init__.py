"""Samples: captures we make ourselves, with labels, and a list of public ones.

`make` writes the labelled captures under `data/samples/`, `generate_packets` a large
capture for the benchmark, `fetch` obtains public captures named in `public.csv`.
"""

from telemetry.samples.bulk import generate_packets
from telemetry.samples.maker import SEED, make
from telemetry.samples.public import PublicSample, fetch, public_list

__all__ = ["SEED", "PublicSample", "fetch", "generate_packets", "make", "public_list"]
