"""What the learning model sees at the close of a bar, and what it is taught afterwards.

Features of bar t use bars up to t only; its label uses bars t and t + HORIZON_BARS and so is known
only once the latter has closed. Nothing here looks ahead.
"""

from __future__ import annotations

import math

import numpy as np

from ai_bridge.bars import Bars
from ai_bridge.prediction import DECISIONS, NEUTRAL_CUT
from ai_bridge.series import Floats

HORIZON_BARS = 5
LOOKBACK_BARS = 20
NAMES = (
    *(f"return_{lag}" for lag in (1, 2, 4, 8, 16)),
    "z_score",
    "flow_4",
    "flow_16",
    "volume_4",
    "volatility_5",
)
_CLIP = 5.0  # in standard deviations: one bad tick must not dominate


def features(bars: Bars, number: int) -> Floats | None:
    """Describe the market at the close of bar `number`.

    Returns
    -------
    (len(NAMES),) float64 within +-5, or None with fewer than LOOKBACK_BARS + 1 bars up to it or a
    flat price. In order: cumulated log returns over 1, 2, 4, 8 and 16 bars in units of their
    volatility; distance of the log price from its mean in standard deviations; signed share of the
    volume over 4 and 16 bars; log of the recent to the mean volume; log of the recent to the whole
    volatility.
    """
    end = number - bars.first + 1
    start = end - LOOKBACK_BARS - 1
    if start < 0 or end > len(bars):
        return None
    logs = np.log(bars.closes[start:end])
    returns = np.diff(logs)
    sigma = volatility(returns)
    if sigma == 0:
        return None
    volumes, flows = bars.volumes[start + 1 : end], bars.flows[start + 1 : end]
    values = [
        *(float(returns[-lag:].sum()) / (sigma * math.sqrt(lag)) for lag in (1, 2, 4, 8, 16)),
        float((logs[-1] - logs.mean()) / logs.std()),
        _share(flows[-4:], volumes[-4:]),
        _share(flows[-16:], volumes[-16:]),
        _log_ratio(float(volumes[-4:].mean()), float(volumes.mean())),
        _log_ratio(volatility(returns[-5:]), sigma),
    ]
    return np.asarray(np.clip(values, -_CLIP, _CLIP), dtype=np.float64)


def label(bars: Bars, number: int) -> int | None:
    """Which of DECISIONS would have been right at bar `number`, by index.

    The realised log return over HORIZON_BARS counts as buy or sell outside a dead band of
    0.43 times its expected deviation (volatility at `number` times sqrt(HORIZON_BARS)), for which
    a driftless Gaussian walk falls into each class equally often. None while the later bar is
    missing or where `features` is None.
    """
    here = number - bars.first
    if here < LOOKBACK_BARS or here + HORIZON_BARS >= len(bars):
        return None
    logs = np.log(bars.closes[here - LOOKBACK_BARS : here + HORIZON_BARS + 1])
    sigma = volatility(np.diff(logs[: LOOKBACK_BARS + 1]))
    if sigma == 0:
        return None
    band = NEUTRAL_CUT * sigma * math.sqrt(HORIZON_BARS)
    move = float(logs[-1] - logs[LOOKBACK_BARS])
    right = "buy" if move > band else "sell" if move < -band else "hold"
    return DECISIONS.index(right)


def volatility(returns: Floats) -> float:
    """Root mean square of returns: per bar, no drift removed."""
    return math.sqrt(float(np.square(returns).mean()))


def _share(part: Floats, whole: Floats) -> float:
    total = float(whole.sum())
    return float(part.sum()) / total if total else 0.0


def _log_ratio(value: float, reference: float) -> float:
    return math.log(value / reference) if value > 0 and reference > 0 else 0.0
