"""Back-tests: a model's answers to recorded questions, as of then, judged by what came of them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from ai_bridge.backtest import Case, evaluate
from ai_bridge.chart import plot
from ai_bridge.consensus import decisions_of
from ai_bridge.errors import BridgeError, InvalidRequest
from ai_bridge.history import History
from ai_bridge.ports import Question
from ai_bridge.prediction import DECISIONS
from ai_bridge.record import outcome_class
from ai_bridge.requests import BacktestRequest, parse
from context.errors import ContextError, NotFound
from context.filter import Filter
from context.query import Selection, compile_matcher
from context.scan import Scanned, descend, read_on
from server.agent import answers
from server.agent.context_calls import body_json
from server.agent.ipc_server import Call
from server.agent.node import Node
from server.ipc import Answer, Request

log = logging.getLogger(__name__)
KIND = "backtest"  # in the state store
KEPT, MOST_RUNNING = 200, 4
MAX_POINTS = 300_000  # newest prices of a symbol that are looked at
STEP_ITEMS, STEP_BYTES = 5_000, 4 << 20
NO_RECORD: Mapping[str, Any] = {"decisions": list(DECISIONS)}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question of the past: what was stored at or below offset `as_of` is all that is known."""

    case_id: str
    symbol: str
    as_of: int
    record: Mapping[str, Any]


