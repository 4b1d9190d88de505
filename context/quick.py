"""The rules of the built-in types in the words of msgspec, which checks them while it decodes.

A quick yes only: what passes here passes `context.types` too, and what does not is asked there,
where the answer says what is wrong. Fields that no rule names are read over, not decoded.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from context.heads import Head

_AtLeastZero = Annotated[float, Meta(ge=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class _Object(Struct, gc=False):
    """Any object."""


class _Trade(Struct, gc=False):
    symbol: Annotated[str, Meta(min_length=1)]
    price: _AtLeastZero
    volume: _AtLeastZero = 0.0


class _Tensor(Struct, gc=False):
    calculation_id: str | int
    result: msgspec.Raw
    hash_value: str = ""
    context_meaning: str = ""
    confidence: _Share = 0.0
    symbol: Any = None


class _Decision(Struct, gc=False):
    decision: str
    model: str = ""
    decision_id: str = ""
    impact: float = 0.0
    reasoning: str = ""
    confidence: _Share = 0.0
    symbol: Any = None

    def __post_init__(self) -> None:
        if not (self.model or self.decision_id):
            raise ValueError("neither model nor decision_id")


class _Health(Struct, gc=False):
    symbol: Any = None


class _Line(Struct, gc=False, kw_only=True, tag_field="type"):
    source: str
    timestamp: Annotated[float, Meta(ge=-1e11, le=1e11)]
    metadata: _Object | UnsetType = UNSET


class _TradeLine(_Line, kw_only=True, gc=False, tag="trading_data"):
    type: ClassVar[str] = "trading_data"
    data: _Trade


class _TensorLine(_Line, kw_only=True, gc=False, tag="tensor_math"):
    type: ClassVar[str] = "tensor_math"
    data: _Tensor


class _DecisionLine(_Line, kw_only=True, gc=False, tag="ai_decision"):
    type: ClassVar[str] = "ai_decision"
    data: _Decision


class _HealthLine(_Line, kw_only=True, gc=False, tag="system_health"):
    type: ClassVar[str] = "system_health"
    data: _Health


_decode_lines = msgspec.json.Decoder(
    _TradeLine | _TensorLine | _DecisionLine | _HealthLine
).decode_lines


def known(text: bytes) -> list[Head] | None:
    """The heads of lines that are all good; None where that is not certain.

    It does not see whether `data` is empty: ask only where no object is.
    """
    try:
        lines: list[Head] = _decode_lines(text)
    except (msgspec.ValidationError, ValueError):
        return None
    return lines
