"""Verdicts of the guard that a real server cannot time exactly: cut questions, probes, patience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from ai_bridge import Bridge, Guard, ModelSettings, Prediction, Question
from ai_bridge.breaker import Breaker
from ai_bridge.errors import ModelUnavailable, NoModels
from ai_bridge.latency import Latencies
from ai_bridge.limiter import Limiter

QUESTION = Question(("X",), {}, now=0.0)
ANSWER = Prediction({"buy": 0.5, "sell": 0.25, "hold": 0.25})


@dataclass
class Spoken:
    name: str
    say: Callable[[], Awaitable[Prediction]]
    kind: str = "custom"

    async def decide(self, question: Question) -> Prediction:
        return await self.say()


async def at_once() -> Prediction:
    return ANSWER


async def never() -> Prediction:
    await asyncio.Event().wait()
    return ANSWER


async def gone() -> Prediction:
    raise ModelUnavailable("gone")


def bridge_of(say: Callable[[], Awaitable[Prediction]], guard: Guard) -> Bridge:
    bridge = Bridge([])
    bridge.add(Spoken("m", say), ModelSettings(), guard)
    return bridge


async def settled(holds: Callable[[], bool]) -> None:
    """Let what was cancelled end."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert holds()


async def refused(bridge: Bridge, deadline_s: float, **options: float) -> str:
    with pytest.raises(NoModels) as why:
        await bridge.decide(QUESTION, deadline_s=deadline_s, clock=time.monotonic, **options)
    return why.value.detail


def test_a_probe_that_is_cut_is_sent_again() -> None:
    async def scenario() -> None:
        breaker = Breaker(threshold=1, cooldown_s=0)
        bridge = bridge_of(gone, Guard(breaker))
        await refused(bridge, 1)
        bridge.remove("m")
        bridge.add(Spoken("m", never), ModelSettings(), Guard(breaker))
        for deadline_s in (0.0, -1.0, 0.01):
            assert "not asked after 1 failures" in await refused(bridge, deadline_s)
            await settled(lambda: breaker.state == "open")
        cut = asyncio.create_task(bridge.decide(QUESTION, deadline_s=60, clock=time.monotonic))
        await settled(lambda: breaker.state == "half_open")
        cut.cancel()
        await asyncio.wait([cut])
        await settled(lambda: breaker.state == "open")
        bridge.remove("m")
        bridge.add(Spoken("m", at_once), ModelSettings(), Guard(breaker))
        decision = await bridge.decide(QUESTION, deadline_s=5, clock=time.monotonic)
        assert (decision.votes[0].status, breaker.state) == ("ok", "closed")

    asyncio.run(scenario())


class Impatient(Latencies):
    def patience_s(self) -> float:
        return 0.05


def test_a_model_that_hangs_is_found_dead_however_short_the_deadlines_are() -> None:
    async def scenario() -> None:
        breaker = Breaker(cooldown_s=60)
        guard = Guard(breaker, Limiter(100), Impatient())
        bridge = bridge_of(never, guard)
        guard.limiter.limit = 100
        until = time.monotonic() + 10
        while "not asked after 3 failures" not in await refused(bridge, 0.01, late_s=5):
            assert time.monotonic() < until
        assert breaker.last_error.startswith("no answer for 0.")

    asyncio.run(scenario())


def test_a_slow_answer_is_an_answer() -> None:
    async def slowly() -> Prediction:
        await asyncio.sleep(0.15)
        return ANSWER

    async def scenario() -> None:
        guard = Guard(Breaker(cooldown_s=60), latencies=Impatient())
        bridge = bridge_of(slowly, guard)
        for _ in range(5):
            decision = await bridge.decide(QUESTION, deadline_s=5, clock=time.monotonic)
            assert decision.votes[0].status == "ok"
        assert (guard.breaker.state, guard.breaker.failures) == ("closed", 0)

    asyncio.run(scenario())


def test_places_come_back_whatever_happens() -> None:
    async def scenario() -> None:
        guard = Guard(Breaker(threshold=1000), Limiter(2))
        says = iter([never, gone, at_once, never] * 10)

        async def each_in_turn() -> Prediction:
            return await next(says)()

        bridge = bridge_of(each_in_turn, guard)
        asked = [
            asyncio.create_task(
                bridge.decide(QUESTION, deadline_s=0.05, clock=time.monotonic, caller=str(n % 3))
            )
            for n in range(40)
        ]
        for n in range(0, 40, 7):
            asked[n].cancel()
        await asyncio.wait(asked)
        for task in asked:
            assert task.cancelled() or task.exception() is None or task.exception()
        await settled(lambda: guard.limiter.active == 0)
        assert (guard.limiter.waiting, guard.admissions) == (0, {})

    asyncio.run(scenario())
