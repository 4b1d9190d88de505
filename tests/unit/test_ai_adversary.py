"""Regret against an adversary: votes and outcomes are searched for that make it as large as can be.

Whoever is in the search may sleep, be certain and wrong, or join late; outcomes are drawn, or the
worst ones for the consensus, or against one model. Regret is summed up here, apart from the books.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings, target
from hypothesis import strategies as st

from ai_bridge.calibration import READY, Calibration
from ai_bridge.consensus import pool
from ai_bridge.ledger import Ledger
from ai_bridge.ports import Question
from ai_bridge.prediction import Prediction
from ai_bridge.record import decision_record
from ai_bridge.votes import Vote
from ai_bridge.weights import brier

CHOICES = ("a", "b", "c", "d")
Said = Mapping[str, Mapping[str, float]]
Game = tuple[tuple[str, ...], list[tuple[Said, str, int]]]


@st.composite
def distributions(draw: st.DrawFn, choices: tuple[str, ...]) -> dict[str, float]:
    """Certain, nearly certain, even, or anything."""
    right, sure = draw(st.sampled_from(choices)), draw(st.sampled_from([1.0, 0.999999, 0.9, 0.5]))
    if draw(st.booleans()):
        rest = (1.0 - sure) / (len(choices) - 1)
        return {each: sure if each == right else rest for each in choices}
    parts = [draw(st.integers(0, 20)) for _ in choices]
    total = sum(parts) or len(parts)
    return {each: (part if any(parts) else 1) / total
            for each, part in zip(choices, parts, strict=True)}  # fmt: skip


@st.composite
def games(draw: st.DrawFn) -> Game:
    """What is chosen from, and rounds: what each model says, on which symbol, and what comes.

    The outcome is a number: of a choice, or from there on whom the adversary works against.
    """
    choices = CHOICES[: draw(st.integers(2, 4))]
    names = [f"m{n}" for n in range(draw(st.integers(1, 6)))]
    rounds = []
    for _ in range(draw(st.integers(1, 24))):
        awake = draw(st.sets(st.sampled_from(names), min_size=1))
        said = {name: draw(distributions(choices)) for name in sorted(awake)}
        rounds.append((said, draw(st.sampled_from("XXY")), draw(st.integers(0, 11))))
    return choices, rounds


def cast(name: str, said: Mapping[str, float], choices: tuple[str, ...]) -> Vote:
    shown = Prediction(dict(said), "", choices)
    return Vote(
        model=name,
        status="ok",
        decision=shown.decision,
        confidence=shown.confidence,
        distribution=dict(said),
    )


def decided(ledger: Ledger, number: int, votes: list[Vote], symbol: str) -> dict[str, Any]:
    votes = [ledger.calibrated(vote) for vote in votes]
    configured = {f"m{n}": 1.0 + n for n in range(6)}
    pooled = ledger.pooled(votes, configured, [symbol], "learned")
    choices = tuple(votes[0].distribution or {})
    return decision_record(
        Question((symbol,), {}, now=float(number), decisions=choices),
        pool(votes, pooled),
        votes,
        decision_id=f"d{number}",
        context_id=None,
        term=0,
        pooled=pooled,
        cover=None,
    )


def worst(ours: Mapping[str, float], said: Said, regret: Mapping[str, float], against: int) -> str:
    """What makes the largest regret against anybody, or against one of those who spoke."""
    rivals = list(said)
    rivals = rivals if against % 2 else [rivals[against % len(rivals)]]
    return max(
        ours,
        key=lambda o: max(regret.get(n, 0.0) + brier(ours, o) - brier(said[n], o) for n in rivals),
    )


def attack(choices: tuple[str, ...], rounds: Sequence[tuple[Said, str, int]], known: bool) -> None:
    """Play; whatever comes, regret stays at most ln(N + 2), which the search tries to exceed."""
    ledger, regret = Ledger(), dict[str, float]()
    if known:  # calibrated answers take part from the first round on
        for number in range(6):
            ledger.calibrations[f"m{number}"] = Calibration()
            ledger.calibrations[f"m{number}"].count = READY
    for number, (said, symbol, coming) in enumerate(rounds):
        votes = [cast(name, each, choices) for name, each in said.items()]
        record = decided(ledger, number, votes, symbol)
        ours = record["distribution"]
        outcome = choices[coming] if coming < len(choices) else worst(ours, said, regret, coming)
        for name, each in said.items():
            gap = brier(ours, outcome) - brier(each, outcome)
            regret[name] = regret.get(name, 0.0) + gap
        ledger.apply(record, outcome)
    limit, total = math.log(len(regret) + 2), ledger.regrets.report()
    target(max(regret.values()) - limit)
    assert max(regret.values()) <= limit + 1e-9
    assert total["configured"]["regret"] <= limit + 1e-9
    assert total["bound"]["kind"] == "undelayed"
    assert abs(total["bound"]["value"] - limit) <= 1e-9


@settings(max_examples=200)
@given(games(), st.booleans())
def test_no_adversary_makes_regret_exceed_ln_of_n_plus_2(game: Game, known: bool) -> None:
    attack(*game, known)


@pytest.mark.slow
@settings(max_examples=2000)
@given(games(), st.booleans())
def test_no_patient_adversary_does(game: Game, known: bool) -> None:
    attack(*game, known)
