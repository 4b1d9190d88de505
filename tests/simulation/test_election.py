"""Elections under every order of drops, delays, pauses and clock jumps that fits in the bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.election import Election, Phase
from nodes.election_events import Action, Event, Unanswered, Written
from tests.simulation.election_world import Broken, Op, World

HEALTHY = {"hear", "watch", "store", "answer", "apply", "drained"}
SCORES = {"a": 3.0, "b": 2.0}


class TrustsSilence(Election):
    """Takes a claim without an answer for one that was taken: broken on purpose."""

    def step(self, event: Event, now: float) -> list[Action]:
        if isinstance(event, Unanswered) and self.phase is Phase.CLAIMING:
            assert self.lease is not None
            event = Written(self.lease.revision + 1)
        return super().step(event, now)


def run(world: World, ops: Iterable[str]) -> World:
    for op in ops:
        world.do(tuple(op.split()))
    return world


def settle(world: World, rounds: int) -> None:
    """A healthy network: everything arrives at once."""
    for _ in range(rounds):
        for name in world.machines:
            world.do(("tick", name))
        for _ in range(4):
            for op in world.ops():
                if op[0] in HEALTHY and op in world.ops():
                    world.do(op)
        for op in world.ops():
            if op[0] == "fence":
                world.do(op)


def led_by_a(kind: type[Election] = Election, *, fenced: bool = True) -> World:
    world = World.of(SCORES, kind, fenced=fenced)
    settle(world, 4)
    assert world.leaders() == ["a"]
    return world


def explore(start: World, states: int) -> int:
    """Breadth first through all that can happen; how many states were looked at."""
    seen, waiting = {start.key()}, deque([start])
    while waiting and len(seen) < states:
        world = waiting.popleft()
        for op in world.ops():
            after = world.copy()
            after.do(op)
            key = after.key()
            if key not in seen:
                seen.add(key)
                waiting.append(after)
    return len(seen)


def claims_under_way(kind: type[Election] = Election, *, fenced: bool = True) -> World:
    """Both nodes claim the free lease."""
    world = World.of(SCORES, kind, fenced=fenced)
    steps = ["watch a", "watch b"] + ["tick a", "tick b"] * 4
    return run(world, [op for op in steps if op[0] != "w" or tuple(op.split()) in world.ops()])


@pytest.mark.parametrize("start", [led_by_a, claims_under_way])
def test_every_order_of_events_keeps_the_invariants(start: type) -> None:
    assert explore(start(), 6_000) >= 6_000


@pytest.mark.slow
@pytest.mark.parametrize("start", [led_by_a, claims_under_way])
def test_every_longer_order_of_events_too(start: type) -> None:
    assert explore(start(), 150_000) >= 150_000


def test_an_election_that_trusts_silence_is_caught() -> None:
    with pytest.raises(Broken, match="both lead"):
        explore(run(claims_under_way(TrustsSilence), ["timeout a", "timeout b"]), 20_000)


def test_a_log_without_expected_sequences_is_caught() -> None:
    # `a` leads and is paused; `b` takes over; `a` writes on before it knows.
    paused = ["hear b a", *["tick b"] * 4, "store b", "answer b", "apply b", "fence b", "append a"]
    honest = run(led_by_a(), paused)
    assert honest.leaders() == ["b"]
    with pytest.raises(Broken, match="older term"):
        run(led_by_a(fenced=False), paused)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_long_runs_keep_the_invariants_and_then_the_best_leads(data: st.DataObject) -> None:
    world = World.of({"a": 3.0, "b": 2.0, "c": 2.0})
    if data.draw(st.booleans()):
        settle(world, 4)
    for _ in range(data.draw(st.integers(0, 80))):
        ops: list[Op] = [op for op in world.ops() if op[0] != "stop"]
        world.do(data.draw(st.sampled_from(ops)))
    settle(world, 20)
    assert len(world.leaders()) == 1
    settle(world, 60)
    assert world.leaders() == ["a"]


def test_the_best_leads_and_a_planned_hand_off_needs_patience() -> None:
    world = World.of({"a": 2.0, "b": 3.0, "c": 1.0})
    settle(world, 4)
    assert world.leaders() == ["b"]
    world.machines["c"].score = 3.5  # 17% better: not enough
    settle(world, 15)
    assert world.leaders() == ["b"]
    world.machines["c"].score = 3.7
    settle(world, 9)
    assert world.leaders() == ["b"]
    settle(world, 8)
    assert world.leaders() == ["c"]
    world.machines["a"].score = 9.0
    settle(world, 12)
    assert world.leaders() == ["c"]  # not so soon again
    settle(world, 20)
    assert world.leaders() == ["a"]


def test_who_sees_the_lease_renewed_does_not_take_it_though_it_hears_nothing() -> None:
    """Two nodes do not reach each other, and both reach the engines' majority."""
    world = led_by_a()
    for _ in range(30):
        for step in ("tick a", "store a", "answer a", "watch b", "tick b", "store b", "answer b"):
            op = tuple(step.split())
            if op in world.ops():
                world.do(op)
    assert world.leaders() == ["a"]
    assert world.machines["b"].election.phase is Phase.FOLLOWING


def test_a_leader_that_stops_hands_over_to_the_best() -> None:
    world = World.of({"a": 3.0, "b": 1.0, "c": 2.0})
    settle(world, 4)
    world.do(("stop", "a"))
    settle(world, 2)
    assert world.leaders() == ["c"]
    assert world.machines["a"].election.phase is Phase.GONE
