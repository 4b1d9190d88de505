"""Live delivery beside the reference Node socket.io server, with a load client written in C.

    python -m bench.fanout [--sizes 100,1000,4000] [--seconds 4] [--stalled-seconds 20] [--json]

Both servers get the same: one item of 200 bytes after another over Socket.IO, at most 8 under way,
each to all subscribers. Node sends each in a frame of its own and keeps none; ours makes each
durable before, holds none back, and sends those that shared a commit in one frame. Then ours alone
with event streams, with items coalesced as by default, paced at 50 a second (beside Node and
`bench.bare`, which is what the machine allows; there every item has a frame of its own), and the
memory of subscribers to whom nothing happens. Needs gcc, and node with npm for the peer.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests

from bench.node import ROOT, Node, running
from bench.progress import progress

CLIENT = ROOT / "../shared/load/fanout.c"
SOCKET_IO = "socket.io@4.8.1"
SUBSCRIBE = '420["subscribe",{}]'
INGEST = "/api/context/ingest"
STREAM = "/api/context/stream"
TURN_S = 10.0
PEER = """
const { Server } = require("socket.io");
const io = new Server(Number(process.argv[2]), { perMessageDeflate: false });
io.on("connection", (socket) => socket.on("ingest", (item) => io.emit("context", item)));
"""
# An item's own fields are refused at the top of ours: they go into `data`.
_OWN = r"\"t0\":%llu,\"seq\":%llu,\"source\":\"binance\",\"data\":{"
_DATA = r"\"source\":\"binance\",\"data\":{\"t0\":%llu,\"seq\":%llu,"


class Load:
    """The client, built in a folder."""

    def __init__(self, folder: Path, seconds: float) -> None:
        source = CLIENT.read_text()
        if _OWN not in source:
            raise SystemExit(f"{CLIENT} is not the client that this benchmark knows")
        source = source.replace(_OWN, _DATA).replace(r"42[\"pub\"", r"42[\"ingest\"")
        (folder / "client.c").write_text(source)
        self._program, self._seconds = folder / "client", seconds
        command = ["gcc", "-O2", "-w", "-o", self._program, folder / "client.c"]
        subprocess.run(command, check=True)

    def run(self, port: int, pid: int, subscribers: int, **options: str) -> dict[str, Any]:
        """Figures of one run, checked: every subscriber got everything."""
        given = {
            "port": str(port),
            "pid": str(pid),
            "n": str(subscribers),
            "secs": str(self._seconds),
        } | options
        command = [str(self._program), *(x for k, v in given.items() for x in (f"--{k}", v))]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=self._seconds + 120
        )
        figures: dict[str, Any] = json.loads(re.sub(r"\binf\b|\bnan\b", "0", done.stdout))
        if figures["lost"] or figures["dead"]:
            raise SystemExit(f"{figures['lost']} lost, {figures['dead']} disconnected: {done}")
        return figures


@contextmanager
def bare() -> Iterator[tuple[int, int]]:
    """Port and pid of a loop that only sends."""
    with _serving([sys.executable, "-m", "bench.bare"], ROOT) as found:
        yield found


@contextmanager
def peer(folder: Path) -> Iterator[tuple[int, int] | None]:
    """Port and pid of the reference server; None without node and npm."""
    if not (shutil.which("node") and shutil.which("npm")):
        yield None
        return
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", SOCKET_IO]
    subprocess.run(install, cwd=folder, check=True)
    (folder / "peer.js").write_text(PEER)
    with _serving(["node", "peer.js"], folder) as found:
        yield found


@contextmanager
def _serving(command: Sequence[str], folder: Path) -> Iterator[tuple[int, int]]:
    """Port and pid of a server that takes its port as its last argument."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([*command, str(port)], cwd=folder) as process:
        try:
            _until_open(port)
            yield port, process.pid
        finally:
            process.terminate()


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the reference server did not start")


def web(node: Node) -> psutil.Process:
    """The process that serves subscribers."""
    children = psutil.Process(node.process.pid).children(recursive=True)
    return next(each for each in children if each.cmdline()[-1] == "server.web")


def idle_kb(count: int) -> float:
    """KB of memory of a subscriber to whom nothing happens."""
    with running() as node:
        process = web(node)
        before = process.memory_info().rss
        request = f"GET {STREAM} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        sockets = []
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", node.port))
            sock.sendall(request)
            sockets.append(sock)
        for sock in sockets:
            while b"retry" not in sock.recv(4096):
                pass
        after = process.memory_info().rss
        for sock in sockets:
            sock.close()
    return (after - before) / 1024 / count


