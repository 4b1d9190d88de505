"""Reading ahead changes neither what comes nor its order, and begins in long walks only."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.ahead import read_ahead
from context.block import Block, Bounds
from context.damage import UnreadableBlock
from context.index import Index
from context.items import Batch
from context.request import parse_search
from context.search import search
from context.snapshot import Entry, Skipped


def line(i: int) -> bytes:
    return b'{"type":"note","source":"s","timestamp":%d,"data":{"n":"%s"}}\n' % (i, b"%d" % i * 300)


@pytest.fixture(scope="module")
def index() -> Index:
    """Forty closed blocks in one index, read from a dict."""
    blocks: dict[int, Block] = {}
    index = Index(lambda bounds: blocks[bounds.first_offset], cache_bytes=3 << 20)
    for i in range(40):
        text = b"".join(line(i * 1000 + j) for j in range(1000))
        batch = Batch(i * 1000, 1000, 1.0, 1, text)
        blocks[i * 1000] = Block.of([batch])
        index.apply(batch)
    return index


@pytest.mark.parametrize(
    "asked",
    [
        {"query": "no such text"},
        {"query": "[0-9]+5\\b", "regex": True, "limit": 3000},
        {"query": "7777", "limit": 10},
        {"query": "1", "since": 3000, "until": 30_500, "limit": 10_000},
    ],
)
def test_answers_are_the_same_with_and_without(index: Index, asked: dict[str, object]) -> None:
    request = parse_search(asked | {"deadline_ms": 60_000})
    with ThreadPoolExecutor(2) as pool:
        found = [
            search(index.snapshot(), request, epoch="e", clock=time.monotonic, submit=submit)
            for submit in (None, pool.submit)
        ]
    for answer in found:
        answer.pop("elapsed_ms")
        answer["items"] = [bytes(item) for item in answer["items"]]
    assert found[0] == found[1]


class Pool:
    """Runs at once, and notes what was begun and what was cancelled."""

    def __init__(self) -> None:
        self.begun: list[Block] = []
        self.cancelled = 0

    def __call__(self, read: Callable[[], Block]) -> Future[Block]:
        future: Future[Block] = Future()
        try:
            self.begun.append(read())
            future.set_result(self.begun[-1])
        except UnreadableBlock as exc:
            future.set_exception(exc)
        return future


def entry(first: int) -> Entry:
    block = Block.of([Batch(first, 1, 1.0, 1, line(first))])

    def read() -> Block:
        if first % 7 == 3:
            raise UnreadableBlock("the disk refuses", block.bounds)
        return block

    return Entry(block.bounds, read, read)


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 40))
def test_order_and_errors_stay(skipped: list[bool], taken: int) -> None:
    entries = [
        Skipped(1, i, i) if skip else entry(i) for i, skip in reversed(list(enumerate(skipped)))
    ]
    pool = Pool()

    def excluded(bounds: Bounds) -> bool:
        return bounds.first_offset % 5 == 4

    made = read_ahead(entries, pool, excluded)
    for want in entries[:taken]:
        got = next(made)
        assert got.first_offset == want.first_offset
        if isinstance(got, Entry) and not excluded(got.bounds):
            if want.first_offset % 7 == 3:
                with pytest.raises(UnreadableBlock):
                    got.block()
            else:
                assert got.block().text == line(want.first_offset)
    made.close()  # type: ignore[attr-defined]
    opened = [each for each in entries if isinstance(each, Entry) and not excluded(each.bounds)]
    assert {b.first_offset for b in pool.begun} <= {e.first_offset for e in opened[4:]}
