"""What the agent measures of itself, for Prometheus and for `stats`."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LAG_PROBE_S = 0.1
_LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class Rates:
    """Items per second over the last 10 and 60 seconds."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque(maxlen=61)

    def add(self, now: float, count: int) -> None:
        """Count items that came at unix second `now`."""
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))

    def per_second(self, now: float, over_s: int) -> float:
        """Mean rate over the whole seconds before `now`."""
        last = int(now)
        recent = sum(n for second, n in self._seconds if last - over_s <= second < last)
        return recent / over_s


class AgentMetrics:
    """The agent's registry; `expose` gives Prometheus text."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rates = Rates()
        self.calls = Histogram(
            "context_agent_call_seconds",
            "Time of one call in the agent",
            ["method", "status"],
            registry=self.registry,
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
        )
        self.loop_lag = Histogram(
            "context_agent_loop_lag_seconds",
            "How late the agent's event loop runs a timer",
            registry=self.registry,
            buckets=_LAG_BUCKETS,
        )
        self.loop_lag_max = Gauge(
            "context_agent_loop_lag_max_seconds",
            "Largest lag of the event loop since the start",
            registry=self.registry,
        )
        self.items = Gauge("context_items", "Items in the log", registry=self.registry)
        self.bytes = Gauge("context_line_bytes", "Bytes of all lines", registry=self.registry)
        self.blocks = Gauge("context_blocks", "Blocks of the index", registry=self.registry)
        self.damaged_blocks = Counter(
            "context_damaged_blocks",
            "Damaged blocks found since the start, also those made again from the log",
            registry=self.registry,
        )
        self.dropped = Counter(
            "context_dropped_items",
            "Items that retention or the disk budget let go since the start",
            ["type"],
            registry=self.registry,
        )
        self.disk_free = Gauge(
            "context_disk_free_bytes", "Free bytes of the node's disk", registry=self.registry
        )
        self.disk_used = Gauge(
            "context_disk_used_bytes", "Bytes of the data folder", registry=self.registry
        )
        self.commits = Gauge("context_commits", "fsyncs of the log", registry=self.registry)
        self.term = Gauge("context_term", "Term of this node's reign", registry=self.registry)
        self.behind = Gauge(
            "context_behind_items",
            "Items that another node is known to have beyond this one's",
            registry=self.registry,
        )
        self.feed_items = Gauge(
            "context_feed_items", "Items a feed has taken in", ["feed"], registry=self.registry
        )
        self.feed_live = Gauge(
            "context_feed_live", "1 while a feed is connected", ["feed"], registry=self.registry
        )
        self.webhooks = Counter(
            "context_webhook_attempts", "Requests to webhooks", ["result"], registry=self.registry
        )
        self.scans_refused = Counter(
            "context_scans_refused", "Searches refused as too many waited", registry=self.registry
        )

        self.semantic_behind = Gauge(
            "context_semantic_behind",
            "Items that searches by meaning do not find yet",
            registry=self.registry,
        )
        self.semantic_vectors = Gauge(
            "context_semantic_vectors", "Distinct texts with a vector", registry=self.registry
        )
        self.semantic_query = Histogram(
            "context_semantic_query_seconds",
            "Time the semantic worker took to answer a search",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
        )

    async def watch_loop(self) -> None:
        """Measure for ever how late the loop runs."""
        worst = 0.0
        while True:
            due = time.monotonic() + LAG_PROBE_S
            await asyncio.sleep(LAG_PROBE_S)
            lag = max(0.0, time.monotonic() - due)
            self.loop_lag.observe(lag)
            if lag > worst:
                worst = lag
                self.loop_lag_max.set(worst)

    def expose(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)
