"""Connections that we serve ourselves: no thread each, nothing blocks, nothing interleaves.

Whoever writes to a connection either hands over a whole frame at once or is refused; of a frame
that the kernel takes in part, the rest waits here, and everybody else is refused until it is gone.
So a connection holds at most the rest of one frame, and what was posted in answer to its client.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from server import runtime

log = logging.getLogger(__name__)

TAKEN, PARTLY, REFUSED = range(3)
Frame = bytes | memoryview
MAX_POSTED = 4 << 20  # bytes of answers that may wait for a client that does not read
_SEND_BUFFER = 128 << 10  # bytes; the kernel would let one that does not read hold megabytes
_READ = 1 << 16
_IN = runtime.READABLE | runtime.HUNG_UP
_WRITABLE = runtime.WRITABLE


class Connection:
    """One client's socket."""

    __slots__ = (
        "_finishing",
        "_free",
        "_lock",
        "_size",
        "_sock",
        "_waiting",
        "blocked_at",
        "fd",
        "on_close",
        "on_data",
        "open",
        "poller",
        "send",
    )

    def __init__(self, sock: socket.socket, poller: Poller) -> None:
        """`on_data` and `on_close` are to be set before it is given to `Poller.add`."""
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._sock, self.poller, self.fd = sock, poller, sock.fileno()
        self.send = sock.send  # past all care: `server.burst`
        self._lock = runtime.real_lock()
        self._waiting: deque[Frame] | None = None
        self._free: list[Callable[[], None]] | None = None
        self._size = 0
        self._finishing = False
        self.open = True
        self.blocked_at = 0.0
        self.on_data: Callable[[bytes], None] = _ignore
        self.on_close: Callable[[], None] = _nothing

    @property
    def free(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._waiting

    def offer(self, frame: bytes) -> int:
        """Write a frame: TAKEN all of it, PARTLY (the rest follows), or REFUSED."""
        with self._lock:
            if self._waiting or not self.open:
                return REFUSED
            try:
                sent = self.send(frame)
            except BlockingIOError:
                return REFUSED
            except OSError:
                self._break()
                return REFUSED
            return TAKEN if sent == len(frame) else self._partly(frame, sent)

    def sent(self, frame: bytes, sent: int) -> int:
        """Note that the kernel has taken only so much of a frame."""
        with self._lock:
            return self._partly(frame, sent)

    def post(self, frame: bytes) -> None:
        """Write what must not be refused; who lets too much of it wait is cut."""
        with self._lock:
            if not self.open or self._finishing:
                return
            if self._waiting:
                self._wait_with(frame)
                if self._size > MAX_POSTED:
                    self._break()
                return
            try:
                sent = self.send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._break()
                return
            if sent < len(frame):
                self._wait_with(memoryview(frame)[sent:])

    def when_free(self, call: Callable[[], None]) -> None:
        """Call once, when a frame can be offered again; never after the connection has ended."""
        with self._lock:
            if self.open:
                self._free = [*(self._free or ()), call]
                self._block()

    def finish(self) -> None:
        """End the connection after what waits."""
        with self._lock:
            self._finishing = True
            if not self._waiting:
                self._break()

    def abort(self) -> None:
        """End the connection now."""
        with self._lock:
            self._break()

    def ready(self, events: int) -> None:
        """The poller saw that it can be read or written; only the poller calls this."""
        if events & _WRITABLE:
            self._flush()
        if events & ~_WRITABLE:
            self._receive()

    def end(self) -> None:
        """Take nothing more, and forget what waits; only the poller calls this."""
        with self._lock:
            self.open = False
            self._waiting = self._free = None

    def close(self) -> None:
        """Give the descriptor back; only the poller calls this."""
        self._sock.close()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.on_data(data)
        else:
            self.poller.drop(self)
            ended, self.on_data, self.on_close = self.on_close, _ignore, _nothing
            ended()  # forgotten before, as who set it holds this connection: no cycle stays

    def _flush(self) -> None:
        with self._lock:
            try:
                while self._waiting:
                    sent = self.send(self._waiting[0])
                    self._size -= sent
                    self.blocked_at = monotonic()
                    if sent < len(self._waiting[0]):
                        self._waiting[0] = memoryview(self._waiting[0])[sent:]
                        return
                    self._waiting.popleft()
            except BlockingIOError:
                return
            except OSError:
                self._break()
                return
            self._waiting = None
            self.blocked_at = 0.0
            self.poller.change(self, _IN)
            calls, self._free = self._free or (), None
            if self._finishing:
                self._break()
        for call in calls:
            call()

    def _partly(self, frame: bytes, sent: int) -> int:
        self._wait_with(memoryview(frame)[sent:])
        return PARTLY

    def _wait_with(self, frame: Frame) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(frame)
        self._size += len(frame)
        self._block()

    def _block(self) -> None:
        if not self.blocked_at:
            self.blocked_at = monotonic()
            self.poller.change(self, _IN | _WRITABLE)

    def _break(self) -> None:
        """The poller sees the end of it, and cleans up in its own time."""
        self.open = False
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is broken already, which the poller sees too


class Poller:
    """Waits for all connections in one thread.

    `alone` tells that no other thread of the operating system writes to them.
    """

    def __init__(self, mode: str) -> None:
        self._readiness = runtime.Readiness(mode)
        self.alone = runtime.is_green(mode)
        self._connections: dict[int, Connection] = {}
        self._blocked: dict[Connection, None] = {}

    def start(self) -> None:
        """Serve connections from now on."""
        threading.Thread(target=self._run, name="poller", daemon=True).start()

    def add(self, connection: Connection) -> None:
        """Watch a new connection."""
        self._connections[connection.fd] = connection
        self._readiness.add(connection.fd, _IN | _WRITABLE)  # so it flushes what waits already

    def change(self, connection: Connection, events: int) -> None:
        """Wait for other events of a connection."""
        if connection.fd in self._connections:
            self._readiness.change(connection.fd, events)
        if events & _WRITABLE:
            self._blocked[connection] = None
        else:
            self._blocked.pop(connection, None)

    def drop(self, connection: Connection) -> None:
        """A connection has ended. Its descriptor may be another's as soon as it is closed."""
        connection.end()
        self._readiness.remove(connection.fd)
        self._blocked.pop(connection, None)
        del self._connections[connection.fd]
        connection.close()

    def stalled(self, seconds: float) -> list[Connection]:
        """Connections that have accepted nothing for so long although something waits."""
        now = monotonic()
        return [each for each in list(self._blocked) if 0 < each.blocked_at < now - seconds]

    def any_blocked(self, connections: frozenset[Connection]) -> bool:
        """Whether something waits to be written to one of these."""
        return not connections.isdisjoint(self._blocked)

    def _run(self) -> None:
        while True:
            for fd, events in self._readiness.wait():
                connection = self._connections.get(fd)
                if connection is None:
                    continue
                try:
                    connection.ready(events)
                except Exception:
                    log.exception("a connection failed")
                    connection.abort()


def _ignore(data: bytes) -> None:
    """What a client of a stream sends means nothing."""


def _nothing() -> None:
    """Nobody wants to know."""
