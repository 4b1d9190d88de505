"""What malloc keeps goes back to the system, and only when a time of many items is over."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from context.adapters import malloc
from server.agent import resting
from server.agent.node import Node


def test_memory_between_what_is_used_goes_back() -> None:
    process = psutil.Process()
    pieces = [bytes([i % 251]) * 50_000 for i in range(2000)]
    kept = pieces[::100]  # pin the heap all over
    del pieces
    before = process.memory_info().rss
    malloc.give_back()
    assert before - process.memory_info().rss > 50 << 20
    assert all(len(each) == 50_000 for each in kept)


def test_only_after_a_time_of_many_items(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    given: list[int] = []
    script = [0.0, 50.0, 1e5, 2e5, 10.0, 0.0, 1e5, 0.0, 0.0]

    class Ended(Exception):
        pass

    def per_second(now: float, over_s: int) -> float:
        if len(seen) == len(script):
            raise Ended
        seen.append(script[len(seen)])
        return seen[-1]

    rates = SimpleNamespace(per_second=per_second)
    node = cast(Node, SimpleNamespace(metrics=SimpleNamespace(rates=rates)))
    monkeypatch.setattr(resting, "CHECK_S", 0.001)
    monkeypatch.setattr(resting, "give_back", lambda: given.append(len(seen)))
    with pytest.raises(Ended):
        asyncio.run(resting.rest(node))
    assert given == [5, 8], "once, when it is over"
