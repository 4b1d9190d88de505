"""Two classes of a user for `bench.chain`, in the node's own process beside the built-in models."""

from __future__ import annotations

from typing import Any

import numpy as np

import ai_bridge


@ai_bridge.register
class LastTick:
    """The last change goes on, a little."""

    pure = True

    def decide(self, context: dict[str, Any]) -> dict[str, float]:
        """By the sign of the newest change."""
        prices = next(iter(context["window"].values()))["prices"]
        moved = float(np.sign(prices[-1] - prices[-2]))
        return {"buy": 0.33 + 0.1 * moved, "sell": 0.33 - 0.1 * moved, "hold": 0.34}


@ai_bridge.register
class Range:
    """What stands high in its range falls."""

    pure = True

    def decide(self, context: dict[str, Any]) -> dict[str, float]:
        """By the place of the newest price in the window."""
        prices = next(iter(context["window"].values()))["prices"]
        low, high = float(prices.min()), float(prices.max())
        place = (float(prices[-1]) - low) / (high - low) if high > low else 0.5
        return {"buy": 0.5 * (1 - place), "sell": 0.5 * place, "hold": 0.5}
