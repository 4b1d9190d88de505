"""How many durable decisions a node takes a second, and whether all of them replay afterwards.

    python -m bench.chain [--decisions 10000] [--askers 64] [--json]

Every decision is asked of the three built-in models, packed, chained and durable before it is
answered; asked at the agent's socket by askers in threads. Then the node is killed (SIGKILL) and
started again, and its chain verified through the node and from its files.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import requests

from bench import corpus
from bench.node import ROOT, Node, running
from server.agent_client import AgentClient


def decide(node: Node, symbol: str, count: int, askers: int) -> float:
    """Seconds for so many decisions."""
    body = msgspec.json.encode({"symbols": [symbol]})
    agent = AgentClient(node.data / "agent.sock")

    def asker(share: int) -> None:
        for _ in range(share):
            assert agent.call("decide", {}, body).status == 200

    asker(1)
    started = time.perf_counter()
    with ThreadPoolExecutor(askers) as pool:
        list(pool.map(asker, [count // askers] * askers))
    return time.perf_counter() - started


def verify(*args: str) -> dict[str, Any]:
    """Report of the command line, and its seconds."""
    started = time.perf_counter()
    command = [sys.executable, "app.py", "--verify-decisions", "--json", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report | {"seconds": time.perf_counter() - started}


def measure(count: int, askers: int) -> dict[str, Any]:
    """Decide, kill, start again, verify twice."""
    with tempfile.TemporaryDirectory(prefix="context-bench-") as folder:
        data = Path(folder)
        with running(data) as node:
            items = list(corpus.items(2000))
            requests.post(f"{node.url}/api/context/ingest", json=items, timeout=60)
            trading = (item for item in items if item["type"] == "trading_data")
            seconds = decide(node, next(trading)["data"]["symbol"], count, askers)
            cpu = node.cpu_s()["agent"]
            node.process.send_signal(signal.SIGKILL)
            node.process.wait()
        with running(data) as node:
            online = verify("--url", node.url)
        offline = verify("--data", folder)
    taken = count // askers * askers
    return {
        "decisions": taken,
        "per_s": taken / seconds,
        "agent_cpu_ms_each": 1e3 * cpu / taken,
        "replayed_online": online["replayed"],
        "replayed_offline": offline["replayed"],
        "verify_online_s": online["seconds"],
        "verify_offline_s": offline["seconds"],
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--askers", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.decisions, args.askers)
    if args.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:20} {value:,.2f}" if isinstance(value, float) else f"{name:20} {value:,}")


if __name__ == "__main__":
    main()
