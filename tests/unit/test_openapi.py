"""The description of the interface: valid, whole, and the same as what is routed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask

from context.request import LatestRequest, LiveRequest, PollRequest, SearchRequest
from server.agent_client import AgentClient
from server.config import load
from server.factory import create_app
from server.lead import Lead
from server.live import LiveFeed
from server.siblings import Siblings

Json = dict[str, Any]
UNDESCRIBED = ("/", "/docs", "/openapi.json", "/static", "/dashboard")


@pytest.fixture(scope="module")
def app() -> Flask:
    settings = load({"async_mode": "threading", "data_dir": "unused"}, {})
    agent = AgentClient(Path("nowhere.sock"))
    siblings = Siblings(0, 1, lambda _: Path())
    return create_app(settings, agent, LiveFeed(agent), siblings, Lead(agent))[0]


@pytest.fixture(scope="module")
def document(app: Flask) -> Json:
    described: Json = app.test_client().get("/openapi.json").get_json()
    return described


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from refs(inner)


def test_the_frame_is_openapi_3_1(document: Json) -> None:
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"]
    assert document["info"]["version"]
    assert all(path.startswith("/") for path in document["paths"])


def test_operations_are_described_whole(document: Json) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["tags"], where
        in_path = [p for p in operation["parameters"] if p["in"] == "path"]
        assert sorted(p["name"] for p in in_path) == sorted(re.findall(r"{(\w+)}", path)), where
        assert all(p["required"] for p in in_path), where
        keys = [(p["in"], p["name"]) for p in operation["parameters"]]
        assert len(keys) == len(set(keys)), where
        assert all(p["in"] in ("query", "header", "path") for p in operation["parameters"]), where
        assert all("schema" in p for p in operation["parameters"]), where
        assert all(re.fullmatch(r"[1-5]\d\d|default", s) for s in operation["responses"]), where
        assert any(s.startswith("2") for s in operation["responses"]), where
        assert "application/problem+json" in operation["responses"]["default"]["content"], where
        assert all(answer["description"] for answer in operation["responses"].values()), where
        if method == "GET":
            assert "requestBody" not in operation, where


def test_references_resolve_and_schemas_are_json_schemas(document: Json) -> None:
    schemas = document["components"]["schemas"]
    for ref in refs(document):
        prefix, _, name = ref.rpartition("/")
        assert (prefix, name in schemas) == ("#/components/schemas", True), ref
    for schema in schemas.values():
        jsonschema_rs.meta.validate(schema)
    for _, _, operation in operations(document):
        for parameter in operation["parameters"]:
            jsonschema_rs.meta.validate(parameter["schema"])
        for media in operation.get("requestBody", {}).get("content", {}).values():
            jsonschema_rs.meta.validate(media["schema"])


def test_what_is_routed_is_described_and_the_other_way_round(app: Flask, document: Json) -> None:
    routed = {
        (method, re.sub(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(UNDESCRIBED[1:]) and rule.rule != UNDESCRIBED[0]
    }
    assert {(method, path) for method, path, _ in operations(document)} == routed


PROMISED = """
POST /api/context/ingest
GET /api/context/latest
GET /api/context/items/{offset}
POST /api/context/search
GET /api/context/stream
POST /api/context/ai/request
GET /api/context/ai/request/{context_id}
GET /api/context/stats
POST /api/context/types
GET /api/context/types
POST /api/context/ai/decide
GET /api/context/ai/models
POST /api/context/ai/models
PATCH /api/context/ai/models/{name}
DELETE /api/context/ai/models/{name}
GET /api/context/ai/decisions
GET /api/context/ai/decisions/{decision_id}
POST /api/context/ai/decisions/{decision_id}/outcome
POST /api/context/ai/decisions/{decision_id}/replay
GET /api/nodes
GET /api/nodes/self
POST /api/nodes/{node_id}/lead
POST /api/control/emergency-stop
POST /api/control/resume
GET /api/control
GET /healthz
GET /readyz
GET /metrics
"""


def test_every_promised_call_is_there(document: Json) -> None:
    described = {f"{method} {path}" for method, path, _ in operations(document)}
    assert set(PROMISED.split("\n")) - {""} <= described


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/context/latest", LatestRequest),
        ("/api/context/stream", LiveRequest),
        ("/api/context/poll", PollRequest),
    ],
)
def test_every_option_of_an_address_is_described(document: Json, path: str, kind: Any) -> None:
    parameters = document["paths"][path]["get"]["parameters"]
    described = {p["name"] for p in parameters if p["in"] == "query"} - {"subscription"}
    described -= {"consistency", "min_cursor"}  # of every reading
    assert described == set(kind.__struct_fields__) - {"ack"}  # Socket.IO only


def test_every_option_of_a_search_is_described(document: Json) -> None:
    schema = document["components"]["schemas"]["SearchRequest"]
    assert set(schema["properties"]) == set(SearchRequest.__struct_fields__)
    assert schema["required"] == ["query"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["limit"]["maximum"] == 10_000


def test_the_page_needs_nothing_from_elsewhere(app: Flask) -> None:
    page = app.test_client().get("/docs/").get_data(as_text=True)
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
