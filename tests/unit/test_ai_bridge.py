"""The fan-out: deadline, statuses, weights, settings, requests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import pytest

from ai_bridge.bridge import Bridge, Decision
from ai_bridge.consensus import replay
from ai_bridge.errors import Abstained, InvalidRequest, ModelUnavailable, NoModels, UnknownModel
from ai_bridge.ports import Question
from ai_bridge.prediction import Prediction, ordered_probit
from ai_bridge.requests import DecideRequest, ModelPatch, parse
from ai_bridge.series import Series
from ai_bridge.settings import ModelSettings

ONE = np.array([100.0])
QUESTION = Question(
    ("X", "Y"), {"X": Series("X", "s", ONE, ONE, ONE, ONE)}, now=123.0, context={"why": "test"}
)


@dataclass
class Spoken:
    """A model whose behaviour is a coroutine function."""

    name: str
    say: Callable[[], Awaitable[Prediction]]
    kind: str = "custom"

    async def decide(self, question: Question) -> Prediction:
        return await self.say()


def sure(name: str, score: float) -> Spoken:
    async def say() -> Prediction:
        return Prediction(ordered_probit(score), f"score {score}")

    return Spoken(name, say)


def raising(name: str, fault: BaseException) -> Spoken:
    async def say() -> Prediction:
        raise fault

    return Spoken(name, say)


def slow(name: str, cancelled: list[str]) -> Spoken:
    async def say() -> Prediction:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(name)
            raise
        return Prediction(ordered_probit(0))

    return Spoken(name, say)


def decide(bridge: Bridge, **options: object) -> Decision:
    options = {"deadline_s": 5.0, "clock": time.monotonic} | options
    return asyncio.run(bridge.decide(QUESTION, **options))  # type: ignore[arg-type]


def test_every_way_to_answer_has_its_status() -> None:
    cancelled: list[str] = []
    models = [
        sure("up", 2.0),
        sure("unsure", 0.1),
        slow("slow", cancelled),
        slow("own", cancelled),
        raising("quiet", Abstained("nothing to go on")),
        raising("gone", ModelUnavailable("no server")),
        raising("broken", ZeroDivisionError("1/0")),
        raising("cancels", asyncio.CancelledError()),
    ]
    bridge = Bridge(
        models,
        {"unsure": ModelSettings(min_confidence=0.9), "own": ModelSettings(timeout_s=0.01)},
    )
    started = time.monotonic()
    decision = decide(bridge, deadline_s=0.1)
    assert time.monotonic() - started < 1
    votes = {vote.model: vote for vote in decision.votes}
    assert {name: vote.status for name, vote in votes.items()} == {
        "up": "ok",
        "unsure": "abstained",
        "slow": "timeout",
        "own": "timeout",
        "quiet": "abstained",
        "gone": "unavailable",
        "broken": "error",
        "cancels": "error",
    }
    assert sorted(cancelled) == ["own", "slow"]
    assert votes["broken"].reasoning == "ZeroDivisionError: 1/0"
    assert "min_confidence 0.9" in votes["unsure"].reasoning
    assert votes["up"].weight == 1
    assert decision.consensus.distribution == ordered_probit(2.0)
    health = {each["name"]: each["health"] for each in bridge.models()}
    assert health["gone"] == "unavailable"
    assert health["slow"] == health["broken"] == "failing"
    assert health["up"] == health["quiet"] == "ok"


def test_a_model_that_ignores_its_cancellation_does_not_hold_up_the_decision() -> None:
    async def scenario() -> float:
        release = asyncio.Event()

        async def stubborn() -> Prediction:
            try:
                await release.wait()
            except asyncio.CancelledError:
                await release.wait()
            return Prediction(ordered_probit(0))

        bridge = Bridge([sure("up", 1.0), Spoken("stubborn", stubborn)])
        started = time.monotonic()
        decision = await bridge.decide(QUESTION, deadline_s=0.05, clock=time.monotonic)
        took = time.monotonic() - started
        assert [vote.status for vote in decision.votes] == ["ok", "timeout"]
        release.set()
        return took

    assert asyncio.run(scenario()) < 1


def test_outcomes_shift_the_weights_of_the_next_decision() -> None:
    bridge = Bridge([sure("up", 1.0), sure("down", -1.2)], {"up": ModelSettings(weight=0.5)})
    first = decide(bridge).record("d1", term=1)
    assert first["final_decision"] == "sell"
    up = (1 + 1 / 3 + 0.5 / 2) / 3.5  # its own, and its part of the two virtual experts'
    assert [vote["weight"] for vote in first["votes"]] == pytest.approx([up, 1 - up])
    for number in range(5):
        bridge.ledger.apply({**first, "decision_id": f"n{number}"}, "buy")
    second = decide(bridge).record("d2", term=1)
    assert second["final_decision"] == "buy"
    assert second["votes"][0]["weight"] > 0.7
    calibration = bridge.describe("up")["calibration"]
    assert calibration["outcomes"] == 5
    assert calibration["brier"] < 2 / 3


def test_the_record_is_plain_complete_and_replays() -> None:
    record = decide(Bridge([sure("up", 1.0), sure("down", -0.5)])).record(
        "d1", term=3, context_id="c9"
    )
    stored = json.loads(json.dumps(record, allow_nan=False))
    assert stored == record
    assert replay(stored)["identical"]
    assert replay(stored, without=["up"])["changed"]
    assert (stored["decision_id"], stored["term"], stored["context_id"]) == ("d1", 3, "c9")
    assert stored["decision"] == stored["final_decision"] == "buy"
    assert stored["reference"] == {"X": {"price": 100.0, "timestamp": 100.0, "source": "s"}}
    assert stored["symbols"] == ["X", "Y"]
    assert stored["abstained"] is False
    fields = {"model", "status", "decision", "confidence", "distribution", "weight",
              "latency_ms", "reasoning", "digest", "calibrated"}  # fmt: skip
    assert all(set(vote) == fields for vote in stored["votes"])


def test_nobody_voting_names_every_reason() -> None:
    bridge = Bridge(
        [raising("quiet", Abstained("too early")), sure("off", 1.0), sure("muted", 1.0)],
        {"off": ModelSettings(enabled=False), "muted": ModelSettings(weight=0)},
    )
    with pytest.raises(NoModels) as refused:
        decide(bridge)
    assert "quiet: abstained: too early" in refused.value.detail
    assert "off: disabled" in refused.value.detail
    assert "muted: its weight is 0" in refused.value.detail
    assert [each["field"] for each in refused.value.errors] == ["off", "quiet", "muted"]
    assert decide(bridge, models=["off"]).consensus.final_decision == "buy"
    with pytest.raises(NoModels, match="no models are registered"):
        decide(Bridge([]))


def test_unknown_names_and_bad_settings_are_refused_by_name() -> None:
    bridge = Bridge([sure("up", 1.0)])
    with pytest.raises(UnknownModel, match=r"'nobody'.*there are: up"):
        decide(bridge, models=["up", "nobody"])
    with pytest.raises(UnknownModel):
        bridge.configure("nobody", weight=1)
    for field, value in [
        ("weight", -1.0), ("weight", float("nan")), ("min_confidence", 1.1), ("timeout_s", 0.0),
        ("timeout_s", 61.0),
    ]:  # fmt: skip
        with pytest.raises(InvalidRequest, match=field) as refused:
            bridge.configure("up", **{field: value})
        assert refused.value.errors[0]["field"] == field
    assert bridge.describe("up")["weight"] == 1
    assert bridge.configure("up", weight=2.5, enabled=False) == ModelSettings(2.5, enabled=False)
    assert bridge.models()[0]["enabled"] is False


def test_models_come_and_go_also_while_they_are_asked() -> None:
    async def scenario() -> None:
        bridge = Bridge([sure("up", 1.0)])

        async def leaving() -> Prediction:
            bridge.remove("leaving")
            return Prediction(ordered_probit(-3))

        bridge.add(Spoken("leaving", leaving), ModelSettings())
        with pytest.raises(InvalidRequest, match="'up' is registered already"):
            bridge.add(sure("up", 2.0), ModelSettings())
        decision = await bridge.decide(QUESTION, deadline_s=5, clock=time.monotonic)
        assert [vote.weight for vote in decision.votes] == [0.5, 0.5]
        assert [each["name"] for each in bridge.models()] == ["up"]
        with pytest.raises(UnknownModel):
            bridge.remove("leaving")

    asyncio.run(scenario())


def test_requests_are_read() -> None:
    body = {"symbols": ["BTC/USD"], "context": {"a": 1}, "models": None}
    assert parse(body, DecideRequest) == DecideRequest(symbols=["BTC/USD"], context={"a": 1})
    assert parse({"weight": 2}, ModelPatch).weight == 2


@pytest.mark.parametrize(
    ("body", "field", "shown"),
    [
        ([], "body", "[]"),
        ({}, "symbols", "nothing"),
        ({"symbols": []}, "symbols", "[]"),
        ({"symbols": ["A", ""]}, "symbols[1]", "''"),
        ({"symbols": ["A"] * 21}, "symbols", "['A'"),
        ({"symbols": "A"}, "symbols", "'A'"),
        ({"symbols": ["A"], "deadline_ms": 0}, "deadline_ms", "0"),
        ({"symbols": ["A"], "deadline_ms": 60001}, "deadline_ms", "60001"),
        ({"symbols": ["A"], "deadline_ms": 1.5}, "deadline_ms", "1.5"),
        ({"symbols": ["A"], "models": "m"}, "models", "'m'"),
        ({"symbols": ["A"], "context": []}, "context", "[]"),
        ({"symbols": ["A"], "extra": 1}, "extra", "1"),
    ],
)
def test_bad_requests_name_field_and_value(body: object, field: str, shown: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(body, DecideRequest)
    assert refused.value.errors[0]["field"] == field
    assert f"got {shown}" in refused.value.detail
