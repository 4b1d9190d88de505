"""Context over REST, sentence by sentence of the interface: take in, look up, search."""

from __future__ import annotations

import gzip
import json
import threading
import time
import uuid
from typing import Any

import pytest
import requests
import zstandard

from tests.node_process import Api

INGEST = "/api/context/ingest"
Json = dict[str, Any]


@pytest.fixture
def source() -> str:
    """A source that no other test uses, since they share the node."""
    return f"test-{uuid.uuid4().hex[:12]}"


def trade(source: str, price: float, symbol: str = "BTC/USDT", **data: Any) -> Json:
    body = {"symbol": symbol, "price": price, **data}
    return {"type": "trading_data", "source": source, "timestamp": 1000 + price, "data": body}


def count(api: Api) -> int:
    items: int = api.get("/api/context/stats").json()["items"]
    return items


def assert_problem(answer: requests.Response, status: int, code: str) -> Json:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: Json = answer.json()
    assert problem["status"] == status
    assert problem["code"] == code, problem
    assert {"type", "title", "detail", "retryable"} <= problem.keys()
    return problem


# --- ingest ---------------------------------------------------------------------------------


def test_one_item_is_acknowledged_and_shown_whole(api: Api, source: str) -> None:
    sent = {
        **trade(source, 61800.3, volume=0.006, note="ü", deep={"z": [1, None, True], "a": {}}),
        "metadata": {"session": "a"},
    }
    before = time.time()
    answer = api.post(INGEST, json=sent)
    assert answer.status_code == 201
    told = answer.json()
    assert set(told) == {"accepted", "first_offset", "last_offset", "cursor", "term"}
    assert told["accepted"] == 1
    assert told["first_offset"] == told["last_offset"]
    assert told["cursor"].split(":")[1] == str(told["last_offset"])
    item = api.get(f"/api/context/items/{told['last_offset']}").json()
    assert before - 1 <= item.pop("ingested_at") <= time.time() + 1
    assert item == {"id": told["cursor"], "offset": told["last_offset"], **sent}
    assert list(item["data"]) == list(sent["data"])


def test_defaults(api: Api) -> None:
    before = time.time()
    offset = api.ingest({"type": "anything", "data": {}})["last_offset"]
    item = api.get(f"/api/context/items/{offset}").json()
    assert item["source"] == "unknown"
    assert before - 1 <= item["timestamp"] <= time.time() + 1
    assert "metadata" not in item


def test_array_and_ndjson_take_consecutive_offsets(api: Api, source: str) -> None:
    items = [trade(source, price) for price in range(300)]
    told = api.ingest(items)
    assert told["accepted"] == 300
    assert told["last_offset"] - told["first_offset"] == 299
    lines = "\n".join(json.dumps(item) for item in items) + "\n\n"
    answer = api.post(INGEST, data=lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 201
    assert answer.json()["first_offset"] == told["last_offset"] + 1
    found = api.get("/api/context/latest", params={"source": source, "limit": 600}).json()
    prices = [item["data"]["price"] for item in reversed(found["items"])]
    assert prices == [*range(300), *range(300)]


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body)


def _zstd(body: bytes) -> bytes:
    return zstandard.compress(body)


def _two_members(body: bytes) -> bytes:
    return gzip.compress(body[:10]) + gzip.compress(body[10:])


