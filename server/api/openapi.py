"""OpenAPI 3.1 and its page, generated from the table of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from flask import Blueprint, jsonify
from flask_swagger_ui import get_swaggerui_blueprint

from server.api.operations import Operation, Param
from server.routing import Place, place_of

_ROUTING = (
    Param("consistency", "`leader`: what the leader has, rather than this node's copy"),
    Param("min_cursor", "cursor: wait, for seconds at most, until this node has that item"),
)
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "retryable"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "retryable": {"type": "boolean"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "field": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
_KINDS = {"int": "integer", "": "string"}


def describe(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The OpenAPI document of the operations."""
    operations = list(operations)
    structs = [op.body for op in operations if isinstance(op.body, type)]
    _, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for op in operations:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", op.path)
        paths.setdefault(path, {})[op.method.lower()] = _operation(op)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Context media server", "version": version},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],  # asked for where `api_token` is set
    }


def _operation(op: Operation) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    described: dict[str, Any] = {
        "operationId": op.endpoint,
        "summary": op.summary,
        "tags": [_tag(op.path)],
        "parameters": _parameters(op),
        "responses": {
            **{
                str(status): {
                    "description": about,
                    "content": problem if status >= 400 else {op.media: {}},
                }
                for status, about in op.answers.items()
            },
            "default": {"description": "a problem (RFC 9457)", "content": problem},
        },
    }
    if op.body is not None:
        described["requestBody"] = {"required": True, "content": _content(op)}
    return described


def _parameters(op: Operation) -> list[dict[str, Any]]:
    in_path = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": _KINDS.get(kind, "string")},
        }
        for kind, name in re.findall(r"<(?:(\w+):)?(\w+)>", op.path)
    ]
    others = [
        {
            "name": param.name,
            "in": param.where,
            "required": param.required,
            "description": param.about,
            "schema": {"type": param.kind},
        }
        for param in (*op.params, *(_ROUTING if _is_routed(op) else ()))
    ]
    return in_path + others


def _is_routed(op: Operation) -> bool:
    return op.path.startswith("/api/") and place_of(op) is not Place.LEADER


def _content(op: Operation) -> dict[str, Any]:
    if not isinstance(op.body, type):
        return {"application/json": {"schema": op.body}}
    one = {"$ref": f"#/components/schemas/{op.body.__name__}"}
    if op.call != "ingest":
        return {"application/json": {"schema": one}}
    many = {"anyOf": [one, {"type": "array", "items": one}]}
    return {
        "application/json": {"schema": many},
        "application/x-ndjson": {"schema": {"type": "string"}},
    }


def blueprints(document: dict[str, Any]) -> tuple[Blueprint, Blueprint]:
    """/openapi.json and /docs."""
    made = Blueprint("openapi", __name__)
    made.add_url_rule("/openapi.json", view_func=lambda: jsonify(document), endpoint="document")
    docs = get_swaggerui_blueprint(
        "/docs", "/openapi.json", config={"app_name": "Context media server"}
    )
    return made, docs


def _tag(path: str) -> str:
    """Group of a path: the word after `/api/`, else `operation`."""
    words = path.split("/")
    return words[2] if words[1] == "api" else "operation"
