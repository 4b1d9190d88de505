"""The kill scenario: recorded ticks sent as fast as they are taken, the node killed all along."""

from __future__ import annotations

import gc
import gzip
import random
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import msgspec
import pytest

from tests.faults.checker import Ack, History, Missed, violations
from tests.faults.node import HurtNode
from tests.faults.producers import Mischief, Producers
from tests.faults.subscribers import (
    SocketIoSubscriber,
    SseSubscriber,
    Subscriber,
    content,
    read_log,
)
from tests.node_process import NodeProcess

DATA = Path(__file__).resolve().parents[2] / "../shared/data/normalized"
TICKS = DATA / "ticks_binancefutures_BTCUSDT_20240808.ndjson.gz"
TICK_COUNT = 87_402

with_ticks = pytest.mark.skipif(not TICKS.exists(), reason="the recorded data is not here")
# websocket-client leaves the socket of a refused connection to the garbage collector.
leaky_client = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
MISCHIEF = Mischief(lost_answers=0.03, repeats=0.03)


@dataclass(frozen=True, slots=True)
class Storm:
    """How hard: `kills` are the targets in order, spread over the run by `seed`."""

    kills: Sequence[str]
    batch_items: int
    producers: int
    seed: int
    mischief: Mischief = MISCHIEF
    delay_s: float = 0.01  # longest pause between a batch's acknowledgement and the kill


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a storm; `str()` is the line to print."""

    history: History
    violations: Sequence[str]
    kills: Mapping[str, int]
    told: Mapping[str, int]
    seconds: float
    seed: int

    def __str__(self) -> str:
        resumed = {name: len(given) for name, given in self.history.subscribers.items()}
        return (
            f"seed {self.seed}: {len(self.history.log)} items, kills {dict(self.kills)}, "
            f"answers {dict(self.told)}, delivered {resumed}, {self.seconds:.1f} s"
        )


def mix(**counts: int) -> list[str]:
    """Targets in turn, as often as asked: mix(agent=1, everything=2)."""
    left, order = Counter(counts), []
    for target in islice(cycle(counts), len(counts) * max(counts.values())):
        if left[target]:
            left[target] -= 1
            order.append(target)
    return order


def ticks(count: int = TICK_COUNT) -> list[bytes]:
    """The first lines of the recording."""
    with gzip.open(TICKS) as lines:
        return list(islice(lines, count))


def in_batches(lines: Sequence[bytes], batch_items: int) -> dict[str, bytes]:
    """NDJSON bodies by idempotency key."""
    batches = (lines[at : at + batch_items] for at in range(0, len(lines), batch_items))
    return {f"batch-{number}": b"".join(batch) for number, batch in enumerate(batches)}


def contents(bodies: Mapping[str, bytes]) -> dict[str, Sequence[Hashable]]:
    """What each body says, as the checker compares it."""
    return {
        key: [content(msgspec.json.decode(line)) for line in body.splitlines()]
        for key, body in bodies.items()
    }


def run(node: HurtNode, lines: Sequence[bytes], storm: Storm) -> Outcome:
    """Send the lines to a running, empty node and kill it; returns what everybody saw."""
    started, chance = time.monotonic(), random.Random(storm.seed)
    bodies = in_batches(lines, storm.batch_items)
    epoch = node.client.newest().partition(":")[0]
    subscribers: dict[str, Subscriber] = {
        "sse": SseSubscriber(node.url, epoch),
        "socket.io": SocketIoSubscriber(node.url, epoch),
    }
    last = dict([bodies.popitem()])
    producers = Producers(
        node.port, bodies, threads=storm.producers, seed=storm.seed, mischief=storm.mischief
    )
    moments = sorted(chance.sample(range(1, len(bodies) - storm.producers), len(storm.kills)))
    producers.start()
    try:
        for moment, target in zip(moments, storm.kills, strict=True):
            producers.wait(moment)
            time.sleep(chance.uniform(0, storm.delay_s))
            node.kill(target)
        # It reads all of history while more is coming, and goes on with what is live.
        subscribers["late"] = SseSubscriber(node.url, epoch)
        producers.wait(len(bodies))
    finally:
        producers.stop()
    for subscriber in subscribers.values():
        subscriber.wait(node.client.newest())
    acks = producers.acks + send_all(node, last)  # live for everybody, whoever read history before
    history = History(contents(bodies | last), acks, read_log(node.client))
    for name, subscriber in subscribers.items():
        subscriber.wait(node.client.newest())
        subscriber.stop()
        history.subscribers[name] = subscriber.given
    gc.collect()  # `leaky_client` holds until the end of this test only
    seconds = time.monotonic() - started
    found = violations(history)
    return Outcome(history, found, Counter(storm.kills), producers.told, seconds, storm.seed)


def send_all(node: NodeProcess, bodies: Mapping[str, bytes]) -> list[Ack]:
    """Send without mischief, one after the other."""
    producers = Producers([node], bodies, threads=1, seed=0)
    producers.start()
    try:
        producers.wait(len(bodies))
    finally:
        producers.stop()
    return producers.acks


def assert_kept(outcome: Outcome, items: int) -> None:
    """Every promise was kept, nothing was told to be gone, and these many items are stored."""
    print(outcome)
    assert not outcome.violations, "\n".join([str(outcome), *outcome.violations])
    assert len(outcome.history.log) == items
    for given in outcome.history.subscribers.values():
        assert not any(isinstance(one, Missed) for one in given)
