"""The fault tests find broken builds: the same scenario and checker, a node with one fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.node import HurtNode, broken
from tests.faults.producers import Mischief
from tests.faults.storm import Outcome, Storm, assert_kept, leaky_client, run, ticks, with_ticks

pytestmark = [leaky_client, with_ticks]

ITEMS = 6000
STORM = Storm(
    ("everything", "supervisor"),
    batch_items=50,
    producers=3,
    seed=3,
    mischief=Mischief(lost_answers=0.1, repeats=0.1),
)
BROKEN = {
    "acknowledge_before_commit": ("is lost: acknowledged",),
    "forget_keys": (" times, at offsets", "was answered"),
    "forget_keys_at_the_start": (" times, at offsets",),
    "lose_the_last_item": (" times, at offsets", "is lost: acknowledged"),
    "skip_the_hand_over_check": ("late: offsets",),
    "repeat_at_the_hand_over": ("late: offset", "came again or late"),
}


def outcome_of(build: str, folder: Path) -> Outcome:
    """The short scenario on a node that is broken like this; "" is an intact one."""
    with HurtNode(folder, env=broken(build)) as node:
        return run(node, ticks(ITEMS), STORM)


def test_an_intact_build_keeps_every_promise(tmp_path: Path) -> None:
    assert_kept(outcome_of("", tmp_path), ITEMS)


@pytest.mark.parametrize("build", BROKEN)
def test_a_broken_build_is_reported(build: str, tmp_path: Path) -> None:
    outcome = outcome_of(build, tmp_path)
    print(outcome, *outcome.violations[:3], sep="\n")
    for words in BROKEN[build]:
        assert any(words in text for text in outcome.violations), outcome.violations
