"""Markets and the learner together: folds what is observed, and teaches bar by bar.

For each bar that closes, the example HORIZON_BARS earlier gets its label and is learned; only then
is the new bar forecast. A forecast is so scored with the weights that existed when it was made.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ai_bridge.adapters.learner import Learner
from ai_bridge.bars import Bars, bars_of, extend, join
from ai_bridge.errors import Abstained
from ai_bridge.features import HORIZON_BARS, LOOKBACK_BARS, features, label
from ai_bridge.models.window import mean_of
from ai_bridge.prediction import Prediction
from ai_bridge.series import Floats, Series

MAX_MARKETS = 256
MAX_BARS = 4096


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast that waits for its outcome."""

    number: int
    vector: Floats
    ours: dict[str, float]
    base: dict[str, float]


@dataclass(slots=True)
class Market:
    """Bars of one symbol at one source; `next` is the first bar not yet taught."""

    bars: Bars
    next: int = 0
    waiting: deque[Forecast] = field(default_factory=deque)


class Classroom:
    """What the worker does, apart from its socket."""

    def __init__(self, learner: Learner, *, bar_s: float, min_examples: int) -> None:
        self.learner = learner
        self.bar_s = bar_s
        self.min_examples = min_examples
        self._markets: OrderedDict[str, Market] = OrderedDict()

    def observe(self, series: Series) -> None:
        """Fold new points into their market's bars; teaching is `teach`'s."""
        market = self._markets.setdefault(series.key, Market(_no_bars(self.bar_s)))
        self._markets.move_to_end(series.key)
        market.bars, continued = extend(market.bars, series, MAX_BARS)
        if not continued:
            market.next = market.bars.first
            market.waiting.clear()
        while len(self._markets) > MAX_MARKETS:
            self._markets.popitem(last=False)

    def teach(self) -> bool:
        """Process one closed bar of some market; False when there is none left."""
        for key, market in self._markets.items():
            market.next = max(market.next, market.bars.first)
            if market.next < market.bars.last:
                self._close(key, market, market.next)
                market.next += 1
                return True
        return False

    def predict(self, windows: list[Series]) -> Prediction:
        """Answer for several windows by their mean; raises Abstained with what is missing."""
        examples = self.learner.progress.examples
        if examples < self.min_examples:
            raise Abstained(f"learned from {examples} examples, needs {self.min_examples}")
        judged: list[Prediction] = []
        refused: list[str] = []
        for window in windows:
            try:
                judged.append(self._judge(window))
            except Abstained as why:
                refused.append(why.detail)
        return replace(mean_of(judged, refused), digest=self.learner.digest())

    def status(self) -> dict[str, Any]:
        """Return the learner's status and the bars held."""
        return {
            **self.learner.status(),
            "min_examples": self.min_examples,
            "bar_s": self.bar_s,
            "horizon_bars": HORIZON_BARS,
            "markets": {key: len(market.bars) for key, market in self._markets.items()},
        }

    def _close(self, key: str, market: Market, number: int) -> None:
        closed = market.bars.before(number + 1)
        while market.waiting and market.waiting[0].number <= number - HORIZON_BARS:
            self._learn(key, closed, market.waiting.popleft())
        if number <= self.learner.progress.learned_until.get(key, -1):
            return
        vector = features(closed, number)
        if vector is not None:
            ours, base = self.learner.predict(vector), self.learner.base_rates()
            market.waiting.append(Forecast(number, vector, ours, base))

    def _learn(self, key: str, closed: Bars, forecast: Forecast) -> None:
        outcome = label(closed, forecast.number)
        if outcome is not None:
            self.learner.score(forecast.ours, forecast.base, outcome)
            self.learner.learn(forecast.vector, outcome)
            self.learner.remember(key, forecast.number)

    def _judge(self, window: Series) -> Prediction:
        bars = self._as_of(window)
        vector = features(bars, bars.last)
        if vector is None:
            raise Abstained(
                f"{window.symbol}: {len(bars)} bars of {self.bar_s:g} s, needs "
                f"{LOOKBACK_BARS + 1} in which the price moves"
            )
        examples = self.learner.progress.examples
        reasoning = f"{window.symbol} as learned online from {examples} realised returns"
        return Prediction(self.learner.predict(vector), reasoning)

    def _as_of(self, window: Series) -> Bars:
        """Bars closed at the window's end: those observed, and the window's own after them."""
        own = bars_of(window, self.bar_s)
        if not len(own):
            return own
        market = self._markets.get(window.key)
        if market is None or not len(market.bars):
            return own.before(own.last)
        observed = market.bars.before(min(market.bars.last, own.last))
        return join(observed, own.before(own.last))


def _no_bars(bar_s: float) -> Bars:
    empty = np.empty(0)
    return Bars(bar_s, 0, empty, empty, empty)
