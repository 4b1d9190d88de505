"""The web process's way for small bodies: many at a time on one connection to the agent.

Who posts waits for a lock that the reading thread releases. One of those who post at once writes
for all of them, so that the agent can check and store them together; it answers in one piece what
one commit made durable.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import msgspec

from server import ipc
from server.ipc import Answer, Posted, Told
from server.runtime import real_lock

_told = msgspec.msgpack.Decoder(Told).decode


class Waiting:
    """Who waits for an answer; who has got one can wait again."""

    __slots__ = ("answer", "lock", "since")

    def __init__(self) -> None:
        self.since = 0.0
        self.answer: Answer | None = None  # None once the lock is free: the connection was lost
        self.lock = threading.Lock()
        self.lock.acquire()


class Line:
    """One connection that the agent has taken for `intake`, until it is lost.

    It is given up where one answer takes too long. The reading thread looks after that: a timer of
    its own for everyone who waits would cost as much as the waiting.
    """

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        """`sock` is this line's alone from now on; nobody waits longer than twice `timeout_s`."""
        self.lost: OSError | None = None
        self._sock, self._timeout_s = sock, timeout_s
        self._numbers = itertools.count()
        self._waiting: dict[int, Waiting] = {}
        self._unused: list[Waiting] = []
        self._out: list[bytearray] = []
        self._lock = real_lock()
        self._writing = False
        sock.settimeout(timeout_s)
        threading.Thread(target=self._read, name="posted", daemon=True).start()

    def post(self, params: dict[str, Any], body: bytes) -> Answer:
        """Post and wait for the answer; raises OSError where the agent goes away meanwhile."""
        try:
            waiting = self._unused.pop()
        except IndexError:
            waiting = Waiting()
        waiting.since, number = time.monotonic(), next(self._numbers)
        frame = ipc.pack(Posted(number, params, body))
        with self._lock:
            if self.lost:
                raise self.lost
            self._waiting[number] = waiting
            self._out.append(frame)
            mine, self._writing = not self._writing, True
        if mine:
            time.sleep(0)  # whoever else can post now does so before all is written
            self._write()
        waiting.lock.acquire()
        answer, waiting.answer = waiting.answer, None
        if answer is None:
            raise self.lost or ConnectionResetError("connection closed")
        self._unused.append(waiting)
        return answer

    def lose(self, why: OSError) -> None:
        """Give up the connection; all who wait hear of it."""
        with self._lock:
            self.lost = self.lost or why
            waiting, self._waiting = self._waiting, {}
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # ends the reading
        for each in waiting.values():
            each.lock.release()

    def _write(self) -> None:
        while True:
            with self._lock:
                out, self._out = self._out, []
                if not out:
                    self._writing = False
                    return
            try:
                self._sock.sendall(out[0] if len(out) == 1 else b"".join(out))
            except OSError as exc:
                self.lose(exc)

    def _read(self) -> None:
        begun = b""
        try:
            while True:
                self._check()
                try:
                    payload, begun = ipc.receive(self._sock, begun)
                except TimeoutError:  # amid an answer somebody waits for it: that ends here too
                    continue
                told = _told(payload)
                waiting = self._waiting.pop(told.number, None)
                if waiting:  # else it was lost meanwhile
                    waiting.answer = Answer(told.status, told.headers, told.body)
                    waiting.lock.release()
        except OSError as exc:
            self.lose(exc)
        finally:
            self.lose(ConnectionResetError("connection closed"))
            self._sock.close()

    def _check(self) -> None:
        """Raises TimeoutError where somebody waits too long."""
        with self._lock:
            oldest = next(iter(self._waiting.values()), None)
        if oldest and time.monotonic() - oldest.since >= self._timeout_s:
            raise TimeoutError(f"no answer within {self._timeout_s} s")
