"""Attacks: each gets a problem with the right status and code, and the node does not notice."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import websocket
import zstandard

from tests.node_process import Api, NodeProcess

Json = dict[str, Any]
INGEST, SEARCH = "/api/context/ingest", "/api/context/search"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def unharmed(node: NodeProcess) -> Iterator[None]:
    """After each attack the node answers within a second, and no process of it was replaced."""
    before = set(node.pids())
    yield
    # What an attack has broken stays so; what a busy machine delays once does not.
    assert min(_ordinary_request_s(node.client) for _ in range(3)) < 1
    assert set(node.pids()) == before


def _ordinary_request_s(api: Api) -> float:
    started = time.monotonic()
    api.ingest({"type": "still_well", "data": {}})
    found = api.post(SEARCH, json={"query": "still_well", "limit": 1})
    assert len(found.json()["items"]) == 1
    return time.monotonic() - started


def assert_problem(answer: Any, status: int, code: str) -> Json:
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: Json = answer.json()
    assert (problem["status"], problem["code"]) == (status, code), problem
    assert problem["detail"]
    assert len(answer.content) < 20_000
    return problem


def item(data: bytes) -> bytes:
    return b'{"type":"x","data":' + data + b"}"


# --- bodies ---------------------------------------------------------------------------------

BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "invalid_json"),
    "cut": (b'{"type":"x","data":{', 400, "invalid_json"),
    "trailing": (item(b"{}") + b"}", 400, "invalid_json"),
    "single quotes": (b"{'type':'x'}", 400, "invalid_json"),
    "scalar": (b"1", 400, "invalid_json"),
    "null": (b"null", 400, "invalid_json"),
    "no items": (b"[]", 422, "invalid_item"),
    "not an object": (b"[1]", 422, "invalid_item"),
    "NaN": (item(b'{"n":NaN}'), 422, "invalid_item"),
    "Infinity": (item(b'{"a":{"n":[1,-Infinity]}}'), 422, "invalid_item"),
    "too large a float": (item(b'{"n":1e400}'), 422, "invalid_item"),
    "10,000 digits": (item(b'{"n":' + b"9" * 10_000 + b"}"), 422, "invalid_item"),
    "data of a wrong type": (item(b"[]"), 422, "invalid_item"),
    "timestamp of a wrong type": (b'{"type":"x","data":{},"timestamp":"1"}', 422, "invalid_item"),
    "timestamp true": (b'{"type":"x","data":{},"timestamp":true}', 422, "invalid_item"),
    "milliseconds": (b'{"type":"x","data":{},"timestamp":1723161256322}', 422, "invalid_item"),
    "metadata of a wrong type": (b'{"type":"x","data":{},"metadata":[]}', 422, "invalid_item"),
    "unknown field": (b'{"type":"x","data":{},"hello":1}', 422, "invalid_item"),
    "bad UTF-8": (item(b'{"n":"\xff\xfe"}'), 400, "invalid_json"),
    "UTF-8 surrogate": (item(b'{"n":"\xed\xa0\x80"}'), 400, "invalid_json"),
    "UTF-16": (item(b"{}").decode().encode("utf-16"), 400, "invalid_json"),
    "byte order mark": (b"\xef\xbb\xbf" + item(b"{}"), 400, "invalid_json"),
    "lone surrogate": (item(b'{"n":"\\ud800"}'), 400, "invalid_json"),
    "lone surrogate key": (item(b'{"\\udc00":1}'), 400, "invalid_json"),
    "raw control character": (item(b'{"n":"\x01"}'), 400, "invalid_json"),
    "deep arrays": (b"[" * MIB, 400, "invalid_json"),
    "deep closed arrays": (
        item(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        400,
        "invalid_json",
    ),
    "deep objects": (b'{"a":' * 200_000, 400, "invalid_json"),
    "16 MiB of spaces": (b" " * (16 * MIB), 400, "invalid_json"),
    "16 MiB of brackets": (b"[" * (16 * MIB), 400, "invalid_json"),
    "16 MiB of small arrays": (b"[" + b"[]," * (5 * MIB) + b"[]]", 422, "invalid_item"),
    "16 MiB and one byte": (b" " * (16 * MIB + 1), 413, "body_too_large"),
    "40 MiB": (b" " * (40 * MIB), 413, "body_too_large"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_are_refused(api: Api, name: str) -> None:
    body, status, code = BODIES[name]
    newest = api.newest()
    started = time.monotonic()
    answer = api.post(INGEST, data=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, status, code)
    assert time.monotonic() - started < 15
    assert api.newest() == newest


def test_ndjson_names_the_bad_line(api: Api) -> None:
    good = item(b"{}")
    for bad in (b"{", b"NaN", item(b'{"n":NaN}'), b"[]", b"\xff"):
        body = b"\n".join([good, good, bad, good])
        answer = api.post(INGEST, data=body, headers={"Content-Type": "application/x-ndjson"})
        assert assert_problem(answer, 422, "invalid_item")["errors"][0]["index"] == 2


def test_exactly_16_mib_is_accepted(api: Api) -> None:
    line = item(b'{"text":"' + b"x" * 100_000 + b'"}') + b"\n"
    body = line * (16 * MIB // len(line))
    body += b"\n" * (16 * MIB - len(body))
    answer = api.post(INGEST, data=body, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 201


def test_duplicate_keys_keep_the_last(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    answer = api.post(INGEST, data=item(b'{"a":1,"b":2,"a":3}'), headers=headers)
    offset = answer.json()["last_offset"]
    assert api.get(f"/api/context/items/{offset}").json()["data"] == {"a": 3, "b": 2}


# --- compression ----------------------------------------------------------------------------


@functools.cache
def gzip_zeros(size: int) -> bytes:
    squeeze, parts = zlib.compressobj(9, wbits=31), []
    for _ in range(size // MIB):
        parts.append(squeeze.compress(b" " * MIB))
    return b"".join([*parts, squeeze.flush()])


@functools.cache
def zstd_zeros(size: int) -> bytes:
    squeeze, parts = zstandard.ZstdCompressor().compressobj(), []
    for _ in range(size // MIB):
        parts.append(squeeze.compress(b" " * MIB))
    return b"".join([*parts, squeeze.flush()])


def cut_between_blocks() -> bytes:
    """A zstd frame that lost its end right after a flushed line."""
    squeeze = zstandard.ZstdCompressor().compressobj()
    part = squeeze.compress(item(b"{}") + b"\n")
    return part + squeeze.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


GOOD = item(b"{}")
EMPTY_MEMBER = gzip.compress(b"")
EMPTY_FRAME = zstandard.compress(b"")
COMPRESSED: dict[str, tuple[str, Any, int, str]] = {
    "gzip bomb": ("gzip", lambda: gzip_zeros(2048 * MIB), 413, "body_too_large"),
    "gzip bomb in members": ("gzip", lambda: gzip_zeros(MIB) * 2048, 413, "body_too_large"),
    "zstd bomb": ("zstd", lambda: zstd_zeros(2048 * MIB), 413, "body_too_large"),
    "zstd bomb in frames": ("zstd", lambda: zstd_zeros(MIB) * 2048, 413, "body_too_large"),
    "gzip of 16 MiB and one byte": (
        "gzip",
        lambda: gzip.compress(b" " * (16 * MIB + 1)),
        413,
        "body_too_large",
    ),
    "gzip cut": ("gzip", lambda: gzip.compress(GOOD)[:-6], 400, "invalid_json"),
    "gzip checksum": ("gzip", lambda: gzip.compress(GOOD)[:-8] + bytes(8), 400, "invalid_json"),
    "gzip and junk": ("gzip", lambda: gzip.compress(GOOD) + b"junk", 400, "invalid_json"),
    "no gzip": ("gzip", lambda: GOOD, 400, "invalid_json"),
    "zstd cut": ("zstd", lambda: zstandard.compress(GOOD)[:-1], 400, "invalid_json"),
    "zstd cut between blocks": ("zstd", cut_between_blocks, 400, "invalid_json"),
    "zstd and junk": ("zstd", lambda: zstandard.compress(GOOD) + b"junk", 400, "invalid_json"),
    "no zstd": ("zstd", lambda: GOOD, 400, "invalid_json"),
    "gzip of nothing, 800,000 times": (
        "gzip",
        lambda: EMPTY_MEMBER * (16 * MIB // len(EMPTY_MEMBER)),
        400,
        "invalid_json",
    ),
    "zstd of nothing, over a million times": (
        "zstd",
        lambda: EMPTY_FRAME * (16 * MIB // len(EMPTY_FRAME)),
        400,
        "invalid_json",
    ),
    "unknown encoding": ("br", lambda: GOOD, 415, "unsupported_media_type"),
    "two encodings": ("gzip, zstd", lambda: GOOD, 415, "unsupported_media_type"),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_bad_compressed_bodies_are_refused(api: Api, name: str) -> None:
    encoding, make, status, code = COMPRESSED[name]
    body, newest = make(), api.newest()
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": encoding}
    started = time.monotonic()
    assert_problem(api.post(INGEST, data=body, headers=headers), status, code)
    assert time.monotonic() - started < 5
    assert api.newest() == newest


# --- options --------------------------------------------------------------------------------

OPTIONS: list[tuple[str, str, Any, int, str]] = [
    *(
        ("GET", f"/api/context/latest?limit={limit}", None, 400, "invalid_request")
        for limit in ("-1", "0", "10001", "abc", "1.5", "9" * 50)
    ),
    *(
        ("POST", SEARCH, {"query": "a", "limit": limit}, 400, "invalid_request")
        for limit in (-1, 0, 10001, "5", 1.5, True, None, 10**30)
    ),
    *(
        ("GET", f"/api/context/latest?before={cursor}", None, 400, "bad_cursor")
        for cursor in ("x", "0ld:5", "0ld:-2", "a:b:1", "9" * 60, ":", "%00:1", "%F0%9F%98%80:1")
    ),
    *(
        ("POST", SEARCH, {"query": "a", "before": cursor}, 400, "bad_cursor")
        for cursor in ("x", "0ld:5", "", "\u0661:1", "x" * 100_000)
    ),
    *(
        ("POST", SEARCH, {"query": pattern, "regex": True}, 400, "bad_pattern")
        for pattern in (
            *("(", "[", "a**", "(?=x)", "(?<=x)", "(a)\\1", "\\k<a>", "(?P<a>x)(?P=a)", "*"),
            *("((a{100}){100}){100}", "(x{1000}){2}", "\\pX", "a" * MIB, "a?" * (MIB // 2)),
            *("[[:nope:]]", "(?z)a"),
        )
    ),
    ("POST", SEARCH, {"query": "a" * MIB}, 400, "bad_pattern"),
    ("POST", SEARCH, {"query": 1}, 400, "invalid_request"),
    ("POST", SEARCH, {}, 400, "invalid_request"),
    ("POST", SEARCH, [], 400, "invalid_request"),
    ("POST", SEARCH, {"query": "a", "color": "always"}, 400, "invalid_request"),
    ("POST", SEARCH, {"query": "a", "context": 21}, 400, "invalid_request"),
    ("POST", SEARCH, {"query": "a", "deadline_ms": 0}, 400, "invalid_request"),
    ("POST", SEARCH, {"query": "a", "since": "yesterday"}, 400, "invalid_request"),
    ("POST", SEARCH, {"query": "a", "since": 10**400}, 400, "invalid_request"),
    ("POST", SEARCH, {"query": "a", "types": []}, 400, "invalid_request"),
    ("POST", SEARCH, {"query": "a", "types": [1]}, 400, "invalid_request"),
    ("GET", "/api/context/latest?colour=red", None, 400, "invalid_request"),
    ("GET", "/api/context/ai/decisions?colour=red", None, 400, "invalid_request"),
    ("GET", "/api/context/ai/decisions?limit=0", None, 400, "invalid_request"),
    ("GET", "/api/context/stream?colour=red", None, 400, "invalid_request"),
    ("GET", "/api/context/stream?regex=maybe", None, 400, "invalid_request"),
    ("GET", "/api/context/stream?since=nan", None, 400, "invalid_request"),
    *(
        ("GET", f"/api/context/items/{offset}", None, 404, "not_found")
        for offset in ("-1", "abc", "1.5", "9" * 18, "9" * 19, "9" * 30, "9" * 5000, "", "%00")
    ),
    ("GET", "/nowhere", None, 404, "not_found"),
    ("GET", "/api/context/ai/decisions/none", None, 404, "not_found"),
    ("GET", "/api/context/ai/decisions/%22%5C%F0%9F%98%80", None, 404, "not_found"),
    ("GET", "/api/context/ai/request/none", None, 404, "not_found"),
    ("POST", "/api/context/ai/decisions/none/outcome", {"outcome": "buy"}, 404, "not_found"),
    ("POST", "/api/context/ai/decisions/none/replay", {}, 404, "not_found"),
    ("POST", "/api/nodes/none/lead", None, 404, "not_found"),
    ("GET", INGEST, None, 405, "method_not_allowed"),
    ("DELETE", "/api/context/latest", None, 405, "method_not_allowed"),
    ("PUT", INGEST, {}, 405, "method_not_allowed"),
    ("TRACE", "/", None, 405, "method_not_allowed"),
    ("BREW", "/healthz", None, 405, "method_not_allowed"),
    ("POST", "/api/context/ai/decide", {}, 400, "invalid_request"),
    ("POST", "/api/context/ai/decide", {"symbols": "BTC/USD"}, 400, "invalid_request"),
    ("POST", "/api/context/ai/decide", {"symbols": ["a"], "x": 1}, 400, "invalid_request"),
    (
        "POST",
        "/api/context/ai/decide",
        {"symbols": [f"S{i}" for i in range(10_000)]},
        400,
        "invalid_request",
    ),
    ("POST", "/api/context/ai/request", {"limit": 0}, 400, "invalid_request"),
    ("POST", "/api/context/ai/request", {"format": "poem"}, 400, "invalid_request"),
    (
        "POST",
        "/api/context/ai/request",
        {"symbols": [f"S{i}" for i in range(10_000)]},
        400,
        "invalid_request",
    ),
    ("PATCH", "/api/context/ai/models/none", {"weight": 1}, 404, "not_found"),
    ("PATCH", "/api/context/ai/models/momentum", {"weight": -1}, 400, "invalid_request"),
    ("PATCH", "/api/context/ai/models/momentum", {"colour": "red"}, 400, "invalid_request"),
    ("POST", "/api/context/types", {"name": "x"}, 400, "invalid_request"),
    ("POST", "/api/context/types", {"name": "No", "schema": {}}, 400, "invalid_request"),
    (
        "POST",
        "/api/context/types",
        {"name": "t", "schema": {"$ref": "http://127.0.0.1:9/"}},
        400,
        "invalid_request",
    ),
    (
        "POST",
        "/api/context/types",
        {"name": "t", "schema": {"$ref": "file:///etc/passwd"}},
        400,
        "invalid_request",
    ),
    (
        "POST",
        "/api/context/types",
        {"name": "t", "schema": {"properties": {"a": {"pattern": "(?=x)"}}}},
        400,
        "invalid_request",
    ),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    OPTIONS,
    ids=[f"{i}-{method} {path[:50]}" for i, (method, path, *_) in enumerate(OPTIONS)],
)
def test_bad_options_are_refused(  # noqa: PLR0917 - one row of the table
    api: Api, method: str, path: str, body: Any, status: int, code: str
) -> None:
    started = time.monotonic()
    assert_problem(api.request(method, path, json=body), status, code)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "path", [SEARCH, "/api/context/ai/decide", "/api/context/ai/request", "/api/context/types"]
)
@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b'{"query":"\\ud800"}', b'{"query":NaN}', b"[" * 100_000]
)
def test_malformed_json_everywhere(api: Api, path: str, body: bytes) -> None:
    answer = api.post(path, data=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 400, "invalid_json")


@pytest.mark.parametrize("media", ["text/plain", "", "application/xml", "multipart/form-data"])
def test_other_content_types_are_refused(api: Api, media: str) -> None:
    answer = api.post(INGEST, data=GOOD, headers={"Content-Type": media})
    assert_problem(answer, 415, "unsupported_media_type")


def test_nested_quantifiers_take_linear_time(api: Api) -> None:
    source = "evil"
    text = "a" * 200_000 + "!"
    api.ingest([{"type": "evil", "source": source, "data": {"t": text}}] * 20)
    for pattern in ("(a+)+$", "(a|a)*b$", "(a|aa)+$", "(.*)*x$", "^(([a-z])+.)+[A-Z]([a-z])+$"):
        started = time.monotonic()
        asked = {"query": pattern, "regex": True, "source": source, "count_only": True}
        answer = api.post(SEARCH, json={**asked, "deadline_ms": 60_000})
        assert answer.json()["count"] == 0
        assert time.monotonic() - started < 2, pattern


def test_many_symbols_and_types_are_no_trouble(api: Api) -> None:
    many = [f"t{i}" for i in range(10_000)]
    answer = api.post(SEARCH, json={"query": "", "types": many, "count_only": True})
    assert answer.json()["count"] == 0
    wish = {"symbols": [f"S{i}" for i in range(100)]}
    assert api.post("/api/context/ai/request", json=wish).json()["items"] == []


# --- the protocol itself --------------------------------------------------------------------


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
