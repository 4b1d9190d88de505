"""Decisions and outcomes as they are stored in the log.

A decision is the `data` of an `ai_decision` item. An outcome event holds all that learning needs,
so the weights are a fold over outcome events alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from ai_bridge.conformal import Cover, prediction_set
from ai_bridge.consensus import Consensus, decisions_of, explain
from ai_bridge.errors import InvalidRequest
from ai_bridge.experts import Pooled
from ai_bridge.ports import Question
from ai_bridge.prediction import DECISIONS
from ai_bridge.votes import Vote

# A return within +-5 bp counts as "hold": about the cost of a round trip at a taker's discount fee.
DEAD_BAND = 0.0005


# What learning needs of a decision beside these; records of older versions lack most of it.
_LEARNED_FROM = (
    "late_votes",
    "distribution",
    "prediction_set",
    "coverage",
    "pool",
    "deadline_ms",
    "asked_at",
)


def decision_record(
    question: Question,
    consensus: Consensus,
    votes: list[Vote],
    *,
    decision_id: str,
    context_id: str | None,
    term: int,
    pooled: Pooled,
    cover: Cover | None,
) -> dict[str, Any]:
    """Return a decision as plain data: the API's answer and the body of the stored item.

    `reference` holds the newest price of each symbol when it was decided, and `dead_band` the
    return that separates hold from buy and sell, so that a later return can be judged. `pool` and
    `coverage` are what the distribution and `prediction_set` are made by; without an outcome there
    is no coverage yet.
    """
    maybe = prediction_set(consensus.distribution, cover.threshold) if cover else None
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
        "abstained": maybe is not None and len(maybe) > 1,
        "prediction_set": maybe,
        "coverage": msgspec.to_builtins(cover),
        "pool": msgspec.to_builtins(pooled),
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
    event |= {name: record[name] for name in _LEARNED_FROM if record.get(name) is not None}
    if "return" in payload:
        event["return"] = payload["return"]
    return event


def _reference(question: Question) -> dict[str, dict[str, Any]]:
    return {
        symbol: {
            "price": float(series.prices[-1]),
            "timestamp": float(series.timestamps[-1]),
            "source": series.source,
        }
        for symbol, series in question.window.items()
        if len(series)
    }


def _refuse(field: str, value: object, problem: str) -> InvalidRequest:
    message = f"{field} {problem}, got {value!r}"
    return InvalidRequest(message, [{"index": 0, "field": field, "message": message}])
