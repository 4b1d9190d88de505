"""Durable ingest: items per second and per CPU second, beside what the machine itself can do.

    python -m bench.ingest [--items 500000] [--json]

The reference runs in the same process on the same disk: it writes the same batches into SQLite,
compressed the same way, with one FULL commit each, but checks, indexes and serves nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sqlite3
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import zstandard

from bench import corpus
from bench.node import Node, running

PATH = "/api/context/ingest"


def post_all(node: Node, bodies: list[bytes], media: str, connections: int) -> dict[str, Any]:
    """Send every body once over keep-alive connections; each waits for its acknowledgement."""
    before, started = node.cpu_s(), time.perf_counter()
    waits: list[float] = []
    queue = list(reversed(bodies))

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
        while True:
            try:
                body = queue.pop()
            except IndexError:
                return
            asked = time.perf_counter()
            connection.request("POST", PATH, body, {"Content-Type": media})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                raise SystemExit(f"the node answered {answer.status}")
            waits.append(time.perf_counter() - asked)

    threads = [threading.Thread(target=send) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, after = time.perf_counter() - started, node.cpu_s()
    waits.sort()
    return {
        "requests": len(bodies),
        "seconds": round(took, 3),
        "cpu_s": {role: round(after[role] - before[role], 3) for role in after},
        "p50_ms": round(waits[len(waits) // 2] * 1e3, 2),
        "p99_ms": round(waits[int(len(waits) * 0.99)] * 1e3, 2),
    }


def warm_up(node: Node, batches: list[bytes]) -> None:
    """Let the node load what it compiles or imports once, and come to rest."""
    post_all(node, batches, "application/x-ndjson", 1)
    before, quiet = node.cpu_s()["all"], 0
    while quiet < 4:
        time.sleep(0.25)
        now = node.cpu_s()["all"]
        quiet = quiet + 1 if now - before < 0.02 else 0
        before = now


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
    for connections in (1, 4):
        with running() as node:
            warm_up(node, batches[:50])
            name = f"batches_of_1000_over_{connections}"
            sent = post_all(node, batches, "application/x-ndjson", connections)
            figures[name] = with_items(sent, count)
            figures[name]["disk_bytes_per_item"] = round(node.disk_bytes() / (count + 50_000), 1)
    with running() as node:
        warm_up(node, batches[:50])
        sent = post_all(node, singles, "application/json", 8)
        figures["single_over_8"] = with_items(sent, len(singles))
    limit = sqlite_limit(batches)
    best = max(figures[f"batches_of_1000_over_{n}"]["items_per_s"] for n in (1, 4))
    figures["sqlite_alone_items_per_s"] = round(limit * 1000)
    figures["share_of_sqlite_alone"] = round(best / (limit * 1000), 3)
    return figures


def show(figures: dict[str, Any]) -> None:
    """The figures as lines for people."""
    print(f"{figures['items']:,} items of {figures['bytes_per_item']} bytes")
    for name in ("batches_of_1000_over_1", "batches_of_1000_over_4", "single_over_8"):
        row = figures[name]
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
