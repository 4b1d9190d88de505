"""Back-tests: nothing later than the question is seen, and the figures are what they say."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import time
import xml.etree.ElementTree as Xml
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_bridge.backtest import Case, evaluate
from ai_bridge.bridge import Bridge
from ai_bridge.chart import plot
from ai_bridge.history import History
from ai_bridge.models.builtin import builtin_models
from ai_bridge.ports import Question
from ai_bridge.record import outcome_class
from ai_bridge.votes import Vote
from ai_bridge.weights import brier, losses, mixture, substitute

DATA = Path(__file__).resolve().parents[2] / "../shared/data/normalized"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="recorded data is not here")
Item = tuple[int, dict[str, Any]]


def item(offset: int, price: float, at: float, source: str = "a") -> Item:
    data = {"symbol": "X", "price": price, "volume": 1.0}
    return offset, {"type": "trading_data", "source": source, "timestamp": at, "data": data}


items = st.lists(
    st.tuples(
        st.floats(1, 1000), st.floats(-5, 20), st.sampled_from(["a", "b"]), st.integers(1, 3)
    ),
    min_size=1,
    max_size=80,
)


def history_of(rows: list[tuple[float, float, str, int]]) -> list[Item]:
    """Items whose offsets have holes and whose times step back now and then."""
    told, offset, at = [], -1, 1000.0
    for price, step, source, jump in rows:
        offset, at = offset + jump, at + step
        told.append(item(offset, price, at, source))
    return told


@given(items, items, st.integers(0, 160), st.integers(5, 40))
def test_a_window_is_the_same_whatever_comes_later(
    past: Any, future: Any, as_of: int, points: int
) -> None:
    known = [each for each in history_of(past) if each[0] <= as_of]
    later = [(as_of + 1 + offset, told) for offset, told in history_of(future)]
    before = History("X", known).window(as_of, points)
    after = History("X", [*known, *later]).window(as_of, points)
    assert (before.source, len(before)) == (after.source, len(after))
    for name in ("timestamps", "prices", "volumes", "sides"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    newest = [told for _, told in known[-points:]]
    if newest:
        source = newest[-1]["source"]
        prices = [told["data"]["price"] for told in newest if told["source"] == source]
        assert before.prices.tolist() == prices


def test_the_outcome_is_the_first_price_at_the_horizon_and_as_late_as_that() -> None:
    told = [
        item(0, 100, 0),
        item(1, 101, 5),
        item(2, 50, 11, "b"),
        item(3, 103, 12),
        item(4, 9, 99),
    ]
    history = History("X", told)
    turned = history.after(0, 10.0)
    assert turned is not None
    assert (round(turned.gain, 9), turned.known_at) == (0.03, 12)
    assert history.after(3, 1000.0) is None
    assert History("X", told[:3]).after(0, 10.0) is None  # only the other source went on


def case(n: int, answer: dict[str, float] | None, outcome: str, **more: Any) -> Case:
    return Case(**{"case_id": str(n), "offset": n, "at": float(n), "answer": answer,
                   "outcome": outcome, "known_at": n + 10.0} | more)  # fmt: skip


UP = {"buy": 0.8, "sell": 0.1, "hold": 0.1}
DOWN = {"buy": 0.1, "sell": 0.8, "hold": 0.1}
REST = {"buy": 0.1, "sell": 0.1, "hold": 0.8}


def test_the_figures_are_what_they_say() -> None:
    cases = [
        case(0, UP, "buy", gain=0.02, peers={"p": DOWN}),
        case(1, UP, "sell", gain=-0.01, peers={"p": DOWN}),
        case(2, REST, "buy", gain=0.05),
        case(3, None, "buy", gain=0.05, peers={"p": DOWN}),
        case(4, DOWN, "sell", gain=-0.03, known_at=20.0),
        Case(case_id="5", offset=5, at=5.0, answer=UP),  # nobody knows yet
    ]
    told = evaluate(cases, costs=0.001)
    assert (told["cases"], told["judged"], told["answered"]) == (6, 5, 4)
    assert told["coverage"] == 0.8
    assert told["acted"] == 0.75
    assert told["accuracy_when_acting"] == pytest.approx(2 / 3)
    good, bad = 0.04 + 0.01 + 0.01, 0.64 + 0.81 + 0.01
    assert told["brier"] == pytest.approx((2 * good + 2 * bad) / 4)
    assert told["profit"]["gross"] == pytest.approx(0.02 - 0.01 + 0.03)
    assert told["profit"]["net"] == pytest.approx(0.04 - 0.003)
    assert told["best_peer"] == "p"
    assert told["regret"] == pytest.approx(0.0, abs=1e-12)  # each was right once
    assert told["delay_s"] == {"median": 10.0, "max": 16.0}
    assert not told["promotable"]
    assert told["curve"][-1]["net"] == pytest.approx(told["profit"]["net"])


def test_weights_learn_only_from_outcomes_that_were_known() -> None:
    peers = {"right": UP, "wrong": DOWN}
    early = [case(n, UP, "buy", peers=peers, known_at=n + 0.5) for n in range(20)]
    late = [case(n, UP, "buy", peers=peers, known_at=1000.0) for n in range(20)]
    quick, slow = (evaluate(each, costs=0)["consensus"]["without"] for each in (early, late))
    even = brier(
        substitute(mixture({"right": 0.5, "wrong": 0.5}, {n: losses(p) for n, p in peers.items()})),
        "buy",
    )
    assert slow == pytest.approx(even)  # never learned anything
    assert quick < slow


def run(model: str, history: History, offsets: list[int], horizon_s: float) -> list[Case]:
    """As the node does it, for one symbol."""
    bridge = Bridge(builtin_models())

    async def asked(offset: int) -> tuple[Vote, float]:
        window = history.window(offset)
        at = float(window.timestamps.max())
        question = Question((history.symbol,), {history.symbol: window}, now=at)
        return await bridge.ask(model, question, clock=time.monotonic), at

    cases = []
    for offset in offsets:
        vote, at = asyncio.run(asked(offset))
        turned = history.after(offset, horizon_s)
        outcome = outcome_class({"return": turned.gain}, {}) if turned else None
        cases.append(
            Case(
                case_id=str(offset),
                offset=offset,
                at=at,
                answer=vote.distribution,
                outcome=outcome,
                gain=turned.gain if turned else None,
                known_at=turned.known_at if turned else None,
            )
        )
    return cases


@needs_data
@pytest.mark.parametrize("model", ["momentum", "mean_reversion"])
def test_on_real_prices_the_future_changes_outcomes_and_no_answer(model: str) -> None:
    path = DATA / "trades_coinbase_BTCUSD_20230905.ndjson.gz"
    with gzip.open(path) as file:
        told = [(n, json.loads(line)) for n, line in enumerate(islice(file, 4000))]
    symbol = told[0][1]["data"]["symbol"]
    offsets = list(range(300, 3001, 100))
    real = run(model, History(symbol, told), offsets, 60.0)
    turned = [(n, each if n <= 3000 else _raised(each, 1.5)) for n, each in told]
    other = run(model, History(symbol, turned), offsets, 60.0)
    assert [each.answer for each in other] == [each.answer for each in real]
    assert sum(each.answer is not None for each in real) >= 10
    assert all(each.known_at >= each.at + 60 for each in real if each.known_at is not None)
    assert other[-1].gain != real[-1].gain
    figures = evaluate(real, costs=0.001)
    assert figures["judged"] >= 20
    assert figures["answered"] >= 10
    assert 0 <= figures["brier"] <= 2
    assert figures == evaluate(run(model, History(symbol, told), offsets, 60.0), costs=0.001)
    assert math.isfinite(figures["profit"]["net"])


def _raised(told: dict[str, Any], times: float) -> dict[str, Any]:
    return {**told, "data": {**told["data"], "price": told["data"]["price"] * times}}


def test_a_plot_is_an_svg_also_of_nothing() -> None:
    for points in ([], [(1.0, 2.0)], [(0.0, -1.0), (5.0, 3.0), (9.0, 0.5)]):
        root = Xml.fromstring(plot("a <b> & c", [("skill", points), ("net", points)]))
        assert root.tag.endswith("svg")
        assert len(root.findall(".//{*}polyline")) == 2
