"""Server-Sent Events: live, resumed, filtered, and exactly once whatever happens."""

from __future__ import annotations

import random
import threading
import uuid
from typing import Any

import pytest

from tests.node_process import Api, NodeProcess, wait_for
from tests.streaming import Producers, SseReader

Json = dict[str, Any]


def note(source: str, n: int, **more: Any) -> Json:
    return {"type": "note", "source": source, "timestamp": 100 + n, "data": {"n": n}, **more}


def numbers(items: list[Json]) -> list[int]:
    return [item["data"]["n"] for item in items]


def test_live_items_come_as_they_are_stored(node: NodeProcess, api: Api) -> None:
    source = uuid.uuid4().hex
    api.ingest(note(source, 0))
    with SseReader(node, source=source) as reader:
        assert reader.status == 200
        assert reader.headers["Content-Type"].startswith("text/event-stream")
        told = api.ingest([note(source, n) for n in range(1, 4)])
        items = reader.wait_items(3)
        assert numbers(items) == [1, 2, 3]
        assert [event.id for event in reader.events] == [item["id"] for item in items]
        assert reader.events[-1].id == told["cursor"]
        assert items[0] == api.get(f"/api/context/items/{told['first_offset']}").json()


@pytest.mark.parametrize("how", ["after", "header", "both"])
def test_resuming_continues_after_a_cursor(node: NodeProcess, api: Api, how: str) -> None:
    source = uuid.uuid4().hex
    told = api.ingest([note(source, n) for n in range(10)])
    epoch = told["cursor"].split(":")[0]
    cursor = f"{epoch}:{told['first_offset'] + 5}"  # in the middle of a batch
    older = f"{epoch}:{told['first_offset']}"
    headers = {} if how == "after" else {"Last-Event-ID": cursor}
    params = {"header": {}, "after": {"after": cursor}, "both": {"after": older}}[how]
    with SseReader(node, headers, source=source, **params) as reader:
        assert numbers(reader.wait_items(4)) == [6, 7, 8, 9]
        api.ingest(note(source, 10))
        assert numbers(reader.wait_items(5)) == [6, 7, 8, 9, 10]


def test_the_beginning_is_minus_one(node: NodeProcess, api: Api) -> None:
    epoch = api.newest().split(":")[0]
    with SseReader(node, after=f"{epoch}:-1") as reader:
        assert reader.wait_items(1)[0]["offset"] == 0


FILTERS: list[tuple[Json, list[int]]] = [
    ({"type": "note"}, [0, 1, 2, 3]),
    ({"symbol": "A/B"}, [4, 6]),
    ({"type": "trading_data", "symbol": "C"}, [5]),
    ({"since": 102, "until": 104}, [2, 3, 4]),
    ({"query": '"n":3'}, [3]),
    ({"query": "N.:[35],", "regex": "true", "ignore_case": "true"}, [5]),
    ({"query": '"N":3', "ignore_case": "true"}, [3]),
    ({"query": '"N":3'}, []),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS)
def test_filters_and_standing_grep(
    node: NodeProcess, api: Api, filters: Json, expected: list[int]
) -> None:
    source = uuid.uuid4().hex
    items = [note(source, n) for n in range(4)]
    for n, symbol in ((4, "A/B"), (5, "C"), (6, "A/B")):
        data = {"n": n, "symbol": symbol, "price": 1}
        items.append(note(source, n) | {"type": "trading_data", "data": data})
    end = note(source, 103) | {"type": "end"}
    cursor = api.newest()
    with (
        SseReader(node, source=source, **filters) as live,
        SseReader(node, source=source, after=cursor, **filters) as resumed,
        SseReader(node, source=source, type="end") as all_passed,
    ):
        for item in [*items, end]:
            api.ingest(item)
        all_passed.wait_items(1)
        for reader in (live, resumed):
            found = reader.wait_items(len(expected))
            assert [n for n in numbers(found) if n != 103] == expected


def test_a_cursor_of_another_epoch_tells_the_gap(node: NodeProcess, api: Api) -> None:
    newest = api.newest()
    epoch = newest.split(":")[0]
    with SseReader(node, after="0ld:41") as reader:
        reader.wait(lambda events: len(events) >= 2)
        gap, first = reader.events[:2]
        assert gap.kind == "gap"
        assert gap.data == {"missed_from": "0ld:42", "missed_to": f"{epoch}:-1"}
        assert first.data["offset"] == 0


@pytest.mark.parametrize("cursor", ["x", "x:", ":1", "x:-2", "x:1.0", "X:1", "x:01"])
def test_malformed_cursors_are_refused(node: NodeProcess, cursor: str) -> None:
    for params, headers in (({"after": cursor}, {}), ({}, {"Last-Event-ID": cursor})):
        with SseReader(node, headers, **params) as reader:
            assert (reader.status, reader.problem["code"]) == (400, "bad_cursor")


