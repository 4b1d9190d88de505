"""Two nodes on one stream whose answers get lost, come late, or never: nothing twice, none lost.

Each writer retries what it was not told about with the same idempotency key, as clients do.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from context import errors
from context.adapters.log_applied import AppliedLog
from context.adapters.log_jetstream import ItemsApplier, JetStreamLog
from context.items import Batch
from context.ports import Draft, Receipt
from shared_storage.adapters.replica import Applier, Replica
from shared_storage.adapters.state_replicated import AppliedState
from shared_storage.adapters.stream_memory import MemoryStream
from shared_storage.changes import Put, encode_change
from shared_storage.envelope import Envelope, Kind, encode
from shared_storage.errors import HistoryGone, OutcomeUnknown, StaleTerm, StreamDown
from shared_storage.ports import Stream
from tests.engines import Streams, let_go_of_sockets, need_engine


class Node:
    """A log on a stream, and everything it told the index."""

    def __init__(self, folder: Path, stream: Stream, epoch: str = "e1") -> None:
        folder.mkdir(exist_ok=True)
        self.copy = AppliedLog(folder / "log.db")
        self.copy.adopt(epoch)
        self.items = ItemsApplier(self.copy)
        self.items.on_applied = self._hear
        self.heard: list[bytes] = []
        self.replica = Replica(stream, {Kind.ITEMS: self.items}, epoch=epoch, term=self.copy.term)
        self.replica.send_s = 0.01  # enough to send a second time
        self.log = JetStreamLog(self.replica, self.items)

    def _hear(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            assert batch.first_offset == len(self.heard)
            self.heard += batch.text.splitlines()

    def add_state(self, folder: Path) -> AppliedState:
        """Copy the stream's state too."""
        state = AppliedState(folder / "state.db")
        appliers: dict[Kind, Applier] = {Kind.ITEMS: self.items, Kind.STATE: state}
        self.replica = Replica(self.replica.stream, appliers, epoch="e1", term=self.copy.term)
        self.log = JetStreamLog(self.replica, self.items)
        return state

    def write(self, line: bytes, term: int, key: str | None = None) -> Receipt:
        draft = Draft(1, line + b"\n", key, line)
        (outcome,) = self.log.append([draft], term=term, now=1.0).outcomes
        assert isinstance(outcome, Receipt), outcome
        return outcome

    def catch_up(self) -> list[bytes]:
        while self.replica.follow():
            pass
        return self.lines()

    def lines(self) -> list[bytes]:
        batches = self.log.read(-1, max_bytes=1 << 30)
        return b"".join(batch.text for batch in batches).splitlines()


@pytest.mark.parametrize("seed", range(40))
def test_lost_late_and_doubled_answers_store_each_item_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    stream = MemoryStream(lambda: chance.choice(["", "", "down", "lost", "stored", "late"]))
    nodes = [Node(tmp_path / name, stream) for name in ("a", "b")]
    leader, term, acknowledged = 0, 1, {}
    fence(nodes[0], 1)
    for number in range(60):
        line = b"item %d" % number
        while line not in acknowledged:
            if chance.random() < 0.15:  # the other one is elected; the old one may not know
                leader, term = 1 - leader, term + 1
                fence(nodes[leader], term)
            if chance.random() < 0.1:
                with pytest.raises((errors.FencedOut, errors.NoMajority, errors.OutcomeUnknown)):
                    nodes[1 - leader].write(b"stale", term - 1)
            try:
                acknowledged[line] = nodes[leader].write(line, term, key=line.decode())
            except (errors.OutcomeUnknown, errors.NoMajority):
                continue
    expected = [line for line, _ in sorted(acknowledged.items(), key=lambda e: e[1].first_offset)]
    for node in nodes:
        assert node.catch_up() == expected
        assert node.heard == expected
    assert [receipt.first_offset for receipt in acknowledged.values()] == [*range(60)]


@contextlib.contextmanager
def room(state: AppliedState, pages: int) -> Iterator[None]:
    """SQLite finds the disk full once the file has so many pages."""
    most = state._db.execute("PRAGMA max_page_count").fetchone()[0]
    state._db.execute(f"PRAGMA max_page_count = {pages}")
    yield
    state._db.execute(f"PRAGMA max_page_count = {most}")


def fence(node: Node, term: int) -> None:
    """A leader begins: it tries until its mark is in the stream."""
    while node.replica.term != term:
        with contextlib.suppress(StreamDown, OutcomeUnknown):
            node.replica.fence(term)


