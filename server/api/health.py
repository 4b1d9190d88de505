"""Liveness, readiness, metrics and the description of the interface."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response, current_app
from prometheus_client import CollectorRegistry, Metric, generate_latest

from server.agent_client import AgentClient
from server.api.operations import Operation
from server.siblings import Siblings


def healthz() -> dict[str, str]:
    """200 while this process works."""
    return {"status": "ok"}


def metrics() -> Response:
    """Prometheus text of this process and of the agent."""
    agent: AgentClient = current_app.extensions["agent"]
    registry = current_app.extensions["web_metrics"].registry
    siblings: Siblings = current_app.extensions["siblings"]
    own = generate_latest(_Summed(siblings, registry) if siblings.count > 1 else registry)
    return Response(own + agent.call("metrics").body, content_type="text/plain; version=0.0.4")


class _Summed:
    """A registry of all web processes."""

    def __init__(self, siblings: Siblings, registry: CollectorRegistry) -> None:
        self._siblings, self._registry = siblings, registry

    def collect(self) -> Iterator[Metric]:
        """Read at scrape time."""
        return self._siblings.collect(self._registry)


OPERATIONS = (
    Operation("GET", "/healthz", "200 while the process works", view=healthz),
    Operation(
        "GET",
        "/readyz",
        "200 when the node can serve; 503 with the reason until then",
        call="ready",
        answers={200: "ready", 503: "not yet"},
    ),
    Operation("GET", "/metrics", "Prometheus text", view=metrics, media="text/plain"),
)
