"""What Prometheus sees of the models: read from the bridge when it is asked.

Labels are bounded: the first `MOST_MODELS` models by name, and the statuses a vote may have. What a
model that was removed has done is not shown any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ai_bridge.stats import LATENCY_MS

if TYPE_CHECKING:
    from ai_bridge.bridge import Bridge

MOST_MODELS = 100
_STATES = ("closed", "half_open", "open")


class ModelMetrics(Collector):
    """Votes, errors, latency, weight and breaker of each model, and how the consensus does."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def collect(self) -> Iterator[Metric]:
        """All families."""
        names = sorted(self._bridge.names())[:MOST_MODELS]
        yield from _votes(self._bridge, names)
        yield from _weights(self._bridge, names)
        yield from _consensus(self._bridge)


def _votes(bridge: Bridge, names: list[str]) -> Iterator[Metric]:
    votes = CounterMetricFamily(
        "context_model_votes", "Votes since the start", labels=["model", "status"]
    )
    late = CounterMetricFamily(
        "context_model_late_votes", "Votes that came after their decision", labels=["model"]
    )
    took = HistogramMetricFamily(
        "context_model_latency_seconds", "How long a vote took", labels=["model"]
    )
    bounds = [*(str(ms / 1e3) for ms in LATENCY_MS), "+Inf"]
    for name in names:
        stats = bridge.stats(name)
        for status, count in sorted(stats.counts.items()):
            votes.add_metric([name, status], count)
        late.add_metric([name], stats.late)
        counts = zip(bounds, map(float, accumulate(stats.within)), strict=True)
        took.add_metric([name], list(counts), stats.latency_total_ms / 1e3)
    yield from (votes, late, took)


def _weights(bridge: Bridge, names: list[str]) -> Iterator[Metric]:
    weight = GaugeMetricFamily(
        "context_model_weight",
        "Weight of a model: as configured, and its part of a decision in which all vote",
        labels=["model", "of"],
    )
    breaker = GaugeMetricFamily(
        "context_model_breaker", "1 for the state that it is in", labels=["model", "state"]
    )
    configured = bridge.configured()
    parts = bridge.ledger.parts("", configured)
    for name in names:
        weight.add_metric([name, "configured"], configured.get(name, 0.0))
        weight.add_metric([name, "learned"], parts.get(name, 0.0))
        state = bridge.breaker_state(name)
        for each in _STATES if state else ():
            breaker.add_metric([name, each], float(each == state))
    yield from (weight, breaker)


def _consensus(bridge: Bridge) -> Iterator[Metric]:
    ledger = bridge.ledger
    yield CounterMetricFamily(
        "context_decisions_judged", "Decisions with an outcome", value=ledger.outcomes
    )
    report: dict[str, Any] = ledger.regrets.report() if ledger.regrets.all.rounds else {}
    if report.get("regret") is not None:
        yield GaugeMetricFamily(
            "context_consensus_regret",
            "Brier loss beyond the best model's, summed up",
            value=report["regret"],
        )
        yield GaugeMetricFamily(
            "context_consensus_regret_bound", "What it is at most", value=report["bound"]["value"]
        )
