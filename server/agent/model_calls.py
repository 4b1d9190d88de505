"""Calls on models: list, add, change, remove. What was added or changed survives a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from ai_bridge.adapters.digests import digest_of
from ai_bridge.adapters.kinds import Absent, Added, build
from ai_bridge.adapters.model_custom import CustomModel
from ai_bridge.asking import Guard
from ai_bridge.errors import BridgeError, InvalidRequest, UnknownModel
from ai_bridge.requests import ModelPatch, parse
from ai_bridge.settings import ModelSettings
from ai_bridge.specs import ModelSpec, of_table
from context.errors import NotFound
from server.agent import answers
from server.agent.backtests import promotable
from server.agent.context_calls import body_json
from server.agent.node import Node
from server.ipc import Answer, Request

log = logging.getLogger(__name__)
SETTINGS, SPEC, PROMOTION = "model", "model_spec", "promotion"  # kinds in the state store
CHECK_S = 2.0
MAX_ADDED = 1000


def described(node: Node, name: str) -> dict[str, Any]:
    """One model as the API shows it."""
    shown = node.bridge.describe(name, time.monotonic())
    added = node.added.get(name)
    shown["origin"] = "builtin"
    shown["promoted_by"] = node.promoted.get(name)
    if added is not None:
        shown |= added.about()
        shown["origin"] = "file" if name in node.settings.models else "api"
    return shown


async def models(node: Node, request: Request) -> Answer:
    """GET /api/context/ai/models."""
    return answers.json({"models": [described(node, name) for name in node.bridge.names()]})


async def register(node: Node, request: Request) -> Answer:
    """POST /api/context/ai/models."""
    spec = parse(body_json(request), ModelSpec)
    if len(node.added) >= MAX_ADDED:
        raise InvalidRequest(f"{len(node.added)} models were added; delete some")
    model = await asyncio.to_thread(build, spec, node.services, trusted=False)
    _seat(node, model, spec.settings())
    try:
        stored = msgspec.json.encode(spec)
        await asyncio.to_thread(node.state.put, SPEC, spec.name, stored, now=time.time())
    except BaseException:
        _unseat(node, spec.name)
        raise
    checked = await _checked(model)
    return answers.json({**described(node, spec.name), "checked": checked}, 201)


async def configure(node: Node, request: Request) -> Answer:
    """PATCH /api/context/ai/models/<name>."""
    name = request.params["name"]
    patch = parse(body_json(request), ModelPatch)
    try:
        changes = msgspec.structs.asdict(patch)
        report = changes.pop("report")
        if report is not None:
            await promotable(node, name, report)
            changes["weight"] = 1.0 if patch.weight is None else patch.weight
        settings = node.bridge.configure(name, **changes)
    except UnknownModel as exc:
        raise NotFound(exc.detail) from exc
    if report is not None:
        await asyncio.to_thread(node.state.put, PROMOTION, name, report.encode(), now=time.time())
        node.promoted[name] = report
    stored = msgspec.json.encode(settings.as_dict())
    await asyncio.to_thread(node.state.put, SETTINGS, name, stored, now=time.time())
    return answers.json(described(node, name))


async def remove(node: Node, request: Request) -> Answer:
    """DELETE /api/context/ai/models/<name>: what was learned of it stays."""
    name = request.params["name"]
    if name not in node.bridge.names():
        raise NotFound(f"no model {name[:80]!r}")
    if name not in node.added or name in node.settings.models:
        where = "in the settings file" if name in node.added else "built in"
        raise InvalidRequest(f"{name!r} is {where}: switch it off by enabled: false")
    await asyncio.to_thread(node.state.delete, SPEC, name)
    await asyncio.to_thread(node.state.delete, SETTINGS, name)
    if name in node.added:  # not removed by somebody else meanwhile
        _unseat(node, name)
    return answers.json({"name": name, "deleted": True})


def recall_models(node: Node) -> None:
    """Add the models of the settings file and those registered before (at the start)."""
    tuned = {
        stored.key: ModelSettings(**msgspec.json.decode(stored.value))
        for stored in node.state.list(SETTINGS, limit=MAX_ADDED)
    }
    for stored in node.state.list(PROMOTION, limit=MAX_ADDED):
        node.promoted[stored.key] = stored.value.decode()
    for spec, trusted in _specs(node):
        if spec.name in node.bridge.names():
            log.error("model not added: its name is taken", extra={"model": spec.name})
            continue
        _seat(node, _built(node, spec, trusted=trusted), tuned.get(spec.name, spec.settings()))


def recall_model(node: Node, name: str) -> None:
    """Add or change one model as the state says, where another node changed that."""
    spec, tuned = node.state.get(SPEC, name), node.state.get(SETTINGS, name)
    promotion = node.state.get(PROMOTION, name)
    if promotion:
        node.promoted[name] = promotion.value.decode()
    if spec and name not in node.bridge.names():
        asked = msgspec.json.decode(spec.value, type=ModelSpec)
        _seat(node, _built(node, asked, trusted=False), asked.settings())
    if tuned and name in node.bridge.names():
        node.bridge.configure(name, **msgspec.json.decode(tuned.value))


def forget_model(node: Node, name: str) -> None:
    """Let go of a model that another node removed."""
    if name in node.added and name not in node.settings.models:
        _unseat(node, name)


def _specs(node: Node) -> Iterator[tuple[ModelSpec, bool]]:
    for name, table in node.settings.models.items():
        yield of_table(name, table), True
    for stored in node.state.list(SPEC, limit=MAX_ADDED, newest_first=False):
        yield msgspec.json.decode(stored.value, type=ModelSpec), False


def _built(node: Node, spec: ModelSpec, *, trusted: bool) -> Added:
    try:
        return build(spec, node.services, trusted=trusted)
    except BridgeError as wrong:
        log.error("model absent", extra={"model": spec.name, "reason": wrong.detail})
        return Absent(spec, wrong.detail)


def _seat(node: Node, model: Added, settings: ModelSettings) -> None:
    at_once = isinstance(model, CustomModel) and model.pure  # nothing to queue for, or to break
    node.bridge.add(model, settings, None if at_once else Guard(), digest_of(model))
    node.added[model.name] = model


def _unseat(node: Node, name: str) -> None:
    node.bridge.remove(name)
    del node.added[name]


async def _checked(model: Added) -> dict[str, Any]:
    """Whether it answers now; one that does not may be started later."""
    try:
        async with asyncio.timeout(CHECK_S):
            return {"ok": True, "detail": await model.health()}
    except TimeoutError:
        return {"ok": False, "detail": f"no answer in {CHECK_S:g} s"}
    except BridgeError as why:
        return {"ok": False, "detail": why.detail}
    except Exception as fault:  # a user's class may raise anything
        return {"ok": False, "detail": f"{type(fault).__name__}: {fault}"}


CALLS = {
    "models": models,
    "model_register": register,
    "model_configure": configure,
    "model_remove": remove,
}
