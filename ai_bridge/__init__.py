"""Many models, one accountable decision.

A `Bridge` asks models a `Question`, pools their votes by configured times learned weight, and its
`Decision` becomes a plain record that `replay` recomputes to the same bits. Outcomes feed the
`Ledger`. Nothing here touches disk, network, clock or torch: that is `ai_bridge.adapters`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_bridge.asking import Guard
    from ai_bridge.bridge import Bridge, Decision
    from ai_bridge.consensus import replay
    from ai_bridge.custom import register
    from ai_bridge.ledger import Ledger
    from ai_bridge.ports import Model, Question
    from ai_bridge.prediction import DECISIONS, Prediction
    from ai_bridge.record import outcome_class, outcome_event
    from ai_bridge.series import Series
    from ai_bridge.settings import ModelSettings

__all__ = [
    "DECISIONS",
    "Bridge",
    "Decision",
    "Guard",
    "Ledger",
    "Model",
    "ModelSettings",
    "Prediction",
    "Question",
    "Series",
    "outcome_class",
    "outcome_event",
    "register",
    "replay",
]

# Loaded when first asked for: the command line needs little of what these need.
_HOMES = {
    "Bridge": "bridge",
    "DECISIONS": "prediction",
    "Decision": "bridge",
    "Guard": "asking",
    "Ledger": "ledger",
    "Model": "ports",
    "ModelSettings": "settings",
    "Prediction": "prediction",
    "Question": "ports",
    "Series": "series",
    "outcome_class": "record",
    "outcome_event": "record",
    "register": "custom",
    "replay": "consensus",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
