"""Calibration against plain arithmetic, and coverage that adaptive conformal inference promises."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_bridge.calibration import READY, Calibration, Reliability
from ai_bridge.conformal import LEAST_SCORES, STEP, Conformal, prediction_set
from ai_bridge.prediction import DECISIONS, Prediction
from ai_bridge.weights import brier


def spread(top: float, name: str = "buy") -> dict[str, float]:
    rest = (1 - top) / 2
    return {each: top if each == name else rest for each in DECISIONS}


# --- calibration ---


def drawn(chance: random.Random, distribution: dict[str, float]) -> str:
    return chance.choices(list(distribution), list(distribution.values()))[0]


@pytest.mark.parametrize("true", [0.4, 0.6, 0.9])
def test_an_overconfident_model_is_taken_down_to_what_it_is_worth(true: float) -> None:
    chance, model = random.Random(7), Calibration()
    raw = scaled = 0.0
    for number in range(4000):
        name = chance.choice(DECISIONS)
        said, outcome = spread(0.9, name), drawn(chance, spread(true, name))
        meant = model.apply(said)
        if number >= 1000:
            assert meant is not None
            Prediction(meant)
            raw, scaled = raw + brier(said, outcome), scaled + brier(meant, outcome)
        model.learn(said, outcome)
    meant = model.apply(spread(0.9))
    assert meant is not None
    assert meant["buy"] == pytest.approx(true, abs=0.04)
    assert scaled <= raw + 3
    shown = model.as_dict()
    assert shown["error_calibrated"] < 0.06
    assert shown["error"] == pytest.approx(abs(0.9 - true), abs=0.04)


def test_how_often_each_decision_is_right_is_learned() -> None:
    """A model that knows nothing of a market that mostly stays where it is."""
    chance, model = random.Random(7), Calibration()
    base = {"buy": 0.15, "sell": 0.15, "hold": 0.7}
    for _ in range(3000):
        model.learn({"buy": 0.4, "sell": 0.35, "hold": 0.25}, drawn(chance, base))
    meant = model.apply({"buy": 0.4, "sell": 0.35, "hold": 0.25})
    assert meant == pytest.approx(base, abs=0.04)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any), st.integers(0, 2)
        ),
        max_size=60,
    )
)
def test_whatever_is_said_and_comes_the_result_is_a_distribution(
    played: list[tuple[list[int], int]],
) -> None:
    model = Calibration()
    for parts, right in played:
        said = {o: p / sum(parts) for o, p in zip(DECISIONS, parts, strict=True)}
        model.learn(said, DECISIONS[right])
        meant = model.apply(said)
        assert (meant is not None) is (model.count >= READY)
        if meant is not None:
            Prediction(meant)
            assert all(math.isfinite(p) for p in meant.values())


def test_reliability_counts_by_confidence() -> None:
    bins = Reliability()
    assert bins.error is None
    for right in (True, True, False, False):
        bins.add(spread(0.75), "buy" if right else "sell")
    bins.add(spread(1.0), "buy")
    low, high = bins.bins()
    assert (low["from"], low["to"], low["count"], low["right"]) == (0.7, 0.8, 4, 0.5)
    assert (high["confidence"], high["right"], high["count"]) == (1.0, 1.0, 1)
    assert bins.error == pytest.approx(0.25 * 4 / 5)


# --- coverage ---


def test_a_set_holds_the_final_decision_and_what_conforms() -> None:
    said = {"buy": 0.5, "sell": 0.3, "hold": 0.2}
    assert prediction_set(said, -1.0) == ["buy"]
    assert prediction_set(said, 0.7) == ["buy", "sell"]
    assert prediction_set(said, 1.0) == ["buy", "sell", "hold"]


def coverage(
    outcomes: list[tuple[dict[str, float], str]], target: float, delay: int
) -> tuple[int, float]:
    """Judged decisions with a stated set, and the share of them that missed."""
    known, waiting = Conformal(), list[tuple[dict[str, float], str, float, list[str] | None]]()
    judged = missed = 0
    for number, (said, outcome) in enumerate(outcomes):
        cover = known.cover(target)
        given = None if cover is None else prediction_set(said, cover.threshold)
        if given is not None:
            judged, missed = judged + 1, missed + (outcome not in given)
        waiting.append((said, outcome, float(number), given))
        if len(waiting) > delay:
            due, right, at, names = waiting.pop(0)
            known.learn(due, right, at=at, given=None if names is None else (target, names))
    return judged, missed / max(1, judged)


@pytest.mark.parametrize("target", [0.6, 0.9])
@pytest.mark.parametrize("delay", [0, 25])
def test_coverage_holds_where_the_market_turns_against_the_models(
    target: float, delay: int
) -> None:
    """Nothing is exchangeable: who is right jumps, and works against what is said."""
    chance, played = random.Random(3), []
    for number in range(6000):
        said = spread(0.4 + 0.5 * chance.random(), chance.choice(DECISIONS))
        regime = number // 1000
        if regime % 3 == 0:
            outcome = drawn(chance, said)
        elif regime % 3 == 1:
            outcome = drawn(chance, {o: 1 - p for o, p in said.items()})
        else:
            outcome = min(said, key=lambda o, said=said: said[o])  # type: ignore[misc]
        played.append((said, outcome))
    judged, missed = coverage(played, target, delay)
    assert judged == 6000 - LEAST_SCORES - delay
    promised = (1 - target) + (1 - target + STEP * (1 + delay)) / (STEP * (judged - delay))
    assert missed <= promised + delay / judged
    still = [(said, said_right) for said, said_right in played[:1000]]
    assert coverage(still, target, delay)[1] <= 1 - target + 0.1


@pytest.mark.parametrize("seed", range(10))
def test_four_hundred_outcomes_are_enough_to_be_within_half_a_point(seed: int) -> None:
    """Models that know nothing and grow surer of it: older scores always tell too little."""
    chance, played = random.Random(seed), []
    for number in range(LEAST_SCORES + 400):
        said = spread(0.4 + 0.001 * number, chance.choice(DECISIONS))
        played.append((said, chance.choice(DECISIONS)))
    judged, missed = coverage(played, 0.9, 0)
    assert judged == 400
    assert missed == pytest.approx(0.1, abs=0.004)


@given(
    st.lists(
        st.tuples(st.floats(0.34, 1), st.sampled_from(DECISIONS), st.sampled_from(DECISIONS)),
        min_size=40,
        max_size=120,
    ),
    st.sampled_from([0.5, 0.8, 0.9, 0.99]),
    st.integers(0, 5),
)
def test_the_promise_holds_for_any_sequence(
    played: list[tuple[float, str, str]], target: float, delay: int
) -> None:
    told = [(spread(top, name), outcome) for top, name, outcome in played]
    judged, missed = coverage(told, target, delay)
    if judged:
        promised = (1 - target) + (1 - target + STEP * (1 + delay)) / (STEP * judged)
        assert missed <= promised + delay / judged + 1e-9


def test_on_a_market_that_stays_the_same_coverage_is_near_its_target() -> None:
    chance, known = random.Random(5), Conformal()
    assert known.cover(0.8) is None
    for number in range(5000):
        said = spread(0.34 + 0.6 * chance.random(), chance.choice(DECISIONS))
        cover, outcome = known.cover(0.8), drawn(chance, said)
        given = prediction_set(said, cover.threshold) if cover else None
        known.learn(said, outcome, at=float(number), given=(0.8, given) if given else None)
    [shown] = known.as_list()
    assert shown["coverage"] == pytest.approx(0.8, abs=0.02)
    assert 0.1 < shown["acted"] < 0.9
    assert shown["series"][-1]["at"] == 4999
    assert len(shown["series"]) <= 120
    times = [point["at"] for point in shown["series"]]
    assert times == sorted(times)
