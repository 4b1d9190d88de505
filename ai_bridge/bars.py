"""Ticks folded into bars of equal time: one close, volume and signed volume a bar."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ai_bridge.series import Floats, Series

# A silence or a step back longer than this is another session: nothing is filled across it.
MAX_GAP_BARS = 120


@dataclass(frozen=True, slots=True)
class Bars:
    """Contiguous bars; bar `first + i` covers `[first + i, first + i + 1) * bar_s` unix seconds.

    A bar without a trade repeats the close before it (previous-tick interpolation) with zero
    volume. `flows` is volume signed by the taker's side.
    """

    bar_s: float
    first: int
    closes: Floats
    volumes: Floats
    flows: Floats

    def __len__(self) -> int:
        return len(self.closes)

    @property
    def last(self) -> int:
        """Number of the newest bar, which may still be open."""
        return self.first + len(self) - 1

    def part(self, start: int) -> Bars:
        """Return the bars from position `start` on."""
        return Bars(
            self.bar_s,
            self.first + min(start, len(self)),
            self.closes[start:],
            self.volumes[start:],
            self.flows[start:],
        )

    def tail(self, count: int) -> Bars:
        """Return the newest `count` bars."""
        return self.part(max(0, len(self) - count))

    def before(self, number: int) -> Bars:
        """Return the bars numbered below `number`."""
        stop = max(0, number - self.first)
        return Bars(
            self.bar_s, self.first, self.closes[:stop], self.volumes[:stop], self.flows[:stop]
        )


def bars_of(series: Series, bar_s: float) -> Bars:
    """Fold a series into bars, keeping only its last session.

    A point counts at the newest time seen so far: one that arrives late belongs to the bar that
    was open when it arrived, since nobody knew it before.
    """
    start = _session_start(series.timestamps, MAX_GAP_BARS * bar_s)
    times = np.maximum.accumulate(series.timestamps[start:])
    if not len(times):
        empty = np.empty(0)
        return Bars(bar_s, 0, empty, empty, empty)
    numbers = np.floor(times / bar_s).astype(np.int64)
    first = int(numbers[0])
    places = numbers - first
    size = int(places[-1]) + 1
    newest = np.searchsorted(places, np.arange(size), side="right") - 1
    volumes = series.volumes[start:]
    flows = volumes * series.sides[start:]
    return Bars(
        bar_s,
        first,
        series.prices[start:][newest],
        _sums(places, volumes),
        _sums(places, flows),
    )


def join(older: Bars, newer: Bars) -> Bars:
    """Continue `older` with those bars of `newer` that come after it.

    Where the silence between them is longer than a session allows, only `newer` is kept.
    """
    if not len(older) or not len(newer) or newer.first - older.last > MAX_GAP_BARS:
        return newer if len(newer) else older
    fresh = newer.part(max(0, older.last + 1 - newer.first))
    silent = max(0, newer.first - older.last - 1)
    return Bars(
        older.bar_s,
        older.first,
        np.concatenate([older.closes, np.full(silent, older.closes[-1]), fresh.closes]),
        np.concatenate([older.volumes, np.zeros(silent), fresh.volumes]),
        np.concatenate([older.flows, np.zeros(silent), fresh.flows]),
    )


def extend(history: Bars, points: Series, limit: int) -> tuple[Bars, bool]:
    """Fold further points into a history, keeping the newest `limit` bars.

    Late points count into the open bar. Returns the bars, and whether they continue the history:
    points of another session start a new one.
    """
    if not len(points):
        return history, True
    if not len(history):
        return bars_of(points, history.bar_s).tail(limit), False
    further = bars_of(_after_open_bar(history, points), history.bar_s)
    if further.first != history.last:
        return further.tail(limit), False
    return join(history.before(history.last), further).tail(limit), True


def _after_open_bar(history: Bars, points: Series) -> Series:
    """Put the open bar in front of the points, as one point at the bar's start."""
    volume = history.volumes[-1]
    side = history.flows[-1] / volume if volume else 0.0
    return replace(
        points,
        timestamps=np.insert(points.timestamps, 0, history.last * history.bar_s),
        prices=np.insert(points.prices, 0, history.closes[-1]),
        volumes=np.insert(points.volumes, 0, volume),
        sides=np.insert(points.sides, 0, side),
    )


def _sums(places: NDArray[np.int64], values: Floats) -> Floats:
    return np.asarray(np.bincount(places, weights=values), dtype=np.float64)


def _session_start(timestamps: Floats, gap_s: float) -> int:
    breaks = np.flatnonzero(np.abs(np.diff(timestamps)) > gap_s)
    return int(breaks[-1]) + 1 if len(breaks) else 0
