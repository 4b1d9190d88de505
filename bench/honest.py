"""Honest models for recorded markets: the built-in ones and three that only count what came.

They know nothing but the prices and outcomes up to the question.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol

from ai_bridge.prediction import DECISIONS
from ai_bridge.series import Series

Said = dict[str, float]


class Counting(Protocol):
    """Says how likely each outcome is, then learns which one came."""

    def say(self, series: Series) -> Said:
        """Its distribution for the newest prices."""
        ...

    def learn(self, outcome: str) -> None:
        """Take in what came."""
        ...


class BaseRates:
    """How often each outcome came so far."""

    def __init__(self) -> None:
        self._seen = dict.fromkeys(DECISIONS, 1.0)

    def say(self, series: Series) -> Said:
        """Its distribution, whatever the prices are."""
        total = sum(self._seen.values())
        return {name: count / total for name, count in self._seen.items()}

    def learn(self, outcome: str) -> None:
        """Count it."""
        self._seen[outcome] += 1


class LastOutcome:
    """How often each outcome came after the last one."""

    def __init__(self) -> None:
        self._after: dict[str, BaseRates] = defaultdict(BaseRates)
        self._last = "hold"

    def say(self, series: Series) -> Said:
        """What followed the last outcome before."""
        return self._after[self._last].say(series)

    def learn(self, outcome: str) -> None:
        """Count it."""
        self._after[self._last].learn(outcome)
        self._last = outcome


class LastMove:
    """How often each outcome came after a last price change like this one."""

    def __init__(self) -> None:
        self._after: dict[str, BaseRates] = defaultdict(BaseRates)
        self._now = "hold"

    def say(self, series: Series) -> Said:
        """What followed such moves before."""
        moved = float(series.prices[-1] - series.prices[-2]) if len(series) > 1 else 0.0
        self._now = "buy" if moved > 0 else "sell" if moved < 0 else "hold"
        return self._after[self._now].say(series)

    def learn(self, outcome: str) -> None:
        """Count it."""
        self._after[self._now].learn(outcome)
