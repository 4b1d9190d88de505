"""Every call of every node: writes go to the leader, reads wait for what they want to see.

A WSGI application between the gate and the calls. On a single node, and for reads without options,
it costs two look-ups.
"""

from __future__ import annotations

import http
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import Histogram
from werkzeug.exceptions import BadRequest

from context.errors import BadCursor, Behind, BodyTooLarge, NoLeader, RateLimited
from context.items import Cursor
from nodes.proof import BadProof, Proof, digest
from nodes.protocol import PROTOCOL
from server import problems
from server.bridging import VERSION, recast
from server.gate import PROOF
from server.inflight import InFlight
from server.ipc import Answer
from server.live import LiveFeed
from server.logs import serving, usable_id
from server.passing import Call, Passing, kept_headers
from server.routing import NO_WISH, Place, Routes, Wish, take_wish

WAIT_S = 5.0  # for the item that a reader wants to see
MOST_WAITING = 2000
_STATUS = {status.value: f"{status.value} {status.phrase}" for status in http.HTTPStatus}
_APPLIED = "Context-Applied"
_VERSION = f"HTTP_{VERSION.upper().replace('-', '_')}"
_OF_THE_CONNECTION = frozenset(
    {"Connection", "Content-Length", "Date", "Keep-Alive", "Server", "Transfer-Encoding"}
)


