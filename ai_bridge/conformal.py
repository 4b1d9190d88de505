"""Adaptive conformal inference: when the consensus cannot keep its stated coverage, it abstains.

For a decision with distribution p, the *prediction set* holds every decision o whose score
1 - p(o) is at most a threshold, and always the most probable one. The threshold is the
(1 - level) quantile of the newest scores of what turned out right. `level` begins at the allowed
miss rate, 1 - target, and after each judged decision moves by

    level <- min(HIGHEST, level + STEP * ((1 - target) - missed))

where `missed` is 1 if the outcome was not in the set that was given then. From level 1 on every set
holds one decision; what lies above it is credit for having covered more than was asked for, bounded
so that a market that turns is noticed soon. Summed up, over the first T decisions and whatever
their order or the market does,

    share missed  <=  (1 - target) + (1 - target + STEP * (1 + D)) / (STEP * T)

with D the most decisions that were given and not yet judged at a time: no exchangeability needed.
A set of one decision is an answer; of several, the consensus abstains.

References
----------
Gibbs & Candes (2021), Adaptive conformal inference under distribution shift, NeurIPS 34.
Sadinle, Lei & Wasserman (2019), Least ambiguous set-valued classifiers with bounded error levels,
J. Am. Stat. Assoc. 114: the score.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from typing import Any

import msgspec

from ai_bridge.prediction import choose
from ai_bridge.weights import Distribution

DEFAULT_COVERAGE = 0.9
STEP = 0.1  # 0.05 covers a point too much for the first four hundred outcomes
HIGHEST = 2.0  # credit for at most twenty misses
LEAST_SCORES = 30  # outcomes below which no coverage is stated
NEWEST = 1000  # scores that the threshold is made of
ALL, ONE = 1.0, -1.0  # thresholds that let in every decision, and only the most probable one
POINTS = 2000  # newest judged decisions whose coverage is shown
WINDOW = 100  # of them, that one point of the series is the mean of, where there are so many
LEAST_SHOWN = 10


class Cover(msgspec.Struct, frozen=True):
    """By what a prediction set was made."""

    target: float
    level: float
    threshold: float
    outcomes: int


def prediction_set(distribution: Distribution, threshold: float) -> list[str]:
    """The decisions that may turn out right, in the order of the distribution."""
    final = choose(distribution)
    return [name for name, p in distribution.items() if name == final or 1.0 - p <= threshold]


class Tracker:
    """The level of one target, and how it went."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.level = 1.0 - target
        self.judged = self.missed = self.single = self.single_right = 0
        self.newest: deque[tuple[float, bool]] = deque(maxlen=POINTS)

    def learn(self, given: list[str], outcome: str, at: float) -> None:
        missed = outcome not in given
        self.level = min(HIGHEST, self.level + STEP * ((1.0 - self.target) - missed))
        self.judged += 1
        self.missed += missed
        if len(given) == 1:
            self.single += 1
            self.single_right += not missed
        self.newest.append((at, missed))

    def as_dict(self) -> dict[str, Any]:
        judged = self.judged
        return {
            "target": self.target,
            "level": self.level,
            "judged": judged,
            "coverage": 1 - self.missed / judged if judged else None,
            "acted": self.single / judged if judged else None,
            "right_when_acting": self.single_right / self.single if self.single else None,
            "series": self._series(),
        }

    def _series(self) -> list[dict[str, float]]:
        """Coverage over the newest `WINDOW` at a time, at most 100 points."""
        rows = list(self.newest)
        if not rows:
            return []
        hits = [0]
        for _, missed in rows:
            hits.append(hits[-1] + (not missed))
        steps = range(min(LEAST_SHOWN, len(rows)), len(rows), max(1, len(rows) // 100))
        return [
            {
                "at": rows[end - 1][0],
                "coverage": (hits[end] - hits[max(0, end - WINDOW)]) / min(WINDOW, end),
            }
            for end in [*steps, len(rows)]
        ]


class Conformal:
    """Scores of all judged decisions, and a tracker for each target that was asked for."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque()
        self._sorted: list[float] = []
        self._trackers: dict[float, Tracker] = {}

    def cover(self, target: float) -> Cover | None:
        """The threshold for the next decision; None while too little is known to state one."""
        count = len(self._sorted)
        if count < LEAST_SCORES:
            return None
        tracker = self._trackers.get(target)
        level = 1.0 - target if tracker is None else tracker.level
        return Cover(target, level, self._threshold(level), count)

    def learn(
        self,
        distribution: Distribution,
        outcome: str,
        *,
        at: float,
        given: tuple[float, list[str]] | None,
    ) -> None:
        """Take in an outcome; `given` are target and prediction set where one was stated."""
        score = 1.0 - distribution[outcome]
        if len(self._newest) == NEWEST:
            del self._sorted[bisect.bisect_left(self._sorted, self._newest.popleft())]
        self._newest.append(score)
        bisect.insort(self._sorted, score)
        if given is not None:
            target, names = given
            self._trackers.setdefault(target, Tracker(target)).learn(names, outcome, at)

    def as_list(self) -> list[dict[str, Any]]:
        """Every target that was stated: level, coverage reached, and coverage over time."""
        return [self._trackers[target].as_dict() for target in sorted(self._trackers)]

    def _threshold(self, level: float) -> float:
        place = math.ceil((len(self._sorted) + 1) * (1.0 - level))
        if level >= 1.0:
            return ONE
        if level <= 0.0 or place > len(self._sorted):
            return ALL
        return self._sorted[max(1, place) - 1]
