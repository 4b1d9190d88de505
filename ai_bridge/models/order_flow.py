"""Order flow: after the takers' imbalance, the price moves as it did so far in this window.

The window is cut into equal steps; b_k is a step's volume signed by the taker's side and r_k its
log return. The effect of an imbalance on the *next* step is estimated from the window itself by
least squares through the origin, beta = sum(b_k r_{k+1}) / sum(b_k^2) with residual deviation s.
For the imbalance b of the newest step the next return is expected to be

    E = beta b,    D = s sqrt(1 + b^2 / sum(b_k^2)),    score = E / D

(D is the usual deviation of a regression forecast) and `ordered_probit` does the rest. Whether flow
continues or reverts is thus measured, not assumed. Without sides the model abstains.

References
----------
Cont, Kukanov & Stoikov (2014), The price impact of order book events, J. Financial Econometrics 12.
Chordia & Subrahmanyam (2004), Order imbalance and individual stock returns, JFE 72.
"""

from __future__ import annotations

import math

import numpy as np

from ai_bridge.errors import Abstained
from ai_bridge.models.window import MIN_POINTS, WindowModel, event_times, log_price_grid
from ai_bridge.prediction import Prediction, ordered_probit
from ai_bridge.series import Floats, Series

STEPS = 32


def judge(series: Series) -> Prediction:
    """Predict the next step's return from the newest step's signed volume."""
    flows = step_flows(series)
    returns = np.diff(log_price_grid(series, STEPS))
    known, latest = flows[:-1], float(flows[-1])
    energy = float(known @ known)
    if energy == 0:
        raise Abstained(f"{series.symbol}: no signed volume before the newest step")
    beta = float(known @ returns[1:]) / energy
    residuals = returns[1:] - beta * known
    noise = math.sqrt(float(residuals @ residuals) / (len(known) - 1))
    if noise == 0:
        raise Abstained(f"{series.symbol}: the window has no noise to measure against")
    expected = beta * latest
    score = expected / (noise * math.sqrt(1 + latest**2 / energy))
    reasoning = (
        f"{series.symbol} takers' net volume is {latest:+.4g}, "
        f"after which {1e4 * expected:+.2f} bp are expected"
    )
    return Prediction(ordered_probit(score), reasoning)


def step_flows(series: Series) -> Floats:
    """Signed volume of each of STEPS equal steps, the newest last.

    Raises Abstained below MIN_POINTS points whose taker is known.
    """
    signed = int(np.count_nonzero(series.sides * series.volumes))
    if signed < MIN_POINTS:
        raise Abstained(f"{series.symbol}: {signed} trades with a known taker, needs {MIN_POINTS}")
    times = event_times(series)
    edges = np.linspace(times[0], times[-1], STEPS + 1)
    # Steps are open on the left as the price grid is: a point at an edge is known at that edge.
    places = np.clip(np.searchsorted(edges, times, side="left") - 1, 0, STEPS - 1)
    flows = np.bincount(places, weights=series.volumes * series.sides, minlength=STEPS)
    return np.asarray(flows, dtype=np.float64)


def order_flow() -> WindowModel:
    """Build the order flow model."""
    return WindowModel("order_flow", judge)
