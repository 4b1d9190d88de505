"""Decisions and outcomes as they are stored in the log.

A decision is the `data` of an `ai_decision` item. An outcome event holds all that learning needs,
so the weights are a fold over outcome events alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ai_bridge.consensus import Consensus, decisions_of, explain
from ai_bridge.errors import InvalidRequest
from ai_bridge.ports import Question
from ai_bridge.prediction import DECISIONS
from ai_bridge.votes import Vote

# A return within +-5 bp counts as "hold": about the cost of a round trip at a taker's discount fee.
DEAD_BAND = 0.0005


def decision_record(
    question: Question,
    consensus: Consensus,
    votes: list[Vote],
    *,
    decision_id: str,
    context_id: str | None,
    term: int,
) -> dict[str, Any]:
    """Return a decision as plain data: the API's answer and the body of the stored item.

    `reference` holds the newest price of each symbol when it was decided, and `dead_band` the
    return that separates hold from buy and sell, so that a later return can be judged.
    """
    return {
        "decision_id": decision_id,
        "model": "consensus",
        "decision": consensus.final_decision,
        "final_decision": consensus.final_decision,
        "confidence": consensus.confidence,
        "distribution": consensus.distribution,
        "agreement": consensus.agreement,
        "reasoning": explain(consensus, votes),
        "votes": [vote.as_dict() for vote in votes],
        "context_id": context_id,
        "term": term,
        "abstained": False,
        "decisions": list(question.decisions),
        "symbols": list(question.symbols),
        "asked_at": question.now,
        "reference": _reference(question),
        "dead_band": DEAD_BAND,
    }


def outcome_class(payload: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return which decision turned out right.

    Parameters
    ----------
    payload : `{"outcome": one of the decisions}` or `{"return": fraction}`, exactly one of them
    record : the decision; its `dead_band` turns a return into buy (above), sell (below) or hold,
        which needs a decision between just these

    Raises
    ------
    InvalidRequest
        Names the field and its value.
    """
    if len(payload) != 1 or not payload.keys() <= {"outcome", "return"}:
        raise _refuse("outcome", sorted(payload), 'give either "outcome" or "return"')
    decisions = decisions_of(record)
    if "outcome" in payload:
        outcome = payload["outcome"]
        if outcome not in decisions:
            raise _refuse("outcome", outcome, f"must be one of {', '.join(decisions)}")
        return str(outcome)
    value = payload["return"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refuse("return", value, "must be a finite number")
    if set(decisions) != set(DECISIONS):
        raise _refuse("return", value, "judges only decisions between buy, sell and hold")
    band = float(record.get("dead_band", DEAD_BAND))
    return "buy" if value > band else "sell" if value < -band else "hold"


def outcome_event(record: Mapping[str, Any], payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event to store for an outcome: `Ledger.apply(event, event["outcome"])` learns it.

    Raises InvalidRequest as `outcome_class` does.
    """
    event = {
        "decision_id": record["decision_id"],
        "outcome": outcome_class(payload, record),
        "final_decision": record["final_decision"],
        "symbols": record.get("symbols", []),
        "decisions": decisions_of(record),
        "votes": record["votes"],
    }
    if record.get("late_votes"):
        event["late_votes"] = record["late_votes"]
    if "return" in payload:
        event["return"] = payload["return"]
    return event


def _reference(question: Question) -> dict[str, dict[str, float]]:
    return {
        symbol: {"price": float(series.prices[-1]), "timestamp": float(series.timestamps[-1])}
        for symbol, series in question.window.items()
        if len(series)
    }


def _refuse(field: str, value: object, problem: str) -> InvalidRequest:
    message = f"{field} {problem}, got {value!r}"
    return InvalidRequest(message, [{"index": 0, "field": field, "message": message}])
