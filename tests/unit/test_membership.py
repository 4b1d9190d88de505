"""Who counts as alive, and that a pause of this node's own kills nobody."""

from __future__ import annotations

import pytest

from nodes.heartbeat import Heartbeat
from nodes.membership import Membership, State, Timings


def beat(number: int, life: str = "1") -> Heartbeat:
    return Heartbeat(id="b", url="http://b", life=life, number=number)


def aged(by_s: float) -> Membership:
    members = Membership(Timings())
    members.tick(0.0)
    members.heard(beat(1))
    for tenth in range(1, round(by_s * 10) + 1):
        members.tick(tenth / 10)
    return members


@pytest.mark.parametrize(
    ("age_s", "state"),
    [(0.0, State.ALIVE), (1.4, State.ALIVE), (1.6, State.SUSPECT), (3.1, State.DEAD)],
)
def test_silence_makes_suspect_then_dead(age_s: float, state: State) -> None:
    members = aged(age_s)
    assert members.state("b") is state
    members.heard(beat(2))
    assert members.state("b") is State.ALIVE
    assert members.state("c") is None


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_own_pauses_and_clock_jumps_do_not_age_the_others(jump_s: float) -> None:
    members = aged(1.0)
    members.tick(1.0 + jump_s)
    assert members.state("b") in {State.ALIVE, State.SUSPECT}
    assert members.age_s("b") <= 1.51


def test_late_repeated_and_earlier_heartbeats_are_no_life_signs() -> None:
    members = aged(3.1)
    members.heard(beat(1))
    assert members.state("b") is State.DEAD
    members.heard(beat(1, life="2"))
    assert members.state("b") is State.ALIVE
    members.heard(beat(9, life="1"))
    known = members.beat("b")
    assert known is not None
    assert known.life == "2"


def test_who_does_not_answer_twice_is_dead_at_once_until_heard() -> None:
    members = aged(0.5)
    members.unanswered("b")
    assert members.state("b") is State.ALIVE
    members.unanswered("b")
    assert members.state("b") is State.DEAD
    members.heard(beat(2))
    assert members.alive() == [beat(2)]


def test_a_dead_node_whose_place_was_taken_is_forgotten() -> None:
    heir = Heartbeat(id="c", url="http://c", number=1, replaces="b")
    members = aged(0.5)
    members.heard(heir)
    assert members.state("b") is State.ALIVE, "it runs: nobody took its place"
    members = aged(3.1)
    members.heard(heir)
    assert [each.id for each in members.beats()] == ["c"]
    members.heard(beat(2))
    assert members.state("b") is None, "that was a late word of its last life"


def of_versions(*protocols: int) -> Membership:
    members = Membership(Timings())
    members.tick(0.0)
    for n, protocol in enumerate(protocols):
        members.heard(Heartbeat(id=f"n{n}", url="http://n", number=1, protocol=protocol))
    return members


@pytest.mark.parametrize(
    ("own", "others", "apart"),
    [
        (1, (), False),
        (1, (1, 1), False),
        (1, (2, 2), False),
        (1, (3,), False),
        (3, (1,), True),  # of two halves the older one goes on
        (1, (1, 3), False),
        (3, (1, 1), True),
        (3, (1, 2), False),
        (1, (3, 3), True),
    ],
)
def test_who_is_two_versions_from_most_does_not_lead(
    own: int, others: tuple[int, ...], apart: bool
) -> None:
    assert of_versions(*others).is_apart(own) is apart


def test_the_oldest_neighbour_tells_how_to_write() -> None:
    assert of_versions(2, 1).oldest_protocol(2) == 1
    assert of_versions(3, 2).oldest_protocol(2) == 2
    assert of_versions(0, 3).oldest_protocol(2) == 2, "two steps away: nobody waits for that one"


def test_timings_that_do_not_grow_are_refused() -> None:
    with pytest.raises(ValueError, match="must grow"):
        Timings(1.0, 1.0, 3.0)
