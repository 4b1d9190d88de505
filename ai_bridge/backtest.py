"""How a model would have done on recorded decisions: its answers as of then, judged by what came.

Cases come in the order of the log. What a case turned out to be counts, for weights that learn,
only from the moment on at which it could be known: outcomes are as late as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ai_bridge.prediction import choose
from ai_bridge.weights import Level, brier, losses, mixture, substitute

LEAST_CASES = 30  # judged answers below which a report promotes nobody
BINS = 10
CURVE_POINTS = 400

Distribution = Mapping[str, float]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One question of the past, with the answers of then, the new one, and what came of it.

    `at` and `known_at` are event times; `gain` is the return over the horizon, `outcome` what would
    have been right. Both are None where nobody knows yet. `answer` None: the model did not answer.
    """

    case_id: str
    offset: int
    at: float
    peers: dict[str, dict[str, float]] = {}
    answer: dict[str, float] | None = None
    reason: str = ""
    outcome: str | None = None
    gain: float | None = None
    known_at: float | None = None


def evaluate(cases: Sequence[Case], *, costs: float) -> dict[str, Any]:
    """The report's figures. `costs` of a round trip, as a fraction, are taken off each act.

    `regret` is the model's loss minus that of the best other model, summed over the cases that both
    answered. `consensus` compares weights that learn with and without the model.
    """
    judged = [case for case in cases if case.outcome is not None]
    answered = [case for case in judged if case.answer is not None]
    losses = [brier(case.answer or {}, case.outcome or "") for case in answered]
    even = [_even_loss(case) for case in answered]
    figures: dict[str, Any] = {
        "cases": len(cases),
        "judged": len(judged),
        "answered": len(answered),
        "coverage": _share(len(answered), len(judged)),
        "brier": _mean(losses),
        "brier_uniform": _mean(even),
        **_acting(answered, costs),
        **_regret(answered),
        "consensus": _consensus(judged),
        "delay_s": _delays(judged),
        "reliability": _reliability(answered),
        "curve": _curve(answered, losses, even, costs),
    }
    why = list(_objections(figures))
    return {**figures, "promotable": not why, "objections": why}


def _objections(figures: Mapping[str, Any]) -> Iterator[str]:
    if figures["answered"] < LEAST_CASES:
        yield f"{figures['answered']} judged answers, at least {LEAST_CASES} are needed"
    elif figures["brier"] >= figures["brier_uniform"]:
        yield f"Brier {figures['brier']:.4f} is no better than {figures['brier_uniform']:.4f}, that of knowing nothing"  # noqa: E501


def _even_loss(case: Case) -> float:
    return 1 - 1 / len(case.answer or {"": 1.0})


def _acting(answered: Sequence[Case], costs: float) -> dict[str, Any]:
    """Accuracy and profit of those answers that are not to hold."""
    acts = [case for case in answered if choose(case.answer or {}) != "hold"]
    right = sum(choose(case.answer or {}) == case.outcome for case in acts)
    gains = [_gain(case) for case in acts if case.gain is not None]
    gross = math.fsum(gains)
    return {
        "acted": _share(len(acts), len(answered)),
        "accuracy_when_acting": _share(right, len(acts)),
        "profit": {
            "trades": len(gains),
            "gross": gross,
            "costs": costs * len(gains),
            "net": gross - costs * len(gains),
        },
    }


def _gain(case: Case) -> float:
    side = {"buy": 1.0, "sell": -1.0}.get(choose(case.answer or {}), 0.0)
    return side * (case.gain or 0.0)


def _regret(answered: Sequence[Case]) -> dict[str, Any]:
    """Against each other model, over the cases that both answered."""
    peers: dict[str, list[tuple[float, float]]] = {}
    for case in answered:
        own = brier(case.answer or {}, case.outcome or "")
        for name, distribution in case.peers.items():
            peers.setdefault(name, []).append((own, brier(distribution, case.outcome or "")))
    told = {
        name: {
            "judged": len(pairs),
            "brier": _mean([other for _, other in pairs]),
            "regret": math.fsum(own - other for own, other in pairs),
        }
        for name, pairs in sorted(peers.items())
    }
    best = min(told, key=lambda name: (told[name]["brier"], name), default=None)
    return {"peers": told, "best_peer": best, "regret": told[best]["regret"] if best else None}


def _consensus(judged: Sequence[Case]) -> dict[str, float | None]:
    """Mean Brier loss of the pool with and without the model, over cases with other votes."""
    shared = [case for case in judged if case.peers]
    return {
        "without": _mean(list(_pooled(shared, with_it=False))),
        "with": _mean(list(_pooled(shared, with_it=True))),
    }


def _pooled(cases: Sequence[Case], *, with_it: bool) -> Iterator[float]:
    """Loss of each case under weights learned from the outcomes that were known by then."""
    level = Level(lambda name: 1.0)
    waiting: list[tuple[Case, int]] = []  # and how many outcomes were known when it was asked
    for case in cases:
        ripe = [each for each in waiting if (each[0].known_at or math.inf) <= case.at]
        waiting = [each for each in waiting if (each[0].known_at or math.inf) > case.at]
        for due, before in sorted(ripe, key=lambda one: (one[0].known_at or 0.0, one[0].offset)):
            said = _votes(due, with_it)
            level.note_delay(level.rounds - before)
            level.learn({name: brier(vote, due.outcome or "") for name, vote in said.items()})
        votes = _votes(case, with_it)
        mixed = mixture(
            level.shares(votes),
            {name: losses(vote) for name, vote in votes.items()},
            level.pace.rate,
        )
        yield brier(substitute(mixed), case.outcome or "")
        waiting.append((case, level.rounds))


def _votes(case: Case, with_it: bool) -> dict[str, Distribution]:
    own = {"": case.answer} if with_it and case.answer is not None else {}
    return {**case.peers, **own}


def _delays(judged: Sequence[Case]) -> dict[str, float | None]:
    """Seconds from a question to the moment at which its outcome was known."""
    delays = sorted(case.known_at - case.at for case in judged if case.known_at is not None)
    return {
        "median": delays[len(delays) // 2] if delays else None,
        "max": delays[-1] if delays else None,
    }


def _reliability(answered: Sequence[Case]) -> list[dict[str, float | int]]:
    """How often answers of about the same confidence were right."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for case in answered:
        decision = choose(case.answer or {})
        sure = (case.answer or {})[decision]
        found = bins.setdefault(min(BINS - 1, int(sure * BINS)), [])
        found.append((sure, decision == case.outcome))
    return [
        {
            "from": n / BINS,
            "to": (n + 1) / BINS,
            "confidence": math.fsum(sure for sure, _ in pairs) / len(pairs),
            "right": sum(right for _, right in pairs) / len(pairs),
            "count": len(pairs),
        }
        for n, pairs in sorted(bins.items())
    ]


def _curve(
    answered: Sequence[Case], losses: Sequence[float], even: Sequence[float], costs: float
) -> list[dict[str, float]]:
    """Sums so far: skill (loss of knowing nothing minus own) and net profit; at most 400 points."""
    points: list[dict[str, float]] = []
    skill = net = 0.0
    for case, loss, none in zip(answered, losses, even, strict=True):
        skill += none - loss
        if case.gain is not None and choose(case.answer or {}) != "hold":
            net += _gain(case) - costs
        points.append({"at": case.at, "skill": skill, "net": net})
    step = max(1, -(-len(points) // CURVE_POINTS))
    thinned = points[::step]
    return thinned if not points or thinned[-1] is points[-1] else [*thinned, points[-1]]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
