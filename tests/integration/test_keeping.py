"""Retention as its users see it: old items go, offsets stay, readers hear of the gap."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from context.adapters.archive import Archive
from context.adapters.disk_room import used_bytes
from tests.faults.node import HurtNode
from tests.node_process import NodeProcess, wait_for
from tests.streaming import SseReader

SEARCH = "/api/context/search"
BATCH = 2000  # items of 600 bytes: a block each
PAD = "p" * 500


def batch(kind: str, first: int) -> list[dict[str, Any]]:
    return [
        {"type": kind, "timestamp": first + i, "data": {"n": first + i, "pad": PAD}}
        for i in range(BATCH)
    ]


def fill(node: NodeProcess, kinds: str, first: int = 0) -> None:
    """A block of each kind, `k` for items that are kept and `g` for those that go."""
    for i, kind in enumerate(kinds):
        named = {"k": "kept", "g": "gone"}[kind]
        node.client.ingest(batch(named, first + i * BATCH))


def retention(**rules: dict[str, float]) -> dict[str, str]:
    return {"CONTEXT_RETENTION": json.dumps(rules), "CONTEXT_RETENTION_INTERVAL_S": "0.1"}


def stats(node: NodeProcess) -> dict[str, Any]:
    found: dict[str, Any] = node.client.get("/api/context/stats").json()
    return found


def count(node: NodeProcess, query: str) -> int:
    found: int = node.client.post(SEARCH, json={"query": query, "count_only": True}).json()["count"]
    return found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path, env=retention(gone={"max_items": BATCH})) as running:
        yield running


def test_old_blocks_go_and_everything_else_stays(node: NodeProcess) -> None:
    """Blocks of `gone` go but for the newest that hold the bound; a hole is a gap to readers."""
    epoch = node.client.newest().split(":")[0]
    fill(node, "kggkggkk")
    # It is counted last, when the blocks are off the disk.
    wait_for(lambda: stats(node)["dropped_items"] == 3 * BATCH, "all but one block of `gone`", 30)
    found = stats(node)
    assert found["types"] == {"kept": 4 * BATCH, "gone": BATCH}
    assert found["items"] == 5 * BATCH
    assert found["dropped_items"] == 3 * BATCH
    assert found["newest_offset"] == 8 * BATCH - 1
    assert f'context_dropped_items_total{{type="gone"}} {3 * BATCH}.0' in (
        node.client.get("/metrics").text
    )

    assert count(node, '"pad"') == 5 * BATCH
    assert count(node, f'"n":{BATCH},') == 0
    assert count(node, f'"n":{5 * BATCH},') == 1
    gone = node.client.get(f"/api/context/items/{BATCH}")
    assert gone.status_code == 404
    assert "no longer kept" in gone.json()["detail"]
    assert node.client.get(f"/api/context/items/{3 * BATCH}").json()["data"]["n"] == 3 * BATCH

    node.stop()
    node.start()
    again = stats(node)
    assert again["types"] == found["types"]
    assert count(node, '"pad"') == 5 * BATCH

    holes = [(BATCH, 3 * BATCH - 1), (4 * BATCH, 5 * BATCH - 1)]
    with SseReader(node, after=f"{epoch}:-1") as reader:
        items = reader.wait_items(5 * BATCH)
        gaps = [event.data for event in reader.events if event.kind == "gap"]
    told = [
        tuple(int(gap[name].split(":")[1]) for name in ("missed_from", "missed_to")) for gap in gaps
    ]
    missing = {n for first, last in holes for n in range(first, last + 1)}
    assert [item["offset"] for item in items] == [n for n in range(8 * BATCH) if n not in missing]
    assert told == holes

    gap = node.client.get(f"/api/context/poll?after={epoch}:{BATCH + 5}&wait_s=0").json()["gap"]
    assert gap == {"missed_from": f"{epoch}:{BATCH + 6}", "missed_to": f"{epoch}:{3 * BATCH - 1}"}


def test_killed_while_blocks_go(tmp_path: Path) -> None:
    """Whatever a crash interrupts: what is kept stays, and what has to go goes in the end."""
    env = retention(gone={"max_items": 1})
    with HurtNode(tmp_path, env={"CONTEXT_RETENTION_INTERVAL_S": "3600"}) as node:
        fill(node, "gkg" * 8 + "k")
        wait_for(lambda: len(Archive(tmp_path).heads()) >= 24, "the blocks to be sealed", 30)
    for _ in range(4):
        with HurtNode(tmp_path, env=env) as node:
            os.kill(node.child("server.agent"), signal.SIGKILL)
            node.kill_and_leave("everything")
            node.start()
            assert stats(node)["types"]["kept"] == 9 * BATCH
            node.stop()
    with HurtNode(tmp_path, env=env) as node:
        wait_for(lambda: stats(node)["types"].get("gone") == BATCH, "all but one of `gone`", 30)
        assert count(node, '"type":"kept"') == 9 * BATCH
        assert count(node, '"type":"gone"') == BATCH


def test_the_disk_budget_is_kept(tmp_path: Path) -> None:
    """The oldest goes, and its space comes back although its file still holds other blocks."""
    env = {"CONTEXT_DISK_BUDGET_MB": "32", "CONTEXT_RETENTION_INTERVAL_S": "0.2"}
    with NodeProcess(tmp_path, env=env) as node:
        for i in range(60):
            pads = [os.urandom(400).hex() for _ in range(1500)]
            node.client.ingest([{"type": "noise", "data": {"n": i, "pad": pad}} for pad in pads])
        wait_for(lambda: stats(node)["oldest_offset"] > 0, "the oldest to go", 30)
        wait_for(lambda: used_bytes(tmp_path) <= 32 << 20, "the budget to be kept", 30)
        found = stats(node)
        assert found["newest_offset"] == 60 * 1500 - 1
        assert found["items"] == found["newest_offset"] - found["oldest_offset"] + 1
        assert count(node, '"n":59,') == 1500
        assert found["disk"]["budget_bytes"] == 32 << 20
