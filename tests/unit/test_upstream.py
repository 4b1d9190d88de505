"""Asking another node over a real socket, whose other end does all that a wire can do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from server.upstream import NotSent, Sending, Unanswered, Upstream

POST = Sending("POST", "/api/x", {"Accept": "*/*"}, b"body")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContext-Node: n1\r\n\r\nhi"


def never() -> bool:
    return False


@contextmanager
def peer(*plays: Callable[[socket.socket], None]) -> Iterator[str]:
    """A node that treats its first connection, the second... as told; then takes no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for play in plays:
                sock, _ = server.accept()
                with sock:
                    play(sock)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)


def request(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\nbody"):
        piece = sock.recv(4096)
        assert piece, f"the asker closed after {data!r}"
        data += piece
    return data


def answering(*answers: bytes) -> Callable[[socket.socket], None]:
    def play(sock: socket.socket) -> None:
        for answer in answers:
            request(sock)
            sock.sendall(answer)
        with suppress(ConnectionResetError):
            sock.recv(1)  # until the asker is done with it

    return play


def test_one_connection_carries_many_requests() -> None:
    seen: list[bytes] = []

    def play(sock: socket.socket) -> None:
        for _ in range(3):
            seen.append(request(sock))
            sock.sendall(OK)

    with peer(play) as url, closing(Upstream()) as upstream:
        for _ in range(3):
            answer = upstream.ask(url, POST, never)
            assert (answer.status, answer.body) == (200, b"hi")
            assert answer.headers["Context-Node"] == "n1"
    host = url.removeprefix("http://").encode()
    assert seen[0].split(b"\r\n") == [
        b"POST /api/x HTTP/1.1",
        b"Host: " + host,
        b"Accept: */*",
        b"Content-Length: 4",
        b"",
        b"body",
    ]


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (
            b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"hi"),
        (b"HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", b""),
    ],
)
def test_every_form_of_an_answer_is_read(wire: bytes, body: bytes) -> None:
    with peer(answering(wire, OK)) as url, closing(Upstream()) as upstream:
        assert upstream.ask(url, POST, never).body == body
        assert upstream.ask(url, POST, never).body == b"hi", "the connection goes on"


def test_an_answer_may_end_with_its_connection() -> None:
    def play(sock: socket.socket) -> None:
        request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    with peer(play) as url:
        assert Upstream().ask(url, POST, never).body == b"all of it"


def test_a_closed_connection_is_not_used_again() -> None:
    closed = threading.Event()

    def once(sock: socket.socket) -> None:
        request(sock)
        sock.sendall(OK)
        sock.close()
        closed.set()

    with peer(once, once) as url, closing(Upstream()) as upstream:
        assert upstream.ask(url, POST, never).body == b"hi"
        assert closed.wait(10)
        assert upstream.ask(url, POST, never).body == b"hi"


def test_what_nobody_got_is_told_apart_from_what_nobody_answered() -> None:
    with pytest.raises(NotSent):
        Upstream().ask("http://127.0.0.1:1", POST, never)
    for wire in (b"", OK[:-1], b"HTTP/1.1 200 OK\r\nContent-Le", b"hello\r\n\r\n"):

        def play(sock: socket.socket, wire: bytes = wire) -> None:
            request(sock)
            sock.sendall(wire)

        with peer(play) as url, pytest.raises(Unanswered):
            Upstream().ask(url, POST, never)


def test_it_stops_waiting_when_told() -> None:
    with peer(lambda sock: (request(sock), sock.recv(1))[0]) as url, pytest.raises(Unanswered):
        Upstream().ask(url, POST, lambda: True)
