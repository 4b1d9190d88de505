"""REST calls on context."""

from __future__ import annotations

from flask import Response, current_app

from context.items import Item
from context.packing import PackRequest
from context.request import SearchRequest
from server.agent_client import AgentClient
from server.api.operations import BEFORE, FILTERS, LIMIT, TIMES, Operation, Param
from server.live import LiveFeed
from server.poll import poll
from server.siblings import Siblings
from server.sse import stream

_STANDING = (
    Param("types", "any of these types, with commas between"),
    Param("query", "standing grep: only items whose line matches"),
    Param("regex", "`query` is an RE2 pattern", "boolean"),
    Param("ignore_case", "upper and lower case are the same", "boolean"),
    Param("invert", "only items whose line does not match", "boolean"),
    Param("after", "cursor: resume after this item"),
)
_MANY = (
    Param(
        "subscription",
        "NAME:FILTERS, may be repeated: many subscriptions over one stream; FILTERS are these "
        "options as in an address, encoded",
    ),
)
_MANNER = (
    Param(
        "conflate", "`symbol`: while behind, only the newest item of each symbol, after `folded`"
    ),
)
_RESUME = (
    Param("Last-Event-ID", "cursor, as EventSource sends it; wins over `after`", where="header"),
)
_TYPE_BODY = {
    "type": "object",
    "required": ["name", "schema"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$"},
        "schema": {"type": "object", "description": "JSON Schema of the item's `data`"},
    },
}


def _subscribers(siblings: Siblings) -> int:
    """Of all web processes."""
    registry = current_app.extensions["web_metrics"].registry
    found = {each.name: each for each in siblings.collect(registry)}
    return int(found["context_subscribers"].samples[0].value)


def stats() -> Response:
    """GET /api/context/stats: the agent's figures, and the subscribers, which are here."""
    agent: AgentClient = current_app.extensions["agent"]
    feed: LiveFeed = current_app.extensions["live_feed"]
    answer = agent.call("stats")
    body = answer.body
    if answer.status == 200:
        siblings: Siblings = current_app.extensions["siblings"]
        count = feed.subscribers if siblings.count == 1 else _subscribers(siblings)
        body = b'%b,"subscribers":%d}' % (body[:-1], count)
    return Response(body, answer.status, answer.headers)


OPERATIONS = (
    Operation(
        "POST",
        "/api/context/ingest",
        "Take in one item, an array, or NDJSON: all or nothing, durable when acknowledged",
        call="ingest",
        params=(
            Param(
                "Idempotency-Key",
                "1 to 128 characters; a repeat within 24 h stores nothing",
                where="header",
            ),
            Param("Content-Encoding", "identity, gzip or zstd", where="header"),
        ),
        body=Item,
        answers={201: "accepted", 200: "a repeat: the first answer again", 422: "an item is bad"},
    ),
    Operation(
        "GET",
        "/api/context/latest",
        "Newest items first",
        call="latest",
        params=(*FILTERS, LIMIT, BEFORE),
    ),
    Operation(
        "GET",
        "/api/context/items/<int:offset>",
        "One item by its offset",
        call="item",
        answers={200: "the item", 404: "past the end"},
    ),
    Operation(
        "POST",
        "/api/context/search",
        "Grep over the items' lines, newest first; or by meaning, best first, with `mode`",
        call="search",
        body=SearchRequest,
        answers={
            200: "hits",
            400: "bad pattern, option or cursor",
            409: "`mode` needs the setting `semantic`",
        },
    ),
    Operation(
        "GET",
        "/api/context/stream",
        "Follow live as Server-Sent Events, or resume from a cursor",
        view=stream,
        params=(*FILTERS, *TIMES, *_STANDING, *_MANNER, *_MANY, *_RESUME),
        media="text/event-stream",
    ),
    Operation(
        "GET",
        "/api/context/poll",
        "Long poll: what follows a cursor, at once or when it comes",
        view=poll,
        params=(
            *FILTERS,
            *TIMES,
            *_STANDING,
            Param("wait_s", "how long to wait for something (0 to 60, default 25)", "number"),
            Param("limit", "at most so many (1 to 10000, default 1000)", "integer"),
        ),
        answers={200: "items or a gap; go on after `next`", 400: "bad option or cursor"},
    ),
    Operation(
        "POST",
        "/api/context/tickets",
        "A ticket that lets one stream or Socket.IO connection in, as `?ticket=`, once",
        call="ticket_issue",
        answers={201: "the ticket, and for how long it is good"},
    ),
    Operation("GET", "/api/context/stats", "Counts, bytes, blocks, rates, subscribers", view=stats),
    Operation(
        "POST",
        "/api/context/types",
        "Register a custom type with a JSON Schema",
        call="types_register",
        body=_TYPE_BODY,
        answers={201: "registered"},
    ),
    Operation("GET", "/api/context/types", "All types", call="types"),
    Operation(
        "POST",
        "/api/context/ai/request",
        "Pack the newest fitting context for a model",
        call="pack",
        body=PackRequest,
    ),
    Operation(
        "GET",
        "/api/context/ai/request/<context_id>",
        "A packed context again, the same bytes",
        call="packed",
        answers={200: "the packed context", 404: "unknown"},
    ),
)