def test_whoever_wrote_before_the_fence_is_refused_after_it(tmp_path: Path) -> None:
    stream = MemoryStream()
    old, new = Node(tmp_path / "old", stream), Node(tmp_path / "new", stream)
    old.write(b"a", 1)
    new.replica.fence(2)
    assert new.lines() == [b"a"], "a leader has everything before it leads"
    with pytest.raises(errors.FencedOut, match="term 1 is older than 2"):
        old.write(b"b", 1)
    with pytest.raises(StaleTerm):
        old.replica.fence(1)
    assert new.write(b"c", 2).first_offset == 1
    assert old.catch_up() == [b"a", b"c"]


def test_a_copy_without_room_refuses_writes_and_goes_on_once_there_is_some(tmp_path: Path) -> None:
    """The state's copy is full, the log's is not: what others wrote is not to be passed over."""
    stream = MemoryStream()
    old, new = Node(tmp_path / "old", stream), Node(tmp_path / "new", stream)
    state = new.add_state(tmp_path / "new")
    old.write(b"a", 1)
    change = encode_change(Put("model", "m", 1, bytes(1 << 20), 1.0))
    assert stream.append(encode(Envelope(Kind.STATE, 1, 1, "e1", change)), expected=1) == 2
    with room(state, pages=20):
        for _ in range(2):
            with pytest.raises(errors.StorageFull, match="full"):
                new.write(b"b", 1)
    assert stream.tail() == 2
    assert new.write(b"b", 1).first_offset == 1
    assert state.get("model", "m") is not None
    assert new.lines() == [b"a", b"b"]


def test_foreign_messages_are_left_out_by_all_alike(tmp_path: Path) -> None:
    stream = MemoryStream()
    one, two = Node(tmp_path / "1", stream), Node(tmp_path / "2", stream)
    one.write(b"a", 1)
    for foreign in (
        b"",
        b"garbage",
        encode(Envelope(Kind.ITEMS, 9, 3, "other", b"")),
        encode(Envelope(Kind.ITEMS, 9, 4, "e1", b"no items")),
    ):
        stream.append(foreign, expected=stream.tail())
    assert one.write(b"b", 1).first_offset == 1
    assert two.catch_up() == one.lines() == [b"a", b"b"]


def test_a_node_continues_where_its_copy_is_and_a_wiped_one_begins_anew(tmp_path: Path) -> None:
    stream = MemoryStream()
    leader, other = Node(tmp_path / "a", stream), Node(tmp_path / "b", stream)
    for number in range(5):
        leader.write(b"%d" % number, 1, key=str(number))
    other.catch_up()
    other.log.close()
    for number in range(5, 9):
        leader.write(b"%d" % number, 1)
    again = Node(tmp_path / "b", stream)
    again.heard = [b""] * 5  # the index has these from the copy
    assert again.replica.applied == 5
    assert len(again.catch_up()) == 9
    wiped = Node(tmp_path / "c", stream)
    assert wiped.catch_up() == leader.lines()
    assert wiped.write(b"0", 1, key="0").replayed, "keys travel with the items"


def test_a_node_that_is_behind_the_streams_beginning_is_told(tmp_path: Path) -> None:
    stream = MemoryStream()
    leader = Node(tmp_path / "a", stream)
    for number in range(5):
        leader.write(b"%d" % number, 1)
    stream.drop(3)
    with pytest.raises(HistoryGone, match="message 1 was dropped"):
        Node(tmp_path / "b", stream).catch_up()


def test_another_history_is_refused_in_one_line(tmp_path: Path) -> None:
    first = Node(tmp_path / "a", MemoryStream(), "e1")
    first.write(b"a", 1)
    first.log.close()
    with pytest.raises(errors.ForeignHistory, match="1 items of history e1, the cluster's is e2"):
        Node(tmp_path / "a", MemoryStream(), "e2")


@pytest.fixture
def _sockets() -> Iterator[None]:
    yield
    let_go_of_sockets()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("_sockets")
def test_a_killed_engine_gives_unknown_outcomes_that_a_retry_resolves(tmp_path: Path) -> None:
    need_engine()
    with Streams(tmp_path / "engine") as streams:
        stream = streams.fresh()
        node, other = Node(tmp_path / "a", stream), Node(tmp_path / "b", stream)
        node.write(b"0", 1, key="0")
        streams.engine.kill()
        with pytest.raises((errors.NoMajority, errors.OutcomeUnknown)):
            node.write(b"1", 1, key="1")
        streams.engine.start()
        written = None
        while written is None:
            try:
                written = node.write(b"1", 1, key="1")
            except (errors.NoMajority, errors.OutcomeUnknown):
                continue
        assert written.first_offset == 1
        assert other.catch_up() == [b"0", b"1"]
