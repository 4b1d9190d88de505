"""Calls on models and decisions.

Decisions are items of the log; what they turned out to be is kept apart (`server.agent.outcomes`).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from ai_bridge.bridge import Decision
from ai_bridge.chain import is_whole
from ai_bridge.chain_walk import holes
from ai_bridge.consensus import replay
from ai_bridge.errors import InvalidRequest
from ai_bridge.explaining import explanation
from ai_bridge.impact import impact
from ai_bridge.ports import Question
from ai_bridge.prediction import DECISIONS
from ai_bridge.record import outcome_event
from ai_bridge.requests import DecideRequest, ReplayRequest, parse
from context.errors import NotFound
from context.filter import Filter
from context.request import LatestRequest, SearchRequest, parse_latest
from context.search import latest, search
from server.agent import answers
from server.agent.chain import saved_head
from server.agent.context_calls import body_json
from server.agent.learned import OUTCOME
from server.agent.node import Node
from server.agent.outcomes import DECISION, LATE, late_votes, learn, weights
from server.ipc import Answer, Request

LEAST_S = 0.005  # for models in this process, however long the packing took
LATE_S = 30.0  # after the deadline; later votes are not waited for
KEPT_LATE, PRUNE_ONE_IN = 10_000, 100
FIND_DEADLINE_MS = 10_000


async def decide(node: Node, request: Request) -> Answer:
    """POST /api/context/ai/decide."""
    started = time.monotonic()
    asked = parse(body_json(request), DecideRequest)
    shown = await node.questions.shown(tuple(asked.symbols))
    question = Question(
        symbols=tuple(asked.symbols),
        window=shown.window,
        context=asked.context,
        now=time.time(),
        decisions=tuple(asked.decisions or DECISIONS),
        packed=shown.packed.body,
    )
    decision = await node.bridge.decide(
        question,
        deadline_s=max(LEAST_S, asked.deadline_ms / 1000 - (time.monotonic() - started)),
        models=asked.models,
        min_votes=asked.min_votes,
        late_s=LATE_S,
        caller=request.params.get("caller", ""),
        coverage=asked.coverage,
        clock=time.monotonic,
    )
    record = decision.record(
        f"d{node.new_id()}", term=node.term, context_id=shown.packed.context_id
    )
    if len(asked.symbols) == 1:
        record["symbol"] = asked.symbols[0]  # so that a filter by symbol finds it
    record["as_of_offset"] = shown.as_of
    record["weights_before"] = weights(node, record)
    record["deadline_ms"] = asked.deadline_ms
    record |= _judging(node, asked)
    record["code"] = node.code
    record = await node.chain.append(DECISION, record)
    if decision.late:
        node.spawn(_keep_late(node, record["decision_id"], decision))
    return answers.json(record)


def _judging(node: Node, asked: DecideRequest) -> dict[str, float]:
    """What the price will judge it by, and when."""
    settings = node.settings
    horizon_s = settings.outcome_horizon_s if asked.horizon_s is None else asked.horizon_s
    band = {"dead_band": settings.outcome_dead_band}
    return band | {"horizon_s": horizon_s, "costs": settings.outcome_costs} if horizon_s else band


async def _keep_late(node: Node, decision_id: str, decision: Decision) -> None:
    """Record the votes that come after their decision: an outcome will judge them too."""
    kept: list[dict[str, Any]] = []
    for each in asyncio.as_completed(decision.late):
        try:
            vote = await each
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the node stops
            continue  # it never came
        if vote.status != "ok":
            continue
        node.bridge.note_late(vote)
        kept.append(node.bridge.ledger.calibrated(vote).as_dict())
        stored = msgspec.json.encode(kept)
        await asyncio.to_thread(node.state.put, LATE, decision_id, stored, now=time.time())
    if kept and secrets.randbelow(PRUNE_ONE_IN) == 0:
        await asyncio.to_thread(node.state.prune, LATE, keep_newest=KEPT_LATE)


async def decisions(node: Node, request: Request) -> Answer:
    """GET /api/context/ai/decisions."""
    args = dict(request.params["args"])
    model, symbol = args.pop("model", None), args.pop("symbol", None)
    asked = parse_latest(args)
    return answers.json(await node.scan(_page, node, asked, model, symbol))


def _page(
    node: Node, asked: LatestRequest, model: str | None, symbol: str | None
) -> dict[str, Any]:
    """Newest decisions that fit; reads on until `limit` are found."""
    kept: list[dict[str, Any]] = []
    snapshot, before, following = node.snapshot(), asked.before, None
    while len(kept) <= asked.limit:
        page = latest(
            snapshot,
            Filter(types=frozenset({DECISION})),
            limit=max(asked.limit, 100),
            before=before,
            epoch=node.log.epoch,
            clock=time.monotonic,
        )
        items = map(msgspec.json.decode, page["items"])
        kept += [d for d in map(node_decision(node), items) if _fits(d, model, symbol)]
        before = page["next"]
        if before is None:
            break
    if len(kept) > asked.limit:
        kept = kept[: asked.limit]
        following = kept[-1]["id"]
    return {"decisions": kept, "next": following}


def node_decision(node: Node) -> Any:
    """Make the function that turns an item into a decision as the API shows it."""

    def shown(item: dict[str, Any]) -> dict[str, Any]:
        decision = {**item["data"], "id": item["id"], "timestamp": item["timestamp"]}
        outcome = node.bridge.ledger.outcome_of(str(decision.get("decision_id")))
        return {**decision, "outcome": outcome}

    return shown


def _fits(decision: dict[str, Any], model: str | None, symbol: str | None) -> bool:
    if model is not None and decision.get("model") != model:
        votes = decision.get("votes")
        voters = votes if isinstance(votes, list) else []
        if not any(isinstance(vote, dict) and vote.get("model") == model for vote in voters):
            return False
    if symbol is None:
        return True
    symbols = decision.get("symbols")
    return decision.get("symbol") == symbol or (isinstance(symbols, list) and symbol in symbols)


async def decision(node: Node, request: Request) -> Answer:
    """GET /api/context/ai/decisions/<id>: the record, and what explains it."""
    found = await _find(node, request.params["decision_id"])
    shown, outcome = found.shown, found.outcome
    if "votes" not in shown:  # somebody else's decision, stored as an item
        return answers.json(shown)
    impacts = impact(shown)
    return answers.json(
        {
            **shown,
            "weights": {
                "before": shown.get("weights_before"),
                "after": outcome.get("weights_after") if outcome else None,
            },
            "impact": impacts,
            "unaltered": found.whole,
            "explanation": explanation(shown, impacts, outcome, whole=found.whole),
        }
    )


@dataclass(slots=True)
class _Found:
    """A decision as the API shows it, its outcome's entry, and whether its bytes are its own.

    `whole` is None for a decision outside of the chain.
    """

    shown: dict[str, Any]
    outcome: dict[str, Any] | None
    whole: bool | None


async def _find(node: Node, decision_id: str) -> _Found:
    needle = '"decision_id":' + msgspec.json.encode(decision_id).decode()
    asked = SearchRequest(
        query=needle, types=[DECISION, OUTCOME], limit=1000, deadline_ms=FIND_DEADLINE_MS
    )
    found = await node.scan(
        search, node.snapshot(), asked, epoch=node.log.epoch, clock=time.monotonic
    )
    items = [msgspec.json.decode(raw) for raw in reversed(found["items"])]
    fitting = [item for item in items if item["data"].get("decision_id") == decision_id]
    decided = [item for item in fitting if item["type"] == DECISION]
    for item in decided:  # whoever repeats an id later does not shadow it
        line = item["line"].encode()
        shown = node_decision(node)(item)
        shown["late_votes"] = await asyncio.to_thread(late_votes, node, decision_id)
        outcomes = (each["data"] for each in fitting if each["type"] == OUTCOME)
        ours = (data for data in outcomes if data.get("chain", {}).get("epoch") == node.log.epoch)
        return _Found(shown, next(ours, None), is_whole(line) if node.chain.mark in line else None)
    raise NotFound(f"there is no decision {decision_id[:80]!r}")


async def outcome(node: Node, request: Request) -> Answer:
    """POST /api/context/ai/decisions/<id>/outcome: durable, and learned from once."""
    payload = body_json(request)
    if not isinstance(payload, dict):
        raise InvalidRequest('the body must be {"outcome": ...} or {"return": ...}')
    found = await _find(node, request.params["decision_id"])
    record = found.shown
    if "votes" not in record:
        raise InvalidRequest("this decision was not taken by the consensus: it has no votes")
    if found.whole is None:
        raise InvalidRequest("this decision is not in this log's chain: nobody vouches for it")
    event = outcome_event(record, payload)
    ledger, decision_id = node.bridge.ledger, record["decision_id"]
    applied = await learn(node, event)
    return answers.json(
        {
            "decision_id": decision_id,
            "outcome": ledger.outcome_of(decision_id),
            "applied": applied,
            "weights": {name: ledger.weight(name) for name in node.bridge.names()},
        }
    )


async def replay_decision(node: Node, request: Request) -> Answer:
    """POST /api/context/ai/decisions/<id>/replay."""
    asked = parse(body_json(request), ReplayRequest)
    found = await _find(node, request.params["decision_id"])
    answer = replay(found.shown, without=tuple(asked.without))
    return answers.json({**answer, "impact": impact(found.shown), "unaltered": found.whole})


def _ranges(found: list[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"first": first, "last": last} for first, last in found]


async def chain(node: Node, request: Request) -> Answer:
    """GET /api/context/ai/chain: the head, to be kept elsewhere, and which history is gone."""
    snapshot = node.snapshot()
    head, saved = await node.chain.head(), await asyncio.to_thread(saved_head, node)
    lost = node.archive.lost_ranges()
    return answers.json(
        {
            "epoch": node.log.epoch,
            "seq": head.seq,
            "hash": head.hash,
            "saved": {"seq": saved.seq, "hash": saved.hash},
            "dropped": _ranges(holes([*snapshot.spans(), *lost])),
            "damaged": _ranges(lost),
        }
    )


CALLS = {
    "decide": decide,
    "decisions": decisions,
    "decision": decision,
    "outcome": outcome,
    "decision_replay": replay_decision,
    "chain": chain,
}
