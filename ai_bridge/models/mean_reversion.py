"""Mean reversion: a price that is pulled back to its mean returns to it.

Fits the Ornstein-Uhlenbeck process in its discrete form x[k+1] = m + phi (x[k] - m) + s e by least
squares on the log price grid. Least squares finds phi too small, hence reversion where there is
none, by about (1 + 3 phi) / n; that much is added back. With phi below 1 the expected return over
H steps and its standard deviation are

    E = -(x - m) (1 - phi^H),    D = s sqrt((1 - phi^(2H)) / (1 - phi^2)),    score = E / D

and `ordered_probit` turns the score into probabilities. With phi at 1 or above the window shows no
reversion and the model abstains.

References
----------
Uhlenbeck & Ornstein (1930), Phys. Rev. 36; Vasicek (1977), J. Financial Economics 5.
Kendall (1954), Note on bias in the estimation of autocorrelation, Biometrika 41.
"""

from __future__ import annotations

import math

import numpy as np

from ai_bridge.errors import Abstained
from ai_bridge.models.window import GRID_STEPS, HORIZON, WindowModel, log_price_grid
from ai_bridge.prediction import Prediction, ordered_probit
from ai_bridge.series import Floats, Series

STEPS_AHEAD = int(GRID_STEPS * HORIZON)


def judge(series: Series) -> Prediction:
    """Predict the return to the mean of a fitted Ornstein-Uhlenbeck process."""
    grid = log_price_grid(series)
    mean, phi, noise = fit(grid)
    if phi >= 1 or noise == 0:
        raise Abstained(f"{series.symbol}: no mean reversion in the window (phi {phi:.3f})")
    phi = max(phi, 0.0)
    away = float(grid[-1]) - mean
    expected = -away * (1 - phi**STEPS_AHEAD)
    spread = noise * math.sqrt((1 - phi ** (2 * STEPS_AHEAD)) / (1 - phi**2))
    reasoning = (
        f"{series.symbol} is {1e4 * away:+.1f} bp from its mean, "
        f"expected to return {1e4 * expected:+.1f} bp (phi {phi:.3f})"
    )
    return Prediction(ordered_probit(expected / spread), reasoning)


def fit(grid: Floats) -> tuple[float, float, float]:
    """Return mean, bias-corrected phi and noise (standard deviation a step) of log prices."""
    before, after = grid[:-1], grid[1:]
    mean = float(grid.mean())
    centred = before - before.mean()
    total = float(centred @ centred)
    if total == 0:
        return mean, 1.0, 0.0
    slope = float(centred @ (after - after.mean())) / total
    residuals = (after - after.mean()) - slope * centred
    noise = math.sqrt(float(np.square(residuals).sum()) / (len(before) - 2))
    return mean, slope + (1 + 3 * slope) / len(before), noise


def mean_reversion() -> WindowModel:
    """Build the mean reversion model."""
    return WindowModel("mean_reversion", judge)
