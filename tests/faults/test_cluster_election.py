"""Who leads: the best machine at a cold start, never an observer, nobody else while it lives."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from tests.cluster import Cluster, cluster
from tests.faults.storm import leaky_client
from tests.node_process import wait_for

pytestmark = leaky_client
BEST = 2  # of the three; what the others measure counts little for them


def unequal(folder: Path) -> Cluster:
    """Three nodes whose scores differ as those of different machines do."""
    made = Cluster(folder)
    for n, node in enumerate(made.nodes):
        weight = 9 if n == BEST else 1 + n
        node.env["CONTEXT_SCORE_WEIGHTS"] = f"cores={weight},load=0"
    return made


@pytest.mark.slow
def test_the_best_machine_leads_after_each_of_twenty_cold_starts(tmp_path: Path) -> None:
    three = unequal(tmp_path)
    for _ in range(20):
        try:
            three.start()
            assert three.leader() == BEST
        finally:
            three.stop()


def test_a_better_machine_takes_over_and_an_observer_never_does(tmp_path: Path) -> None:
    three = unequal(tmp_path)
    hand_off = {"CONTEXT_HAND_OFF_AFTER_S": "1", "CONTEXT_HAND_OFF_EVERY_S": "2"}
    for node in three.nodes:
        node.env.update(hand_off)
    three[0].env["CONTEXT_OBSERVER"] = "true"
    three[0].env["CONTEXT_SCORE_WEIGHTS"] = "cores=90"
    try:
        three.start()
        wait_for(lambda: three.leader() == BEST, "the best machine to lead", 30)
        three[BEST].kill9()
        assert three.leader(among=[0, 1]) == 1, "the better one of the two only observes"
        roles = {node["id"]: node["role"] for node in three.told(1)["nodes"]}
        assert roles == {"n0": "observer", "n1": "leader", "n2": "follower"}
        three.start([BEST])
        wait_for(lambda: three.leader() == BEST, "the better machine to take over", 30)
        refused = three[BEST].client.post("/api/nodes/n0/lead")
        assert (refused.status_code, refused.json()["code"]) == (409, "hand_off_refused")
        unknown = three[BEST].client.post("/api/nodes/nobody/lead")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    finally:
        three.stop()


@pytest.mark.slow
def test_no_false_election_while_all_cores_are_busy(tmp_path: Path) -> None:
    """Ten minutes with two busy processes a core."""
    with cluster(tmp_path) as three:
        first, term = three.leader(), three.told(0)["term"]
        busy = [
            multiprocessing.Process(target=_spin, daemon=True)
            for _ in range(2 * multiprocessing.cpu_count())
        ]
        for process in busy:
            process.start()
        try:
            deadline = time.monotonic() + 600
            while time.monotonic() < deadline:
                assert three.told(first).get("term", term) == term
                time.sleep(1)
        finally:
            for process in busy:
                process.kill()
        assert (three.leader(), three.told(first)["term"]) == (first, term)


def _spin() -> None:
    while True:
        pass
