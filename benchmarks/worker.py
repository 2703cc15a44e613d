"""What is measured inside a process of ours: `python -m benchmarks.worker WHAT FILE …`.

Each function prints one JSON object: `wall` and `cpu` seconds of the part that counts
(without the start of the interpreter or compilation), and the totals it found.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
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
    from telemetry.readers.packets.capture import TABLE_FULL, Frames
    from telemetry.readers.packets.meter import FlowTable
    from telemetry.reasons import Reason
    from telemetry.records import Tally

    counts = np.zeros(len(Reason), np.int64)
    # As read_frames sets it up, but with the whole capture as its buffer.
    frames = Frames.empty()
    head = io.BufferedReader(io.BytesIO(data[:4096].tobytes()))
    walker = pcap.READER.walker(head, Tally())
    border, table = _border(), FlowTable(1 << 19)
    batches, position, status = [], head.tell(), TABLE_FULL
    while status == TABLE_FULL:
        with timer:
            position, status = walker.meter(
                walker.state,
                np.uint64(data.ctypes.data),
                position,
                len(data),
                frames,
                table.flows,
                border.homeland.tables,
                border.allowed,
                counts,
            )
        batches += table.drain()
    return {"read": int(counts.sum()), **_side_totals(batches)}


def reader(path: Path) -> Facts:
    """The reader of captures from the file on: read, kernel, raw batches out."""
    return _twice(_reader, path)


def _reader(path: Path, timer: _Timer) -> Facts:
    from telemetry.readers import Session, find_reader, open_source
    from telemetry.records import Tally

    source, tally, session = open_source(str(path)), Tally(), Session(_border())
    with timer:
        batches = list(find_reader(source, session).read(source, session, tally))
    source.close()
    return {"read": tally.read, **_side_totals(batches)}


def gate(path: Path) -> Facts:
    """The gate alone: classes both addresses of every packet, then admits the raw batches."""
    return _twice(_gate, path)


def _gate(path: Path, timer: _Timer) -> Facts:
    import numpy as np

    from telemetry.privacy import Gate, Keys
    from telemetry.readers import Session, find_reader, open_source
    from telemetry.records import Tally

    source, tally, session = open_source(str(path)), Tally(), Session(_border())
    batches = list(find_reader(source, session).read(source, session, tally))
    source.close()
    gate = Gate(session.border, Keys(bytes(32)), "bench")
    # Packets that were dropped are no longer there; those that were kept stand in for them.
    packets = [np.maximum(batch.a.packets + batch.b.packets, 1) for batch in batches]
    ends = [
        np.resize(
            np.concatenate(
                [np.repeat(getattr(b, name), n) for b, n in zip(batches, packets, strict=True)]
            ),
            tally.read,
        )
        for name in ("a_hi", "a_lo", "b_hi", "b_lo")
    ]
    with timer:
        for hi, lo in (ends[:2], ends[2:]):
            session.border.homeland.classify(hi, lo)
        for batch in batches:
            gate.admit(batch, Tally(), True)
    return {"read": tally.read, **_side_totals(batches)}


def exports(path: Path) -> Facts:
    """The reader of flow exports; `read` are records, `kept` the packets they count."""
    return _twice(_exports, path)


def _exports(path: Path, timer: _Timer) -> Facts:
    from telemetry.readers import Session, find_reader, open_source
    from telemetry.records import Tally

    source, tally, session = open_source(str(path)), Tally(), Session(_border())
    totals = {"kept": 0, "kept_bytes": 0}
    with timer:
        for batch in find_reader(source, session).read(source, session, tally):
            totals["kept"] += int(batch.a.packets.sum())
            totals["kept_bytes"] += int(batch.a.bytes.sum())
    source.close()
    return {"read": tally.read, **totals}


def _datagrams(path: Path) -> Iterator[bytes]:
    """Returns the UDP payloads of a capture that `make_exports` wrote."""
    data = path.read_bytes()
    at = 24
    while at < len(data):
        size = int.from_bytes(data[at + 8 : at + 12], "little")
        yield data[at + 16 + _FRAMING : at + 16 + size]
        at += 16 + size


def netflow(path: Path, records: str) -> Facts:
    """PyPI's netflow: parses datagrams to objects; runs in the environment of the peers."""
    from netflow import parse_packet

    known: dict[str, Any] = {"netflow": {}, "ipfix": {}}
    limit, read, timer = int(records), 0, _Timer()
    for datagram in _datagrams(path):
        with timer:
            export = parse_packet(datagram, known)
        read += len(export.flows)
        if read >= limit:
            break
    return {"wall": timer.wall, "cpu": timer.cpu, "read": read}


