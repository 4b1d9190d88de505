"""What a call costs on a node that does not lead, beside the same call on the leader.

    python -m bench.forward [--requests 4000] [--rounds 3] [--json]

Three nodes with their engines on this machine. Each way is measured in turn, several times over, so
that what disturbs the machine disturbs all of them: single items, batches of 1,000, and the newest
item, once through the leader and once through a follower, which passes writes on; reads also with
`min_cursor` and `consistency=leader`. CPU is that of all processes of all nodes, engines included,
of the web processes alone, and of the one that was asked.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import corpus
from bench.load import request, send
from bench.progress import progress
from tests.cluster import Cluster, cluster

LINES = "application/x-ndjson"
CONNECTIONS = 8
PER_BATCH = 1000


@dataclass
class Way:
    """One way to ask: requests to one node, and what came of them."""

    name: str
    port: int
    requests: list[bytes]
    beside: str = ""  # the way it is compared with
    rates: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    cpu_us: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Means over the rounds, a request each."""
        waits, rounds = sorted(self.waits), len(self.rates)
        return {
            "requests_per_s": round(sum(self.rates) / rounds, 1),
            "p50_ms": round(waits[len(waits) // 2] * 1e3, 2),
            "p99_ms": round(waits[int(len(waits) * 0.99)] * 1e3, 2),
            **{f"{role}_us": round(us / rounds, 1) for role, us in self.cpu_us.items()},
        }


def cpu_s(three: Cluster, asked: int) -> dict[str, float]:
    """CPU seconds so far of the asked node's web process, of all of them, and of everything."""
    used = {"asked": 0.0, "web": 0.0, "all": 0.0}
    for node in three.nodes:
        for pid, command in node.pids().items():
            with suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                used["all"] += times.user + times.system
                if "server.web" in command:
                    used["web"] += times.user + times.system
                    used["asked"] += (node.port == asked) * (times.user + times.system)
    return used


def ways(three: Cluster, count: int) -> list[Way]:
    """All that is measured."""
    leader = three.leader()
    ports = {
        "leader": three[leader].port,
        "follower": three[next(n for n in range(3) if n != leader)].port,
    }
    lines = corpus.lines(count)
    singles = [request(line, "application/json") for line in lines]
    batches = [
        request(b"\n".join(lines[at : at + PER_BATCH]), LINES) for at in range(0, count, PER_BATCH)
    ]
    cursor = three[leader].client.newest()
    found = []
    for name, what in (("single", singles), ("batch", batches)):
        found.append(Way(f"{name}, leader", ports["leader"], what))
        found.append(Way(f"{name}, follower", ports["follower"], what, f"{name}, leader"))
    for name, where, query in (
        ("read, leader", "leader", ""),
        ("read, follower", "follower", ""),
        ("read, follower, min_cursor", "follower", f"&min_cursor={cursor}"),
        ("read, follower, consistency", "follower", "&consistency=leader"),
    ):
        asked = f"GET /api/context/latest?limit=1{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        beside = "" if where == "leader" else "read, leader"
        found.append(Way(name, ports[where], [asked.encode()] * (count // 4), beside))
    return found


def measure(three: Cluster, way: Way) -> None:
    """One round."""
    before = cpu_s(three, way.port)
    sent = send(way.port, way.requests, CONNECTIONS)
    after = cpu_s(three, way.port)
    way.rates.append(len(way.requests) / sent.seconds)
    way.waits += sent.waits
    for role, spent in after.items():
        us = (spent - before[role]) / len(way.requests) * 1e6
        way.cpu_us[role] = way.cpu_us.get(role, 0.0) + us


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="context-bench-") as folder,
        cluster(Path(folder)) as three,
    ):
        chosen = ways(three, asked.requests)
        send(chosen[0].port, chosen[0].requests[:200], CONNECTIONS)
        send(chosen[1].port, chosen[1].requests[:200], CONNECTIONS)
        with progress("rounds", asked.rounds * len(chosen)) as done:
            for _ in range(asked.rounds):
                for way in chosen:
                    measure(three, way)
                    done(1)
    figures = {way.name: way.figures() for way in chosen}
    for way in chosen:
        if way.beside:
            own, other = figures[way.name], figures[way.beside]
            own["rate_ratio"] = round(own["requests_per_s"] / other["requests_per_s"], 3)
            own["cpu_ratio"] = round(own["all_us"] / other["all_us"], 3)
    if asked.json:
        print(json.dumps(figures))
        return
    for name, row in figures.items():
        print(f"{name:28} " + "  ".join(f"{key} {value:>8}" for key, value in row.items()))


if __name__ == "__main__":
    main()