def _two_frames(body: bytes) -> bytes:
    return zstandard.compress(body[:10]) + zstandard.compress(body[10:])


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("gzip", _gzip), ("zstd", _zstd), ("gzip", _two_members), ("zstd", _two_frames)],
)
def test_compressed_bodies(api: Api, source: str, encoding: str, encode: Any) -> None:
    body = json.dumps([trade(source, 1), trade(source, 2)]).encode()
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    answer = api.post(INGEST, data=encode(body), headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["accepted"] == 2


@pytest.mark.parametrize("size", [3, 3000])
@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson"])
def test_one_bad_item_refuses_the_batch(api: Api, source: str, size: int, media: str) -> None:
    items = [trade(source, price, note="x" * 150) for price in range(size)]
    items[size - 2]["data"]["price"] = "cheap"
    text = json.dumps(items) if media.endswith("/json") else "\n".join(map(json.dumps, items))
    before = count(api)
    problem = assert_problem(
        api.post(INGEST, data=text, headers={"Content-Type": media}), 422, "invalid_item"
    )
    assert [(e["index"], e["field"]) for e in problem["errors"]] == [(size - 2, "data.price")]
    assert "cheap" in problem["errors"][0]["message"]
    assert problem["retryable"] is False
    assert count(api) == before


BAD_DATA = [
    ("trading_data", {"price": 1}, "data.symbol"),
    ("trading_data", {"symbol": "", "price": 1}, "data.symbol"),
    ("trading_data", {"symbol": 5, "price": 1}, "data.symbol"),
    ("trading_data", {"symbol": "A"}, "data.price"),
    ("trading_data", {"symbol": "A", "price": -0.1}, "data.price"),
    ("trading_data", {"symbol": "A", "price": True}, "data.price"),
    ("trading_data", {"symbol": "A", "price": 1, "volume": -1}, "data.volume"),
    ("trading_data", {"symbol": "A", "price": 1, "volume": None}, "data.volume"),
    ("tensor_math", {"result": 1}, "data.calculation_id"),
    ("tensor_math", {"calculation_id": "c"}, "data.result"),
    ("tensor_math", {"calculation_id": "c", "result": 1, "hash_value": 1}, "data.hash_value"),
    (
        "tensor_math",
        {"calculation_id": "c", "result": 1, "context_meaning": []},
        "data.context_meaning",
    ),
    ("tensor_math", {"calculation_id": "c", "result": 1, "confidence": 1.1}, "data.confidence"),
    ("ai_decision", {"decision": "buy"}, "data.model"),
    ("ai_decision", {"model": "m"}, "data.decision"),
    ("ai_decision", {"model": "m", "decision": "buy", "confidence": -1}, "data.confidence"),
    ("ai_decision", {"model": "m", "decision": "buy", "reasoning": 1}, "data.reasoning"),
    ("ai_decision", {"model": "m", "decision": "buy", "impact": "high"}, "data.impact"),
    ("system_health", {}, "data"),
    ("Upper", {}, "type"),
    ("9lives", {}, "type"),
    ("a" * 65, {}, "type"),
    ("", {}, "type"),
]


@pytest.mark.parametrize(("type_", "data", "field"), BAD_DATA)
def test_rules_of_types_refuse(api: Api, type_: str, data: Json, field: str) -> None:
    answer = api.post(INGEST, json=[{"type": type_, "data": data}])
    problem = assert_problem(answer, 422, "invalid_item")
    assert [(e["index"], e["field"]) for e in problem["errors"]] == [(0, field)]


def test_rules_of_types_accept(api: Api) -> None:
    good: list[tuple[str, Json]] = [
        ("trading_data", {"symbol": "A", "price": 0}),
        ("trading_data", {"symbol": "A", "price": 1e300, "volume": 0.0, "more": [1]}),
        ("tensor_math", {"calculation_id": "c", "result": None, "input_data": [[1, 2]]}),
        ("tensor_math", {"calculation_id": 7, "result": [1], "confidence": 1}),
        ("ai_decision", {"decision_id": "d", "decision": "hold", "impact": -0.5}),
        ("ai_decision", {"model": "m", "decision": "buy", "confidence": 0, "reasoning": ""}),
        ("system_health", {"cpu": 1.5}),
        ("z" * 64, {}),
    ]
    told = api.ingest([{"type": type_, "data": data} for type_, data in good])
    assert told["accepted"] == len(good)


def test_values_are_kept_as_sent(api: Api) -> None:
    data = {
        "big": 10**30,
        "int": -(2**63) - 1,
        "exact": 0.1,
        "small": 5e-324,
        "text": '\u0000\n"\\\u2028é😀',
        "": {"": []},
    }
    offset = api.ingest({"type": "kept", "data": data})["last_offset"]
    assert api.get(f"/api/context/items/{offset}").json()["data"] == data


@pytest.mark.parametrize("extra", ["id", "offset", "ingested_at", "Type"])
def test_unknown_top_level_fields_are_refused(api: Api, extra: str) -> None:
    answer = api.post(INGEST, json={"type": "x", "data": {}, extra: 1})
    assert assert_problem(answer, 422, "invalid_item")["errors"][0]["field"] == extra


def test_an_item_may_have_256_kib(api: Api) -> None:
    line = '{"type":"x","source":"s","timestamp":1,"data":{"a":""}}'
    room = 256 * 1024 - len(line)
    fits = {"type": "x", "source": "s", "timestamp": 1, "data": {"a": "a" * room}}
    assert api.post(INGEST, json=fits).status_code == 201
    fits["data"] = {"a": "a" * (room + 1)}
    problem = assert_problem(api.post(INGEST, json=[fits]), 422, "invalid_item")
    assert problem["errors"][0]["index"] == 0


def test_custom_type_with_a_schema(api: Api) -> None:
    name = f"mood_{uuid.uuid4().hex[:8]}"
    schema = {
        "type": "object",
        "required": ["level"],
        "properties": {"level": {"type": "integer", "minimum": 0}},
    }
    answer = api.post("/api/context/types", json={"name": name, "schema": schema})
    assert answer.status_code == 201
    types = {type_["name"]: type_ for type_ in api.get("/api/context/types").json()["types"]}
    assert types[name]["schema"] == schema
    assert {"trading_data", "tensor_math", "ai_decision", "system_health"} <= set(types)
    assert api.post(INGEST, json={"type": name, "data": {"level": 3}}).status_code == 201
    refused = api.post(INGEST, json={"type": name, "data": {"level": -3}})
    assert assert_problem(refused, 422, "invalid_item")["errors"][0]["field"] == "data.level"
    taken = api.post("/api/context/types", json={"name": "trading_data", "schema": schema})
    assert_problem(taken, 400, "invalid_request")


# --- idempotency ----------------------------------------------------------------------------


def test_a_repeated_key_stores_nothing(api: Api, source: str) -> None:
    key = uuid.uuid4().hex
    items = [trade(source, 1), trade(source, 2)]
    first = api.post(INGEST, json=items, headers={"Idempotency-Key": key})
    assert first.status_code == 201
    assert "Idempotent-Replayed" not in first.headers
    before = count(api)
    again = api.post(INGEST, json=items, headers={"Idempotency-Key": key})
    assert again.status_code == 200
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.content == first.content
    packed = gzip.compress(json.dumps(items).encode())
    headers = {"Idempotency-Key": key, "Content-Encoding": "gzip"}
    headers["Content-Type"] = "application/json"
    assert api.post(INGEST, data=packed, headers=headers).content == first.content
    other = api.post(INGEST, json=items[:1], headers={"Idempotency-Key": key})
    assert_problem(other, 422, "idempotency_key_reused")
    assert count(api) == before


def test_a_refused_batch_does_not_use_up_its_key(api: Api, source: str) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    assert api.post(INGEST, json=[{"type": "!"}], headers=headers).status_code == 422
    assert api.post(INGEST, json=trade(source, 1), headers=headers).status_code == 201


@pytest.mark.parametrize("key", ["", "k" * 129])
def test_keys_have_1_to_128_characters(api: Api, source: str, key: str) -> None:
    answer = api.post(INGEST, json=trade(source, 1), headers={"Idempotency-Key": key})
    assert_problem(answer, 400, "invalid_request")


def test_concurrent_requests_with_one_key_store_once(api: Api, source: str) -> None:
    key, answers = uuid.uuid4().hex, []
    barrier = threading.Barrier(8)

    def send() -> None:
        with Api(api.url) as mine:
            barrier.wait()
            body = [trade(source, price) for price in range(20)]
            answers.append(mine.post(INGEST, json=body, headers={"Idempotency-Key": key}))

    senders = [threading.Thread(target=send) for _ in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.content for answer in answers}) == 1
    found = api.get("/api/context/latest", params={"source": source}).json()
    assert len(found["items"]) == 20


