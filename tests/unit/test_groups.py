"""Whoever comes, goes, falls behind and catches up is sent every item once and in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from context.runs import Run
from server.connections import REFUSED, TAKEN
from server.forms import FRAME_BYTES, Frame
from server.groups import Follower, Group
from server.live import Delivery, Place


class Log:
    """Items up to `newest`, for a group and for who reads by itself."""

    def __init__(self, body: bytes = b"}") -> None:
        self.newest = 9
        self.reads = 0
        self._body = body

    def after(self, offset: int, until: int, *, merge: bool = True) -> tuple[Any, int]:
        self.reads += 1
        if offset >= until:
            return None, offset
        last = until if merge else offset + 1
        offsets = range(offset + 1, last + 1)
        return Delivery([Run.made("e", 1.0, offsets, [self._body] * len(offsets))], last), last


class Offsets:
    """A form whose frames are the offsets that they tell of."""

    def __init__(self) -> None:
        self.made = 0

    def items(self, runs: Sequence[Run], folded: int) -> list[int]:
        self.made += 1
        return [offset for run in runs for offset in run.offsets]

    def gap(self, gap: Any) -> Any:
        raise AssertionError(gap)

    def joined(self, frames: Iterable[Frame]) -> Iterable[Frame]:
        return frames


class Subscriber:
    """Takes frames, or refuses them."""

    def __init__(self, group: Group, begin: int) -> None:
        place = Place.__new__(Place)
        place.offset, place.gap = begin, None
        self.begin, self.got, self.busy = begin, list[int](), False
        self.follower = Follower(group, place, conflate=False)
        self.follower.link = self

    def offer(self, frame: list[int]) -> int:
        if self.busy:
            return REFUSED
        self.got += frame
        return TAKEN

    def when_free(self, call: Any) -> None:
        raise AssertionError(call)

    def step(self, log: Log) -> bool:
        """What `Fanout` does for who is behind; True once it is a member, or parked."""
        group, follower = self.follower.group, self.follower
        if group.settle(follower):
            return True
        found, reached = log.after(follower.offset, group.offset)
        if found:
            self.got += [offset for run in found.runs for offset in run.offsets]
        follower.offset = reached
        return False


STEPS = ["grow", "come", "ahead", "go", "busy", "free", "round", "late"]


@given(st.lists(st.sampled_from(STEPS), min_size=10, max_size=60))
def test_every_item_comes_once(steps: list[str]) -> None:
    log = Log()
    group = Group((b"", Offsets()), log, log.newest)  # type: ignore[arg-type]
    here: list[Subscriber] = []
    behind: list[Subscriber] = []
    seen = log.newest

    def advance(until: int) -> None:
        reads, members = log.reads, len(here) - len(behind)
        done = group.advance(until, merge=True, breathe=lambda: None)
        assert members or log.reads == reads, "read for nobody"
        behind.extend(each for each in here if each.follower in done.left + done.arriving)

    for step in steps:
        if step == "grow":
            log.newest += 3
        elif step in {"come", "ahead"}:  # behind the group, or where the log ends
            begin = log.newest if step == "ahead" else max(-1, log.newest - 7)
            here.append(Subscriber(group, begin))
            behind.append(here[-1])
        elif step == "go" and here:
            group.leave(here[0].follower)
            here, behind = here[1:], [each for each in behind if each is not here[0]]
        elif step in {"busy", "free"} and here:
            here[-1].busy = step == "busy"
        elif step == "round":
            seen = log.newest
            advance(seen)
        elif step == "late":  # as for a group that came after the round began
            advance(max(-1, seen - 2))
        behind = [each for each in behind if each.busy or not each.step(log)]
    for each in here:
        each.busy = False
    for _ in range(3):
        advance(log.newest)
        while behind:
            behind = [each for each in behind if not each.step(log)]
    for each in here:
        assert each.got == list(range(each.begin + 1, log.newest + 1))


def test_frames_are_made_only_while_somebody_takes_them() -> None:
    log, form = Log(b"x" * FRAME_BYTES), Offsets()
    group = Group((b"", form), log, log.newest)  # type: ignore[arg-type]
    subscriber = Subscriber(group, log.newest)
    assert subscriber.step(log)
    log.newest += 3
    subscriber.busy = True
    done = group.advance(log.newest, merge=True, breathe=lambda: None)
    assert done.left == [subscriber.follower]
    assert form.made == 1
    assert group.offset == log.newest
    subscriber.busy = False
    assert not subscriber.step(log)
    assert subscriber.step(log)
    assert subscriber.got == [10, 11, 12]
