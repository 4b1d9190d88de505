"""A node at its full size: ten million items in, every kind of query out, a kill, a start.

    python -m bench.scale [--items 10000000] [--runs 200] [--json]

Everything is switched on: checks, fsync before the answer, index, sealing, one live subscriber (to
one symbol). ripgrep counts in one file of the same items, which lies in memory; the node answers
with the newest 50. Every answer is checked against ripgrep's count. `cold` is the first run of
a query after kill -9 with the node's files dropped from memory. The same
queries over a million items go to SQLite FTS5 with trigrams and, where it is installed, to tantivy
with 3-grams, both in this process.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench import corpus
from bench.grep import ripgrep
from bench.ingest import subscribed
from bench.load import request, send
from bench.node import ROOT, Node, running
from bench.peers import PEER_ITEMS, peers
from bench.progress import progress

CORPUS = ROOT / "../shared/load/corpus.py"
BODY, CONNECTIONS, LIMIT, KILLS = 1000, 4, 50, 3
BUDGET_S = 20.0  # for the runs of one query
REST_S = 25.0  # after so long a node has given back what ingest took
Queries = dict[str, dict[str, Any]]


def write_corpus(path: Path, count: int) -> None:
    """The mixed corpus, one item a line."""
    if CORPUS.exists():
        subprocess.run([sys.executable, CORPUS, str(count), path], check=True, capture_output=True)
        return
    with path.open("wb") as file:
        for item in corpus.items(count):
            file.write(json.dumps(item, separators=(",", ":")).encode() + b"\n")


def queries(path: Path, count: int) -> Queries:
    """What is asked, by name: rare needles from a third of the corpus, a window in its middle."""
    tensor, price, middle = "", "", 0.0
    with path.open("rb") as file:
        for line in islice(file, count // 3, None):
            item = json.loads(line)
            if not tensor and item["type"] == "tensor_math":
                tensor = item["data"]["hash_value"][:12]
            if not price and len(str(item["data"].get("price", ""))) == 7:
                price = str(item["data"]["price"])
            if tensor and price:
                break
        for line in islice(file, count // 6, count // 6 + 1):
            middle = json.loads(line)["timestamp"]
    return {
        "rare, 12 characters": {"query": tensor},
        "absent, its trigrams occur": {"query": "expected volatility stable"},
        "frequent, one type": {"query": '"side":"buy"', "type": "trading_data"},
        "confidence 0.9x": {"query": '"confidence":0\\.9[0-9]', "regex": True},
        "buy.*volume": {"query": "buy.*volume", "regex": True},
        "price of 7 characters": {"query": f'"price":{price}'},
        "pattern, no literal": {"query": "[0-9]{4}\\.[0-9]{4},.*[a-f]{6}", "regex": True},
        "the same, absent": {"query": "[g-z]{4}[0-9]{4}[A-Z]{4}", "regex": True},
        "a second in the middle": {"query": '"sell"', "since": middle, "until": middle + 1},
    }


def ingest(node: Node, path: Path, count: int) -> dict[str, Any]:
    """Send all items, and what that cost."""

    def requests() -> Iterator[bytes]:
        with path.open("rb") as file, progress("ingest", count) as done:
            while body := b"".join(islice(file, BODY)):
                done(BODY)
                yield request(body, "application/x-ndjson")

    before = node.cpu_s()["all"]
    sent = send(node.port, requests(), CONNECTIONS)
    spent = node.cpu_s()["all"] - before
    return {
        "items_per_s": round(count / sent.seconds),
        "items_per_cpu_s": round(count / spent),
        "p99_ms": round(sent.waits[int(len(sent.waits) * 0.99)] * 1e3, 1),
    }


def ask(node: Node, body: dict[str, Any], runs: int) -> tuple[list[float], list[float], int]:
    """Milliseconds of each run over HTTP and in the search itself, ascending, and the hits."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=120)
    payload = json.dumps({**body, "limit": LIMIT, "deadline_ms": 60_000})
    head = {"Content-Type": "application/json"}
    over_http, inside = [], []
    begun = time.perf_counter()
    while len(over_http) < runs and (len(over_http) < 5 or time.perf_counter() < begun + BUDGET_S):
        started = time.perf_counter()
        connection.request("POST", "/api/context/search", payload, head)
        answer = json.loads(connection.getresponse().read())
        over_http.append((time.perf_counter() - started) * 1e3)
        inside.append(answer["elapsed_ms"])
    connection.close()
    return over_http, inside, len(answer["items"])


