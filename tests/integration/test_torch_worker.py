"""The real worker process: it learns a recorded market and survives `kill -9`."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from ai_bridge.adapters.classroom import Classroom
from ai_bridge.adapters.learner import Learner
from ai_bridge.adapters.model_torch import TorchModel
from ai_bridge.bridge import Bridge
from ai_bridge.errors import Abstained, ModelUnavailable, NoModels
from ai_bridge.features import HORIZON_BARS, LOOKBACK_BARS
from ai_bridge.models.momentum import momentum
from ai_bridge.ports import Question
from ai_bridge.series import Series

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "../shared/data/normalized/ticks_binancefutures_BTCUSDT_20240808.ndjson.gz"
CODE = (
    "import sys; from ai_bridge.adapters.worker import run_worker; "
    "run_worker(sys.argv[1], sys.argv[2], save_every_s=0.2)"
)
PATIENCE_S = 30.0
SYMBOL = "BTC/USDT"


class Process:
    """A worker in its own process, its socket and its state in one folder."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "worker.sock")
        self.weights = folder / "state" / "torch_model.safetensors"
        self._command = [sys.executable, "-c", CODE, self.socket, str(folder / "state")]
        self.start()

    def start(self) -> None:
        self.running = subprocess.Popen(self._command, cwd=ROOT)

    def end(self, how: signal.Signals) -> int:
        self.running.send_signal(how)
        return self.running.wait(PATIENCE_S)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    try:
        yield process
    finally:
        if process.running.poll() is None:
            process.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def market() -> Series:
    if not RECORDED.exists():
        pytest.skip(f"recorded market not found: {RECORDED.name}")
    with gzip.open(RECORDED) as lines:
        return Series.of(SYMBOL, [json.loads(line) for line in lines])


def piece(series: Series, start: int, stop: int) -> Series:
    names = ("timestamps", "prices", "volumes", "sides")
    return replace(series, **{name: getattr(series, name)[start:stop] for name in names})


def question(window: Series) -> Question:
    return Question((SYMBOL,), {SYMBOL: window}, now=0.0)


