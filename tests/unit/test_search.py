"""Pages put together must be the whole answer, and the whole answer what a plain loop finds."""

import itertools
import json
import random
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.block import Block
from context.errors import BadCursor, BadPattern, InvalidRequest
from context.filter import Filter
from context.index import Index
from context.items import Batch
from context.query import Selection
from context.scan import MAX_CHUNK
from context.search import (
    latest,
    parse_latest,
    parse_search,
    read_forward,
    search,
)

EPOCH = "k3v9x"
FIRST = 5  # the oldest item is not always item 0
SYMBOLS = ["BTC/USD", "ETH/USD", "été€😀", None]


def make_items(count, seed=7):
    chance = random.Random(seed)
    for i in range(count):
        symbol = chance.choice(SYMBOLS)
        data = {"id": f"x-{i:06d}", "hex": f"{chance.getrandbits(48):012x}", "note": "buy\nsell"}
        yield {
            "type": chance.choice(["trading_data", "system_health", "note"]),
            "source": chance.choice(["binance", "kraken", "agent"]),
            "timestamp": 1000 + i + chance.randrange(-3, 3),
            "data": data | ({"symbol": symbol} if symbol else {}),
        }


def build(count=1200, pad=0):
    """An index of closed, merged and fresh blocks, and its lines as (offset, line)."""
    lines, chance, blocks = [], random.Random(1), {}
    index = Index(lambda bounds: blocks[bounds.first_offset])
    items, offset = iter(list(make_items(count))), FIRST
    while chunk := list(itertools.islice(items, chance.choice([1, 1, 7, 400]))):
        for item in chunk:
            item["data"]["pad"] = "p" * pad
        found = [
            json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() for item in chunk
        ]
        lines += [(offset + i, line) for i, line in enumerate(found)]
        batch = Batch(offset, len(chunk), 2000.0 + offset, 1, b"".join(x + b"\n" for x in found))
        index.apply(batch)
        offset += len(chunk)
    return index.snapshot(), lines


SNAPSHOT, LINES = build()
LONG, LONG_LINES = build(3000, pad=900)


def run(body, snapshot=SNAPSHOT, clock=lambda: 0.0):
    answer = search(snapshot, parse_search(body), epoch=EPOCH, clock=clock)
    return json.loads(msgspec.json.encode(answer))


def every_page(body, snapshot=SNAPSHOT, clock=lambda: 0.0):
    pages = [run(body, snapshot, clock)]
    while pages[-1]["next"]:
        pages.append(run(body | {"before": pages[-1]["next"]}, snapshot, clock))
        assert len(pages) < 5000
    return pages


def brute(body, lines=LINES):
    """Offsets, newest first, by decoding each line and Python's own search."""
    flags = re.IGNORECASE if body.get("ignore_case") else 0
    query = body["query"] if body.get("regex") else re.escape(body["query"])
    types = set(body.get("types", ())) | ({body["type"]} if "type" in body else set())
    found = []
    for offset, line in reversed(lines):
        item = json.loads(line)
        if (
            (not types or item["type"] in types)
            and body.get("source", item["source"]) == item["source"]
            and body.get("symbol", item["data"].get("symbol")) == item["data"].get("symbol")
            and body.get("since", 0) <= item["timestamp"] <= body.get("until", 1e12)
            and bool(re.search(query, line.decode(), flags)) != body.get("invert", False)
        ):
            found.append(offset)
    return found


BODIES = st.fixed_dictionaries(
    {
        "query": st.sampled_from(
            ["", "BTC", "btc", "a1", "x-0001", "été", "e\\n", "no such", ".", "a.*9"]
        )
    },
    optional={
        "regex": st.booleans(),
        "ignore_case": st.booleans(),
        "invert": st.booleans(),
        "type": st.sampled_from(["note", "unseen"]),
        "types": st.lists(st.sampled_from(["note", "system_health"]), min_size=1),
        "source": st.sampled_from(["kraken", "unseen"]),
        "symbol": st.sampled_from(["BTC/USD", "été€😀", "unseen"]),
        "since": st.integers(990, 2300),
        "until": st.integers(990, 2300),
        "limit": st.sampled_from([37, 100, 500, 10_000]),
    },
)


