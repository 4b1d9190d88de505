"""Sealing loses nothing: search, restart, crash and damage over a real log and real files."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import corpus
from context.adapters import archive
from context.adapters.archive import Archive, Sealer
from context.adapters.log_sqlite import SqliteLog
from context.adapters.mending import loader, read_after, recover
from context.block import Block, Bounds
from context.errors import NotFound
from context.index import Index
from context.ports import Draft, Receipt
from context.query import Selection, compile_matcher
from context.request import SearchRequest
from context.scan import read_forward
from context.search import search
from tests.node_process import wait_for

ITEMS, BATCH = 24_000, 500
LINES = [
    json.dumps(
        {"type": i["type"], "source": i.get("source", "unknown"), **i}, separators=(",", ":")
    )
    for i in corpus.items(ITEMS)
]


class Memory:
    """One node's log, archive, index and sealer, as the agent wires them."""

    def __init__(self, folder: Path, *, sealing: bool = True) -> None:
        self.log = SqliteLog(folder / "log.db")
        self.found = 0
        self.archive = Archive(folder, on_damage=self._count)
        recover(self.archive, self.log)
        self.sealer = Sealer(self.archive, self.log)
        self.index = Index(
            loader(self.archive, self.log),
            cache_bytes=3 << 20,
            sealed=self.archive.heads(),
            lost=self.archive.lost.values(),
            slices=self.archive.slices,
            on_closed=self.sealer.submit,
        )
        after = self.index.snapshot().newest
        for batch in self.log.read(after, max_bytes=1 << 30):
            if batch.first_offset > after:
                self.index.apply(batch)
        if sealing:
            self.sealer.start(self.index.block)

    def add(self, lines: list[str], term: int = 1) -> None:
        text = "".join(line + "\n" for line in lines).encode()
        (receipt,) = self.log.append([Draft(len(lines), text)], term=term, now=1.0).outcomes
        assert isinstance(receipt, Receipt)
        for batch in self.log.read(receipt.first_offset - 1, max_bytes=1):
            self.index.apply(batch)

    def settled(self) -> None:
        deadline = time.monotonic() + 60
        while self.sealer.waiting or self.archive.unindexed():
            assert time.monotonic() < deadline, "sealing does not come to an end"
            time.sleep(0.01)

    def _count(self) -> None:
        self.found += 1

    def stop(self) -> None:
        self.sealer.stop()
        self.log.close()


def offsets(memory: Memory, query: str, *, regex: bool = False, ignore_case: bool = False):
    asked = SearchRequest(
        query=query, regex=regex, ignore_case=ignore_case, limit=10_000, deadline_ms=60_000
    )
    answer = search(memory.index.snapshot(), asked, epoch="e", clock=time.monotonic)
    assert not answer["partial"]
    return [json.loads(bytes(item))["offset"] for item in answer["items"]], answer["scanned"]


def forward(memory: Memory, query: str, **options: bool) -> list[int]:
    """What a subscriber who catches up gets, piece by piece."""
    wish = SearchRequest(query=query, **options).selection()
    snapshot, seen, after = memory.index.snapshot(), [], -1
    while after < snapshot.newest:
        items, reached = read_forward(
            snapshot, after, wish, max_items=3000, max_bytes=1 << 20, max_scan_bytes=1 << 20
        )
        assert reached > after
        seen += [offset for offset, _, _ in items]
        after = reached
    return seen


