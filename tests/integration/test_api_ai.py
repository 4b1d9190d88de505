"""Packed context and decisions over REST, on known prices."""

from __future__ import annotations

import math
import time
import uuid
from typing import Any

import pytest

from tests.node_process import Api

Json = dict[str, Any]
REQUEST = "/api/context/ai/request"
DECIDE = "/api/context/ai/decide"
DECISIONS = "/api/context/ai/decisions"
MODELS = "/api/context/ai/models"


def trades(symbol: str, count: int = 400) -> list[Json]:
    """A price that wanders around a mean, a trade a second."""
    return [
        {
            "type": "trading_data",
            "source": "test",
            "timestamp": 1000.0 + i,
            "data": {
                "symbol": symbol,
                "price": 100 + math.sin(i / 9) + (i * 7 % 13) / 20,
                "volume": 1 + i % 3,
                "side": "buy" if i % 5 else "sell",
            },
        }
        for i in range(count)
    ]


@pytest.fixture
def symbol(api: Api) -> str:
    """A symbol with 400 trades."""
    name = f"S{uuid.uuid4().hex[:10]}"
    api.ingest(trades(name))
    return name


def post(api: Api, path: str, body: Any) -> Json:
    answer = api.post(path, json=body)
    assert answer.status_code == 200, answer.text
    document: Json = answer.json()
    return document


# --- context for models ---------------------------------------------------------------------


def test_items_are_the_newest_in_order(api: Api, symbol: str) -> None:
    packed = post(api, REQUEST, {"symbols": [symbol], "limit": 5})
    promised = {"context_id", "items", "tokens", "left_out", "as_of"}
    assert promised <= packed.keys()
    latest = api.get("/api/context/latest", params={"symbol": symbol, "limit": 5}).json()
    assert packed["items"] == latest["items"][::-1]
    assert packed["left_out"] == {"count": 395, "why": "limit"}
    assert packed["as_of"] == latest["as_of"]
    assert packed["tokens"] > 0


def test_prompt_and_messages_hold_the_same_items(api: Api, symbol: str) -> None:
    wish = {"symbols": [symbol], "limit": 3}
    prompt = post(api, REQUEST, {**wish, "format": "prompt"})["prompt"]
    assert prompt.count(symbol) == 3
    messages = post(api, REQUEST, {**wish, "format": "messages"})["messages"]
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[1]["content"] == prompt


@pytest.mark.parametrize("form", ["items", "prompt", "messages"])
@pytest.mark.parametrize("budget", [1, 60, 500, 3000])
def test_the_budget_holds(api: Api, symbol: str, form: str, budget: int) -> None:
    wish = {"symbols": [symbol], "limit": 10000, "budget_tokens": budget, "format": form}
    packed = post(api, REQUEST, wish)
    assert packed["tokens"] <= budget
    shown = str(packed[form]).count(symbol)
    assert shown + packed["left_out"]["count"] == 400
    assert packed["left_out"]["why"] == "budget_tokens"
    assert (shown > 0) is (budget >= 500)


def test_types_and_query_choose(api: Api, symbol: str) -> None:
    source = uuid.uuid4().hex
    api.ingest([{"type": kind, "source": source, "data": {"n": 1}} for kind in ("aa", "bb")])
    found = post(api, REQUEST, {"context_types": ["aa"], "query": source})
    assert [item["type"] for item in found["items"]] == ["aa"]
    assert found["left_out"] == {"count": 0, "why": None}


def test_relevance_finds_items_by_the_meaning_of_their_hash(api: Api) -> None:
    word, digest = f"w{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    meaning = {"calculation_id": "c", "result": 1, "hash_value": digest}
    api.ingest({"type": "tensor_math", "data": {**meaning, "context_meaning": f"{word} regime"}})
    api.ingest([{"type": "later", "data": {"seen": digest}}, *trades(digest[:9], 50)])
    wish: Json = {"rank": "relevant", "query": f"{word.upper()} regime", "limit": 2}
    wish["context_types"] = ["tensor_math", "later", "note"]
    packed = post(api, REQUEST, wish)
    assert [item["type"] for item in packed["items"]] == ["tensor_math", "later"]
    assert packed["offsets"] == [item["offset"] for item in packed["items"]]
    folded = post(api, REQUEST, {"symbols": [digest[:9]], "fold": True, "quotas": {"later": 0}})
    assert sum(each["alike"] for each in folded["folded"]) + len(folded["items"]) == 50


def test_decisions_are_no_evidence_for_decisions(api: Api, symbol: str) -> None:
    first = post(api, DECIDE, {"symbols": [symbol]})
    second = post(api, DECIDE, {"symbols": [symbol]})
    assert first["context_id"] == second["context_id"]
    api.ingest(trades(symbol, 1))
    third = post(api, DECIDE, {"symbols": [symbol]})
    assert third["context_id"] != first["context_id"]
    packed = api.get(f"{REQUEST}/{third['context_id']}").json()
    assert {item["type"] for item in packed["items"]} == {"trading_data"}


