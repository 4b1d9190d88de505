"""Search over items in memory, beside ripgrep on a file of the same lines in the same run.

    python -m bench.search [--items 1000000] [--json]

Each query is answered twice: all hits counted, beside `rg -c`, and the newest 50 with line and
positions. ripgrep's time includes starting it; both sides use one core (`rg -j1`) and warm memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from bench import corpus
from context.block import Block, Bounds
from context.index import Index
from context.ingest import parse_ndjson
from context.items import Batch
from context.request import parse_search
from context.search import search
from context.snapshot import Snapshot
from context.types import Types

BATCH = 1000
REPEATS = 5


def build(count: int, path: Path) -> tuple[Snapshot, float]:
    """An index of `count` items, all in memory, and the seconds it took; their lines at `path`."""
    index, offset, taken = Index(_never, cache_bytes=1 << 40), 0, 0.0
    types, rows = Types(), (json.dumps(item).encode() for item in corpus.items(count))
    with path.open("wb") as file:
        while body := b"\n".join(islice(rows, BATCH)):
            lines = parse_ndjson(body, types, now=0.0)
            file.write(lines.text)
            started = time.perf_counter()
            index.apply(Batch(offset, lines.count, 0.0, 1, lines.text, lines.heads))
            taken += time.perf_counter() - started
            offset += lines.count
    return index.snapshot(), taken


def _never(bounds: Bounds) -> Block:
    raise RuntimeError(f"the cache lost {bounds}")


def queries(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """Rare and frequent, plain and pattern."""
    lines = (item[1] for i in range(snapshot.newest // 2, -1, -1) if (item := snapshot.item(i)))
    rare = next(json.loads(line)["data"]["hash_value"] for line in lines if b"hash_value" in line)
    return {
        "absent text": {"query": "zzzznohit12"},
        "rare text": {"query": rare[:12]},
        "frequent text": {"query": "BTC/USD"},
        "text in any case": {"query": "doge/eur", "ignore_case": True},
        "pattern": {"query": r'"confidence":0\.9[0-9]', "regex": True},
        "pattern in every line": {"query": "[0-9]+", "regex": True},
        "absent pattern": {"query": "weighted.*low rank", "regex": True},
    }


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Median milliseconds of some runs, and the last result."""
    took, result = [], None
    for _ in range(REPEATS):
        started = time.perf_counter()
        result = run()
        took.append((time.perf_counter() - started) * 1000)
    return statistics.median(took), result


def compare(snapshot: Snapshot, body: dict[str, Any], path: Path) -> dict[str, Any]:
    """One query on both sides; stops the run where the counts differ."""

    def ours(**options: Any) -> dict[str, Any]:
        request = parse_search(body | {"deadline_ms": 60_000} | options)
        return search(snapshot, request, epoch="bench", clock=time.perf_counter)

    def theirs() -> int:
        flags = [
            *(["-i"] if body.get("ignore_case") else []),
            *([] if body.get("regex") else ["-F"]),
        ]
        command = ["rg", "--no-config", "-j1", "-c", *flags, "-e", body["query"], str(path)]
        return int(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout or 0)

    count_ms, answer = timed(lambda: ours(count_only=True))
    newest_ms, _ = timed(ours)
    row = {
        "hits": answer["count"],
        "count_ms": round(count_ms, 2),
        "newest_50_ms": round(newest_ms, 2),
    }
    if shutil.which("rg"):
        rg_ms, hits = timed(theirs)
        if hits != answer["count"]:
            raise SystemExit(f"{body}: {answer['count']} hits, ripgrep finds {hits}")
        row |= {"rg_ms": round(rg_ms, 2), "count_to_rg": round(count_ms / rg_ms, 2)}
    return row


def measure(count: int) -> dict[str, Any]:
    """All figures of one run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.ndjson"
        snapshot, taken = build(count, path)
        return {
            "items": count,
            "bytes": path.stat().st_size,
            "blocks": len(snapshot),
            "index_us_per_item": round(taken / count * 1e6, 3),
            "queries": {
                name: compare(snapshot, body, path) for name, body in queries(snapshot).items()
            },
        }


def show(figures: dict[str, Any]) -> None:
    """The figures as lines for people."""
    size = figures["bytes"] / 1e6
    print(f"{figures['items']:,} items, {size:.0f} MB of lines in {figures['blocks']} blocks")
    print(f"indexed in {figures['index_us_per_item']} us an item; milliseconds of one core:")
    print(f"  {'':22} {'hits':>9} {'newest 50':>10} {'count all':>10} {'rg -c':>8} {'ratio':>6}")
    for name, row in figures["queries"].items():
        print(
            f"  {name:22} {row['hits']:>9,} {row['newest_50_ms']:>10} {row['count_ms']:>10}"
            f" {row.get('rg_ms', '-'):>8} {row.get('count_to_rg', '-'):>6}"
        )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.items)
    if args.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