def replay(path: Path, port: str) -> Facts:
    """Sends datagrams over the loopback interface, as fast as they are taken."""
    import socket

    waiting = f":{int(port):04X} "

    def queued() -> int:
        for line in Path("/proc/net/udp").read_text().splitlines():
            if waiting in line.split(" rem_address")[0][:30]:
                return int(line.split()[4].partition(":")[2], 16)
        return -1

    while queued() < 0:
        time.sleep(0.01)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for i, datagram in enumerate(_datagrams(path)):
        if i % 32 == 0:
            while queued() > 50_000:
                time.sleep(0.0002)
        sender.sendto(datagram, ("127.0.0.1", int(port)))
    while queued() > 0:
        time.sleep(0.01)
    return {}


def zeek(path: Path) -> Facts:
    """The reader of Zeek's conn.log; `read` are lines."""
    return _twice(_zeek, path)


def zat(path: Path) -> Facts:
    """PyPI's zat: rows as dictionaries; runs in the environment of the peers."""
    from zat.zeek_log_reader import ZeekLogReader

    timer = _Timer()
    with redirect_stdout(sys.stderr), timer:  # it greets
        read = sum(1 for _ in ZeekLogReader(str(path)).readrows())
    return {"wall": timer.wall, "cpu": timer.cpu, "read": read}


def _zeek(path: Path, timer: _Timer) -> Facts:
    from telemetry.readers import Session, find_reader, open_source
    from telemetry.records import Tally

    source, tally, session = open_source(str(path)), Tally(), Session(_border())
    with timer:
        for _ in find_reader(source, session).read(source, session, tally):
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


def nfstream(path: Path, packets: str) -> Facts:
    """PyPI's NFStream: flows without dissection or statistics; runs with the peers.

    It has no limit, so the first packets are copied; it drops some without a word, about one in
    twenty of ours, so that its own count is no check.
    """
    import os
    import tempfile

    from nfstream import NFStreamer

    timer, limit = _Timer(), int(packets)
    with tempfile.NamedTemporaryFile(suffix=".pcap") as part:
        part.write(_first_packets(path, limit))
        part.flush()
        with redirect_stdout(sys.stderr), timer:  # it warns of the one core
            source = NFStreamer(
                source=part.name, n_dissections=0, statistical_analysis=False, n_meters=1
            )
            counted = sum(flow.bidirectional_packets for flow in source)
    children = os.times()  # it meters in processes of its own
    if not 0.9 * limit <= counted <= limit:
        raise ValueError(f"NFStream counted {counted} of {limit} packets")
    cpu = timer.cpu + children.children_user + children.children_system
    return {"wall": timer.wall, "cpu": cpu, "read": limit}


def _first_packets(path: Path, packets: int) -> bytes:
    """Returns the beginning of a capture that `make_packets` wrote."""
    with path.open("rb") as file:
        data = file.read(24 + packets * (16 + 96))
    at = 24
    for _ in range(packets):
        at += 16 + int.from_bytes(data[at + 8 : at + 12], "little")
    return data[:at]


def lake(path: Path) -> Facts:
    """Totals of a committed lake, asked of its catalog."""
    from telemetry.lake import query

    row = query(
        path,
        "SELECT sum(endpoint_packets + peer_packets) AS kept, "
        "sum(endpoint_bytes + peer_bytes) AS kept_bytes, count(*) AS records FROM stored_records",
        unselected=True,
    ).to_pylist()[0]
    return {name: int(value) for name, value in row.items()}


def checksum(path: Path) -> Facts:
    """Returns how many records a lake holds, and the sum of a hash of each."""
    from telemetry.lake import query

    sql = "SELECT count(*) AS n, sum(hash(r))::VARCHAR AS total FROM stored_records AS r"
    row = query(path, sql, unselected=True).to_pylist()[0]
    return {"records": row["n"], "checksum": row["total"]}


