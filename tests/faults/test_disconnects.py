"""Connections break at random, in every way, against a running stream: nobody misses a thing."""

from __future__ import annotations

import gc
import random
from contextlib import ExitStack
from pathlib import Path

import pytest

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
KINDS = (SseSubscriber, SseSubscriber, SocketIoSubscriber, SocketIoSubscriber, PollSubscriber)


def break_connections(
    node: HurtNode, folder: Path, wanted: int, seed: int
) -> tuple[History, int, dict[str, int]]:
    """What everybody saw, how many connections broke, and by what."""
    chance, bodies = random.Random(seed), in_batches(lines(50 * wanted), 10)
    epoch, by = (
        node.client.newest().partition(":")[0],
        {"client": 0, "proxy": 0, "web": 0, "all": 0},
    )
    with ExitStack() as stack:
        ways = [node.url]
        nginx = stack.enter_context(Nginx(folder, node.port)) if NGINX else None
        if nginx:
            ways.append(nginx.url)
        subscribers: list[Subscriber] = [kind(way, epoch) for way in ways for kind in KINDS]
        producers = Producers(node.port, bodies, threads=1, seed=seed)
        producers.start()
        try:
            while sum(each.connections for each in subscribers) < wanted + len(subscribers):
                draw = chance.random()
                if draw < 0.006:
                    node.kill("everything")
                    by["all"] += 1
                elif draw < 0.02:
                    node.kill("web")
                    by["web"] += 1
                elif draw < 0.04 and nginx:
                    nginx.kill9()
                    nginx.start()
                    by["proxy"] += 1
                else:
                    chance.choice(subscribers).cut()
                    by["client"] += 1
                producers.wait(min(len(bodies), len(producers.acks) + chance.randrange(3)))
        finally:
            producers.stop()
        acks = producers.acks
        sent = {ack.key: bodies[ack.key] for ack in acks}
        acks = acks + send_all(node, {"last": lines(1, start=10**6)[0]})
        sent["last"] = lines(1, start=10**6)[0]
        history = History(contents(sent | bodies), acks, read_log(node.client))
        broke = sum(each.connections - 1 for each in subscribers)
        for number, each in enumerate(subscribers):
            each.wait(node.client.newest())
            each.stop()
            history.subscribers[f"{type(each).__name__} {number}"] = each.given
    gc.collect()  # `leaky_client` holds until the end of this test only
    return history, broke, by


@pytest.mark.parametrize("wanted", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_nobody_misses_or_repeats_a_thing(tmp_path: Path, wanted: int) -> None:
    with HurtNode(tmp_path / "data") as node:
        history, broke, by = break_connections(node, tmp_path / "nginx", wanted, seed=wanted)
        print(f"{broke} connections broke, by {by}; {len(history.log)} items")
        assert not (found := violations(history)), "\n".join(found)
        for given in history.subscribers.values():
            assert not any(isinstance(one, Missed) for one in given)
        assert broke >= wanted


def test_a_build_without_the_hand_over_check_is_reported(tmp_path: Path) -> None:
    with HurtNode(tmp_path / "data", env=broken("skip_the_hand_over_check")) as node:
        history, _, _ = break_connections(node, tmp_path / "nginx", 60, seed=1)
        assert any("passed over" in each or "never came" in each for each in violations(history))
