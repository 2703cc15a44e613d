"""What is measured inside a process of ours: `python -m benchmarks.worker WHAT FILE …`.

Each function prints one JSON object: `wall` and `cpu` seconds of the part that counts
(without the start of the interpreter or compilation), and the totals it found.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Facts = dict[str, Any]


class _Timer:
    """Adds up the time between `with` and its end."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu


def _twice(measured: Callable[[Any, _Timer], Facts], given: Any) -> Facts:
    """Measures the second of two passes: compiled code and pages are there by then."""
    measured(given, _Timer())
    timer = _Timer()
    facts = measured(given, timer)
    return {"wall": timer.wall, "cpu": timer.cpu, **facts}


def _border() -> Any:
    from telemetry.homeland import IN_OUT, OUT_IN, OUT_OUT, Border, load

    return Border(load("JP"), OUT_IN | IN_OUT | OUT_OUT)


def _side_totals(batches: list[Any]) -> Facts:
    sides = [side for batch in batches for side in (batch.a, batch.b)]
    return {
        "kept": sum(int(side.packets.sum()) for side in sides),
        "kept_bytes": sum(int(side.bytes.sum()) for side in sides),
    }


def kernel(path: Path) -> Facts:
    """The compiled loop alone: finds, decodes, gates and meters packets in memory."""
    import numpy as np

    return _twice(_kernel, np.fromfile(path, np.uint8))


def _kernel(data: Any, timer: _Timer) -> Facts:
    import numpy as np

    from telemetry.readers import pcap
    from telemetry.readers.capture import TABLE_FULL, Frames
    from telemetry.readers.meter import BATCH, FlowTable
    from telemetry.reasons import Reason

    counts = np.zeros(len(Reason), np.int64)
    # As read_frames sets it up, but with the whole capture as its buffer. Little-endian
    # microseconds, 16-byte record headers, Ethernet: what generate_packets writes.
    frames = Frames(
        np.empty(BATCH, np.uint64), *(np.empty(BATCH, np.int64) for _ in Frames._fields[1:])
    )
    state = np.array([0, 1, 16, 1], np.int64)
    border, table = _border(), FlowTable()
    batches, position, status = [], 24, TABLE_FULL
    while status == TABLE_FULL:
        with timer:
            position, status = pcap._meter(
                state,
                np.uint64(data.ctypes.data),
                position,
                len(data),
                frames,
                table.flows,
                border.homeland.tables,
                border.allowed,
                counts,
            )
        batches.append(table.drain())
    return {"read": int(counts.sum()), **_side_totals(batches)}


def reader(path: Path) -> Facts:
    """The reader of captures from the file on: read, kernel, raw batches out."""
    return _twice(_reader, path)


def _reader(path: Path, timer: _Timer) -> Facts:
    from telemetry.readers import find_reader, open_source
    from telemetry.records import Tally

    source, tally, border = open_source(str(path)), Tally(), _border()
    with timer:
        batches = list(find_reader(source).read(source, border, tally))
    source.close()
    return {"read": tally.read, **_side_totals(batches)}


def zeek(path: Path) -> Facts:
    """The reader of Zeek's conn.log; `read` are lines."""
    return _twice(_zeek, path)


def _zeek(path: Path, timer: _Timer) -> Facts:
    from telemetry.readers import find_reader, open_source
    from telemetry.records import Tally

    source, tally, border = open_source(str(path)), Tally(), _border()
    with timer:
        for _ in find_reader(source).read(source, border, tally):
            pass
    source.close()
    return {"read": tally.read}


def dpkt(path: Path, packets: str) -> Facts:
    """The least a flow meter on dpkt does: five-tuple, packets, bytes, first and last."""
    import dpkt

    limit, read, flows, timer = int(packets), 0, {}, _Timer()  # type: ignore[var-annotated]
    with path.open("rb") as file, timer:
        for moment, frame in dpkt.pcap.Reader(file):
            ip = dpkt.ethernet.Ethernet(frame).data
            six = isinstance(ip, dpkt.ip6.IP6)
            ports = (ip.data.sport, ip.data.dport)
            key = (ip.src, ip.dst, ip.nxt if six else ip.p, *ports)
            flow = flows.setdefault(key, [0, 0, moment, moment])
            flow[0] += 1
            flow[1] += ip.plen + 40 if six else ip.len
            flow[3] = moment
            read += 1
            if read == limit:
                break
    return {"wall": timer.wall, "cpu": timer.cpu, "read": sum(flow[0] for flow in flows.values())}


def lake(path: Path) -> Facts:
    """Totals of a committed lake, asked of its catalog."""
    from telemetry.lake import query

    row = query(
        path,
        "SELECT sum(endpoint_packets + peer_packets) AS kept, "
        "sum(endpoint_bytes + peer_bytes) AS kept_bytes, count(*) AS records FROM stored_records",
    ).to_pylist()[0]
    return {name: int(value) for name, value in row.items()}


def domestic(path: Path) -> Facts:
    """Prefixes that the generated capture uses as domestic; `path` is not looked at."""
    from telemetry.samples.plan import HOME, HOME6

    return {"prefixes": [str(network) for network in (*HOME, *HOME6)]}


def make_packets(path: Path, packets: str) -> Facts:
    """Writes the capture: 6 flows in 100 packets, heavy-tailed, a tenth of them IPv6."""
    from telemetry.samples import generate_packets

    n = int(packets)
    generate_packets(path, packets=n, flows=max(1, n * 6 // 100), ipv6=0.1, snaplen=96)
    return {}


def make_zeek(path: Path, lines: str) -> Facts:
    """Writes a conn.log of synthetic connections between foreign and domestic hosts."""
    import random

    dice = random.Random(1)
    names = "ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto service duration orig_bytes "
    names += "resp_bytes conn_state history orig_pkts orig_ip_bytes resp_pkts resp_ip_bytes"
    with path.open("w") as file:
        file.write("#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n")
        file.write("#path\tconn\n#fields\t" + "\t".join(names.split()) + "\n")
        for i in range(int(lines)):
            host, far = dice.getrandbits(16), dice.getrandbits(20)
            file.write(
                f"{1_791_936_000 + i / 1000:.6f}\tC{i:017x}\t133.11.{host >> 8}.{host & 255}\t"
                f"{dice.randrange(1024, 65536)}\t17.{far >> 16}.{far >> 8 & 255}.{far & 255}\t443\t"
                f"tcp\tssl\t{dice.random():.6f}\t{dice.randrange(9999)}\t{dice.randrange(99999)}\t"
                "SF\tShADadFf\t12\t1840\t10\t9120\n"
            )
    return {}


_TASKS: dict[str, Callable[..., Facts]] = {
    task.__name__: task
    for task in (kernel, reader, zeek, dpkt, lake, domestic, make_packets, make_zeek)
}

if __name__ == "__main__":
    print(json.dumps(_TASKS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])))