class Gateway:
    """A WSGI application before another."""

    def __init__(  # noqa: PLR0917
        self,
        app: Any,
        routes: Routes,
        passing: Passing,
        feed: LiveFeed,
        stamp: Callable[[], dict[str, str]],
        in_flight: InFlight,
        requests: Histogram,
        max_bytes: int,
    ) -> None:
        """`stamp` makes the headers that tell the node and how far it is; `requests` counts what
        is answered elsewhere by method, endpoint and status.
        """
        self._app, self._routes, self._passing = app, routes, passing
        self._feed, self._stamp = feed, stamp
        self._in_flight, self._requests, self._max_bytes = in_flight, requests, max_bytes
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer or pass on."""
        if not environ["PATH_INFO"].startswith("/api/") or self._in_flight.draining:
            return self._app(environ, start_response)
        try:
            wish = take_wish(environ)
            if wish is NO_WISH and not self._passing.clustered:
                return self._app(environ, start_response)
            answer = self._answer(environ, wish)
        except Exception as exc:  # every failure is an answer
            answer = self._problem(exc, environ)
        if answer is None:
            return self._app(environ, start_response)
        headers = [*answer.headers.items(), ("Content-Length", str(len(answer.body)))]
        start_response(_STATUS.get(answer.status, str(answer.status)), headers)
        return [answer.body]

    def _answer(self, environ: dict[str, Any], wish: Wish) -> Answer | None:
        """The leader's answer; None where this node may give its own, now that it can."""
        place, endpoint = self._routes.find(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        proof: Proof | None = environ.get(PROOF)
        theirs = place in (Place.LEADER, Place.RATHER_LEADER) or wish.leader or proof is not None
        if self._passing.clustered and theirs and (place is not Place.OPEN or proof):
            try:
                return self._at_leader(environ, endpoint, proof, reads=place is not Place.LEADER)
            except NoLeader:
                if place is not Place.RATHER_LEADER or wish.leader:
                    raise
        if self._passing.clustered and wish.leader:
            self._await(self._leaders_newest(environ))
        if wish.min_cursor:
            self._await(wish.min_cursor)
        return None

    def _at_leader(
        self, environ: dict[str, Any], endpoint: str, proof: Proof | None, *, reads: bool
    ) -> Answer:
        call = self._call(environ, proof, reads=reads)
        started, method = time.perf_counter(), call.method
        local = False

        def here() -> Answer:
            nonlocal local
            local = True
            return self._here(environ, call)

        with self._in_flight_now():
            answer = self._passing.reach(call, here, passed_on=proof is not None)
        if not local:
            took = time.perf_counter() - started
            self._requests.labels(method, endpoint, answer.status).observe(took)
            kept = answer.headers.items()
            answer.headers = {k: v for k, v in kept if k not in _OF_THE_CONNECTION}
        return answer

    def _call(self, environ: dict[str, Any], proof: Proof | None, *, reads: bool) -> Call:
        """The request with its whole body. Raises BadRequest, BodyTooLarge, BadProof."""
        body = self._body(environ)
        if proof and digest(body) != proof.digest:
            raise BadProof("the body is not the one that was signed")
        return Call(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            environ.get("QUERY_STRING", ""),
            kept_headers(environ),
            body,
            proof.caller if proof else environ.get("REMOTE_ADDR", ""),
            reads,
        )

    def _body(self, environ: dict[str, Any]) -> bytes:
        told = environ.get("CONTENT_LENGTH") or ""
        if not told and "HTTP_TRANSFER_ENCODING" not in environ:
            return b""
        most = int(told) if told.isdecimal() else self._max_bytes + 1
        if told and most > self._max_bytes:
            raise BodyTooLarge(f"the body is larger than {self._max_bytes} bytes")
        pieces, size = [], 0
        try:
            while size < most and (piece := environ["wsgi.input"].read(most - size)):
                pieces.append(piece)
                size += len(piece)
        except (OSError, ValueError) as exc:
            raise BadRequest(f"the body cannot be read: {exc}") from exc
        if told and size < most:
            raise BadRequest("the body ended early")
        if size > self._max_bytes:
            raise BodyTooLarge(f"the body is larger than {self._max_bytes} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _here(self, environ: dict[str, Any], call: Call) -> Answer:
        """The answer of this process's own calls."""
        told, body = environ.get(_VERSION, ""), call.body
        kept: Mapping[str, str] = call.headers
        if PROOF in environ and told.isdecimal() and len(told) < 10:
            kept, body = recast(call.path, kept, body, int(told), PROTOCOL, self._max_bytes)
        own = {
            **environ,
            "wsgi.input": io.BytesIO(body),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": call.caller,
        }
        if len(kept) < len(call.headers):  # it was decompressed
            own.pop("HTTP_CONTENT_ENCODING", None)
        own.pop("HTTP_TRANSFER_ENCODING", None)
        own.pop("wsgi.input_terminated", None)
        status, headers = 500, {}

        def start(line: str, given: list[tuple[str, str]], *_: Any) -> None:
            nonlocal status, headers
            status = int(line.partition(" ")[0])
            headers = {k: v for k, v in given if k != "Content-Length"}

        pieces = self._app(own, start)
        try:
            body = b"".join(pieces)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        return Answer(status, headers, body)

    # --- waiting for what a reader wants to see ---

    def _await(self, text: str) -> None:
        """Wait until this node has an item. Raises BadCursor, Behind, RateLimited."""
        feed, cursor = self._feed, Cursor.parse(text)
        if cursor.epoch != feed.epoch:
            raise BadCursor(f"cursor {cursor} is of another log; this one is {feed.epoch}")
        if cursor.offset <= feed.newest:
            return
        if not self._waiting.acquire(blocking=False):
            raise RateLimited(f"{MOST_WAITING} requests wait for items here; retry in a second")
        try:
            with self._in_flight_now():
                if not feed.wait(cursor.offset - 1, WAIT_S):
                    raise Behind(f"this node has applied up to {feed.epoch}:{feed.newest} only")
        finally:
            self._waiting.release()

    def _leaders_newest(self, environ: dict[str, Any]) -> str:
        """Cursor of the newest item that the leader has applied; errors as `Passing.reach`."""
        own = Answer(200, {_APPLIED: f"{self._feed.epoch}:{self._feed.newest}"}, b"")
        caller = environ.get("REMOTE_ADDR", "")
        call = Call("GET", "/api/nodes/self", "", kept_headers(environ), b"", caller, reads=True)
        answer = self._passing.reach(call, lambda: own)
        return answer.headers.get(_APPLIED, own.headers[_APPLIED])

    @contextmanager
    def _in_flight_now(self) -> Iterator[None]:
        self._in_flight.enter()
        try:
            yield
        finally:
            self._in_flight.leave()

    def _problem(self, exc: Exception, environ: dict[str, Any]) -> Answer:
        if isinstance(exc, BadRequest):
            exc = _Malformed(exc.description or "")
        answer = problems.answer(problems.describe(exc))
        with serving(usable_id(environ.get("HTTP_X_REQUEST_ID", ""))) as request_id:
            answer.headers |= {
                **self._stamp(),
                "X-Request-Id": request_id,
                "X-Content-Type-Options": "nosniff",
            }
        return answer


class _Malformed(Exception):
    """The request could not be read."""

    code = "bad_request"
    status = 400
