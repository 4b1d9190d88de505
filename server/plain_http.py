"""Plain requests, read and answered without what the standard library does for all others.

Parsing headers as mail and building the answer piece by piece cost more than all the rest of a
small request (measured: 130 of 270 microseconds). Taken is only what lies in the buffer with its
whole head, is well formed beyond doubt, and asks for a call that answers in one piece. Of all
else nothing has been consumed, and the WSGI server does with it as ever.
"""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Collection
from email.utils import formatdate
from typing import Any

Environ = dict[str, Any]

MAX_HEADS = 512  # that are remembered: a client's requests differ little or not at all
PIECE_BYTES = 64 * 1024
_ASKED = re.compile(r"POST (/[A-Za-z0-9/_.-]*) HTTP/1\.1")
_NAME = re.compile("[A-Za-z0-9-]+")
_OTHER = {"EXPECT", "TE", "TRAILER", "TRANSFER_ENCODING", "UPGRADE"}  # ask for more than is plain
_BARE = {"CONTENT_LENGTH", "CONTENT_TYPE"}
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})(?=\r\n|\Z)", re.IGNORECASE)
_END = b"\r\n\r\n"


def parse(head: bytes) -> Environ | None:
    """What a WSGI environment tells of a request's head, without the empty line; None unless plain.

    Plain is a POST by HTTP/1.1 with a length, each header once, that keeps its connection.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    asked = _ASKED.fullmatch(first)
    if asked is None:
        return None
    fields: Environ = {}
    for line in lines:
        name, colon, value = line.partition(":")
        value, key = value.strip(" \t"), name.upper().replace("-", "_")
        known = key in fields or f"HTTP_{key}" in fields
        if not (colon and _NAME.fullmatch(name) and value.isprintable()) or known or key in _OTHER:
            return None
        fields[key if key in _BARE else f"HTTP_{key}"] = value
    length = fields.get("CONTENT_LENGTH", "")
    if not (length.isascii() and length.isdecimal() and len(length) < 16):
        return None
    if fields.get("HTTP_CONNECTION", "keep-alive").lower() != "keep-alive":
        return None
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": asked[1],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": "text/plain",  # as the server has it where none is told
        **fields,
    }


class Body(io.RawIOBase):
    """A request's body: `left` bytes of the connection, read when they are asked for."""

    def __init__(self, file: io.BufferedReader, length: int) -> None:
        self._file, self.left = file, length

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer only at the end. Raises OSError, and at a second try for more."""
        wanted = self.left if size < 0 else min(size, self.left)
        got = self._file.read(wanted)
        self.left -= len(got)
        return got


class PlainHttp:
    """Serves plain requests for some paths from the buffers of a server's connections."""

    def __init__(self, app: Any, paths: Collection[str], max_bytes: int) -> None:
        """`app` answers in one piece and tells its length; larger bodies are the server's."""
        self._app, self._paths, self._max_bytes = app, frozenset(paths), max_bytes
        self._heads: dict[bytes, Environ] = {}
        self._date = 0, b""

    def serve(self, connection: Any, file: io.BufferedReader, about: Environ) -> bool | None:
        """Answer the next request; False where the connection is of no use any more.

        None where the request is not plain and `file` still holds all of it. `about` tells of the
        connection.
        """
        found = self._next(file)
        if found is None:
            return None
        environ, length = {**found[0], **about}, found[1]
        environ["CONTENT_LENGTH"] = str(length)
        body = environ["wsgi.input"] = Body(file, length)
        head: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            lines = [f"HTTP/1.1 {status}", *[f"{name}: {value}" for name, value in headers]]
            head[:] = ["\r\n".join(lines).encode("latin-1"), b"\r\nDate: ", self._now(), _END]

        try:
            pieces = self._app(environ, start_response)
            connection.sendall(b"".join((*head, *pieces)))
            if hasattr(pieces, "close"):
                pieces.close()
            while body.left:
                if not body.read(PIECE_BYTES):
                    return False
        except OSError:  # the client is gone, or too slow
            return False
        return True

    def _next(self, file: io.BufferedReader) -> tuple[Environ, int] | None:
        """The head of the next request and the length of its body, consumed if it is plain."""
        seen = file.peek()
        end = seen.find(_END)
        told = _LENGTH.search(seen, 0, end) if end >= 0 else None
        if told is None:
            return None
        # Requests of one client often differ in their length alone.
        head, length = seen[: told.start(1)] + b"0" + seen[told.end(1) : end], int(told[1])
        environ = self._heads.get(head)
        if environ is None:
            environ = parse(head)
            if environ is None or environ["PATH_INFO"] not in self._paths:
                return None
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            self._heads[head] = environ
        if length > self._max_bytes:
            return None
        file.read(end + 4)
        return environ, length

    def _now(self) -> bytes:
        now = int(time.time())
        if self._date[0] != now:
            self._date = now, formatdate(now, usegmt=True).encode()
        return self._date[1]


def about(server: tuple[str, int], client: tuple[str, int]) -> Environ:
    """What an environment tells of a connection."""
    return {
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.url_scheme": "http",
    }
