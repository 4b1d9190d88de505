"""The pure models on a recorded market and on constructed ones."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from ai_bridge.errors import Abstained
from ai_bridge.models.mean_reversion import fit, mean_reversion
from ai_bridge.models.momentum import momentum
from ai_bridge.models.order_flow import order_flow
from ai_bridge.models.window import WindowModel
from ai_bridge.ports import Question
from ai_bridge.prediction import Prediction
from ai_bridge.series import Series

RECORDED = (
    Path(__file__).resolve().parents[2]
    / "../shared/data/normalized/ticks_binancefutures_BTCUSDT_20240808.ndjson.gz"
)
MODELS = (momentum(), mean_reversion(), order_flow())


def ask(model: WindowModel, *windows: Series) -> Prediction:
    symbols = tuple(window.symbol for window in windows)
    question = Question(symbols, {window.symbol: window for window in windows}, now=0.0)
    return asyncio.run(model.decide(question))


def market(logs: np.ndarray, sides: np.ndarray | None = None, symbol: str = "X") -> Series:
    size = len(logs)
    known = np.zeros(size) if sides is None else sides
    return Series(symbol, "test", 1e9 + np.arange(size), np.exp(logs), np.ones(size), known)


def noise(seed: int, size: int = 401) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1e-4, size)


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, object]]:
    if not RECORDED.exists():
        pytest.skip(f"recorded market not found: {RECORDED.name}")
    with gzip.open(RECORDED) as lines:
        return [json.loads(line) for line in islice(lines, 40_000)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_on_a_recorded_market_answers_are_distributions(
    model: WindowModel, recorded: list[dict[str, object]]
) -> None:
    answers = []
    for end in range(4000, len(recorded) + 1, 4000):
        window = Series.of("BTC/USDT", recorded[end - 4000 : end])
        with contextlib.suppress(Abstained):
            answers.append(ask(model, window))
    assert len(answers) >= 4
    for answer in answers:
        assert math.fsum(answer.distribution.values()) == pytest.approx(1)
    assert len({answer.distribution["buy"] for answer in answers}) == len(answers)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_past_decides_alone(model: WindowModel, recorded: list[dict[str, object]]) -> None:
    window = Series.of("BTC/USDT", recorded[:20_000])
    assert ask(model, window) == ask(model, Series.of("BTC/USDT", recorded[:20_000]))


def test_momentum_follows_a_trend() -> None:
    drift = np.arange(401) * 2e-5
    for seed in range(5):
        wander = np.cumsum(noise(seed))
        assert ask(momentum(), market(drift + noise(seed) / 10)).decision == "buy"
        assert ask(momentum(), market(noise(seed) / 10 - drift)).decision == "sell"
        up, down = ask(momentum(), market(wander)), ask(momentum(), market(-wander))
        assert up.distribution["buy"] == pytest.approx(down.distribution["sell"])


def test_mean_reversion_goes_against_an_excursion() -> None:
    for seed in range(5):
        step = noise(seed)
        pulled = np.zeros(401)
        for k in range(1, 401):
            pulled[k] = 0.7 * pulled[k - 1] + step[k]
        pulled[-1] = 6e-4
        assert ask(mean_reversion(), market(pulled)).decision == "sell"
        assert ask(mean_reversion(), market(-pulled)).decision == "buy"


def test_the_fit_finds_the_process_and_its_bias_is_corrected() -> None:
    estimates = []
    for seed in range(200):
        shocks = np.random.default_rng(seed).normal(0, 1e-3, 101)
        grid = np.zeros(101)
        for k in range(1, 101):
            grid[k] = 0.9 * grid[k - 1] + shocks[k]
        estimates.append(fit(grid)[1:])
    phi, spread = np.mean(estimates, axis=0)
    assert phi == pytest.approx(0.9, abs=0.02)
    assert spread == pytest.approx(1e-3, rel=0.02)


def test_mean_reversion_abstains_on_a_trend() -> None:
    with pytest.raises(Abstained, match="no mean reversion"):
        ask(mean_reversion(), market(np.arange(401) * 1e-4 + noise(1) / 10))


def test_order_flow_follows_the_effect_it_measured() -> None:
    takers = np.where(np.random.default_rng(4).random(640) < 0.5, -1.0, 1.0)
    takers[-25:] = 1.0
    blocks = np.repeat(takers[:640:20], 20)  # 32 steps, one direction each
    blocks[-20:] = 1.0
    effect = np.concatenate([np.zeros(20), blocks[:-20]]) * 1e-5
    logs = np.cumsum(effect + np.random.default_rng(5).normal(0, 1e-6, 640))
    assert ask(order_flow(), market(logs, blocks)).decision == "buy"
    assert ask(order_flow(), market(-logs, blocks)).decision == "sell"
    with pytest.raises(Abstained, match="known taker"):
        ask(order_flow(), market(logs))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize(
    "window",
    [
        market(np.zeros(0)),
        market(noise(1, 19)),
        market(np.zeros(500), np.ones(500)),
        Series("X", "s", np.full(50, 7.0), 1 + np.arange(50.0), np.ones(50), np.ones(50)),
    ],
    ids=["empty", "few", "flat", "one moment"],
)
def test_too_little_to_go_on_is_an_abstention(model: WindowModel, window: Series) -> None:
    with pytest.raises(Abstained, match="X: "):
        ask(model, window)


def test_several_symbols_are_averaged_and_missing_ones_named() -> None:
    up = market(np.arange(401) * 2e-5 + noise(1), symbol="UP")
    down = market(np.arange(401) * -2e-5 - noise(1), symbol="DOWN")
    both = ask(momentum(), up, down)
    assert both.distribution["buy"] == pytest.approx(both.distribution["sell"])
    question = Question(("UP", "GONE"), {"UP": up}, now=0.0)
    alone = asyncio.run(momentum().decide(question))
    assert alone.distribution == ask(momentum(), up).distribution
    assert "GONE: 0 points" in alone.reasoning


def item(price: float, **changes: object) -> dict[str, object]:
    data = {"symbol": "A", "price": price, "volume": 2, "side": "sell"}
    return {"type": "trading_data", "source": "s1", "timestamp": 5, "data": data} | changes


def test_series_keep_one_market_and_usable_points() -> None:
    items = [
        item(1.0),
        item(2.0, source="s2"),
        item(0),
        item(3.0, timestamp=1e300),
        item(4.0, type="system_health"),
        item(5.0, data={"symbol": "B", "price": 5.0}),
        item(6.0, data={"symbol": "A", "price": 6.0, "side": "unclear"}),
    ]
    window = Series.of("A", items)
    assert (window.key, list(window.prices)) == ("s1|A", [1, 6])
    assert (list(window.volumes), list(window.sides)) == ([2, 0], [-1, 0])
    assert {each.key: list(each.prices) for each in Series.each(items)} == {
        "s1|A": [1, 6],
        "s2|A": [2],
        "s1|B": [5],
    }
    assert len(Series.of("C", items)) == 0
