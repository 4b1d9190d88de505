"""How the web process runs: eventlet, threads or gevent. The only module that knows them.

`patch` must run before anything else is imported; afterwards plain `threading`, `socket` and
`queue` are cooperative under eventlet and gevent, so no other module asks which mode it is.
"""

from __future__ import annotations

import http
import importlib
import os
import signal
import socket
import sys
import threading
import time
import warnings
from _thread import allocate_lock
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll
from typing import Any

from server import problems
from server.accepting import Acceptor
from server.plain_http import PlainHttp, about
from server.takeover import CARRIER, Carrier, carrying

MODES = ("eventlet", "threading", "gevent")
READ_BYTES = 32 * 1024  # of a connection at once
ASKED_S = 0.1  # how late a signal to end is noticed
DRAIN_S = 5.0  # of the supervisor's 8
MAX_CONNECTIONS = 20_000  # eventlet's own default of 1,024 would starve subscribers
READABLE, WRITABLE, HUNG_UP = EPOLLIN, EPOLLOUT, EPOLLRDHUP

# As they were before `patch`. A lock that is held over nothing that could switch green threads
# costs 0.1 µs as it is, and 2 µs in its green form.
real_lock = allocate_lock
_Socket = socket.socket


def patch(mode: str) -> None:
    """Make the standard library cooperative where the mode needs it."""
    if mode == "eventlet":
        # Known, and the reason why only this module and this process kind use it (docs/design.md).
        warnings.filterwarnings("ignore", message="\\s*Eventlet is deprecated")
        # Its own resolver would be a third of a second and 16 MB of each start.
        os.environ["EVENTLET_NO_GREENDNS"] = "yes"
        importlib.import_module("eventlet").monkey_patch()
        green: Any = importlib.import_module("eventlet.green.socket")
        green.getaddrinfo = socket.getaddrinfo = _looking_up(socket.getaddrinfo, offload(mode))
    elif mode == "gevent":
        importlib.import_module("gevent.monkey").patch_all()
    # Counting takes the real one too: a request counts thrice.
    values: Any = importlib.import_module("prometheus_client.values")
    values.Lock = real_lock


def _looking_up(look_up: Callable[..., Any], aside: Callable[..., Any]) -> Callable[..., Any]:
    """`getaddrinfo` that waits for name servers aside; an address needs none."""

    def getaddrinfo(  # noqa: PLR0917 - as the standard library has it
        host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        try:
            return look_up(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)
        except socket.gaierror:
            return aside(lambda: look_up(host, port, family, type, proto, flags))

    return getaddrinfo


def is_green(mode: str) -> bool:
    """Whether threads are green: all of them in one thread of the operating system."""
    return mode != "threading"


def offload(mode: str) -> Callable[[Callable[[], Any]], Any]:
    """How to run long work in a thread of the operating system, where threads are green."""
    if mode == "eventlet":
        execute: Callable[[Callable[[], Any]], Any]
        execute = importlib.import_module("eventlet.tpool").execute
        return execute
    if mode == "gevent":
        apply: Callable[[Callable[[], Any]], Any]
        apply = importlib.import_module("gevent").get_hub().threadpool.apply
        return apply
    return lambda work: work()


class Readiness:
    """Waits for many sockets at once, in one thread, green or not."""

    def __init__(self, mode: str) -> None:
        self._epoll = epoll()
        self.add, self.change = self._epoll.register, self._epoll.modify
        self.remove = self._epoll.unregister
        self._until_any: Callable[[int], Any] | None = None
        if mode == "eventlet":
            hubs = importlib.import_module("eventlet.hubs")
            self._until_any = lambda fd: hubs.trampoline(fd, read=True)
            # Waiting for what never comes keeps it registered with eventlet. Else it would be so
            # anew for each wait, and the kernel looks at every socket in it each time (measured:
            # 0.3 ms for 1,000).
            hubs.get_hub().add("write", self._epoll.fileno(), *[_nothing] * 3)
        elif mode == "gevent":
            self._until_any = importlib.import_module("gevent.socket").wait_read

    def wait(self) -> list[tuple[int, int]]:
        """Wait until something happens: pairs of descriptor and events."""
        if self._until_any is None:
            return self._epoll.poll()
        self._until_any(self._epoll.fileno())
        return self._epoll.poll(0)


def _nothing(*_: object) -> None:
    """Never called."""


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening TCP socket, `shared` with other processes; raises OSError naming the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted connections inherit it. Without it an answer in two pieces waits 40 ms for the
    # client's delayed acknowledgement of the first (RFC 896 meets RFC 1122, 4.2.3.2).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        raise OSError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    sock.listen(4096)
    return sock


def serve(
    app: Any,
    sock: socket.socket,
    mode: str,
    *,
    busy: Callable[[], bool],
    plain: PlainHttp | None = None,
) -> None:
    """Serve the WSGI app on the socket; SIGTERM ends the process once nothing is `busy` any more.

    `plain` serves the plain requests, where the mode knows how. Streams are cut: their clients
    resume by cursor. This process holds nothing else to save.
    """

    asked: list[int] = []  # a signal may come while no green thread runs: its handler only notes it

    def drain() -> None:
        while not asked:
            time.sleep(ASKED_S)
        deadline = time.monotonic() + DRAIN_S
        while busy() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.05)  # the last answer is on its way out
        os._exit(0)

    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the supervisor's
    threading.Thread(target=drain, daemon=True).start()
    _SERVERS[mode](app, sock, plain)


