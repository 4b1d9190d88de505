"""Three real nodes: any of them takes any call; writes reach the leader, readers see their own."""

from __future__ import annotations

import gzip
import json
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import socketio

from context.client import Client
from nodes.proof import HEADER, Passed, Proofs
from tests.cluster import Cluster, cluster
from tests.engines import SECRET
from tests.node_process import NodeProcess, wait_for

TAKE, LATEST = "/api/context/ingest", "/api/context/latest"
LINES = "application/x-ndjson"
TOKEN, SITE = "correct-horse-battery", "https://app.example.org"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ACCESS = {"CONTEXT_API_TOKEN": TOKEN, "CONTEXT_CORS_ORIGINS": SITE}


def item(n: int) -> dict[str, object]:
    return {"type": "trading_data", "data": {"symbol": "BTC/USD", "price": 1.0, "n": n}}


def offset(cursor: str) -> int:
    return int(cursor.rpartition(":")[2])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster"), env=ACCESS) as made:
        for node in made.nodes:
            node.client.headers.update(BEARER)
        made.leader()
        yield made


def roles(three: Cluster) -> tuple[NodeProcess, NodeProcess, NodeProcess]:
    """The leader, then the others."""
    first = three.leader()
    return (three[first], *(three[n] for n in range(3) if n != first))  # type: ignore[return-value]


def test_what_a_follower_takes_every_node_has(three: Cluster) -> None:
    leader, *others = roles(three)
    for n, follower in enumerate(others):
        answer = follower.client.post(TAKE, json=[item(n), item(n)])
        assert answer.status_code == 201, answer.text
        assert answer.headers["Context-Node"] == leader.args[1]
        cursor = answer.json()["cursor"]
        for node in three.nodes:
            read = node.client.get(LATEST, params={"limit": 1, "min_cursor": cursor})
            assert read.json()["items"][0]["data"]["n"] == n
            assert read.headers["Context-Node"] == node.args[1]
            assert offset(read.headers["Context-Applied"]) >= offset(cursor)


def test_a_repeat_through_another_node_stores_nothing(three: Cluster) -> None:
    key = {"Idempotency-Key": "once"}
    first, *others = [
        node.client.post(TAKE, json=item(7), headers=key) for node in reversed(three.nodes)
    ]
    assert first.status_code == 201
    for again in others:
        assert (again.status_code, again.json()) == (200, first.json())
        assert again.headers["Idempotent-Replayed"] == "true"
    refused = three[0].client.post(TAKE, json=item(8), headers=key)
    assert refused.json()["code"] == "idempotency_key_reused"


def test_large_compressed_and_endless_bodies_pass(three: Cluster) -> None:
    _, follower, _ = roles(three)
    line = json.dumps({"type": "note", "data": {"text": "x" * 1000}}).encode() + b"\n"
    large = line * 12_000
    headers = {"Content-Type": LINES}
    plain = follower.client.post(TAKE, data=large, headers=headers)
    assert plain.json()["accepted"] == 12_000
    packed = {**headers, "Content-Encoding": "gzip"}
    zipped = follower.client.post(TAKE, data=gzip.compress(large, 1), headers=packed)
    assert zipped.json()["accepted"] == 12_000
    pieces = follower.client.post(TAKE, data=(line for _ in range(3)), headers=headers)
    assert pieces.json()["accepted"] == 3
    too_large = follower.client.post(TAKE, data=b" " * (17 << 20), headers=headers)
    assert too_large.status_code == 413


def test_refusals_come_back_as_the_leader_made_them(three: Cluster) -> None:
    leader, follower, _ = roles(three)
    there, here = (n.client.post(TAKE, json=[item(1), {"type": "?"}]) for n in (leader, follower))
    assert there.status_code == here.status_code == 422
    assert there.json() == here.json()
    assert here.headers["Content-Type"] == "application/problem+json"
    named = follower.client.post(TAKE, json=item(1), headers={"X-Request-Id": "mine"})
    assert named.headers["X-Request-Id"] == "mine"
    assert follower.client.post("/api/nodes/nobody/lead").status_code == 404
    odd = follower.client.delete("/api/context/ai/models/%C3%A9%20x%3F")
    assert odd.status_code == 404
    assert "é x?" in odd.json()["detail"]


def test_who_may_call_is_decided_by_the_node_that_is_asked(three: Cluster) -> None:
    _, follower, _ = roles(three)
    stranger = requests.post(follower.url + TAKE, json=item(1), timeout=30)
    assert (stranger.status_code, stranger.json()["code"]) == (401, "unauthorized")
    page = follower.client.post(TAKE, json=item(1), headers={"Origin": SITE})
    assert page.status_code == 201
    assert page.headers["Access-Control-Allow-Origin"] == SITE
    other = follower.client.post(TAKE, json=item(1), headers={"Origin": "https://evil.example"})
    assert other.status_code == 403


