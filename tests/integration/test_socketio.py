"""Socket.IO with a stock client: acknowledgements, events, and every item once in order."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.node_process import Api, NodeProcess, wait_for
from tests.streaming import IoClient, Producers, SseReader

Json = dict[str, Any]


def note(source: str, n: int) -> Json:
    return {"type": "note", "source": source, "timestamp": 100 + n, "data": {"n": n}}


def numbers(items: list[Json]) -> list[int]:
    return [item["data"]["n"] for item in items]


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_subscribe_and_unsubscribe(node: NodeProcess, api: Api, transport: str) -> None:
    source = uuid.uuid4().hex
    with IoClient(node, transport) as client:
        told = client.call("subscribe", {"source": source})
        assert set(told) == {"ok", "subscription", "as_of"}
        assert told["ok"] is True
        assert told["as_of"] == api.newest()
        stored = api.ingest([note(source, n) for n in range(3)])
        items = client.wait_items(told["subscription"], 3)
        assert numbers(items) == [0, 1, 2]
        assert items[0] == api.get(f"/api/context/items/{stored['first_offset']}").json()
        event = client.named("context")[-1]
        assert set(event) == {"subscription", "cursor", "items"}
        assert event["cursor"] == stored["cursor"]
        gone = client.call("unsubscribe", {"subscription": told["subscription"]})
        assert gone["ok"] is True
        other = client.call("subscribe", {"source": source})["subscription"]
        api.ingest(note(source, 3))
        client.wait_items(other, 1)
        assert numbers(client.items(told["subscription"])) == [0, 1, 2]
        again = client.call("unsubscribe", {"subscription": told["subscription"]})
        assert (again["ok"], again["problem"]["code"]) == (False, "invalid_request")


def test_resume_filters_and_standing_grep(node: NodeProcess, api: Api) -> None:
    source = uuid.uuid4().hex
    told = api.ingest([note(source, n) for n in range(10)])
    after = f"{told['cursor'].split(':')[0]}:{told['first_offset'] + 5}"
    asked = {"source": source, "after": after}
    with IoClient(node) as client:
        wishes: list[tuple[Json, list[int]]] = [
            (asked, [6, 7, 8, 9]),
            ({**asked, "query": '"n":8'}, [8]),
            ({**asked, "query": "N.:[79]", "regex": True, "ignore_case": True}, [7, 9]),
            ({**asked, "since": 107, "until": 108}, [7, 8]),
            ({**asked, "type": "note"}, [6, 7, 8, 9]),
            ({"source": source, "after": None}, []),
        ]
        names = [client.call("subscribe", wish)["subscription"] for wish, _ in wishes]
        api.ingest(note(source, 107))
        for name, (wish, expected) in zip(names, wishes, strict=True):
            live = [107] if not {"query", "since"} & wish.keys() else []
            got = client.wait_items(name, len(expected + live))
            assert numbers(got) == expected + live


def test_a_cursor_of_another_epoch_tells_the_gap(node: NodeProcess, api: Api) -> None:
    with IoClient(node) as client:
        name = client.call("subscribe", {"after": "0ld:41"})["subscription"]
        client.wait_items(name, 1)
        epoch = api.newest().split(":")[0]
        gap = {"subscription": name, "missed_from": "0ld:42", "missed_to": f"{epoch}:-1"}
        kinds = [(kind, data) for kind, data in client.events if kind in ("gap", "context")]
        assert kinds[0] == ("gap", gap)
        assert kinds[1][1]["items"][0]["offset"] == 0


REFUSED: list[tuple[str, Any, int, str]] = [
    ("subscribe", {"after": "nonsense"}, 400, "bad_cursor"),
    ("subscribe", {"query": "(", "regex": True}, 400, "bad_pattern"),
    ("subscribe", {"limit": 5}, 400, "invalid_request"),
    ("subscribe", {"type": 5}, 400, "invalid_request"),
    ("subscribe", {"query": ["a"]}, 400, "invalid_request"),
    ("subscribe", "text", 400, "invalid_request"),
    ("unsubscribe", None, 400, "invalid_request"),
    ("ingest", None, 400, "invalid_json"),
    ("ingest", {"type": "trading_data", "data": {}}, 422, "invalid_item"),
    ("ingest", [], 422, "invalid_item"),
    ("search", {}, 400, "invalid_request"),
    ("search", {"query": "a", "limit": -1}, 400, "invalid_request"),
    ("search", {"query": "(a)\\1", "regex": True}, 400, "bad_pattern"),
    ("decide", {"symbols": []}, 400, "invalid_request"),
    ("decide", {"symbols": [uuid.uuid4().hex]}, 503, "no_models"),
]


def test_every_refusal_is_a_problem_in_the_acknowledgement(node: NodeProcess) -> None:
    with IoClient(node) as client:
        for event, data, status, code in REFUSED:
            answer = client.call(event, data)
            assert set(answer) == {"ok", "problem"}, (event, data)
            assert answer["ok"] is False
            problem = answer["problem"]
            assert (problem["status"], problem["code"]) == (status, code), (event, data, problem)


def test_ingest_and_search(node: NodeProcess, api: Api) -> None:
    source = uuid.uuid4().hex
    with IoClient(node) as client:
        one = client.call("ingest", note(source, 0))
        assert set(one) == {"ok", "accepted", "first_offset", "last_offset", "cursor", "term"}
        many = client.call("ingest", [note(source, 1), note(source, 2)])
        assert (many["accepted"], many["first_offset"]) == (2, one["last_offset"] + 1)
        found = client.call("search", {"query": source, "limit": 2})
        assert found.pop("ok") is True
        assert numbers(found["items"]) == [2, 1]
        asked = {"query": source, "limit": 2}
        over_http = api.post("/api/context/search", json=asked).json()
        assert found["items"] == over_http["items"]
        assert found["next"] == over_http["next"]


def test_values_are_kept_as_sent(node: NodeProcess, api: Api) -> None:
    data = {"big": 10**30, "exact": 0.1, "text": '\u0000\n"\\\u2028é😀', "": {"z": 1, "a": 2}}
    with IoClient(node) as client:
        told = client.call("ingest", {"type": "kept", "data": data})
        assert told["ok"] is True, told
    kept = api.get(f"/api/context/items/{told['last_offset']}").json()["data"]
    assert kept == data
    assert list(kept) == list(data)


def test_the_leader_is_told_on_connecting(node: NodeProcess, api: Api) -> None:
    with IoClient(node) as client:
        client.wait(lambda: client.named("leader"))
        term = api.get("/api/nodes").json()["term"]
        assert client.named("leader") == [{"id": "alpha", "url": node.url, "term": term}]


def test_decisions_and_the_emergency_stop_reach_everybody(node: NodeProcess, api: Api) -> None:
    symbol = f"S{uuid.uuid4().hex[:8]}"
    prices = [100 + (i * 7 % 13) / 10 + i / 50 for i in range(400)]
    api.ingest(
        [
            {
                "type": "trading_data",
                "timestamp": 1000.0 + i,
                "data": {"symbol": symbol, "price": price, "volume": 1 + i % 3},
            }
            for i, price in enumerate(prices)
        ]
    )
    with IoClient(node) as asking, IoClient(node) as watching:
        answer = asking.call("decide", {"symbols": [symbol]})
        assert answer.pop("ok") is True, answer
        watching.wait(lambda: watching.named("decision"))
        assert watching.named("decision")[0] == answer
        try:
            state = api.post("/api/control/emergency-stop", json={"reason": "drill"}).json()
            watching.wait(lambda: watching.named("emergency_stop"))
            told = watching.named("emergency_stop")[0]
            assert {name: told[name] for name in state} == state
            assert (told["emergency_stop"], told["reason"]) == (True, "drill")
        finally:
            api.post("/api/control/resume")
        watching.wait(lambda: len(watching.named("emergency_stop")) == 2)
        assert watching.named("emergency_stop")[1]["emergency_stop"] is False


def test_every_item_once_in_order_over_random_reconnects(node: NodeProcess, api: Api) -> None:
    source, start = uuid.uuid4().hex, api.newest()
    lanes: list[list[int]] = [[] for _ in range(2)]
    done, last = threading.Event(), [-1]

    def follow(lane: list[int], chance: random.Random) -> None:
        cursor = start
        while not (done.is_set() and lane and lane[-1] == last[0]):
            with IoClient(node, chance.choice(["websocket", "polling"])) as client:
                name = client.call("subscribe", {"source": source, "after": cursor})["subscription"]
                items = some(partial(client.items, name), chance.randint(1, 100))
            lane += [item["offset"] for item in items]
            cursor = items[-1]["id"] if items else cursor

    def some(items: Callable[[], list[Json]], want: int) -> list[Json]:
        wait_for(lambda: len(items()) >= want or done.is_set(), f"{want} items")
        return items()

    followers = [
        threading.Thread(target=follow, args=(lane, random.Random(seed)))
        for seed, lane in enumerate(lanes)
    ]
    with Producers(node, threads=2, source=source) as producers:
        for follower in followers:
            follower.start()
        wait_for(lambda: len(producers.acknowledged) >= 200, "200 batches")
        producers.stop()
        last[0] = producers.offsets()[-1]
        done.set()
        for follower in followers:
            follower.join(30)
    for lane in lanes:
        assert lane == producers.offsets()


def test_many_subscriptions_see_the_same_as_an_event_stream(node: NodeProcess) -> None:
    source = uuid.uuid4().hex
    with IoClient(node) as client, SseReader(node, source=source) as reader:
        names = [client.call("subscribe", {"source": source})["subscription"] for _ in range(20)]
        with Producers(node, threads=3, source=source) as producers:
            wait_for(lambda: len(producers.acknowledged) >= 60, "60 batches")
        offsets = producers.offsets()
        assert [item["offset"] for item in reader.wait_items(len(offsets))] == offsets
        for name in names:
            got = client.wait_items(name, len(offsets))
            assert [item["offset"] for item in got] == offsets


def test_a_connection_may_hold_100_subscriptions(node: NodeProcess) -> None:
    with IoClient(node) as client:
        for _ in range(100):
            assert client.call("subscribe", {"source": "nobody"})["ok"] is True
        refused = client.call("subscribe", {"source": "nobody"})
        assert refused["problem"]["code"] == "invalid_request"