@settings(deadline=None, max_examples=150)
@given(body=BODIES)
def test_pages_together_equal_a_plain_loop(body):
    if body.get("regex"):
        body["query"] = body["query"].replace("\\n", "n")  # the line holds an escape, not a newline
    expected = brute(body)
    pages = every_page(body)
    assert [item["offset"] for page in pages for item in page["items"]] == expected
    assert all(len(page["items"]) == body.get("limit", 50) for page in pages[:-1])
    assert not any(page["partial"] for page in pages)
    assert run(body | {"count_only": True})["count"] == len(expected)


@settings(deadline=None, max_examples=60)
@given(
    body=BODIES,
    max_items=st.sampled_from([1, 50, 10_000]),
    max_bytes=st.sampled_from([1, 5000, 10**7]),
)
def test_reading_forward_gives_the_same_items_in_order(body, max_items, max_bytes):
    if body.get("regex"):
        body["query"] = body["query"].replace("\\n", "n")
    selection, lines, after, found = parse_search(body).selection(), dict(LINES), -1, []
    while after < SNAPSHOT.newest:
        items, reached = read_forward(
            SNAPSHOT,
            after,
            selection,
            max_items=max_items,
            max_bytes=max_bytes,
            max_scan_bytes=20_000,
        )
        assert reached > after
        assert all(after < offset <= reached for offset, _, _ in items)
        assert len(items) <= max_items
        assert len(items) <= 1 or sum(len(line) for _, _, line in items) <= max_bytes
        assert all(line == lines[offset] for offset, _, line in items)
        found += [offset for offset, _, _ in items]
        after = reached
    assert found == brute(body)[::-1]
    assert read_forward(SNAPSHOT, after, selection, max_items=1, max_bytes=1) == ([], after)


def test_there_is_no_next_page_behind_the_oldest_item():
    assert run({"query": "", "limit": len(LINES)})["next"] is None
    assert run({"query": "", "limit": len(LINES) - 1})["next"] == f"{EPOCH}:{FIRST + 1}"
    assert run({"query": "", "before": f"{EPOCH}:{FIRST}"})["items"] == []


def test_a_hit_is_the_item_with_its_line_and_matches():
    answer = run({"query": "été€", "limit": 3})
    for item in answer["items"]:
        line = item.pop("line")
        assert json.dumps(json.loads(line), ensure_ascii=False, separators=(",", ":")) == line
        assert [line[start:end] for start, end in item.pop("matches")] == ["été€"]
        head = {"id": f"{EPOCH}:{item['offset']}", "offset": item["offset"]}
        assert item == head | {"ingested_at": item["ingested_at"]} | json.loads(line)
    assert answer["as_of"] == f"{EPOCH}:{SNAPSHOT.newest}"
    assert answer["next"] == answer["items"][-1]["id"]
    assert list(answer) == ["items", "next", "as_of", "partial", "elapsed_ms", "scanned"]


def test_inverted_hits_have_no_matches():
    assert {str(item["matches"]) for item in run({"query": "BTC", "invert": True})["items"]} == {
        "[]"
    }


def test_context_is_the_neighbours_of_any_type():
    for offset, around in (
        (FIRST, (0, 2)),
        (FIRST + 1, (1, 2)),
        (700, (2, 2)),
        (SNAPSHOT.newest, (2, 0)),
    ):
        query = f'"id":"x-{offset - FIRST:06d}"'
        (item,) = run(
            {"query": query, "context": 2, "type": json.loads(dict(LINES)[offset])["type"]}
        )["items"]
        before = [each["offset"] for each in item["context"]["before"]]
        after = [each["offset"] for each in item["context"]["after"]]
        assert before == list(range(offset - around[0], offset))
        assert after == list(range(offset + 1, offset + 1 + around[1]))


def test_a_late_deadline_gives_parts_that_add_up():
    body = {"query": '"hex":"[0-9]{5}', "regex": True, "deadline_ms": 1}
    ticks = itertools.count()
    pages = every_page(body, LONG, lambda: float(next(ticks)))
    assert any(page["partial"] and not page["items"] for page in pages[:-1])
    assert all(page["partial"] and page["next"] for page in pages[:-1])
    assert not pages[-1]["partial"]
    assert [item["offset"] for page in pages for item in page["items"]] == brute(body, LONG_LINES)
    counts = every_page(body | {"count_only": True}, LONG, lambda: float(next(ticks)))
    assert sum(page["count"] for page in counts) == len(brute(body, LONG_LINES))
    assert len(counts) > 1


