"""A model for `bench.trading` that always buys: what is measured is what comes after a decision."""

from __future__ import annotations

from typing import Any

from ai_bridge.custom import register


@register
class Buyer:
    """Buys, with a confidence of 0.9."""

    def decide(self, question: dict[str, Any]) -> dict[str, float]:
        """Always the same distribution."""
        return {"buy": 0.9, "sell": 0.05, "hold": 0.05}
