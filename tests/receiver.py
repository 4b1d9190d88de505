"""A real HTTP receiver of webhooks that misbehaves as it is told, and verifies every signature.

Written from https://www.standardwebhooks.com and not from our own code.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Json = dict[str, Any]
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
TOLERANCE_S = 300


def verify(secret: str, headers: Any, body: bytes) -> None:
    """Fails unless the request is signed with the secret, just now."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    stamp = headers["webhook-timestamp"]
    signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    versions = [each.split(",", 1) for each in headers["webhook-signature"].split(" ")]
    assert ["v1", wanted] in versions
    assert abs(time.time() - int(stamp)) < TOLERANCE_S


class Receiver:
    """Answers each request with the next of `plan`, then with 204.

    A plan's entry is a status, `(status, headers)`, or one of "hang" (half an answer), "silent",
    "drop" (hangs up) and "slow".
    """

    def __init__(self, *plan: Any, secret: str = SECRET) -> None:
        self.plan = list(plan)
        self.secret = secret
        self.paths: list[str] = []
        self.attempts: list[Json] = []  # every request's body, answered or not
        self.accepted: list[Json] = []  # those answered with 2xx
        self.faults: list[str] = []
        self._changed = threading.Condition()
        self._open = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        assert self.faults == []

    def items(self) -> list[Json]:
        """The items accepted so far, in the order they came."""
        return [item for body in self.accepted for item in body["items"]]

    def wait(self, enough: Callable[[], Any], seconds: float = 30) -> None:
        """Wait until `enough()`."""
        with self._changed:
            there = self._changed.wait_for(enough, seconds)
            assert there, f"{len(self.attempts)} attempts, {len(self.accepted)} accepted"

    def wait_items(self, count: int) -> list[Json]:
        """Wait for so many items."""
        self.wait(lambda: len(self.items()) >= count)
        return self.items()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

            def do_POST(self) -> None:
                receiver.take(self)

        return Handler

    def take(self, request: BaseHTTPRequestHandler) -> None:
        """One request."""
        raw = request.rfile.read(int(request.headers["Content-Length"]))
        try:
            verify(self.secret, request.headers, raw)
            body = json.loads(raw)
            assert body["delivery_id"] == request.headers["webhook-id"]
        except (AssertionError, KeyError, ValueError) as wrong:
            self.faults.append(repr(wrong))
        with self._changed:
            answer = self.plan.pop(0) if self.plan else 204
            self.paths.append(request.path)
            self.attempts.append(body)
            if isinstance(answer, int) and 200 <= answer < 300:
                self.accepted.append(body)
            self._changed.notify_all()
        self._answer(request, answer, body)

    def _answer(self, request: BaseHTTPRequestHandler, answer: Any, body: Json) -> None:
        request.close_connection = True
        if answer == "drop":
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        if answer in ("silent", "hang"):
            if answer == "hang":
                request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                request.wfile.flush()
            with self._changed:
                self._changed.wait_for(lambda: not self._open, 30)
            return
        if answer == "slow":
            time.sleep(0.3)  # what a slow receiver does
            with self._changed:
                self.accepted.append(body)
                self._changed.notify_all()
            answer = 200
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()
