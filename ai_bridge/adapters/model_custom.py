"""A user's own class as a Model, kept off the agent's event loop.

Plain methods run in threads, `async` ones in an event loop of the model's own: whatever they do,
heartbeats go on. A class that keeps the interpreter busy belongs behind an HTTP server.

A class that says `pure = True` promises a plain `decide` that takes microseconds and whose answer
depends on what it is shown alone: it is asked on the event loop, once for each question.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from ai_bridge.adapters.threads import DaemonThreads
from ai_bridge.answers import from_mapping
from ai_bridge.custom import registered
from ai_bridge.errors import InvalidPrediction
from ai_bridge.ports import Question
from ai_bridge.prediction import Prediction
from ai_bridge.specs import ModelSpec, refused


class CustomModel:
    """One instance of a registered class."""

    kind = "custom"

    def __init__(self, spec: ModelSpec) -> None:
        self.name, self.spec = spec.name, spec
        classes = registered()
        if spec.model not in classes:
            known = ", ".join(sorted(classes)) or "none"
            raise refused("model", f"{spec.model!r} is not a registered class; known are: {known}")
        try:
            self.own_class = classes[spec.model]
            self._own = self.own_class()
        except Exception as fault:
            reason = f"{type(fault).__name__}: {fault}"
            raise refused("model", f"{spec.model!r} could not be made: {reason}") from fault
        self.pure = bool(getattr(self.own_class, "pure", False))
        if self.pure and inspect.iscoroutinefunction(self._own.decide):
            raise refused("model", f"{spec.model!r} says that it is pure, but decide() is async")
        self.answer = self._again if self.pure else None
        self._answered: tuple[Question, Prediction] | None = None  # the newest one, where pure
        self._threads = DaemonThreads(f"model-{spec.name}", spec.concurrency)
        self._loop: asyncio.AbstractEventLoop | None = None

    def about(self) -> dict[str, Any]:
        """What is shown of it beside its settings."""
        return self.spec.about()

    async def health(self) -> str:
        """What its `health()` says, or that it has none."""
        if not hasattr(self._own, "health"):
            return "has no health()"
        return str(await self._call(self._own.health))

    async def decide(self, question: Question) -> Prediction:
        """Its answer to the question."""
        if self.pure:
            return self._again(question)
        return _read(await self._call(self._own.decide, shown(question)), question)

    def _again(self, question: Question) -> Prediction:
        """The answer of a pure class: the one before where the question is the same."""
        if self._answered is None or not _same(self._answered[0], question):
            self._answered = question, _read(self._own.decide(shown(question)), question)
        return self._answered[1]

    async def _call(self, method: Any, *args: Any) -> Any:
        if inspect.iscoroutinefunction(method):
            return await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(method(*args), self._own_loop())
            )
        return await self._threads.run(partial(method, *args))

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(
                target=self._loop.run_forever, name=f"model-{self.name}", daemon=True
            ).start()
        return self._loop


def _read(answer: Any, question: Question) -> Prediction:
    """A class's answer: a prediction, or a plain mapping."""
    if isinstance(answer, Prediction):
        return answer
    if not isinstance(answer, Mapping):
        raise InvalidPrediction(f"decide() returned {type(answer).__name__}, not a mapping")
    if set(answer) == set(question.decisions):
        return Prediction(dict(answer), "", question.decisions)
    return from_mapping(answer, question.decisions)


def _same(one: Question, other: Question) -> bool:
    """Whether both show the same: what was packed once, and prices that were read once."""
    return (
        one.packed is other.packed
        and one.window is other.window
        and (one.symbols, one.decisions, one.context)
        == (other.symbols, other.decisions, other.context)
    )


def shown(question: Question) -> dict[str, Any]:
    """The question as plain data: `items` are the packed context's, arrays are numpy float64.

    `now` is when it was asked for the first time where the model is pure.
    """
    packed = msgspec.json.decode(question.packed) if question.packed else {}
    return {
        "symbols": list(question.symbols),
        "decisions": list(question.decisions),
        "now": question.now,
        "context": dict(question.context),
        "items": packed.get("items", []),
        "window": {
            symbol: {
                "source": series.source,
                "timestamps": series.timestamps,
                "prices": series.prices,
                "volumes": series.volumes,
                "sides": series.sides,
            }
            for symbol, series in question.window.items()
        },
    }
