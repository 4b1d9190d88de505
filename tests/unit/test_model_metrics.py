"""What Prometheus is told of the models, read back by its own parser."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ai_bridge.asking import Guard
from ai_bridge.bridge import Bridge
from ai_bridge.errors import ModelUnavailable
from ai_bridge.ports import Question
from ai_bridge.prediction import Prediction
from ai_bridge.settings import ModelSettings
from server.agent.model_metrics import MOST_MODELS, ModelMetrics

QUESTION = Question(("X",), {}, now=1.0)


class Model:
    """Answers, or is away."""

    kind = "custom"

    def __init__(self, name: str, *, away: bool = False) -> None:
        self.name, self._away = name, away

    async def decide(self, question: Question) -> Prediction:
        if self._away:
            raise ModelUnavailable("away")
        return Prediction({"buy": 0.6, "sell": 0.2, "hold": 0.2})


def told(bridge: Bridge) -> dict[tuple[str, ...], float]:
    """Samples by name, model and other labels."""
    registry = CollectorRegistry()
    registry.register(ModelMetrics(bridge))
    text = generate_latest(registry).decode()
    return {
        (
            sample.name,
            sample.labels.get("model", ""),
            *(value for label, value in sorted(sample.labels.items()) if label != "model"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_votes_latency_weight_and_breaker_of_each_model() -> None:
    bridge = Bridge([Model("good")], {"good": ModelSettings(weight=2.0)})
    bridge.add(Model("gone", away=True), ModelSettings(), Guard())
    for number in range(4):
        decided = bridge.decide(QUESTION, deadline_s=1.0, clock=time.monotonic)
        record = asyncio.run(decided).record(f"d{number}", term=1)
        bridge.ledger.apply(record, "buy")
    found = told(bridge)
    assert found["context_model_votes_total", "good", "ok"] == 4
    assert found["context_model_votes_total", "gone", "unavailable"] == 4
    assert found["context_model_latency_seconds_count", "good"] == 4
    assert found["context_model_latency_seconds_bucket", "good", "+Inf"] == 4
    assert found["context_model_latency_seconds_bucket", "good", "10.0"] == 4
    assert found["context_model_weight", "good", "configured"] == 2
    learned = [found["context_model_weight", name, "learned"] for name in ("good", "gone")]
    assert abs(sum(learned) - 1) < 1e-9
    assert found["context_model_breaker", "gone", "open"] == 1
    assert found["context_model_breaker", "gone", "closed"] == 0
    assert ("context_model_breaker", "good", "open") not in found
    assert found["context_decisions_judged_total", ""] == 4
    assert found["context_consensus_regret", ""] <= found["context_consensus_regret_bound", ""]


def test_labels_are_bounded() -> None:
    bridge = Bridge([Model(f"m{number:04}") for number in range(MOST_MODELS + 50)])
    found = told(bridge)
    assert len({each[1] for each in found if each[0].startswith("context_model_")}) == MOST_MODELS
    assert told(Bridge([]))["context_decisions_judged_total", ""] == 0
