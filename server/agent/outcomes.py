"""What decisions turned out to be: learned durably and once, and told by the log itself.

Outcomes are kept apart from the log's items, because anybody may store an item: weights are a fold
over what was told here, in the order in which it was stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ai_bridge.outcomes import Judge, Judged, Price
from context.errors import ContextError
from context.filter import Filter
from context.query import Selection
from context.search import read_on
from server.agent.learned import OUTCOME
from server.agent.node import Node

log = logging.getLogger(__name__)
DECISION, LATE = "ai_decision", "late_votes"
JUDGE, CURSOR = "judge", "after"  # in the state store: where the judge begins
STEP_ITEMS, STEP_BYTES, STEP_SCAN_BYTES = 2000, 2 << 20, 4 << 20  # some 10 ms
AGAIN_S, PAUSE_S, SAVE_EVERY_S = 1.0, 0.1, 60.0
_ALL = Selection(Filter(types=frozenset({DECISION, "trading_data"})))
_IS_DECISION = b'{"type":"ai_decision",'
_read_price = msgspec.json.Decoder(Price).decode


async def learn(node: Node, event: dict[str, Any]) -> bool:
    """Make an outcome durable and learn from it; False where the decision was judged before."""
    ledger, decision_id = node.bridge.ledger, event["decision_id"]
    async with node.outcomes:
        if ledger.outcome_of(decision_id) is not None:
            return False
        stored = msgspec.json.encode(event)
        await asyncio.to_thread(node.state.put, OUTCOME, decision_id, stored, now=time.time())
        before = weights(node, event)
        ledger.apply(event, event["outcome"])
        node.learned.note(ledger, decision_id, stored)
        told = {"weights_before": before, "weights_after": weights(node, event)}
        await node.chain.append(OUTCOME, event | told)  # nothing is learned from it
    return True


def weights(node: Node, record: Mapping[str, Any]) -> dict[str, float]:
    """Learned weight of each model that was asked, now."""
    return {vote["model"]: node.bridge.ledger.weight(vote["model"]) for vote in record["votes"]}


def late_votes(node: Node, decision_id: str) -> list[dict[str, Any]]:
    """The votes that came after their decision (in a thread)."""
    late = node.state.get(LATE, decision_id)
    found: list[dict[str, Any]] = msgspec.json.decode(late.value) if late else []
    return found


def recall_outcomes(node: Node) -> None:
    """Know what every outcome ever told has taught (at the start)."""
    node.bridge.ledger = node.learned.recall()


def recall_outcome(node: Node, decision_id: str, stored: bytes) -> None:
    """Learn from an outcome that another node judged; a repeat changes nothing."""
    event = msgspec.json.decode(stored)
    node.bridge.ledger.apply(event, event["outcome"])
    node.learned.note(node.bridge.ledger, decision_id, stored)


class Judging:
    """Judges this log's decisions by its prices, while this node leads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.judge = Judge()
        self.judged: deque[Judged] = deque()  # not learned yet
        self.read = -1  # offset up to which the log was read
        self._saved = -2
        self._decisions = node.chain.entries(DECISION)

    async def run(self) -> None:
        """Follow the log for ever."""
        node = self._node
        self.judge, self._saved = Judge(), -2
        self.judged.clear()
        self.read = await asyncio.to_thread(self._begin)
        saved_at = -SAVE_EVERY_S
        while True:
            try:
                await self._learn()
                newest = node.snapshot().newest
                while self.read < newest:
                    if not len(self.judge) and node.newest_entry <= self.read:
                        self.read = newest
                        break
                    await self._step()
                if time.monotonic() - saved_at > SAVE_EVERY_S:
                    saved_at = time.monotonic()
                    await self._save()
            except (ContextError, OSError) as exc:  # a block is gone, a disk is full
                log.warning("outcomes wait", extra={"reason": str(exc)})
                await asyncio.sleep(AGAIN_S)
                continue
            await asyncio.sleep(PAUSE_S)
            await node.changed.wait_for(lambda: node.ring.newest > self.read)

    async def _step(self) -> None:
        """Read on a little, and learn what that tells; at most half of a core."""
        node, started = self._node, time.monotonic()
        items, reached = await node.scan(
            read_on,
            node.snapshot(),
            self.read,
            _ALL if len(self.judge) else self._decisions,
            max_items=STEP_ITEMS,
            max_bytes=STEP_BYTES,
            max_scan_bytes=STEP_SCAN_BYTES,
        )
        self.read = await asyncio.to_thread(self._seen, items, int(reached))
        await asyncio.sleep(min(PAUSE_S, time.monotonic() - started))
        await self._learn()

    async def _learn(self) -> None:
        while self.judged:
            each = self.judged[0]
            late = await asyncio.to_thread(late_votes, self._node, each.record["decision_id"])
            await learn(self._node, each.event({**each.record, "late_votes": late}))
            self.judged.popleft()

    def _seen(self, items: Sequence[tuple[int, float, bytes]], reached: int) -> int:
        """Judge by these items; returns how far: less where prices were passed over that count."""
        skipping = not len(self.judge)
        known: Callable[[str], str | None] = self._node.bridge.ledger.outcome_of
        for offset, _, line in items:
            if not line.startswith(_IS_DECISION):
                self.judged += self.judge.priced(offset, _read_price(line))
            elif self._node.chain.mark in line:
                record = msgspec.json.decode(line)["data"]
                if known(record["decision_id"]) is None:
                    self.judge.decided(offset, record)
                if skipping and len(self.judge):
                    return offset
        return reached

    def _begin(self) -> int:
        """After which offset to begin: where it was last, or now at the first start."""
        stored = self._node.state.get(JUDGE, CURSOR)
        if stored is None:
            return self._node.snapshot().newest
        told = msgspec.json.decode(stored.value)
        kept = told["epoch"] == self._node.log.epoch
        return int(told["after"]) if kept else self._node.snapshot().newest

    async def _save(self) -> None:
        oldest = self.judge.oldest
        after = self.read if oldest is None else oldest - 1
        if after == self._saved:
            return
        stored = msgspec.json.encode({"epoch": self._node.log.epoch, "after": after})
        put = self._node.state.put
        await asyncio.to_thread(put, JUDGE, CURSOR, stored, now=time.time())
        self._saved = after