def stalled(folder: Path, count: int, asleep: int, seconds: float) -> dict[str, Any]:
    """Latency of `count` subscribers at 50 items a second, for so long alone and so long beside
    `asleep` that read nothing; and by how much the process grows meanwhile.

    Two nodes take turns, as a machine's speed changes within minutes more than is looked for.
    Figures are medians of turns, beside them the worst.
    """
    paced = {"proto": "sio", "hello": SUBSCRIBE, "rate": "50"}
    first, load = Load(folder, 2), Load(folder, TURN_S)
    stays = {"STALL_S": "86400"}
    with running(**stays) as quiet, running(**stays) as shared, ExitStack() as opened:
        nodes = {"alone": quiet, "beside": shared}
        for node in nodes.values():
            first.run(node.port, web(node).pid, count, **paced)
        before = {name: web(node).memory_info().rss for name, node in nodes.items()}
        for _ in range(asleep):
            opened.enter_context(_asleep(shared))
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in nodes}
        for turn in range(max(1, round(seconds / TURN_S))):
            for name in sorted(nodes, reverse=turn % 2 == 1):
                node = nodes[name]
                turns[name].append(load.run(node.port, web(node).pid, count, **paced))
        behind = _behind(shared)
        after = {name: web(node).memory_info().rss for name, node in nodes.items()}
    found: dict[str, Any] = {"seconds": seconds, "sleepers that fell behind": behind}
    for name, rows in turns.items():
        found[name] = {
            shown: round(statistics.median(row[shown] for row in rows), 2)
            for shown in ("p50_ms", "p99_ms", "server_cpu_us_per_delivery")
        }
        found[name]["worst_p99_ms"] = round(max(row["p99_ms"] for row in rows), 2)
        found[name]["grown_mb"] = round((after[name] - before[name]) / 2**20, 1)
    return found


def _asleep(node: Node) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else the kernel reads for it
    sock.connect(("127.0.0.1", node.port))
    sock.sendall(f"GET {STREAM} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return sock


def _behind(node: Node) -> int:
    text = requests.get(f"{node.url}/metrics", timeout=10).text
    return int(
        float(re.findall(r'^context_delivery_changes_total{to="behind"} (.+)$', text, re.M)[0])
    )


def ours(load: Load, subscribers: int, settings: dict[str, str], **options: str) -> dict[str, Any]:
    """Figures of a fresh node."""
    with running(**settings) as node:
        return load.run(node.port, web(node).pid, subscribers, **options)


def measure(sizes: list[int], seconds: float, asleep_s: float) -> dict[str, Any]:
    """All figures of one run, by subscribers."""
    sio = {"proto": "sio", "hello": SUBSCRIBE}
    sse = {"proto": "sse", "path": STREAM, "pub": INGEST}
    single = {"MAX_DELAY_MS": "0"}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="context-fanout-") as name:
        folder = Path(name)
        load = Load(folder, seconds)
        with peer(folder) as reference, progress("runs", 9 * len(sizes) + 2) as done:
            for count in sizes:
                rows = figures[str(count)] = {}
                if reference:
                    rows["Node socket.io"] = load.run(*reference, count, proto="sio")
                    paced = {"proto": "sio", "rate": "50"}
                    rows["Node socket.io, 50/s"] = load.run(*reference, count, **paced)
                done(2)
                with bare() as loop:
                    rows["a bare loop, 50/s"] = load.run(*loop, count, rate="50", **sse)
                done(1)
                rows["Socket.IO"] = ours(load, count, single, **sio)
                done(1)
                rows["Socket.IO, 50/s"] = ours(load, count, {}, rate="50", **sio)
                done(1)
                two = {"WEB_WORKERS": "2"}
                rows["Socket.IO, 2 processes"] = ours(load, count, single | two, **sio)
                done(1)
                rows["same, 50/s"] = ours(load, count, two, rate="50", **sio)
                done(1)
                rows["streams, coalesced"] = ours(load, count, {}, batch="500", **sse)
                done(1)
                coalesced = {"pub": INGEST, "batch": "500", **sio}
                rows["Socket.IO, coalesced"] = ours(load, count, {}, **coalesced)
                done(1)
            figures["stalled"] = stalled(folder, 1000, 50, asleep_s)
            done(1)
            figures["idle_kb"] = round(idle_kb(1000), 1)
            done(1)
    return figures


def show(figures: dict[str, Any]) -> None:
    """The figures for people."""
    for count, rows in figures.items():
        if count == "idle_kb":
            print(f"{rows} KB of memory an idle subscriber")
            continue
        if count == "stalled":
            print(f"1000 subscribers beside 50 that never read: {rows}")
            continue
        base = rows.get("Node socket.io", {}).get("deliveries_per_s")
        for name, row in rows.items():
            ratio = f"  {row['deliveries_per_s'] / base:6.2f} times Node" if base else ""
            print(
                f"{count:>5} {name:22} {row['deliveries_per_s']:>11,.0f} deliveries/s"
                f"  p50 {row['p50_ms']:8.2f} ms  p99 {row['p99_ms']:8.2f} ms"
                f"  {row['server_cpu_us_per_delivery']:6.2f} us CPU each{ratio}"
            )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100,1000,4000")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--stalled-seconds", type=float, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not (CLIENT.exists() and shutil.which("gcc")):
        sys.exit(f"this benchmark needs gcc and {CLIENT}")
    sizes = [int(size) for size in args.sizes.split(",") if size]
    figures = measure(sizes, args.seconds, args.stalled_seconds)
    print(json.dumps(figures)) if args.json else show(figures)


if __name__ == "__main__":
    main()
