"""Plain requests: what is taken, what is left to the server, and what becomes of bodies."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.plain_http import PlainHttp, parse

PLAIN = [b"POST /ingest HTTP/1.1", b"Host: a", b"Content-Type: application/json"]


def head(*more: bytes, first: bytes = PLAIN[0]) -> bytes:
    return b"\r\n".join([first, *PLAIN[1:], *more])


def test_a_plain_head_becomes_an_environment() -> None:
    found = parse(head(b"Content-Length: 2", b"Idempotency-Key:  a b \t"))
    assert found is not None
    assert found.items() >= {
        ("REQUEST_METHOD", "POST"),
        ("PATH_INFO", "/ingest"),
        ("CONTENT_TYPE", "application/json"),
        ("CONTENT_LENGTH", "2"),
        ("HTTP_HOST", "a"),
        ("HTTP_IDEMPOTENCY_KEY", "a b"),
    }


@pytest.mark.parametrize(
    "given_head",
    [
        head(),
        head(b"Content-Length: 2", b"Content-Length: 2"),
        head(b"Content-Length: 2", b"content-length: 3"),
        head(b"Content-Length: 2", b"Transfer-Encoding: chunked"),
        head(b"Content-Length: 2", b"Expect: 100-continue"),
        head(b"Content-Length: 2", b"Connection: close"),
        head(b"Content-Length: +2"),
        head(b"Content-Length: \xb2"),
        head(b"Content-Length: 99999999999999999999"),
        head(b"Content-Length : 2"),
        head(b"Content-Length: 2", b"Content_Length: 3"),
        head(b"Content-Length: 2", b"HTTP-Host: b", b"Host: c"),
        head(b"Content-Length: 2", b" folded"),
        head(b"Content-Length: 2", b"X: a\nY: b"),
        head(b"Content-Length: 2", b"X: a\rY: b"),
        head(b"Content-Length: 2", b"X: a\x00"),
        head(b"Content-Length: 2", b"no colon"),
        head(b"Content-Length: 2", first=b"POST /ingest HTTP/1.0"),
        head(b"Content-Length: 2", first=b"POST  /ingest HTTP/1.1"),
        head(b"Content-Length: 2", first=b"POST /a%62 HTTP/1.1"),
        head(b"Content-Length: 2", first=b"POST /ingest?a=b HTTP/1.1"),
        head(b"Content-Length: 2", first=b"POST http://a/ingest HTTP/1.1"),
        head(b"Content-Length: 2", first=b"GET /ingest HTTP/1.1"),
    ],
)
def test_anything_else_is_left_to_the_server(given_head: bytes) -> None:
    assert parse(given_head) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(noise: bytes) -> None:
    for each in (noise, head(b"Content-Length: 2", noise)):
        found = parse(each)
        assert found is None or found["CONTENT_LENGTH"].isdecimal()


class Talk:
    """A connection to an application that answers with what it read of a body."""

    def __init__(self, *, reads: int | None = None) -> None:
        self.client, self.sock = socket.socketpair()
        self.sock.settimeout(5)
        self.file = self.sock.makefile("rb")
        self.reads = reads
        self.closed = 0
        self.http = PlainHttp(self.app, ["/ingest"], 1 << 20)

    def app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        size = int(environ["CONTENT_LENGTH"]) if self.reads is None else self.reads
        body = environ["REMOTE_ADDR"].encode() + b":" + environ["wsgi.input"].read(size)
        start_response("201 Created", [("Content-Length", str(len(body)))])
        return Pieces(self, body)

    def serve(self) -> bool | None:
        return self.http.serve(self.sock, self.file, {"REMOTE_ADDR": "me"})


class Pieces:
    def __init__(self, talk: Talk, body: bytes) -> None:
        self.talk, self.body = talk, body

    def __iter__(self) -> Iterator[bytes]:
        return iter([self.body[:1], self.body[1:]])

    def close(self) -> None:
        self.talk.closed += 1


@pytest.fixture
def talk() -> Iterator[Talk]:
    made = Talk()
    yield made
    for each in (made.client, made.file, made.sock):
        each.close()


def request(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return head(b"Content-Length: %d" % size) + b"\r\n\r\n" + body


def test_requests_follow_each_other_on_a_connection(talk: Talk) -> None:
    talk.client.sendall(request(b"{}") * 2 + request(b"[]"))
    assert [talk.serve() for _ in range(3)] == [True, True, True]
    top, *bodies = talk.client.recv(65536).split(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\nDate: ")
    assert [body[:5] for body in bodies] == [b"me:{}", b"me:{}", b"me:[]"]
    assert talk.closed == 3


def test_requests_that_differ_in_their_length_share_a_head(talk: Talk) -> None:
    bodies = [b"{}", b"[1,2,3]", b"", b"[" + b"1," * 50 + b"1]"]
    talk.client.sendall(b"".join(map(request, bodies)))
    assert [talk.serve() for _ in bodies] == [True] * len(bodies)
    told = talk.client.recv(65536).split(b"HTTP/1.1 201 Created\r\n")[1:]
    assert [each.partition(b"\r\n\r\n")[2] for each in told] == [b"me:" + body for body in bodies]
    assert len(talk.http._heads) == 1


@pytest.mark.parametrize(
    "given_head",
    [
        head(b"Content-Length: 2", b"content-length: 2"),
        head(b"Content-Length: 2", b"CONTENT_LENGTH: 3"),
        head(b"Content-Length: 1048577"),
        head(b"Content-Length: 2x"),
        head(b"X-Content-Length: 2"),
    ],
)
def test_a_length_that_is_not_plain_is_left_to_the_server(talk: Talk, given_head: bytes) -> None:
    talk.client.sendall(request(b"{}") + given_head + b"\r\n\r\n{}")
    assert talk.serve()
    assert talk.serve() is None
    assert talk.file.peek().startswith(given_head)


def test_a_large_body_comes_whole(talk: Talk) -> None:
    body = bytes(range(256)) * 400
    talk.client.sendall(request(body))
    assert talk.serve()
    assert talk.client.recv(1 << 20).endswith(b"me:" + body)


def test_what_is_not_read_does_not_become_a_request(talk: Talk) -> None:
    talk.reads = 1
    talk.client.sendall(request(request(b"evil")) + request(b"{}"))
    assert [talk.serve(), talk.serve()] == [True, True]
    assert b"evil" not in talk.client.recv(65536)


def test_a_body_cut_short_ends_the_connection(talk: Talk) -> None:
    talk.client.sendall(request(b"{", 10))
    talk.client.shutdown(socket.SHUT_WR)
    assert talk.serve() is False
    assert talk.client.recv(65536).endswith(b"me:{")


@pytest.mark.parametrize(
    "sent",
    [
        request(b"{}")[:40],
        request(b"", 2 << 20),
        request(b"{}").replace(b"/ingest", b"/other"),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"",
    ],
)
def test_nothing_is_consumed_of_what_the_server_is_to_answer(talk: Talk, sent: bytes) -> None:
    talk.client.sendall(sent)
    talk.client.shutdown(socket.SHUT_WR)
    assert talk.serve() is None
    assert io.BufferedReader.read(talk.file) == sent  # type: ignore[arg-type]