@pytest.mark.parametrize("form", ["items", "prompt", "messages"])
def test_a_context_id_gives_the_same_bytes_again(api: Api, symbol: str, form: str) -> None:
    first = api.post(REQUEST, json={"symbols": [symbol], "limit": 50, "format": form})
    api.ingest(trades(symbol, 10))
    again = api.get(f"{REQUEST}/{first.json()['context_id']}")
    assert again.status_code == 200
    assert again.content == first.content


# --- decisions ------------------------------------------------------------------------------


def test_a_decision_shows_every_vote(api: Api, symbol: str) -> None:
    started = time.monotonic()
    decision = post(api, DECIDE, {"symbols": [symbol], "context": {"why": "test"}})
    assert time.monotonic() - started < 5
    promised = {"decision_id", "final_decision", "confidence", "distribution", "agreement"}
    promised |= {"reasoning", "votes", "context_id", "term", "abstained"}
    assert promised <= decision.keys()
    assert decision["abstained"] is False
    assert decision["term"] == api.get("/api/nodes").json()["term"]
    distribution = decision["distribution"]
    assert set(distribution) == {"buy", "sell", "hold"}
    assert sum(distribution.values()) == pytest.approx(1)
    assert distribution[decision["final_decision"]] == max(distribution.values())
    assert decision["confidence"] == distribution[decision["final_decision"]]
    votes = {vote["model"]: vote for vote in decision["votes"]}
    assert {"momentum", "mean_reversion", "order_flow"} <= votes.keys()
    for vote in votes.values():
        fields = {"model", "status", "decision", "confidence", "distribution", "weight"}
        assert fields | {"latency_ms", "reasoning"} <= vote.keys()
        assert vote["status"] in ("ok", "abstained", "timeout", "error", "unavailable")
        assert vote["latency_ms"] >= 0
    voted = [vote for vote in votes.values() if vote["status"] == "ok"]
    assert len(voted) >= 2
    assert sum(vote["weight"] for vote in voted) == pytest.approx(1)
    for name, share in distribution.items():
        pooled = sum(vote["weight"] * vote["distribution"][name] for vote in voted)
        assert share == pytest.approx(pooled, abs=0.05)  # the substitution is near the mean
    packed = api.get(f"{REQUEST}/{decision['context_id']}").json()
    assert {item["data"]["symbol"] for item in packed["items"]} == {symbol}


def test_a_decision_is_recorded_as_an_item(api: Api, symbol: str) -> None:
    decision = post(api, DECIDE, {"symbols": [symbol]})
    params = {"type": "ai_decision", "symbol": symbol}
    items = api.get("/api/context/latest", params=params).json()["items"]
    recorded = items[0]["data"]
    assert {name: recorded[name] for name in decision} == decision
    assert items[0]["source"] == "alpha"
    one = api.get(f"{DECISIONS}/{decision['decision_id']}").json()
    assert {name: one[name] for name in decision} == decision


def test_decisions_are_listed_newest_first(api: Api, symbol: str) -> None:
    made = [post(api, DECIDE, {"symbols": [symbol]})["decision_id"] for _ in range(5)]
    params: Json = {"symbol": symbol, "limit": 2}
    seen: list[str] = []
    while True:
        page = api.get(DECISIONS, params=params).json()
        assert set(page) == {"decisions", "next"}
        seen += [decision["decision_id"] for decision in page["decisions"]]
        if page["next"] is None:
            break
        params["before"] = page["next"]
    assert seen == made[::-1]
    by_model = api.get(DECISIONS, params={"symbol": symbol, "model": "momentum"}).json()
    assert len(by_model["decisions"]) == 5
    nobody = api.get(DECISIONS, params={"symbol": symbol, "model": "nobody"}).json()
    assert nobody == {"decisions": [], "next": None}


def test_nobody_can_vote_on_an_unknown_symbol(api: Api) -> None:
    answer = api.post(DECIDE, json={"symbols": [uuid.uuid4().hex]})
    assert (answer.status_code, answer.json()["code"]) == (503, "no_models")
    reasons = {error["field"] for error in answer.json()["errors"]}
    assert {"momentum", "mean_reversion", "order_flow"} <= reasons


def test_only_the_named_models_are_asked(api: Api, symbol: str) -> None:
    decision = post(api, DECIDE, {"symbols": [symbol], "models": ["order_flow"]})
    assert [vote["model"] for vote in decision["votes"]] == ["order_flow"]
    unknown = api.post(DECIDE, json={"symbols": [symbol], "models": ["oracle"]})
    assert (unknown.status_code, unknown.json()["code"]) == (400, "unknown_model")