def search_warm(node: Node, asked: Queries, path: Path, runs: int) -> dict[str, Any]:
    """p50 and p99 of every query, beside ripgrep."""
    rows = {}
    with progress("queries", len(asked)) as done:
        for name, body in asked.items():
            ask(node, body, 1)
            over_http, inside, hits = ask(node, body, runs)
            took = sorted(over_http)
            row = {
                "runs": len(took),
                "p50_ms": round(statistics.median(took), 2),
                "p99_ms": round(took[int(len(took) * 0.99)], 2),
                "search_p50_ms": round(statistics.median(inside), 2),
            }
            if shutil.which("rg"):
                rg_ms, lines = ripgrep(body, path)
                row |= {"rg_ms": round(rg_ms, 1), "times_rg": round(row["p50_ms"] / rg_ms, 3)}
                if "since" not in body and hits != min(LIMIT, lines):
                    raise SystemExit(f"{name}: {hits} hits, ripgrep found {lines}")
            rows[name] = row
            done(1)
    return rows


def drop_pages(folder: Path) -> None:
    """Let the kernel forget the folder's files, so that they come from the disk again."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def measure(count: int, runs: int) -> dict[str, Any]:
    """All figures of one run."""
    figures: dict[str, Any] = {"items": count}
    with tempfile.TemporaryDirectory(prefix="context-scale-") as folder:
        path, data = Path(folder) / "corpus.ndjson", Path(folder) / "data"
        write_corpus(path, count)
        asked, raw = queries(path, count), path.stat().st_size
        with running(data) as node:
            with subscribed(node, "?symbol=AAVE/EUR"):
                figures["ingest"] = ingest(node, path, count)
            figures["rss_mb_after_ingest"] = node.rss_mb()
            settle(node)
            time.sleep(REST_S)
            figures["rss_mb_at_rest"] = node.rss_mb()
            figures["disk_share_of_raw"] = round(node.disk_bytes() / raw, 4)
            figures["warm"] = search_warm(node, asked, path, runs)
            figures["rss_mb_after_queries"] = node.rss_mb()
            node.process.kill()
        figures |= starts(data, asked)
        if count >= PEER_ITEMS:
            figures["peers"] = peers(path, asked)
    return figures


def settle(node: Node) -> None:
    """Wait until sealing and whatever else runs behind has come to rest."""
    quiet, before = 0, node.cpu_s()["all"]
    while quiet < 4:
        time.sleep(0.5)
        now = node.cpu_s()["all"]
        quiet, before = (quiet + 1 if now - before < 0.03 else 0), now


def starts(data: Path, asked: Queries) -> dict[str, Any]:
    """Seconds from the start after kill -9 to ready, the queries cold, and a whole reindex."""
    seconds, cold = [], {}
    for _ in range(KILLS):
        started = time.perf_counter()
        with running(data) as node:
            seconds.append(round(time.perf_counter() - started, 2))
            settle(node)
            if not cold:
                drop_pages(data)
                cold = {name: round(ask(node, body, 1)[0][0], 1) for name, body in asked.items()}
            node.process.kill()
    command = [sys.executable, "app.py", "--reindex", "--json", "--data", str(data)]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {
        "start_after_kill_s": seconds,
        "cold_first_ms": cold,
        "reindex_s": round(time.perf_counter() - begun, 2),
        "reindex": json.loads(done.stdout),
    }


def show(figures: dict[str, Any]) -> None:
    """The figures for people."""
    ingested = figures["ingest"]
    print(
        f"{figures['items']:,} items: {ingested['items_per_s']:,} items/s,"
        f" {ingested['items_per_cpu_s']:,} per CPU second, p99 {ingested['p99_ms']} ms a body of"
        f" {BODY}; {figures['disk_share_of_raw']:.1%} of their size on disk"
    )
    for when in ("after_ingest", "at_rest", "after_queries"):
        print(f"memory {when.replace('_', ' '):13} {figures[f'rss_mb_{when}']} MiB")
    print(f"{'newest 50':28} {'p50':>9} {'p99':>9} {'search':>9} {'cold':>9} {'rg':>9}  times rg")
    for name, row in figures["warm"].items():
        cold = figures["cold_first_ms"][name]
        print(
            f"{name:28} {row['p50_ms']:>9} {row['p99_ms']:>9} {row['search_p50_ms']:>9} {cold:>9}"
            f" {row.get('rg_ms', '-'):>9}  {row.get('times_rg', '-')}"
        )
    print(
        f"ready {figures['start_after_kill_s']} s after kill -9; reindex {figures['reindex_s']} s"
    )
    for peer, found in figures.get("peers", {}).items():
        print(f"{peer} in process, {found['items']:,} items: {found['items_per_s']:,} items/s")
        for name, took in found["p50_ms"].items():
            print(f"  {name:28} {took} ms")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.items, args.runs)
    print(json.dumps(figures)) if args.json else show(figures)


if __name__ == "__main__":
    main()
