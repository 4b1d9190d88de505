"""The cluster's fault tests find broken builds: the same scenarios and checker, one fault each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import Cluster, cluster
from tests.faults.checker import violations
from tests.faults.cluster_storm import late_writes, run
from tests.faults.node import broken
from tests.faults.storm import leaky_client

pytestmark = leaky_client


TIMES = 5  # whether a leader that wakes up writes first or hears first is chance


def kill_while_writing(three: Cluster) -> list[str]:
    return list(run(three, ["kill_engine"] * 4, seed=2).violations)


def late_alone(three: Cluster) -> list[str]:
    return violations(late_writes(three, TIMES, between=False))


def late_behind_another(three: Cluster) -> list[str]:
    return violations(late_writes(three, TIMES, between=True))


@pytest.mark.parametrize(
    ("build", "scenario", "words"),
    [
        ("no_fence", late_alone, "has begun"),
        ("no_expected_sequence", late_behind_another, "is lost: acknowledged"),
        ("acknowledge_before_the_engine", kill_while_writing, "items, others"),
    ],
)
def test_a_broken_build_is_reported(
    build: str, scenario: object, words: str, tmp_path: Path
) -> None:
    with cluster(tmp_path, env=broken(build)) as three:
        found = scenario(three)  # type: ignore[operator]
    print(*found[:3], sep="\n")
    assert any(words in text for text in found), found
