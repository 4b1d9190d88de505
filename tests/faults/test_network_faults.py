"""A cluster whose network, disks and clocks fail: what was acknowledged stays, in one order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.cluster_storm import run
from tests.faults.network import network_cluster
from tests.faults.network_faults import ALL_FAULTS, NETWORK_FAULTS
from tests.faults.storm import leaky_client
from tests.faults.test_cluster_faults import assert_kept

pytestmark = leaky_client
SHORT = ("cut_leader", "deafen_leader", "fill_leader_disk", "jump_clock")


def test_a_cut_a_deaf_leader_a_full_disk_and_wrong_clocks(tmp_path: Path) -> None:
    with network_cluster(tmp_path) as three:
        assert_kept(run(three, SHORT, 1, NETWORK_FAULTS, timeout_s=3.0))


@pytest.mark.slow
def test_every_network_fault_once(tmp_path: Path) -> None:
    faults = list(NETWORK_FAULTS)
    random.Random(6).shuffle(faults)
    with network_cluster(tmp_path) as three:
        assert_kept(run(three, faults, 6, NETWORK_FAULTS, timeout_s=3.0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 106))
def test_ten_faults_of_all_kinds_at_random(tmp_path: Path, seed: int) -> None:
    faults = random.Random(f"faults {seed}").choices(list(ALL_FAULTS), k=10)
    with network_cluster(tmp_path) as three:
        assert_kept(run(three, faults, seed, ALL_FAULTS, timeout_s=3.0))
