"""How long a decision takes with one slow and one dead of five models, against its deadline.

    python -m bench.decide [--decisions 100] [--deadline-ms 250] [--litellm PYTHON] [--json]

Real model servers on loopback, in a process of their own; a real node; every decision is durable.
Measured at the agent's socket, so without the web process, and over HTTP. The slow model takes
twice the deadline, so each decision has to be cut. `--litellm` names the interpreter of an
environment with LiteLLM: its router gets the same five servers and the deadline as its time-out. It
answers with one model's text, not with a decision of all.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import requests

from bench import corpus
from bench.node import Node, running
from server.agent_client import AgentClient

ALLOWED_OVER_MS = 20
BUILTIN = ("momentum", "mean_reversion", "order_flow")


@contextmanager
def model_servers(slow_s: float) -> Iterator[dict[str, int]]:
    """Ports of the five servers by name."""
    command = [sys.executable, "-m", "bench.model_servers", str(slow_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()
        process.wait(20)


def timed(decide: Callable[[], Any], count: int) -> list[float]:
    """Milliseconds of each of `count` decisions, one after the other."""
    took = []
    for _ in range(count):
        started = time.perf_counter()
        decide()
        took.append(1e3 * (time.perf_counter() - started))
    return took


def at(share: float, values: list[float]) -> float:
    """Nearest-rank percentile."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def prepare(node: Node, ports: dict[str, int]) -> str:
    """Store prices, switch the built-in models off and add the five; returns the symbol."""
    items = list(corpus.items(2000))
    requests.post(f"{node.url}/api/context/ingest", json=items, timeout=60).raise_for_status()
    symbol = next(item["data"]["symbol"] for item in items if item["type"] == "trading_data")
    models = f"{node.url}/api/context/ai/models"
    for name in BUILTIN:
        requests.patch(f"{models}/{name}", json={"enabled": False}, timeout=60).raise_for_status()
    for name, port in ports.items():
        spec = {"name": name, "kind": "openai", "base_url": f"http://127.0.0.1:{port}"}
        requests.post(models, json=spec, timeout=60).raise_for_status()
    return str(symbol)


def measure(count: int, deadline_ms: int, ports: dict[str, int]) -> dict[str, Any]:
    """Decide `count` times at the agent and as often over HTTP."""
    with running() as node:
        body = {"symbols": [prepare(node, ports)], "deadline_ms": deadline_ms}
        encoded, statuses = msgspec.json.encode(body), dict[str, dict[str, int]]()
        agent = AgentClient(node.data / "agent.sock")
        with requests.Session() as session:

            def over_http() -> None:
                answer = session.post(f"{node.url}/api/context/ai/decide", json=body, timeout=60)
                for vote in answer.json()["votes"]:
                    counted = statuses.setdefault(vote["model"], {})
                    counted[vote["status"]] = counted.get(vote["status"], 0) + 1

            def at_agent() -> None:
                assert agent.call("decide", {}, encoded).status == 200

            over_http()  # opens connections
            at_agent()
            return {
                "agent": timed(at_agent, count),
                "http": timed(over_http, count),
                "statuses": statuses,
            }


def with_litellm(python: str, count: int, deadline_ms: int, ports: dict[str, int]) -> Any:
    """Milliseconds of its router's calls, and how many failed."""
    command = [python, "-m", "bench.decide_litellm", json.dumps(ports), str(count)]
    done = subprocess.run(
        [*command, str(deadline_ms / 1e3)], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    return {"ms": [1e3 * s for s in told["seconds"]], "failed": told["failed"]}


def main() -> None:
    """Print the figures, beside LiteLLM's router where it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decisions", type=int, default=100)
    parser.add_argument("--deadline-ms", type=int, default=250)
    parser.add_argument("--litellm", metavar="PYTHON")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    router = None
    with model_servers(2 * args.deadline_ms / 1e3) as ports:
        if args.litellm:
            router = with_litellm(args.litellm, args.decisions, args.deadline_ms, ports)
        ours = measure(args.decisions, args.deadline_ms, ports)
    figures = {
        where: {"p50": at(0.5, took), "p99": at(0.99, took), "max": max(took)}
        for where, took in (("agent", ours["agent"]), ("http", ours["http"]))
    }
    if router:
        took = router["ms"]
        figures["litellm"] = {"p50": at(0.5, took), "p99": at(0.99, took), "max": max(took)}
    if args.json:
        print(json.dumps({**figures, "statuses": ours["statuses"]}))
        return
    for where, ms in figures.items():
        print(f"{where:8} p50 {ms['p50']:7.1f}  p99 {ms['p99']:7.1f}  max {ms['max']:7.1f} ms")
    if router:
        print(f"litellm  without an answer: {router['failed']} of {args.decisions}")
    over = figures["agent"]["p99"] - args.deadline_ms
    verdict = "kept" if over <= ALLOWED_OVER_MS else "NOT kept"
    print(f"deadline {args.deadline_ms} ms + {ALLOWED_OVER_MS} ms: {verdict} ({over:+.1f} ms)")
    print(f"votes    {ours['statuses']}")


if __name__ == "__main__":
    main()