def test_other_writes_reach_the_leader_and_come_back(three: Cluster) -> None:
    _, follower, other = roles(three)
    made = follower.client.post(
        "/api/context/types", json={"name": "weather", "schema": {"required": ["wind"]}}
    )
    assert made.status_code == 201, made.text
    bad = other.client.post(TAKE, json={"type": "weather", "data": {"rain": 1}})
    assert bad.status_code == 422
    asked = follower.client.post("/api/context/ai/request", json={"limit": 5}).json()
    again = other.client.get(
        f"/api/context/ai/request/{asked['context_id']}", params={"consistency": "leader"}
    )
    assert again.json()["context_id"] == asked["context_id"]


def test_models_are_shown_as_the_leader_knows_them(three: Cluster) -> None:
    leader, follower, _ = roles(three)
    follower.client.post("/api/context/ai/decide", json={"symbols": ["BTC/USD"]})
    shown = follower.client.get("/api/context/ai/models")
    assert shown.headers["Context-Node"] == leader.args[1]
    assert all(model["counts"] for model in shown.json()["models"])


def test_the_leader_can_be_asked_from_anywhere(three: Cluster) -> None:
    leader, follower, _ = roles(three)
    cursor = leader.client.ingest(item(99))["cursor"]
    found = follower.client.post(
        "/api/context/search?consistency=leader", json={"query": '"n":99', "limit": 1}
    )
    assert found.json()["items"][0]["id"] == cursor
    assert found.headers["Context-Node"] == leader.args[1]
    # A stream stays here: it begins once this node has what the leader has.
    polled = follower.client.get(
        "/api/context/poll",
        params={"consistency": "leader", "wait_s": 0, "after": f"{cursor.partition(':')[0]}:-1"},
    )
    assert offset(polled.json()["as_of"]) >= offset(cursor)
    assert polled.headers["Context-Node"] == follower.args[1]


def test_a_reader_that_wants_too_much_is_told(three: Cluster) -> None:
    _, follower, _ = roles(three)
    newest = follower.client.newest()
    epoch = newest.partition(":")[0]
    ask = follower.client.get
    assert ask(LATEST, params={"min_cursor": "other:1"}).json()["code"] == "bad_cursor"
    assert ask(LATEST, params={"min_cursor": "x"}).json()["code"] == "bad_cursor"
    assert ask(LATEST, params={"consistency": "perfect"}).json()["code"] == "invalid_request"
    behind = ask(LATEST, params={"min_cursor": f"{epoch}:{offset(newest) + 1000}"})
    assert (behind.status_code, behind.json()["code"]) == (503, "behind")
    assert behind.json()["retryable"]
    assert behind.headers["Context-Node"] == follower.args[1]


def proof(body: bytes, *, secret: str = SECRET, late_s: float = 0.0, path: str = TAKE) -> str:
    what = Passed("POST", path, "", {"Content-Type": "application/json"})
    at = time.time() - late_s
    return Proofs(secret).sign(what, body, sender="n9", caller="127.0.0.1", now=at)


def test_only_nodes_of_the_cluster_pass_calls_on(three: Cluster) -> None:
    leader, follower, _ = roles(three)
    body = json.dumps(item(5)).encode()

    def sent(node: NodeProcess, proof: str) -> requests.Response:
        headers = {"Content-Type": "application/json", HEADER: proof}
        return requests.post(node.url + TAKE, data=body, headers=headers, timeout=30)

    assert sent(leader, proof(body)).status_code == 201
    for wrong in (
        proof(body, secret="another secret of 16 or more"),
        proof(b"{}"),
        proof(body, path="/api/control/resume"),
        proof(body)[:-1],
        "",
        "1",
        "\xff" * 10,
    ):
        refused = sent(leader, wrong)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), wrong
    for late_s in (100, -100):  # a node whose clock is wrong; whoever asked it may try elsewhere
        refused = sent(leader, proof(body, late_s=late_s))
        assert (refused.status_code, refused.json()["code"]) == (503, "clocks_differ")
        assert refused.json()["retryable"]
    # What was passed on once goes no further, so that no two nodes send it to each other for ever.
    refused = sent(follower, proof(body))
    assert (refused.status_code, refused.json()["code"]) == (503, "not_leader")
    assert refused.json()["retryable"]


def test_socket_io_of_a_follower_stores_and_tells_of_the_leader(three: Cluster) -> None:
    leader, follower, _ = roles(three)
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    with socketio.SimpleClient() as client:
        ticket = follower.client.post("/api/context/tickets").json()["ticket"]
        client.connect(f"{follower.url}?ticket={ticket}", transports=["websocket"])
        client.client.on("leader", told.put)
        stored = client.call("ingest", item(3))
        assert stored["ok"]
        assert stored["accepted"] == 1
        refused = client.call("ingest", {"type": "?"})
        assert refused["problem"]["code"] == "invalid_item"
        moved = follower.client.post(f"/api/nodes/{follower.args[1]}/lead")
        assert moved.status_code == 200, moved.text
        while (event := told.get(timeout=10))["id"] != follower.args[1]:
            assert event["id"] in (None, leader.args[1])
        assert event["url"] == follower.url
        assert event["term"] == moved.json()["term"]