def split(path: Path, capture: str, pieces: str) -> Facts:
    """Cuts a capture that `make_packets` wrote into files of like size, between packets."""
    with Path(capture).open("rb") as file:
        head, size = file.read(24), Path(capture).stat().st_size
        for number in range(int(pieces)):
            end = size * (number + 1) // int(pieces)
            with path.with_name(f"{path.name}-{number}.pcap").open("wb") as piece:
                piece.write(head)
                while file.tell() < end and (record := file.read(16)):
                    piece.write(record + file.read(int.from_bytes(record[8:12], "little")))
    return {}


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


def busiest(path: Path) -> Facts:
    """Returns the address with the most records of a lake."""
    from telemetry.lake import catalog

    sql = "SELECT endpoint_ip FROM stored_records GROUP BY ALL ORDER BY count(*) DESC, 1 LIMIT 1"
    return {"address": catalog.query(path, sql, unselected=True)["endpoint_ip"][0].as_py()}


def query(path: Path, sql: str) -> Facts:
    """Asks a lake, as in a notebook: the connection is open, the answer is fetched whole."""
    import time
    from contextlib import closing

    from telemetry.lake import catalog

    spent = []
    with closing(catalog.connect(path, unselected=True)) as connection:
        for _ in range(3):
            started = time.perf_counter()
            connection.sql(sql)
            spent.append(time.perf_counter() - started)
    return {"wall": min(spent)}


def pack(path: Path, plain: str) -> Facts:
    """Packs a file as zstd."""
    import zstandard

    with Path(plain).open("rb") as source, path.open("wb") as file:
        zstandard.ZstdCompressor().copy_stream(source, file)
    return {}


