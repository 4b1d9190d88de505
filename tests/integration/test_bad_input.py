"""Attacks: each gets a problem with the right status and code, and the node does not notice."""

from __future__ import annotations

import functools
import gzip
import time
import zlib
from typing import Any

import pytest
import zstandard

from tests.node_process import Api

Json = dict[str, Any]
INGEST, SEARCH = "/api/context/ingest", "/api/context/search"
MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("unharmed")


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
