"""Trading on three nodes: a session goes on under the next leader, a stop holds on all of them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.cluster import Cluster, cluster
from tests.integration.test_trading import (
    ENV,
    TRADING,
    begin,
    decide,
    entries,
    price,
    status,
    until,
)
from tests.node_process import NodeProcess, wait_for


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, env=ENV) as made:
        made.leader()
        yield made


def others(first: int) -> list[int]:
    return [n for n in range(3) if n != first]


def terms(node: NodeProcess) -> list[int]:
    return [each["term"] for each in entries(node.client)]


def test_a_session_goes_on_under_the_next_leader(three: Cluster) -> None:
    first = three.leader()
    rest = others(first)
    follower = three[rest[0]].client
    price(follower, 100)
    begin(follower)
    decide(follower, "buy")
    until(follower, lambda s: len(s["open_orders"]) == 1, "an open order, on a follower's copy")
    term = three.told(first)["term"]
    three[first].kill9()
    three.leader(among=rest, above=term)
    price(follower, 100.1)
    shown = until(follower, lambda s: s["fills"] == 1, "its fill under the next leader")
    assert (shown["trading"], shown["open_orders"]) == (True, [])
    decide(follower, "buy")
    until(follower, lambda s: s["orders"] == 2, "an order of the next leader")
    told = terms(three[rest[0]])
    assert told == sorted(told)
    assert len({told[0], told[-1]}) == 2
    three[first].start()
    newest = follower.get("/api/context/stats").json()["newest"]
    back = three[first].client.get(f"{TRADING}?min_cursor={newest}").json()
    here = follower.get(TRADING).json()
    assert back["accounts"] == here["accounts"]
    assert back["orders"] == here["orders"] == 2


def test_a_stop_holds_on_every_node_and_under_every_leader(three: Cluster) -> None:
    first = three.leader()
    rest = others(first)
    price(three[first].client, 100)
    begin(three[first].client)
    for _ in range(5):
        decide(three[first].client, "buy")
    until(three[first].client, lambda s: s["orders"] == 5, "orders in flight")
    asked_at = time.monotonic()
    stopped = three[rest[0]].client.post("/api/control/emergency-stop", json={"reason": "drill"})
    assert stopped.json()["emergency_stop"] is True
    for node in three.nodes:
        until(
            node.client,
            lambda s: s["emergency_stop"] and not s["trading"] and not s["open_orders"],
            "the halt on every node",
        )
    took = time.monotonic() - asked_at
    print(f"halted on three nodes {took:.3f} s after the call")
    assert took < 1
    term = three.told(first)["term"]
    three[first].kill9()
    second = three.leader(among=rest, above=term)
    refused = three[second].client.post(f"{TRADING}/start", json={"mode": "test"})
    assert refused.json()["code"] == "trading_refused"
    decide(three[second].client, "buy")
    price(three[second].client, 100)
    assert status(three[second].client)["orders"] == 5
    assert entries(three[second].client, "fill") == []


def test_a_paused_leader_orders_nothing_once_another_leads(three: Cluster) -> None:
    """It wakes up believing that it leads, with decisions to act on; its log refuses it."""
    first = three.leader()
    rest = others(first)
    price(three[first].client, 100)
    begin(three[first].client)
    decide(three[first].client, "buy")
    until(three[rest[0]].client, lambda s: s["orders"] == 1, "the order everywhere")
    term = three.told(first)["term"]
    processes = [psutil.Process(pid) for pid in three[first].pids()]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    second = three.leader(among=rest, above=term)
    for _ in range(3):
        decide(three[second].client, "buy")
    until(three[second].client, lambda s: s["orders"] == 4, "orders of the next leader")
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)
    price(three[second].client, 100)
    until(three[second].client, lambda s: s["fills"] == 4, "every fill")

    def same() -> bool:
        with suppress(requests.RequestException):
            return entries(three[first].client) == entries(three[second].client)
        return False

    wait_for(same, "the same entries on the node that was paused", 30.0)
    told = terms(three[first])
    assert told == sorted(told)
    ids = [each["client_id"] for each in entries(three[first].client, "order")]
    assert len(ids) == len(set(ids)) == 4
