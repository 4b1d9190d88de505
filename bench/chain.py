"""How many durable decisions a node takes a second, and whether all of them replay afterwards.

    python -m bench.chain [--decisions 10000] [--askers 64] [--ticks 5] [--flips 300] [--json]

Every decision is asked of five models in the node's process (the three built-in ones and two of
`bench.quick_models`), packed, chained and durable before it is answered; asked at the agent's
socket over 64 connections, while new prices come in. In the same run: as many single items of a
decision's size, made durable in the same way, which is what the group commit allows. Then the node
is killed (SIGKILL) and started again, its chain is verified through the node and from its files,
every decision of it is replayed, and single bytes of the stored decisions are changed (`--flips`
times, on a copy): each has to be found.
"""

from __future__ import annotations

import argparse
import json
import random
import selectors
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import requests

from ai_bridge.chain import mark
from ai_bridge.chain_walk import Walk
from bench import corpus
from bench.node import ROOT, Node, running
from bench.progress import progress
from context.adapters.archive import Archive
from context.adapters.log_sqlite import SqliteLog
from context.adapters.mending import read_after
from server import ipc
from server.agent_client import AgentClient
from server.ipc import HEADER_BYTES, Answer, Request

_answer = msgspec.msgpack.Decoder(Answer).decode
A_ROUND = 90  # a report names a hundred problems


def calls(node: Node, method: str, body: bytes, count: int, askers: int) -> float:
    """Seconds for so many calls over so many connections, each with one call at a time."""
    asked = {"request_id": "bench", "content_type": "application/json"}
    frame = ipc.pack(Request(method, asked, body))
    with selectors.DefaultSelector() as ready, ExitStack() as opened:
        for _ in range(askers):
            sock = opened.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(node.data / "agent.sock"))
            ready.register(sock, selectors.EVENT_READ, bytearray())
        started, sent, done = time.perf_counter(), 0, 0
        for key in ready.get_map().values():
            key.fileobj.sendall(frame)  # type: ignore[union-attr]
            sent += 1
        while done < count:
            for key, _ in ready.select():
                sock, came = cast(socket.socket, key.fileobj), key.data
                came += sock.recv(1 << 16)
                if len(came) < HEADER_BYTES or len(came) < HEADER_BYTES + ipc.length(
                    came[:HEADER_BYTES]
                ):
                    continue
                answer = _answer(memoryview(came)[HEADER_BYTES:])
                assert answer.status in (200, 201), answer.body[:200]
                key.data.clear()
                done += 1
                if sent < count:
                    sock.sendall(frame)
                    sent += 1
        return time.perf_counter() - started


@contextmanager
def ticking(node: Node, symbol: str, ticks: float) -> Iterator[None]:
    """New prices of the symbol all the while: each makes a new question."""
    ended, chance = threading.Event(), random.Random(1)

    def tick() -> None:
        with requests.Session() as session:
            while not ended.wait(1 / ticks):
                data = {"symbol": symbol, "price": 100 + chance.random(), "volume": 1.0}
                item = {"type": "trading_data", "source": "bench", "data": data}
                session.post(f"{node.url}/api/context/ingest", json=item, timeout=60)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def verify(*args: str) -> dict[str, Any]:
    """Report of the command line, and its seconds."""
    started = time.perf_counter()
    done = _verified(*args)
    done.check_returncode()
    report: dict[str, Any] = json.loads(done.stdout)
    return report | {"seconds": time.perf_counter() - started}


