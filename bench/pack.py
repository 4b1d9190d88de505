"""How long packing takes over a large window, beside a naive scan of the same items.

    python -m bench.pack [--items 1000000] [--times 30] [--json]

Packed by a node at its agent's socket, each time with another limit. The naive scan has all lines
in memory, newest first, decodes each, and stops when it has enough, without counting what it left
out; for what needs ranking it looks at all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import msgspec
import requests

from bench import corpus
from bench.node import Node, running
from context.tokens import estimate
from server.agent_client import AgentClient

BATCH = 10_000


def fill(node: Node, count: int) -> list[bytes]:
    """Store so many items; returns them, encoded."""
    lines: list[bytes] = []
    items = corpus.items(count)
    while batch := list(islice(items, BATCH)):
        encoded = [msgspec.json.encode(item) for item in batch]
        answer = requests.post(
            f"{node.url}/api/context/ingest",
            data=b"\n".join(encoded),
            headers={"Content-Type": "application/x-ndjson"},
            timeout=60,
        )
        answer.raise_for_status()
        lines += encoded
    return lines


def naive(lines: list[bytes], wish: dict[str, Any]) -> int:
    """Tokens of what a scan from the newest line on would pack."""
    best: list[tuple[float, bytes]] = []
    symbols, query = set(wish.get("symbols", ())), wish.get("query", "")
    ranked, tokens = wish.get("rank") == "relevant", 0
    for line in reversed(lines):
        item = json.loads(line)
        has_symbol = item["data"].get("symbol") in symbols
        if ranked:
            best.append((has_symbol + (query in line.decode()), line))
            continue
        if (symbols and not has_symbol) or (query and query not in line.decode()):
            continue
        tokens += estimate(line.decode())
        best.append((0.0, line))
        if len(best) == wish["limit"] or tokens > wish["budget_tokens"]:
            return tokens
    if ranked:
        best.sort(key=lambda each: -each[0])
        tokens = sum(estimate(line.decode()) for _, line in best[: wish["limit"]])
    return tokens


def timed(work: Callable[[dict[str, Any]], Any], wishes: Iterable[dict[str, Any]]) -> list[float]:
    """Milliseconds of each."""
    took = []
    for wish in wishes:
        started = time.perf_counter()
        work(wish)
        took.append(1e3 * (time.perf_counter() - started))
    return sorted(took)


def measure(count: int, times: int) -> dict[str, dict[str, float]]:
    """Median and worst of ours, median of the naive scan, and their ratio."""
    figures = {}
    with running() as node:
        lines = fill(node, count)
        decoded = map(json.loads, lines)
        symbol = next(i["data"]["symbol"] for i in decoded if i["type"] == "trading_data")
        agent = AgentClient(node.data / "agent.sock")

        def ours(wish: dict[str, Any]) -> None:
            assert agent.call("pack", {}, msgspec.json.encode(wish)).status == 200

        base = {"budget_tokens": 4000, "format": "prompt"}
        cases: dict[str, dict[str, Any]] = {
            "newest": {},
            "symbol": {"symbols": [symbol]},
            "symbol, folded": {"symbols": [symbol], "fold": True},
            "symbol, stable": {"symbols": [symbol], "stable": True},
            "frequent word": {"query": "confidence"},
            "absent word": {"query": "no such thing"},
            "relevant": {"rank": "relevant", "symbols": [symbol], "query": "volatility"},
        }
        for name, case in cases.items():
            wishes = [{**base, **case, "limit": 100 + n} for n in range(times)]
            took = timed(ours, wishes)
            scan = timed(lambda wish: naive(lines, wish), wishes[:1])[0]
            median = statistics.median(took)
            figures[name] = {"p50_ms": median, "max_ms": took[-1], "naive_ms": scan,
                             "ratio": scan / median}  # fmt: skip
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.items, args.times)
    if args.json:
        print(json.dumps(figures))
        return
    for name, row in figures.items():
        print(f"{name:16}", *(f"{key} {value:10,.2f} " for key, value in row.items()))


if __name__ == "__main__":
    main()
