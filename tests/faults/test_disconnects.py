"""Connections break at random, in every way, against a running stream: nobody misses a thing."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.progress import progress
from tests.faults.checker import History, Missed, violations
from tests.faults.node import HurtNode, broken
from tests.faults.producers import Producers
from tests.faults.storm import contents, in_batches, leaky_client, send_all
from tests.faults.subscribers import (
    PollSubscriber,
    SocketIoSubscriber,
    SseSubscriber,
    Subscriber,
    read_log,
)
from tests.faults.test_faults import lines
from tests.nginx import NGINX, Nginx

pytestmark = leaky_client
RESTARTS = 4  # in a row: before each the supervisor waits twice as long, and a new node does not
PACE_S = 0.02  # between batches, so that items keep coming until the end
KINDS = (SseSubscriber, SseSubscriber, SocketIoSubscriber, SocketIoSubscriber, PollSubscriber)


class Havoc:
    """Breaks connections at random; `by` counts how."""

    def __init__(self, node: HurtNode, nginx: Nginx | None, chance: random.Random) -> None:
        self.by = {"client": 0, "proxy": 0, "web": 0, "all": 0}
        self._node, self._nginx, self._chance = node, nginx, chance
        self._restarts = 0  # of the web process since the node was started

    def strike(self, subscribers: Sequence[Subscriber]) -> None:
        """Kill the node, its web process or the proxy, or cut one connection."""
        draw = self._chance.random()
        if draw < 0.006 or (draw < 0.02 and self._restarts == RESTARTS):
            self._node.kill("everything")
            self._restarts = 0
            self.by["all"] += 1
        elif draw < 0.02:
            self._node.kill("web")
            self._restarts += 1
            self.by["web"] += 1
        elif draw < 0.04 and self._nginx:
            self._nginx.kill9()
            self._nginx.start()
            self.by["proxy"] += 1
        else:
            self._chance.choice(subscribers).cut()
            self.by["client"] += 1


def break_connections(
    node: HurtNode, folder: Path, wanted: int, seed: int
) -> tuple[History, int, dict[str, int]]:
    """What everybody saw, how many connections broke, and by what."""
    chance, bodies = random.Random(seed), in_batches(lines(100 * wanted), 10)
    last = {"last": lines(1, start=10**6)[0]}
    epoch = node.client.newest().partition(":")[0]
    with ExitStack() as stack:
        nginx = stack.enter_context(Nginx(folder, node.port)) if NGINX else None
        ways = [node.url, nginx.url] if nginx else [node.url]
        subscribers: list[Subscriber] = [kind(way, epoch) for way in ways for kind in KINDS]
        advance = stack.enter_context(progress("connections broken", wanted))
        havoc, broke = Havoc(node, nginx, chance), 0
        producers = Producers(node.port, bodies, threads=1, seed=seed, pace_s=PACE_S)
        producers.start()
        try:
            while broke < wanted:
                havoc.strike(subscribers)
                producers.wait(producers.acknowledged + chance.randrange(3))
                before, broke = broke, sum(max(0, each.connections - 1) for each in subscribers)
                advance(broke - before)
        finally:
            producers.stop()
        sent = {ack.key: bodies[ack.key] for ack in producers.acks} | last
        acks = producers.acks + send_all(node, last)
        history = History(contents(sent | bodies), acks, read_log(node.client))
        for number, each in enumerate(subscribers):
            each.wait(node.client.newest())
            each.stop()
            history.subscribers[f"{type(each).__name__} {number}"] = each.given
    gc.collect()  # `leaky_client` holds until the end of this test only
    return history, broke, havoc.by


@pytest.mark.parametrize("wanted", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_nobody_misses_or_repeats_a_thing(tmp_path: Path, wanted: int) -> None:
    with HurtNode(tmp_path / "data") as node:
        started = time.monotonic()
        history, broke, by = break_connections(node, tmp_path / "nginx", wanted, seed=wanted)
        took_s = time.monotonic() - started
        print(f"{broke} connections broke in {took_s:.0f} s, by {by}; {len(history.log)} items")
        assert not (found := violations(history)), "\n".join(found)
        for given in history.subscribers.values():
            assert not any(isinstance(one, Missed) for one in given)
        assert broke >= wanted


def test_a_build_without_the_hand_over_check_is_reported(tmp_path: Path) -> None:
    with HurtNode(tmp_path / "data", env=broken("skip_the_hand_over_check")) as node:
        history, _, _ = break_connections(node, tmp_path / "nginx", 60, seed=1)
        assert any("passed over" in each or "never came" in each for each in violations(history))