def expected(query: str, *, regex: bool = False, ignore_case: bool = False) -> list[int]:
    matcher = compile_matcher(query, regex=regex, ignore_case=ignore_case)
    found = [i for i, line in enumerate(LINES) if matcher.matches(line.encode())]
    return found[::-1][:10_000]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memory]:
    memory = Memory(tmp_path_factory.mktemp("sealed"))
    for at in range(0, ITEMS, BATCH):
        memory.add(LINES[at : at + BATCH], term=1 + at // 7000)
    memory.settled()
    yield memory
    memory.stop()


def test_what_is_sealed_is_in_the_log_no_more_and_still_found(sealed: Memory) -> None:
    heads = sealed.archive.heads()
    assert len(heads) >= 4
    behind = heads[-1].bounds.last_offset + 1
    wait_for(lambda: sealed.log.bounds()[0] == behind, "the log to be trimmed")
    assert sealed.index.stats()["items"] == ITEMS
    for offset in (0, 1, ITEMS // 2, ITEMS - 1):
        found = sealed.index.item(offset)
        assert found is not None
        assert found[1].decode() == LINES[offset]


def test_blocks_that_are_not_held_until_they_are_sealed_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "HELD", 1)
    memory = Memory(tmp_path, sealing=False)
    for at in range(0, ITEMS, BATCH):
        memory.add(LINES[at : at + BATCH])
    assert memory.sealer.waiting >= 4
    memory.sealer.start(memory.index.block)
    memory.settled()
    for head in memory.archive.heads():
        text = memory.archive.read(head.bounds.first_offset).block.text
        assert (
            text.decode().splitlines()
            == LINES[head.bounds.first_offset : head.bounds.last_offset + 1]
        )
    memory.stop()


def test_blocks_that_wait_to_be_sealed_are_read_from_memory(tmp_path: Path) -> None:
    memory = Memory(tmp_path, sealing=False)
    for at in range(0, ITEMS, BATCH):
        memory.add(LINES[at : at + BATCH])
    asked: list[Bounds] = []

    def load(bounds: Bounds) -> Block:
        asked.append(bounds)
        raise NotFound("it was let go")

    read = memory.sealer.held_or(load)
    waiting = memory.index.snapshot().closed
    for bounds in waiting:
        assert read(bounds).bounds == bounds
    assert not asked
    memory.sealer.start(memory.index.block)
    memory.settled()
    for bounds in waiting:
        with pytest.raises(NotFound):
            read(bounds)
    assert asked == list(waiting)
    memory.stop()


def test_rare_and_absent_words_open_few_blocks(sealed: Memory) -> None:
    at = next(i for i in range(3000, ITEMS) if "tensor_math" in LINES[i])
    found, scanned = offsets(sealed, corpus.hash_of(at)[:12])
    assert found == [at]
    assert scanned["skipped"] >= len(sealed.archive.heads()) - 2
    assert offsets(sealed, "a word that nobody ever wrote")[0] == []


WORDS = ["buy", "volume", "node-07", "BTC/USD", '"side":"sell"', "K", "s", "é", "0.5", "drift"]


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_skipping_never_hides_anything(sealed: Memory, data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    line = rng.choice(LINES)
    start = rng.randrange(len(line) - 1)
    cut = line[start : start + rng.randrange(1, 14)]
    shape = data.draw(st.sampled_from(["plain", "folded", "dots", "either", "class", "some"]))
    word = data.draw(st.sampled_from(WORDS))
    quoted = "".join("\\" + c if c in r"\.+*?()|[]{}^$" else c for c in cut)
    query, regex, fold = {
        "plain": (cut, False, False),
        "folded": (cut.swapcase(), False, True),
        "dots": (f"{quoted}.*{word}", True, False),
        "either": (f"(?:{quoted}|{word}{word})", True, False),
        "class": (f"{quoted}[0-9a-f]?", True, True),
        "some": (f"(?:{quoted}){{1,2}}", True, False),
    }[shape]
    naive = expected(query, regex=regex, ignore_case=fold)
    assert offsets(sealed, query, regex=regex, ignore_case=fold)[0] == naive
    assert forward(sealed, query, regex=regex, ignore_case=fold)[-10_000:] == naive[::-1]


def test_catching_up_with_a_rare_word_looks_at_few_blocks(sealed: Memory) -> None:
    snapshot = sealed.index.snapshot()
    block = snapshot.closed[3]
    at = next(i for i in range(block.first_offset, ITEMS) if "tensor_math" in LINES[i])
    wish = SearchRequest(query=corpus.hash_of(at)[:12]).selection()
    limits = {"max_items": 10, "max_bytes": 1 << 20, "max_scan_bytes": 1}  # one look, then stop
    _, reached = read_forward(snapshot, -1, wish, **limits)
    assert reached >= block.first_offset, "the first look is into the first block that may have it"


def test_history_is_read_forward_and_as_batches_with_its_terms(sealed: Memory) -> None:
    seen, after = [], -1
    while after < ITEMS - 1:
        items, after = read_forward(
            sealed.index.snapshot(), after, Selection(), max_items=7000, max_bytes=1 << 30
        )
        seen += items
    assert [line.decode() for _, _, line in seen] == LINES
    after, text, terms = -1, b"", {}
    while batches := read_after(sealed.archive, sealed.log, after, max_bytes=1):
        for batch in batches:
            assert batch.first_offset == after + 1
            after = batch.last_offset
            text += batch.text
            terms |= dict.fromkeys(range(batch.first_offset, after + 1), batch.term)
    assert text.decode().splitlines() == LINES
    assert terms == {i: 1 + i // BATCH * BATCH // 7000 for i in range(ITEMS)}


def test_a_restart_finds_the_same_and_goes_on(tmp_path: Path) -> None:
    first = Memory(tmp_path)
    for at in range(0, 12_000, BATCH):
        first.add(LINES[at : at + BATCH])
    first.settled()
    stats = first.index.stats()
    first.stop()
    second = Memory(tmp_path)
    assert {
        k: v for k, v in second.index.stats().items() if k not in ("blocks", "cached_bytes")
    } == {k: v for k, v in stats.items() if k not in ("blocks", "cached_bytes")}
    for at in range(12_000, ITEMS, BATCH):
        second.add(LINES[at : at + BATCH])
    second.settled()
    assert offsets(second, "node-07")[0] == expected("node-07")
    second.stop()


def test_a_crash_between_sealing_and_trimming_repeats_nothing(tmp_path: Path) -> None:
    first = Memory(tmp_path)
    first.log.trim = lambda through: None  # type: ignore[method-assign]  # the crash comes here
    for at in range(0, 12_000, BATCH):
        first.add(LINES[at : at + BATCH])
    first.settled()
    first.stop()
    second = Memory(tmp_path)
    assert second.log.bounds() == (0, 11_999), "both have it"
    assert second.index.stats()["items"] == 12_000
    found = offsets(second, '"state":"healthy"')[0]
    assert found == [i for i in expected('"state":"healthy"') if i < 12_000]
    second.stop()
