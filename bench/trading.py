"""From decisions to orders: how many a second, how late, and when the emergency stop takes hold.

    python -m bench.trading [--seconds 8] [--clients 4] [--stops 5] [--json]

A real node on paper, in a mode without pauses and with limits out of the way. Clients ask for
decisions over HTTP as fast as they are answered, while prices come in 50 times a second. Every
decision, order and fill is durable. Then the emergency stop is called, some times over, amid that.
"""

from __future__ import annotations

import argparse
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import requests

from ai_bridge.trading.modes import MODES
from bench.node import Node, running

SYMBOL = "BTC/USD"
TICKS_PER_S = 50
MODE = msgspec.to_builtins(MODES["high_volume"]) | {
    **{"ask_every_s": 0, "pause_s": 0, "min_confidence": 0.5, "decision_age_s": 60, "ttl_s": 60},
    **{"order": "0.00001", "max_order": "0.0001", "max_position": 1, "max_exposure": 1},
    **{"max_orders_per_minute": 100_000, "max_open_orders": 1000},
}
SETTINGS = {
    "MODEL_MODULES": "bench.buyer",
    "MODELS": json.dumps({"buyer": {"kind": "custom", "model": "Buyer", "concurrency": 16}}),
    "TRADING_MODES": json.dumps({"bench": MODE}),
    "TRADING_CAPITAL": "1000000000",
}


class Desk:
    """Calls on the node."""

    def __init__(self, node: Node) -> None:
        self.url, self.session = node.url, requests.Session()

    def post(self, path: str, body: Any) -> dict[str, Any]:
        """A call that must succeed."""
        answer = self.session.post(f"{self.url}{path}", json=body, timeout=60)
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document

    def tick(self) -> None:
        """One price."""
        item = {"type": "trading_data", "data": {"symbol": SYMBOL, "price": 100.0}}
        self.post("/api/context/ingest", item)

    def decide(self) -> None:
        """One decision."""
        self.post("/api/context/ai/decide", {"symbols": [SYMBOL], "models": ["buyer"]})

    def begin(self) -> None:
        """Start a session."""
        self.post("/api/context/trading/start", {"mode": "bench", "symbols": [SYMBOL]})

    def status(self) -> dict[str, Any]:
        """How trading stands."""
        answer = self.session.get(f"{self.url}/api/context/trading", timeout=60)
        document: dict[str, Any] = answer.json()
        return document

    def items(self, type_: str) -> Iterator[dict[str, Any]]:
        """Every stored item of a type."""
        with self.session.get(
            f"{self.url}/api/context/export?type={type_}", stream=True, timeout=60
        ) as answer:
            yield from map(json.loads, answer.iter_lines())

    def until(self, settled: Any) -> None:
        """Wait until the status is so."""
        while not settled(self.status()):
            time.sleep(0.005)


@contextmanager
def load(node: Node, clients: int) -> Iterator[list[int]]:
    """Prices and decisions beside what is measured; counts the decisions."""
    ended, made = threading.Event(), [0]

    def ticking() -> None:
        desk = Desk(node)
        while not ended.wait(1 / TICKS_PER_S):
            desk.tick()

    def deciding() -> None:
        desk = Desk(node)
        while not ended.is_set():
            desk.decide()
            made[0] += 1

    threads = [threading.Thread(target=work) for work in (ticking, *[deciding] * clients)]
    for each in threads:
        each.start()
    try:
        yield made
    finally:
        ended.set()
        for each in threads:
            each.join()


def at(share: float, values: list[float]) -> float:
    """Nearest-rank percentile."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def throughput(node: Node, desk: Desk, seconds: float, clients: int) -> dict[str, Any]:
    """Orders a second, and how long after its decision an order is durable and filled."""
    desk.begin()
    with load(node, clients) as made:
        started, before = time.monotonic(), node.cpu_s()["agent"]
        time.sleep(seconds)
        took, cpu, decisions = time.monotonic() - started, node.cpu_s()["agent"], made[0]
        orders = desk.status()["orders"]
    desk.until(lambda shown: shown["orders"] >= decisions)
    desk.tick()
    desk.until(lambda shown: not shown["open_orders"])
    decided = {i["data"]["decision_id"]: i["ingested_at"] for i in desk.items("ai_decision")}
    ordered, filled, twice = dict[str, float](), dict[str, float](), 0
    for item in desk.items("ai_trade"):
        data = item["data"]
        of = {"order": ordered, "fill": filled}.get(data["event"])
        if of is not None:
            twice += data["decision_id"] in of
            of[data["decision_id"]] = item["ingested_at"]
    late = [1e3 * (when - decided[key]) for key, when in ordered.items()]
    fills = [1e3 * (when - ordered[key]) for key, when in filled.items()]
    return {
        "decisions_per_s": decisions / took,
        "orders_per_s": orders / took,
        "agent_ms_per_order": 1e3 * (cpu - before) / max(1, orders),
        "decision_to_order_ms": {"p50": at(0.5, late), "p99": at(0.99, late)},
        "order_to_fill_ms": {"p50": at(0.5, fills), "p99": at(0.99, fills)},
        "ordered_or_filled_twice": twice,
    }


def newest_order(desk: Desk) -> float:
    """When the newest order became durable."""
    newest = {"type": "ai_trade", "limit": 10_000}
    answer = desk.session.get(f"{desk.url}/api/context/latest", params=newest, timeout=60)
    items = answer.json()["items"]
    return float(next(i["ingested_at"] for i in items if i["data"]["event"] == "order"))


def stop(node: Node, desk: Desk, clients: int) -> dict[str, float]:
    """Milliseconds from the call of the emergency stop, under load."""
    desk.post("/api/control/resume", {})
    if not desk.status()["trading"]:
        desk.begin()
    with load(node, clients):
        time.sleep(0.7)
        called = time.time()
        desk.post("/api/control/emergency-stop", {"reason": "bench"})
        acknowledged = time.time()
        desk.until(lambda shown: not shown["trading"] and not shown["open_orders"])
        halted = time.time()
        time.sleep(0.3)  # for orders that should not be there
    last = newest_order(desk)
    times = {"acknowledged": acknowledged, "last_order": last, "halted": halted}
    return {name: 1e3 * (when - called) for name, when in times.items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--stops", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with running(**SETTINGS) as node:
        desk = Desk(node)
        desk.tick()
        figures = throughput(node, desk, args.seconds, args.clients)
        stops = [stop(node, desk, args.clients) for _ in range(args.stops)]
    figures["emergency_stop_ms"] = {
        name: {"median": at(0.5, each), "max": max(each)}
        for name in stops[0]
        for each in [[taken[name] for taken in stops]]
    }
    if args.json:
        print(json.dumps(figures))
        return
    print(f"decisions {figures['decisions_per_s']:8.0f}/s over {args.clients} clients")
    cpu_ms, twice = figures["agent_ms_per_order"], figures["ordered_or_filled_twice"]
    print(f"orders    {figures['orders_per_s']:8.0f}/s; {twice} of them twice")
    print(f"CPU       {cpu_ms:8.1f} ms of the agent each, decision and fill included")
    for name in ("decision_to_order_ms", "order_to_fill_ms"):
        ms = figures[name]
        print(f"{name:22} p50 {ms['p50']:7.1f}  p99 {ms['p99']:7.1f}")
    for name, ms in figures["emergency_stop_ms"].items():
        print(f"stop to {name:14} median {ms['median']:6.1f}  max {ms['max']:6.1f} ms")


if __name__ == "__main__":
    main()