def test_a_subscriber_that_is_ahead_of_its_next_node_waits(three: Cluster) -> None:
    leader, follower, _ = roles(three)
    epoch, _, newest = leader.client.newest().partition(":")
    after = {"after": f"{epoch}:{int(newest) + 1}", "wait_s": 0}
    timer = threading.Timer(0.3, lambda: leader.client.ingest([item(0), item(1)]))
    timer.start()
    polled = follower.client.get("/api/context/poll", params=after)
    assert polled.status_code == 200, polled.text
    after["after"] = f"{epoch}:{int(newest) + 1000}"
    assert follower.client.get("/api/context/poll", params=after).json()["code"] == "behind"
    timer.join()


class Writer(threading.Thread):
    """Stores numbered items through one node, each with a key, and tries each until it is taken."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(daemon=True)
        self.label, self.url = name, url
        self.taken, self.refused, self.halt = 0, [], threading.Event()

    def run(self) -> None:
        session = requests.Session()
        session.headers.update(BEARER)
        while not self.halt.is_set():
            body = {"type": "note", "source": self.label, "data": {"n": self.taken}}
            key = {"Idempotency-Key": f"{self.label}-{self.taken}"}
            answer = session.post(self.url + TAKE, json=body, headers=key, timeout=30)
            if answer.ok:
                self.taken += 1
                continue
            self.refused.append(answer.json())
            time.sleep(0.02)


def test_moving_the_lead_refuses_nothing(three: Cluster) -> None:
    writers = [Writer(f"mover-{n}", node.url) for n, node in enumerate(three.nodes)]
    for writer in writers:
        writer.start()
    for _ in range(3):
        _, follower, other = roles(three)
        moved = other.client.post(f"/api/nodes/{follower.args[1]}/lead")
        assert moved.status_code == 200, moved.text
    for writer in writers:
        writer.halt.set()
        writer.join()
        assert not writer.refused
    stored_once(three, writers)


def test_a_killed_leader_loses_and_doubles_nothing(three: Cluster) -> None:
    leader, *others = roles(three)
    term = three.told(0)["term"]
    writers = [Writer(f"killer-{n}", node.url) for n, node in enumerate(others)]
    for writer in writers:
        writer.start()
    time.sleep(0.3)  # of writing
    leader.kill9()
    rest = [n for n in range(3) if three[n] is not leader]
    three.leader(among=rest, above=term)
    before = [writer.taken for writer in writers]
    deadline = time.monotonic() + 30
    while any(w.taken <= b for w, b in zip(writers, before, strict=True)):
        assert time.monotonic() < deadline, [writer.refused[-1:] for writer in writers]
        time.sleep(0.05)
    for writer in writers:
        writer.halt.set()
        writer.join()
        assert all(each["status"] == 503 and each["retryable"] for each in writer.refused)
    leader.start()
    stored_once(three, writers)


def stored_once(three: Cluster, writers: list[Writer]) -> None:
    """Every node has each writer's items, in their order."""
    newest = roles(three)[0].client.newest()
    for node in three.nodes:
        for writer in writers:
            page = node.client.get(
                LATEST, params={"source": writer.label, "limit": 10_000, "min_cursor": newest}
            )
            assert page.status_code == 200, page.text
            numbers = [each["data"]["n"] for each in reversed(page.json()["items"])]
            assert numbers == list(range(writer.taken))


def test_the_python_client_goes_on_and_sees_what_it_wrote(three: Cluster) -> None:
    leader, follower, other = roles(three)
    with Client([follower.url, leader.url, other.url], token=TOKEN) as client:
        for n in range(20):
            cursor = client.ingest([item(n)], idempotency_key=f"client-{n}")["cursor"]
            assert client.latest(limit=1)["items"][0]["id"] == cursor
            if n == 10:
                follower.stop()
        assert client.url == leader.url
    follower.start()


def test_a_node_that_is_left_alone_reads_on(three: Cluster) -> None:
    leader, follower, other = roles(three)
    cursor = follower.client.ingest(item(1))["cursor"]
    follower.client.get(LATEST, params={"min_cursor": cursor})
    leader.kill9()
    other.kill9()
    ask = follower.client.get
    wait_for(lambda: three.told(three.nodes.index(follower))["leader"] is None, "no leader")
    assert ask(LATEST, params={"limit": 1}).json()["items"][0]["id"] == cursor
    refused = follower.client.post(TAKE, json=item(2))
    assert (refused.status_code, refused.json()["code"]) == (503, "no_leader")
    assert int(refused.headers["Retry-After"]) > 0
    refused = ask(LATEST, params={"consistency": "leader"})
    assert (refused.status_code, refused.json()["code"]) == (503, "no_leader")
    models = ask("/api/context/ai/models")
    assert (models.status_code, models.headers["Context-Node"]) == (200, follower.args[1])
