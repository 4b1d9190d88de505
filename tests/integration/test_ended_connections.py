"""What a client's connection took is free once it has ended: no cycle waits for the collector."""

from __future__ import annotations

import gc
import socket
import threading
import weakref
from collections.abc import Iterator

import engineio
import engineio.socket
import pytest

from server.beats import Beats
from server.connections import Connection, Poller
from server.websocket import Transport, install
from tests.node_process import run_script, wait_for

DEADLINE_S = 10.0
# One client is answered, another's connection is taken over as by a stream: each in its own life.
SERVED = """
from server import runtime
runtime.patch("eventlet")

import gc, socket, threading, time
from server.takeover import CARRIER

taken = []

def app(environ, start_response):
    if environ["PATH_INFO"] == "/stream":
        environ[CARRIER].begin = lambda sock, head, left: taken.append(sock)
    start_response("200 OK", [("Content-Length", "0")])
    return []

listening = runtime.listen("127.0.0.1", 0)
gc.disable()
threading.Thread(target=runtime.serve_beside, args=(app, listening)).start()
for path in ("/", "/stream"):
    with socket.create_connection(listening.getsockname()) as sock:
        sock.sendall(b"GET %s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" % path.encode())
        if path == "/":
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        while path == "/stream" and not taken:
            time.sleep(0.005)
deadline, left = time.monotonic() + 10, 1
while left and time.monotonic() < deadline:
    time.sleep(0.005)
    left = sum(type(each).__name__ == "Protocol" for each in gc.get_objects())
print(left, len(taken), flush=True)
import os
os._exit(0)
"""


@pytest.fixture
def poller() -> Iterator[Poller]:
    """One that runs, while only reference counts free anything."""
    poller = Poller("threading")
    poller.start()
    gc.disable()
    yield poller
    gc.enable()


class Owner:
    """Who serves a connection, and holds it."""

    def __init__(self, sock: socket.socket, poller: Poller) -> None:
        self.connection = Connection(sock, poller)
        self.connection.on_data, self.connection.on_close = self.take, self.close
        self.ended = threading.Event()

    def take(self, data: bytes) -> None:
        """Nothing is done with it."""

    def close(self) -> None:
        """The last that it hears."""
        self.ended.set()


def test_a_connection_forgets_who_served_it(poller: Poller) -> None:
    ours, client = socket.socketpair()
    owner = Owner(ours, poller)
    known, ended = weakref.ref(owner), owner.ended
    poller.add(owner.connection)
    del owner
    assert known() is not None
    client.close()
    assert ended.wait(DEADLINE_S)
    wait_for(lambda: known() is None, "all of it to be free", DEADLINE_S)


def test_an_engine_io_client_is_free_before_its_next_ping_is_due(poller: Poller) -> None:
    server, pings = engineio.Server(async_mode="threading"), Beats(3600)
    server.on("connect", lambda sid, environ: None)
    install(server, poller, pings, upgraded=lambda sid: None)
    engine = server.sockets["sid"] = engineio.socket.Socket(server, "sid")
    server.handlers["connect"]("sid", {})
    engine.schedule_ping()
    ours, client = socket.socketpair()
    left = threading.Event()
    Transport(poller, lambda sid: None, engine._upgrade_websocket, server)._begin(
        ours, b"", left.set
    )
    known = weakref.ref(engine)
    del engine
    assert known() is not None
    client.close()
    assert left.wait(DEADLINE_S)
    wait_for(lambda: known() is None, "all of it to be free", DEADLINE_S)
    assert server.sockets == {}


def test_nothing_of_an_http_connection_waits_for_the_collector() -> None:
    done = run_script(SERVED)
    assert done.stdout == "0 1\n", done.stdout + done.stderr
