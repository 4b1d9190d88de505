"""Learned weights, regret, coverage and automatic outcomes over REST, and across kill -9."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node_process import NodeProcess, wait_for

Json = dict[str, Any]
CONSENSUS = "/api/context/ai/consensus"
DECIDE = "/api/context/ai/decide"
DECISIONS = "/api/context/ai/decisions"
SETTINGS = {"CONTEXT_OUTCOME_HORIZON_S": "20", "CONTEXT_COVERAGE": "0.6"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "node", env=SETTINGS) as started:
        yield started


def trades(symbol: str, start: int, count: int, seed: int = 1) -> list[Json]:
    """A price that wanders, a trade a second of event time."""
    chance = random.Random(seed)
    return [
        {
            "type": "trading_data",
            "source": "test",
            "timestamp": 1000.0 + n,
            "data": {
                "symbol": symbol,
                "price": 100 + math.sin(n / 9) + chance.random() / 9,
                "volume": 1 + n % 3,
                "side": "buy" if n % 5 else "sell",
            },
        }
        for n in range(start, start + count)
    ]


def post(node: NodeProcess, path: str, body: Any) -> Json:
    answer = node.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    document: Json = answer.json()
    return document


def get(node: NodeProcess, path: str) -> Json:
    answer = node.client.get(path)
    assert answer.status_code == 200, answer.text
    document: Json = answer.json()
    return document


def play(node: NodeProcess, symbol: str, count: int) -> list[Json]:
    """Decide, let time go on until the decision before has an outcome, decide again."""
    node.client.ingest(trades(symbol, 0, 300))
    made = []
    for number in range(count):
        made.append(post(node, DECIDE, {"symbols": [symbol]}))
        node.client.ingest(trades(symbol, 300 + 10 * number, 10, seed=number))
        wait_for(lambda due=number: judged(node) >= due, "the outcome of the decision before")
    return made


def judged(node: NodeProcess) -> int:
    return int(get(node, CONSENSUS)["outcomes"])


def test_the_log_tells_outcomes_and_a_killed_node_knows_the_same_bits(node: NodeProcess) -> None:
    made = play(node, "BTC/USD", 50)
    wait_for(lambda: judged(node) == 49, "outcomes")  # the last one's price is missing
    before = get(node, CONSENSUS)
    models = get(node, "/api/context/ai/models")["models"]
    node.kill9()
    node.start()
    assert get(node, CONSENSUS) == before
    again = get(node, "/api/context/ai/models")["models"]
    assert [m["calibration"] for m in again] == [m["calibration"] for m in models]
    # what waited for its price goes on waiting
    node.client.ingest(trades("BTC/USD", 800, 30))
    wait_for(lambda: judged(node) == 50, "the last outcomes")

    told = get(node, CONSENSUS)
    assert (told["rule"], told["coverage"]) == ("learned", 0.6)
    [shown] = told["symbols"]
    assert shown["symbol"] == "BTC/USD"
    assert sum(shown["weights"].values()) == pytest.approx(1)
    for scope in (told["total"], shown):
        assert scope["outcomes"] == 50
        assert scope["bound"]["kind"] == "delayed"
        assert scope["bound"]["most_delay"] >= 1
        for each in (*scope["models"].values(), scope["configured"], scope["uniform"]):
            assert each["regret"] <= each["bound"] + 1e-9
    assert sum(each["count"] for each in told["calibration"]["reliability"]) == 50
    [coverage] = told["coverages"]
    assert coverage["target"] == 0.6
    assert coverage["judged"] >= 10
    assert coverage["series"]
    calibrations = {each["name"]: each["calibration"] for each in again}
    assert calibrations["momentum"]["calibrated"] is True
    assert calibrations["momentum"]["outcomes"] == 49

    # each outcome is what the price did, and the record says by which price it is known
    one = get(node, f"{DECISIONS}/{made[5]['decision_id']}")
    assert one["horizon_s"] == 20
    events = get(node, "/api/context/latest?type=ai_outcome&limit=100")["items"]
    event = next(e["data"] for e in events if e["data"]["decision_id"] == one["decision_id"])
    price = get(node, f"/api/context/items/{event['at_offset']}")
    known = one["reference"]["BTC/USD"]
    assert price["timestamp"] >= known["timestamp"] + 20
    assert event["return"] == price["data"]["price"] / known["price"] - 1
    assert one["outcome"] == event["outcome"]

    # every decision replays to the same bits, also the abstained ones
    last = post(node, DECIDE, {"symbols": ["BTC/USD"], "coverage": 0.99})
    assert last["coverage"]["target"] == 0.99
    assert last["abstained"] is (len(last["prediction_set"]) > 1)
    assert any(vote["calibrated"] for vote in last["votes"])
    told_so = get(node, f"{DECISIONS}/{last['decision_id']}")["explanation"]
    assert "With 99% coverage what turns out right is" in told_so
    for each in [*made, last]:
        again = post(node, f"{DECISIONS}/{each['decision_id']}/replay", {})
        assert again["identical"] is True
    assert node.client.get(f"{CONSENSUS}?symbol=nothing").status_code == 404


def test_outcomes_may_be_told_instead_and_nothing_is_judged_twice(node: NodeProcess) -> None:
    node.client.ingest(trades("X", 0, 300))
    first = post(node, DECIDE, {"symbols": ["X"]})
    second = post(node, DECIDE, {"symbols": ["X"], "horizon_s": 0})
    assert "horizon_s" not in second
    told = post(node, f"{DECISIONS}/{first['decision_id']}/outcome", {"outcome": "sell"})
    assert told["applied"] is True
    third = post(node, DECIDE, {"symbols": ["X"]})
    node.client.ingest(trades("X", 300, 40))
    wait_for(lambda: judged(node) == 2, "the outcome of the third")
    shown = {each: get(node, f"{DECISIONS}/{each}")["outcome"] for each in
             (first["decision_id"], second["decision_id"], third["decision_id"])}  # fmt: skip
    assert shown[first["decision_id"]] == "sell"
    assert shown[second["decision_id"]] is None
    assert shown[third["decision_id"]] is not None
    forged = {"decision_id": "forged", "decision": "buy", "votes": first["votes"]}
    node.client.ingest({"type": "ai_decision", "data": forged})
    refused = node.client.post(f"{DECISIONS}/forged/outcome", json={"outcome": "buy"})
    assert refused.status_code == 400
    assert "chain" in refused.json()["detail"]


def test_static_weights_are_the_configured_ones(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node", env={"CONTEXT_CONSENSUS": "static"}) as node:
        node.client.ingest(trades("X", 0, 300))
        for _ in range(5):
            decision = post(node, DECIDE, {"symbols": ["X"]})
            path = f"{DECISIONS}/{decision['decision_id']}"
            post(node, f"{path}/outcome", {"outcome": "buy"})
            assert post(node, f"{path}/replay", {})["identical"]
        weights = [v["weight"] for v in decision["votes"] if v["status"] == "ok"]
        assert weights == [1 / len(weights)] * len(weights)
        assert decision["pool"]["rule"] == "static"
        told = get(node, CONSENSUS)
        assert told["rule"] == "static"
        assert len(set(told["weights"].values())) > 1  # it learns all the same
