"""Whoever reads slowly gets everything all the same, or is told what not; nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checker import Missed, Seen
from tests.faults.node import HurtNode, broken
from tests.faults.slow_readers import SlowSocket, SlowStream, counted, flow, run
from tests.node_process import wait_for
from tests.streaming import IoClient

CHANGES = 'context_delivery_changes_total{to="%s"}'


@pytest.fixture(params=["eventlet", "threading"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HurtNode]:
    with HurtNode(tmp_path, None, "--async-mode", request.param) as running:
        yield running


def test_every_item_once_in_order_at_a_random_pace(node: HurtNode) -> None:
    assert run(node) == []
    behind, live = (counted(node, CHANGES % to) for to in ("behind", "live"))
    print(f"{behind} times behind, {live} times live again")
    assert behind > 20
    assert live > 20


@pytest.mark.parametrize(
    "build", ["skip_the_hand_over_check", "send_after_a_refusal", "burst_after_a_refusal"]
)
def test_a_build_that_loses_items_is_reported(build: str, tmp_path: Path) -> None:
    with HurtNode(tmp_path, env=broken(build)) as node:
        found = run(node)
        print(*found[:3], sep="\n")
        assert any("passed over" in each for each in found)


def test_who_asked_for_it_gets_only_the_newest_of_each_symbol(node: HurtNode) -> None:
    """600 items pass by who does not read; a symbol's newest are there in the end, in order."""
    readers = [
        SlowStream(node, 1, conflate="symbol"),
        SlowSocket(node, 2, conflate="symbol"),
    ]
    for reader in readers:
        reader.paused.set()
    sent: dict[str, list[Any]] = {}
    flow(node, 150, sent, size=20_000, each=lambda _: None)
    log_size = sum(len(each) for each in sent.values())
    for reader in readers:
        reader.paused.clear()
    epoch, _, newest = node.client.newest().partition(":")
    for reader in readers:
        wait_for(lambda reader=reader: _ends_with(reader, int(newest)), "the newest item")
        reader.close()
        offsets = [each.offset for each in reader.given() if isinstance(each, Seen)]
        assert offsets == sorted(set(offsets))
        assert offsets[-5:] == list(range(int(newest) - 4, int(newest) + 1))
        assert 0 < reader.folded() == log_size - len(offsets), epoch
    assert counted(node, "context_delivery_folded_items_total") == sum(
        reader.folded() for reader in readers
    )


def _ends_with(reader: SlowStream | SlowSocket, newest: int) -> bool:
    given = reader.given()
    return bool(given) and isinstance(given[-1], Seen) and given[-1].offset == newest


def test_who_falls_too_far_behind_is_told_of_the_gap(tmp_path: Path) -> None:
    with HurtNode(tmp_path, env={"CONTEXT_MAX_LAG_ITEMS": "100"}) as node:
        epoch = node.client.newest().split(":")[0]
        reader = SlowStream(node, 1, after=f"{epoch}:-1")
        wait_for(lambda: b"retry" in reader.received, "the stream")
        flow(node, 3, {}, size=10, each=lambda _: None)
        wait_for(lambda: len(reader.given()) == 6, "six items")
        reader.paused.set()
        flow(node, 150, {}, size=20_000, each=lambda _: None)
        wait_for(lambda: counted(node, CHANGES % "behind"), "it to be behind")
        newest = int(node.client.newest().partition(":")[2])
        reader.paused.clear()
        wait_for(lambda: any(isinstance(each, Missed) for each in reader.given()), "the gap")
        node.client.ingest({"type": "end", "data": {}})
        wait_for(lambda: _ends_with(reader, newest + 1), "the newest item")
        wanted = 0
        for each in reader.given():
            assert (each.offset if isinstance(each, Seen) else each.first) == wanted
            wanted = (each.offset if isinstance(each, Seen) else each.last) + 1
        assert b'"reason":"too_slow"' in reader.received
        assert counted(node, CHANGES % "gap") >= 1
        reader.close()


def test_who_accepts_nothing_is_disconnected(tmp_path: Path) -> None:
    with HurtNode(tmp_path, env={"CONTEXT_STALL_S": "1"}) as node:
        readers = [SlowStream(node, 1), SlowSocket(node, 2)]
        for reader in readers:
            reader.paused.set()
        flow(node, 150, {}, size=20_000, each=lambda _: None)
        wait_for(lambda: counted(node, CHANGES % "stalled") == 2, "both to be disconnected")
        stats = node.client.get("/api/context/stats").json()
        assert stats["subscribers"] == 0
        for reader in readers:
            reader.paused.clear()
            reader.join(10)
            assert not reader.is_alive()
            reader.close()


def test_frames_wait_for_acknowledgements(node: HurtNode) -> None:
    """A client that acknowledges nothing gets eight frames; the stock client acknowledges all."""
    with IoClient(node) as quick:
        name = quick.call("subscribe", {"ack": True})["subscription"]
        lazy = SlowSocket(node, 1, ack="true")
        sent: dict[str, list[Any]] = {}
        flow(node, 60, sent, size=10, each=lambda _: None)
        newest = sum(len(each) for each in sent.values())
        items = quick.wait_items(name, newest)
        assert [item["offset"] for item in items] == list(range(newest))
        events = [each for each in lazy.messages() if '["context"' in each]
        assert len(events) == 8
        assert all(each.startswith("42") and each[2].isdecimal() for each in events)
        lazy.close()
