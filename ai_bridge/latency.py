"""How long a model takes, and what follows from it: when to try twice, when to call it dead."""

from __future__ import annotations

import math
from collections import deque

KEPT = 256
MIN_SAMPLES = 8  # below, a percentile says nothing
# A second try costs the model another question: at most every tenth may be one, after a first
# allowance. As in gRPC's retry throttling.
TRIES_A_QUESTION = 0.1
MAX_TRIES_SAVED = 5.0
FIRST_PATIENCE_S = 5.0
MIN_PATIENCE_S = 1.0
PATIENCE = 3.0


class Latencies:
    """The newest answers' seconds, and the allowance of second tries."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=KEPT)
        self._allowance = 1.0

    def add(self, seconds: float) -> None:
        """Note how long an answer took."""
        self._newest.append(seconds)

    def percentile(self, share: float) -> float | None:
        """Seconds within which this share of the newest answers came (nearest rank)."""
        if not self._newest:
            return None
        ranked = sorted(self._newest)
        return ranked[max(0, math.ceil(share * len(ranked)) - 1)]

    def hedge_after_s(self) -> float | None:
        """When to try a second time (p95), or None where too little is known."""
        self._allowance = min(self._allowance + TRIES_A_QUESTION, MAX_TRIES_SAVED)
        return self.percentile(0.95) if len(self._newest) >= MIN_SAMPLES else None

    def spend(self) -> bool:
        """Take a second try out of the allowance; False where it is used up."""
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def patience_s(self) -> float:
        """How long without an answer counts as a failure, whatever the asker's own deadline is."""
        usual = self.percentile(0.95)
        return FIRST_PATIENCE_S if usual is None else max(MIN_PATIENCE_S, PATIENCE * usual)
