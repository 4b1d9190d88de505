"""`kill -9` at any moment: every acknowledged item is there once, and was delivered once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.node import HurtNode
from tests.faults.storm import (
    TICK_COUNT,
    Storm,
    assert_kept,
    leaky_client,
    mix,
    run,
    ticks,
    with_ticks,
)

pytestmark = [leaky_client, with_ticks]


def test_a_replay_through_28_kills_stores_and_delivers_every_item_once(tmp_path: Path) -> None:
    kills = mix(everything=12, agent=4, supervisor=8, web=4)
    with HurtNode(tmp_path) as node:
        outcome = run(node, ticks(), Storm(kills, batch_items=250, producers=3, seed=20240808))
        assert_kept(outcome, TICK_COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_single_items_of_concurrent_producers_through_60_kills(tmp_path: Path, seed: int) -> None:
    """Every commit is a group of different producers' items, and most kills hit one."""
    kills = mix(everything=30, supervisor=15, agent=10, web=5)
    with HurtNode(tmp_path) as node:
        outcome = run(node, ticks(12_000), Storm(kills, batch_items=1, producers=8, seed=seed))
        assert_kept(outcome, 12_000)


@pytest.mark.slow
def test_a_replay_in_thousands_through_40_kills(tmp_path: Path) -> None:
    kills = mix(everything=25, supervisor=15)
    with HurtNode(tmp_path) as node:
        outcome = run(node, ticks(), Storm(kills, batch_items=1000, producers=1, seed=7))
        assert_kept(outcome, TICK_COUNT)
