"""What live delivery counts in one web process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class DeliveryMetrics:
    """Each change of a follower between live, behind, conflated and cut is counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        changes = Counter(
            "context_delivery_changes",
            "Followers that came to be: behind, live again, conflated, told of a gap as too slow, "
            "cut as stalled",
            ["to"],
            registry=registry,
        )
        self.to_behind = changes.labels("behind")
        self.to_live = changes.labels("live")
        self.to_conflated = changes.labels("conflated")
        self.to_gap = changes.labels("gap")
        self.to_stalled = changes.labels("stalled")
        self.folded = Counter(
            "context_delivery_folded_items",
            "Items left out for newer ones of the same symbol",
            registry=registry,
        )
        self.frames = Counter(
            "context_delivery_frames", "Frames sent to followers that are live", registry=registry
        )
        self.rounds = Histogram(
            "context_delivery_round_seconds",
            "Time to send what is new to all who are live",
            registry=registry,
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1),
        )
