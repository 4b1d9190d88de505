"""Outcomes that the log tells: the right price, never a later byte."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_bridge import outcomes as module
from ai_bridge.outcomes import Judge, Judged, Price, right, waits
from ai_bridge.prediction import DECISIONS

Json = dict[str, Any]


def decided(number: int, symbol: str, source: str, price: float, at: float, **more: Any) -> Json:
    return {
        "decision_id": f"d{number}",
        "final_decision": "buy",
        "decisions": list(DECISIONS),
        "symbols": [symbol],
        "votes": [],
        "reference": {symbol: {"price": price, "timestamp": at, "source": source}},
        "horizon_s": 10.0,
        "costs": 0.002,
        "dead_band": 0.001,
    } | more


def trade(symbol: str, source: str, price: float, at: float) -> Json:
    data = {"symbol": symbol, "price": price}
    return {"type": "trading_data", "source": source, "timestamp": at, "data": data}


def judge(log: list[Json]) -> list[Judged]:
    """What a judge tells who reads this log, item by item."""
    judging, told = Judge(), list[Judged]()
    for offset, item in enumerate(log):
        if "decision_id" in item:
            judging.decided(offset, item)
        else:
            told += judging.priced(offset, msgspec.convert(item, Price))
    return told


names, places = st.sampled_from(["X", "Y"]), st.sampled_from(["p", "q"])
trades = st.tuples(names, places, st.floats(1, 1000), st.floats(-8, 8))
steps = st.lists(st.tuples(st.booleans(), trades), max_size=60)


def log_of(rows: list[tuple[bool, tuple[str, str, float, float]]], begin: int = 0) -> list[Json]:
    """Decisions and trades; time goes on, and steps back now and then."""
    log, at = list[Json](), 1000.0 + 5 * begin
    for number, (decides, (symbol, source, price, step)) in enumerate(rows, begin):
        at += 1 + step
        make = (
            decided(number, symbol, source, price, at)
            if decides
            else trade(symbol, source, price, at)
        )
        log.append(make)
    return log


@given(steps, steps, steps)
def test_whatever_comes_later_changes_no_outcome(past: Any, future: Any, other: Any) -> None:
    known = log_of(past)
    told = judge(known)
    for later in (future, other):
        longer = judge(known + log_of(later, begin=len(known)))
        assert [each for each in longer if each.at_offset < len(known)] == told
    assert all(each.at_offset < len(known) for each in told)


@given(steps)
def test_each_outcome_is_the_first_price_past_the_horizon(rows: Any) -> None:
    """Against a search through the whole log."""
    log = log_of(rows)
    expected = {}
    for offset, item in enumerate(log):
        if "decision_id" not in item:
            continue
        [(symbol, known)] = item["reference"].items()
        for later, other in enumerate(log[offset + 1 :], offset + 1):
            market = (other.get("data", {}).get("symbol"), other.get("source"))
            if (
                market == (symbol, known["source"])
                and other["timestamp"] >= known["timestamp"] + 10
            ):
                gain = other["data"]["price"] / known["price"] - 1
                expected[item["decision_id"]] = (later, gain, other["timestamp"])
                break
    told = {e.record["decision_id"]: (e.at_offset, e.gain, e.known_at) for e in judge(log)}
    assert told == expected


@pytest.mark.parametrize(
    ("gain", "outcome"),
    [(0.0031, "buy"), (0.0029, "hold"), (-0.0029, "hold"), (-0.0031, "sell")],
)
def test_costs_and_dead_band_have_to_be_earned(gain: float, outcome: str) -> None:
    record = decided(1, "X", "p", 100.0, 0.0)
    assert right(gain, record) == outcome
    [told] = judge([record, trade("X", "p", 100.0 * (1 + gain), 10.0)])
    event = told.event(record)
    assert (event["outcome"], event["decision_id"], event["at_offset"]) == (outcome, "d1", 1)
    assert event["return"] == pytest.approx(gain)


def test_only_what_a_price_can_judge_waits() -> None:
    record = decided(1, "X", "p", 100.0, 0.0)
    assert waits(record)
    assert not waits(record | {"horizon_s": 0})
    assert not waits(record | {"symbols": ["X", "Y"]})
    assert not waits(record | {"decisions": ["go", "stay"]})
    assert not waits(record | {"reference": {}})
    assert not waits({name: record[name] for name in record if name != "horizon_s"})


def test_at_most_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    judging = Judge()
    assert judging.oldest is None
    for number in range(4):
        judging.decided(number, decided(number, "X", "p", 100.0, 0.0))
    assert (len(judging), judging.oldest) == (2, 2)
    price = msgspec.convert(trade("X", "p", 101.0, 99.0), Price)
    told = judging.priced(9, price)
    assert [each.record["decision_id"] for each in told] == ["d2", "d3"]
    assert not judging.priced(10, price)
    assert len(judging) == 0