def test_concurrent_batches_stay_whole_and_offsets_dense(api: Api, source: str) -> None:
    told: list[Json] = []

    def send(worker: int) -> None:
        with Api(api.url) as mine:
            for batch in range(10):
                items = [trade(source, i, symbol=f"{worker}.{batch}") for i in range(5)]
                told.append(mine.ingest(items))

    senders = [threading.Thread(target=send, args=(worker,)) for worker in range(6)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    found = api.get("/api/context/latest", params={"source": source, "limit": 1000}).json()
    items = found["items"][::-1]
    assert len(items) == 300
    assert {t["first_offset"] for t in told} == {item["offset"] for item in items[::5]}
    for start in range(0, 300, 5):
        batch = items[start : start + 5]
        assert len({item["data"]["symbol"] for item in batch}) == 1
        assert [item["data"]["price"] for item in batch] == [0, 1, 2, 3, 4]
        assert batch[4]["offset"] - batch[0]["offset"] == 4


def test_pages_of_other_sites_cannot_change_anything(api: Api) -> None:
    """A browser sends a foreign page's form without asking; the node must refuse it."""
    for origin in ("https://evil.example", "null"):
        answer = api.post(
            "/api/control/emergency-stop",
            data="{}",
            headers={"Origin": origin, "Content-Type": "text/plain"},
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert api.get("/api/control").json()["emergency_stop"] is False
    assert api.post("/api/control/resume", headers={"Origin": api.url}).status_code == 200