class Backtests:
    """The back-tests of one node: a few at a time, their reports kept."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._running: dict[str, dict[str, Any]] = {}

    def calls(self) -> dict[str, Call]:
        """The calls by name."""
        return {
            "backtest": self.start,
            "backtests": self.every,
            "backtest_one": self.one,
            "backtest_plot": self.picture,
        }

    async def start(self, node: Node, request: Request) -> Answer:
        """POST /api/context/ai/backtests."""
        asked = parse(body_json(request), BacktestRequest)
        kind = node.bridge.describe(asked.model)["kind"]
        if kind == "remote" or asked.model == getattr(node.torch, "name", None):
            why = "answers from another node's memory" if kind == "remote" else "learns online"
            raise InvalidRequest(f"{asked.model} {why}, so it knows what came later")
        if asked.every_s is not None and not asked.symbols:
            raise InvalidRequest("symbols is needed with every_s")
        if len(self._running) >= MOST_RUNNING:
            raise InvalidRequest(f"{len(self._running)} back-tests run already; wait for one")
        number = f"bt_{secrets.token_hex(8)}"
        self._running[number] = {"id": number, "state": "running", "done": 0, "total": None}
        node.spawn(self._run(number, asked))
        return answers.json(self._running[number], 202)

    async def one(self, node: Node, request: Request) -> Answer:
        """GET /api/context/ai/backtests/<id>: the report, or how far it is."""
        return answers.json(await self.report(request.params["backtest_id"]))

    async def every(self, node: Node, request: Request) -> Answer:
        """GET /api/context/ai/backtests: the newest first, without their rows."""
        stored = await asyncio.to_thread(node.state.list, KIND, limit=KEPT)
        reports = [msgspec.json.decode(each.value) for each in stored]
        for report in reports:
            report.pop("rows", None)
            report.pop("curve", None)
        return answers.json({"backtests": [*self._running.values(), *reports]})

    async def picture(self, node: Node, request: Request) -> Answer:
        """GET /api/context/ai/backtests/<id>/plot."""
        report = await self.report(request.params["backtest_id"])
        curve = report.get("curve")
        if curve is None:
            raise NotFound(f"there is no plot of {report['id']} yet")
        title = f"{report['model']}: {report['answered']} answers judged"
        panels = [
            (name, [(point["at"], point[key]) for point in curve])
            for name, key in (
                ("skill: loss of knowing nothing minus own, summed", "skill"),
                ("net profit after costs, summed returns", "net"),
            )
        ]
        return Answer(200, {"Content-Type": "image/svg+xml"}, plot(title, panels).encode())

    async def report(self, number: str) -> dict[str, Any]:
        """A report, or the state of one that runs; raises NotFound."""
        if number in self._running:
            return self._running[number]
        stored = await asyncio.to_thread(self._node.state.get, KIND, number)
        if stored is None:
            raise NotFound(f"there is no back-test {number[:80]!r}")
        report: dict[str, Any] = msgspec.json.decode(stored.value)
        return report

    async def _run(self, number: str, asked: BacktestRequest) -> None:
        node, state = self._node, self._running[number]
        try:
            report = {"id": number, "state": "done", **await self._made(asked, state)}
        except (BridgeError, ContextError) as wrong:
            report = {"id": number, "state": "failed", "model": asked.model, "why": wrong.detail}
        except Exception as fault:
            log.exception("a back-test failed")
            why = f"{type(fault).__name__}: {fault}"
            report = {"id": number, "state": "failed", "model": asked.model, "why": why}
        try:
            stored = msgspec.json.encode(report)
            await asyncio.to_thread(node.state.put, KIND, number, stored, now=time.time())
            await asyncio.to_thread(node.state.prune, KIND, keep_newest=KEPT)
        finally:
            del self._running[number]

    async def _made(self, asked: BacktestRequest, state: dict[str, Any]) -> dict[str, Any]:
        node = self._node
        digest = node.bridge.digest(asked.model)
        histories: dict[str, History] = {}
        if asked.every_s is not None:
            for symbol in asked.symbols or ():
                histories[symbol] = await self._history(symbol)
            questions = _on_a_grid(histories, asked)
        else:
            questions = await node.scan(_recorded, node, asked)
            for symbol in {each.symbol for each in questions}:
                histories[symbol] = await self._history(symbol)
        state["total"] = len(questions)
        cases, step = [], node.bridge.at_once(asked.model)
        for start in range(0, len(questions), step):
            some = questions[start : start + step]
            cases += await asyncio.gather(
                *(self._case(each, histories[each.symbol], asked) for each in some)
            )
            state["done"] = len(cases)
            await asyncio.sleep(0)
        return {
            "model": asked.model,
            "digest": digest,
            "code": node.code,
            "made_at": time.time(),
            "as_of": node.cursor(node.snapshot().newest),
            "options": msgspec.to_builtins(asked),
            **evaluate(cases, costs=asked.costs),
            "rows": [msgspec.to_builtins(case) for case in cases],
        }

    async def _case(self, asked: _Asked, history: History, wish: BacktestRequest) -> Case:
        """Ask as of then; what came later is looked at only to judge."""
        node, record = self._node, asked.record
        window = history.window(asked.as_of)
        at = float(window.timestamps.max()) if len(window) else 0.0
        question = Question(
            symbols=(asked.symbol,),
            window={asked.symbol: window},
            now=float(record.get("asked_at", at)),
            decisions=tuple(decisions_of(record)),
            packed=await asyncio.to_thread(_packed, node, record.get("context_id")),
        )
        peers = {
            vote["model"]: vote["distribution"]
            for vote in record.get("votes", ())
            if vote["status"] == "ok" and vote["model"] != wish.model
        }
        vote = await node.bridge.ask(wish.model, question, clock=time.monotonic)
        if wish.every_s is not None:
            for name in node.bridge.names():
                if name != wish.model and node.bridge.describe(name)["kind"] == "builtin":
                    other = await node.bridge.ask(name, question, clock=time.monotonic)
                    if other.distribution is not None:
                        peers[name] = other.distribution
        return Case(
            case_id=asked.case_id,
            offset=asked.as_of,
            at=at,
            peers=peers,
            answer=vote.distribution,
            reason="" if vote.status == "ok" else f"{vote.status}: {vote.reasoning}",
            **_judged(node, asked, history, wish.horizon_s, at),
        )

    async def _history(self, symbol: str) -> History:
        """All prices of a symbol, the newest MAX_POINTS of them."""
        node, after = self._node, -1
        wish = Selection(Filter(types=frozenset({"trading_data"}), symbol=symbol), None)
        found: deque[tuple[int, Any]] = deque(maxlen=MAX_POINTS)
        snapshot = node.snapshot()
        while after < snapshot.newest:
            items, after = await node.scan(
                read_on, snapshot, after, wish, max_items=STEP_ITEMS, max_bytes=STEP_BYTES
            )
            found += [(offset, msgspec.json.decode(line)) for offset, _, line in items]
        return await asyncio.to_thread(History, symbol, found)


def _recorded(node: Node, asked: BacktestRequest) -> list[_Asked]:
    """Recorded decisions on one symbol each, oldest first (in a scan thread)."""
    matcher = compile_matcher(node.chain.mark.decode(), regex=False, ignore_case=False)
    wish = Selection(Filter(types=frozenset({"ai_decision"})), matcher)
    snapshot, found = node.snapshot(), list[_Asked]()
    for step in descend(snapshot, wish, snapshot.newest + 1, Scanned(), clock=time.monotonic):
        for block, i in step.hits():
            record = msgspec.json.decode(block.line(i))["data"]
            symbols = record.get("symbols", [])
            if len(symbols) != 1 or (asked.symbols and symbols[0] not in asked.symbols):
                continue
            as_of = record.get("as_of_offset", block.first_offset + i)
            found.append(_Asked(record["decision_id"], symbols[0], as_of, record))
            if len(found) == asked.limit:
                return found[::-1]
    return found[::-1]


def _on_a_grid(histories: Mapping[str, History], asked: BacktestRequest) -> list[_Asked]:
    """A question every so many seconds of event time, the newest ones, in the order of the log."""
    found = []
    for symbol, history in histories.items():
        offsets = history.offsets
        if not len(offsets):
            continue
        ticks = np.floor(np.maximum.accumulate(history.times()) / (asked.every_s or 1.0))
        firsts = np.flatnonzero(ticks[1:] > ticks[:-1])
        for at in firsts[-asked.limit :]:
            offset = int(offsets[at])
            found.append(_Asked(f"{symbol}@{offset}", symbol, offset, NO_RECORD))
    return sorted(found, key=lambda each: each.as_of)[-asked.limit :]


def _judged(
    node: Node, asked: _Asked, history: History, horizon_s: float, at: float
) -> dict[str, Any]:
    """Outcome, gain and when it was known; by the return, else by what was told."""
    turned = history.after(asked.as_of, horizon_s)
    if turned is not None and set(decisions_of(asked.record)) == set(DECISIONS):
        outcome = outcome_class({"return": turned.gain}, asked.record)
        return {"outcome": outcome, "gain": turned.gain, "known_at": turned.known_at}
    told = node.bridge.ledger.outcome_of(asked.case_id)
    return {"outcome": told, "known_at": at if told is not None else None}


def _packed(node: Node, context_id: str | None) -> bytes:
    stored = node.state.get("pack", context_id) if context_id else None
    return stored.value if stored else b""


async def promotable(node: Node, name: str, number: str) -> None:
    """Raise InvalidRequest naming why this report promotes nobody, or not this model."""
    stored = await asyncio.to_thread(node.state.get, KIND, number)
    if stored is None:
        raise InvalidRequest(f"there is no finished back-test {number[:80]!r}")
    report = msgspec.json.decode(stored.value)
    if report["state"] != "done":
        raise InvalidRequest(f"report {number} is {report['state']}")
    if report["model"] != name:
        raise InvalidRequest(f"report {number} is about {report['model']}, not about {name}")
    if report["digest"] != node.bridge.digest(name):
        raise InvalidRequest(f"{name} is not what report {number} was made of")
    if not report["promotable"]:
        raise InvalidRequest(f"report {number}: {'; '.join(report['objections'])}")
    if node.bridge.describe(name)["weight"] > 0:
        raise InvalidRequest(f"{name} has weight already: only a model of weight 0 is promoted")
