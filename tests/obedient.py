"""A model that answers what the question's context says, for tests of what comes after a decision.

A node loads it with `CONTEXT_MODEL_MODULES=tests.obedient`.
"""

from __future__ import annotations

from typing import Any

from ai_bridge.custom import register


@register
class Obedient:
    """Says what it is told, with a confidence of 0.9."""

    def decide(self, question: dict[str, Any]) -> dict[str, Any]:
        """The distribution that the context asks for."""
        said = question["context"].get("say", "hold")
        return {name: 0.9 if name == said else 0.05 for name in ("buy", "sell", "hold")}