def test_a_cursor_beyond_the_newest_item_is_refused(node: NodeProcess, api: Api) -> None:
    epoch = api.newest().split(":")[0]
    with SseReader(node, after=f"{epoch}:{10**12}") as reader:
        assert (reader.status, reader.problem["code"]) == (400, "bad_cursor")


def test_a_bad_pattern_is_refused(node: NodeProcess) -> None:
    with SseReader(node, query="(?=x)", regex="true") as reader:
        assert (reader.status, reader.problem["code"]) == (400, "bad_pattern")


@pytest.mark.slow
def test_a_stream_without_items_has_a_heartbeat(node: NodeProcess) -> None:
    """Also while items come that it did not ask for."""
    others = Producers(node, threads=1, batch=1, type="other")
    with SseReader(node, source="quiet") as quiet, others:
        quiet.wait(lambda events: any(event.kind == ":" for event in events), 16)


def test_subscribers_are_counted(own_node: NodeProcess) -> None:
    def subscribers() -> int:
        count: int = own_node.client.get("/api/context/stats").json()["subscribers"]
        return count

    def nobody_left() -> bool:
        own_node.client.ingest({"type": "wakes_the_streams", "data": {}})
        return subscribers() == 0

    assert subscribers() == 0
    with SseReader(own_node), SseReader(own_node):
        wait_for(lambda: subscribers() == 2, "two subscribers")
    wait_for(nobody_left, "no subscriber to be left")


def test_head_asks_for_no_stream(api: Api) -> None:
    assert api.head("/api/context/stream", timeout=5).status_code == 200


def test_every_item_once_in_order_over_random_reconnects(node: NodeProcess, api: Api) -> None:
    source, chance = uuid.uuid4().hex, random.Random(7)
    start = api.newest()
    lanes: list[list[int]] = [[] for _ in range(3)]
    done = threading.Event()

    def some(reader: SseReader, want: int) -> list[Json]:
        wait_for(lambda: len(reader.items()) >= want or done.is_set(), f"{want} items")
        return reader.items()

    def follow(lane: list[int], seed: int) -> None:
        mine, cursor = random.Random(seed), start
        while not (done.is_set() and lane and lane[-1] == last[0]):
            resume = {"after": cursor} if mine.random() < 0.5 else {}
            headers = {} if resume else {"Last-Event-ID": cursor}
            with SseReader(node, headers, source=source, **resume) as reader:
                items = some(reader, mine.randint(1, 60))
            lane += [item["offset"] for item in items]
            cursor = items[-1]["id"] if items else cursor

    last = [-1]
    followers = [
        threading.Thread(target=follow, args=(lane, chance.randrange(10**6))) for lane in lanes
    ]
    with Producers(node, source=source) as producers:
        for follower in followers:
            follower.start()
        wait_for(lambda: len(producers.acknowledged) >= 300, "300 batches")
        producers.stop()
        last[0] = producers.offsets()[-1]
        done.set()
        for follower in followers:
            follower.join(30)
    for lane in lanes:
        assert lane == producers.offsets()


def test_history_joins_live_without_holes(own_node: NodeProcess) -> None:
    """After a restart the newest items are not in memory: reading begins in the log."""
    node = own_node
    for _ in range(20):
        node.client.ingest([{"type": "flow", "data": {"text": "x" * 100}}] * 1000)
    node.stop()
    node.start()
    epoch = node.client.newest().split(":")[0]
    with Producers(node, threads=2) as producers, SseReader(node, after=f"{epoch}:-1") as reader:
        reader.wait_items(25_000)
        producers.stop()
        newest = producers.offsets()[-1]
        reader.wait(lambda events: events[-1].data["offset"] >= newest)
        assert [item["offset"] for item in reader.items()] == list(range(newest + 1))


def test_a_subscriber_that_stops_reading_holds_up_nobody(own_node: NodeProcess) -> None:
    """80 MB pass a reader that does not read; then it gets them all, once and in order."""
    node, text = own_node, "x" * 200_000
    with (
        SseReader(node, type="flow", paused=True) as slow,
        SseReader(node, type="flow") as quick,
    ):
        for start in range(0, 400, 40):
            data = [{"n": n, "text": text} for n in range(start, start + 40)]
            node.client.ingest([{"type": "flow", "data": each} for each in data])
        assert numbers(quick.wait_items(400)) == list(range(400))
        slow.reading.set()
        assert numbers(slow.wait_items(400)) == list(range(400))
