"""HTTP to another node: connections kept alive, one exchange at a time on each.

Written with plain sockets, which are cooperative under eventlet (server/runtime.py). It tells apart
what nobody got (`NotSent`) from what somebody may have done (`Unanswered`), which is the difference
between trying again and asking first.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from server.ipc import Answer

MOST = 256  # connections at the same time
SLOT_S = 5.0
CONNECT_S = 2.0
IDLE_S = 30.0  # a node closes connections that were idle for 75 s
SEND_S = 30.0  # for one piece of a body
SLICE_S = 0.25  # how late a waiting request notices that its answer will not come
HEAD_BYTES = 64 << 10
_PIECE = 64 << 10


class NotSent(Exception):
    """The node cannot be reached or did not take the whole request: it did nothing."""


class Unanswered(Exception):
    """The node took the request, and no whole answer came: it may have done it."""


@dataclass(frozen=True, slots=True)
class Sending:
    """One request as it goes over the wire."""

    method: str
    target: str  # path and query, encoded
    headers: Mapping[str, str]
    body: bytes

    def head(self, host: str) -> bytes:
        """Everything before the body."""
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Upstream:
    """Connections to other nodes."""

    def __init__(self) -> None:
        self._idle: dict[str, list[tuple[socket.socket, float]]] = {}
        self._slots = threading.BoundedSemaphore(MOST)

    def ask(self, url: str, sending: Sending, gone: Callable[[], bool]) -> Answer:
        """Send a request and wait for its answer, until `gone` says that none is to be expected.

        Raises NotSent, Unanswered.
        """
        host = urlsplit(url).netloc
        if not self._slots.acquire(timeout=SLOT_S):
            raise NotSent(f"{MOST} requests wait for {host} already")
        try:
            sock = self._connection(host)
            try:
                self._send(sock, sending, host)
                answer, again = _Reply(sock, gone).read(bodiless=sending.method == "HEAD")
            except BaseException:
                sock.close()
                raise
            if again:
                self._idle.setdefault(host, []).append((sock, time.monotonic()))
            else:
                sock.close()
        finally:
            self._slots.release()
        return answer

    def close(self) -> None:
        """Close what nobody uses now."""
        for idle in list(self._idle.values()):
            while idle:
                idle.pop()[0].close()

    def _send(self, sock: socket.socket, sending: Sending, host: str) -> None:
        head = sending.head(host)
        try:
            if len(sending.body) <= _PIECE:
                sock.sendall(head + sending.body)
            else:
                sock.sendall(head)
                sock.sendall(sending.body)
        except OSError as exc:
            raise NotSent(f"{host} did not take the request: {exc}") from exc

    def _connection(self, host: str) -> socket.socket:
        idle = self._idle.get(host, [])
        while idle:
            sock, used_at = idle.pop()
            if time.monotonic() - used_at < IDLE_S and _still_open(sock):
                return sock
            sock.close()
        name, _, port = host.rpartition(":")
        try:
            sock = socket.create_connection((name.strip("[]"), int(port)), CONNECT_S)
        except (OSError, ValueError) as exc:
            raise NotSent(f"{host} cannot be reached: {exc}") from exc
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(SEND_S)
        return sock


def _still_open(sock: socket.socket) -> bool:
    """An idle connection has nothing to read unless the other side closed it."""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        sock.settimeout(SEND_S)
    return False


class _Reply:
    """Reads one answer (RFC 9112): of a told length, in chunks, or up to the connection's end."""

    def __init__(self, sock: socket.socket, gone: Callable[[], bool]) -> None:
        self._sock, self._gone = sock, gone
        self._buffer = bytearray()

    def read(self, *, bodiless: bool) -> tuple[Answer, bool]:
        """The answer, and whether the connection can carry another one. Raises Unanswered."""
        self._sock.settimeout(SLICE_S)
        try:
            status, headers = self._head()
            while status < 200:
                status, headers = self._head()
            length = headers.get("content-length", "")
            again = headers.get("connection", "").lower() != "close"
            if bodiless or status in (204, 304):
                body = b""
            elif headers.get("transfer-encoding", "").lower() == "chunked":
                body = self._chunks()
            elif length.isdecimal():
                body = self._exactly(int(length))
            else:
                body, again = self._rest(), False
        except (OSError, EOFError, ValueError) as exc:
            raise Unanswered(f"no whole answer came: {exc}") from exc
        with suppress(OSError):
            self._sock.settimeout(SEND_S)
        named = {name.title(): value for name, value in headers.items()}
        return Answer(status, named, body), again and not self._buffer

    def _head(self) -> tuple[int, dict[str, str]]:
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines[1:])
        return int(lines[0].partition(" ")[2][:3]), {k.lower(): v.strip() for k, _, v in fields}

    def _chunks(self) -> bytes:
        body = bytearray()
        while size := int(self._until(b"\r\n").partition(b";")[0], 16):
            body += self._exactly(size + 2)[:-2]
        while self._until(b"\r\n"):
            pass  # trailers
        return bytes(body)

    def _until(self, mark: bytes) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > HEAD_BYTES:
                raise ValueError("its head is too long")
            self._more()
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def _rest(self) -> bytes:
        with suppress(EOFError):
            while True:
                self._more()
        return bytes(self._buffer)

    def _more(self) -> None:
        while True:
            try:
                piece = self._sock.recv(_PIECE)
            except TimeoutError:
                if self._gone():
                    raise
                continue
            if not piece:
                raise EOFError("the connection was closed")
            self._buffer += piece
            return
