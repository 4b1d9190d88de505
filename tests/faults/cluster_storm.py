"""A cluster under load while it is hurt: every promise is checked on every node at the end."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, pairwise
from math import inf
from typing import TypeVar

import msgspec
import requests

from tests.cluster import Cluster
from tests.faults.checker import History, violations
from tests.faults.cluster_faults import FAULTS, frozen
from tests.faults.producers import TIMEOUT_S, Mischief, Producers
from tests.faults.storm import MISCHIEF, contents, send_all
from tests.faults.subscribers import SocketIoSubscriber, SseSubscriber, Subscriber, read_log
from tests.node_process import Api

PRODUCERS, BATCH_ITEMS = 2, 20
BETWEEN = 40  # batches that must be acknowledged between two faults
PROGRESS_S = 60.0
Hurt = TypeVar("Hurt", bound=Cluster)
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; `str()` is the line to print."""

    history: History
    violations: Sequence[str]
    faults: Mapping[str, int]
    told: Mapping[str, int]
    waits_s: Mapping[str, Sequence[float]]
    seconds: float
    seed: int

    def __str__(self) -> str:
        waits = ", ".join(
            f"{name} {' '.join(f'{wait:.1f}' for wait in found)} s"
            for name, found in self.waits_s.items()
        )
        return (
            f"seed {self.seed}: {len(self.history.log)} items, faults {dict(self.faults)}, "
            f"answers {dict(self.told)}, {len(self.history.reigns)} reigns, {self.seconds:.0f} s; "
            f"longest time without an acknowledgement: {waits}"
        )


class Reigns:
    """Asks every node again and again whether it leads, and notes the terms."""

    def __init__(self, cluster: Cluster) -> None:
        self.found: set[tuple[int, str]] = set()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._look, args=(node.url,)) for node in cluster.nodes
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopping = True
        for thread in self._threads:
            thread.join()

    def _look(self, url: str) -> None:
        with Api(url, timeout_s=2.0) as api:
            while not self._stopping:
                with suppress(requests.RequestException, ValueError, KeyError):
                    own = api.get("/api/nodes/self").json()
                    if own["role"] == "leader":
                        self.found.add((own["term"], own["id"]))
                time.sleep(LOOK_S)


def bodies_of(batches: int) -> dict[str, bytes]:
    """NDJSON bodies by idempotency key, each item different from all others."""
    numbers, bodies = count(), {}
    for batch in range(batches):
        items = [
            {
                "type": "trading_data",
                "data": {"symbol": "BTC/USD", "price": 1.5, "n": next(numbers)},
            }
            for _ in range(BATCH_ITEMS)
        ]
        lines = [msgspec.json.encode(item | {"timestamp": 1.0, "source": "p"}) for item in items]
        bodies[f"batch-{batch}"] = b"\n".join([*lines, b""])
    return bodies


def run(
    cluster: Hurt,
    faults: Sequence[str],
    seed: int,
    table: Mapping[str, Callable[[Hurt, random.Random], None]] = FAULTS,
    *,
    mischief: Mischief = MISCHIEF,
    timeout_s: float = TIMEOUT_S,
) -> Outcome:
    """Send to a started cluster and hurt it by these faults; returns what everybody saw.

    A producer goes on to another node when it has no answer after `timeout_s`.

    A producer that has nothing more to send ends, so there are more bodies than are needed.
    """
    started, chance = time.monotonic(), random.Random(seed)
    cluster.leader()
    epoch = cluster[0].client.newest().partition(":")[0]
    kinds: list[type[Subscriber]] = [SseSubscriber, SocketIoSubscriber, SseSubscriber]
    subscribers = {
        f"{kind.__name__} of n{n % len(cluster.nodes)}": kind(
            cluster[n % len(cluster.nodes)].url, epoch
        )
        for n, kind in enumerate(kinds)
    }
    bodies = bodies_of(BETWEEN * 400 * (len(faults) + 1))
    producers = Producers(
        cluster.nodes,
        bodies,
        threads=PRODUCERS,
        seed=seed,
        mischief=mischief,
        timeout_s=timeout_s,
    )
    reigns, begun = Reigns(cluster), []
    producers.start()
    try:
        for name in faults:
            producers.wait(producers.acknowledged + BETWEEN, PROGRESS_S)
            begun.append(time.monotonic())
            table[name](cluster, chance)
        producers.wait(producers.acknowledged + BETWEEN, PROGRESS_S)
    except Exception as exc:
        for node in cluster.nodes:  # their folders may go with the disks that they are on
            exc.add_note(f"{node.args[1]} logged:\n{node.errors}")
        raise
    finally:
        producers.stop()
        reigns.stop()
    history = History(contents(bodies), producers.acks, reigns=reigns.found)
    _read_back(cluster, history, subscribers)
    gc.collect()  # sockets of refused connections: `leaky_client` holds until the test's end only
    found, seconds = violations(history), time.monotonic() - started
    waits = _longest_waits(faults, begun, producers.acked_at)
    return Outcome(history, found, Counter(faults), producers.told, waits, seconds, seed)


def _longest_waits(
    faults: Sequence[str], begun: Sequence[float], acked_at: Sequence[float]
) -> dict[str, list[float]]:
    """By fault: the longest time without an acknowledgement from its begin to the next one's."""
    waits: dict[str, list[float]] = {}
    for name, start, end in zip(faults, begun, [*begun[1:], inf], strict=True):
        moments = [start, *sorted(at for at in acked_at if start < at <= end)]
        waits.setdefault(name, []).append(max(b - a for a, b in pairwise(moments)))
    return waits


def late_writes(cluster: Cluster, times: int, *, between: bool) -> History:
    """A leader stands still with a request in its hands, and wakes up when another one leads.

    The new leader writes something meanwhile, or nothing (`between`).
    """
    bodies = bodies_of(3 * times)
    history, keys = History(contents(bodies)), list(bodies)
    for n in range(times):
        _late_write(
            cluster, history, {key: bodies[key] for key in keys[3 * n : 3 * n + 3]}, between
        )
    _read_back(cluster, history, {})
    return history


def _late_write(
    cluster: Cluster, history: History, bodies: Mapping[str, bytes], between: bool
) -> None:
    first, late, other = bodies
    old = cluster.leader()
    rest = [n for n in range(len(cluster.nodes)) if n != old]
    history.acks += send_all(cluster[old], {first: bodies[first]})
    term = history.acks[-1].term
    producers = Producers([cluster[old]], {late: bodies[late]}, threads=1, seed=1)
    try:
        with frozen(cluster[old]):
            producers.start()
            new = cluster.leader(among=rest, above=term)
            history.begun[late] = cluster.told(new)["term"]
            if between:
                history.acks += send_all(cluster[new], {other: bodies[other]})
        producers.wait(1)
    finally:
        producers.stop()
    history.acks += producers.acks


def _read_back(cluster: Cluster, history: History, subscribers: Mapping[str, Subscriber]) -> None:
    """What every node has, and what every subscriber was given."""
    leader = cluster[cluster.leader()].client
    newest = leader.newest()
    for n, node in enumerate(cluster.nodes):
        with suppress(AssertionError):  # what does not come in time is the checker's to tell
            cluster.has(n, int(newest.rpartition(":")[2]))
        history.copies[f"n{n}"] = read_log(node.client)
    history.log = read_log(leader)
    for name, subscriber in subscribers.items():
        subscriber.wait(newest)
        subscriber.stop()
        history.subscribers[name] = subscriber.given
