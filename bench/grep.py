"""Search over HTTP beside ripgrep on the same lines in a file: newest 50 hits, warm.

    python -m bench.grep [--items 1000000] [--runs 200] [--json]

ripgrep counts over the whole file, which is the least it can do for a rare or absent needle; the
node answers with the newest hits. Every answer is checked: as many hits as there are, at most 50.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import corpus
from bench.ingest import post_all, warm_up
from bench.node import Node, running

LIMIT = 50


def queries(lines: list[bytes]) -> dict[str, dict[str, Any]]:
    """What is asked, by name."""
    at = next(i for i in range(len(lines) // 3, len(lines)) if b'"tensor_math"' in lines[i])
    return {
        "rare, 12 characters": {"query": corpus.hash_of(at)[:12]},
        "absent": {"query": "no such words in here"},
        "absent, its parts occur": {"query": "expected volume rising"},
        "frequent, one type": {"query": '"side":"buy"', "type": "trading_data"},
        "pattern": {"query": '"confidence":0\\.9[0-9]', "regex": True},
        "pattern, two words": {"query": "buy.*volume", "regex": True},
        "pattern, no literal": {"query": "[0-9]{4}\\.[0-9]{4},.*[a-f]{6}", "regex": True},
        "any case": {"query": "STRONG VOLUME", "ignore_case": True},
    }


def ask(node: Node, body: dict[str, Any], runs: int) -> tuple[list[float], dict[str, Any]]:
    """Milliseconds of each run over one connection, and the last answer."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=120)
    payload, took = json.dumps({**body, "limit": LIMIT, "deadline_ms": 60_000}), []
    for _ in range(runs + 1):
        started = time.perf_counter()
        connection.request(
            "POST", "/api/context/search", payload, {"Content-Type": "application/json"}
        )
        answer = json.loads(connection.getresponse().read())
        took.append((time.perf_counter() - started) * 1e3)
    return sorted(took[1:]), answer


def ripgrep(body: dict[str, Any], path: Path) -> tuple[float, int]:
    """Milliseconds (median of 3) and hits of ripgrep over the file."""
    flags = [] if body.get("regex") else ["-F"]
    flags += ["-i"] if body.get("ignore_case") else []
    took, hits = [], 0
    for _ in range(3):
        started = time.perf_counter()
        found = subprocess.run(
            ["rg", "-c", *flags, "--", body["query"], str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        took.append((time.perf_counter() - started) * 1e3)
        hits = int(found.stdout or 0)
    return statistics.median(took), hits


def write_lines(path: Path, lines: list[bytes]) -> None:
    """The lines as the node searches them: type, source, timestamp, data in this order."""
    with path.open("wb") as file:
        for line in lines:
            item = {"source": "unknown", **json.loads(line)}
            ordered = {name: item[name] for name in ("type", "source", "timestamp", "data")}
            file.write(json.dumps(ordered, separators=(",", ":")).encode() + b"\n")


def measure(count: int, runs: int) -> dict[str, Any]:
    """All figures of one run."""
    lines = corpus.lines(count)
    batches = [b"\n".join(lines[i : i + 1000]) for i in range(0, count, 1000)]
    figures: dict[str, Any] = {"items": count, "queries": {}}
    with tempfile.TemporaryDirectory() as folder, running() as node:
        path = Path(folder) / "lines.ndjson"
        write_lines(path, lines)
        post_all(node, batches, "application/x-ndjson", 2)
        warm_up(node, [b'{"type":"note","data":{"text":"done"}}'])
        raw = path.stat().st_size
        figures["disk_share_of_raw"] = round(node.disk_bytes() / raw, 3)
        for name, body in queries(lines).items():
            took, answer = ask(node, body, runs)
            row = {
                "p50_ms": round(took[len(took) // 2], 2),
                "p99_ms": round(took[int(len(took) * 0.99)], 2),
                "hits": len(answer["items"]),
                "blocks_opened": answer["scanned"]["blocks"],
                "blocks_skipped": answer["scanned"]["skipped"],
            }
            if shutil.which("rg"):
                row["rg_ms"], hits = ripgrep(body, path)
                row["rg_ms"] = round(row["rg_ms"], 1)
                if row["hits"] != min(LIMIT, hits):
                    raise SystemExit(f"{name}: {row['hits']} hits, ripgrep found {hits}")
                row["times_rg"] = round(row["p50_ms"] / row["rg_ms"], 3)
            figures["queries"][name] = row
    return figures


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.items, args.runs)
    if args.json:
        print(json.dumps(figures))
        return
    print(f"{args.items:,} items, {figures['disk_share_of_raw']:.1%} of their size on disk")
    for name, row in figures["queries"].items():
        print(
            f"  {name:24} p50 {row['p50_ms']:>8} ms   p99 {row['p99_ms']:>8} ms"
            f"   {row['blocks_opened']} blocks opened, {row['blocks_skipped']} skipped"
            f"   rg {row.get('rg_ms', '-')} ms: {row.get('times_rg', '-')} times"
        )


if __name__ == "__main__":
    main()