def _verified(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "app.py", "--verify-decisions", "--json", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def entries(data: Path) -> tuple[str, list[tuple[int, bytes]]]:
    """The log's epoch, and all lines of a stopped node by offset."""
    archive, log_ = Archive(data), SqliteLog(data / "log.db")
    lines, after = list[tuple[int, bytes]](), -1
    while batches := read_after(archive, log_, after, max_bytes=16 << 20):
        for batch in batches:
            texts = batch.text.split(b"\n")[:-1]
            lines += enumerate(texts, batch.first_offset)
        after = batches[-1].last_offset
    epoch = log_.epoch
    log_.close()
    return epoch, lines


def flip_lines(data: Path, flips: int) -> int:
    """Change a random bit of that many entries, a round of them at a time; how many were found."""
    epoch, lines = entries(data)
    chance, found = random.Random(7), 0
    ours = [place for place, (_, line) in enumerate(lines) if mark(epoch) in line]
    chosen = chance.sample(ours, min(flips, len(ours)))
    with progress("changed bytes", len(chosen)) as step:
        for begin in range(0, len(chosen), A_ROUND):
            changed = {
                place: _flipped(lines[place][1], chance) for place in chosen[begin:][:A_ROUND]
            }
            walk = Walk(epoch)
            for place, (offset, line) in enumerate(lines):
                walk.see(offset, changed.get(place, line))
            told = {each.offset for each in walk.finish().problems}
            found += len({lines[place][0] for place in changed} & told)
            step(len(changed))
    return found


def flip_stored(data: Path, flips: int) -> int:
    """Change a random bit of what the file holds of a batch (compressed); how many were found."""
    chance, found = random.Random(8), 0
    epoch, lines = entries(data)
    ours = {offset for offset, line in lines if mark(epoch) in line}
    db = sqlite3.connect(data / "log.db", isolation_level=None)
    held = db.execute("SELECT first_offset, count FROM batches").fetchall()
    places = [first for first, count in held if ours & set(range(first, first + count))]
    with progress("changed files", flips) as step:
        for _ in range(flips):
            first = chance.choice(places)
            read = "SELECT body FROM batches WHERE first_offset = ?"
            [body] = db.execute(read, (first,)).fetchone()
            write = "UPDATE batches SET body = ? WHERE first_offset = ?"
            db.execute(write, (_flipped(body, chance), first))
            found += _verified("--data", str(data)).returncode != 0
            db.execute(write, (body, first))
            step(1)
    db.close()
    return found


def _flipped(body: bytes, chance: random.Random) -> bytes:
    changed = bytearray(body)
    changed[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def measure(count: int, askers: int, ticks: float, flips: int) -> dict[str, Any]:
    """Decide, kill, start again, verify twice, change bytes."""
    with tempfile.TemporaryDirectory(prefix="context-bench-") as folder:
        data = Path(folder)
        with running(data, MODEL_MODULES="bench.quick_models") as node:
            symbol = prepared(node)
            body = msgspec.json.encode({"symbols": [symbol]})
            limit = calls(node, "ingest", one_item(node, body), count, askers)
            before = node.cpu_s()["agent"]
            with ticking(node, symbol, ticks):
                seconds = calls(node, "decide", body, count, askers)
            cpu = node.cpu_s()["agent"] - before
            node.process.send_signal(signal.SIGKILL)
            node.process.wait()
        with running(data, MODEL_MODULES="bench.quick_models") as node:
            online = verify("--url", node.url)
        offline = verify("--data", folder)
        found, stored = flip_lines(data, flips), flip_stored(data, flips // 10)
    return {
        "decisions": count,
        "per_s": count / seconds,
        "single_items_per_s": count / limit,
        "share_of_that": limit / seconds,
        "agent_cpu_ms_each": 1e3 * cpu / count,
        "replayed_online": online["replayed"],
        "replayed_offline": offline["replayed"],
        "verify_online_s": online["seconds"],
        "verify_offline_s": offline["seconds"],
        "changed_bytes": flips,
        "changed_bytes_found": found,
        "changed_in_files": flips // 10,
        "changed_in_files_found": stored,
    }


def prepared(node: Node) -> str:
    """Store prices and add the two models; returns the symbol to decide on."""
    items = list(corpus.items(2000))
    requests.post(f"{node.url}/api/context/ingest", json=items, timeout=60).raise_for_status()
    for name in ("LastTick", "Range"):
        spec = {"name": name.lower(), "kind": "custom", "model": name}
        models = f"{node.url}/api/context/ai/models"
        requests.post(models, json=spec, timeout=60).raise_for_status()
    trading = (item for item in items if item["type"] == "trading_data")
    return str(next(trading)["data"]["symbol"])


def one_item(node: Node, body: bytes) -> bytes:
    """An item as large as a stored decision, which the same agent checks and stores."""
    answer = AgentClient(node.data / "agent.sock").call("decide", {"request_id": "bench"}, body)
    record = msgspec.json.decode(answer.body)
    del record["chain"]
    return msgspec.json.encode({"type": "padding", "source": "bench", "data": record})


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--askers", type=int, default=64)
    parser.add_argument("--ticks", type=float, default=5.0, help="new prices a second")
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.decisions, args.askers, args.ticks, args.flips)
    if args.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:22} {value:,.2f}" if isinstance(value, float) else f"{name:22} {value:,}")


if __name__ == "__main__":
    main()
