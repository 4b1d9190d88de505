"""The real worker process: it finds by meaning; `kill -9` neither loses nor doubles anything."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from context.semantic_text import Passage, template_of
from server.semantic.client import SemanticClient, SemanticUnavailable
from server.semantic.packages import ModelMissing, model_folder

ROOT = Path(__file__).resolve().parents[2]
CODE = (
    "import sys; from pathlib import Path; from server.semantic.worker import run_worker; "
    "run_worker(*map(Path, sys.argv[1:]), on_ready=lambda: None)"
)
PATIENCE_S = 60.0

try:
    MODEL = model_folder()
except ModelMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

# What is asked, and in other words what is meant; the rest are distractors of one another.
MEANT = [
    ("matrix factorisation of asset moves", "eigen decomposition of the cross asset correlation"),
    ("how mood and risk combine", "outer product of sentiment and volatility factors"),
    ("what is left without the yearly pattern", "norm of the residual after seasonal removal"),
    ("do headlines move the quote", "attention score between news embedding and price path"),
    ("is the fitted slope dependable", "stability index of the rolling regression"),
    ("dump the coin, it fell through the floor", "sell because BTC/USD broke support on volume"),
    ("prices arrive too slowly to trust", "reduce exposure as latency makes ETH/USD quotes stale"),
    ("disk is nearly full", "storage of node-03 has 97% of its space in use"),
    ("somebody could not log in", "authentication failed for user 17: wrong password"),
    ("compress the returns", "low rank projection of the hourly return tensor"),
]


class Process:
    """A worker in its own process."""

    def __init__(self, folder: Path) -> None:
        self.client = SemanticClient(folder / "s.sock")
        self._command = [sys.executable, "-c", CODE, folder / "s.sock", folder / "v", MODEL]
        self.start()

    def start(self) -> None:
        self.running = subprocess.Popen(self._command, cwd=ROOT)

    def end(self, how: signal.Signals) -> int:
        self.running.send_signal(how)
        return self.running.wait(PATIENCE_S)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    made: list[Process] = []

    def start(name: str) -> Process:
        (tmp_path / name).mkdir()
        made.append(Process(tmp_path / name))
        return made[-1]

    yield start
    for process in made:
        if process.running.poll() is None:
            process.end(signal.SIGKILL)


async def begun(client: SemanticClient) -> int:
    """Begin, waiting for the worker to come up."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await client.begin("e", within_s=PATIENCE_S)
        except SemanticUnavailable:
            assert time.monotonic() < deadline, "the worker did not come up"
            await asyncio.sleep(0.05)


def passages(texts: list[str]) -> list[Passage]:
    return [
        Passage(template_of(text), offset, float(offset), "note", "s", None)
        for offset, text in enumerate(texts)
    ]


def run(scenario: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 3 * PATIENCE_S))


def test_other_words_find_the_right_meaning(make: Callable[[str], Process]) -> None:
    async def scenario() -> None:
        texts = [meant for _, meant in MEANT]
        client, places = make("a").client, []
        await begun(client)
        await client.add(-1, passages(texts), len(texts) - 1, 0, within_s=PATIENCE_S)
        for right, (query, _) in enumerate(MEANT):
            found = await client.search(query, {"limit": len(MEANT)}, within_s=PATIENCE_S)
            places.append([offset for offset, _ in found].index(right))
            scores = [score for _, score in found]
            assert scores == sorted(scores, reverse=True)
            assert max(map(abs, scores)) <= 1.0001
        assert places.count(0) >= 0.8 * len(MEANT), places
        assert max(places) <= 2, places

    run(scenario())


def test_killed_while_adding_it_catches_up_to_the_same_as_a_fresh_build(
    make: Callable[[str], Process],
) -> None:
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    texts = [f"{a} follows {b} at {i}" for i in range(3) for a in words for b in words]
    everything, newest = passages(texts), len(texts) - 1

    async def catch_up(client: SemanticClient, step: int = 40) -> None:
        applied = await begun(client)
        while applied < newest:
            part = everything[applied + 1 : applied + 1 + step]
            applied = await client.add(applied, part, applied + len(part), 0, within_s=PATIENCE_S)

    async def answers(client: SemanticClient) -> list[list[tuple[int, float]]]:
        queries = ("beta follows kappa", "iota", "something else entirely")
        return [
            [(offset, round(score, 5)) for offset, score in found]
            for found in [
                await client.search(query, {"limit": 30}, within_s=PATIENCE_S) for query in queries
            ]
        ]

    async def scenario() -> None:
        killed, fresh = make("killed"), make("fresh")
        for stop_at in (70, 150):
            catching = asyncio.create_task(catch_up(killed.client, step=20))
            while killed.client.applied < stop_at:
                await asyncio.sleep(0.002)
            killed.end(signal.SIGKILL)  # some of it is stored, the rest is not
            with pytest.raises(SemanticUnavailable):
                await catching
            killed.client.applied = -1
            killed.start()
        await catch_up(killed.client)
        await catch_up(fresh.client)
        assert (killed.client.texts, killed.client.items) == (100, 300)
        assert (fresh.client.texts, fresh.client.items) == (100, 300)
        assert await answers(killed.client) == await answers(fresh.client)

        assert killed.end(signal.SIGTERM) == 0  # a clean stop stores everything
        killed.start()
        assert await begun(killed.client) == newest
        assert await answers(killed.client) == await answers(fresh.client)

    run(scenario())


def test_what_does_not_follow_is_refused(make: Callable[[str], Process]) -> None:
    async def scenario() -> None:
        client = make("a").client
        await begun(client)
        await client.add(-1, [], 4, 0, within_s=PATIENCE_S)
        with pytest.raises(SemanticUnavailable, match="-1 is not 4"):
            await client.add(-1, [], 4, 0, within_s=PATIENCE_S)
        with pytest.raises(SemanticUnavailable, match="search: "):
            await client.search("x", {"limit": "many"}, within_s=PATIENCE_S)
        assert await client.search("x", {"limit": 5}, within_s=PATIENCE_S) == []

    run(scenario())
