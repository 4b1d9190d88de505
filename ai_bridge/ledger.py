"""Everything that outcomes taught, as a fold over the log.

The same outcomes in the same order give the same bits on every node and after any restart. An
outcome that comes back for a decision already judged changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ai_bridge.backoff import Backoff
from ai_bridge.calibration import READY, Calibration
from ai_bridge.conformal import Conformal
from ai_bridge.consensus import cover_of, decisions_of, pool, pooled_of, votes_of
from ai_bridge.errors import InvalidRecord
from ai_bridge.experts import (
    CONFIGURED,
    POT,
    UNIFORM,
    Pooled,
    Rule,
    attributed,
    calibrated,
    counting,
    experts,
    own,
    prior,
)
from ai_bridge.regret import Regrets, Round
from ai_bridge.votes import Vote
from ai_bridge.weights import Distribution, brier

SEVERAL = "*"  # stands for the symbol of decisions on several at once


class Score(msgspec.Struct, frozen=True):
    """Running Brier loss of one model over the outcomes it had voted on."""

    count: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float | None:
        """Mean Brier loss, 0 best to 2 worst (a uniform guess: 2/3); None before any outcome."""
        return self.total / self.count if self.count else None


class Ledger:
    """Weights, regret, calibration and coverage, as far as outcomes tell."""

    def __init__(self) -> None:
        self.weights = Backoff(prior, POT)
        self.regrets = Regrets(self.weights)
        self.calibrations: dict[str, Calibration] = {}
        self.conformal = Conformal()
        self.consensus = Calibration()  # of the decisions themselves
        self.scores: dict[str, Score] = {}
        self.judged: dict[str, str] = {}  # what each decision was judged by, in order

    @property
    def outcomes(self) -> int:
        """How many decisions have been judged."""
        return len(self.judged)

    def outcome_of(self, decision_id: str) -> str | None:
        """Return the outcome a decision was judged by, or None."""
        return self.judged.get(decision_id)

    def weight(self, model: str) -> float:
        """Learned weight of a model over all symbols; it begins at 1."""
        whole = self.weights.whole
        return whole.weight(model) + whole.weight(calibrated(model))

    def parts(self, symbol: str, configured: Mapping[str, float]) -> dict[str, float]:
        """Each model's part of a decision on a symbol in which all of them vote."""
        ready = {name: each.count >= READY for name, each in self.calibrations.items()}
        votes = [
            Vote(
                model=name,
                status="ok",
                distribution={},
                calibrated={} if ready.get(name) else None,
            )
            for name in configured
        ]
        counted = counting(votes, configured)
        if not counted:
            return {}
        shares = self.weights.shares(symbol, [*own(counted), CONFIGURED, UNIFORM])
        return attributed(counted, configured, shares)

    def calibrated(self, vote: Vote) -> Vote:
        """The vote with what its distribution has been worth, where that is known."""
        found = self.calibrations.get(vote.model)
        if found is None or vote.status != "ok" or vote.distribution is None:
            return vote
        return msgspec.structs.replace(vote, calibrated=found.apply(vote.distribution))

    def pooled(
        self,
        votes: Sequence[Vote],
        configured: Mapping[str, float],
        symbols: Sequence[str],
        rule: Rule,
    ) -> Pooled:
        """By what to pool these votes now; they need not count."""
        counted = counting(votes, configured)
        names = [*own(counted), CONFIGURED, UNIFORM]
        whole, symbol = self.weights.mixings(symbol_of(symbols), names)
        return Pooled(rule=rule, configured=dict(configured), whole=whole, symbol=symbol)

    def apply(self, record: Mapping[str, Any], outcome: str) -> None:
        """Learn from one outcome; a repeat changes nothing.

        Parameters
        ----------
        record : a decision, or the event that `outcome_event` makes of one: `decision_id`,
            `votes`, and, where there are any, `late_votes`, `decisions`, `pool` and so on
        outcome : one of the decisions (DECISIONS where the record names none)

        Raises
        ------
        InvalidRecord
            The record has no decision_id or no readable votes, or the outcome is none of them.
        """
        decision_id = record.get("decision_id")
        if not isinstance(decision_id, str) or outcome not in decisions_of(record):
            raise InvalidRecord(f"cannot judge decision {decision_id!r} by outcome {outcome!r}")
        if decision_id in self.judged:
            return
        votes, late = votes_of(record), votes_of(record, "late_votes")
        self._weigh(record, votes, late, outcome)
        for vote in [*votes, *late]:
            if vote.status == "ok" and vote.distribution is not None:
                self._score(vote.model, vote.distribution, outcome)
        self.judged[decision_id] = outcome

    def _weigh(
        self, record: Mapping[str, Any], votes: list[Vote], late: list[Vote], outcome: str
    ) -> None:
        """Weights, regret and coverage."""
        pooled = pooled_of(record)
        configured = _configured(votes) if pooled is None else pooled.configured
        counted = counting(votes, configured)
        if not counted:
            return  # somebody made the record: nothing was pooled
        said = experts(counted, configured)
        losses = {name: brier(each, outcome) for name, each in said.items()}
        late_losses = {
            name: (brier(each, outcome), importance(record, vote))
            for vote in counting(late, configured)
            for name, each in own([vote]).items()
        }
        symbol = symbol_of(record.get("symbols", []))
        delay = self._note_delay(symbol, pooled)
        given = record.get("distribution") or pool(votes, pooled).distribution
        loss = brier(given, outcome)
        mixed = self.weights.learn(symbol, losses, late_losses, loss)
        self.regrets.add(symbol, Round(loss, mixed, delay, losses, late_losses))
        self.consensus.learn(given, outcome)
        cover = cover_of(record)
        stated = (cover.target, list(record.get("prediction_set", []))) if cover else None
        at = float(record.get("asked_at", 0.0))
        self.conformal.learn(given, outcome, at=at, given=stated)

    def _note_delay(self, symbol: str, pooled: Pooled | None) -> int:
        """How many outcomes came between; records of older versions do not tell."""
        if pooled is None or pooled.whole is None or pooled.symbol is None:
            return 0
        over_all = self.weights.whole.rounds - pooled.whole.outcomes
        here = self.weights.rounds(symbol) - pooled.symbol.outcomes
        self.weights.note_delay(symbol, over_all, here)
        return over_all

    def _score(self, model: str, distribution: Distribution, outcome: str) -> None:
        before = self.scores.get(model, Score())
        loss = brier(distribution, outcome)
        self.scores[model] = Score(before.count + 1, before.total + loss)
        self.calibrations.setdefault(model, Calibration()).learn(distribution, outcome)


def symbol_of(symbols: Sequence[str]) -> str:
    """What a decision's weights are kept under."""
    return symbols[0] if len(symbols) == 1 else SEVERAL


def importance(record: Mapping[str, Any], vote: Vote) -> float:
    """How much a late vote teaches: the deadline divided by the time it took, at most 1.

    So it falls from 1 without a step: a model that is hardly ever in time is of little use.
    """
    deadline = record.get("deadline_ms")
    if deadline is None or not vote.latency_ms > deadline:
        return 1.0
    return float(deadline) / vote.latency_ms


def _configured(votes: Sequence[Vote]) -> dict[str, float]:
    """Of records that do not hold it: whoever had weight, or was late, counts alike."""
    return {v.model: 1.0 if v.weight > 0 or v.status == "timeout" else 0.0 for v in votes}
