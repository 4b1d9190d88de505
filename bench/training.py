"""How late items reach a subscriber, and timers run, while the torch model trains.

    python -m bench.training [--seconds 20] [--json]

Prices of twenty symbols are stored 50 times a second, in market time that runs a thousand times as
fast, so that the torch worker has something to train on all the while. Once without a worker, once
with it, on the same machine in the same run: p50 and p99 from before a batch is sent until an event
stream gives it (durable in between), and the p99 lag of the agent's event loop, on which the hub's
items come in.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import threading
import time
from typing import Any

import psutil
import requests

from bench.decide import at
from bench.node import Node, running

EVERY_S = 0.02
SYMBOLS = [f"S{n}/USD" for n in range(20)]
BAR_S = 1.0  # of market time a batch goes on by
_LAG = re.compile(r'^context_agent_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.M)
_SENT = re.compile(rb'"sent":([0-9.]+)')


def listen(node: Node, took: list[float], ended: threading.Event) -> None:
    """Read the stream; note how long each batch took."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=5)
    connection.request("GET", "/api/context/stream?type=ping")
    answer = connection.getresponse()
    while not ended.is_set():
        line = answer.readline()
        found = _SENT.search(line)
        if found:
            took.append(1e3 * (time.monotonic() - float(found[1])))
    connection.close()


def feed(node: Node, seconds: float) -> None:
    """Store prices and one ping every 20 ms."""
    chance, started, number = random.Random(1), time.monotonic(), 0
    prices = dict.fromkeys(SYMBOLS, 100.0)
    with requests.Session() as session:
        while time.monotonic() - started < seconds:
            number += 1
            items: list[dict[str, Any]] = []
            for symbol in SYMBOLS:
                prices[symbol] *= 1 + chance.gauss(0, 0.0005)
                data = {"symbol": symbol, "price": prices[symbol], "volume": 1.0, "side": "buy"}
                stamp = 1.7e9 + number * BAR_S
                items.append(
                    {"type": "trading_data", "source": "b", "timestamp": stamp, "data": data}
                )
            items.append({"type": "ping", "data": {"sent": time.monotonic()}})
            session.post(f"{node.url}/api/context/ingest", json=items, timeout=60)
            time.sleep(max(0.0, started + number * EVERY_S - time.monotonic()))


def lags(node: Node) -> dict[float, float]:
    """The agent's loop lag so far: how many timers were at most so late."""
    text = requests.get(f"{node.url}/metrics", timeout=60).text
    return {float(bound): float(count) for bound, count in _LAG.findall(text)}


def worker_cpu_s(node: Node) -> float:
    """CPU seconds of the process that trains; 0 where there is none."""
    used = 0.0
    for child in psutil.Process(node.process.pid).children(recursive=True):
        if child.cmdline()[-1] == "server.worker":
            times = child.cpu_times()
            used += times.user + times.system
    return used


def measure(seconds: float, worker: bool) -> dict[str, Any]:
    """One node, fed and listened to."""
    with running(TORCH_WORKER=str(worker).lower()) as node:
        feed(node, 10.0)  # history to train on, and torch is loaded
        took, ended = list[float](), threading.Event()
        thread = threading.Thread(target=listen, args=(node, took, ended))
        thread.start()
        before, cpu = lags(node), worker_cpu_s(node)
        feed(node, seconds)
        after, trained = lags(node), worker_cpu_s(node) - cpu
        ended.set()
        feed(node, 0.1)  # the reader's last line
        thread.join()
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in after}
    total = max(counts.values())
    return {
        "batches": len(took),
        "p50_ms": at(0.5, took),
        "p99_ms": at(0.99, took),
        "loop_lag_p99_at_most_ms": 1e3 * min(b for b, c in counts.items() if c >= 0.99 * total),
        "worker_cpu_share": trained / seconds,
    }


def main() -> None:
    """Print the figures side by side."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = {name: measure(args.seconds, name == "training") for name in ("alone", "training")}
    if args.json:
        print(json.dumps(figures))
        return
    for name in figures["alone"]:
        alone, training = figures["alone"][name], figures["training"][name]
        print(f"{name:26} {alone:10,.2f} alone  {training:10,.2f} while training")


if __name__ == "__main__":
    main()
