"""Every transport behind a real nginx with its default buffering, which is killed meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from context.client import Client
from tests.nginx import NGINX, Nginx
from tests.node_process import Api, NodeProcess, wait_for
from tests.streaming import IoClient, Producers, SseReader

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

AT_ONCE_S = 2.0  # nginx would hold an answer back until 4 or 8 KiB are full, or for ever


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("behind")) as running:
        running.client.ingest({"type": "first", "data": {}})
        yield running


@pytest.fixture(scope="module")
def nginx(node: NodeProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("nginx"), node.port) as running:
        yield running


def note(source: str, n: int) -> dict[str, Any]:
    return {"type": "note", "source": source, "data": {"n": n}}


def test_each_event_comes_at_once(node: NodeProcess, nginx: Nginx) -> None:
    with SseReader(nginx, source="sse") as reader:
        assert reader.headers["Server"].startswith("nginx")
        assert reader.headers["Cache-Control"] == "no-store"
        for n in range(5):  # each far smaller than a buffer
            started = time.monotonic()
            node.client.ingest(note("sse", n))
            reader.wait_items(n + 1)
            assert time.monotonic() - started < AT_ONCE_S


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_socket_io(node: NodeProcess, nginx: Nginx, transport: str) -> None:
    with IoClient(nginx, transport) as client:
        told = client.call("subscribe", {"source": transport})
        for n in range(5):
            started = time.monotonic()
            node.client.ingest(note(transport, n))
            client.wait_items(told["subscription"], n + 1)
            assert time.monotonic() - started < AT_ONCE_S


def test_the_long_poll(node: NodeProcess, nginx: Nginx) -> None:
    with Api(nginx.url) as api:
        after = api.get("/api/context/poll", params={"wait_s": 0}).json()["next"]
        pages: list[Any] = []
        wish = {"after": after, "source": "poll", "wait_s": 20}

        def wait() -> None:
            with Api(nginx.url) as own:
                pages.append(own.get("/api/context/poll", params=wish).json())

        waiting = threading.Thread(target=wait)
        waiting.start()
        node.client.ingest(note("poll", 1))
        waiting.join(10)
        assert [item["data"]["n"] for item in pages[0]["items"]] == [1]


@pytest.mark.parametrize("how", ["stream", "follow"])
def test_killing_nginx_makes_no_gap_and_no_repeat(
    node: NodeProcess, nginx: Nginx, how: str
) -> None:
    retries: list[object] = []
    wish: dict[str, Any] = {"source": how, "on_retry": lambda *why: retries.append(why)}
    wish |= {"wait_s": 2} if how == "follow" else {}
    with Client(nginx.url) as client, Producers(node, threads=2, **note(how, 1)) as producers:
        wait_for(producers.offsets, "the first item")
        begin = producers.offsets()[0]
        epoch = node.client.newest().split(":")[0]
        events, seen = getattr(client, how)(f"{epoch}:{begin - 1}", **wish), [-1]
        for kills in range(4):
            newest = producers.offsets()[-1]
            while seen[-1] < newest:
                seen.append(next(events).data["offset"])
            assert how == "follow" or len(retries) >= kills  # between polls nothing is cut
            if kills < 3:
                nginx.kill9()
                last = producers.offsets()[-1]  # none after it can have come through by now
                nginx.start()
                wait_for(lambda last=last: producers.offsets()[-1] > last, "a later item")
        producers.stop()
        wanted = producers.offsets()
        while seen[-1] < wanted[-1]:
            seen.append(next(events).data["offset"])
    assert seen[1:] == wanted
