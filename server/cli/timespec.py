"""Moments as people write them: unix seconds, ISO 8601, or how long ago."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO = re.compile(r"-(\d+(?:\.\d+)?)([smhdw])")
ALLOWED = "unix seconds, ISO 8601 such as 2024-08-08T23:55:00Z, or a time ago such as -15m"


def parse_moment(text: str, now: float) -> float:
    """Unix seconds of a moment; ISO 8601 without an offset is UTC.

    Raises ValueError saying what is allowed.
    """
    ago = _AGO.fullmatch(text)
    if ago:
        return now - float(ago[1]) * _UNIT_S[ago[2]]
    try:
        seconds = float(text)
    except ValueError:
        seconds = _from_iso(text)
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is not {ALLOWED}")
    return seconds


def _from_iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not {ALLOWED}") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def show_moment(seconds: float) -> str:
    """UTC to the millisecond, readable and in sorting order."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.3f}"
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