async def until(
    model: TorchModel, holds: Callable[[dict[str, Any]], bool], patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """Wait until the worker's status holds, also through its absence."""
    deadline = time.monotonic() + patience_s
    status: dict[str, Any] = {}
    while time.monotonic() < deadline:
        try:
            status = await model.status()
        except ModelUnavailable:
            status = {}
        if status and holds(status):
            return status
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {patience_s} s; last status {status}")


def run(scenario: Callable[[TorchModel], Awaitable[None]], worker: Process) -> None:
    async def connected() -> None:
        model = TorchModel(worker.socket)
        try:
            await scenario(model)
        finally:
            await model.close()

    asyncio.run(connected())


def test_it_learns_and_keeps_what_it_learned_through_kill_9(
    worker: Process, market: Series
) -> None:
    async def scenario(model: TorchModel) -> None:
        fresh = await until(model, lambda status: True)
        assert (fresh["origin"], fresh["examples"], fresh["device"]) == ("fresh", 0, "cpu")
        with pytest.raises(Abstained, match="learned from 0 examples, needs 30"):
            await model.decide(question(market))

        for start in range(0, len(market), 1000):
            await model.observe(piece(market, start, start + 1000))
        # 345 bars, less those without features or without an outcome yet, the open one included
        expected = 345 - LOOKBACK_BARS - HORIZON_BARS - 1
        learned = await until(model, lambda status: status["examples"] == expected)
        assert learned["scored"] == expected
        for name in ("brier", "log_loss", "base_brier", "base_log_loss"):
            assert 0 < learned[name] < 2
        before = await model.decide(question(market))
        await until(model, lambda status: status["saved_version"] == expected)

        worker.end(signal.SIGKILL)
        worker.start()
        again = await until(model, lambda status: True)
        assert again["origin"] == "stored"
        assert {**again, "origin": "", "markets": {}} == {
            **learned, "origin": "", "markets": {}, "saved_version": expected,
        }  # fmt: skip
        assert (await model.decide(question(market))).distribution != {}

        await model.observe(market)  # the same bars teach nothing a second time
        await until(model, lambda status: status["markets"] == learned["markets"])
        assert (await model.decide(question(market))).distribution == before.distribution
        assert (await model.status())["examples"] == expected

    run(scenario, worker)
    assert worker.end(signal.SIGTERM) == 0
    with safe_open(worker.weights, framework="numpy") as stored:
        assert abs(stored.get_tensor("network.2.weight")).max() > 0


def test_a_killed_worker_is_unavailable_at_once_and_missed_no_longer_than_needed(
    worker: Process, market: Series
) -> None:
    async def scenario(model: TorchModel) -> None:
        bridge = Bridge([momentum(), model])
        asked = question(piece(market, 0, 20_000))

        async def statuses() -> dict[str, str]:
            decision = await bridge.decide(asked, deadline_s=5, clock=time.monotonic)
            return {vote.model: vote.status for vote in decision.votes}

        await until(model, lambda status: True)
        assert await statuses() == {"momentum": "ok", "torch": "abstained"}
        await model.observe(piece(market, 0, 40_000))
        await until(model, lambda status: status["saved_version"] >= 30)
        assert await statuses() == {"momentum": "ok", "torch": "ok"}

        worker.end(signal.SIGKILL)
        for _ in range(3):
            started = time.monotonic()
            assert await statuses() == {"momentum": "ok", "torch": "unavailable"}
            assert time.monotonic() - started < 0.5
        assert bridge.describe("torch")["health"] == "unavailable"
        with pytest.raises(NoModels, match="torch: unavailable: no worker at"):
            await bridge.decide(asked, deadline_s=5, models=["torch"], clock=time.monotonic)

        worker.start()
        await until(model, lambda status: True)
        assert await statuses() == {"momentum": "ok", "torch": "ok"}

    run(scenario, worker)


def test_a_hanging_worker_costs_the_deadline_and_no_more(worker: Process, market: Series) -> None:
    async def scenario(model: TorchModel) -> None:
        await until(model, lambda status: True)
        worker.running.send_signal(signal.SIGSTOP)
        asked = question(piece(market, 0, 20_000))
        started = time.monotonic()
        decision = await Bridge([momentum(), model]).decide(
            asked, deadline_s=0.2, clock=time.monotonic
        )
        assert 0.15 < time.monotonic() - started < 1
        assert [vote.status for vote in decision.votes] == ["ok", "timeout"]
        worker.running.send_signal(signal.SIGCONT)
        await until(model, lambda status: True)

    run(scenario, worker)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_damaged_weights_are_put_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "torch_model.safetensors"
    Learner(path, "cpu").save()
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-40], "noise": bytes(range(256)) * 9, "empty": b""}[damage])
    learner = Learner(path, "cpu")
    assert learner.origin.startswith("fresh: the stored weights are damaged")
    assert learner.progress.examples == 0
    assert path.with_suffix(".damaged").exists()
    learner.save()
    assert Learner(path, "cpu").origin == "stored"


def test_training_and_forecasts_use_nothing_from_the_future(tmp_path: Path, market: Series) -> None:
    """Two markets that differ only after a point teach the same until they differ."""
    known = 40_000
    other = replace(market, prices=market.prices.copy(), volumes=market.volumes.copy())
    other.prices[known:] *= 1.07
    other.volumes[known:] *= 3
    window = piece(market, 0, known)
    at = int(market.timestamps[known])
    closed = at - int(market.timestamps[0])  # bars closed before the markets differ

    answers = []
    for name, whole in (("a", market), ("b", other)):
        classroom = Classroom(Learner(tmp_path / name, "cpu"), bar_s=1.0, min_examples=30)
        classroom.observe(whole)
        for _ in range(closed):
            assert classroom.teach()
        assert classroom.status()["examples"] == closed - LOOKBACK_BARS - HORIZON_BARS
        answers.append((classroom.predict([window]), classroom.status()["log_loss"]))
    assert answers[0] == answers[1]
