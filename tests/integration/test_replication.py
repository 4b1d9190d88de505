"""Three nodes' logs and states over three real engines: founding, following, failing, joining."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from context.adapters.log_applied import AppliedLog
from context.adapters.log_sqlite import SqliteLog
from context.errors import FencedOut, ForeignHistory, NoMajority, OutcomeUnknown
from context.items import Batch
from context.ports import Draft, Receipt
from nodes.engine import Address
from nodes.leadership import Peer, SingleLeadership
from server.agent.replication import Replication, join
from shared_storage.adapters.sqlite import SqliteStateStore
from tests.engines import Engine, let_go_of_sockets, need_engine, settings_of
from tests.node_process import free_port

# nats-py drops the sockets of tries to connect that a killed engine refuses, without closing them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Leadership(SingleLeadership):
    """Who leads, as the test says."""

    def __init__(self) -> None:
        super().__init__(Peer("n", "http://n"), 0)
        self.now: tuple[bool, int] = (False, 0)

    @property
    def leading(self) -> bool:
        return self.now[0]

    @property
    def term(self) -> int:
        return self.now[1]


class Member:
    """One node's replication, and the items it gave to its index."""

    def __init__(self, replication: Replication) -> None:
        self.replication, self.leadership = replication, Leadership()
        self.lines: list[bytes] = []
        self.tasks: list[asyncio.Task[None]] = []
        replication.serve(self.leadership, self._take, self._spawn, lambda change: None)

    def _take(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self.lines += batch.text.splitlines()

    def _spawn(self, work: object) -> None:
        self.tasks.append(asyncio.ensure_future(work))  # type: ignore[arg-type]

    async def lead(self, term: int) -> None:
        while self.replication.replica.term != term:
            try:
                await self.replication.fence(term)
            except Exception as exc:
                if not getattr(exc, "retryable", False):
                    raise
        self.leadership.now = (True, term)

    async def write(self, line: bytes, term: int, key: str | None = None) -> Receipt:
        draft = Draft(1, line + b"\n", key, line)
        append = self.replication.log.append
        (outcome,) = (await asyncio.to_thread(append, [draft], term=term, now=1.0)).outcomes
        assert isinstance(outcome, Receipt)
        return outcome

    async def has(self, count: int) -> list[bytes]:
        deadline = asyncio.get_running_loop().time() + 20
        while len(self.lines) < count:
            assert asyncio.get_running_loop().time() < deadline, (len(self.lines), count)
            await asyncio.sleep(0.01)
        return self.lines

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.replication.close()


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[list[Engine]]:
    need_engine()
    peers = [Address("127.0.0.1", free_port()) for _ in range(3)]
    made = [Engine(tmp_path / str(n), own, peers) for n, own in enumerate(peers)]
    for engine in made:
        engine.start()
    yield made
    for engine in made:
        engine.stop()
    let_go_of_sockets()


@asynccontextmanager
async def members(
    engines: Sequence[Engine], folders: Sequence[Path]
) -> AsyncIterator[list[Member]]:
    for folder in folders:
        folder.mkdir(exist_ok=True)
    pairs = zip(engines, folders, strict=True)
    joined = await asyncio.gather(*(join(settings_of(e, f), 1) for e, f in pairs))
    made = [Member(each) for each in joined]
    try:
        yield made
    finally:
        for member in made:
            await member.stop()


def history(folder: Path, items: int) -> str:
    """A single node's data folder with some items and a value; returns its epoch."""
    folder.mkdir(exist_ok=True)
    log, state = SqliteLog(folder / "log.db"), SqliteStateStore(folder / "state.db")
    lines = [b"old %d" % number for number in range(items)]
    drafts = [Draft(1, line + b"\n", f"k{number}", line) for number, line in enumerate(lines)]
    for first in range(0, items, 5):  # what shares a commit shares a row
        log.append(drafts[first : first + 5], term=7, now=1e9 + first)
    state.put("control", "emergency_stop", b"on", now=5.0)
    log.close()
    state.close()
    return log.epoch


def test_a_single_nodes_history_becomes_the_clusters(engines: list[Engine], tmp_path: Path) -> None:
    folders = [tmp_path / str(n) for n in range(3)]
    epoch = history(folders[1], 50)
    old = [b"old %d" % number for number in range(50)]

    async def run() -> None:
        async with members(engines, folders) as (one, founder, three):
            for each in (one, founder, three):
                assert each.replication.meta.epoch == each.replication.log.epoch == epoch
                assert each.replication.meta.term_base >= 7, "terms only grow"
            assert await one.has(50) == await three.has(50) == old
            assert founder.lines == [], "the founder has them in its index already"
            await one.lead(8)
            assert (await one.write(b"new", 8)).first_offset == 50
            assert (await one.write(b"old 3", 8, key="k3")).first_offset == 3, "keys came along"
            with pytest.raises(FencedOut):
                await three.write(b"not a leader", 8)
            await asyncio.to_thread(one.replication.state.put, "t", "k", b"v", now=1.0)
            assert (await founder.has(1)) == [b"new"]
            await three.has(51)
            while three.replication.state.get("t", "k") is None:
                await asyncio.sleep(0.01)
            stop = three.replication.state.get("control", "emergency_stop")
            assert stop is not None
            assert stop.value == b"on"
        stranger = tmp_path / "stranger"
        history(stranger, 2)
        with pytest.raises(ForeignHistory, match="2 items of history"):
            await join(settings_of(engines[0], stranger), 1)

    asyncio.run(run())


def test_the_death_of_a_leader_and_its_engine_loses_nothing(
    engines: list[Engine], tmp_path: Path
) -> None:
    folders = [tmp_path / str(n) for n in range(3)]

    async def run() -> None:
        async with members(engines, folders) as nodes:
            leader, heir, third = nodes
            await leader.lead(2)
            for number in range(20):
                await leader.write(b"%d" % number, 2, key=str(number))
            await asyncio.to_thread(engines[0].kill)
            with suppress(OutcomeUnknown, NoMajority):  # it may have reached another engine in time
                await leader.write(b"20", 2, key="20")
            await heir.lead(3)
            for number in range(20, 30):
                await acknowledged(heir, b"%d" % number, 3)
            expected = [b"%d" % number for number in range(30)]
            assert await heir.has(30) == expected
            assert await third.has(30) == expected
            await asyncio.to_thread(engines[0].start)
            assert await leader.has(30) == expected
            with pytest.raises(FencedOut):
                await leader.write(b"stale", 2)

    async def acknowledged(node: Member, line: bytes, term: int) -> None:
        while True:
            try:
                await node.write(line, term, key=line.decode())
            except (OutcomeUnknown, NoMajority):
                continue
            return

    asyncio.run(run())


def test_a_wiped_node_is_rebuilt_and_a_restarted_one_goes_on(
    engines: list[Engine], tmp_path: Path
) -> None:
    folders = [tmp_path / str(n) for n in range(3)]

    async def run() -> None:
        async with members(engines, folders) as (leader, *_):
            await leader.lead(2)
            for number in range(300):
                await leader.write(b"%d" % number, 2)
        again = [*folders[:2], tmp_path / "wiped"]
        async with members(engines, again) as (leader, _, wiped):
            expected = [b"%d" % number for number in range(300)]
            assert leader.replication.replica.applied == 301, "the fence and the items"
            assert await wiped.has(300) == expected
        copy = AppliedLog(tmp_path / "wiped" / "log.db")
        assert copy.bounds() == (0, 299)
        copy.close()

    asyncio.run(run())
