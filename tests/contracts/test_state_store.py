"""One suite for every engine of the StateStore port; then what only a file can promise."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_storage.adapters.memory import MemoryStateStore
from shared_storage.adapters.replica import Replica
from shared_storage.adapters.sqlite import MIGRATIONS, SqliteStateStore
from shared_storage.adapters.state_replicated import AppliedState, ReplicatedState
from shared_storage.adapters.stream_memory import MemoryStream
from shared_storage.envelope import Kind
from shared_storage.errors import LayoutTooNew, VersionConflict
from shared_storage.ports import StateStore, Versioned

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["memory", "sqlite", "replicated"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    if request.param == "memory":
        yield MemoryStateStore()
        return
    if request.param == "replicated":
        copy = AppliedState(tmp_path / "state.db")
        replica = Replica(MemoryStream(), {Kind.STATE: copy}, epoch="e", term=0)
        yield ReplicatedState(replica, copy, lambda: 1)
        copy.close()
        return
    engine = SqliteStateStore(tmp_path / "state.db")
    yield engine
    engine.close()


def keys(found: list[Versioned]) -> list[str]:
    return [each.key for each in found]


def test_a_value_comes_back_with_its_version_and_time(store: StateStore) -> None:
    assert store.get("types", "a") is None
    assert store.put("types", "a", b"\x00one", now=1.5) == 1
    assert store.put("types", "a", b"", now=2.5) == 2
    assert store.get("types", "a") == Versioned("a", 2, b"", 2.5)
    assert store.get("contexts", "a") is None


def test_only_the_expected_version_is_replaced(store: StateStore) -> None:
    with pytest.raises(VersionConflict, match="types a is at version 0, not 1; read it again"):
        store.put("types", "a", b"x", expected=1, now=0)
    assert store.put("types", "a", b"one", expected=0, now=0) == 1
    for wrong in (0, 2):
        with pytest.raises(VersionConflict):
            store.put("types", "a", b"x", expected=wrong, now=0)
    assert store.put("types", "a", b"two", expected=1, now=0) == 2
    assert store.get("types", "a") == Versioned("a", 2, b"two", 0)


def test_a_deleted_key_begins_again(store: StateStore) -> None:
    store.put("types", "a", b"x", now=0)
    assert store.delete("types", "a")
    assert not store.delete("types", "a")
    assert store.get("types", "a") is None
    assert store.put("types", "a", b"x", expected=0, now=0) == 1


def test_lists_in_the_order_of_writes_not_of_clocks(store: StateStore) -> None:
    for key, now in (("a", 9.0), ("b", 5.0), ("c", 1.0), ("a", 0.0)):
        store.put("contexts", key, b"", now=now)
    assert keys(store.list("contexts", limit=10)) == ["a", "c", "b"]
    assert keys(store.list("contexts", limit=2, newest_first=False)) == ["b", "c"]
    assert keys(store.list("contexts", limit=2, newest_first=False, skip=1)) == ["c", "a"]
    assert keys(store.list("contexts", limit=9, skip=2)) == ["b"]
    assert store.list("contexts", limit=9, skip=3) == []
    assert store.list("contexts", limit=0) == []
    assert store.list("other", limit=1) == []


def test_pruning_keeps_the_last_written_of_one_kind(store: StateStore) -> None:
    for key in "abcde":
        store.put("contexts", key, b"", now=0)
        store.put("types", key, b"", now=0)
    assert store.prune("contexts", keep_newest=2) == 3
    assert store.prune("contexts", keep_newest=2) == 0
    assert keys(store.list("contexts", limit=10)) == ["e", "d"]
    assert store.prune("types", keep_newest=0) == 5
    assert store.prune("nothing", keep_newest=0) == 0


def test_of_concurrent_writers_with_one_expectation_one_wins(store: StateStore) -> None:
    won: list[int] = []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        for version in range(20):
            try:
                store.put("types", "a", b"%d" % number, expected=version, now=0)
            except VersionConflict:
                continue
            won.append(version)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [*range(len(won))]
    found = store.get("types", "a")
    assert found
    assert found.version == len(won)


CALLS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.none() | st.integers(0, 3)),
    st.tuples(st.just("delete"), st.sampled_from("abc"), st.none()),
    st.tuples(st.just("prune"), st.just(""), st.integers(0, 3)),
)


@given(st.lists(CALLS, max_size=30))
@settings(max_examples=50, deadline=None)
def test_both_engines_answer_alike(calls: list[tuple[str, str, int | None]]) -> None:
    memory, sqlite = MemoryStateStore(), SqliteStateStore(Path(":memory:"))

    def answer(engine: StateStore, what: str, key: str, number: int | None) -> object:
        try:
            if what == "put":
                return engine.put("k", key, key.encode(), expected=number, now=1)
            if what == "delete":
                return engine.delete("k", key)
            return engine.prune("k", keep_newest=number or 0)
        except VersionConflict as exc:
            return exc.detail

    try:
        for call in calls:
            assert answer(memory, *call) == answer(sqlite, *call)
            assert memory.list("k", limit=9) == sqlite.list("k", limit=9)
    finally:
        sqlite.close()


WRITER = """
import pathlib, sys
from shared_storage.adapters.replica import Replica
from shared_storage.adapters.sqlite import SqliteStateStore
store, number = SqliteStateStore(pathlib.Path(sys.argv[1])), 0
while True:
    store.put("numbers", str(number), b"%d" % number * 500, now=number)
    store.put("last", "number", b"%d" % number, now=number)
    print(number, flush=True)
    number += 1
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    for run in range(3):
        path = tmp_path / f"{run}.db"
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as writer:
            assert writer.stdout
            told = [writer.stdout.readline() for _ in range(20 + 17 * run)]
            writer.kill()
            told += writer.stdout.readlines()
        acknowledged = int([line for line in told if line.endswith("\n")][-1])
        store = SqliteStateStore(path)
        last = store.get("last", "number")
        assert last
        assert int(last.value) >= acknowledged
        for number in range(acknowledged + 1):
            found = store.get("numbers", str(number))
            assert found == Versioned(str(number), 1, b"%d" % number * 500, number)
        store.close()


