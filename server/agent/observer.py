"""Shows new market data to the torch model, so that it learns while the market goes on."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from ai_bridge.adapters.model_torch import TorchModel
from ai_bridge.errors import BridgeError
from ai_bridge.series import Series
from context.errors import ContextError
from context.filter import Filter
from context.query import Selection
from context.search import read_on
from server.agent.node import Node

log = logging.getLogger(__name__)
EVERY_S = 1.0
BACKFILL_ITEMS = 20_000  # of history that a fresh worker is shown
STEP_ITEMS = 5_000  # at most so many a step; a faster market is followed at its newest
_WISH = Selection(Filter(types=frozenset({"trading_data"})), None)


async def observe(node: Node, model: TorchModel) -> None:
    """Follow the log for ever; where the worker is away, wait and show it what it missed."""
    seen = -1
    while True:
        newest = node.snapshot().newest
        try:
            if not (await model.status())["markets"]:
                seen = -1  # a fresh worker: its weights are kept on disk, the market is not
            if newest > seen:
                seen = await _step(node, model, max(seen, newest - BACKFILL_ITEMS))
                if seen < newest:
                    continue
        except (BridgeError, ContextError) as exc:
            log.debug("torch model not shown", extra={"reason": str(exc)})
        await asyncio.sleep(EVERY_S)


async def _step(node: Node, model: TorchModel, after: int) -> int:
    lines, scanned_to = await node.scan(
        read_on, node.snapshot(), after, _WISH, max_items=STEP_ITEMS, max_bytes=2 << 20
    )
    for series in await asyncio.to_thread(_series, [line for _, _, line in lines]):
        await model.observe(series)
    return scanned_to


def _series(lines: list[bytes]) -> list[Series]:
    return list(Series.each([msgspec.json.decode(line) for line in lines]))
