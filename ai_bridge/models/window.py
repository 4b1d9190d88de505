"""A window of prices on an even time grid, and models that judge one such window at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ai_bridge.errors import Abstained
from ai_bridge.ports import Question
from ai_bridge.prediction import DECISIONS, Prediction
from ai_bridge.series import Floats, Series

MIN_POINTS = 20
GRID_STEPS = 100
MOST_SYMBOLS = 64
# Models forecast the next quarter of the window that they looked at.
HORIZON = 0.25


@dataclass(frozen=True, slots=True)
class WindowModel:
    """A pure model: `judge` turns one series into a prediction or raises Abstained.

    A question about several symbols is answered by the plain mean over those it can judge.
    """

    name: str
    judge: Callable[[Series], Prediction]
    kind: str = "builtin"
    judged: dict[str, tuple[Series, Prediction]] = field(
        default_factory=dict, compare=False, repr=False
    )  # the newest of each symbol: the same window gets the same answer

    async def decide(self, question: Question) -> Prediction:
        """Judge every symbol and average; raises Abstained where none can be judged."""
        return self.answer(question)

    def answer(self, question: Question) -> Prediction:
        """As `decide`."""
        question.only(DECISIONS)
        judged: list[Prediction] = []
        refused: list[str] = []
        for symbol in question.symbols:
            try:
                judged.append(self._judge(known(question, symbol)))
            except Abstained as why:
                refused.append(why.detail)
        return mean_of(judged, refused)

    def _judge(self, series: Series) -> Prediction:
        before = self.judged.get(series.symbol)
        if before is None or before[0] is not series:
            before = series, self.judge(series)
            if len(self.judged) >= MOST_SYMBOLS:
                self.judged.clear()
            self.judged[series.symbol] = before
        return before[1]


def known(question: Question, symbol: str) -> Series:
    """Return the window of a symbol; raises Abstained below MIN_POINTS points."""
    series = question.window.get(symbol)
    count = 0 if series is None else len(series)
    if series is None or count < MIN_POINTS:
        raise Abstained(f"{symbol}: {count} points, needs {MIN_POINTS}")
    return series


def mean_of(judged: list[Prediction], refused: list[str]) -> Prediction:
    """Average predictions of several symbols; raises Abstained with the refusals if none."""
    if not judged:
        raise Abstained("; ".join(refused) or "no symbols")
    pooled = {
        name: math.fsum(each.distribution[name] for each in judged) / len(judged)
        for name in judged[0].decisions
    }
    reasoning = "; ".join([each.reasoning for each in judged] + refused)
    return Prediction(pooled, reasoning, judged[0].decisions)


def event_times(series: Series) -> Floats:
    """Timestamps as they were known on arrival: never stepping back."""
    return np.maximum.accumulate(series.timestamps)


def log_price_grid(series: Series, steps: int = GRID_STEPS) -> Floats:
    """Log price at `steps + 1` equally spaced times over the window, previous tick.

    Raises Abstained where the window has no duration or the price does not move on the grid.
    """
    times = event_times(series)
    if times[-1] <= times[0]:
        raise Abstained(f"{series.symbol}: all {len(series)} points have one timestamp")
    at = np.linspace(times[0], times[-1], steps + 1)
    grid = np.log(series.prices[np.searchsorted(times, at, side="right") - 1])
    if grid.min() == grid.max():
        raise Abstained(f"{series.symbol}: the price did not move over the window")
    return grid
