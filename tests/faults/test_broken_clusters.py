"""The cluster's fault tests find broken builds: the same scenarios and checker, one fault each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, cluster
from tests.faults.checker import violations
from tests.faults.cluster_storm import late_writes, run
from tests.faults.node import broken
from tests.faults.storm import leaky_client

pytestmark = leaky_client
Scenario = Callable[[Cluster], Iterator[list[str]]]

# Whether a leader that wakes up writes first or hears first is chance, and so is whether a message
# is under way when its engine is killed.
MOST = 8


def kill_while_writing(three: Cluster) -> Iterator[list[str]]:
    for seed in range(2, 2 + MOST):
        yield list(run(three, ["kill_engine"] * 4, seed=seed).violations)


def late_alone(three: Cluster) -> Iterator[list[str]]:
    for _ in range(MOST):
        yield violations(late_writes(three, 3, between=False))


def late_behind_another(three: Cluster) -> Iterator[list[str]]:
    for _ in range(MOST):
        yield violations(late_writes(three, 3, between=True))


@pytest.mark.parametrize(
    ("build", "scenario", "words"),
    [
        pytest.param("no_fence", late_alone, "has begun", marks=pytest.mark.slow),
        ("no_expected_sequence", late_behind_another, "is lost: acknowledged"),
        pytest.param(
            *("acknowledge_before_the_engine", kill_while_writing, "items, others"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_broken_build_is_reported(
    build: str, scenario: Scenario, words: str, tmp_path: Path
) -> None:
    found: list[str] = []
    with cluster(tmp_path, env=broken(build)) as three:
        for more in scenario(three):
            found += more
            if any(words in text for text in more):
                return
    raise AssertionError(f"nothing {words!r} in {found}")
