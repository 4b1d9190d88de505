"""Attacks below the interface: raw bytes on the port, lengths that lie, Socket.IO garbage."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

import pytest
import requests
import websocket

from tests.node_process import Api, NodeProcess

Json = dict[str, Any]
INGEST = "/api/context/ingest"
MIB = 1 << 20
GOOD = b'{"type":"x","data":{}}'
pytestmark = pytest.mark.usefixtures("unharmed")


def talk(node: NodeProcess, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Send raw bytes, say that this is all, then read until the node closes."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=10) as sock:
        with contextlib.suppress(OSError):  # the node may have heard enough
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(pause_s)
            sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: _received(sock), b""))


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionError:
        return b""


def head(length: int | str, *more: str) -> bytes:
    lines = [f"POST {INGEST} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", *more, "", ""]).encode()


def parsed(answer: bytes) -> tuple[int, Json]:
    """Status and problem of a raw answer that must be a problem."""
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in top, answer[:500]
    return int(top.split()[1]), json.loads(body)


def test_a_body_shorter_than_announced_stores_nothing(node: NodeProcess, api: Api) -> None:
    newest = api.newest()
    answer = talk(node, head(len(GOOD) + 10) + GOOD)
    if answer:
        status, problem = parsed(answer)
        assert (status, problem["code"]) == (400, "bad_request")
    assert api.newest() == newest


def test_a_body_longer_than_announced_is_cut_there(node: NodeProcess, api: Api) -> None:
    answer = talk(node, head(len(GOOD), "Connection: close") + GOOD + b"garbage after the body")
    assert answer.startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "99999999999999999999999"])
def test_impossible_lengths_are_refused(node: NodeProcess, api: Api, length: str) -> None:
    newest = api.newest()
    status, problem = parsed(talk(node, head(length) + GOOD))
    if length.startswith("9"):
        assert (status, problem["code"]) == (413, "body_too_large")
    else:
        assert (status, problem["code"]) in [(400, "bad_request"), (400, "invalid_json")]
    assert api.newest() == newest


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


CHUNKED = (
    b"POST /api/context/ingest HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def test_a_chunked_body_without_length_is_accepted(node: NodeProcess) -> None:
    answer = talk(node, CHUNKED + chunks(GOOD[:5], GOOD[5:]))
    assert answer.startswith(b"HTTP/1.1 201 "), answer


def test_a_chunked_body_is_bounded(node: NodeProcess, api: Api) -> None:
    line = GOOD + b" " * (1023 - len(GOOD)) + b"\n"  # cut at the limit, these would be valid
    with requests.Session() as session:
        headers = {"Content-Type": "application/x-ndjson"}
        for count, expected in ((16 * 1024, 201), (16 * 1024 + 1, 413)):
            pieces = iter([line * 1024] * (count // 1024) + [line] * (count % 1024))
            answer = session.post(api.url + INGEST, data=pieces, headers=headers)
            assert answer.status_code == expected
    status, problem = parsed(talk(node, CHUNKED, chunks(*[b" " * MIB] * 17)))
    assert (status, problem["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("body", [b"zz\r\nxx\r\n", b"5\r\nab", b"-5\r\nabcde\r\n0\r\n\r\n", b""])
def test_broken_chunks_store_nothing(node: NodeProcess, api: Api, body: bytes) -> None:
    newest = api.newest()
    answer = talk(node, CHUNKED + body)
    if answer:
        assert parsed(answer)[0] == 400
    assert api.newest() == newest


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # a TLS greeting
        b"GARBAGE\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"\r\n" * 1000,
        b"A" * MIB,
    ],
)
def test_garbage_on_the_port(node: NodeProcess, data: bytes) -> None:
    assert b" 500 " not in talk(node, data)[:20]


def test_a_long_address_is_refused(node: NodeProcess) -> None:
    target = b"/api/context/latest?source=" + b"a" * 100_000
    status, problem = parsed(talk(node, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert (status, problem["code"]) == (414, "uri_too_long")


@pytest.mark.parametrize(
    "headers",
    [b"X-Long: " + b"a" * 200_000 + b"\r\n", b"".join(b"X-%d: y\r\n" % i for i in range(300))],
)
def test_long_headers_are_refused(node: NodeProcess, headers: bytes) -> None:
    answer = talk(node, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
    status, problem = parsed(answer)
    assert (status, problem["code"]) == (431, "headers_too_large")


def test_slow_clients_do_not_hold_up_others(node: NodeProcess, api: Api) -> None:
    """50 connections that each send a byte and wait, in the head and in the body."""
    slow = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(50)]
    try:
        for i, sock in enumerate(slow):
            sock.sendall(b"G" if i % 2 else head(1000) + b"{")
        started = time.monotonic()
        for _ in range(20):
            assert api.get("/api/context/latest?limit=1").status_code == 200
        assert time.monotonic() - started < 2
        # One that takes its time is served all the same.
        pieces = [head(len(GOOD), "Connection: close"), *(bytes([byte]) for byte in GOOD)]
        assert talk(node, *pieces, pause_s=0.01).startswith(b"HTTP/1.1 201 ")
    finally:
        for sock in slow:
            sock.close()


def test_unread_bodies_do_not_become_requests(node: NodeProcess) -> None:
    """A body sent to a route that does not read it must not be taken for the next request."""
    inner = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    sent = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner)
    answer = talk(node, sent + inner)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 404 ")


# --- Socket.IO ------------------------------------------------------------------------------

PACKETS: list[str | bytes] = [
    "",
    "hello",
    "9",
    "4",
    "49",
    "42",
    "42[]",
    "42{}",
    "42[1]",
    '42["subscribe"',
    '42["no such event",{}]',
    '421["no such event",{}]',
    '42["subscribe",1,2,3,4,5]',
    '42["connect"]',
    '42["disconnect"]',
    '42/other,["subscribe",{}]',
    "42" + "[" * 100_000,
    '42["ingest",NaN]',
    '42["ingest","\\ud800"]',
    '451-["ingest",{"_placeholder":true,"num":0}]',
    '459999999999-["ingest",{"_placeholder":true,"num":0}]',
    "43[]",
    '4399["unasked acknowledgement"]',
    "44{}",
    "1" * 1000,
    b"",
    b"\x00\xff" * 1000,
]


@pytest.mark.parametrize("packet", PACKETS, ids=[str(p)[:24] for p in PACKETS])
def test_garbage_packets(node: NodeProcess, packet: str | bytes) -> None:
    url = f"ws://127.0.0.1:{node.port}/socket.io/?EIO=4&transport=websocket"
    wire = websocket.create_connection(url, timeout=5)
    try:
        assert wire.recv().startswith("0{")
        wire.send("40")
        if isinstance(packet, bytes):
            wire.send_binary(packet)
        else:
            wire.send(packet)
        wire.send('42["search",{"query":"x","limit":1}]')
    except (OSError, websocket.WebSocketException):
        pass  # the node may hang up on it
    finally:
        wire.shutdown()  # closes the socket, whatever state it is in


def test_polling_garbage(api: Api) -> None:
    base = "/socket.io/?EIO=4&transport=polling"
    sid = json.loads(api.get(base).text[1:])["sid"]
    for body in (b"", b"\xff\xfe", b"40\x1e" * 10_000, b"x" * MIB):
        answer = api.post(f"{base}&sid={sid}", data=body, headers={"Content-Type": "text/plain"})
        assert answer.status_code < 500
    for query in ("EIO=3&transport=polling", "EIO=4&transport=smoke", "EIO=4&sid=none", ""):
        assert api.get(f"/socket.io/?{query}").status_code == 400


def test_a_packet_over_16_mib_is_not_taken(node: NodeProcess, api: Api) -> None:
    newest = api.newest()
    url = f"ws://127.0.0.1:{node.port}/socket.io/?EIO=4&transport=websocket"
    wire = websocket.create_connection(url, timeout=5)
    try:
        wire.recv()
        wire.send("40")
        wire.send('42["ingest",{"type":"x","data":{"a":"' + "a" * (17 * MIB) + '"}}]')
        while wire.recv():
            pass
    except (OSError, websocket.WebSocketException):
        pass
    finally:
        wire.shutdown()  # closes the socket, whatever state it is in
    assert api.newest() == newest
