"""Back-tests on a real node: as of then, whatever was stored later; and promotion by a report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_api_ai import DECIDE, DECISIONS, MODELS, post, trades
from tests.node_process import ROOT, Api, NodeProcess, wait_for

BACKTESTS = "/api/context/ai/backtests"
CUSTOM = """
import ai_bridge

@ai_bridge.register
class Follower:
    def decide(self, context):
        prices = context["window"][context["symbols"][0]]["prices"]
        up = prices[-1] > prices[-5]
        return {"buy": 0.7 if up else 0.2, "sell": 0.2 if up else 0.7, "hold": 0.1}
"""


def report(api: Api, **wish: Any) -> dict[str, Any]:
    """The finished report."""
    started = api.post(BACKTESTS, json=wish)
    assert started.status_code == 202, started.text
    where = f"{BACKTESTS}/{started.json()['id']}"
    wait_for(lambda: api.get(where).json()["state"] != "running", "the back-test")
    found: dict[str, Any] = api.get(where).json()
    assert found["state"] == "done", found
    return found


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    """A node that knows a class of its user's, with prices of a slow wave."""
    (tmp_path / "follower.py").write_text(CUSTOM)
    env = {"CONTEXT_MODEL_MODULES": "follower", "PYTHONPATH": str(tmp_path)}
    with NodeProcess(tmp_path / "data", None, "--id", "alpha", env=env) as node:
        yield node


def wave(symbol: str, first: int, count: int) -> list[dict[str, Any]]:
    """A price that rises for 60 s and falls for 60 s."""
    items = trades(symbol, first + count)[first:]
    for n, item in enumerate(items, first):
        phase = n % 120
        item["data"]["price"] = 100 + 0.1 * (phase if phase < 60 else 120 - phase)
    return items


def test_a_shadow_model_is_judged_as_of_then_and_promoted(trained: NodeProcess) -> None:
    api = trained.client
    model = {"name": "shadow", "kind": "custom", "model": "Follower", "weight": 0}
    assert api.post(MODELS, json=model).status_code == 201
    for start in range(0, 600, 15):
        api.ingest(wave("W", start, 15))
        if start >= 60:
            decided = post(api, DECIDE, {"symbols": ["W"]})
    shadow = next(vote for vote in decided["votes"] if vote["model"] == "shadow")
    assert (shadow["status"], shadow["weight"]) == ("ok", 0)
    before = report(api, model="shadow", horizon_s=10)
    assert (before["cases"], before["coverage"]) == (36, 1.0)
    for row in before["rows"]:  # what it answers now about then is what it answered then
        votes = api.get(f"{DECISIONS}/{row['case_id']}").json()["votes"]
        then = next(vote["distribution"] for vote in votes if vote["model"] == "shadow")
        assert row["answer"] == then
    api.ingest([{**item, "timestamp": item["timestamp"] + 600} for item in wave("W", 37, 200)])
    after = report(api, model="shadow", horizon_s=10)
    answers = [(row["case_id"], row["answer"]) for row in after["rows"]]
    assert answers == [(row["case_id"], row["answer"]) for row in before["rows"]]
    assert after["judged"] > before["judged"]
    assert after["promotable"], after["objections"]
    assert after["accuracy_when_acting"] > 0.6
    picture = api.get(f"{BACKTESTS}/{after['id']}/plot")
    assert picture.headers["Content-Type"].startswith("image/svg+xml")
    assert "<polyline" in picture.text
    _promote(api, after["id"])
    trained.stop()
    trained.start()
    promoted = next(m for m in api.get(MODELS).json()["models"] if m["name"] == "shadow")
    assert (promoted["weight"], promoted["promoted_by"]) == (0.5, after["id"])
    _by_command_line(trained)


def _promote(api: Api, number: str) -> None:
    for name, patch, why in (
        ("shadow", {"report": "bt_none"}, "no finished back-test"),
        ("momentum", {"report": number}, "is about shadow"),
    ):
        refused = api.patch(f"{MODELS}/{name}", json=patch)
        assert refused.status_code == 400
        assert why in refused.json()["detail"]
    done = api.patch(f"{MODELS}/shadow", json={"report": number, "weight": 0.5})
    assert (done.status_code, done.json()["weight"]) == (200, 0.5)
    again = api.patch(f"{MODELS}/shadow", json={"report": number})
    assert "has weight already" in again.json()["detail"]


def _by_command_line(node: NodeProcess) -> None:
    plot = node.data_dir / "plot.svg"
    args = ["--backtest", "momentum", "--symbol", "W", "--every", "20", "--horizon", "10"]
    command = [sys.executable, "app.py", *args, "--plot", str(plot), "--url", node.url]
    told = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    document = json.loads(told.stdout)
    assert document["cases"] >= 25
    assert document["best_peer"] in ("mean_reversion", "order_flow")
    assert plot.read_text().startswith("<svg")
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "profit after costs" in shown.stdout


def test_what_would_know_the_future_is_refused(api: Api) -> None:
    remote = {"name": "far", "kind": "remote", "base_url": "http://127.0.0.1:9", "model": "m"}
    api.post(MODELS, json=remote)
    for wish, why in (
        ({"model": "far"}, "knows what came later"),
        ({"model": "nobody"}, "no model"),
        ({"model": "momentum", "every_s": 5}, "symbols is needed"),
        ({"model": "momentum", "horizon_s": 0}, "horizon_s"),
    ):
        refused = api.post(BACKTESTS, json=wish)
        assert refused.status_code == 400
        assert why in refused.json()["detail"]
    api.delete(f"{MODELS}/far")
    assert api.get(f"{BACKTESTS}/bt_none").status_code == 404
