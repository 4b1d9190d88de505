"""The calls that are only passed on to the agent, without Flask's routing and contexts.

Those cost as much as all the rest of a small request (measured: 150 of 330 microseconds). Taken is
only what is plain: a POST with a body of known length and without options. All else, and with it
every way to ask wrongly, goes on to Flask.
"""

from __future__ import annotations

import http
import time
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import Any

from prometheus_client import Histogram

from server import problems
from server.agent_client import AgentClient
from server.api.operations import HEADERS, Operation
from server.inflight import InFlight
from server.ipc import Answer
from server.logs import serving, usable_id

_STATUS = {status.value: f"{status.value} {status.phrase}" for status in http.HTTPStatus}
_ENVIRON = {
    name: "CONTENT_TYPE" if name == "Content-Type" else f"HTTP_{name.upper().replace('-', '_')}"
    for name in HEADERS
}


class Express:
    """A WSGI application before another."""

    def __init__(  # noqa: PLR0917
        self,
        app: Any,
        operations: Iterable[Operation],
        agent: AgentClient,
        in_flight: InFlight,
        requests: Histogram,
        max_bytes: int,
        stamp: Callable[[], dict[str, str]],
    ) -> None:
        """`requests` counts by method, endpoint and status; larger bodies are Flask's to refuse;
        `stamp` makes the headers that tell the node and how far it is.
        """
        self._app, self._agent, self._in_flight = app, agent, in_flight
        self._counted = cache(lambda *labels: requests.labels("POST", *labels))
        self._max_bytes, self._stamp = max_bytes, stamp
        self._calls = {
            each.path: (each.call, each.endpoint)
            for each in operations
            if each.method == "POST" and each.call and "<" not in each.path
        }

    @property
    def paths(self) -> Collection[str]:
        """Of the calls that are answered here where they are plain."""
        return self._calls.keys()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer or pass on."""
        found = self._calls.get(environ["PATH_INFO"])
        if found is None or self._in_flight.draining or not self._is_plain(environ):
            return self._app(environ, start_response)
        started, (call, endpoint) = time.perf_counter(), found
        self._in_flight.enter()
        try:
            with serving(usable_id(environ.get("HTTP_X_REQUEST_ID", ""))) as request_id:
                answer = self._ask(call, environ)
        finally:
            self._in_flight.leave()
        took = time.perf_counter() - started
        self._counted(endpoint, answer.status).observe(took)
        if "Context-Node" not in answer.headers:
            answer.headers |= self._stamp()
        headers = [
            *answer.headers.items(),
            ("X-Request-Id", request_id),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Length", str(len(answer.body))),
        ]
        start_response(_STATUS[answer.status], headers)
        return [answer.body]

    def _is_plain(self, environ: dict[str, Any]) -> bool:
        length = environ.get("CONTENT_LENGTH") or ""
        return (
            environ["REQUEST_METHOD"] == "POST"
            and not environ.get("QUERY_STRING")
            and length.isdecimal()
            and int(length) <= self._max_bytes
            and "HTTP_TRANSFER_ENCODING" not in environ
        )

    def _ask(self, call: str, environ: dict[str, Any]) -> Answer:
        length = int(environ["CONTENT_LENGTH"])
        try:
            body = environ["wsgi.input"].read(length)
        except (OSError, ValueError):
            body = b""
        if len(body) < length:
            ended = "the request could not be read: its body ended early or its form is damaged"
            return problems.answer(problems.problem(400, "bad_request", ended))
        params: dict[str, Any] = {"args": {}, "caller": environ.get("REMOTE_ADDR", "")}
        for header, name in HEADERS.items():
            if (value := environ.get(_ENVIRON[header])) is not None:
                params[name] = value
        try:
            return self._agent.call(call, params, body)
        except Exception as exc:  # every failure is an answer
            return problems.answer(problems.describe(exc))
