"""A writer to be killed: takes sources into a lake, three to a commit, until all are in.

Each source has exactly PACKETS packets, so a reader can tell half a batch from a whole one.
"""

import sys
from pathlib import Path

from lake_segments import meter, source, table, traffic

from telemetry.lake import Lake

PACKETS = 60
SOURCES = 30


def main(path: Path) -> None:
    with Lake.create_or_open(path, policy_tag="policy", key_id="key", buckets=4) as lake:
        lake.buffer_rows = 100  # some batches go aside before their commit
        print("open", flush=True)
        for number in range(SOURCES):
            one = source(number)
            if lake.known(one.sha256, one.sensor):
                continue
            with lake.source() as batch:
                batch.stage(table(meter(traffic(number, PACKETS, days=2))))
                batch.accept(one)
            if number % 3 == 2:
                lake.commit()
                lake.build_catalog()
            if number % 6 == 5:
                lake.merge()
                lake.build_catalog()
        lake.commit()
        lake.merge()
        lake.build_catalog()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
