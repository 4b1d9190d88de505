"""Bodies of the bridge's API calls, checked."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from ai_bridge.errors import InvalidRequest

Symbol = Annotated[str, Meta(min_length=1, max_length=64)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]


class DecideRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/context/ai/decide`."""

    symbols: Annotated[list[Symbol], Meta(min_length=1, max_length=20)]
    context: dict[str, Any] = {}
    models: Annotated[list[Name], Meta(min_length=1, max_length=100)] | None = None
    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] = 5000


class ModelPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /api/context/ai/models/<name>`: what is absent stays; ranges are `ModelSettings`'."""

    weight: float | None = None
    enabled: bool | None = None
    min_confidence: float | None = None
    timeout_s: float | None = None


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/context/ai/decisions/<id>/replay`."""

    without: list[Name] = []


Request = TypeVar("Request", DecideRequest, ModelPatch, ReplayRequest)


def parse(body: object, shape: type[Request]) -> Request:
    """Check a decoded JSON body; raises InvalidRequest naming the field, its value and the rule."""
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as wrong:
        rule, _, path = str(wrong).partition(" - at `$")
        field = path.rstrip("`").lstrip(".") or "body"
        message = f"{field}: {rule}, got {_shown(_at(body, field))}"
        raise InvalidRequest(message, [{"index": 0, "field": field, "message": message}]) from wrong


def _at(body: object, field: str) -> object:
    """Follow `a.b[2]` into the body as far as it exists."""
    for step in field.replace("[", ".").replace("]", "").split("."):
        if isinstance(body, dict) and step in body:
            body = body[step]
        elif isinstance(body, list) and step.isdigit() and int(step) < len(body):
            body = body[int(step)]
    return body


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
