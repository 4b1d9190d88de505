"""GET /api/context/export: pieces from the agent, passed on as fast as the reader takes them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from flask import Response, current_app, request

from server.agent_client import AgentClient, AgentUnavailable
from server.api.operations import FILTERS, TIMES, Operation, Param
from server.export_frames import ExportPiece, ExportStart

log = logging.getLogger(__name__)
WAIT_S = 30.0  # for an agent that is busy or restarts; offsets make the pieces before it valid
_PAUSE_S = 0.1

_decode_start = msgspec.msgpack.Decoder(ExportStart).decode
_decode_piece = msgspec.msgpack.Decoder(ExportPiece).decode


class ExportCut(ConnectionError):
    """The rest cannot be given. Raised amid the body, it breaks the connection: the body's last
    chunk never comes, so no reader takes what it has for the whole."""


def export() -> Response:
    """Everything that passes, oldest first, up to what is newest at the call."""
    agent: AgentClient = current_app.extensions["agent"]
    args = request.args.to_dict()
    types = request.args.getlist("types")
    if types:
        args["types"] = ",".join(types)
    begun = agent.call("export_start", {"args": args})
    if begun.status != 200:
        return Response(begun.body, begun.status, begun.headers)
    start = _decode_start(begun.body)
    as_of = f"{start.epoch}:{start.until}"
    name = f"context-{start.epoch}-{start.until}.{start.suffix}"
    headers = {
        **begun.headers,
        "Content-Type": start.media,
        "Content-Disposition": f'attachment; filename="{name}"',
        "Context-As-Of": as_of,
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
    }
    if start.damaged:
        headers["Context-Damaged"] = ", ".join(f"{first}-{last}" for first, last in start.damaged)
    return Response(_body(agent, args, start), headers=headers)


def _body(agent: AgentClient, args: dict[str, str], start: ExportStart) -> Iterator[bytes]:
    yield start.head
    after = start.after
    while after < start.until:
        piece = _next(agent, {"args": args, "after": after, "until": start.until})
        if piece.epoch != start.epoch or piece.oldest > after + 1:
            log.warning("history went away under an export", extra={"after": after})
            raise ExportCut(f"items after {start.epoch}:{after} are gone")
        if piece.lost and tuple(piece.lost) not in start.damaged:
            log.warning("an export found a damaged block", extra={"after": after})
            raise ExportCut(
                f"items after {start.epoch}:{after} are damaged; a repeat leaves them out"
            )
        yield piece.body
        after = piece.reached
    yield start.tail


def _next(agent: AgentClient, asked: dict[str, Any]) -> ExportPiece:
    """The next piece; waits a while for an agent that cannot answer just now."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            answer = agent.call("export_piece", asked)
            if answer.status == 200:
                return _decode_piece(answer.body)
            waits, reason = answer.status in (429, 503), answer.body.decode()
        except AgentUnavailable as exc:
            waits, reason = True, str(exc)
        if not waits or time.monotonic() > deadline:
            log.warning("an export was cut", extra={"reason": reason, "after": asked["after"]})
            raise ExportCut(reason)
        time.sleep(_PAUSE_S)


OPERATIONS = (
    Operation(
        "GET",
        "/api/context/export",
        "Everything that passes, oldest first, as NDJSON, CSV or an Arrow stream",
        view=export,
        params=(
            Param("format", "ndjson (default), csv or arrow"),
            *FILTERS,
            Param("types", "any of these types, with commas between"),
            *TIMES,
            Param("query", "only items whose line matches"),
            Param("regex", "`query` is an RE2 pattern", "boolean"),
            Param("ignore_case", "upper and lower case are the same", "boolean"),
            Param("invert", "only items whose line does not match", "boolean"),
        ),
        answers={200: "the items; Context-As-Of names the last one considered", 400: "bad option"},
        media="application/x-ndjson",
    ),
)
