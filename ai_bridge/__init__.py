"""Many models, one accountable decision.

A `Bridge` asks models a `Question`, pools their votes by configured times learned weight, and its
`Decision` becomes a plain record that `replay` recomputes to the same bits. Outcomes feed the
`Ledger`. Nothing here touches disk, network, clock or torch: that is `ai_bridge.adapters`.
"""

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