def test_the_deadline_is_honoured(api: Api, symbol: str) -> None:
    started = time.monotonic()
    answer = api.post(DECIDE, json={"symbols": [symbol], "deadline_ms": 1})
    assert time.monotonic() - started < 1
    if answer.status_code == 200:
        assert {vote["status"] for vote in answer.json()["votes"]} & {"ok", "timeout"}
    else:
        assert (answer.status_code, answer.json()["code"]) == (503, "no_models")


def learned(api: Api) -> dict[str, float]:
    return {model["name"]: model["learned_weight"] for model in api.get(MODELS).json()["models"]}


@pytest.mark.parametrize("outcome", [{"outcome": "buy"}, {"return": 0.0031}, {"return": -1}])
def test_an_outcome_teaches_once(api: Api, symbol: str, outcome: Json) -> None:
    decision = post(api, DECIDE, {"symbols": [symbol]})
    path = f"{DECISIONS}/{decision['decision_id']}/outcome"
    before = learned(api)
    told = post(api, path, outcome)
    after = learned(api)
    assert told["outcome"] == ("sell" if outcome == {"return": -1} else "buy")
    assert after != before
    assert told["weights"] == after
    for again in (outcome, {"outcome": "hold"}):
        assert post(api, path, again)["outcome"] == told["outcome"]
        assert learned(api) == after
    assert api.get(f"{DECISIONS}/{decision['decision_id']}").json()["outcome"] == told["outcome"]


@pytest.mark.parametrize(
    "body", [{}, {"outcome": "up"}, {"return": "a lot"}, {"return": 1, "outcome": "buy"}, []]
)
def test_outcomes_are_checked(api: Api, symbol: str, body: Any) -> None:
    decision = post(api, DECIDE, {"symbols": [symbol]})
    before = learned(api)
    answer = api.post(f"{DECISIONS}/{decision['decision_id']}/outcome", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert learned(api) == before


def test_replay_recomputes_the_record(api: Api, symbol: str) -> None:
    decision = post(api, DECIDE, {"symbols": [symbol]})
    path = f"{DECISIONS}/{decision['decision_id']}/replay"
    post(api, f"{DECISIONS}/{decision['decision_id']}/outcome", {"outcome": "sell"})
    same = post(api, path, {})
    assert same["identical"] is True
    assert {name: same[name] for name in ("final_decision", "confidence", "distribution")} == {
        name: decision[name] for name in ("final_decision", "confidence", "distribution")
    }
    voters = [vote["model"] for vote in decision["votes"] if vote["status"] == "ok"]
    without = post(api, path, {"without": [voters[0]]})
    assert without["without"] == [voters[0]]
    assert without["distribution"] != decision["distribution"]
    alone = next(vote for vote in decision["votes"] if vote["model"] == voters[-1])
    only = post(api, path, {"without": voters[:-1]})
    assert only["distribution"] == pytest.approx(alone["distribution"])
    nobody = api.post(path, json={"without": voters})
    assert (nobody.status_code, nobody.json()["code"]) == (503, "no_models")
    unknown = api.post(path, json={"without": ["oracle"]})
    assert (unknown.status_code, unknown.json()["code"]) == (400, "unknown_model")


def test_models_are_described_and_tuned(api: Api, symbol: str) -> None:
    models = {model["name"]: model for model in api.get(MODELS).json()["models"]}
    assert {"momentum", "mean_reversion", "order_flow"} <= models.keys()
    for model in models.values():
        assert {"weight", "health", "calibration", "counts", "latency_ms"} <= model.keys()
    path = f"{MODELS}/momentum"
    try:
        changed = api.patch(path, json={"weight": 0}).json()
        assert changed["weight"] == 0
        votes = post(api, DECIDE, {"symbols": [symbol]})["votes"]
        assert next(vote for vote in votes if vote["model"] == "momentum")["weight"] == 0
        api.patch(path, json={"weight": 2.5, "enabled": False})
        votes = post(api, DECIDE, {"symbols": [symbol]})["votes"]
        assert "momentum" not in [vote["model"] for vote in votes]
        api.patch(path, json={"enabled": True, "min_confidence": 1})
        votes = post(api, DECIDE, {"symbols": [symbol]})["votes"]
        vote = next(vote for vote in votes if vote["model"] == "momentum")
        assert vote["status"] == "abstained"
    finally:
        reset = {"weight": 1, "enabled": True, "min_confidence": 0}
        assert api.patch(path, json=reset).status_code == 200


def test_the_emergency_stop_leaves_reads_and_ingest_alone(api: Api, symbol: str) -> None:
    assert api.get("/api/control").json()["emergency_stop"] is False
    try:
        stopped = post(api, "/api/control/emergency-stop", {"reason": "test"})
        assert (stopped["emergency_stop"], stopped["reason"]) == (True, "test")
        assert api.get("/api/control").json() == stopped
        api.ingest(trades(symbol, 1))
        assert api.get("/api/context/latest").status_code == 200
    finally:
        resumed = post(api, "/api/control/resume", {})
    assert resumed["emergency_stop"] is False
    assert api.get("/api/control").json()["emergency_stop"] is False
