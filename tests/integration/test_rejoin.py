"""Nodes that come back: after a restart, after a long absence, with an empty disk."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from nodes.adapters.nats_client import connect
from nodes.adapters.replacing import is_whole
from nodes.engine import Address
from tests.cluster import Cluster, cluster
from tests.engines import SECRET
from tests.faults.node import broken
from tests.node_process import NodeProcess, wait_for

LATEST = "/api/context/latest"
BODY = 1000  # items
REBUILD_S = 300.0


def body(first: int, count: int = BODY) -> bytes:
    """Lines of items that know their offset."""
    return b"".join(
        json.dumps({"type": "note", "data": {"n": first + n, "text": f"item {first + n}"}}).encode()
        + b"\n"
        for n in range(count)
    )


def fill(node: NodeProcess, first: int, count: int) -> None:
    """Store bodies one after the other; each again while the answer is to try again."""
    for start in range(first, first + count, BODY):
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": f"at {start}"}

        def stored(start: int = start, headers: dict[str, str] = headers) -> bool:
            answer = node.client.post("/api/context/ingest", data=body(start), headers=headers)
            if answer.status_code == 503 and answer.json()["retryable"]:
                return False
            assert answer.json()["first_offset"] == start, answer.text
            return True

        wait_for(stored, f"the body at {start}", 60)


def catch_up(node: NodeProcess, newest: int) -> list[int]:
    """What a node tells to be behind, reading by reading, until it has everything."""
    told, offset, deadline = [], -1, time.monotonic() + REBUILD_S
    while offset < newest:
        assert time.monotonic() < deadline, f"at {offset} of {newest}"
        answer = node.client.get(LATEST, params={"limit": 1})
        assert answer.status_code == 200, answer.text
        offset = int(answer.headers["Context-Applied"].rpartition(":")[2])
        items = answer.json()["items"]
        if items:  # what it serves is right, though not the newest
            assert items[0]["data"]["n"] <= newest
        told.append(int(answer.headers.get("Context-Stale", 0)))
        ready = node.client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["behind"] >= 0
    wait_for(lambda: "Context-Stale" not in node.client.get(LATEST).headers, "no mark at the tail")
    assert node.client.get("/readyz").json()["behind"] == 0
    return told


def same_everywhere(three: Cluster, offsets: list[int]) -> None:
    for offset in offsets:
        found = {node.client.get(f"/api/context/items/{offset}").text for node in three.nodes}
        assert len(found) == 1, (offset, found)
        assert json.loads(found.pop())["data"]["n"] == offset


def follower(three: Cluster) -> tuple[NodeProcess, NodeProcess]:
    """The leader, and a node that follows."""
    first = three.leader()
    return three[first], three[(first + 1) % 3]


async def rebuilt(three: Cluster) -> None:
    """Wait until the engines of all nodes hold all of every stream."""
    addresses = [Address(node.host, node.port) for node in three.nodes]
    client = await connect(addresses, SECRET, tls=None)
    try:
        async with asyncio.timeout(REBUILD_S):
            while not await is_whole(client, len(three.nodes)):
                await asyncio.sleep(0.05)
    finally:
        await client.close()


def absence(three: Cluster, count: int, env: Mapping[str, str] | None = None) -> None:
    leader, away = follower(three)
    fill(leader, 0, BODY)
    three.has(three.nodes.index(away), BODY - 1)
    away.kill9()
    fill(leader, BODY, count)
    newest = BODY + count - 1
    away.env.update(env or {})
    away.start()
    told = catch_up(away, newest)
    if env:  # a million small items may be there before anybody can ask
        assert max(told) > 0, "it never said that it was behind"
    marked = [behind for behind in told if behind]
    assert marked == sorted(marked, reverse=True), "it fell back while nobody wrote"
    same_everywhere(three, [0, BODY - 1, BODY, newest // 2, newest])


def test_a_node_that_was_away_serves_marked_reads_and_catches_up(tmp_path: Path) -> None:
    with cluster(tmp_path) as three:
        # On a slow disk, as it has to be asked while it is behind.
        absence(three, 50 * BODY, broken("slow_copy"))


def test_a_wiped_node_is_rebuilt_and_counts_again(tmp_path: Path) -> None:
    with cluster(tmp_path) as three:
        leader, wiped = follower(three)
        fill(leader, 0, 20 * BODY)
        leader.client.post(
            "/api/context/types", json={"name": "weather", "schema": {"required": ["wind"]}}
        )
        wiped.kill9()
        shutil.rmtree(wiped.data_dir)
        wiped.start()
        catch_up(wiped, 20 * BODY - 1)
        same_everywhere(three, [0, 10 * BODY, 20 * BODY - 1])
        asyncio.run(rebuilt(three))
        # Its engine holds everything again: with it and one other the cluster goes on.
        number, gone = three.nodes.index(wiped), three.nodes.index(leader)
        term = three.told(number)["term"]
        leader.kill9()
        rest = [n for n in range(3) if n != gone]
        second = three.leader(among=rest, above=term)
        fill(three[second], 20 * BODY, BODY)
        three.has(number, 21 * BODY - 1)
        bad = wiped.client.post(
            "/api/context/ingest", json={"type": "weather", "data": {"rain": 1}}
        )
        assert bad.status_code == 422, "the state came back too"


@pytest.mark.slow
def test_a_node_a_million_items_behind(tmp_path: Path) -> None:
    with cluster(tmp_path) as three:
        absence(three, 1000 * BODY)
