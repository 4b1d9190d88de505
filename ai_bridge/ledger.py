"""Everything that outcomes taught, as a fold over the log.

The same outcomes in the same order give the same weights on every node and after any restart.
An outcome that comes back for a decision already judged changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ai_bridge.consensus import decisions_of, votes_of
from ai_bridge.errors import InvalidRecord
from ai_bridge.weights import NEW_WEIGHT, Weights, brier, update


class Score(msgspec.Struct, frozen=True):
    """Running Brier loss of one model over the outcomes it had voted on."""

    count: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float | None:
        """Mean Brier loss, 0 best to 2 worst (a uniform guess: 2/3); None before any outcome."""
        return self.total / self.count if self.count else None


class Ledger:
    """Learned weights and scores of every model that outcomes have judged."""

    def __init__(self) -> None:
        self.weights: Weights = {}
        self.scores: dict[str, Score] = {}
        self._judged: dict[str, str] = {}

    def outcome_of(self, decision_id: str) -> str | None:
        """Return the outcome a decision was judged by, or None."""
        return self._judged.get(decision_id)

    def weight(self, model: str) -> float:
        """Learned weight of a model; 1 is the mean."""
        return self.weights.get(model, NEW_WEIGHT)

    def apply(self, record: Mapping[str, Any], outcome: str) -> Weights:
        """Learn from one outcome and return the weights; a repeat returns them unchanged.

        Parameters
        ----------
        record : a decision, or the event that `outcome_event` makes of one: `decision_id`,
            `votes`, and, where there are any, `late_votes` and `decisions`
        outcome : one of the decisions (DECISIONS where the record names none)

        Raises
        ------
        InvalidRecord
            The record has no decision_id or no readable votes, or the outcome is none of them.
        """
        decision_id = record.get("decision_id")
        if not isinstance(decision_id, str) or outcome not in decisions_of(record):
            raise InvalidRecord(f"cannot judge decision {decision_id!r} by outcome {outcome!r}")
        if decision_id in self._judged:
            return self.weights
        votes = {
            vote.model: vote.distribution
            for vote in [*votes_of(record), *votes_of(record, "late_votes")]
            if vote.status == "ok" and vote.distribution is not None
        }
        self.weights = update(self.weights, votes, outcome)
        for model, distribution in votes.items():
            before = self.scores.get(model, Score())
            loss = brier(distribution, outcome)
            self.scores[model] = Score(before.count + 1, before.total + loss)
        self._judged[decision_id] = outcome
        return self.weights
