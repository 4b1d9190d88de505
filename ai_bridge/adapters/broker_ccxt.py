"""An exchange as a broker: ccxt in a process of its own, so that the agent never waits for it."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from ai_bridge.trading.book import Working
from ai_bridge.trading.entries import Order
from ai_bridge.trading.errors import BrokerUnavailable, OrderRejected, TradingRefused
from ai_bridge.trading.gate import SEND_WITHIN_S
from ai_bridge.trading.ports import Report

WORKER = "ai_bridge.adapters.ccxt_worker"
OPEN_S = 45.0  # with loading the markets, which some exchanges take their time for
CALL_S = 7.0
LOOK_S = 4.0
LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CcxtConfig:
    """Which account at which exchange; without `live` it is the exchange's sandbox.

    `url` replaces the address of the sandbox.
    """

    exchange: str
    live: bool
    key: str = ""
    secret: str = ""
    password: str = ""
    url: str = ""


class CcxtBroker:
    """Starts its process when it is needed, again where it died."""

    poll_s = 1.0

    def __init__(self, config: CcxtConfig) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count()
        self._reader: asyncio.Task[None] | None = None

    async def open(self, symbols: Sequence[str]) -> None:
        """Make sure that these can be traded; raises TradingRefused, BrokerUnavailable."""
        if importlib.util.find_spec("ccxt") is None:
            raise TradingRefused("ccxt is not installed: run script/setup trading")
        try:
            await self._call("open", within_s=OPEN_S, symbols=list(symbols))
        except OrderRejected as refused:
            raise TradingRefused(refused.detail) from refused

    async def place(self, order: Order) -> None:
        """Send an order; see `ports.Broker`."""
        told = {name: getattr(order, name) for name in ("client_id", "symbol", "side")}
        numbers = {"qty": str(order.qty), "limit": str(order.limit)}
        await self._call("place", order={**told, **numbers, "before": order.at + SEND_WITHIN_S})

    async def look(self, open_: Sequence[Working]) -> list[Report]:
        """How these orders are; where that takes long, the first ones."""
        reports, started = list[Report](), time.monotonic()
        for working in open_:
            if reports and time.monotonic() - started > LOOK_S:
                break
            order = working.order
            told = await self._call("look", client_id=order.client_id, symbol=order.symbol)
            reports.append(msgspec.convert(told, Report))
        return reports

    async def cancel(self, order: Order) -> None:
        """Cancel what is left of an order."""
        await self._call("cancel", client_id=order.client_id, symbol=order.symbol)

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process and process.returncode is None:
            process.kill()
            await process.wait()
        if self._reader:
            await self._reader

    async def _call(self, do: str, *, within_s: float = CALL_S, **arguments: Any) -> Any:
        process = await self._running()
        number, done = next(self._ids), asyncio.get_running_loop().create_future()
        self._waiting[number] = done
        request = msgspec.json.encode({"id": number, "do": do, "with": arguments})
        try:
            assert process.stdin is not None
            process.stdin.write(request + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(within_s):
                told = await done
        except (TimeoutError, ConnectionError) as exc:
            what = f"{self._config.exchange} did not answer in {within_s:g} s"
            raise BrokerUnavailable(what) from exc
        finally:
            self._waiting.pop(number, None)
        match told.get("error"):
            case None:
                return told["result"]
            case "refused":
                raise OrderRejected(told["detail"])
        raise BrokerUnavailable(told["detail"])

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    WORKER,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=LINE_BYTES,
                )
                assert self._process.stdin is not None
                self._process.stdin.write(msgspec.json.encode(asdict(self._config)) + b"\n")
                self._reader = asyncio.create_task(self._read(self._process))
            return self._process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out answers; where the process ends, nobody knows what became of its requests."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            told = msgspec.json.decode(line)
            done = self._waiting.get(told["id"])
            if done and not done.done():
                done.set_result(told)
        await process.wait()
        for done in self._waiting.values():
            if not done.done():
                done.set_result({"error": "unknown", "detail": "the exchange's process ended"})
