"""Three real nodes with their engines: one leads, all have the same, and losses are survived."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import cluster


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

        three[first].kill9()
        rest = [n for n in range(3) if n != first]
        second = three.leader(among=rest, above=term)
        again = three[second].client.ingest([item(10)])
        assert (again["first_offset"], again["term"] > term) == (10, True)
        three[first].start()
        three.has(first, 10)
        assert three.leader() == second, "who comes back follows"
