"""The client against a real HTTP server that breaks connections, refuses and repeats itself."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_node import StubNode

from context.client import Client, NodeUnreachable, RequestFailed
from context.events import EventDecoder, is_after

ROOT = Path(__file__).resolve().parents[2]


def trade(price: float, source: str = "x") -> dict[str, object]:
    return {"type": "trading_data", "source": source, "data": {"symbol": "A/B", "price": price}}


@pytest.fixture
def node() -> Iterator[StubNode]:
    with StubNode() as stub:
        yield stub


@pytest.fixture
def client(node: StubNode) -> Iterator[Client]:
    with Client(node.url, timeout_s=5) as made:
        yield made


def test_imports_without_the_servers_packages() -> None:
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"msgspec", "flask", "numpy", "server", "torch", "eventlet"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import context.client
context.client.Client().close()
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_ingest_one_many_and_lines(node: StubNode, client: Client) -> None:
    assert client.ingest(trade(1))["cursor"] == "e1:0"
    assert client.ingest([trade(2), trade(3)])["accepted"] == 2
    assert client.ingest(b'{"type":"note","data":{"a":"\xc3\xa9"}}\n')["last_offset"] == 3
    assert client.item(3)["data"] == {"a": "é"}
    assert client.latest(limit=2, type=None)["items"][0]["offset"] == 3


def test_a_refused_item_names_its_place(client: Client) -> None:
    with pytest.raises(RequestFailed) as caught:
        client.ingest([trade(1), trade(-1)], idempotency_key="k")
    assert caught.value.status == 422
    assert caught.value.code == "invalid_item"
    assert caught.value.problem["errors"][0]["index"] == 1
    assert not caught.value.retryable


def test_nobody_there() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(NodeUnreachable, match="refused"):
        client.stats()


@pytest.mark.parametrize("url", ["127.0.0.1:5000", "ftp://x", "http://", ""])
def test_a_wrong_address_is_told_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        Client(url)


def test_without_a_key_nothing_is_sent_twice(node: StubNode, client: Client) -> None:
    node.hang_up_after_storing = 1
    with pytest.raises(NodeUnreachable):
        client.ingest(trade(1))
    node.refuse = [503]
    with pytest.raises(RequestFailed):
        client.ingest(trade(2))
    assert len(node.items) == 1


def test_with_a_key_it_retries_and_stores_once(node: StubNode, client: Client) -> None:
    node.refuse = [429, 503, 507]
    node.hang_up_after_storing = 1
    heard: list[str] = []
    answer = client.ingest(
        [trade(1)], idempotency_key="k", on_retry=lambda error, _: heard.append(str(error))
    )
    assert answer["cursor"] == "e1:0"
    assert len(node.items) == 1
    assert len(heard) == 4
    assert "refused_429" in heard[0]


def test_gives_up_with_the_last_error(node: StubNode, client: Client) -> None:
    node.refuse = [503] * 100
    with pytest.raises(RequestFailed) as caught:
        client.ingest(trade(1), idempotency_key="k", give_up_after_s=0.2)
    assert caught.value.code == "refused_503"
    assert not node.items


def test_search_all_walks_the_pages(node: StubNode, client: Client) -> None:
    node.store([trade(float(n)) for n in range(25)])
    page = client.search("price", limit=10)
    assert [item["offset"] for item in page["items"]] == list(range(24, 14, -1))
    offsets = [item["offset"] for item in client.search_all("price", limit=10)]
    assert offsets == list(range(24, -1, -1))
    with pytest.raises(RequestFailed) as caught:
        client.search("(", regex=True)
    assert caught.value.code == "bad_pattern"


def test_decisions_and_operation(node: StubNode, client: Client) -> None:
    assert client.decide(["A/B"], deadline_ms=100)["final_decision"] == "buy"
    assert client.decisions(limit=1)["decisions"][0]["decision_id"] == "d1"
    assert client.models()["models"][0]["name"] == "trend"
    client.outcome("d/1", realised=0.01)
    assert node.seen[-1] == ("POST", "/api/context/ai/decisions/d%2F1/outcome", {"return": 0.01})
    assert client.nodes()["leader"] == "n1"
    assert client.emergency_stop() == {"stopped": True}
    node.ready = False
    assert client.status()["ready"] is False
    assert client.status()["readyz"]["reason"] == "log is opening"


@pytest.mark.parametrize("chunked", [True, False])
def test_stream_is_exact_over_broken_connections(
    node: StubNode, client: Client, chunked: bool
) -> None:
    node.chunked = chunked
    node.repeat_last_event = True
    node.hang_up_after_events = [3, 1, 5]
    node.store([trade(float(n)) for n in range(20)])
    events = list(itertools.islice(client.stream(after="e1:-1"), 20))
    assert [event.data["offset"] for event in events] == list(range(20))
    assert not node.hang_up_after_events


def test_stream_starts_at_the_call(node: StubNode, client: Client) -> None:
    node.store([trade(1.0)])
    stream = client.stream(source="y")
    node.hang_up_after_events = [0]  # the first connection breaks before any event
    node.store([trade(2.0, "y"), trade(3.0, "x"), trade(4.0, "y")])
    assert [next(stream).data["offset"] for _ in range(2)] == [1, 3]


def test_stream_survives_a_restart_and_silence(node: StubNode, client: Client) -> None:
    node.store([trade(1.0)])
    stream = client.stream(after="e1:-1", silence_s=0.2)
    assert next(stream).cursor == "e1:0"
    node.kill()
    node.silent_streams = 1
    node.store([trade(2.0)])
    node.start()
    assert next(stream).cursor == "e1:1"
    assert not node.silent_streams


def test_stream_tells_of_gaps_and_gives_up(node: StubNode, client: Client) -> None:
    node.gap = {"missed_from": "e0:5", "missed_to": "e0:9"}
    node.store([trade(1.0)])
    stream = client.stream(after="e0:4", give_up_after_s=0.2)
    gap = next(stream)
    assert (gap.kind, gap.data["missed_to"]) == ("gap", "e0:9")
    assert next(stream).cursor == "e1:0"
    node.kill()
    with pytest.raises(NodeUnreachable):
        next(stream)


@pytest.fixture
def other() -> Iterator[StubNode]:
    with StubNode() as stub:
        yield stub


@pytest.fixture
def both(node: StubNode, other: StubNode) -> Iterator[Client]:
    with Client(f"{node.url}, {other.url}/", timeout_s=5) as made:
        yield made


def test_a_call_goes_on_to_the_next_node(node: StubNode, other: StubNode, both: Client) -> None:
    assert both.url == node.url
    node.kill()
    assert both.ingest(trade(1))["cursor"] == "e1:0", "nobody got it, so it needs no key"
    assert both.url == other.url
    assert both.stats()["items"] == 1
    other.kill()
    with pytest.raises(NodeUnreachable) as caught:
        both.stats()
    assert caught.value.url == f"{node.url}, {other.url}"


def test_only_what_can_be_repeated_goes_on(node: StubNode, other: StubNode, both: Client) -> None:
    node.hang_up_after_storing = 1
    with pytest.raises(NodeUnreachable):
        both.ingest(trade(1))
    assert (len(node.items), len(other.items)) == (1, 0)
    assert both.url == other.url, "the next call goes elsewhere"
    other.refuse = [422]
    with pytest.raises(RequestFailed):
        both.ingest(trade(1), idempotency_key="k")
    assert both.url == other.url, "the fault was not this node's"
    other.refuse = [503]
    assert both.ingest(trade(2), idempotency_key="k")["cursor"] == "e1:1"
    assert (len(node.items), len(other.items)) == (2, 0)


def test_reads_ask_for_what_was_written(node: StubNode, client: Client) -> None:
    client.latest(limit=1)
    assert node.seen[-1][2] == {"limit": "1"}
    client.ingest([trade(1), trade(2)])
    client.latest(limit=1)
    assert node.seen[-1][2] == {"limit": "1", "min_cursor": "e1:1"}
    client.status()
    assert node.seen[-1] == ("GET", "/readyz", {})
    node.forgot = True  # another log is there now
    client.latest()
    client.latest()
    assert [seen[2] for seen in node.seen[-3:]] == [{"min_cursor": "e1:1"}, {}, {}]


def test_a_stream_goes_on_at_the_next_node(node: StubNode, other: StubNode, both: Client) -> None:
    for stub in (node, other):
        stub.store([trade(float(n)) for n in range(6)])
    node.hang_up_after_events = [2]
    stream = both.stream(after="e1:-1")
    found = [next(stream).data["offset"] for _ in range(2)]
    node.kill()
    found += [next(stream).data["offset"] for _ in range(4)]
    assert found == list(range(6))


EVENTS = (
    ': hello\n\nevent: context\nid: e:0\ndata: {"a":\ndata: 1}\n\n'
    'event: other\ndata: 1\n\nretry: 5\n\nevent: gap\r\ndata:{"missed_from":"é"}\r\n\r\n'
).encode()


@given(st.lists(st.integers(0, len(EVENTS))))
def test_events_do_not_depend_on_the_pieces(cuts: list[int]) -> None:
    decoder = EventDecoder()
    edges = [0, *sorted(cuts), len(EVENTS)]
    found = [event for a, b in itertools.pairwise(edges) for event in decoder.feed(EVENTS[a:b])]
    assert [(event.kind, event.cursor) for event in found] == [("context", "e:0"), ("gap", None)]
    assert [event.data for event in found] == [{"a": 1}, {"missed_from": "é"}]


def test_cursors_of_another_epoch_are_news() -> None:
    assert is_after("e:3", "e:2")
    assert not is_after("e:2", "e:2")
    assert is_after("f:0", "e:2")
