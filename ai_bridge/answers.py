"""What a language model wrote, read strictly as a vote.

The whole answer is one JSON object:

    {"decision": "buy", "confidence": 0.6,
     "distribution": {"buy": 0.6, "sell": 0.1, "hold": 0.3}, "reasoning": "..."}

Allowed around it: white space, one Markdown fence, and the `<think>` part that reasoning models
begin with. Anything else is refused with a sentence that the model can be shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from ai_bridge.errors import InvalidPrediction
from ai_bridge.prediction import TIE_TOLERANCE, Prediction

MAX_REASONING_CHARS = 1000
# Models write rounded decimals: 0.33 three times is meant as a distribution.
ROUNDING = 0.02
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The object that a model has to write."""

    decision: str
    confidence: _Share
    distribution: dict[str, _Share] | None = None
    reasoning: str = ""


_decode = msgspec.json.Decoder(Answer).decode


def parse_answer(text: str, decisions: Sequence[str]) -> Prediction:
    """Read an answer; raises InvalidPrediction saying what is wrong with it."""
    try:
        answer = _decode(_bare(text).encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as wrong:
        raise InvalidPrediction(f"the answer is not the JSON object asked for: {wrong}") from wrong
    return _prediction(answer, decisions)


def from_mapping(answer: Mapping[str, Any], decisions: Sequence[str]) -> Prediction:
    """Read an answer that is a mapping already, by the same rules."""
    try:
        read = msgspec.convert(dict(answer), Answer)
    except msgspec.ValidationError as wrong:
        raise InvalidPrediction(f"the answer has a wrong shape: {wrong}") from wrong
    return _prediction(read, decisions)


def schema(decisions: Sequence[str]) -> dict[str, Any]:
    """JSON Schema of an answer, within what strict structured outputs allow."""
    share = {"type": "number"}
    return {
        "type": "object",
        "properties": {
            "reasoning": {"type": "string"},
            "decision": {"type": "string", "enum": list(decisions)},
            "confidence": share,
            "distribution": {
                "type": "object",
                "properties": dict.fromkeys(decisions, share),
                "required": list(decisions),
                "additionalProperties": False,
            },
        },
        "required": ["reasoning", "decision", "confidence", "distribution"],
        "additionalProperties": False,
    }


def _bare(text: str) -> str:
    """The text without what is allowed around it, in time that grows with its length only."""
    text = text.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].strip()
    if text.startswith("```") and text.endswith("```"):
        language, _, fenced = text[3:-3].partition("\n")
        if language.strip() in ("", "json"):
            return fenced.strip()
    return text


def _prediction(answer: Answer, decisions: Sequence[str]) -> Prediction:
    if answer.decision not in decisions:
        listed = ", ".join(decisions)
        raise InvalidPrediction(f"decision {answer.decision[:40]!r} is not one of {listed}")
    if answer.distribution is None:
        distribution = _spread(answer, decisions)
    else:
        distribution = _normal(answer, answer.distribution, decisions)
    reasoning = " ".join(answer.reasoning.split())[:MAX_REASONING_CHARS]
    return Prediction(distribution, reasoning, tuple(decisions))


def _spread(answer: Answer, decisions: Sequence[str]) -> dict[str, float]:
    """Give the other decisions equal shares of what the confidence leaves."""
    least = 1 / len(decisions)
    if answer.confidence < least - ROUNDING:
        raise InvalidPrediction(
            f"confidence {answer.confidence:g} contradicts the decision: it is the probability of "
            f"{answer.decision}, the most probable of {len(decisions)}, so at least {least:.3g}"
        )
    confidence = max(answer.confidence, least)
    rest = (1 - confidence) / (len(decisions) - 1)
    return {name: confidence if name == answer.decision else rest for name in decisions}


def _normal(
    answer: Answer, shares: Mapping[str, float], decisions: Sequence[str]
) -> dict[str, float]:
    if set(shares) != set(decisions):
        raise InvalidPrediction(f"distribution names {sorted(shares)}, not {sorted(decisions)}")
    total = math.fsum(shares.values())
    if abs(total - 1) > ROUNDING:
        raise InvalidPrediction(f"the distribution sums to {total:g}, not to 1")
    said = shares[answer.decision]
    if said < max(shares.values()) - TIE_TOLERANCE:
        raise InvalidPrediction(f"{answer.decision} is not the most probable of the distribution")
    if abs(said - answer.confidence) > ROUNDING:
        raise InvalidPrediction(
            f"confidence {answer.confidence:g} is not the probability {said:g} of the decision"
        )
    return {name: shares[name] / total for name in decisions}
