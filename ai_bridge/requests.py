"""Bodies of the bridge's API calls, checked."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from ai_bridge.errors import InvalidRequest

Symbol = Annotated[str, Meta(min_length=1, max_length=64)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Choice = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_]{0,31}\Z")]
_NOTHING = object()
_NAMED = re.compile(r"(?:unknown|missing required) field `(.+)`")


class DecideRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/context/ai/decide`.

    `coverage` of the prediction set and `horizon_s`, after which the price judges (0: nobody but
    the outcome call), are the settings' where absent.
    """

    symbols: Annotated[list[Symbol], Meta(min_length=1, max_length=20)]
    context: dict[str, Any] = {}
    models: Annotated[list[Name], Meta(min_length=1, max_length=100)] | None = None
    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] = 5000
    min_votes: Annotated[int, Meta(ge=1, le=100)] | None = None
    decisions: Annotated[list[Choice], Meta(min_length=2, max_length=16)] | None = None
    coverage: Annotated[float, Meta(ge=0.5, le=0.99)] | None = None
    horizon_s: Annotated[float, Meta(ge=0, le=2_592_000)] | None = None

    def __post_init__(self) -> None:
        if self.decisions is not None and len(set(self.decisions)) < len(self.decisions):
            raise ValueError("decisions must differ from each other")


class ModelPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /api/context/ai/models/<name>`: what is absent stays; ranges are `ModelSettings`'.

    `report` is a back-test that promotes a model from weight 0 to `weight` (1 where absent).
    """

    weight: float | None = None
    enabled: bool | None = None
    min_confidence: float | None = None
    timeout_s: float | None = None
    concurrency: int | None = None
    report: Annotated[str, Meta(max_length=100)] | None = None


class BacktestRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/context/ai/backtests`.

    Without `every_s` the model answers the recorded decisions; with it, a question is made of the
    recorded prices of `symbols` so often. `limit` counts the newest. `costs` of a round trip are a
    fraction; `horizon_s` and `every_s` are event time.
    """

    model: Name
    symbols: Annotated[list[Symbol], Meta(min_length=1, max_length=20)] | None = None
    horizon_s: Annotated[float, Meta(gt=0, le=2_592_000)] = 60.0
    costs: Annotated[float, Meta(ge=0, le=1)] = 0.001
    limit: Annotated[int, Meta(ge=1, le=5000)] = 1000
    every_s: Annotated[float, Meta(ge=0.001, le=2_592_000)] | None = None


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/context/ai/decisions/<id>/replay`."""

    without: list[Name] = []


Request = TypeVar("Request", bound=msgspec.Struct)


def parse(body: object, shape: type[Request]) -> Request:
    """Check a decoded JSON body; raises InvalidRequest naming the field, its value and the rule."""
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as wrong:
        rule, field = _explained(str(wrong))
        message = f"{field}: {rule}, got {_shown(_at(body, field))}"
        raise InvalidRequest(message, [{"index": 0, "field": field, "message": message}]) from wrong


def _explained(complaint: str) -> tuple[str, str]:
    """Split msgspec's complaint into the rule and the dotted field that broke it."""
    rule, _, path = complaint.partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    named = _NAMED.search(rule)
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
    return rule, field or "body"


def _at(body: object, field: str) -> object:
    """Follow `a.b[2]` into the body; _NOTHING where it does not exist."""
    if field == "body":
        return body
    for step in field.replace("[", ".").replace("]", "").split("."):
        if isinstance(body, dict):
            body = body.get(step, _NOTHING)
        elif isinstance(body, list) and step.isdigit() and int(step) < len(body):
            body = body[int(step)]
        else:
            return _NOTHING
    return body


def _shown(value: object) -> str:
    text = "nothing" if value is _NOTHING else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
