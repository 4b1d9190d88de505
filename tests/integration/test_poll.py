"""The long poll: at once, when it comes, or empty; every item once, from any depth."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from context.client import Client
from context.errors import RateLimited
from server.poll import Polls
from tests.node_process import Api, NodeProcess
from tests.streaming import Producers

Json = dict[str, Any]


def note(source: str, n: int) -> Json:
    return {"type": "note", "source": source, "data": {"n": n}}


def poll(api: Api, **params: Any) -> Json:
    answer = api.get("/api/context/poll", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    page: Json = answer.json()
    assert set(page) == {"items", "next", "gap", "as_of"}
    return page


def offset(cursor: str) -> int:
    return int(cursor.split(":")[1])


def test_from_now_then_page_by_page(api: Api) -> None:
    source = uuid.uuid4().hex
    api.ingest(note(source, 0))
    now = poll(api, wait_s=0)
    assert (now["items"], now["gap"], now["next"]) == ([], None, api.newest())
    api.ingest([note(source, n) for n in range(1, 8)])
    api.ingest([note("other", n) for n in range(5)])
    seen, after = [], now["next"]
    for size in (3, 3, 1):
        page = poll(api, after=after, source=source, limit=3, wait_s=20)
        assert len(page["items"]) == size
        seen, after = seen + page["items"], page["next"]
    assert [item["data"]["n"] for item in seen] == list(range(1, 8))
    assert seen[0] == api.get(f"/api/context/items/{seen[0]['offset']}").json()
    page = poll(api, after=after, source=source, wait_s=0)
    assert (page["items"], page["next"]) == ([], api.newest())  # past what does not match


def test_waits_for_what_comes(node: NodeProcess, api: Api) -> None:
    source = uuid.uuid4().hex
    after, pages = poll(api, wait_s=0)["next"], []
    wish = {"after": after, "types": "note,memo", "query": f'{source}.*"n":[57]', "regex": "true"}

    def wait() -> None:
        with Api(node.url) as own:
            pages.append(poll(own, **wish, wait_s=20))

    waiting = threading.Thread(target=wait)
    waiting.start()
    for n in range(6):
        api.ingest(note(source, n))
    waiting.join(20)
    assert [item["data"]["n"] for item in pages[0]["items"]] == [5]
    inverted = {"after": after, "source": source, "query": '"n":5', "invert": "true"}
    assert [item["data"]["n"] for item in poll(api, **inverted)["items"]] == [0, 1, 2, 3, 4]
    started = time.monotonic()
    page = poll(api, after=pages[0]["next"], source="nobody", wait_s=1.2)
    assert page["items"] == []
    assert 1.1 < time.monotonic() - started < 10


def test_history_that_is_gone_is_told(api: Api) -> None:
    page = poll(api, after="lost:7", wait_s=20)
    epoch = api.newest().split(":")[0]
    assert page["gap"] == {"missed_from": "lost:8", "missed_to": f"{epoch}:-1"}
    assert (page["items"], page["next"]) == ([], f"{epoch}:-1")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"after": "x"}, "bad_cursor"),
        ({"wait_s": "61"}, "invalid_request"),
        ({"limit": "0"}, "invalid_request"),
        ({"frobnicate": "1"}, "invalid_request"),
        ({"query": "(", "regex": "true"}, "bad_pattern"),
    ],
)
def test_refusals(api: Api, params: Json, code: str) -> None:
    answer = api.get("/api/context/poll", params=params)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_a_cursor_beyond_the_end_is_refused(api: Api) -> None:
    epoch = api.newest().split(":")[0]
    answer = api.get("/api/context/poll", params={"after": f"{epoch}:99999999"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")


def test_so_many_wait_and_no_more() -> None:
    polls = Polls(CollectorRegistry(), most=2)
    with polls.one(), polls.one(), pytest.raises(RateLimited), polls.one():
        pass
    with polls.one():
        pass


def test_following_by_polls_across_kills_gives_each_item_once(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data") as node:
        first = node.client.ingest([note("a", n) for n in range(50)])
        with Client(node.url) as client:
            events = client.follow(first["cursor"].split(":")[0] + ":-1", source="a", wait_s=2)
            seen = [event.data["offset"] for event in itertools.islice(events, 50)]
            for _ in range(2):
                with Producers(node, threads=1, **note("a", 1)) as producers:
                    seen += [next(events).data["offset"] for _ in range(100)]
                node.kill9()
                node.start()
                stored = 50 + len(producers.offsets())
                seen += [next(events).data["offset"] for _ in range(node_count(node) - len(seen))]
                assert len(seen) >= stored
        assert seen == list(range(len(seen)))


def node_count(node: NodeProcess) -> int:
    return offset(node.client.newest()) + 1


def test_a_waiting_poll_is_answered_when_the_node_stops(tmp_path: Path) -> None:
    node, pages = NodeProcess(tmp_path / "data"), []
    node.start()
    now = poll(node.client, wait_s=0)

    def wait() -> None:
        with Api(node.url) as own:
            pages.append(poll(own, after=now["next"], wait_s=60))

    waiting = threading.Thread(target=wait)
    waiting.start()
    while "context_polls 1.0" not in node.client.get("/metrics").text:
        time.sleep(0.01)
    node.stop()
    waiting.join(10)
    assert pages[0]["next"] == now["next"]
