"""A client that costs little: prepared requests over keep-alive connections, one at a time each."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

PATH = "/api/context/ingest"
TIMEOUT_S = 60.0


def request(body: bytes, media: str) -> bytes:
    """A whole POST to the ingest call."""
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Sent:
    """What came of sending."""

    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)  # seconds until each acknowledgement


def send(port: int, requests: Iterable[bytes], connections: int) -> Sent:
    """Send every request once; stops the program where one is not answered with 200 or 201."""
    rest, sent = iter(requests), Sent()
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        for _ in range(connections):
            sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _next(sock, rest, selector)
        while selector.get_map():
            ready = selector.select(TIMEOUT_S)
            if not ready:
                raise SystemExit("the node does not answer")
            for key, _ in ready:
                sock = key.fileobj  # type: ignore[assignment]
                answer = sock.recv(65536)
                if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
                    raise SystemExit(f"the node answered {answer[:300]!r}")
                sent.waits.append(time.perf_counter() - key.data)
                selector.unregister(sock)
                _next(sock, rest, selector)
        sent.seconds = time.perf_counter() - started
    sent.waits.sort()
    return sent


def _next(sock: socket.socket, rest: Iterator[bytes], selector: selectors.BaseSelector) -> None:
    request = next(rest, None)
    if request is None:
        sock.close()
        return
    selector.register(sock, selectors.EVENT_READ, time.perf_counter())
    sock.sendall(request)
