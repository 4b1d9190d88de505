"""A small real HTTP server that speaks the API over a list, and fails on request.

For tests of the client and the command line that must not depend on the server's own code.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


def problem(status: int, code: str, **more: Any) -> dict[str, Any]:
    """A problem document."""
    return {"type": "x", "title": code, "status": status, "code": code, "detail": code, **more}


ACCOUNT = {
    "account": "paper:USD",
    **dict.fromkeys(("equity", "profit", "day_profit", "realised", "unrealised"), "1.5"),
    **dict.fromkeys(("fees", "cash"), "2"),
    "positions": [
        {
            **{"symbol": "A/B", "qty": "3", "average": "1", "price": "1.5", "value": "4.5"},
            "unrealised": "1.5",
        }
    ],
}
TRADING = {
    **{"trading": True, "mode": "balanced", "broker": "paper", "live": False},
    **{"account": "paper:USD", "accounts": [ACCOUNT], "open_orders": [], "last_stop": None},
    **{"emergency_stop": False, "confirmation": "trade real money on binance"},
}


class StubNode:
    """State that outlives `kill` and `start`, as a node's disk does, and the faults to play."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.keys: dict[str, dict[str, Any]] = {}
        self.seen: list[tuple[str, str, Any]] = []  # method, path, decoded body
        self.refuse: list[int] = []  # statuses that the next ingests get
        self.hang_up_after_storing = 0  # ingests that are stored but never answered
        self.hang_up_after_events: list[int] = []  # a stream each: events before it breaks
        self.repeat_last_event = False  # resumed streams start one item too early
        self.silent_streams = 0  # streams that send headers, then nothing
        self.gap: dict[str, Any] | None = None
        self.chunked = True
        self.ready = True
        self.forgot = False  # whether cursors are of another log
        self.on_ingest = lambda count: None
        self.changed = threading.Condition()
        self.port = 0
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> StubNode:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()

    def kill(self) -> None:
        """Stop at once, breaking every connection."""
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()
            server.break_connections()

    def store(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        with self.changed:
            first = len(self.items)
            for offset, item in enumerate(items, first):
                self.items.append({"id": f"e1:{offset}", "offset": offset, **item})
            self.changed.notify_all()
        last = len(self.items) - 1
        return {
            "accepted": len(items),
            "first_offset": first,
            "last_offset": last,
            "cursor": f"e1:{last}",
            "term": 1,
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, node: StubNode) -> None:
        super().__init__(("127.0.0.1", node.port), _Handler)
        self.node = node
        self.stopped = False
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are the point of these tests."""

    def break_connections(self) -> None:
        self.stopped = True
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    @property
    def node(self) -> StubNode:
        return self.server.node

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        self.node.seen.append(("GET", split.path, query))
        if self.node.forgot and "min_cursor" in query:
            self.answer(400, problem(400, "bad_cursor"))
        elif split.path == "/api/context/stream":
            self.stream(query)
        elif split.path.startswith("/api/context/items/"):
            self.one(int(split.path.rpartition("/")[2]))
        elif split.path == "/readyz" and not self.node.ready:
            self.answer(503, {"status": "starting", "reason": "log is opening"})
        else:
            self.answer(*self.read(split.path, query))

    def read(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        items = self.node.items
        newest = list(reversed(items))[: int(query.get("limit", 100))]
        documents: dict[str, dict[str, Any]] = {
            "/healthz": {"status": "ok"},
            "/readyz": {"status": "ready"},
            "/api/context/latest": {"items": newest, "next": None, "as_of": f"e1:{len(items) - 1}"},
            "/api/context/stats": {"items": len(items), "types": {"trading_data": len(items)}},
            "/api/nodes": {"leader": "n1", "term": 1, "nodes": [NODE]},
            "/api/control": {"stopped": False},
            "/api/context/trading": TRADING,
            "/api/context/ai/models": {"models": [{"name": "trend", "kind": "torch", "weight": 1}]},
            "/api/context/ai/decisions": {"decisions": [DECISION], "next": None},
        }
        if path in documents:
            return 200, documents[path]
        return 404, problem(404, "not_found")

    def one(self, offset: int) -> None:
        if offset < len(self.node.items):
            self.answer(200, self.node.items[offset])
        else:
            self.answer(404, problem(404, "not_found"))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        raw = self.rfile.read(length)
        if len(raw) < length:  # the connection broke inside the body
            self.close_connection = True
            return
        if self.headers.get("Content-Type") == "application/x-ndjson":
            body: Any = [json.loads(line) for line in raw.splitlines()]
        else:
            body = json.loads(raw)
        self.path = self.path.partition("?")[0]
        self.node.seen.append(("POST", self.path, body))
        if self.path == "/api/context/ingest":
            self.ingest(body if isinstance(body, list) else [body])
        elif self.path == "/api/context/search":
            self.search(body)
        elif self.path == "/api/context/ai/decide":
            self.answer(200, DECISION | {"symbols": body["symbols"]})
        elif self.path in ("/api/context/trading/start", "/api/context/trading/stop"):
            self.answer(200, TRADING)
        elif self.path == "/api/control/emergency-stop":
            self.answer(200, {"stopped": True})
        elif self.path.endswith("/outcome"):
            self.answer(200, {"updated": True})
        else:
            self.answer(404, problem(404, "not_found"))

    def ingest(self, items: list[dict[str, Any]]) -> None:
        node = self.node
        node.on_ingest(len(items))
        if node.refuse:
            status = node.refuse.pop(0)
            self.answer(status, problem(status, f"refused_{status}"))
            return
        for index, item in enumerate(items):
            if not isinstance(item["data"], dict) or item["data"].get("price", 0) < 0:
                error = {"index": index, "field": "data.price", "message": "must be >= 0"}
                self.answer(422, problem(422, "invalid_item", errors=[error]))
                return
        key = self.headers.get("Idempotency-Key")
        if key in node.keys:
            self.answer(200, node.keys[key])
            return
        stored = node.store(items)
        if key:
            node.keys[key] = stored
        if node.hang_up_after_storing:
            node.hang_up_after_storing -= 1
            self.close_connection = True
            return
        self.answer(201, stored)

    def search(self, body: dict[str, Any]) -> None:
        if body["query"] == "(":
            self.answer(400, problem(400, "bad_pattern", detail="missing )"))
            return
        end = int(body["before"].partition(":")[2]) if "before" in body else len(self.node.items)
        hits = []
        for item in reversed(self.node.items[:end]):
            line = json.dumps(item["data"], separators=(",", ":"), ensure_ascii=False)
            if (at := line.find(body["query"])) >= 0:
                hits.append({**item, "line": line, "matches": [[at, at + len(body["query"])]]})
        page = hits[: body.get("limit", 50)]
        answer: dict[str, Any] = {"as_of": "e1:0", "partial": False, "elapsed_ms": 1.5}
        answer["next"] = page[-1]["id"] if len(hits) > len(page) else None
        answer["scanned"] = {"blocks": 1, "skipped": 0, "bytes": 10}
        answer |= {"count": len(hits)} if body.get("count_only") else {"items": page}
        self.answer(200, answer)

    def answer(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def stream(self, query: dict[str, str]) -> None:
        node, last = self.node, self.headers["Last-Event-ID"]
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if node.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if node.silent_streams:
            node.silent_streams -= 1
            with node.changed:
                node.changed.wait_for(lambda: self.server.stopped, 5)
            return
        if node.gap:
            self.event("gap", None, node.gap)
            node.gap = None
        epoch, _, offset = last.partition(":")
        position = int(offset) + 1 if epoch == "e1" else 0
        if node.repeat_last_event and position > 0:
            position -= 1
        budget = node.hang_up_after_events.pop(0) if node.hang_up_after_events else 1 << 30
        while budget > 0:
            with node.changed:
                while position >= len(node.items):
                    if self.server.stopped or self.server.node._server is None:
                        return
                    node.changed.wait(0.02)
                item = node.items[position]
            if all(item.get(name) == query[name] for name in ("type", "source") if name in query):
                self.event("context", item["id"], item)
                budget -= 1
            position += 1

    def event(self, kind: str, cursor: str | None, data: dict[str, Any]) -> None:
        head = f"event: {kind}\n" + (f"id: {cursor}\n" if cursor else "")
        raw = f": a comment\n\n{head}data: {json.dumps(data)}\n\n".encode()
        if self.node.chunked:
            raw = f"{len(raw):x}\r\n".encode() + raw + b"\r\n"
        self.wfile.write(raw)


NODE = {
    "id": "n1",
    "url": "http://127.0.0.1:5000",
    "role": "leader",
    "state": "alive",
    "capabilities": {"cores": 2},
    "score": 1.0,
    "score_parts": {"cores": 1.585},
    "term": 3,
    "heartbeat_age_s": 0.1,
    "applied_offset": 7,
}
DECISION = {
    "decision_id": "d1",
    "final_decision": "buy",
    "confidence": 0.62,
    "distribution": {"buy": 0.62, "sell": 0.2, "hold": 0.18},
    "agreement": 0.8,
    "reasoning": "two of three rise",
    "votes": [
        {
            "model": "trend",
            "status": "ok",
            "decision": "buy",
            "confidence": 0.7,
            "distribution": {"buy": 0.7, "sell": 0.2, "hold": 0.1},
            "weight": 0.5,
            "latency_ms": 12.0,
            "reasoning": "rising",
        },
        {
            "model": "far",
            "status": "timeout",
            "decision": None,
            "confidence": None,
            "distribution": None,
            "weight": 0.5,
            "latency_ms": 5000.0,
            "reasoning": None,
        },
    ],
    "context_id": "c1",
    "term": 1,
    "abstained": False,
}