def test_a_file_is_reopened_and_a_newer_layout_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    for version in (1, 2):
        store = SqliteStateStore(path)
        assert store.put("k", "a", b"x", now=0) == version
        store.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(LayoutTooNew, match="has layout 99; this program knows 1"):
        SqliteStateStore(path)


def test_a_failed_put_leaves_the_store_usable(store: StateStore) -> None:
    bad: Callable[..., int] = store.put
    with pytest.raises(TypeError):
        bad("k", "a", "text is no bytes", now=0)
    assert store.put("k", "a", b"x", now=0) == 1


def test_a_copy_follows_the_order_of_all_writes_and_remembers_where_it_is(tmp_path: Path) -> None:
    stream, copies, stores = MemoryStream(), [], []
    for name in ("a.db", "b.db"):
        copies.append(AppliedState(tmp_path / name))
        replica = Replica(stream, {Kind.STATE: copies[-1]}, epoch="e", term=0)
        stores.append(ReplicatedState(replica, copies[-1], lambda: 1))
    one, two = stores
    assert one.put("control", "stop", b"1", now=1.0) == 1
    assert two.put("control", "stop", b"2", now=2.0) == 2, "it saw the other's write first"
    with pytest.raises(VersionConflict, match="version 2, not 1"):
        one.put("control", "stop", b"3", expected=1, now=3.0)
    assert one.get("control", "stop") == two.get("control", "stop")
    assert one.delete("control", "stop")
    assert not one.delete("control", "stop")
    for copy in copies:
        copy.close()
    again = AppliedState(tmp_path / "a.db")
    assert again.applied == stream.tail() == 3
    again.close()
