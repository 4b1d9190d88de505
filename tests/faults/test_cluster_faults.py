"""A cluster through every fault: what was acknowledged is on every node, once, in one order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.cluster import cluster
from tests.faults.checker import violations
from tests.faults.cluster_faults import FAULTS
from tests.faults.cluster_storm import Outcome, late_writes, run
from tests.faults.storm import leaky_client

pytestmark = leaky_client


def assert_kept(outcome: Outcome) -> None:
    print(outcome)
    assert not outcome.violations, "\n".join([str(outcome), *outcome.violations])


def test_a_cluster_through_faults_of_every_kind(tmp_path: Path) -> None:
    """A death, a loss of everything, a standstill and an orderly change; all come below."""
    faults = ["hand_over", "kill_node", "freeze_engine", "kill_all", "restart_leader"]
    with cluster(tmp_path) as three:
        assert_kept(run(three, faults, seed=5))


@pytest.mark.parametrize("between", [False, True])
def test_a_leader_that_stood_still_writes_nothing_more(tmp_path: Path, between: bool) -> None:
    with cluster(tmp_path) as three:
        assert not violations(late_writes(three, 2, between=between))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_twenty_faults_at_random(tmp_path: Path, seed: int) -> None:
    """With all seeds 200 cycles."""
    faults = random.Random(f"faults {seed}").choices(list(FAULTS), k=20)
    with cluster(tmp_path) as three:
        assert_kept(run(three, faults, seed))
