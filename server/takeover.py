"""An answer that outlives its request: the connection leaves the WSGI server and is ours.

A stream or a WebSocket would otherwise hold a green thread with its buffers for as long as it
lives. A view asks by `Carrier.begin`; once it has returned, the status and the headers that it and
everything around it gave are handed to `begin` with the connection's socket.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

CARRIER = "context.carrier"  # its place in the WSGI environment
Begin = Callable[[socket.socket, bytes, Callable[[], None]], None]
_OWN = frozenset({"content-length", "transfer-encoding"})


class Carrier:
    """What one request needs to give up its connection."""

    def __init__(self) -> None:
        self.begin: Begin | None = None
        self.taken = False
        self.left: threading.Event | None = None  # set when the connection has ended


def carrying(
    app: Any, take: Callable[[dict[str, Any]], socket.socket], leave: Callable[[Carrier], list[Any]]
) -> Any:
    """A WSGI application whose views may take connections over.

    `take` gives a socket of our own for a request's connection; `leave` is what the server is
    answered meanwhile or afterwards, so that it neither writes nor closes.
    """

    def wrapped(environ: dict[str, Any], start_response: Any) -> Any:
        carrier = environ[CARRIER] = Carrier()
        head = b""

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            nonlocal head
            if carrier.begin is None:
                return start_response(status, headers, *more)
            head = _head(status, headers)
            return None

        answer = app(environ, start)
        if carrier.begin is None:
            return answer
        if hasattr(answer, "close"):
            answer.close()
        begin, carrier.begin, carrier.taken = carrier.begin, None, True
        carrier.left = threading.Event()
        begin(take(environ), head, carrier.left.set)
        return leave(carrier)

    return wrapped


def _head(status: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in _OWN]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
