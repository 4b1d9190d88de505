"""A leader whose disk is full gives the lead to any node with room, at once."""

from __future__ import annotations

from nodes.handoff import FAR_BEHIND, HandOff, HandOffRules, ranked
from nodes.heartbeat import Heartbeat

FULL = Heartbeat(url="", id="a", full=True, score=3.0, applied_offset=FAR_BEHIND)
ROOM = Heartbeat(url="", id="b", score=1.0, applied_offset=FAR_BEHIND)
ALSO_FULL = Heartbeat(url="", id="c", full=True, score=2.0, applied_offset=FAR_BEHIND)
AWAY = Heartbeat(url="", id="d", score=2.0, applied_offset=-1)


def test_a_full_leader_does_not_wait() -> None:
    watch = HandOff(HandOffRules())
    watch.done(0.0)  # it has just been handed the lead
    assert watch.target(FULL, [ALSO_FULL, AWAY], 1.0) is None
    assert watch.target(FULL, [ALSO_FULL, AWAY, ROOM], 1.1) == "b"
    assert watch.target(ROOM, [FULL, ALSO_FULL], 1000.0) is None
    assert watch.target(ROOM, [FULL, ALSO_FULL], 2000.0) is None


def test_a_full_node_leads_only_where_all_are() -> None:
    assert [beat.id for beat in ranked([FULL, ROOM, ALSO_FULL, AWAY])] == ["b", "d", "a", "c"]
    assert [beat.id for beat in ranked([ALSO_FULL, FULL])] == ["a", "c"]
