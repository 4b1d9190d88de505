"""The index holds what was applied: its columns say what the JSON says, and nothing gets lost."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.block import Block, Bounds
from context.cache import load_from
from context.filter import Filter
from context.index import CLOSE_BYTES, Index
from context.items import Batch
from context.tally import MAX_NAMES, OTHER

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ITEM = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["trading_data", "system_health", "note"]),
        "source": TEXT,
        "timestamp": st.one_of(st.integers(-(10**9), 10**11), st.floats(-1e9, 1e11)),
        "data": st.one_of(
            st.fixed_dictionaries({"symbol": st.sampled_from(["BTC/USD", "é", "", "ETH"])}),
            st.fixed_dictionaries({"symbol": st.sampled_from([None, 1, ["BTC/USD"], {"a": 1}])}),
            st.dictionaries(TEXT, TEXT, max_size=2),
        ),
    },
    optional={"metadata": st.dictionaries(TEXT, st.integers(), max_size=2)},
)
BATCHES = st.lists(
    st.tuples(st.lists(ITEM, min_size=1, max_size=4), st.sampled_from([1.0, 2.5, 3.0])),
    min_size=1,
    max_size=40,
)


class MemoryLog:
    """As much of a log as an index needs; counts what it is asked for."""

    epoch = "e"

    def __init__(self, batches):
        self.batches, self.reads = list(batches), 0

    def read(self, after, *, max_bytes):
        self.reads += 1
        found = [batch for batch in self.batches if batch.last_offset > after]
        return found[:3]


def encode(item) -> bytes:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode()


def to_batches(drawn, first=0):
    batches = []
    for items, at in drawn:
        text = b"".join(encode(item) + b"\n" for item in items)
        batches.append(Batch(first, len(items), at, 1, text))
        first += len(items)
    return batches


def indexed(batches, **options) -> Index:
    index = Index(load_from(MemoryLog(batches)), **options)
    for batch in batches:
        index.apply(batch)
    return index


def trades(count, first=0, size=1, pad=100, source="s"):
    item = {"type": "trading_data", "source": source, "timestamp": 1.0, "data": {"pad": "x" * pad}}
    return to_batches([([item] * size, float(i)) for i in range(count)], first)


def passes(item, wish: Filter) -> bool:
    return (
        (wish.types is None or item["type"] in wish.types)
        and (wish.source is None or item["source"] == wish.source)
        and (wish.symbol is None or item["data"].get("symbol") == wish.symbol)
        and (wish.since is None or float(item["timestamp"]) >= wish.since)
        and (wish.until is None or float(item["timestamp"]) <= wish.until)
    )


@settings(deadline=None)
@given(drawn=BATCHES, first=st.integers(0, 10**12), cut=st.data())
def test_columns_say_what_the_lines_say(drawn, first, cut):
    batches = to_batches(drawn, first)
    at = cut.draw(st.integers(0, len(batches)))
    whole = Block.of(batches)
    joined = Block.join([Block.of(part) for part in (batches[:at], batches[at:]) if part])
    items = [(item, ingested) for items, ingested in drawn for item in items]
    for block in (whole, joined):
        assert block.count == len(items)
        assert block.bounds == whole.bounds
        for i, (item, ingested) in enumerate(items):
            assert json.loads(block.line(i)) == item
            assert block.ingested_at(i) == ingested
            heads = block.columns.heads
            assert heads.timestamps[i] == item["timestamp"]
            for column, text in (
                (heads.types, item["type"]),
                (heads.sources, item["source"]),
                (heads.symbols, item["data"].get("symbol")),
            ):
                code = column.values[text] if isinstance(text, str) else -1
                assert column.codes[i] == code


@settings(deadline=None)
@given(drawn=BATCHES, data=st.data())
def test_filters_agree_with_the_json_and_bounds_exclude_nothing_that_passes(drawn, data):
    block = Block.of(to_batches(drawn))
    items = [item for items, _ in drawn for item in items]
    times = st.one_of(st.none(), st.sampled_from([float(item["timestamp"]) for item in items]))
    wish = Filter(
        data.draw(
            st.one_of(st.none(), st.frozensets(st.sampled_from(["note", "x", "trading_data"])))
        ),
        data.draw(st.one_of(st.none(), st.sampled_from([item["source"] for item in items]))),
        data.draw(st.sampled_from([None, "BTC/USD", "é", "", "missing"])),
        data.draw(times),
        data.draw(times),
    )
    first = data.draw(st.integers(0, len(items) - 1))
    last = data.draw(st.integers(first + 1, len(items)))
    expected = [passes(item, wish) for item in items]
    mask = block.mask(wish, first, last)
    assert (np.ones(last - first) if mask is None else mask).tolist() == expected[first:last]
    assert not (block.bounds.excludes(wish) and any(expected))


def test_bounds_with_too_many_names_exclude_none_of_them():
    lots = to_batches(
        [([{"type": "t", "source": str(i), "timestamp": 1, "data": {}}], 1.0) for i in range(1100)]
    )
    bounds = Block.of(lots).bounds
    assert bounds.sources is None
    assert not bounds.excludes(Filter(source="unseen"))
    assert bounds.excludes(Filter(types=frozenset(("unseen",))))


@pytest.mark.parametrize("text", [b"{}\n{}\n", b""])
def test_a_batch_that_miscounts_is_refused(text):
    with pytest.raises(ValueError, match="count 1"):
        Block.of([Batch(0, 1, 1.0, 1, text)])


def test_batches_must_follow_each_other():
    one, _, three = trades(3)
    with pytest.raises(ValueError, match="does not follow"):
        Block.of([one, three])
    index = indexed([one])
    with pytest.raises(ValueError, match="does not follow"):
        index.apply(three)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 30, 2000, 9000]), min_size=1, max_size=60),
    first=st.sampled_from([0, 7]),
)
def test_every_item_is_found_whatever_the_sizes_of_batches(sizes, first):
    batches = []
    for n, size in enumerate(sizes):
        start = batches[-1].last_offset + 1 if batches else first
        line = encode({"type": "t", "source": "s", "timestamp": n, "data": {"symbol": str(n)}})
        batches.append(Batch(start, size, float(n), 1, (line + b"\n") * size))
    index = indexed(batches, cache_bytes=1)
    snapshot = index.snapshot()
    newest = batches[-1].last_offset
    assert (snapshot.oldest, snapshot.newest) == (first, newest)
    assert snapshot.item(first - 1) is None
    assert snapshot.item(newest + 1) is None
    for n, batch in enumerate(batches):
        for offset in {batch.first_offset, batch.last_offset}:
            at, line = index.item(offset)
            assert (at, json.loads(line)["timestamp"]) == (float(n), n)
    entries = [snapshot[i].bounds for i in range(len(snapshot))]
    assert all(b.first_offset == a.last_offset + 1 for a, b in pairwise(entries))
    assert index.stats()["items"] == sum(sizes)
    assert index.stats()["bytes"] == sum(len(batch.text) for batch in batches)


def test_single_items_make_few_blocks_and_close_at_a_mebibyte():
    index = indexed(trades(9000, pad=200))
    snapshot = index.snapshot()
    assert len(snapshot.closed) == 9000 * 272 // CLOSE_BYTES
    assert len(snapshot.tail) < 64
    assert all(CLOSE_BYTES <= bounds.nbytes < 1.1 * CLOSE_BYTES for bounds in snapshot.closed)


def test_closed_blocks_leave_the_cache_and_come_back_from_the_log():
    batches = trades(24, size=1000, pad=200)
    log = MemoryLog(batches)
    index = Index(load_from(log), cache_bytes=3 * CLOSE_BYTES)
    for batch in batches:
        index.apply(batch)
    assert log.reads == 0
    assert index.item(23_999)[0] == 23.0
    assert log.reads == 0
    assert index.item(5)[0] == 0.0
    reads = log.reads
    assert reads > 0
    assert index.item(1_500)[0] == 1.0
    assert log.reads == reads
    assert index.stats()["cached_bytes"] <= 3 * CLOSE_BYTES


def test_a_snapshot_stays_as_it_was():
    batches = trades(3000, pad=800)
    index = indexed(batches[:10])
    before = index.snapshot()
    for batch in batches[10:]:
        index.apply(batch)
    assert before.newest == 9
    assert before.item(10) is None
    assert before.item(9) is not None
    assert sum(before[i].block().count for i in range(len(before))) == 10


def test_stats_fold_sources_beyond_a_thousand():
    item = {"type": "t", "timestamp": 1, "data": {}}
    index = indexed(to_batches([([{**item, "source": f"s{i}"}], 1.0) for i in range(1500)]))
    sources = index.stats()["sources"]
    assert len(sources) == MAX_NAMES + 1
    assert sources[OTHER] == 500
    assert sum(sources.values()) == 1500


def test_an_empty_index_answers():
    index = Index(load_from(MemoryLog([])))
    assert index.item(0) is None
    assert index.snapshot().newest == -1
    assert index.stats()["items"] == 0
    assert index.stats()["oldest_timestamp"] is None


def test_loading_takes_exactly_the_batches_of_the_block():
    batches = trades(10)
    block = load_from(MemoryLog(batches))(Bounds(2, 7, 0, 0, None, None, None, 1))
    assert (block.first_offset, block.count) == (2, 6)
