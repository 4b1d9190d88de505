"""The least that delivery can cost here: a loop that sends ready bytes, and stores nothing.

    python -m bench.bare PORT

Whoever asks with GET gets an event stream; each POST's body goes to all streams before it is
answered. `bench.fanout` runs it beside the node: what is faster than this is not Python.
"""

from __future__ import annotations

import selectors
import socket
import sys

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Bare:
    """One publisher, many streams."""

    def __init__(self, port: int) -> None:
        self._selector = selectors.EpollSelector()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited
        self._streams: list[socket.socket] = []
        self._selector.register(self._listener, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until killed."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._serve(key.fileobj)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        self._selector.register(sock, selectors.EVENT_READ)

    def _serve(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(1 << 16)
        except ConnectionError:  # a subscriber that was killed
            data = b""
        if data.startswith(b"POST "):
            self._publish(data.partition(b"\r\n\r\n")[2])
            sock.send(DONE)
            return
        self._selector.unregister(sock)  # an end is seen in sending
        if data:
            sock.send(STREAM)
            sock.setblocking(False)
            self._streams.append(sock)

    def _publish(self, body: bytes) -> None:
        frame, ended = b"data: %b\n\n" % body, []
        for sock in self._streams:
            try:
                sock.send(frame)
            except OSError:
                ended.append(sock)
        for sock in ended:
            self._streams.remove(sock)
            sock.close()


if __name__ == "__main__":
    Bare(int(sys.argv[1])).run()
