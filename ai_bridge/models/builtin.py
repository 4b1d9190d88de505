"""The models that every node has without configuration: add one by its line here."""

from __future__ import annotations

from ai_bridge.models.mean_reversion import mean_reversion
from ai_bridge.models.momentum import momentum
from ai_bridge.models.order_flow import order_flow
from ai_bridge.models.window import WindowModel

BUILTIN = (momentum, mean_reversion, order_flow)


def builtin_models() -> list[WindowModel]:
    """Build one of each."""
    return [build() for build in BUILTIN]
