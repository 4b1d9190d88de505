"""One suite for every engine of the BlockStore port; then what only files can promise."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.adapters.blocks_fs import BlockFiles
from context.adapters.blocks_memory import MemoryBlocks
from context.adapters.slices_fs import SliceFiles
from context.bitslices import BitSlices, OpenGroup, Plan
from context.block import Block
from context.errors import NotFound, StorageFull
from context.items import Batch
from context.literals import Formula
from context.ngrams import Hasher
from context.ports import BlockStore
from context.sealed import DamagedBlock, Sealed, decode, encode, read_head, verify

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[[], BlockStore]


def sealed(first: int, count: int = 3, size: int = 20, note: str = "") -> bytes:
    """A block of `count` items of about `size` bytes that do not compress well."""
    noise = np.random.default_rng(first).bytes(size // 2).hex()
    line = '{"type":"note","source":"t","timestamp":%d,"data":{"x":"%s%s"}}\n'
    text = "".join(line % (first + i, note, noise[i:]) for i in range(count)).encode()
    return encode(Sealed(Block.of([Batch(first, count, 1.0, 1, text)]), ((0, 1),)))


def firsts(store: BlockStore) -> list[int]:
    return [head.bounds.first_offset for head in store.list()]


@pytest.fixture(params=["files", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlockStore:
    return MemoryBlocks() if request.param == "memory" else BlockFiles(tmp_path, 4)


def test_blocks_come_back_as_they_were_put_in_order_of_their_offsets(store: BlockStore) -> None:
    assert store.list() == []
    blocks = {first: sealed(first) for first in (30, 0, 6, 90, 60, 3)}
    store.put([blocks[30], blocks[0]])
    store.put([])
    store.put([blocks[first] for first in (6, 90, 60, 3)])
    assert firsts(store) == [0, 3, 6, 30, 60, 90]
    assert store.list()[0] == read_head(blocks[0])
    assert {first: store.get(first) for first in blocks} == blocks


def test_a_block_put_again_takes_the_former_ones_place(store: BlockStore) -> None:
    store.put([sealed(0), sealed(3)])
    again = sealed(0, note="again")
    store.put([again])
    assert store.get(0) == again
    assert firsts(store) == [0, 3]


def test_deleted_and_unknown_blocks_are_not_found(store: BlockStore) -> None:
    store.put([sealed(first) for first in range(0, 30, 3)])
    store.delete([0, 3, 6, 9, 1000])
    store.delete([27])
    assert firsts(store) == [12, 15, 18, 21, 24]
    for first in (0, 27, 13, -1):
        with pytest.raises(NotFound):
            store.get(first)


def test_a_damaged_block_is_set_aside_and_can_be_put_again(store: BlockStore) -> None:
    store.put([sealed(0), sealed(3)])
    store.set_aside(0)
    assert firsts(store) == [3]
    store.put([sealed(0)])
    assert firsts(store) == [0, 3]


OPERATION = st.one_of(
    st.tuples(st.just("put"), st.lists(st.integers(0, 20), max_size=6)),
    st.tuples(st.just("delete"), st.lists(st.integers(0, 20), max_size=6)),
    st.tuples(st.just("open"), st.just([])),
)


@given(st.lists(OPERATION, max_size=12))
@settings(max_examples=60, deadline=None)
def test_files_hold_what_memory_holds_also_when_opened_again(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    files, memory, puts = BlockFiles(folder, 3), MemoryBlocks(), 0
    for name, numbers in operations:
        if name == "open":
            files = BlockFiles(folder, 3)
        elif name == "put":
            puts += 1
            blocks = [sealed(3 * i, note=f"{puts}") for i in dict.fromkeys(numbers)]
            files.put(blocks)
            memory.put(blocks)
        else:
            files.delete([3 * i for i in numbers])
            memory.delete([3 * i for i in numbers])
        assert files.list() == memory.list()
        assert all(files.get(first) == memory.get(first) for first in firsts(memory))
    again = BlockFiles(folder, 3)
    assert again.list() == memory.list()
    live = {path.name for path in folder.glob("*.blocks")}
    assert len(live) <= len(firsts(memory)) + 1, "files without blocks are removed"


def test_a_damaged_head_hides_its_block_only(tmp_path: Path) -> None:
    BlockFiles(tmp_path, 3).put([sealed(first, size=9000) for first in range(0, 18, 3)])
    old, newest = sorted(tmp_path.glob("*.blocks"))
    for path in (old, newest):
        with path.open("r+b") as file:
            file.seek(20)
            file.write(b"\xff")
    store = BlockFiles(tmp_path, 3)
    assert firsts(store) == [3, 6, 12, 15]
    assert [(each.path, each.found.at, each.follows) for each in store.damage] == [
        (old, 0, -1),
        (newest, 0, 8),
    ]
    assert all("the checksum of the header is wrong" in str(each) for each in store.damage)
    for first in firsts(store):
        verify(store.get(first))
    bytes_before = old.read_bytes()[: store.damage[0].found.length]
    kept = store.set_aside_at(store.damage[0], 0, 2)
    assert Path(kept).read_bytes() == bytes_before
    store.mark(store.damage[1])
    again = BlockFiles(tmp_path, 3)
    assert (firsts(again), again.damage) == ([3, 6, 12, 15], []), "known damage is not told again"
    assert [head.bounds.last_offset for head in again.aside.list()] == [2]


def test_a_damaged_body_is_noticed_when_it_is_read_and_kept_for_people(tmp_path: Path) -> None:
    store, block = BlockFiles(tmp_path), sealed(0, size=3000)
    store.put([block, sealed(3)])
    path = next(tmp_path.glob("*.blocks"))
    with path.open("r+b") as file:
        file.seek(len(block) - 5)
        file.write(b"12345")
    with pytest.raises(DamagedBlock, match="the checksum of the text is wrong"):
        decode(store.get(0))
    assert Path(store.set_aside(0)).read_bytes()[:100] == block[:100]
    assert firsts(BlockFiles(tmp_path)) == [3]


@given(st.integers(0, 40_000))
@settings(max_examples=60, deadline=None)
def test_whatever_part_of_a_write_is_there_after_a_crash_no_block_is_half_there(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    store, later = BlockFiles(folder), [sealed(i, size=5000) for i in (3, 6, 9)]
    store.put([sealed(0, size=5000)])
    path = next(folder.glob("*.blocks"))
    promised = path.stat().st_size
    store.put(later)
    with path.open("r+b") as file:
        file.truncate(min(promised + length, path.stat().st_size))
    again = BlockFiles(folder)
    found = firsts(again)
    assert found == [0, 3, 6, 9][: len(found)]
    assert found
    again.put([sealed(100)])
    assert firsts(BlockFiles(folder)) == [*found, 100]
    for first in (*found, 100):
        verify(again.get(first))


def test_a_full_disk_refuses_a_put_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlockFiles(tmp_path)
    store.put([sealed(0)])

    def full(fd: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StorageFull, match="No space left"):
            store.put([sealed(3)])
    assert firsts(store) == firsts(BlockFiles(tmp_path)) == [0]
    store.put([sealed(3)])
    assert firsts(BlockFiles(tmp_path)) == [0, 3]


WRITER = """
import sys
from pathlib import Path
from context.adapters.blocks_fs import BlockFiles
from tests.contracts.test_block_store import sealed
store = BlockFiles(Path(sys.argv[1]), 8)
blocks = [[sealed(3 * (5 * i + j), size=60_000) for j in range(5)] for i in range(60)]
for group in blocks:
    store.put(group)
    print(len(group), flush=True)
