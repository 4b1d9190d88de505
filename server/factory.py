"""The Flask application: routes, errors, request ids, Socket.IO."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

from flask import Flask, Response, current_app, g, request
from flask.json.provider import DefaultJSONProvider
from flask_socketio import SocketIO
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from werkzeug.exceptions import HTTPException

from nodes.proof import Proofs
from server import problems, websocket
from server.agent_client import AgentClient
from server.api import (
    ai,
    blobs,
    context,
    export,
    health,
    nodes,
    openapi,
    tensors,
    trading,
    webhooks,
)
from server.api.operations import blueprint
from server.beats import Beats
from server.config import Settings
from server.connections import Poller
from server.dashboard import dashboard
from server.delivery_metrics import DeliveryMetrics
from server.express import Express
from server.fanout import Fanout, Limits
from server.gate import Gate
from server.gateway import Gateway
from server.inflight import InFlight, Stopping
from server.lead import Lead
from server.live import LiveFeed
from server.logs import serving, usable_id
from server.passing import Passing
from server.poll import Polls
from server.realtime import FastJson, Realtime
from server.routing import Routes
from server.siblings import Siblings
from server.sse import HEARTBEAT_S, EventStreams

log = logging.getLogger(__name__)
VERSION = "0.1.0"
PING_S = 25  # between pings of a Socket.IO client; it has 20 s to answer
CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


class WebMetrics:
    """Metrics of one web process."""

    def __init__(self, feed: LiveFeed) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "context_http_request_seconds",
            "Time to answer, without the streaming of a body",
            ["method", "endpoint", "status"],
            registry=self.registry,
        )
        self._feed = feed
        self.registry.register(self)

    def collect(self) -> list[Any]:
        """Read at scrape time."""
        return [
            GaugeMetricFamily(
                "context_subscribers", "Open streams and subscriptions", self._feed.subscribers
            )
        ]


def create_app(
    settings: Settings, agent: AgentClient, feed: LiveFeed, siblings: Siblings, lead: Lead
) -> tuple[Flask, SocketIO]:
    """Build the application; nothing runs until it is served."""
    app = Flask("server", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    cast(DefaultJSONProvider, app.json).sort_keys = False
    metrics = WebMetrics(feed)
    app.extensions.update(
        agent=agent,
        live_feed=feed,
        web_metrics=metrics,
        polls=Polls(metrics.registry),
        in_flight=InFlight(),
        siblings=siblings,
        stamp=partial(feed.stamp, settings.node_id),
    )
    proofs = Proofs(settings.cluster_secret) if settings.peers else None
    most = settings.ingest_queue_mb << 20
    passing = Passing(lead, settings.node_id, proofs, metrics.registry, most)
    poller = Poller(settings.async_mode)
    limits = Limits(settings.max_delay_ms, settings.max_lag_items, settings.stall_s)
    fanout = Fanout(feed, poller, limits, DeliveryMetrics(metrics.registry))
    heartbeats, pings = Beats(HEARTBEAT_S), Beats(PING_S)
    app.extensions.update(
        event_streams=EventStreams(feed, fanout, poller, heartbeats),
        delivery=(poller, heartbeats, pings, fanout),
    )
    operations = (
        *context.OPERATIONS,
        *export.OPERATIONS,
        *webhooks.OPERATIONS,
        *tensors.OPERATIONS,
        *ai.OPERATIONS,
        *trading.OPERATIONS,
        *blobs.OPERATIONS,
        *nodes.OPERATIONS,
        *health.OPERATIONS,
    )
    app.register_blueprint(blueprint("api", operations))
    for made in openapi.blueprints(openapi.describe(operations, VERSION)):
        app.register_blueprint(made)
    app.register_blueprint(dashboard)
    app.before_request(_begin)
    app.after_request(_finish)
    app.teardown_request(_end)
    app.register_error_handler(Exception, _problem)
    socketio = SocketIO(
        app,
        async_mode=settings.async_mode,
        json=FastJson,
        cors_allowed_origins=[],  # says nothing of origins: the gate does, for all routes alike
        max_http_buffer_size=settings.max_body_bytes,
        http_compression=False,
        ping_interval=PING_S,
        always_connect=True,  # the answer to a client's connect comes before what it is told then
    )
    realtime = Realtime(socketio, agent, feed, fanout, passing)
    lead.on_change(realtime.tell_leader)
    websocket.install(socketio.server.eio, poller, pings, realtime.upgraded)
    in_flight: InFlight = app.extensions["in_flight"]
    limit = settings.max_body_bytes
    stamp = app.extensions["stamp"]
    inner = Express(app.wsgi_app, operations, agent, in_flight, metrics.requests, limit, stamp)
    app.extensions["express"] = inner.paths
    gateway = Gateway(
        inner, Routes(operations), passing, feed, stamp, in_flight, metrics.requests, limit
    )
    engine = socketio.server.eio
    engine.generate_id = siblings.named(engine.generate_id)
    gate = Gate(gateway, settings, lambda ticket: _redeem(agent, ticket), proofs)
    app.wsgi_app = siblings.relaying(gate)  # type: ignore[method-assign]
    return app, socketio


def _redeem(agent: AgentClient, ticket: str) -> bool:
    found: dict[str, bool] = agent.json("ticket_redeem", {"ticket": ticket})
    return found["good"]


def _begin() -> None:
    given = usable_id(request.headers.get("X-Request-Id", ""))
    g.serving = ExitStack()
    g.request_id = g.serving.enter_context(serving(given))
    g.started = time.perf_counter()
    in_flight: InFlight = current_app.extensions["in_flight"]
    in_flight.enter()
    if in_flight.draining:
        raise Stopping("this node is stopping; ask again when it is back, or another one")


def _finish(response: Response) -> Response:
    took = time.perf_counter() - g.started
    endpoint = (request.endpoint or "none").removeprefix("api.")
    metrics: WebMetrics = app_metrics()
    metrics.requests.labels(request.method, endpoint, response.status_code).observe(took)
    response.headers["X-Request-Id"] = g.request_id
    if request.path.startswith("/api/") and "Context-Node" not in response.headers:
        response.headers.update(current_app.extensions["stamp"]())
    response.headers["X-Content-Type-Options"] = "nosniff"
    log.debug(
        "request",
        extra={
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "ms": round(took * 1000, 2),
        },
    )
    return response


def _end(exc: BaseException | None) -> None:
    serving_now = g.pop("serving", None)
    if serving_now is not None:  # Socket.IO makes contexts that are no requests
        serving_now.close()
        current_app.extensions["in_flight"].leave()


def app_metrics() -> WebMetrics:
    """Metrics of the application that handles this request."""
    metrics: WebMetrics = current_app.extensions["web_metrics"]
    return metrics


def _problem(exc: Exception) -> Response:
    """Every error of every route becomes problem+json."""
    headers: dict[str, str] = {}
    if isinstance(exc, HTTPException):
        status = exc.code or 500
        code = CODES.get(status, "bad_request" if status < 500 else "internal_error")
        detail = _detail(exc, status)
        document = problems.problem(status, code, detail)
        headers = {k: v for k, v in exc.get_headers() if k == "Allow"}
    else:
        document = problems.describe(exc)
    answer = problems.answer(document)
    return Response(answer.body, answer.status, {**headers, **answer.headers})


def _detail(exc: HTTPException, status: int) -> str:
    if status == 404:
        return f"there is nothing at {request.path}; /docs lists every call"
    if status == 405:
        return f"{request.method} is not possible at {request.path}; see the Allow header"
    if status == 413:
        return f"the body is larger than {current_app.config['MAX_CONTENT_LENGTH']} bytes"
    if status == 400:
        return "the request could not be read: its body ended early or its form is damaged"
    return exc.description or exc.name
