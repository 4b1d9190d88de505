"""Liveness, readiness, metrics and the description of the interface."""

from __future__ import annotations

from flask import Response, current_app
from prometheus_client import generate_latest

from server.agent_client import AgentClient
from server.api.operations import Operation


def healthz() -> dict[str, str]:
    """200 while this process works."""
    return {"status": "ok"}


def metrics() -> Response:
    """Prometheus text of this process and of the agent."""
    agent: AgentClient = current_app.extensions["agent"]
    own = generate_latest(current_app.extensions["web_metrics"].registry)
    return Response(own + agent.call("metrics").body, content_type="text/plain; version=0.0.4")


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