"""


@pytest.mark.parametrize("after", [1, 4, 9])
def test_after_kill_9_what_was_promised_is_there_and_nothing_is_half_there(
    tmp_path: Path, after: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        promised = sum(int(writer.stdout.readline()) for _ in range(after))
        writer.send_signal(signal.SIGKILL)
        promised += sum(map(int, writer.stdout.read().split()))
    store = BlockFiles(tmp_path, 8)
    found = firsts(store)
    assert found == list(range(0, 3 * len(found), 3))
    assert len(found) >= promised
    for first in found:
        verify(store.get(first))


def test_groups_of_rows_come_back_and_a_damaged_one_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hasher, files = Hasher(), SliceFiles(tmp_path)
    for first in (0, 64):
        group = OpenGroup(64)
        for i in range(64):
            group.add(first + i, hasher.bitmap(b"number %06d\n" % (first + i)), folds=False)
        files.put(first, group.close())
    asked, plan = np.arange(128), Plan(Formula(((b"number 000070",),)))
    (tmp_path / "x.tmp").touch()
    slices = BitSlices(SliceFiles(tmp_path).list())
    assert np.flatnonzero(slices.candidates(plan, asked)).tolist() == [70]
    path = min(tmp_path.glob("*.rows"))
    path.write_bytes(path.read_bytes()[:1000])
    slices = BitSlices(SliceFiles(tmp_path).list())
    assert "the checksum of the table is wrong" in caplog.text
    assert np.flatnonzero(slices.candidates(plan, asked)).tolist() == [*range(64), 70]
    files.delete(64)
    assert list(tmp_path.iterdir()) == []


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_a_file_holds_it_opens_and_gives_blocks_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    blocks = {first: sealed(first, size=3000) for first in range(0, 15, 3)}
    BlockFiles(folder).put(list(blocks.values()))
    path = next(folder.glob("*.blocks"))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        page = data.draw(st.integers(0, len(content) // 4096))
        at = min(page * 4096 + data.draw(st.integers(0, 100)), len(content))
        marks = st.sampled_from([b"CTXBAD\r\n", b"CTXDEL\r\n", b"CTXBLK\r\n", bytes(4096)])
        piece = data.draw(st.binary(min_size=1, max_size=30) | marks)
        content[at : at + len(piece)] = piece
    del content[data.draw(st.integers(0, len(content))) :]
    path.write_bytes(content)
    store = BlockFiles(folder)
    for first in firsts(store):
        try:
            decode(store.get(first))
        except DamagedBlock:
            continue
        assert store.get(first) == blocks[first]
    for damage in (*store.damage, *store.torn):
        assert 0 <= damage.found.at < len(content)
        store.set_aside_at(damage, 0, 0)
    store.put([sealed(100)])
    again = BlockFiles(folder)
    assert again.get(100) == sealed(100)
    assert (again.damage, again.torn) == ([], []), "known damage is not told again"
