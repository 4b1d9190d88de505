"""Nodes of neighbouring versions in one cluster, and one that is two steps away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests

from tests.cluster import Cluster
from tests.faults.node import broken
from tests.node_process import NodeProcess, wait_for

NEXT = broken("next_protocol renamed_field")  # its notes have `body` and `length`, not `text`


def note(node: NodeProcess, offset: int) -> dict[str, Any]:
    answer = node.client.get(f"/api/context/items/{offset}")
    data: dict[str, Any] = answer.json()["data"]
    return data


def store(node: NodeProcess, data: dict[str, Any]) -> int:
    """Store one note, again while nobody leads; its offset."""
    found: list[requests.Response] = []

    def stored() -> bool:
        found.append(node.client.post("/api/context/ingest", json={"type": "note", "data": data}))
        return found[-1].status_code == 201

    wait_for(stored, "a note to be stored", 60)
    return int(found[-1].json()["first_offset"])


def lead(three: Cluster, n: int) -> None:
    def moved() -> bool:
        return three[0].client.post(f"/api/nodes/n{n}/lead").status_code == 200

    wait_for(moved, f"n{n} to lead", 60)
    wait_for(lambda: three.leader() == n, f"all to know that n{n} leads", 60)


def all_have(three: Cluster, offset: int, old: dict[str, Any], new: dict[str, Any]) -> None:
    for n, wanted in ((0, old), (1, old), (2, new)):
        three.has(n, offset)
        assert note(three[n], offset) == wanted, f"n{n} at {offset}"


def test_neighbours_understand_each_other_and_strangers_do_not_lead(tmp_path: Path) -> None:
    three = Cluster(tmp_path)
    three[2].env.update(NEXT)
    old, new = {"text": "abc", "mine": 1}, {"mine": 1, "body": "abc", "length": 3}
    try:
        three.start()
        three.leader()
        for leader in (0, 2):  # an older one, the newer one
            lead(three, leader)
            for n, sent in ((0, old), (1, old), (2, new)):
                offset = store(three[n], sent)
                all_have(three, offset, old, new)
        three[2].kill9()
        three[2].env.update(broken("far_protocol"))
        three.leader(among=[0, 1])
        three[2].start()
        wait_for(lambda: _told(three, 0).get("n2") == (3, False), "n0 to see that", 60)
        refused = three[0].client.post("/api/nodes/n2/lead")
        assert (refused.status_code, refused.json()["code"]) == (409, "hand_off_refused")
        wait_for(lambda: _told(three, 2).get("n2") == (3, False), "n2 to know it itself", 60)
        wait_for(lambda: "versions are too far apart" in three[0].log, "a line in the log", 30)
        assert store(three[0], old) > offset
    finally:
        three.stop()


def _told(three: Cluster, n: int) -> dict[str, tuple[int, bool]]:
    nodes = three.told(n).get("nodes", [])
    return {each["id"]: (each["protocol"], each["eligible"]) for each in nodes}
