"""What models are shown for a decision: the packed context and the prices of its symbols.

Decisions, outcomes and trades are no part of it: models that read what they decided before would
follow themselves. So a question about the same symbols is the same until something else is stored,
and is made once, however many ask at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ai_bridge.series import Series
from context.filter import Filter
from context.packing import Packed, PackRequest
from context.search import latest
from context.snapshot import Snapshot
from server.agent.packs import pack_newest

if TYPE_CHECKING:
    from server.agent.node import Node

WINDOW_ITEMS = 1000  # newest market items of a symbol that models look at
CONTEXT_ITEMS = 200  # newest items that are packed as the decision's context
UNSEEN = {"ai_decision": 0, "ai_outcome": 0, "ai_trade": 0}
KEPT = 64


@dataclass(frozen=True, slots=True)
class Shown:
    """What models are shown."""

    packed: Packed
    window: dict[str, Series]
    as_of: int  # offset of the newest item there was


class Questions:
    """The newest questions, each as of the newest item that is none of these."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kept: OrderedDict[tuple[str, ...], tuple[int, asyncio.Task[Shown]]] = OrderedDict()

    async def shown(self, symbols: tuple[str, ...]) -> Shown:
        """What there is on these symbols now; raises what packing raises."""
        newest = self._node.snapshot().newest
        as_of = self._node.newest_told if newest <= self._node.newest_written else newest
        kept = self._kept.get(symbols)
        if kept is None or kept[0] != as_of or _failed(kept[1]):
            kept = as_of, self._node.spawn(self._make(symbols))
            self._kept[symbols] = kept
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(symbols)
        shown: Shown = await asyncio.shield(kept[1])
        return shown

    async def _make(self, symbols: tuple[str, ...]) -> Shown:
        node = self._node
        snapshot = node.snapshot()
        types = sorted(set(node.index.stats()["types"]) - UNSEEN.keys())  # of it all, or later ones
        wish = PackRequest(
            context_types=types,  # so that thousands of decisions are not walked over one by one
            symbols=list(symbols),
            limit=CONTEXT_ITEMS,
            quotas=UNSEEN,
            stable=True,
        )
        packed = await node.scan(pack_newest, node, wish, count=_about, snapshot=snapshot)
        window = {name: await node.scan(_series, node, snapshot, name) for name in symbols}
        return Shown(packed, window, snapshot.newest)


def _failed(task: asyncio.Task[Shown]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _about(text: str) -> int:
    """Tokens of a text, roughly: models count again, with their own tokenizer."""
    return -(-len(text) // 4)


def _series(node: Node, snapshot: Snapshot, symbol: str) -> Series:
    wish = Filter(types=frozenset({"trading_data"}), symbol=symbol)
    found = latest(snapshot, wish, limit=WINDOW_ITEMS, epoch=node.log.epoch, clock=time.monotonic)
    items = [msgspec.json.decode(raw) for raw in reversed(found["items"])]
    return Series.of(symbol, items)
