"""Classes that say they are pure: asked at once, and once for the same question."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ai_bridge
from ai_bridge.adapters.model_custom import CustomModel
from ai_bridge.bridge import Bridge
from ai_bridge.errors import Abstained, InvalidRequest
from ai_bridge.ports import Question
from ai_bridge.series import Series
from ai_bridge.settings import ModelSettings
from ai_bridge.specs import ModelSpec

ONES = np.ones(3)
QUESTION = Question(("X",), {"X": Series("X", "s", ONES, ONES, ONES, ONES)}, now=1.0, packed=b"{}")


@ai_bridge.register
class Counting:
    """Says how often it was asked, and abstains or fails where the asker wishes."""

    pure = True
    asked = 0

    def decide(self, context: dict[str, Any]) -> dict[str, float]:
        """Never the same answer twice: so a repeat shows."""
        wish = context["context"].get("wish")
        if wish == "abstain":
            raise Abstained("as wished")
        if wish == "fail":
            raise RuntimeError("as wished")
        self.asked += 1
        return {"buy": 1 - 0.1 * self.asked, "sell": 0.1 * self.asked, "hold": 0.0}


@ai_bridge.register
class Sleepy:
    """Cannot be pure."""

    pure = True

    async def decide(self, context: dict[str, Any]) -> dict[str, float]:
        """Waits."""
        return {}


def vote(bridge: Bridge, question: Question) -> Any:
    decided = bridge.decide(question, deadline_s=1.0, clock=time.monotonic)
    return asyncio.run(decided).votes[0]


def test_a_pure_class_is_asked_once_for_the_same_question() -> None:
    bridge = Bridge([])
    bridge.add(CustomModel(ModelSpec(kind="custom", name="c", model="Counting")), ModelSettings())
    first = vote(bridge, QUESTION)
    assert first.distribution["buy"] == 0.9
    assert vote(bridge, replace(QUESTION, now=2.0, shared={})).distribution == first.distribution
    for other in (
        replace(QUESTION, packed=b'{"items":[]}'),
        replace(QUESTION, window=dict(QUESTION.window)),
        replace(QUESTION, context={"a": 1}),
    ):
        before = first.distribution
        first = vote(bridge, other)
        assert first.distribution != before
    with pytest.raises(ai_bridge.errors.NoModels, match="abstained: as wished"):
        vote(bridge, replace(QUESTION, context={"wish": "abstain"}))
    with pytest.raises(ai_bridge.errors.NoModels, match="error: RuntimeError: as wished"):
        vote(bridge, replace(QUESTION, context={"wish": "fail"}))
    assert bridge.describe("c")["counts"] == {"ok": 5, "abstained": 1, "error": 1}
    assert bridge.describe("c")["breaker"] is None


def test_what_waits_is_not_pure() -> None:
    with pytest.raises(InvalidRequest, match="async"):
        CustomModel(ModelSpec(kind="custom", name="s", model="Sleepy"))
