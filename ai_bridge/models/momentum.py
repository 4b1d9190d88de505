"""Momentum: a drift that stands out from the noise goes on.

With returns r_i over the window, the drift's t statistic is the self-normalised sum
t = sum(r) / sqrt(sum(r^2)): about N(0, 1) for a driftless walk, however its volatility changes or
its ticks are spaced. If the drift persists over a horizon of h windows, the coming return in units
of its own standard deviation is expected to be

    score = t * sqrt(h) / sqrt(1 + h)

where 1 + h accounts for the drift being an estimate. `ordered_probit` turns it into probabilities.

References
----------
Moskowitz, Ooi & Pedersen (2012), Time series momentum, J. Financial Economics 104.
de la Pena, Lai & Shao (2009), Self-Normalized Processes, Springer.
"""

from __future__ import annotations

import math

import numpy as np

from ai_bridge.models.window import HORIZON, WindowModel, log_price_grid
from ai_bridge.prediction import Prediction, ordered_probit
from ai_bridge.series import Series


def judge(series: Series) -> Prediction:
    """Predict that the window's drift, as far as it is significant, goes on."""
    returns = np.diff(log_price_grid(series))
    t = float(returns.sum() / math.sqrt(float(np.square(returns).sum())))
    score = t * math.sqrt(HORIZON / (1 + HORIZON))
    move = 1e4 * float(returns.sum())
    reasoning = f"{series.symbol} moved {move:+.1f} bp over the window, drift t = {t:+.2f}"
    return Prediction(ordered_probit(score), reasoning)


def momentum() -> WindowModel:
    """Build the momentum model."""
    return WindowModel("momentum", judge)
