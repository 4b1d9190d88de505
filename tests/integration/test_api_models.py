"""Models added over REST and by the settings file, on a real node with real model servers."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_api_ai import DECIDE, DECISIONS, MODELS, post, trades
from tests.model_server import VOTE, ModelServer
from tests.node_process import Api, NodeProcess, wait_for

Json = dict[str, Any]

OWN_MODELS = """
import asyncio, os, time
import ai_bridge
from ai_bridge.errors import Abstained

@ai_bridge.register
class Plain:
    def decide(self, context):
        time.sleep(0.05)
        assert context["items"] and len(context["window"][context["symbols"][0]]["prices"]) > 20
        return {"decision": "sell", "confidence": 0.8, "reasoning": "plain"}

    def health(self):
        return "fine"

@ai_bridge.register
class Awaited:
    async def decide(self, context):
        await asyncio.sleep(0.01)
        return {"buy": 0.25, "sell": 0.25, "hold": 0.5}

@ai_bridge.register
class Quiet:
    def decide(self, context):
        raise Abstained("nothing to say")

@ai_bridge.register
class Broken:
    def decide(self, context):
        return "buy!"
"""
FILE = """
[models.filed]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
model = "small"
weight = 2.0
[models.keyless]
kind = "openai"
base_url = "http://127.0.0.1:{port}"
api_key_env = "NOT_SET_ANYWHERE"
"""


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def symbol(api: Api) -> str:
    name = f"S{uuid.uuid4().hex[:10]}"
    api.ingest(trades(name))
    return name


def listed(api: Api) -> dict[str, Json]:
    return {model["name"]: model for model in api.get(MODELS).json()["models"]}


def add(api: Api, **fields: Any) -> Json:
    answer = api.post(MODELS, json=fields)
    assert answer.status_code == 201, answer.text
    model: Json = answer.json()
    return model


def votes(api: Api, symbol: str, **more: Any) -> dict[str, Json]:
    decision = post(api, DECIDE, {"symbols": [symbol], **more})
    replayed = post(api, f"{DECISIONS}/{decision['decision_id']}/replay", {})
    assert replayed["identical"] is True
    return {vote["model"]: vote for vote in decision["votes"]}


def test_a_model_comes_fails_recovers_survives_and_goes(own_node: NodeProcess) -> None:
    api = own_node.client
    api.ingest(trades("X"))
    server = ModelServer().__enter__()
    try:
        made = add(
            api, name="small", kind="openai", base_url=server.url, model="m-1", weight=0.5,
            min_confidence=0.1, context_window=8000, timeout_s=5, enabled=True,
        )  # fmt: skip
        assert made["checked"] == {"ok": True, "detail": "1 models"}
        promised = {"weight": 0.5, "min_confidence": 0.1, "context_window": 8000, "timeout_s": 5}
        assert made.items() >= (promised | {"kind": "openai", "origin": "api"}).items()
        vote = votes(api, "X")["small"]
        assert (vote["status"], vote["distribution"]) == ("ok", VOTE["distribution"])
        assert api.post(MODELS, json={"name": "small", "kind": "custom", "model": "x"}).ok is False
        taken = api.post(
            MODELS, json={"name": "momentum", "kind": "openai", "base_url": "http://h"}
        )
        assert (taken.status_code, taken.json()["code"]) == (409, "model_exists")
        server.close()
        for _ in range(3):
            assert votes(api, "X")["small"]["status"] == "unavailable"
        started = time.monotonic()
        vote = votes(api, "X")["small"]
        assert time.monotonic() - started < 1
        assert vote["status"] == "unavailable"
        assert "not asked after 3 failures" in vote["reasoning"]
        shown = listed(api)["small"]
        assert shown["breaker"]["state"] in ("open", "half_open")
        assert "no server at 127.0.0.1" in shown["breaker"]["last_error"]
        assert shown["counts"]["unavailable"] >= 4
        assert shown["latency_ms"]["p99"] >= shown["latency_ms"]["p50"] >= 0
        server = ModelServer(server.port).__enter__()
        wait_for(lambda: votes(api, "X")["small"]["status"] == "ok", "the model to be back")
        assert listed(api)["small"]["breaker"]["state"] == "closed"
        api.patch(f"{MODELS}/small", json={"weight": 0.25, "concurrency": 2})
        own_node.kill9()
        own_node.start()
        again = listed(api)["small"]
        assert (again["weight"], again["concurrency"], again["base_url"]) == (0.25, 2, server.url)
        assert votes(api, "X")["small"]["status"] == "ok"
        assert api.delete(f"{MODELS}/small").json() == {"name": "small", "deleted": True}
        assert api.delete(f"{MODELS}/small").status_code == 404
        assert "small" not in votes(api, "X")
        own_node.kill9()
        own_node.start()
        assert "small" not in listed(api)
        assert add(api, name="small", kind="openai", base_url=server.url)["weight"] == 1
    finally:
        server.close()


def test_the_settings_file_and_own_classes(tmp_path: Path, server: ModelServer) -> None:
    (tmp_path / "own_models.py").write_text(OWN_MODELS)
    config = tmp_path / "node.toml"
    config.write_text('model_modules = ["own_models"]\n' + FILE.format(port=server.port))
    env = {"PYTHONPATH": str(tmp_path)}
    with NodeProcess(tmp_path / "data", None, "--config", str(config), env=env) as node:
        api = node.client
        api.ingest(trades("X"))
        for name in ("Plain", "Awaited", "Quiet", "Broken"):
            made = add(api, name=name.lower(), kind="custom", model=name)
            assert made["checked"]["ok"] is True
        models = listed(api)
        assert (models["filed"]["origin"], models["filed"]["weight"]) == ("file", 2)
        answered = votes(api, "X")
        assert answered["filed"]["status"] == "ok"
        assert answered["plain"]["confidence"] == 0.8
        assert answered["awaited"]["distribution"] == {"buy": 0.25, "sell": 0.25, "hold": 0.5}
        assert answered["quiet"]["reasoning"] == "nothing to say"
        assert answered["quiet"]["status"] == "abstained"
        assert answered["broken"]["status"] == "error"
        assert "NOT_SET_ANYWHERE is not set" in answered["keyless"]["reasoning"]
        refused = api.delete(f"{MODELS}/filed")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        unknown = api.post(MODELS, json={"name": "x", "kind": "custom", "model": "os.system"})
        assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (400, "model")
        stolen = {"name": "x", "kind": "openai", "base_url": server.url, "api_key_env": "HOME"}
        assert api.post(MODELS, json=stolen).status_code == 400


def test_a_wrong_table_stops_the_start(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('[models.bad]\nkind = "openai"\nwieght = 2\n')
    node = NodeProcess(tmp_path / "data", None, "--config", str(config))
    with pytest.raises(AssertionError, match=r"models\.bad: wieght"):
        node.start()


def test_a_model_of_another_node_lends_its_vote(api: Api, node: NodeProcess, symbol: str) -> None:
    name = f"there{uuid.uuid4().hex[:6]}"
    add(api, name=name, kind="remote", base_url=node.url, model="momentum")
    try:
        answered = votes(api, symbol, models=[name, "momentum"])
        assert answered[name]["status"] == "ok"
        assert answered[name]["distribution"] == answered["momentum"]["distribution"]
        unheard = uuid.uuid4().hex
        answer = api.post(DECIDE, json={"symbols": [unheard], "models": [name]})
        assert answer.json()["errors"][0]["message"].startswith(f"abstained: {unheard}: 0 points")
    finally:
        api.delete(f"{MODELS}/{name}")


def test_late_votes_are_kept_and_taught(api: Api, symbol: str, server: ModelServer) -> None:
    name = f"late{uuid.uuid4().hex[:6]}"
    add(api, name=name, kind="openai", base_url=server.url)
    try:
        server.behave("slow", 0.6)
        decision = post(api, DECIDE, {"symbols": [symbol], "deadline_ms": 400})
        assert {v["model"]: v["status"] for v in decision["votes"]}[name] == "timeout"
        path = f"{DECISIONS}/{decision['decision_id']}"

        def late() -> list[Json]:
            found: list[Json] = api.get(path).json()["late_votes"]
            return found

        wait_for(late, "the late vote")
        assert [(vote["model"], vote["decision"]) for vote in late()] == [(name, "buy")]
        told = post(api, f"{path}/outcome", {"outcome": "buy"})
        assert told["weights"][name] != 1
        shown = listed(api)[name]
        assert (shown["late_votes"], shown["calibration"]["outcomes"]) == (1, 1)
        assert post(api, f"{path}/replay", {})["identical"] is True
    finally:
        api.delete(f"{MODELS}/{name}")


def test_own_decisions_are_decided_judged_and_replayed(
    api: Api, symbol: str, server: ModelServer
) -> None:
    name = f"own{uuid.uuid4().hex[:6]}"
    server.say = json.dumps({"decision": "wait", "confidence": 0.75})
    add(api, name=name, kind="openai", base_url=server.url)
    try:
        wish = {"symbols": [symbol], "decisions": ["go", "wait"]}
        decision = post(api, DECIDE, wish)
        assert decision["distribution"] == {"go": 0.25, "wait": 0.75}
        assert decision["decisions"] == ["go", "wait"]
        path = f"{DECISIONS}/{decision['decision_id']}"
        for wrong in ({"outcome": "buy"}, {"return": 0.1}):
            assert api.post(f"{path}/outcome", json=wrong).status_code == 400
        assert post(api, f"{path}/outcome", {"outcome": "go"})["weights"][name] == pytest.approx(1)
        assert post(api, f"{path}/replay", {})["identical"] is True
        for wrong in (["go"], ["go", "go"], ["Go", "wait"]):
            assert api.post(DECIDE, json={**wish, "decisions": wrong}).status_code == 400
    finally:
        api.delete(f"{MODELS}/{name}")
