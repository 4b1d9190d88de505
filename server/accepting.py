"""A listening socket that goes on, however many connections there are.

Out of descriptors, a WSGI server's loop would end, and its process with all streams that it serves.
"""

from __future__ import annotations

import errno
import logging
import resource
import socket
import time
from contextlib import suppress
from typing import Any

log = logging.getLogger(__name__)
MOST = 1 << 16  # descriptors: a client takes 35 KiB, so all of them some gigabytes
KEPT = 64  # of them for everything but clients
TELL_S = 10.0
PAUSE_S = 0.1
_FATAL = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}  # of the listening socket itself: accept(2)


def raise_limit() -> None:
    """Use the descriptors that the system lets this process have, up to MOST.

    A login's default is 1,024, but may be raised by whoever needs more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # where it is not allowed after all
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Acceptor:
    """Takes the place of a listening socket.

    Connections that would take the last descriptors are sent `refusal` and closed.
    """

    def __init__(self, sock: socket.socket, refusal: bytes) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        kept = min(KEPT, soft // 4)
        self._most = soft - kept if soft != resource.RLIM_INFINITY else float("inf")
        self._sock, self._refusal = sock, refusal
        self._told = float("-inf")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection, and its client's address."""
        while True:
            try:
                client, address = self._sock.accept()
            except OSError as exc:
                if exc.errno in _FATAL:
                    raise
                self._tell("a connection could not be taken", reason=str(exc))
                time.sleep(PAUSE_S)
                continue
            if client.fileno() < self._most:  # the system gives the lowest that is free
                return client, address
            self._tell("too many connections; raise the limit (ulimit -n)", taken=self._most)
            with client, suppress(OSError):
                client.send(self._refusal)
            time.sleep(0)  # those who are served get their turn between two of them

    def _tell(self, text: str, **about: Any) -> None:
        now = time.monotonic()
        if now - self._told > TELL_S:
            self._told = now
            log.warning(text, extra=about)