def test_a_page_never_grows_beyond_its_bytes(monkeypatch):
    monkeypatch.setattr("context.search.MAX_ANSWER_BYTES", 100_000)
    pages = every_page({"query": "", "limit": 10_000}, LONG)
    assert all(len(json.dumps(page)) < 110_000 for page in pages)
    assert [item["offset"] for page in pages for item in page["items"]] == brute(
        {"query": ""}, LONG_LINES
    )


def test_bounds_skip_blocks_and_a_frequent_query_stops_early():
    assert run({"query": "x", "until": 1100.0, "count_only": True}, LONG)["scanned"]["skipped"] > 0
    none = run({"query": "x", "type": "unseen"}, LONG)["scanned"]
    assert (none["blocks"], none["bytes"]) == (0, 0)
    assert run({"query": "pad", "limit": 5}, LONG)["scanned"]["bytes"] < MAX_CHUNK
    assert run({"query": "no such"}, LONG)["scanned"]["bytes"] == sum(
        len(x) + 1 for _, x in LONG_LINES
    )


def test_latest_pages_back_to_the_oldest():
    wish, before, found = Filter(frozenset(("note",)), "kraken"), None, []
    while True:
        page = latest(SNAPSHOT, wish, limit=20, before=before, epoch=EPOCH, clock=lambda: 0.0)
        found += [json.loads(bytes(raw))["offset"] for raw in page["items"]]
        assert page["as_of"] == f"{EPOCH}:{SNAPSHOT.newest}"
        if (before := page["next"]) is None:
            break
    assert found == brute({"query": "", "type": "note", "source": "kraken"})


@pytest.mark.parametrize(
    "before", ["other:3", "k3v9x", "k3v9x:", "k3v9x:01", "k3v9x:-2", f"{EPOCH}:99999"]
)
def test_a_cursor_must_be_of_this_log(before):
    with pytest.raises(BadCursor):
        run({"query": "", "before": before})


def test_nothing_is_before_the_beginning_or_in_an_empty_index():
    assert run({"query": "", "before": f"{EPOCH}:-1"})["items"] == []
    empty = run({"query": ""}, Index(lambda _: Block.of([])).snapshot())
    assert (empty["items"], empty["next"], empty["as_of"]) == ([], None, f"{EPOCH}:-1")


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({}, "query", "query is missing"),
        ({"query": 1}, "query", "must be text, got 1"),
        ({"query": "", "limit": -1}, "limit", "from 1 to 10000, got -1"),
        ({"query": "", "limit": 10_001}, "limit", "from 1 to 10000, got 10001"),
        ({"query": "", "limit": True}, "limit", "got true"),
        ({"query": "", "context": 21}, "context", "from 0 to 20, got 21"),
        ({"query": "", "deadline_ms": 0}, "deadline_ms", "from 1 to 60000, got 0"),
        ({"query": "", "types": []}, "types", "at least one"),
        ({"query": "", "types": [1]}, "types", "got [1]"),
        ({"query": "", "since": "x"}, "since", 'unix seconds, got "x"'),
        ({"query": "", "until": float("inf")}, "until", "finite"),
        ({"query": "", "regex": 1}, "regex", "true or false, got 1"),
        ({"query": "", "limitt": 1}, "limitt", "known are query, regex"),
        ([], "", "must be a JSON object"),
    ],
)
def test_wrong_options_are_named(body, field, says):
    with pytest.raises(InvalidRequest, match=re.escape(says)) as refused:
        parse_search(body)
    assert [error["field"] for error in refused.value.errors] == [field] * bool(field)


def test_a_bad_pattern_is_told_when_searching():
    with pytest.raises(BadPattern):
        run({"query": "(", "regex": True})


def test_options_of_latest_come_as_text():
    request = parse_latest({"type": "note", "source": "", "limit": "7"})
    assert (request.limit, request.filter()) == (7, Filter(frozenset(("note",))))
    for args in ({"limit": "0"}, {"limit": "x"}, {"query": "x"}):
        with pytest.raises(InvalidRequest):
            parse_latest(args)


def test_equal_selections_are_one_key():
    body = {"query": "a.", "regex": True, "types": ["note"], "symbol": "BTC/USD"}
    assert {parse_search(body).selection(): 1}[parse_search(body).selection()] == 1
    assert Selection() == Selection(Filter())
