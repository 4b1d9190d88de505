"""Reading over REST: latest, items, search with every option, stats, nodes and operation."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import msgspec
import pytest

from tests.node_process import Api, NodeProcess, wait_for

Json = dict[str, Any]
SEARCH = "/api/context/search"
SYMBOLS = ("BTC/USDT", "ETH/USDT", "Ünï/€😀")


class Corpus:
    """600 known items of one source on the shared node, and lines as the interface defines them."""

    def __init__(self, api: Api) -> None:
        self.source = f"corpus-{uuid.uuid4().hex[:12]}"
        self.sent = [self._item(i) for i in range(600)]
        told = api.ingest(self.sent)
        self.first, self.cursor = told["first_offset"], told["cursor"]
        self.epoch = self.cursor.split(":")[0]
        self.lines = [msgspec.json.encode(item).decode() for item in self.sent]

    def _item(self, i: int) -> Json:
        kind = "trading_data" if i % 3 else "tensor_math"
        data: Json = {"symbol": SYMBOLS[i % len(SYMBOLS)], "price": i / 10}
        if kind == "tensor_math":
            data = {"calculation_id": f"calc-{i}", "result": [i], "note": "Grüße aus Köln"}
        item = {"type": kind, "source": self.source, "timestamp": 5000.5 + i, "data": data}
        return item if i % 7 else {**item, "metadata": {"session": f"m{i}"}}

    def search(self, api: Api, query: str, **options: Any) -> Json:
        answer = api.post(SEARCH, json={"query": query, "source": self.source, **options})
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def offsets(self, found: Json) -> list[int]:
        return [item["offset"] - self.first for item in found["items"]]


@pytest.fixture(scope="module")
def corpus(node: NodeProcess) -> Corpus:
    return Corpus(node.client)


# --- latest and items -----------------------------------------------------------------------


def test_latest_pages_newest_first(api: Api, corpus: Corpus) -> None:
    seen, before, pages = [], None, 0
    while True:
        params = {"source": corpus.source, "limit": 70, "before": before}
        page = api.get("/api/context/latest", params=params).json()
        assert set(page) == {"items", "next", "as_of"}
        assert len(page["items"]) <= 70
        seen += [item["offset"] - corpus.first for item in page["items"]]
        pages += 1
        before = page["next"]
        if before is None:
            break
        assert before == page["items"][-1]["id"]
    assert seen == list(range(599, -1, -1))
    assert pages in (9, 10)


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ({"type": "tensor_math"}, lambda item: item["type"] == "tensor_math"),
        ({"symbol": SYMBOLS[2]}, lambda item: item["data"].get("symbol") == SYMBOLS[2]),
        ({"type": "tensor_math", "symbol": SYMBOLS[1]}, lambda item: False),
    ],
)
def test_latest_filters(api: Api, corpus: Corpus, filters: Json, fits: Any) -> None:
    params = {"source": corpus.source, "limit": 10000, **filters}
    page = api.get("/api/context/latest", params=params).json()
    expected = [i for i in range(599, -1, -1) if fits(corpus.sent[i])]
    assert corpus.offsets(page) == expected


def test_latest_has_a_default_limit_and_as_of(api: Api, corpus: Corpus) -> None:
    page = api.get("/api/context/latest").json()
    assert len(page["items"]) == 100
    assert page["as_of"] == page["items"][0]["id"] == api.newest()
    assert api.get("/api/context/latest", params={"limit": 1}).json()["next"] == page["as_of"]


def test_an_item_by_its_offset_equals_the_item_in_latest(api: Api, corpus: Corpus) -> None:
    params = {"source": corpus.source, "limit": 1}
    item = api.get("/api/context/latest", params=params).json()["items"][0]
    assert api.get(f"/api/context/items/{item['offset']}").json() == item
    past = api.get(f"/api/context/items/{item['offset'] + 10**6}")
    assert (past.status_code, past.json()["code"]) == (404, "not_found")


# --- search ---------------------------------------------------------------------------------


def plain(corpus: Corpus, test: Any) -> list[int]:
    return [i for i in range(599, -1, -1) if test(corpus.lines[i])]


def test_a_hit_shows_its_line_and_where_it_matches(api: Api, corpus: Corpus) -> None:
    found = corpus.search(api, "Grüße", limit=3)
    for hit in found["items"]:
        i = hit["offset"] - corpus.first
        assert hit["line"] == corpus.lines[i]
        assert [hit["line"][a:b] for a, b in hit["matches"]] == ["Grüße"]
        sent = corpus.sent[i]
        assert {name: hit[name] for name in sent} == sent
        assert hit["id"] == f"{corpus.epoch}:{hit['offset']}"
    assert set(found) == {"items", "next", "as_of", "partial", "elapsed_ms", "scanned"}
    assert set(found["scanned"]) == {"blocks", "skipped", "bytes"}
    assert found["partial"] is False


def test_the_line_is_the_item_as_it_was_sent(api: Api) -> None:
    source = uuid.uuid4().hex
    body = (
        '{ "data" : {"b": 1, "a": {"y":[1, 2.50], "x":"\\u00fc\\/"}}, "metadata":{"k": 1} ,'
        f'"timestamp": 7, "source":"{source}","type":"spaced" }}'
    )
    headers = {"Content-Type": "application/json"}
    assert api.post("/api/context/ingest", data=body, headers=headers).status_code == 201
    line = (
        f'{{"type":"spaced","source":"{source}","timestamp":7,'
        '"data":{"b":1,"a":{"y":[1,2.50],"x":"ü/"}},"metadata":{"k":1}}'
    )
    found = api.post(SEARCH, json={"query": line}).json()
    assert [hit["line"] for hit in found["items"]] == [line]
    assert found["items"][0]["matches"] == [[0, len(line)]]


QUERIES: list[tuple[str, Json, Any]] = [
    ("calc-59", {}, lambda line: "calc-59" in line),
    ("CALC-59", {}, lambda line: False),
    ("CALC-59", {"ignore_case": True}, lambda line: "calc-59" in line),
    ("KÖLN", {"ignore_case": True}, lambda line: "Köln" in line),
    ("price.:1[0-9]\\.5", {"regex": True}, lambda line: re.search(r"price.:1\d\.5", line)),
    ("price.:1[0-9]\\.5", {}, lambda line: False),
    ('"session":"m\\d+"\\}\\}$', {"regex": True}, lambda line: '"metadata"' in line),
    ("^\\{.type.:.tensor", {"regex": True}, lambda line: line.startswith('{"type":"tensor')),
    ("(?i)GRÜSSE|eth/usdt", {"regex": True}, lambda line: "ETH/USDT" in line),
    ("calc-", {"invert": True}, lambda line: "calc-" not in line),
    ("", {"type": "tensor_math"}, lambda line: "tensor_math" in line),
    ("", {"types": ["tensor_math", "nothing"]}, lambda line: "tensor_math" in line),
    ("", {"types": ["trading_data", "tensor_math"]}, lambda line: True),
    ("", {"symbol": "ETH/USDT"}, lambda line: "ETH/USDT" in line),
    ("", {"since": 5590.5}, lambda line: json.loads(line)["timestamp"] >= 5590.5),
    ("", {"until": 5010.5}, lambda line: json.loads(line)["timestamp"] <= 5010.5),
    (
        "USDT",
        {"since": 5100, "until": 5200},
        lambda line: "USDT" in line and 5100 <= json.loads(line)["timestamp"] <= 5200,
    ),
]


@pytest.mark.parametrize(("query", "options", "fits"), QUERIES)
def test_search_options(api: Api, corpus: Corpus, query: str, options: Json, fits: Any) -> None:
    found = corpus.search(api, query, limit=10000, **options)
    assert corpus.offsets(found) == plain(corpus, fits)
    assert found["next"] is None
    counted = corpus.search(api, query, count_only=True, **options)
    assert counted["count"] == len(found["items"])
    assert "items" not in counted


def test_search_has_a_default_limit_and_pages(api: Api, corpus: Corpus) -> None:
    seen, page = [], corpus.search(api, "USDT")
    assert len(page["items"]) == 50
    while page["next"]:
        assert page["next"] == page["items"][-1]["id"]
        seen += corpus.offsets(page)
        page = corpus.search(api, "USDT", limit=37, before=page["next"])
    seen += corpus.offsets(page)
    assert seen == plain(corpus, lambda line: "USDT" in line)


def test_neighbours_of_a_hit(api: Api, corpus: Corpus) -> None:
    hit = corpus.search(api, "calc-300", context=2)["items"][0]
    around = hit["context"]
    near = [item["offset"] - corpus.first for item in around["before"] + around["after"]]
    assert near == [298, 299, 301, 302]
    last = corpus.search(api, '"price":59.9', context=20)["items"][0]
    assert len(last["context"]["before"]) == 20


def test_a_search_cut_by_its_deadline_goes_on_where_it_stopped(api: Api) -> None:
    source, size = uuid.uuid4().hex, 5000
    text = "lorem ipsum dolor sit amet " * 4
    for start in range(0, 200_000, size):
        lines = b"".join(
            b'{"type":"bulk","source":"%b","data":{"n":%d,"text":"%b"}}\n'
            % (source.encode(), n, text.encode())
            for n in range(start, start + size)
        )
        headers = {"Content-Type": "application/x-ndjson"}
        assert api.post("/api/context/ingest", data=lines, headers=headers).status_code == 201
    asked = {
        "query": 'lorem.*"n":1?99[0-9]{2},|"n":[0-9]*777,',
        "regex": True,
        "type": "bulk",
        "source": source,
        "limit": 10000,
        "deadline_ms": 1,
    }
    expected = [n for n in range(199_999, -1, -1) if n % 1000 == 777]
    seen, pages, before = [], 0, {}
    while True:
        page = api.post(SEARCH, json={**asked, **before}).json()
        seen += [item["data"]["n"] for item in page["items"]]
        pages += 1
        assert page["partial"] is (page["next"] is not None)
        assert page["elapsed_ms"] < 500
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert seen == expected
    assert pages > 1
    counted = api.post(SEARCH, json={**asked, "count_only": True, "deadline_ms": 20_000}).json()
    assert (counted["count"], counted["partial"]) == (len(expected), False)


def test_what_is_acknowledged_is_found_at_once(api: Api) -> None:
    for _ in range(100):
        needle = uuid.uuid4().hex
        api.ingest({"type": "needle", "data": {"id": needle}})
        assert api.post(SEARCH, json={"query": needle, "count_only": True}).json()["count"] == 1


# --- operation ------------------------------------------------------------------------------


def test_stats_count_by_type_and_source(api: Api) -> None:
    source = uuid.uuid4().hex
    before = api.get("/api/context/stats").json()
    api.ingest([{"type": "counted", "source": source, "data": {}}] * 3)
    after = api.get("/api/context/stats").json()
    assert after["items"] == before["items"] + 3
    assert after["types"]["counted"] == before["types"].get("counted", 0) + 3
    assert after["sources"][source] == 3
    assert after["bytes"] > before["bytes"]
    assert after["newest"] == f"{after['epoch']}:{after['items'] - 1}"
    assert {"blocks", "rates", "oldest", "subscribers"} <= after.keys()


def own(api: Api) -> dict[str, Any]:
    told: dict[str, Any] = api.get("/api/nodes").json()["nodes"][0]
    return told


def test_nodes(api: Api, node: NodeProcess) -> None:
    answer = api.get("/api/nodes").json()
    assert set(answer) == {"leader", "term", "nodes"}
    assert answer["leader"] == "alpha"
    only = answer["nodes"][0]
    promised = {"id", "url", "role", "state", "capabilities", "score", "heartbeat_age_s"}
    assert promised | {"applied_offset"} <= only.keys()
    assert (only["id"], only["url"]) == ("alpha", node.url)
    assert (only["role"], only["state"]) == ("leader", "alive")
    assert only["heartbeat_age_s"] < 5
    wait_for(lambda: own(api)["capabilities"].get("trading_systems") == ["paper"], "a measurement")
    assert {"cores", "memory_bytes", "models"} <= own(api)["capabilities"].keys()
    assert own(api)["score_parts"]["trading"] == 0.25
    assert api.get("/api/nodes/self").json()["id"] == "alpha"
    assert api.post("/api/nodes/alpha/lead").json()["leader"] == "alpha"
    assert api.post("/api/nodes/other/lead").status_code == 404


def test_every_answer_names_its_node_and_what_it_has_applied(api: Api) -> None:
    told = api.ingest({"type": "x", "data": {}})
    for path in ("/api/context/latest?limit=1", "/api/context/stats", "/api/nodes"):
        answer = api.get(path, params={"consistency": "leader"})
        assert answer.status_code == 200
        assert answer.headers["Context-Node"] == "alpha"
        assert answer.headers["Context-Applied"] == told["cursor"]
    epoch = told["cursor"].partition(":")[0]
    for path in ("items/999999999", "latest?limit=x", "nothing", "poll?wait_s=0", "export"):
        headers = api.get(f"/api/context/{path}").headers
        assert (headers["Context-Node"], headers["Context-Applied"][: len(epoch)]) == (
            "alpha",
            epoch,
        )


def test_a_single_node_waits_for_what_a_reader_wants_to_see(api: Api) -> None:
    told = api.ingest({"type": "x", "data": {"n": 1}})["cursor"]
    asked = {"limit": 1, "min_cursor": told}
    assert api.get("/api/context/latest", params=asked).json()["items"][0]["id"] == told
    body = {"query": '"n":1', "limit": 1}
    found = api.post("/api/context/search", params={"min_cursor": told}, json=body)
    assert found.json()["items"][0]["id"] == told
    refused = api.get("/api/context/latest", params={"min_cursor": "0:1"})
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_cursor")


def test_health_readiness_metrics_and_documents(api: Api) -> None:
    assert api.get("/healthz").status_code == 200
    assert api.get("/readyz").status_code == 200
    metrics = api.get("/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")
    assert "context_http_request_seconds_count" in metrics.text
    assert re.search(r"^context_\w*loop_lag\w*", metrics.text, re.MULTILINE)
    assert api.get("/openapi.json").json()["openapi"].startswith("3.")
    for page in ("/docs/", "/"):
        assert api.get(page).headers["Content-Type"].startswith("text/html")


def test_request_ids_are_echoed_or_made(api: Api) -> None:
    given = api.get("/healthz", headers={"X-Request-Id": "job-17/a"})
    assert given.headers["X-Request-Id"] == "job-17/a"
    refused = api.get("/nowhere", headers={"X-Request-Id": "job-18"})
    assert refused.headers["X-Request-Id"] == "job-18"
    made = {api.get("/healthz").headers["X-Request-Id"] for _ in range(3)}
    assert len(made) == 3
    unusable = api.get("/healthz", headers={"X-Request-Id": "x" * 65})
    assert len(unusable.headers["X-Request-Id"]) <= 64