def make_flood(path: Path, packets: str) -> Facts:
    """Writes a SYN flood against one domestic host, each packet from another address or port."""
    import struct

    import numpy as np

    size = 54
    header = struct.pack("<IIII", 1_791_936_000, 0, size, size)
    ethernet = bytes(12) + b"\x08\x00"
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, b"\x11", b"\x85\x0b\x00\x01")
    tcp = struct.pack(">HHIIBBHHH", 0, 443, 0, 0, 0x50, 2, 1024, 0, 0)
    frame = np.frombuffer(header + ethernet + ip + tcp, np.uint8)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for start in range(0, int(packets), 1 << 18):
            number = np.arange(start, min(start + (1 << 18), int(packets)), dtype=np.uint64)
            mixed = number * np.uint64(0x9E3779B97F4A7C15)  # odd: no two numbers meet
            rows = np.tile(frame, (len(number), 1))
            rows[:, 4:8] = (number * 10 % 1_000_000).astype("<u4").view(np.uint8).reshape(-1, 4)
            seconds = (1_791_936_000 + number // 100_000).astype("<u4")
            rows[:, 0:4] = seconds.view(np.uint8).reshape(-1, 4)
            low = (mixed & np.uint64(0xFF_FFFF_FFFF)).astype(">u8").view(np.uint8).reshape(-1, 8)
            rows[:, 43:46], rows[:, 50:52] = low[:, 3:6], low[:, 6:8]
            file.write(rows.tobytes())
    return {}


def make_zeek(path: Path, lines: str) -> Facts:
    """Writes a conn.log of synthetic connections between foreign and domestic hosts."""
    import random

    dice = random.Random(1)
    names = "ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto service duration orig_bytes "
    names += "resp_bytes conn_state history orig_pkts orig_ip_bytes resp_pkts resp_ip_bytes"
    types = "time string addr port addr port enum string interval count count string string "
    types += "count count count count"
    with path.open("w") as file:
        file.write("#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n")
        file.write("#path\tconn\n#fields\t" + "\t".join(names.split()) + "\n")
        file.write("#types\t" + "\t".join(types.split()) + "\n")
        for i in range(int(lines)):
            host, far = dice.getrandbits(16), dice.getrandbits(20)
            file.write(
                f"{1_791_936_000 + i / 1000:.6f}\tC{i:017x}\t133.11.{host >> 8}.{host & 255}\t"
                f"{dice.randrange(1024, 65536)}\t17.{far >> 16}.{far >> 8 & 255}.{far & 255}\t443\t"
                f"tcp\tssl\t{dice.random():.6f}\t{dice.randrange(9999)}\t{dice.randrange(99999)}\t"
                "SF\tShADadFf\t12\t1840\t10\t9120\n"
            )
    return {}


_FRAMING = 14 + 20 + 8
_EXPORTED = 1_791_936_000
_A_DATAGRAM = 24
# Fields of a record, as element and width, and the names of v9's and IPFIX's times.
_FIELDS = ((10, 4), (14, 4), (2, 4), (1, 4), (7, 2), (11, 2), (6, 1), (4, 1), (5, 1), (16, 4))
_TIMES = {9: ((22, 4), (21, 4)), 10: ((152, 8), (153, 8))}


def make_exports(path: Path, kind: str, records: str) -> Facts:
    """Writes a capture of NetFlow v9 or IPFIX, 24 random records a datagram.

    Every tenth datagram is of IPv6, every twentieth begins with the templates.
    """
    import random
    import struct

    version, dice = int(kind), random.Random(1)
    templates, makers = b"", []
    for number, address in ((256, ((8, 4), (12, 4))), (257, ((27, 16), (28, 16)))):
        fields = (*address, *_FIELDS, *_TIMES[version])
        body = struct.pack(">HH", number, len(fields))
        body += b"".join(struct.pack(">HH", *field) for field in fields)
        templates += struct.pack(">HH", 0 if version == 9 else 2, 4 + len(body)) + body
        times = "II" if version == 9 else "QQ"
        makers.append(struct.Struct(f">{address[0][1]}s{address[1][1]}sIIIIHHBBBI{times}"))
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        left, i = int(records), 0
        while left:
            n, six = min(left, _A_DATAGRAM), i % 10 == 9
            rows = b"".join(_record(dice, makers[six], six, version) for _ in range(n))
            rows += bytes(-len(rows) % 4)
            sets = templates * (i % 20 == 0)
            sets += struct.pack(">HH", 257 if six else 256, 4 + len(rows)) + rows
            if version == 9:
                head = struct.pack(">HHIIII", 9, n, 1_000_000, _EXPORTED, i, 1)
            else:
                head = struct.pack(">HHIII", 10, 16 + len(sets), _EXPORTED, i, 1)
            file.write(_framed(head + sets))
            left, i = left - n, i + 1
    return {}


def _record(dice: Any, maker: Any, six: bool, version: int) -> bytes:
    """Returns one record between a host of 133.11/16 or 2400:4050::/32 and a foreign one."""
    ends = [b"\x85\x0b" + dice.randbytes(2), b"\x35" + dice.randbytes(3)]
    if six:
        ends = [prefix + dice.randbytes(12) for prefix in (b"\x24\0\x40\x50", b"\x20\x03\0\0")]
    if dice.random() < 0.5:
        ends.reverse()
    packets = 1 + int(dice.expovariate(0.1))
    ago = dice.randrange(1000, 60_000)
    now = 1_000_000 if version == 9 else _EXPORTED * 1000
    ports = dice.choice((443, 53, 80, 22)), dice.randrange(1024, 65536)
    fixed = (1, 2, packets, packets * dice.randrange(40, 1500), *ports, 27, 6, 0, 64500)
    return bytes(maker.pack(*ends, *fixed, now - ago, now - ago // 2))


def _framed(payload: bytes) -> bytes:
    """Returns a UDP datagram as a packet of a pcap file."""
    import struct

    size = _FRAMING + len(payload)
    ip = struct.pack(">BBHIBBH", 0x45, 0, size - 14, 0, 64, 17, 0) + bytes((192, 0, 2, 1)) * 2
    udp = struct.pack(">HHHH", 40000, 2055, size - 34, 0)
    head = struct.pack("<IIII", _EXPORTED, 0, size, size)
    return head + bytes(12) + b"\x08\x00" + ip + udp + payload


_TASKS: dict[str, Callable[..., Facts]] = {
    task.__name__: task
    for task in (
        kernel,
        reader,
        gate,
        exports,
        netflow,
        zat,
        replay,
        zeek,
        dpkt,
        lake,
        checksum,
        split,
        nfstream,
        domestic,
        make_packets,
        make_flood,
        busiest,
        query,
        pack,
        make_exports,
        make_zeek,
    )
}

if __name__ == "__main__":
    print(json.dumps(_TASKS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])))
