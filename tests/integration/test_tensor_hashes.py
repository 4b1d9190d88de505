"""Tensor hashes over REST: meaning, counts, prefixes, carriers, and a start that folds the log."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import cluster
from tests.faults.storm import leaky_client
from tests.node_process import Api, NodeProcess, wait_for

TENSORS = "/api/context/tensors"


def calculation(result: Any, **more: Any) -> dict[str, Any]:
    data = {"calculation_id": uuid.uuid4().hex, "input_data": [uuid.uuid4().hex], "result": result}
    return {"type": "tensor_math", "data": {**data, **more}}


def folded(api: Api, acknowledged: dict[str, Any]) -> None:
    """Wait until the registry has what was acknowledged."""

    def reached() -> bool:
        asked = {"hashes": ["000000"]}
        as_of: str = api.post(f"{TENSORS}/lookup", json=asked).json()["as_of"]
        return int(as_of.partition(":")[2]) >= int(acknowledged["last_offset"])

    wait_for(reached, "the registry")


def offsets(document: dict[str, Any]) -> list[int]:
    return [item["offset"] for item in document["items"]]


def test_meaning_and_counts_by_either_hash(api: Api) -> None:
    sent = hashlib.sha256(uuid.uuid4().bytes).hexdigest()
    one = calculation([1, 2.5], hash_value=sent, context_meaning="drift of the book")
    again: dict[str, Any] = {"type": "tensor_math", "data": {**one["data"]}}
    again["data"] |= {"calculation_id": "again", "result": [1.0, 25e-1]}
    del again["data"]["context_meaning"]
    decision = {"type": "ai_decision", "data": {"model": "m", "decision": "buy", "because": sent}}
    told = api.ingest([one, again, decision])
    folded(api, told)
    first = told["first_offset"]
    by_sent = api.get(f"{TENSORS}/{sent.upper()}").json()
    assert by_sent["hash"] == by_sent["hash_value"] == sent
    assert (by_sent["meaning"], by_sent["seen"]) == ("drift of the book", 2)
    assert by_sent["calculation_id"] == "again"
    assert [by_sent["first"], by_sent["newest"]] == [
        item["id"] for item in (by_sent["items"][2], by_sent["items"][1])
    ]
    assert offsets(by_sent) == [first + 2, first + 1, first]
    assert by_sent["partial"] is False
    by_canonical = api.get(f"{TENSORS}/{by_sent['canonical_hash']}?limit=1").json()
    assert (by_canonical["meaning"], by_canonical["seen"]) == ("drift of the book", 2)
    assert offsets(by_canonical) == [first + 1]
    assert "items" not in api.get(f"{TENSORS}/{sent}?limit=0").json()
    later = api.get(TENSORS, params={"offset": first + 2}).json()["tensors"]
    assert [(each["hash"], each["meaning"]) for each in later] == [(sent, "drift of the book")]
    both = api.get(TENSORS, params={"offset": first}).json()["tensors"]
    assert {each["hash"] for each in both} == {sent, by_sent["canonical_hash"]}


def test_beginnings(api: Api) -> None:
    start = uuid.uuid4().hex[:12]
    hashes = [start + digit * 52 for digit in "0af"]
    short = start + "0"
    items = [calculation(n, hash_value=text) for n, text in enumerate([*hashes, short])]
    folded(api, api.ingest(items))
    for text in hashes:
        assert api.get(f"{TENSORS}/{text[:14]}").json()["hash"] == text
    assert api.get(f"{TENSORS}/{short}").json()["hash"] == short
    ambiguous = api.get(f"{TENSORS}/{start}")
    assert (ambiguous.status_code, ambiguous.json()["code"]) == (409, "ambiguous_hash")
    named = [error["message"].partition(":")[0] for error in ambiguous.json()["errors"]]
    assert sorted(named) == sorted([*hashes, short])
    asked = [hashes[0], start, "no such hash", start + "1"]
    found = api.post(f"{TENSORS}/lookup", json={"hashes": asked}).json()
    assert {text: each["hash"] for text, each in found["found"].items()} == {hashes[0]: hashes[0]}
    assert found["unknown"] == ["no such hash", start + "1"]
    assert sorted(found["ambiguous"][start]) == sorted([*hashes, short])


def test_text_that_is_no_hex_is_found_whole(api: Api) -> None:
    text = f"Grüße/{uuid.uuid4().hex}"
    folded(api, api.ingest(calculation(1, hash_value=text, context_meaning="m")))
    found = api.post(f"{TENSORS}/lookup", json={"hashes": [text, text[:-1]]}).json()
    assert found["found"][text]["meaning"] == "m"
    assert found["unknown"] == [text[:-1]]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{TENSORS}/abcde", 404),
        (f"{TENSORS}/{'0' * 63}1", 404),
        (f"{TENSORS}/abcdef?limit=101", 400),
        (f"{TENSORS}/abcdef?limit=x", 400),
        (TENSORS, 400),
        (f"{TENSORS}?offset=-1", 400),
        (f"{TENSORS}?offset=999999999", 404),
    ],
)
def test_what_is_wrong_is_told(api: Api, path: str, status: int) -> None:
    answer = api.get(path)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize("body", [{}, {"hashes": []}, {"hashes": [1]}, {"hashes": ["x"] * 201}, []])
def test_a_wrong_lookup_is_refused(api: Api, body: Any) -> None:
    answer = api.post(f"{TENSORS}/lookup", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_a_start_folds_the_log_again(own_node: NodeProcess) -> None:
    items = [calculation(n % 7, context_meaning=f"m{n}") for n in range(3000)]
    for item in items:
        item["data"]["input_data"] = None
    told = [own_node.client.ingest(items[n : n + 500]) for n in range(0, 3000, 500)][-1]
    folded(own_node.client, told)
    text = own_node.client.get(TENSORS, params={"offset": 2999}).json()["tensors"][0]["hash"]
    before = own_node.client.get(f"{TENSORS}/{text}").json()
    assert (before["seen"], before["meaning"]) == (len(range(2999 % 7, 3000, 7)), "m2999")
    own_node.kill9()
    own_node.start()
    folded(own_node.client, told)
    assert own_node.client.get(f"{TENSORS}/{text}").json() == before


@leaky_client
def test_all_nodes_of_a_cluster_know_the_same_also_after_a_kill(tmp_path: Path) -> None:
    results: list[Any] = [0.1, [1, 2.5], "text", 'with " escape', {"b": 1}, 2**70, [[1], [2, 3]]]
    items = [
        {
            "type": "tensor_math",
            "data": {
                "calculation_id": f"c{n}",
                "input_data": [n % 50 / 7, "x" * 200] if n % 3 else [n % 50 / 7, 1e-7],
                "result": results[n % len(results)],
                "hash_value": f"{n % 40:02x}" * 32,
                "context_meaning": f"m{n}",
            },
        }
        for n in range(6000)
    ]
    with cluster(tmp_path) as three:
        leader = three.leader()
        told = [three[leader].client.ingest(items[n : n + 500]) for n in range(0, 6000, 500)][-1]

        def known(n: int) -> list[dict[str, Any]]:
            three.has(n, told["last_offset"])
            client = three[n].client
            folded(client, told)
            carried = [
                client.get(TENSORS, params={"offset": offset}).json()["tensors"]
                for offset in range(0, 6000, 97)
            ]
            three[n].client.close()
            return [each for found in carried for each in found]

        expected = known(leader)
        assert sum(each["seen"] == 150 for each in expected) >= 6000 // 97
        for n in range(3):
            assert known(n) == expected
        for n in (leader, (leader + 1) % 3):
            three[n].kill9()
            three[n].start()
            assert known(n) == expected
