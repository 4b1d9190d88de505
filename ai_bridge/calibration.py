"""What a model's probabilities are worth: vector scaling, fitted as outcomes come in.

A model that says p is taken to mean

    q(o)  proportional to  p(o)^sharpness * exp(bias(o))

where sharpness below 1 takes back overconfidence and the biases correct how often each decision
turns out right. Both follow the log loss by damped Newton steps, one for each outcome, in constant
time and memory; the prior says: the model is right about itself.

References
----------
Guo, Pleiss, Sun & Weinberger (2017), On calibration of modern neural networks, ICML: temperature
scaling (sharpness is 1 / temperature) and vector scaling, which generalises Platt (1999).
Amari (1998), Natural gradient works efficiently in learning, Neural Computation 10.
Brier loss says how good probabilities are in all; reliability how often they come true.
"""

from __future__ import annotations

import math
from typing import Any

from ai_bridge.portable import exp, ln
from ai_bridge.prediction import choose
from ai_bridge.weights import Distribution

READY = 30  # outcomes below which a model is taken at its word
BINS = 10
_LEAST_P = 1e-6  # a model that says 0 is taken to mean this
_PRIOR = 4.0  # as much as that many bits of certainty: deviates by about 0.5 before any outcome
_MOST_SHARP, _MOST_BIAS = 4.0, 6.0


class Reliability:
    """How often answers of about the same confidence were right."""

    def __init__(self) -> None:
        self._counts, self._right = [0] * BINS, [0] * BINS
        self._sure = [0.0] * BINS

    def add(self, distribution: Distribution, outcome: str) -> None:
        """Count one answer and what turned out right."""
        decision = choose(distribution)
        sure = distribution[decision]
        place = min(BINS - 1, int(sure * BINS))
        self._counts[place] += 1
        self._right[place] += decision == outcome
        self._sure[place] += sure

    @property
    def error(self) -> float | None:
        """Expected calibration error: mean gap between confidence and accuracy, by answers."""
        total = sum(self._counts)
        gaps = (abs(s - r) for s, r in zip(self._sure, self._right, strict=True))
        return math.fsum(gaps) / total if total else None

    def bins(self) -> list[dict[str, float | int]]:
        """The bins that hold answers, by confidence."""
        return [
            {
                "from": n / BINS,
                "to": (n + 1) / BINS,
                "confidence": self._sure[n] / count,
                "right": self._right[n] / count,
                "count": count,
            }
            for n, count in enumerate(self._counts)
            if count
        ]


class Calibration:
    """One model's scaling, and how reliable it is with and without."""

    def __init__(self) -> None:
        self.count = 0
        self.sharpness, self._sharpness_known = 1.0, _PRIOR
        self.bias: dict[str, float] = {}
        self._bias_known: dict[str, float] = {}
        self.said, self.scaled = Reliability(), Reliability()

    def apply(self, distribution: Distribution) -> dict[str, float] | None:
        """What the model means; None while too few outcomes are known to tell."""
        return self._scale(distribution) if self.count >= READY else None

    def learn(self, distribution: Distribution, outcome: str) -> None:
        """Take in what the model said and what turned out right."""
        self.said.add(distribution, outcome)
        scaled = self._scale(distribution)
        if self.count >= READY:
            self.scaled.add(scaled, outcome)
        self.count += 1
        logs = {name: _log(p) for name, p in distribution.items()}
        expected = math.fsum(q * logs[name] for name, q in scaled.items())
        spread = math.fsum(q * (logs[name] - expected) ** 2 for name, q in scaled.items())
        self._sharpness_known += spread
        step = (logs[outcome] - expected) / self._sharpness_known
        self.sharpness = min(_MOST_SHARP, max(0.0, self.sharpness + step))
        for name, q in scaled.items():
            known = self._bias_known.get(name, _PRIOR) + q * (1.0 - q)
            self._bias_known[name] = known
            moved = self.bias.get(name, 0.0) + ((name == outcome) - q) / known
            self.bias[name] = min(_MOST_BIAS, max(-_MOST_BIAS, moved))

    def as_dict(self) -> dict[str, Any]:
        """Plain values to show."""
        return {
            "sharpness": self.sharpness,
            "bias": dict(sorted(self.bias.items())),
            "calibrated": self.count >= READY,
            "error": self.said.error,
            "error_calibrated": self.scaled.error,
            "reliability": self.said.bins(),
            "reliability_calibrated": self.scaled.bins(),
        }

    def _scale(self, distribution: Distribution) -> dict[str, float]:
        logs = {
            name: self.sharpness * _log(p) + self.bias.get(name, 0.0)
            for name, p in distribution.items()
        }
        top = max(logs.values())
        raw = {name: exp(value - top) for name, value in logs.items()}
        total = math.fsum(raw.values())
        return {name: value / total for name, value in raw.items()}


def _log(p: float) -> float:
    return ln(max(_LEAST_P, p))
