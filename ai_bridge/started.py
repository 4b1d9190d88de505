"""The models that were asked one question: whom to wait for, and what each of them came to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ai_bridge.asking import Asking
from ai_bridge.votes import Vote


@dataclass(slots=True)
class Started:
    """The models of one question. `dead` gives the reason of those whose breaker is not closed:

    they are not waited for; one of them may be asked all the same, to see whether it is back.
    """

    asked: list[str]
    tasks: dict[str, asyncio.Task[Vote]] = field(default_factory=dict)
    answered: dict[str, Vote] = field(default_factory=dict)  # by models that answer at once
    dead: dict[str, str] = field(default_factory=dict)

    async def wait(self, asking: Asking, min_votes: int | None) -> None:
        """Return when all that count have answered, enough have, or the deadline is there."""
        if not self.tasks:
            return
        trusted = {task for name, task in self.tasks.items() if name not in self.dead}
        one_by_one = min_votes is not None or self.dead
        mode = asyncio.FIRST_COMPLETED if one_by_one else asyncio.ALL_COMPLETED
        await asyncio.sleep(0)  # all begin: one cancelled before could not give its permit back
        at_once = sum(vote.status == "ok" for vote in self.answered.values())
        while True:
            ok = at_once + sum(_is_ok(task) for task in self.tasks.values())
            if min_votes is not None and ok >= min_votes:
                return
            waiting = {task for task in trusted if not task.done()}
            if not waiting and not ok:
                waiting = set(self.pending())
            left = asking.deadline - asking.clock()
            if not waiting or left <= 0:
                return
            await asyncio.wait(waiting, timeout=left, return_when=mode)

    def pending(self) -> list[asyncio.Task[Vote]]:
        """Who has not answered yet."""
        return [task for task in self.tasks.values() if not task.done()]

    def votes(self, asking: Asking, deadline_s: float) -> list[Vote]:
        """One vote for each model as it is now, in the order asked."""
        votes: list[Vote] = []
        left = asking.deadline - asking.clock()
        late_ms = 1e3 * (deadline_s - left)
        late = f"no answer within the deadline of {deadline_s:g} s"
        if left > 0:
            late = "not waited for: enough models had voted"
        for name in self.asked:
            task = self.tasks.get(name)
            if name in self.answered:
                votes.append(self.answered[name])
            elif task is not None and task.done():
                votes.append(_counted(task, name))
            elif name in self.dead:
                votes.append(Vote(model=name, status="unavailable", reasoning=self.dead[name]))
            else:
                late_vote = Vote(model=name, status="timeout", latency_ms=late_ms, reasoning=late)
                votes.append(late_vote)
        return votes


def _is_ok(task: asyncio.Task[Vote]) -> bool:
    return task.done() and not task.cancelled() and task.result().status == "ok"


def _counted(task: asyncio.Task[Vote], name: str) -> Vote:
    if task.cancelled():  # by the model itself: nobody else cancels a task that is done in time
        return Vote(model=name, status="error", reasoning="the model cancelled itself")
    return task.result()
