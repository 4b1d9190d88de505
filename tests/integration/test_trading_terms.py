"""An order is fenced: by the log, by the term, and by the emergency stop, at every moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ai_bridge.trading.book import Working
from ai_bridge.trading.entries import Entry, Order, Start
from ai_bridge.trading.modes import MODES, limits_of
from ai_bridge.trading.ports import Report
from context.adapters.log_sqlite import SqliteLog
from context.ingest import make_item
from context.ports import Draft, Log
from nodes.leadership import Leadership, Peer, SingleLeadership
from server.agent.main import build_node
from server.agent.node import Node
from server.agent.trader import Trader
from server.config import Settings
from shared_storage.adapters.blobs_fs import FileBlobs
from shared_storage.adapters.sqlite import SqliteStateStore
from shared_storage.ports import BlobStore, StateStore

RULES = msgspec.structs.replace(MODES["high_volume"], pause_s=0.0, ask_every_s=0.0)
CAPITAL = Decimal(10_000)


class Reign(SingleLeadership):
    """A leadership that a test takes away."""

    def __init__(self) -> None:
        super().__init__(Peer("alpha", "http://127.0.0.1:1"), 1)
        self.now = True, 1

    @property
    def term(self) -> int:
        return self.now[1]

    @property
    def leading(self) -> bool:
        return self.now[0]


class Recorder:
    """A broker that writes down what it was sent."""

    poll_s = 0.0

    def __init__(self) -> None:
        self.placed: list[Order] = []

    async def place(self, order: Order) -> None:
        self.placed.append(order)

    async def look(self, open_: Sequence[Working]) -> list[Report]:
        known = {order.client_id for order in self.placed}
        ids = [working.order.client_id for working in open_]
        return [Report(each, "working" if each in known else "unknown") for each in ids]

    async def cancel(self, order: Order) -> None:
        """It keeps them all."""

    async def close(self) -> None:
        """Nothing is open."""


class Part:
    """What a node writes to, with a leadership that a test takes away."""

    follows = False

    def __init__(self, folder: Path, reign: Reign) -> None:
        self._log = SqliteLog(folder / "log.db")
        self.log: Log = self._log
        self.state: StateStore = SqliteStateStore(folder / "state.db")
        self.blobs: BlobStore = FileBlobs(folder / "blobs", most=1 << 20)
        self.leadership: Leadership = reign

    async def serve(self, node: Node) -> None:
        """Nobody else is there."""

    async def close(self) -> None:
        self._log.close()


class Desk:
    """A trader in this process, on a log of its own, with a broker that records."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.reign, self.broker = folder, Reign(), Recorder()

    async def __aenter__(self) -> Desk:
        self.part = Part(self.folder, self.reign)
        settings = Settings(node_id="alpha", data_dir=self.folder, torch_worker=False)
        self.node: Node = build_node(settings, self.part)
        self.node.spawn(self.node.chain.run())
        self.trader = Trader(self.node)
        self.trader.brokers.of = lambda account: self.broker  # type: ignore[method-assign]
        await self.trader.start()
        tick = make_item("trading_data", {"symbol": "BTC/USD", "price": 100}, source="test")
        await self.node.append_items([tick])
        await self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.node.stop()
        await self.part.close()

    async def begin(self) -> None:
        await self.trader.begin(
            Start(
                at=time.time(),
                term=1,
                session="t1",
                mode="high_volume",
                rules=RULES,
                limits=limits_of(RULES, CAPITAL),
                broker="paper",
                account="paper:USD",
                quote="USD",
                capital=CAPITAL,
                symbols=["BTC/USD"],
            )
        )

    def decide(self) -> None:
        """A decision as the loop finds it in the log."""
        record = {
            "decision_id": f"d{time.monotonic_ns()}",
            "final_decision": "buy",
            "symbols": ["BTC/USD"],
            "confidence": 0.9,
            "agreement": 1.0,
            "asked_at": time.time(),
        }
        assert self.trader.ledger.decisions is not None
        self.trader.ledger.decisions.append(record)

    def after_intention(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something between the moment that an order is durable and the second gate."""
        tell = self.trader.ledger.tell

        async def then(*entries: Entry) -> None:
            await tell(*entries)
            if any(isinstance(entry, Order) for entry in entries):
                await act()

        self.trader.ledger.tell = then  # type: ignore[method-assign]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


def play(script: Callable[[Desk], Coroutine[Any, Any, None]], folder: Path) -> None:
    async def run() -> None:
        async with Desk(folder) as desk:
            await script(desk)

    asyncio.run(run())


def test_an_order_of_the_leader_is_placed(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        desk.decide()
        await desk.until(lambda: desk.broker.placed)
        (order,) = desk.broker.placed
        assert (order.term, order.session) == (1, "t1")

    play(script, tmp_path)


def test_a_stale_leaders_order_is_refused_by_the_log(tmp_path: Path) -> None:
    """It still believes that it leads, but another one has written under a newer term."""

    async def script(desk: Desk) -> None:
        other = SqliteLog(desk.folder / "log.db")
        line = b'{"type":"fence","source":"beta","timestamp":1,"data":{}}\n'
        other.append([Draft(1, line)], term=5, now=time.time())
        other.close()
        desk.decide()
        await desk.until(lambda: not desk.trader.ledger.certain)
        desk.decide()
        await asyncio.sleep(0.5)  # long enough for fifty rounds of the loop
        assert desk.broker.placed == []
        assert desk.trader.dealer.sent == 0

    play(script, tmp_path)


@pytest.mark.parametrize("now", [(False, 1), (False, 2), (True, 2)])
def test_who_lost_the_lead_between_intention_and_sending_sends_nothing(
    tmp_path: Path, now: tuple[bool, int]
) -> None:
    async def script(desk: Desk) -> None:
        async def lose() -> None:
            desk.reign.now = now

        desk.after_intention(lose)
        desk.decide()
        await desk.until(lambda: desk.trader.dealer.refused)
        assert desk.broker.placed == []
        (working,) = desk.trader.book.open.values()  # for the next leader to ask about
        assert working.order.term == 1

    play(script, tmp_path)


def test_a_stop_between_intention_and_sending_is_in_time(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        async def stop() -> None:
            value = msgspec.json.encode({"emergency_stop": True})
            desk.node.state.put("control", "emergency_stop", value, now=time.time())

        desk.after_intention(stop)
        desk.decide()
        await desk.until(lambda: desk.trader.book.stopped and not desk.trader.book.open)
        assert desk.broker.placed == []
        assert desk.trader.book.stopped is not None
        assert desk.trader.book.stopped.reason == "emergency_stop"
        assert desk.trader.book.orders == 1

    play(script, tmp_path)


def test_a_follower_orders_nothing(tmp_path: Path) -> None:
    async def script(desk: Desk) -> None:
        desk.decide()
        await desk.until(lambda: desk.broker.placed)
        desk.reign.now = (False, 2)
        await desk.until(lambda: desk.trader.ledger.decisions is None)
        desk.reign.now = (True, 3)
        await desk.until(lambda: desk.trader.ledger.decisions is not None)
        desk.decide()
        await desk.until(lambda: len(desk.broker.placed) == 2)
        assert [order.term for order in desk.broker.placed] == [1, 3]

    play(script, tmp_path)
