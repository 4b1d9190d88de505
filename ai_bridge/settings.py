"""What a user may set about each model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from ai_bridge.errors import InvalidRequest

MAX_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Settings of one model, checked on creation.

    `weight` >= 0 (0: votes are recorded but do not count), `min_confidence` 0..1 (below it a vote
    becomes an abstention), `timeout_s` above 0 up to 60 (the decision's own deadline still cuts),
    `concurrency` 1..64 (questions at a time to a model outside this process).
    """

    weight: float = 1.0
    enabled: bool = True
    min_confidence: float = 0.0
    timeout_s: float = MAX_TIMEOUT_S
    concurrency: int = 4

    def __post_init__(self) -> None:
        _require("weight", self.weight, 0 <= self.weight < math.inf, "a finite number >= 0")
        _require("min_confidence", self.min_confidence, 0 <= self.min_confidence <= 1, "in 0..1")
        fits = 0 < self.timeout_s <= MAX_TIMEOUT_S
        _require("timeout_s", self.timeout_s, fits, f"above 0 and at most {MAX_TIMEOUT_S:g}")
        _require("concurrency", self.concurrency, 1 <= self.concurrency <= 64, "in 1..64")

    def changed(self, **changes: Any) -> ModelSettings:
        """Return a copy with the changes that are not None, checked."""
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(self, **given)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values to store or to show."""
        return asdict(self)


def _require(field: str, value: float, fits: bool, allowed: str) -> None:
    if not fits:
        message = f"{field} must be {allowed}, got {value!r}"
        raise InvalidRequest(message, [{"index": 0, "field": field, "message": message}])
