"""What was known of one symbol at any offset of the log, and what came of it.

A `window` is made of items up to an offset alone: nothing stored later can change a bit of it. Only
`after` looks ahead, to tell how a decision turned out and when that could be known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_bridge.series import Floats, Series

WINDOW_POINTS = 1000  # as many as models are shown when they decide


@dataclass(frozen=True, slots=True)
class Turned:
    """How a decision turned out: the return as a fraction, and the event time it was known at."""

    gain: float
    known_at: float


class History:
    """All recorded prices of a symbol, by offset."""

    def __init__(self, symbol: str, items: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """`items` are offsets and decoded `trading_data` items, ascending."""
        self.symbol = symbol
        found = [(offset, item) for offset, item in items if item["data"].get("symbol") == symbol]
        markets: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
        for offset, item in found:
            markets.setdefault(str(item.get("source", "unknown")), []).append((offset, item))
        self._series: dict[str, tuple[NDArray[np.int64], Series]] = {}
        for source, told in markets.items():
            fitting = [(o, i) for o, i in told if len(Series.of(symbol, [i]))]
            if fitting:
                offsets = np.array([offset for offset, _ in fitting], dtype=np.int64)
                self._series[source] = offsets, Series.of(symbol, [item for _, item in fitting])

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Offsets of all its prices, ascending."""
        every = [offsets for offsets, _ in self._series.values()]
        return np.sort(np.concatenate(every)) if every else np.zeros(0, dtype=np.int64)

    def times(self) -> Floats:
        """Event times of all its prices, by offset."""
        offsets = np.concatenate([each for each, _ in self._series.values()])
        stamps = np.concatenate([series.timestamps for _, series in self._series.values()])
        ordered: Floats = stamps[np.argsort(offsets, kind="stable")]
        return ordered

    def window(self, as_of: int, points: int = WINDOW_POINTS) -> Series:
        """The newest prices at or below an offset, of the source that spoke last.

        Of all sources the newest `points` are looked at, as when a decision is taken.
        """
        ends = {
            source: int(np.searchsorted(offsets, as_of, side="right"))
            for source, (offsets, _) in self._series.items()
        }
        spoke = [(int(self._series[s][0][end - 1]), s) for s, end in ends.items() if end]
        if not spoke:
            return Series.of(self.symbol, [])
        seen = [self._series[s][0][max(0, end - points) : end] for s, end in ends.items()]
        oldest = np.sort(np.concatenate(seen))[-points:][0]
        source = max(spoke)[1]
        offsets, series = self._series[source]
        return _part(series, int(np.searchsorted(offsets, oldest)), ends[source])

    def after(self, as_of: int, horizon_s: float) -> Turned | None:
        """What the price did over a horizon from the newest one at `as_of`; None: not known yet.

        The price at the horizon is the first of the same source stored later whose event time is at
        least `horizon_s` past that of the newest known one.
        """
        window = self.window(as_of)
        if not len(window):
            return None
        offsets, series = self._series[window.source]
        begin = int(np.searchsorted(offsets, as_of, side="right"))
        due = float(window.timestamps[-1]) + horizon_s
        later = np.flatnonzero(series.timestamps[begin:] >= due)
        if not len(later):
            return None
        at = begin + int(later[0])
        gain = float(series.prices[at]) / float(window.prices[-1]) - 1
        return Turned(gain, float(series.timestamps[at]))


def _part(series: Series, first: int, end: int) -> Series:
    return Series(
        series.symbol,
        series.source,
        series.timestamps[first:end],
        series.prices[first:end],
        series.volumes[first:end],
        series.sides[first:end],
    )
