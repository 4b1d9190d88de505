"""What the bridge observed of each model while asking it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Any

from ai_bridge.latency import Latencies
from ai_bridge.votes import Vote

LATENCY_MS = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0)
_HEALTH = {"ok": "ok", "abstained": "ok", "timeout": "failing", "error": "failing"}


class ModelStats:
    """Counts and latencies of one model since this process started."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.late = 0
        self.latency_total_ms = 0.0
        self.newest = Latencies()
        self.within = [0] * (len(LATENCY_MS) + 1)  # votes by latency, the last without a bound
        self.latency_last_ms: float | None = None
        self.last_status: str | None = None
        self.last_reason = ""

    def note(self, vote: Vote) -> None:
        """Count one vote."""
        self.counts[vote.status] += 1
        self.latency_total_ms += vote.latency_ms
        self.latency_last_ms = vote.latency_ms
        self.within[bisect_left(LATENCY_MS, vote.latency_ms)] += 1
        if vote.status in ("ok", "abstained"):
            self.newest.add(vote.latency_ms)
        self.last_status = vote.status
        self.last_reason = vote.reasoning

    @property
    def health(self) -> str:
        """`unknown` before the first question, then by the last: ok, failing or unavailable."""
        if self.last_status is None:
            return "unknown"
        return _HEALTH.get(self.last_status, self.last_status)

    def as_dict(self) -> dict[str, Any]:
        """Return health, counts by status and latency in milliseconds."""
        asked = self.counts.total()
        return {
            "health": self.health,
            "last_reason": self.last_reason,
            "counts": dict(self.counts),
            "late_votes": self.late,
            "latency_ms": {
                "mean": self.latency_total_ms / asked if asked else None,
                "last": self.latency_last_ms,
                "p50": self.newest.percentile(0.5),
                "p99": self.newest.percentile(0.99),
            },
        }
