"""Webhooks to a real receiver that is slow, dead, wrong or gone: each in order, at least once."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node_process import Api, NodeProcess, free_port, wait_for
from tests.receiver import SECRET, Receiver
from tests.streaming import Producers

Json = dict[str, Any]
PATH = "/api/context/webhooks"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    env = {"CONTEXT_WEBHOOK_ATTEMPTS": "3", "CONTEXT_WEBHOOK_TIMEOUT_S": "0.6"}
    with NodeProcess(tmp_path_factory.mktemp("hooks"), env=env) as running:
        running.client.ingest({"type": "first", "data": {}})
        yield running


@pytest.fixture
def api(node: NodeProcess) -> Api:
    return node.client


def note(source: str, n: int) -> Json:
    return {"type": "note", "source": source, "data": {"n": n}}


def make(api: Api, url: str, **options: Any) -> Json:
    answer = api.post(PATH, json={"url": url, "secret": SECRET, **options})
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def look(api: Api, hook: Json) -> Json:
    found: Json = api.get(f"{PATH}/{hook['id']}").json()
    return found


def numbers(items: list[Json]) -> list[int]:
    return [item["data"]["n"] for item in items]


def test_history_then_live_with_a_standing_grep(api: Api) -> None:
    source, before = uuid.uuid4().hex, api.newest()
    api.ingest([note(source, n) for n in range(1200)])
    with Receiver() as receiver:
        wish = {"source": source, "query": '"n":[0-9]*[02468]}', "regex": True}
        hook = make(api, receiver.url + "?key=hidden", after=before, **wish)
        assert "secret" not in hook
        assert "hidden" not in str(hook)
        assert hook["filters"] == wish
        assert numbers(receiver.wait_items(600)) == list(range(0, 1200, 2))
        told = api.ingest([note(source, n) for n in range(1200, 1210)])
        items = receiver.wait_items(605)
        assert numbers(items) == list(range(0, 1210, 2))
        assert items[-1] == api.get(f"/api/context/items/{told['last_offset'] - 1}").json()
        wait_for(lambda: look(api, hook)["delivered"] == 605, "the last acknowledgement")
        shown = look(api, hook)
        assert (shown["state"], shown["failures"], shown["behind"]) == ("active", 0, 0)
        assert receiver.paths[0] == "/hook?key=hidden"
        assert all(set(body) == {"webhook", "delivery_id", "items", "gap", "cursor"}
                   for body in receiver.attempts)  # fmt: skip
        assert api.delete(f"{PATH}/{hook['id']}").json() == {"id": hook["id"], "deleted": True}
        assert api.get(f"{PATH}/{hook['id']}").status_code == 404
        api.ingest(note(source, 2))
    assert len(receiver.items()) == 605


FAULTS: list[Any] = ["silent", "hang", "drop", 500, (302, {"Location": "http://127.0.0.1:9/"})]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_tried_again(api: Api, fault: Any) -> None:
    source = uuid.uuid4().hex
    with Receiver(fault, "slow") as receiver:
        hook = make(api, receiver.url, source=source)
        api.ingest([note(source, n) for n in range(3)])
        receiver.wait_items(3)
        api.ingest(note(source, 3))
        assert numbers(receiver.wait_items(4)) == [0, 1, 2, 3]
        assert receiver.attempts[0] == receiver.attempts[1]
        shown = look(api, hook)
        assert shown["failures"] == 1
        assert shown["last_error"]
        assert shown["dead_letters"] == 0
        api.delete(f"{PATH}/{hook['id']}")


def test_retry_after_is_heeded(api: Api) -> None:
    source = uuid.uuid4().hex
    with Receiver((429, {"Retry-After": "3"})) as receiver:
        hook = make(api, receiver.url, source=source)
        started = time.time()
        api.ingest(note(source, 0))
        receiver.wait(lambda: len(receiver.attempts) == 1)
        wait_for(lambda: look(api, hook)["next_attempt_at"], "the pause")
        assert look(api, hook)["next_attempt_at"] >= started + 3
        api.post(f"{PATH}/{hook['id']}/resume")  # which does not wait any longer
        receiver.wait_items(1)
        assert time.time() < started + 3
        api.delete(f"{PATH}/{hook['id']}")


def test_dead_letters_are_kept_and_sent_again(api: Api) -> None:
    source = uuid.uuid4().hex
    with Receiver(500, 503, 500) as receiver:
        hook = make(api, receiver.url, source=source)
        api.ingest(note(source, 0))
        receiver.wait(lambda: len(receiver.attempts) == 3)
        api.ingest(note(source, 1))
        receiver.wait_items(1)
        assert numbers(receiver.items()) == [1]  # it went on with the next
        dead = api.get(f"{PATH}/{hook['id']}/dead-letters").json()["dead_letters"]
        assert [(d["items"], d["attempts"], d["error"]) for d in dead] == [(1, 3, "answered 500")]
        assert look(api, hook)["dead_letters"] == 1
        receiver.plan = [500]
        retry = f"{PATH}/{hook['id']}/dead-letters/retry"
        assert api.post(retry).status_code == 202
        receiver.wait(lambda: len(receiver.attempts) == 5)
        wait_for(lambda: look(api, hook)["failures"] == 4, "the failure")
        assert api.post(retry).json() == {"id": hook["id"], "retrying": 1}
        receiver.wait_items(2)
        assert receiver.attempts[-1] == receiver.attempts[0]
        wait_for(lambda: look(api, hook)["dead_letters"] == 0, "no dead letter")
        api.ingest(note(source, 2))
        assert numbers(receiver.wait_items(3)) == [1, 0, 2]
        api.delete(f"{PATH}/{hook['id']}")


def test_410_stops_it_until_it_is_resumed(api: Api) -> None:
    source = uuid.uuid4().hex
    with Receiver(410) as receiver:
        hook = make(api, receiver.url, source=source)
        api.ingest(note(source, 0))
        wait_for(lambda: look(api, hook)["state"] == "stopped", "the stop")
        assert "410" in look(api, hook)["reason"]
        api.ingest(note(source, 1))
        assert len(receiver.attempts) == 1
        assert api.post(f"{PATH}/{hook['id']}/resume").json()["state"] == "active"
        assert numbers(receiver.wait_items(2)) == [0, 1]
        api.delete(f"{PATH}/{hook['id']}")


def test_a_gap_is_delivered(api: Api) -> None:
    with Receiver() as receiver:
        hook = make(api, receiver.url, after="lost:7", type="first")
        receiver.wait_items(1)
        epoch = api.newest().split(":")[0]
        assert receiver.accepted[0]["gap"] == {"missed_from": "lost:8", "missed_to": f"{epoch}:-1"}
        assert receiver.accepted[0]["items"] == []
        assert receiver.accepted[1]["items"][0]["offset"] == 0
        api.delete(f"{PATH}/{hook['id']}")


def test_a_dead_receiver_holds_up_nobody(api: Api) -> None:
    source = uuid.uuid4().hex
    dead = [make(api, f"http://127.0.0.1:{free_port()}/", source=source) for _ in range(5)]
    with Receiver(*["silent"] * 3) as silent, Receiver() as well:
        hooks = [make(api, each.url, source=source) for each in (silent, well)]
        api.ingest(note(source, 0))
        started = time.monotonic()
        for n in range(1, 6):
            api.ingest(note(source, n))
        well.wait_items(6)
        assert time.monotonic() - started < 5
        for hook in (*dead, *hooks):
            api.delete(f"{PATH}/{hook['id']}")
    assert api.get(PATH).json() == {"webhooks": []}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "ftp://x/"},
        {"url": "http://me:pw@x/"},
        {"url": "http:///nowhere"},
        {"url": "http://x/", "secret": "short"},
        {"url": "http://x/", "secret": "whsec_c2hvcnQ="},
        {"url": "http://x/", "regex": 1},
        {"url": "http://x/", "query": "(", "regex": True},
        {"url": "http://x/", "after": "nonsense"},
        {"url": "http://x/", "frobnicate": 1},
    ],
)
def test_refusals(api: Api, body: Json) -> None:
    answer = api.post(PATH, json=body)
    assert answer.status_code == 400, answer.text
    assert api.get(PATH).json() == {"webhooks": []}
    assert api.get(f"{PATH}/nobody").status_code == 404


def test_a_secret_is_made_and_told_once(api: Api) -> None:
    hook = api.post(PATH, json={"url": "http://127.0.0.1:9/", "after": api.newest()}).json()
    with Receiver(secret=hook["secret"]):
        assert hook["secret"].startswith("whsec_")
    assert hook["secret"] not in api.get(PATH).text
    api.delete(f"{PATH}/{hook['id']}")


def test_kills_amid_deliveries_lose_nothing(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data") as node, Receiver() as receiver:
        first = node.client.ingest(note("a", 0))
        start = first["cursor"].split(":")[0] + ":-1"
        hook = make(node.client, receiver.url, source="a", after=start)
        for _ in range(3):
            seen = len(receiver.accepted)
            with Producers(node, threads=2, **note("a", 1)) as producers:
                receiver.wait(lambda: len(receiver.accepted) >= seen + 5)  # noqa: B023
                receiver.plan = ["silent"]  # one that is sent, and never taken
                receiver.wait(lambda: not receiver.plan)
            node.kill9()
            node.start()
        last = producers.offsets()[-1]
        receiver.wait(lambda: receiver.items()[-1]["offset"] >= last)
        shown = look(node.client, hook)
        assert (shown["failures"], shown["dead_letters"]) == (0, 0)
    offsets = [item["offset"] for item in receiver.items()]
    assert sorted(set(offsets)) == list(range(max(offsets) + 1))
    again = sum(b <= a for a, b in itertools.pairwise(offsets))
    assert again <= 3  # a kill repeats at most the last delivery, from its beginning


def test_only_allowed_hosts(tmp_path: Path) -> None:
    env = {"CONTEXT_WEBHOOK_ALLOW": "127.0.0.1 *.example.org"}
    with NodeProcess(tmp_path / "data", env=env) as node:
        refused = node.client.post(PATH, json={"url": "http://169.254.169.254/latest"})
        assert (refused.status_code, "webhook_allow" in refused.json()["detail"]) == (400, True)
        assert node.client.post(PATH, json={"url": "http://a.example.org/"}).status_code == 201
