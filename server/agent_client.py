"""The web process's view of the agent: blocking calls over pooled connections.

Written with plain sockets and threads, which are cooperative under eventlet (server/runtime.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from server import ipc
from server.ipc import Answer, FeedBatch, Led, Request
from server.logs import request_id
from server.posting import Line

MAX_CONNECTIONS = 256
_SURELY_OPEN_S = 0.1  # an agent that is restarted takes longer
TIMEOUT_S = 75.0  # above the longest deadline that a search or decision may ask for

_INT = struct.Struct("i")
_answer = msgspec.msgpack.Decoder(Answer).decode
_batch = msgspec.msgpack.Decoder(FeedBatch).decode
_led = msgspec.msgpack.Decoder(Led).decode


class AgentUnavailable(Exception):
    """The agent process does not answer; it is being restarted."""

    code = "agent_unavailable"
    status = 503
    retryable = True


class AgentClient:
    """Asks the agent; every connection carries one exchange at a time."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._idle: list[tuple[socket.socket, float]] = []  # with the time of its last exchange
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._line: Line | None = None  # for small bodies
        self._lines = threading.Lock()

    def call(self, method: str, params: dict[str, Any] | None = None, body: bytes = b"") -> Answer:
        """Ask once and wait for the answer, whatever its status.

        Raises AgentUnavailable where the agent cannot be reached or goes away meanwhile; whether
        a write took effect is unknown then, and an idempotency key makes the repeat safe.
        """
        asked = {"request_id": request_id(), **(params or {})}
        if method == "ingest" and len(body) <= ipc.SMALL_BYTES and "content_encoding" not in asked:
            return self._post(asked, body)
        frame = ipc.pack(Request(method, asked, body))
        with self._slots:
            sock = self._connection()
            try:
                sock.sendall(frame)
                answer = _answer(ipc.receive(sock)[0])  # nothing follows it
            except BaseException as exc:
                sock.close()
                if isinstance(exc, OSError):
                    raise AgentUnavailable(f"the agent process went away: {exc}") from exc
                raise
            self._idle.append((sock, time.monotonic()))
        return answer

    def _post(self, asked: dict[str, Any], body: bytes) -> Answer:
        try:
            return self._posting().post(asked, body)
        except OSError as exc:
            raise AgentUnavailable(f"the agent process went away: {exc}") from exc

    def _posting(self) -> Line:
        line = self._line
        if line and not line.lost:
            return line
        with self._lines:
            if self._line is None or self._line.lost:
                sock = self._connect()
                sock.sendall(ipc.pack(Request("intake", {})))
                ipc.receive(sock)
                self._line = Line(sock, TIMEOUT_S)
            return self._line

    def json(self, method: str, params: dict[str, Any] | None = None, body: bytes = b"") -> Any:
        """Decoded answer of a call that is known to succeed; raises CallFailed otherwise."""
        answer = self.call(method, params, body)
        document = msgspec.json.decode(answer.body)
        if answer.status >= 400:
            raise CallFailed(document)
        return document

    def feed(self, after: int, *, whole: bool) -> Feed:
        """What comes after an offset, for ever; raises AgentUnavailable."""
        return Feed(self._connect(), after, whole=whole)

    def leadership(self) -> Iterator[Led]:
        """Who leads, now and at every change; raises AgentUnavailable when the agent goes."""
        yield from map(_led, _Frames(_asked(self._connect(), Request("leadership", {}))))

    def _connection(self) -> socket.socket:
        while self._idle:
            sock, used_at = self._idle.pop()
            if time.monotonic() - used_at < _SURELY_OPEN_S or _still_open(sock):
                return sock
            sock.close()
        return self._connect()

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT_S)
        try:
            sock.connect(self._path)
        except OSError as exc:
            sock.close()
            raise AgentUnavailable(f"the agent process does not answer: {exc}") from exc
        return sock


class Feed:
    """What comes into the log: whole batches, or only how far it goes, as `FeedBatch` tells."""

    def __init__(self, sock: socket.socket, after: int, *, whole: bool) -> None:
        """Follow over this connection, which ends with the iteration; raises AgentUnavailable."""
        self._sock = _asked(sock, Request("feed", {"after": after, "whole": whole}))
        self._frames = _Frames(sock)

    def __iter__(self) -> Iterator[FeedBatch]:
        """Every frame; raises AgentUnavailable when the agent goes."""
        return map(_batch, self._frames)

    @property
    def more(self) -> bool:
        """Whether something has come that the iteration has not given yet."""
        return self._frames.more

    def want(self, *, whole: bool) -> None:
        """Have the frames that are not made yet hold batches, or not."""
        with contextlib.suppress(OSError):  # the iteration hears of it
            self._sock.sendall(ipc.pack(Request("feed", {"whole": whole})))


class CallFailed(Exception):
    """The agent refused; carries its problem document."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(document["detail"])
        self.document = document


def _still_open(sock: socket.socket) -> bool:
    """An idle connection has nothing to read unless the agent closed it."""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        sock.settimeout(TIMEOUT_S)
    return False


def _asked(sock: socket.socket, request: Request) -> socket.socket:
    """The connection, on which the agent now sends frames for ever."""
    sock.settimeout(None)
    try:
        sock.sendall(ipc.pack(request))
    except OSError as exc:
        sock.close()
        raise AgentUnavailable(f"the agent process went away: {exc}") from exc
    return sock


class _Frames:
    """Frames that the agent sends for ever."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._begun = sock, b""

    def __iter__(self) -> Iterator[bytes | bytearray]:
        with contextlib.closing(self._sock):
            while True:
                try:
                    payload, self._begun = ipc.receive(self._sock, self._begun)
                except OSError as exc:
                    raise AgentUnavailable(f"the agent's feed ended: {exc}") from exc
                yield payload

    @property
    def more(self) -> bool:
        """Whether more bytes are here already."""
        return bool(self._begun) or _unread(self._sock) > 0


def _unread(sock: socket.socket) -> int:
    """How many bytes wait to be received."""
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(_INT.size))
    except (OSError, ValueError):  # it is closed, which who reads hears of
        return 0
    return int(_INT.unpack(answer)[0])
