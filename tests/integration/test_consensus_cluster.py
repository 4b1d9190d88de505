"""Three real nodes learn the same bits; a new leader goes on judging where the last one fell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests

from tests.cluster import cluster
from tests.integration.test_consensus import CONSENSUS, DECIDE, judged, trades
from tests.node_process import NodeProcess, wait_for


def known(node: NodeProcess) -> Any:
    return node.client.get(CONSENSUS).json()


def test_all_nodes_know_the_same_and_outcomes_survive_their_leader(tmp_path: Path) -> None:
    env = {"CONTEXT_OUTCOME_HORIZON_S": "20"}
    with cluster(tmp_path, env=env) as made:
        first = made.leader()
        others = [n for n in range(3) if n != first]
        made[others[0]].client.ingest(trades("X", 0, 300))
        for number in range(4):
            answer = made[others[number % 2]].client.post(DECIDE, json={"symbols": ["X"]})
            assert answer.status_code == 200, answer.text
            made[others[1]].client.ingest(trades("X", 300 + 10 * number, 10))
        for node in made.nodes:  # the last one waits for a price that is not there yet
            wait_for(lambda node=node: judged(node) == 3, "three outcomes", 60)  # type: ignore[misc]
        told = known(made[first])
        assert all(known(made[n]) == told for n in others)

        made[first].kill9()
        made.leader(among=others)

        def stored() -> bool:
            try:
                later = made[others[0]].client.post(
                    "/api/context/ingest",
                    json=trades("X", 340, 30),
                    headers={"Idempotency-Key": "later"},
                )
            except requests.ConnectionError:
                return False
            return later.status_code in (200, 201)

        wait_for(stored, "a leader that takes prices", 60)
        for n in others:
            wait_for(lambda n=n: judged(made[n]) == 4, "the outcome after the kill", 60)  # type: ignore[misc]
        assert known(made[others[0]]) == known(made[others[1]])
        made[first].start()
        wait_for(lambda: judged(made[first]) == 4, "the restarted node", 60)
        assert known(made[first]) == known(made[others[0]])
