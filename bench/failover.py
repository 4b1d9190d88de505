"""How long writes wait when the leader goes, and whether anyone else notices.

    python -m bench.failover [--times 10] [--only node,agent,hand_over,restart] [--json]

Three nodes with their engines on this machine; one client writes single items one after the other,
to whichever node takes them, and another reads from a node that stays. For each way to lose the
leader (the whole machine killed, our process alone, a planned hand-off, SIGTERM): the time from the
last acknowledgement before it to the first one after it, and the slowest read meanwhile. The engine
takes 4.7 to 7.4 s to elect the leader of a stream, which is part of "node" where it led too.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import requests

from bench.progress import progress
from tests.cluster import Cluster, cluster
from tests.faults import cluster_faults as faults

WAYS: dict[str, Callable[[Cluster, random.Random], None]] = {
    "node": faults.kill_node,
    "agent": faults.kill_agent,
    "hand_over": faults.hand_over,
    "restart": faults.restart_leader,
}
SETTLE_S = 1.0
PAUSE_S = 0.005
ITEM = json.dumps({"type": "system_health", "data": {"load": 1.0}})


class Writer(threading.Thread):
    """Writes without a pause; `gaps(since)` are the longest times without an acknowledgement."""

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self._ports, self.acknowledged = ports, [time.monotonic()]
        self.stopping = False

    def run(self) -> None:
        """Write until stopped; where a node does not take it, at the next one."""
        at, number = 0, 0
        while not self.stopping:
            connection = http.client.HTTPConnection("127.0.0.1", self._ports[at], timeout=15)
            with suppress(OSError, http.client.HTTPException, ValueError):
                while not self.stopping:
                    headers = {
                        "Content-Type": "application/json",
                        "Idempotency-Key": f"bench-{number}",
                    }
                    connection.request("POST", "/api/context/ingest", ITEM, headers)
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status not in (200, 201):
                        break
                    self.acknowledged.append(time.monotonic())
                    number += 1
            connection.close()
            at = (at + 1) % len(self._ports)
            time.sleep(PAUSE_S)

    def gap(self, since: float) -> float:
        """Longest time without an acknowledgement that ended after `since`."""
        pairs = itertools.pairwise(list(self.acknowledged))
        return max((after - before for before, after in pairs if after > since), default=0.0)


class Reader(threading.Thread):
    """Reads from one node again and again; `slowest` is the longest answer."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self.stopping, self.slowest, self.failed = url, False, 0.0, 0

    def run(self) -> None:
        """Read until stopped."""
        with requests.Session() as session:
            while not self.stopping:
                started = time.monotonic()
                try:
                    ok = session.get(f"{self._url}/api/context/latest?limit=1", timeout=30).ok
                except requests.RequestException:
                    ok = False
                self.failed += not ok
                self.slowest = max(self.slowest, time.monotonic() - started)
                time.sleep(PAUSE_S)


def once(three: Cluster, way: str, writer: Writer, chance: random.Random) -> tuple[float, float]:
    """Lose the leader once: seconds without writes, and of the slowest read elsewhere.

    Raises RuntimeError where a read on another node fails.
    """
    leader = three.leader()
    reader = Reader(three[next(n for n in range(3) if n != leader)].url)
    reader.start()
    begun = time.monotonic()
    WAYS[way](three, chance)
    while writer.acknowledged[-1] < max(begun, time.monotonic() - SETTLE_S):
        time.sleep(PAUSE_S)
    time.sleep(SETTLE_S)
    reader.stopping = True
    reader.join()
    if reader.failed:
        raise RuntimeError(f"{reader.failed} reads failed on a node that was not touched")
    return writer.gap(begun), reader.slowest


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which so large a share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--only", default=",".join(WAYS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    ways, chance = asked.only.split(","), random.Random(asked.seed)
    results = {}
    with (
        tempfile.TemporaryDirectory(prefix="context-bench-") as folder,
        cluster(Path(folder)) as three,
    ):
        three.leader()
        writer = Writer([node.port for node in three.nodes])
        writer.start()
        for way in ways:
            with progress(way, asked.times) as done:
                found = []
                for _ in range(asked.times):
                    found.append(once(three, way, writer, chance))
                    done(1)
            gaps, reads = zip(*found, strict=True)
            results[way] = {
                "times": asked.times,
                "write_gap_p50_s": round(quantile(gaps, 0.5), 3),
                "write_gap_p99_s": round(quantile(gaps, 0.99), 3),
                "slowest_read_elsewhere_s": round(max(reads), 3),
            }
            if not asked.json:
                print(
                    f"{way:10} " + "  ".join(f"{k} {v}" for k, v in results[way].items()),
                    flush=True,
                )
        writer.stopping = True
        writer.join()
    if asked.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
