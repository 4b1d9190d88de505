"""One REST call described once: its route, the agent's call behind it, and its documentation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from context.errors import InvalidRequest
from server.agent_client import AgentClient


@dataclass(frozen=True, slots=True)
class Param:
    """A query parameter or header."""

    name: str
    about: str
    kind: str = "string"
    required: bool = False
    where: str = "query"


@dataclass(frozen=True, slots=True)
class Operation:
    """A REST call. `call` names the agent's call; `view` answers in the web process instead."""

    method: str
    path: str  # Flask's rule, for instance /api/context/items/<int:offset>
    summary: str
    call: str = ""
    view: Callable[..., Any] | None = None
    params: tuple[Param, ...] = ()
    body: type[msgspec.Struct] | Mapping[str, Any] | None = None
    answers: Mapping[int, str] = field(default_factory=lambda: {200: "done"})
    media: str = "application/json"

    @property
    def endpoint(self) -> str:
        """Unique name, also the operationId."""
        words = re.findall(r"[a-zA-Z]+", re.sub(r"<\w+:", "<", self.path).replace("api", "", 1))
        return "_".join([self.method.lower(), *words])


LIMIT = Param("limit", "at most so many (1 to 10000)", "integer")
BEFORE = Param("before", "cursor: only what is older")
FILTERS = (
    Param("type", "only this type"),
    Param("source", "only this source"),
    Param("symbol", "only items whose `data.symbol` is this"),
)
TIMES = (
    Param("since", "only event times from here on (unix seconds)", "number"),
    Param("until", "only event times up to here (unix seconds)", "number"),
)
HEADERS = {
    "Idempotency-Key": "idempotency_key",
    "Content-Type": "content_type",
    "Content-Encoding": "content_encoding",
}


def blueprint(name: str, operations: tuple[Operation, ...]) -> Blueprint:
    """A blueprint that serves the operations."""
    made = Blueprint(name, __name__)
    for operation in operations:
        made.add_url_rule(
            operation.path,
            endpoint=operation.endpoint,
            view_func=operation.view or _forwarder(operation),
            methods=[operation.method],
        )
    return made


def _forwarder(operation: Operation) -> Callable[..., Response]:
    known = {param.name for param in operation.params if param.where == "query"}

    def view(**path: Any) -> Response:
        agent: AgentClient = current_app.extensions["agent"]
        args = request.args.to_dict()
        unknown = next(iter(args.keys() - known), None)
        if unknown is not None:
            listed = ", ".join(sorted(known)) or "none"
            raise InvalidRequest(f"{unknown[:80]!r} is not an option here; known are: {listed}")
        params: dict[str, Any] = {"args": args, "caller": request.remote_addr or ""}
        for header, name in HEADERS.items():
            value = request.headers.get(header)
            if value is not None:
                params[name] = value
        params.update({name: str(value) for name, value in path.items()})  # of any size
        answer = agent.call(operation.call, params, _body())
        return Response(answer.body, answer.status, answer.headers)

    return view


def _body() -> bytes:
    """The request's body; 400 where its chunks are malformed or end early, 413 over the limit."""
    try:
        body = request.get_data(cache=False)
        # A body of unknown length was cut at the limit, which must not pass for its end.
        if request.environ.get("wsgi.input_terminated") and request.environ["wsgi.input"].read(1):
            raise RequestEntityTooLarge
    except (OSError, ValueError) as exc:
        raise BadRequest(f"the body cannot be read: {exc}") from exc
    return body
