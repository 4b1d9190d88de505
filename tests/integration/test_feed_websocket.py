"""The feed driver against a real WebSocket server that behaves as badly as exchanges do."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from context.adapters.feed_outbox import BATCH_ITEMS, Outbox
from context.adapters.feed_simulated import SimulatedFeed
from context.adapters.feed_websocket import Timing, WebSocketFeed
from context.adapters.feeds import open_feed
from context.errors import InvalidItem, RateLimited
from context.feeds import parse_spec
from context.feeds.binance import Binance
from context.feeds.coinbase import Coinbase
from context.feeds.trade import Connector

SPOT = Path(__file__).resolve().parents[2] / (
    "../shared/data/hftbacktest/examples/spot/btcusdt_20240808.gz"
)
FAST = Timing(silence_s=20.0, wait_min_s=0.01, wait_max_s=0.05)
TRADE = '{"e":"trade","s":"BTCUSDT","t":%d,"p":"1.5","q":"2","T":1000,"m":true}'

Handler = Callable[[ServerConnection], Awaitable[None]]
Items = list[dict[str, Any]]


@asynccontextmanager
async def running(feed: WebSocketFeed | SimulatedFeed) -> AsyncIterator[None]:
    task = asyncio.create_task(feed.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def exchange(
    handler: Handler, connector: Connector, emit: Callable[[Items], Awaitable[None]], timing: Timing
) -> AsyncIterator[WebSocketFeed]:
    """A server on a free port and a feed that is connected to it."""
    async with serve(handler, "127.0.0.1", 0, max_queue=None) as server:
        port = server.sockets[0].getsockname()[1]
        feed = WebSocketFeed(connector, emit, url=f"ws://127.0.0.1:{port}/", timing=timing)
        async with running(feed):
            yield feed


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


def ids(items: Items) -> list[int]:
    return [item["data"]["trade_id"] for item in items]


@pytest.mark.skipif(not SPOT.exists(), reason="the recorded session is not here")
def test_breaks_repeats_and_a_busy_log_lose_and_double_nothing() -> None:
    messages = [
        line.split(" ", 1)[1] for line in gzip.decompress(SPOT.read_bytes()).decode().splitlines()
    ]
    expected = [
        event["t"] for m in messages if (event := json.loads(m).get("data", {})).get("e") == "trade"
    ]
    stops = [len(messages) // 3, len(messages) // 2, len(messages)]
    got: Items = []
    calls = 0

    async def play(socket: ServerConnection) -> None:
        """Send on to the next stop, starting with what was sent before, and hang up rudely."""
        stop = stops.pop(0)
        start = max(0, sent[0] - 2000)
        for message in messages[start:stop]:
            await socket.send(message)
        sent[0] = stop
        if stops:
            await (await socket.ping())
            socket.transport.abort()
        await socket.wait_closed()

    async def store(items: Items) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 1:
            raise RateLimited("the queue is full")
        got.extend(items)

    async def scenario() -> None:
        async with exchange(play, Binance(["BTC/USDT"]), store, FAST) as feed:
            await until(lambda: len(got) >= len(expected))
            await until(lambda: feed.state()["items"] == len(expected))
            state = feed.state()
        assert state["state"] == "live"
        assert state["reconnects"] == 2
        assert state["dropped"] == 0
        assert "RateLimited" in state["last_error"] or "ConnectionClosed" in state["last_error"]

    sent = [0]
    asyncio.run(scenario())
    assert len(expected) == 9757
    assert ids(got) == expected


def test_malformed_messages_are_counted_and_the_session_goes_on() -> None:
    got: Items = []

    async def play(socket: ServerConnection) -> None:
        for message in (TRADE % 1, "{", b"\xff", '{"error":{"msg":"bad symbol"}}', TRADE % 2):
            await socket.send(message)
        await socket.wait_closed()

    async def store(items: Items) -> None:
        got.extend(items)

    async def scenario() -> None:
        async with exchange(play, Binance(["BTC/USDT"]), store, FAST) as feed:
            await until(lambda: len(got) == 2)
            state = feed.state()
        assert state["errors"] == 3
        assert "bad symbol" in state["last_error"]
        assert state["reconnects"] == 0

    asyncio.run(scenario())
    assert ids(got) == [1, 2]


def test_silence_is_asked_about_and_then_ends_the_connection() -> None:
    """The first connection answers the first question only; the second trades."""
    asked: list[str | bytes] = []
    got: Items = []

    async def play(socket: ServerConnection) -> None:
        if not asked:
            asked.append(await socket.recv())
            await socket.send('{"result":["btcusdt@trade"],"id":1}')
            asked.append(await socket.recv())
        else:
            await socket.send(TRADE % 1)
        await socket.wait_closed()

    async def store(items: Items) -> None:
        got.extend(items)

    async def scenario() -> None:
        timing = Timing(silence_s=1.0, wait_min_s=0.01)
        async with exchange(play, Binance(["BTC/USDT"]), store, timing) as feed:
            await until(lambda: len(got) == 1)
            state = feed.state()
        assert state["reconnects"] == 1
        assert "no message for 1 s" in state["last_error"]

    asyncio.run(scenario())
    assert [json.loads(message)["method"] for message in asked] == ["LIST_SUBSCRIPTIONS"] * 2


def test_subscriptions_are_sent_again_after_a_refused_connection() -> None:
    asked: list[str | bytes] = []

    async def play(socket: ServerConnection) -> None:
        asked.append(await socket.recv())
        await socket.close(1013, "try again later")

    async def store(items: Items) -> None:
        raise AssertionError(items)

    async def scenario() -> None:
        async with exchange(play, Coinbase(["BTC/USD"]), store, FAST) as feed:
            await until(lambda: len(asked) == 3)
            assert "try again later" in feed.state()["last_error"]

    asyncio.run(scenario())
    assert len(set(asked)) == 1


def test_a_full_queue_loses_its_oldest_and_a_refused_batch_is_dropped() -> None:
    got: list[int] = []
    gate = asyncio.Event()

    async def store(items: Items) -> None:
        await gate.wait()
        if items[0]["n"] == 0:
            raise InvalidItem("no such type")
        got.extend(item["n"] for item in items)

    async def scenario() -> None:
        outbox = Outbox(store, queue_items=2000)
        outbox.put([{"n": n} for n in range(BATCH_ITEMS)])
        task = asyncio.create_task(outbox.run())
        await until(lambda: not outbox._queue)  # the first batch is on its way, and waits
        outbox.put([{"n": n} for n in range(BATCH_ITEMS, BATCH_ITEMS + 2500)])
        assert outbox.dropped == 500
        gate.set()
        await until(lambda: outbox.emitted == 2000)
        assert outbox.dropped == 500 + BATCH_ITEMS
        assert "no such type" in (outbox.last_error or "")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert got == list(range(1500, 3500))


def test_the_simulated_feed_trades_in_real_time() -> None:
    got: Items = []

    async def store(items: Items) -> None:
        got.extend(items)

    async def scenario() -> None:
        feed = open_feed(parse_spec("simulated:BTC/USD"), store)
        assert isinstance(feed, SimulatedFeed)
        async with running(feed):
            await until(lambda: len(got) > 20)
        assert feed.state()["items"] == len(got)

    asyncio.run(scenario())
    assert ids(got) == sorted(set(ids(got)))
    assert {item["data"]["symbol"] for item in got} == {"BTC/USD"}
