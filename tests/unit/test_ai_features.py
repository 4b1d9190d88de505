"""Bars against a plain loop, and features and labels that never look ahead."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_bridge.bars import MAX_GAP_BARS, Bars, bars_of, extend
from ai_bridge.features import HORIZON_BARS, LOOKBACK_BARS, NAMES, features, label
from ai_bridge.series import Series

Point = tuple[float, float, float, float]
points = st.lists(
    st.tuples(
        st.floats(-0.5, 3), st.floats(1, 100), st.floats(0, 10), st.sampled_from([-1.0, 0.0, 1.0])
    ),
    min_size=1,
    max_size=60,
)


def series(rows: list[Point]) -> Series:
    """Build a series from steps of time, prices, volumes and sides."""
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return Series("X", "test", 1000 + np.cumsum(columns[0]), *columns[1:])


def walk(seed: int, size: int) -> Bars:
    random = np.random.default_rng(seed)
    volumes = random.exponential(size=size)
    return Bars(
        1.0,
        500,
        100 * np.exp(np.cumsum(random.normal(0, 1e-3, size))),
        volumes,
        volumes * random.choice([-1.0, 1.0], size),
    )


def plain_bars(rows: Series, bar_s: float) -> dict[int, tuple[float, float, float]]:
    bars: dict[int, tuple[float, float, float]] = {}
    now = -math.inf
    columns = (rows.timestamps, rows.prices, rows.volumes, rows.sides)
    for at, price, volume, side in zip(*columns, strict=True):
        now = max(now, at)
        number = math.floor(now / bar_s)
        for silent in range(max(bars, default=number) + 1, number):
            bars[silent] = (bars[silent - 1][0], 0.0, 0.0)
        _, volumes, flows = bars.get(number, (0.0, 0.0, 0.0))
        bars[number] = (price, volumes + volume, flows + volume * side)
    return bars


@given(points, st.sampled_from([0.5, 1.0, 2.0]))
def test_bars_equal_a_plain_loop(rows: list[Point], bar_s: float) -> None:
    built, plain = bars_of(series(rows), bar_s), plain_bars(series(rows), bar_s)
    assert range(built.first, built.last + 1) == range(min(plain), max(plain) + 1)
    assert list(built.closes) == [each[0] for each in plain.values()]
    assert list(built.volumes) == pytest.approx([each[1] for each in plain.values()])
    assert list(built.flows) == pytest.approx([each[2] for each in plain.values()])


@given(points, st.lists(st.integers(0, 60), max_size=5))
def test_folding_in_pieces_equals_folding_at_once(rows: list[Point], cuts: list[int]) -> None:
    whole = series(rows)
    history = Bars(1.0, 0, np.empty(0), np.empty(0), np.empty(0))
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for start, stop in pairwise(edges):
        columns = (whole.timestamps, whole.prices, whole.volumes, whole.sides)
        piece = Series("X", "test", *(column[start:stop] for column in columns))
        history, _ = extend(history, piece, 4096)
    at_once = bars_of(whole, 1.0)
    assert history.first == at_once.first
    assert list(history.closes) == list(at_once.closes)
    assert list(history.volumes) == pytest.approx(list(at_once.volumes))
    assert list(history.flows) == pytest.approx(list(at_once.flows), abs=1e-9)


@pytest.mark.parametrize("jump", [MAX_GAP_BARS + 5.0, -MAX_GAP_BARS - 5.0])
def test_a_long_silence_or_a_step_back_begins_a_new_session(jump: float) -> None:
    first = [(1.0, 50.0, 1.0, 1.0)] * 10
    second = [(jump, 60.0, 1.0, 1.0), (1.0, 61.0, 1.0, 1.0)]
    assert list(bars_of(series(first + second), 1.0).closes) == [60, 61]
    both = series(first + second)
    columns = (both.timestamps, both.prices, both.volumes, both.sides)
    later = Series("X", "test", *(column[10:] for column in columns))
    history, continued = extend(bars_of(series(first), 1.0), later, 4096)
    assert not continued
    assert list(history.closes) == [60, 61]


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(LOOKBACK_BARS, 80), st.data())
def test_nothing_looks_ahead(seed: int, at: int, data: st.DataObject) -> None:
    bars = walk(seed, 100)
    other = walk(seed, 100)
    factor = data.draw(st.floats(0.1, 10))
    for later in (other.closes, other.volumes, other.flows):
        later[at + 1 :] *= factor
    number = bars.first + at
    seen = features(bars, number)
    assert seen is not None
    assert np.array_equal(seen, features(other, number))
    assert np.array_equal(seen, features(bars.before(number + 1), number))
    other = walk(seed, 100)
    other.closes[at + HORIZON_BARS + 1 :] *= factor
    assert label(bars, number) == label(other, number)


def test_features_are_bounded_and_named() -> None:
    bars = walk(7, 100)
    bars.closes[60] *= 50
    for number in range(bars.first + LOOKBACK_BARS, bars.last + 1):
        seen = features(bars, number)
        assert seen is not None
        assert seen.shape == (len(NAMES),)
        assert np.abs(seen).max() <= 5


def test_what_is_not_known_yet_is_none() -> None:
    bars = walk(1, LOOKBACK_BARS + HORIZON_BARS + 1)
    assert features(bars, bars.first + LOOKBACK_BARS - 1) is None
    assert features(bars, bars.last + 1) is None
    assert label(bars, bars.first + LOOKBACK_BARS) is not None
    assert label(bars, bars.first + LOOKBACK_BARS + 1) is None
    flat = Bars(1.0, 0, np.full(50, 9.0), np.ones(50), np.ones(50))
    assert features(flat, 30) is None
    assert label(flat, 30) is None


def test_labels_say_what_happened() -> None:
    bars = walk(3, 60)
    number = bars.first + 30
    for factor, right in ((1.2, 0), (0.8, 1), (1.0, 2)):
        bars.closes[31:] = bars.closes[30] * factor
        assert label(bars, number) == right


def test_a_driftless_walk_falls_into_each_class_about_equally_often() -> None:
    bars = walk(11, 4000)
    numbers = range(bars.first + LOOKBACK_BARS, bars.last - HORIZON_BARS)
    shares = np.bincount([label(bars, number) or 0 for number in numbers]) / len(numbers)
    assert shares == pytest.approx([1 / 3] * 3, abs=0.06)
