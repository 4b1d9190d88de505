"""A web process hears of every item once, whether batches come or only how far the log goes."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from context.errors import RateLimited
from context.hub import Ring
from context.items import Batch
from context.query import Matcher, compile_matcher
from server import ipc
from server.agent.changed import Changed
from server.agent.feed import Feed
from server.agent.node import Node
from server.agent_client import AgentClient
from server.ipc import Answer, Request
from server.live import Attending, LiveFeed
from tests.node_process import wait_for


class Agent:
    """As much of an agent as a feed needs, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.batches: list[Batch] = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.node = asyncio.run_coroutine_threadsafe(self._node(path), self.loop).result()

    async def _node(self, path: Path) -> Any:
        self.server = await asyncio.start_unix_server(self._serve, path=str(path))
        return SimpleNamespace(ring=Ring(2000), changed=Changed(), read_batches=self._read)

    def _read(self, after: int, *, max_bytes: int) -> list[Batch]:
        return [each for each in self.batches if each.last_offset > after][:5]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = ipc.length(await reader.readexactly(ipc.HEADER_BYTES))
                asked = msgspec.msgpack.decode(await reader.readexactly(size), type=Request)
                if asked.method == "feed":
                    await Feed(cast(Node, self.node), reader, writer).run(asked)
                told = {"epoch": "e", "oldest": 0, "newest": self.node.ring.newest}
                writer.write(ipc.pack(Answer(200, {}, msgspec.json.encode(told))))
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def add(self, count: int) -> None:
        """Something is stored."""
        asyncio.run_coroutine_threadsafe(self._add(count), self.loop).result()

    async def _add(self, count: int) -> None:
        batch = Batch(self.node.ring.newest + 1, count, 1.0, 1, b"x" * 30 * count)
        self.batches.append(batch)
        self.node.ring.add(batch)
        self.node.changed.tell()

    def stop(self) -> None:
        """End the thread."""
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _stop(self) -> None:
        self.server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "agent.sock")
    # Feeds follow for ever, and tell of agents that went away also when no test runs.
    logging.getLogger("server.live").addHandler(logging.NullHandler())
    yield made
    made.stop()


def missed(feed: LiveFeed, agent: Agent, after: int) -> list[int]:
    """Offsets that a reader at a cursor finds: in the ring, or in the log where that is silent."""
    newest = feed.newest
    entries = feed.after(after)
    batches = agent.batches if entries is None else [entry.batch for entry in entries]
    offsets = [o for b in batches for o in range(b.first_offset, b.last_offset + 1)]
    return [offset for offset in offsets if after < offset <= newest]


@pytest.mark.parametrize("seed", range(5))
def test_every_item_comes_once_whoever_comes_and_goes(
    agent: Agent, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    feed = LiveFeed(AgentClient(tmp_path / "agent.sock"), linger_s=0.0)
    feed.start()
    here: list[object] = []
    cursor = -1
    for _ in range(300):
        agent.add(rng.randint(1, 4))
        chance = rng.random()
        if chance < 0.1:
            here.append(feed.attend())
        elif chance < 0.2:
            here.clear()
        if rng.random() < 0.3:
            reached = feed.newest
            found = [offset for offset in missed(feed, agent, cursor) if offset <= reached]
            assert found == list(range(cursor + 1, reached + 1))
            cursor = reached
    newest = agent.batches[-1].last_offset
    wait_for(lambda: feed.newest == newest, "the feed to reach the end")
    assert missed(feed, agent, cursor) == list(range(cursor + 1, newest + 1))


def test_batches_come_only_while_somebody_attends(agent: Agent, tmp_path: Path) -> None:
    feed, heard = LiveFeed(AgentClient(tmp_path / "agent.sock"), linger_s=0.0), list[Batch]()
    feed.on_batch(heard.append)
    feed.start()

    def add() -> None:
        agent.add(3)
        newest = agent.batches[-1].last_offset
        wait_for(lambda: feed.newest == newest, "the feed to hear of it")

    add()
    assert feed.after(1) is None, "the log has it"
    assert not heard
    attending = feed.attend()

    def comes() -> bool:
        add()
        return bool(heard)

    wait_for(comes, "batches")
    first = heard[0].first_offset
    add()
    wait_for(
        lambda: heard == [b for b in agent.batches if b.first_offset >= first],
        "all from then on: the feed's offset is known a moment before",
    )
    assert [entry.batch for entry in feed.after(first - 1) or ()] == heard
    del attending

    def ends() -> bool:
        count = len(heard)
        add()
        return len(heard) == count

    wait_for(ends, "nothing")


def test_queries_that_nobody_waits_for_make_room_though_nothing_comes(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("context.standing.MAX_QUERIES", 3)
    feed, staying = LiveFeed(AgentClient(tmp_path / "agent.sock")), Attending()

    def asks(number: int) -> Matcher:
        return compile_matcher(f"needle {number}", regex=False, ignore_case=False)

    feed.stand(staying, asks(0))
    for number in range(1, 20):
        leaving = Attending()
        feed.stand(leaving, asks(number))
        del leaving
    others = [Attending(), Attending()]
    for number, each in enumerate(others, 30):
        feed.stand(each, asks(number))
    with pytest.raises(RateLimited):
        feed.stand(Attending(), asks(40))
