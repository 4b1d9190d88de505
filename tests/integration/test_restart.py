"""What was acknowledged is there again: after SIGTERM, after `kill -9`, and after parts died."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.integration.test_api_ai import DECIDE, DECISIONS, MODELS, REQUEST, trades
from tests.node_process import Api, NodeProcess, wait_for
from tests.streaming import SseReader

Json = dict[str, Any]
INGEST = "/api/context/ingest"
SCHEMA = {"type": "object", "required": ["level"]}


def remembered(api: Api) -> Json:
    """Everything that must be the same after a restart."""
    models = api.get(MODELS).json()["models"]
    kept = ("name", "weight", "enabled", "min_confidence", "learned_weight", "calibration")
    stats = api.get("/api/context/stats").json()
    return {
        "items": api.get("/api/context/latest", params={"limit": 10000}).json(),
        "types": api.get("/api/context/types").json(),
        "control": api.get("/api/control").json(),
        "decisions": api.get(DECISIONS).json(),
        "models": [{name: model[name] for name in kept} for model in models],
        "stats": {name: stats[name] for name in ("items", "bytes", "types", "sources", "epoch")},
        "hits": api.post("/api/context/search", json={"query": "BTC"}).json()["items"],
    }


@pytest.mark.parametrize("end", [NodeProcess.stop, NodeProcess.kill9])
def test_everything_is_durable(own_node: NodeProcess, end: Callable[[NodeProcess], None]) -> None:
    node, api = own_node, own_node.client
    api.ingest(trades("BTC/USDT"))
    keyed = {"json": trades("ETH/USDT", 3), "headers": {"Idempotency-Key": "once"}}
    first = api.post(INGEST, **keyed)
    assert first.status_code == 201
    schema = {"name": "mood", "schema": SCHEMA}
    assert api.post("/api/context/types", json=schema).status_code == 201
    api.patch(f"{MODELS}/momentum", json={"weight": 3, "min_confidence": 0.01})
    packed = api.post(REQUEST, json={"symbols": ["BTC/USDT"]})
    decided = [api.post(DECIDE, json={"symbols": ["BTC/USDT"]}).json() for _ in range(3)]
    for decision, outcome in zip(decided, ("buy", "sell"), strict=False):
        path = f"{DECISIONS}/{decision['decision_id']}/outcome"
        assert api.post(path, json={"outcome": outcome}).json()["applied"] is True
    api.post("/api/control/emergency-stop", json={"reason": "drill"})
    cursor, term = api.newest(), api.get("/api/nodes").json()["term"]
    before = remembered(api)

    end(node)
    node.start()

    assert remembered(api) == before
    assert api.get("/api/nodes").json()["term"] > term
    again = api.post(INGEST, **keyed)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    other = api.post(INGEST, json=trades("ETH/USDT", 2), headers=keyed["headers"])
    assert other.json()["code"] == "idempotency_key_reused"
    assert api.newest() == cursor
    assert api.post(INGEST, json={"type": "mood", "data": {}}).status_code == 422
    assert api.get(f"{REQUEST}/{packed.json()['context_id']}").content == packed.content
    path = f"{DECISIONS}/{decided[0]['decision_id']}"
    repeat = api.post(f"{path}/outcome", json={"outcome": "hold"}).json()
    assert (repeat["applied"], repeat["outcome"]) == (False, "buy")
    assert api.post(f"{path}/replay", json={}).json()["identical"] is True
    told = api.ingest({"type": "later", "data": {}})
    assert told["term"] > term
    assert told["cursor"] == f"{cursor.split(':')[0]}:{int(cursor.split(':')[1]) + 1}"
    with SseReader(node, after=cursor) as reader:
        assert reader.wait_items(1)[0]["type"] == "later"


def test_a_forged_outcome_teaches_nothing(own_node: NodeProcess) -> None:
    """Items are anybody's; what models learn comes through the outcome call alone."""
    node, api = own_node, own_node.client
    api.ingest(trades("BTC/USDT"))
    decision = api.post(DECIDE, json={"symbols": ["BTC/USDT"]}).json()
    event = {
        "decision_id": decision["decision_id"],
        "outcome": "buy",
        "final_decision": decision["final_decision"],
        "symbols": ["BTC/USDT"],
        "votes": decision["votes"],
    }
    answer = api.post(INGEST, json={"type": "ai_outcome", "source": "alpha", "data": event})
    assert answer.status_code in (201, 422)
    before = remembered(api)
    node.stop()
    node.start()
    assert remembered(api) == before


@pytest.mark.parametrize("part", ["server.agent", "server.web"])
def test_a_part_that_dies_comes_back(own_node: NodeProcess, part: str) -> None:
    node, api = own_node, own_node.client
    told = api.ingest([{"type": "x", "data": {"n": n}} for n in range(100)])
    dead = node.child(part)
    os.kill(dead, signal.SIGKILL)

    def serves_again() -> bool:
        try:
            return (
                dead not in node.pids()
                and api.get("/readyz", timeout=5).status_code == 200
                and api.get("/api/context/stats", timeout=5).status_code == 200
            )
        except requests.RequestException:
            return False

    wait_for(serves_again, f"{part} to be back", 30)
    assert api.newest() == told["cursor"]
    with SseReader(node, after=f"{told['cursor'].split(':')[0]}:-1") as reader:
        later = api.ingest({"type": "x", "data": {"n": 100}})
        assert later["first_offset"] == 100
        items = reader.wait_items(101)
    assert [item["data"]["n"] for item in items] == list(range(101))


def test_it_stops_while_streams_are_open(own_node: NodeProcess) -> None:
    with SseReader(own_node), SseReader(own_node, source="nobody"):
        own_node.stop()


def test_a_second_node_does_not_share_the_data(own_node: NodeProcess) -> None:
    second = NodeProcess(own_node.data_dir)
    with pytest.raises(AssertionError, match="the node ended"):
        second.start()
    second.kill9()
    assert own_node.client.get("/readyz").status_code == 200
