"""Small bodies that come to the agent together: each is stored, refused and told as if alone."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from server import ipc
from server.config import Settings
from server.ipc import Posted, Request, Told
from server.paths import agent_socket
from tests.node_process import Api, NodeProcess

NDJSON, JSON = "application/x-ndjson", "application/json"
_told = msgspec.msgpack.Decoder(Told).decode


@pytest.fixture
def line(node: NodeProcess) -> Iterator[socket.socket]:
    """A connection to the agent that takes in numbered bodies."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(agent_socket(Settings(data_dir=node.data_dir))))
        sock.sendall(ipc.pack(Request("intake", {})))
        assert ipc.receive(sock)[1] == b""
        yield sock


def post(line: socket.socket, bodies: Sequence[Posted], cuts: Sequence[int] = ()) -> list[Told]:
    """Send all, in pieces that end anywhere, and wait for the answers, by their numbers."""
    sent = b"".join(map(ipc.pack, bodies))
    for begin, end in zip((0, *cuts), (*cuts, len(sent)), strict=True):
        line.sendall(sent[begin:end])
    told, rest = dict[int, Told](), b""
    while len(told) < len(bodies):
        payload, rest = ipc.receive(line, rest)
        answer = _told(payload)
        assert answer.number not in told
        told[answer.number] = answer
    return [told[body.number] for body in bodies]


def items_of(number: int, count: int) -> list[dict[str, Any]]:
    data = [{"body": number, "n": n} for n in range(count)]
    return [{"type": "together", "source": "s", "timestamp": number, "data": each} for each in data]


def ndjson(items: Sequence[Any]) -> bytes:
    return b"".join(msgspec.json.encode(item) + b"\n" for item in items)


def check(api: Api, told: Told, items: Sequence[dict[str, Any]]) -> range:
    """The acknowledged offsets, which hold these items."""
    assert told.status == 201, told.body
    document = msgspec.json.decode(told.body)
    first, last = document["first_offset"], document["last_offset"]
    assert (document["accepted"], last - first + 1) == (len(items), len(items))
    assert document["cursor"].endswith(f":{last}")
    for offset, item in zip(range(first, last + 1), items, strict=True):
        stored = api.get(f"/api/context/items/{offset}").json()
        assert {name: stored[name] for name in item} == item
    return range(first, last + 1)


def test_each_of_many_bodies_is_told_where_its_own_items_are(
    node: NodeProcess, line: socket.socket
) -> None:
    chance = random.Random(7)
    sent = {n: items_of(n, chance.choice([1, 1, 2, 30])) for n in range(60)}
    bodies = [
        Posted(n, {"content_type": NDJSON}, ndjson(items))
        if len(items) > 1 or chance.random() < 0.5
        else Posted(n, {"content_type": JSON}, msgspec.json.encode(items[0]))
        for n, items in sent.items()
    ]
    size = sum(len(ipc.pack(body)) for body in bodies)
    told = post(line, bodies, sorted(chance.sample(range(1, size), 5)))
    offsets = [
        offset
        for body, answer in zip(bodies, told, strict=True)
        for offset in check(node.client, answer, sent[body.number])
    ]
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets))), "in the order they came"


def test_what_is_wrong_with_one_body_harms_no_other(node: NodeProcess, line: socket.socket) -> None:
    good = {n: items_of(n, 3) for n in (1, 3, 5, 7, 9, 11)}
    plain = {"content_type": NDJSON}
    spaced = b"".join(msgspec.json.encode(item) + b" \r\n\n" for item in good[9])
    bodies = [
        *(Posted(n, plain, ndjson(good[n])) for n in (1, 3)),
        Posted(2, plain, ndjson([{"type": "together"}])),
        Posted(4, plain, b'{"type":"together","data":{"a":"\xff"}}'),
        Posted(5, {**plain, "idempotency_key": "both"}, ndjson(good[5])),
        Posted(6, {**plain, "idempotency_key": "both"}, ndjson(good[5])),
        Posted(7, plain, ndjson(good[7]).rstrip()),
        Posted(8, plain, b""),
        Posted(9, plain, spaced),
        Posted(10, {"content_type": "text/plain"}, b"{}"),
        Posted(11, {"content_type": JSON}, msgspec.json.encode(good[11])),
    ]
    told = {answer.number: answer for answer in post(line, bodies)}
    offsets = [offset for n, items in good.items() for offset in check(node.client, told[n], items)]
    assert len(set(offsets)) == sum(map(len, good.values()))
    assert [told[n].status for n in (2, 4, 6, 8, 10)] == [422, 422, 200, 422, 415]
    assert msgspec.json.decode(told[6].body) == msgspec.json.decode(told[5].body)
    assert msgspec.json.decode(told[2].body)["errors"][0]["index"] == 0
