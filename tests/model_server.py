"""A model's server that answers well or fails in a chosen way: real HTTP on a loopback port.

Speaks OpenAI's and KoboldCPP's formats. `behave` says what happens from the next request on;
`requests` is what came. Closing it frees the port, which a later server may take again.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Json = dict[str, Any]
VOTE = {
    "reasoning": "it rises",
    "decision": "buy",
    "confidence": 0.6,
    "distribution": {"buy": 0.6, "sell": 0.1, "hold": 0.3},
}
WINDOW = 4096


class ModelServer:
    """One server. Behaviours are the methods of `_Handler` named `do_as_...`, or a callable's text.

    `say` is the text that the model writes: a string, or a function of the request's body.
    """

    def __init__(self, port: int = 0) -> None:
        self.behaviour = "well"
        self.say: str | Callable[[Json], str] = json.dumps(VOTE)
        self.seconds = 0.0  # of `slow`
        self.forms = {"json_schema", "json_object", "text"}  # that it takes
        self.refused: set[str] = set()  # options that it does not take
        self.requests: list[tuple[str, Json, dict[str, str]]] = []
        self.released = threading.Event()  # ends every behaviour that waits
        self._server = _Server(("127.0.0.1", port), self)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def behave(self, behaviour: str, seconds: float = 0.0) -> None:
        """Answer so from now on."""
        self.behaviour, self.seconds = behaviour, seconds

    def asked(self, path: str) -> list[Json]:
        """Bodies of the requests to a path."""
        return [body for each, body, _ in self.requests if each == path]

    def close(self) -> None:
        """Stop listening, and end what waits."""
        self.released.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: ModelServer) -> None:
        self.owner = owner
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._serve(json.loads(self.rfile.read(length) or b"{}"))

    def _serve(self, body: Json) -> None:
        owner = self.server.owner
        owner.requests.append((self.path, body, {k.lower(): v for k, v in self.headers.items()}))
        self.close_connection = True
        getattr(self, f"do_as_{owner.behaviour}")(body)

    # --- behaviours ---

    def do_as_well(self, body: Json) -> None:
        form = body.get("response_format", {}).get("type", "text")
        option = next((name for name in self.server.owner.refused if name in body), None)
        if option:
            self._send(400, {"error": {"message": f"Unsupported parameter: '{option}'"}})
        elif form not in self.server.owner.forms:
            self._send(400, {"error": {"message": f"response_format {form} is not supported"}})
        else:
            self._send(200, self._answer(body))

    def do_as_slow(self, body: Json) -> None:
        self.server.owner.released.wait(self.server.owner.seconds)
        self.do_as_well(body)

    def do_as_hang(self, body: Json) -> None:
        self.server.owner.released.wait(60)

    def do_as_hang_in_body(self, body: Json) -> None:
        self._head(200, 1000)
        self.wfile.write(b'{"choices": [')
        self.wfile.flush()
        self.server.owner.released.wait(60)

    def do_as_dribble(self, body: Json) -> None:
        self._head(200, 100_000)
        while not self.server.owner.released.wait(0.02):
            self.wfile.write(b" ")
            self.wfile.flush()

    def do_as_dribble_head(self, body: Json) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.server.owner.released.wait(0.02):
            self.wfile.write(b"a")
            self.wfile.flush()

    def do_as_garbage(self, body: Json) -> None:
        self.wfile.write(b"\x00\xff\xfe not HTTP at all\r\n\r\n")

    def do_as_not_json(self, body: Json) -> None:
        self._raw(200, b"<html>502 Bad Gateway</html>")

    def do_as_truncated(self, body: Json) -> None:
        whole = json.dumps(self._answer(body)).encode()
        self._head(200, len(whole))
        self.wfile.write(whole[: len(whole) // 2])

    def do_as_truncated_json(self, body: Json) -> None:
        whole = json.dumps(self._answer(body)).encode()
        self._raw(200, whole[: len(whole) // 2])

    def do_as_wrong_schema(self, body: Json) -> None:
        self._send(200, {"choices": "none", "results": [], "value": "many"})

    def do_as_too_many(self, body: Json) -> None:
        self._send(429, {"error": "too many requests"}, {"Retry-After": "30"})

    def do_as_error_500(self, body: Json) -> None:
        self._send(500, {"error": "out of memory"})

    def do_as_redirect(self, body: Json) -> None:
        self._send(302, {}, {"Location": f"{self.server.owner.url}/elsewhere"})

    def do_as_huge(self, body: Json) -> None:
        self._head(200, 1 << 30)
        while True:  # until the client hangs up
            self.wfile.write(b" " * 65536)

    def do_as_crumbs(self, body: Json) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:  # until the client hangs up
            self.wfile.write(b"1\r\n \r\n" * 10_000)

    def do_as_wait_for_ever(self, body: Json) -> None:
        while True:  # until the client hangs up
            self.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 10_000)

    def do_as_hang_up(self, body: Json) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    # --- answers ---

    def _answer(self, body: Json) -> Json:
        say, text = self.server.owner.say, ""
        if self.path in ("/v1/chat/completions", "/api/v1/generate"):
            text = say if isinstance(say, str) else say(body)
        answers: dict[str, Json] = {
            "/v1/chat/completions": {
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": text, "refusal": None},
                    }
                ],
            },
            "/v1/models": {"object": "list", "data": [{"id": "small", "object": "model"}]},
            "/api/v1/generate": {"results": [{"text": text}]},
            "/api/v1/model": {"result": "koboldcpp/small"},
            "/api/extra/true_max_context_length": {"value": WINDOW},
            "/api/extra/tokencount": {"value": len(str(body.get("prompt", ""))) // 3},
        }
        return answers[self.path]

    def _send(self, status: int, body: Json, headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(body).encode(), headers)

    def _raw(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, len(body), headers)
        self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
