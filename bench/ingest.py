"""Durable ingest: items per second and per CPU second, beside what the machine itself can do.

    python -m bench.ingest [--items 500000] [--json]

Everything is switched on: checks, fsync before the answer, index, sealing, one live subscriber.
CPU is counted until the node rests again: what it does after the last answer belongs to the items.

The reference runs in the same process on the same disk: it writes the same batches into SQLite,
compressed the same way, with one FULL commit each, but checks, indexes and serves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard

from bench import corpus
from bench.load import request, send
from bench.node import Node, running

FILL_BATCHES = 300  # of 1,000 items: 64 MB


def post_all(node: Node, bodies: list[bytes], media: str, connections: int) -> dict[str, Any]:
    """Send every body once over keep-alive connections; each waits for its acknowledgement."""
    requests = [request(body, media) for body in bodies]
    before = node.cpu_s()
    sent = send(node.port, requests, connections)
    after = at_rest(node)
    return {
        "requests": len(bodies),
        "seconds": round(sent.seconds, 3),
        "cpu_s": {role: round(after[role] - before[role], 3) for role in after},
        "p50_ms": round(sent.waits[len(bodies) // 2] * 1e3, 2),
        "p99_ms": round(sent.waits[int(len(bodies) * 0.99)] * 1e3, 2),
    }


@contextmanager
def subscribed(node: Node, wish: str = "") -> Iterator[None]:
    """One live subscriber, to everything or with a query string, in a process of its own."""
    command = ["curl", "-sN", "-o", os.devnull, f"{node.url}/api/context/stream{wish}"]
    if not shutil.which(command[0]):
        raise SystemExit("this benchmark needs curl for its subscriber")
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.terminate()


def warm_up(node: Node, batches: list[bytes]) -> None:
    """Let the node load what it compiles or imports once, and come to rest.

    With `FILL_BATCHES` its rings and caches are full as well, as those of a node are that has run
    for some seconds: fresh pages cost as much as all else here.
    """
    post_all(node, batches, "application/x-ndjson", 1)


def at_rest(node: Node) -> dict[str, float]:
    """CPU seconds of the node by role, once it does nothing any more."""
    before, quiet = node.cpu_s(), 0
    while quiet < 4:
        time.sleep(0.25)
        now = node.cpu_s()
        quiet = quiet + 1 if now["all"] - before["all"] < 0.02 else 0
        before = now
    return before


def with_items(figures: dict[str, Any], count: int) -> dict[str, Any]:
    """Add rates per item."""
    cpu = figures["cpu_s"]
    figures["items_per_s"] = round(count / figures["seconds"])
    figures["items_per_cpu_s"] = round(count / cpu["all"])
    figures["cpu_us_per_item"] = {role: round(cpu[role] / count * 1e6, 2) for role in cpu}
    return figures


def sqlite_limit(batches: list[bytes]) -> float:
    """Batches per second that SQLite makes durable with one FULL commit each."""
    compress = zstandard.ZstdCompressor(level=1).compress
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder) / "limit.db", isolation_level=None)
        db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE batches(first INTEGER PRIMARY KEY, body BLOB)")
        started = time.perf_counter()
        for i, batch in enumerate(batches):
            db.execute("INSERT INTO batches VALUES (?, ?)", (i, compress(batch)))
        took = time.perf_counter() - started
        db.close()
    return len(batches) / took


def measure(count: int) -> dict[str, Any]:
    """All figures of one run."""
    all_lines = corpus.lines(count)
    batches = [b"\n".join(all_lines[i : i + 1000]) for i in range(0, count, 1000)]
    singles = all_lines[: min(20_000, count)]
    figures: dict[str, Any] = {"items": count, "bytes_per_item": round(len(batches[0]) / 1000)}
    hundreds = [b"\n".join(all_lines[i : i + 100]) for i in range(0, count // 2, 100)]
    runs = {
        "batches_of_1000_over_1": (batches, 1),
        "batches_of_1000_over_4": (batches, 4),
        "batches_of_1000_over_16": (batches, 16),
        "batches_of_100_over_4": (hundreds, 4),
        "batches_of_100_over_16": (hundreds, 16),
        "single_over_8": (singles, 8),
    }
    for name, (bodies, connections) in runs.items():
        media = "application/json" if bodies is singles else "application/x-ndjson"
        with running() as node, subscribed(node):
            warm_up(node, batches[:FILL_BATCHES])
            sent = post_all(node, bodies, media, connections)
            items = sum(body.count(b"\n") + 1 for body in bodies)
            figures[name] = with_items(sent, items)
    limit = sqlite_limit(batches)
    best = max(figures[f"batches_of_1000_over_{n}"]["items_per_s"] for n in (1, 4, 16))
    figures["sqlite_alone_items_per_s"] = round(limit * 1000)
    figures["share_of_sqlite_alone"] = round(best / (limit * 1000), 3)
    return figures


def show(figures: dict[str, Any]) -> None:
    """The figures as lines for people."""
    print(f"{figures['items']:,} items of {figures['bytes_per_item']} bytes")
    for name, row in figures.items():
        if not isinstance(row, dict):
            continue
        print(
            f"  {name:24} {row['items_per_s']:>9,} items/s   {row['items_per_cpu_s']:>9,} per CPU"
            f" second   p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms"
            f"   us an item: agent {row['cpu_us_per_item']['agent']}, web"
            f" {row['cpu_us_per_item']['web']}"
        )
    print(
        f"  SQLite alone             {figures['sqlite_alone_items_per_s']:>9,} items/s"
        f"   the node reaches {figures['share_of_sqlite_alone']:.0%} of it"
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=500_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.items)
    if args.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
