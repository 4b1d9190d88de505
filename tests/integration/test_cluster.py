"""Three real nodes with their engines: one leads, all have the same, and losses are survived."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.cluster import Cluster, cluster
from tests.faults.storm import leaky_client, send_all
from tests.faults.subscribers import SseSubscriber

pytestmark = leaky_client


def item(n: int) -> dict[str, object]:
    return {"type": "trading_data", "data": {"symbol": "BTC/USD", "price": 1.0, "n": n}}


def test_one_leads_and_all_have_the_same(tmp_path: Path) -> None:
    with cluster(tmp_path) as three:
        first = three.leader()
        acknowledged = three[first].client.ingest([item(n) for n in range(10)])
        assert acknowledged["last_offset"] == 9
        for n in range(3):
            three.has(n, 9)
            three[n].client.close()
        term = three.told(0)["term"]
        assert acknowledged["term"] == term
        rest = [n for n in range(3) if n != first]
        epoch = acknowledged["cursor"].partition(":")[0]
        subscribers = [SseSubscriber(three[n].url, epoch) for n in rest]

        three[first].kill9()
        second = three.leader(among=rest, above=term)
        again = three[second].client.ingest([item(10)])
        assert (again["first_offset"], again["term"] > term) == (10, True)
        three[first].start()
        three.has(first, 10)
        assert three.leader() == second, "who comes back follows"
        for subscriber in subscribers:
            subscriber.wait(again["cursor"])
            subscriber.stop()
            assert [each.offset for each in subscriber.given] == list(range(11))
            assert subscriber.connections == 1, "nobody on a node that stays notices"


def test_two_nodes_and_a_witness_survive_the_loss_of_one(tmp_path: Path) -> None:
    three = Cluster(tmp_path)
    witness = three.nodes[2]
    witness.args = (*witness.args, "--witness")
    try:
        witness.launch()
        three.start([0, 1])
        first = three.leader(among=[0, 1])
        acknowledged = three[first].client.ingest([item(0)])
        three[first].kill9()
        second = three.leader(among=[1 - first], above=acknowledged["term"])
        # The engines elect a leader of the stream by themselves; callers retry until then.
        (ack,) = send_all(three[second], {"after": msgspec.json.encode(item(1))})
        assert ack.first_offset == 1
    finally:
        three.stop()


@pytest.mark.slow
def test_five_nodes_survive_the_loss_of_two(tmp_path: Path) -> None:
    with cluster(tmp_path, 5) as five:
        first = five.leader()
        lost = [first, (first + 1) % 5]
        rest = [n for n in range(5) if n not in lost]
        acks = send_all(five[rest[0]], {"before": msgspec.json.encode(item(0)) + b"\n"})
        for n in lost:
            five[n].kill9()
        assert five.leader(among=rest, above=acks[-1].term) in rest
        acks = send_all(five[rest[0]], {"after": msgspec.json.encode(item(1)) + b"\n"})
        assert acks[-1].first_offset == 1
        five.start(lost)
        for n in range(5):
            five.has(n, 1)