def serve_beside(app: Any, sock: socket.socket) -> None:
    """Serve another socket too, in a green thread (eventlet)."""
    threading.Thread(target=_serve_eventlet, args=(app, sock, None), daemon=True).start()


def _serve_eventlet(app: Any, sock: socket.socket, plain: PlainHttp | None) -> None:
    wsgi: Any = importlib.import_module("eventlet.wsgi")

    def handle(handler: Any) -> None:
        connection, going_on = handler.connection, True
        known = about(connection.getsockname(), handler.client_address) if plain else {}
        while going_on:
            served = plain.serve(connection, handler.rfile, known) if plain else None
            if served is None:
                handler.handle_one_request()
            going_on = not handler.close_connection if served is None else served

    def parse_request(handler: Any) -> bool:
        try:
            parsed: bool = wsgi.HttpProtocol.parse_request(handler)
        except (wsgi.HeaderLineTooLong, wsgi.HeadersTooLarge):
            handler.send_error(431)
            return False
        if parsed and not handler.headers.get("Content-Length", "0").isdecimal():
            handler.send_error(400)
            return False
        return parsed

    def finish(handler: Any) -> None:
        # It refers to the handler: what this connection took, 12 KiB, would wait for the collector.
        carrier = vars(handler).pop("environ", {}).get(CARRIER)
        if not (carrier and carrier.taken):
            wsgi.HttpProtocol.finish(handler)
            return
        for each in (handler.rfile, handler.wfile, handler.connection):
            each.close()  # and no shutdown: the connection goes on

    def leave(carrier: Carrier) -> list[Any]:
        wsgi.WSGI_LOCAL.already_handled = True
        return []

    wsgi.RESPONSE_414 = _refusal(414)
    own = {
        "rbufsize": READ_BYTES,
        "handle": handle,
        "parse_request": parse_request,
        "send_error": _send_error,
        "finish": finish,
    }
    wsgi.server(
        Acceptor(sock, _refusal(503)),
        carrying(
            _with_chunked_bodies(app),
            lambda environ: _own(environ["eventlet.input"].get_socket()),
            leave,
        ),
        protocol=type("Protocol", (wsgi.HttpProtocol,), own),
        log_output=False,
        max_size=MAX_CONNECTIONS,
        minimum_chunk_size=1,  # server-sent events leave at once instead of in 4 KiB pieces
        socket_timeout=75,  # of one read or write: whoever sends half a request does not stay
        keepalive=75,
    )


def _with_chunked_bodies(app: Any) -> Any:
    """Say that chunked input ends by itself, as eventlet makes it do but does not tell."""

    def wrapped(environ: dict[str, Any], start_response: Any) -> Any:
        if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
            environ["wsgi.input_terminated"] = True
        return app(environ, start_response)

    return wrapped


REFUSALS = {
    400: ("bad_request", "this is not an HTTP/1.1 request"),
    414: ("uri_too_long", "the address is too long; send large queries in a body"),
    431: ("headers_too_large", "there are too many headers, or too long ones"),
    503: ("too_many_connections", "this process has as many connections as the system allows"),
}


def _refusal(status: int) -> bytes:
    """The whole answer to what is not even a request."""
    code, detail = REFUSALS.get(status, REFUSALS[400])
    answer = problems.answer(problems.problem(status, code, detail, retryable=status == 503))
    head = {**answer.headers, "Content-Length": len(answer.body), "Connection": "close"}
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in head.items()]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body


def _send_error(handler: Any, status: int, *_: object, **__: object) -> None:
    """Replaces `BaseHTTPRequestHandler.send_error`, whose answer is a page."""
    handler.close_connection = True
    handler.wfile.write(_refusal(status))


def _own(sock: Any) -> socket.socket:
    """A plain socket of the same connection, whatever becomes of the given one."""
    return _Socket(fileno=os.dup(sock.fileno()))


def _stay(carrier: Carrier) -> list[Any]:
    """Keep the server's thread until the connection ends; then end it as if the client had."""
    if carrier.left:
        carrier.left.wait()
    raise ConnectionError("the connection was taken over")


def _serve_threading(app: Any, sock: socket.socket, _: PlainHttp | None) -> None:
    serving = importlib.import_module("werkzeug.serving")
    handler = type(
        "Handler",
        (serving.WSGIRequestHandler,),
        {
            "protocol_version": "HTTP/1.1",
            "log_request": lambda *_: None,
            "send_error": _send_error,
        },
    )
    host, port = sock.getsockname()[:2]
    app = carrying(app, lambda environ: _own(environ["werkzeug.socket"]), _stay)
    server = serving.make_server(
        host, port, app, threaded=True, request_handler=handler, fd=sock.detach()
    )
    server.daemon_threads = True
    server.serve_forever()


def _serve_gevent(app: Any, sock: socket.socket, _: PlainHttp | None) -> None:
    pywsgi = importlib.import_module("gevent.pywsgi")
    app = carrying(app, lambda environ: _own(environ["wsgi.input"].rfile.raw._sock), _stay)
    pywsgi.WSGIServer(sock, app, log=None, error_log=sys.stderr).serve_forever()


_SERVERS = {"eventlet": _serve_eventlet, "threading": _serve_threading, "gevent": _serve_gevent}
