"""Many subscriptions over one stream: the same as so many streams, however it is cut."""

from __future__ import annotations

import random
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from context.client import Client
from tests.node_process import Api, NodeProcess
from tests.streaming import Event, Producers, SseReader

Json = dict[str, Any]


def note(source: str, n: int, kind: str = "note") -> Json:
    return {"type": kind, "source": source, "data": {"n": n}}


def wish(name: str, **filters: Any) -> str:
    return f"{name}:{urlencode(filters)}"


def of(events: list[Event], name: str) -> list[int]:
    mine = (e.data for e in events if e.kind == "context" and name in e.data["subscriptions"])
    return [data["data"]["n"] for data in mine]


def test_events_name_their_subscriptions(node: NodeProcess, api: Api) -> None:
    source = uuid.uuid4().hex
    cursor = api.newest()
    api.ingest([note(source, n, ("note", "memo")[n % 2]) for n in range(6)])
    wishes = [
        wish("all", source=source),
        wish("memos", source=source, type="memo"),
        wish("grep", query=f'{source}.*"n":[1238]', regex="true"),
        wish("none", source="nobody & nothing"),
    ]
    with SseReader(node, subscription=wishes, after=cursor) as reader:
        assert reader.status == 200
        reader.wait_items(6)
        told = api.ingest([note(source, n) for n in range(6, 9)])
        reader.wait_items(9)
        assert [e.data["offset"] for e in reader.events] == sorted(
            {e.data["offset"] for e in reader.events}
        )
        assert of(reader.events, "all") == list(range(9))
        assert of(reader.events, "memos") == [1, 3, 5]
        assert of(reader.events, "grep") == [1, 2, 3, 8]
        assert of(reader.events, "none") == []
        assert reader.events[1].data["subscriptions"] == ["all", "memos", "grep"]
        assert reader.events[-1].id == told["cursor"]
        plain = api.get(f"/api/context/items/{told['last_offset']}").json()
        assert reader.events[-1].data == {"subscriptions": ["all", "grep"], **plain}


def test_a_gap_is_told_once_for_all(node: NodeProcess) -> None:
    wishes = [wish("a", type="first"), wish("b", source="nobody")]
    with SseReader(node, subscription=wishes, after="lost:7") as reader:
        reader.wait_items(1)
        gap, first = reader.events[:2]
        assert (gap.kind, gap.data["subscriptions"]) == ("gap", ["a", "b"])
        assert gap.data["missed_from"] == "lost:8"
        assert (first.data["offset"], first.data["subscriptions"]) == (0, ["a"])


@pytest.mark.parametrize(
    "params",
    [
        {"subscription": ["no name"]},
        {"subscription": ["a:", "a:"]},
        {"subscription": ["a:frobnicate=1"]},
        {"subscription": ["a:after=k1:3"]},
        {"subscription": ["a:query=(&regex=true"]},
        {"subscription": ["a:"], "type": "note"},
        {"subscription": [f"n{n}:" for n in range(101)]},
    ],
)
def test_refusals(api: Api, params: Json) -> None:
    answer = api.get("/api/context/stream", params=params)
    assert answer.status_code == 400, answer.text


def test_cut_anywhere_each_gets_what_a_stream_of_its_own_would(tmp_path: Path) -> None:
    """Dense and sparse ones, from history into live, cut at random and by a kill of the node."""
    filters: dict[str, Json] = {
        "dense": {"source": "a"},
        "sparse": {"query": '"n":7}'},
        "other": {"source": "b", "invert": True, "query": '"n":1'},
    }
    chance = random.Random(5)
    with NodeProcess(tmp_path / "data") as node, Client(node.url) as client:
        for _ in range(20):
            node.client.ingest([note(chance.choice("ab"), n) for n in range(400)])
        last = node.client.newest().split(":")[0] + ":-1"
        seen: dict[str, list[int]] = {name: [] for name in filters}
        with Producers(node, threads=2, **note("b", 7)) as producers:
            for _ in range(15):
                events = client.stream(last, subscriptions=filters)
                for _, event in zip(range(chance.randrange(1, 1200)), events, strict=False):
                    for name in event.data["subscriptions"]:
                        seen[name].append(event.data["offset"])
                    last = str(event.cursor)
                events.close()  # type: ignore[attr-defined]
        node.kill9()
        node.start()
        stored = producers.offsets()[-1]
        for event in client.stream(last, subscriptions=filters):
            for name in event.data["subscriptions"]:
                seen[name].append(event.data["offset"])
            if event.data["offset"] == stored:
                break
        for name, wanted in filters.items():
            found = client.search_all(**{"query": "", **wanted})
            offsets = sorted(item["offset"] for item in found)
            assert seen[name] == offsets, name
