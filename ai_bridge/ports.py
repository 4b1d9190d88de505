"""What the bridge needs from a model, and what it asks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ai_bridge.errors import Abstained
from ai_bridge.prediction import DECISIONS, Prediction
from ai_bridge.series import Series


@dataclass(frozen=True, slots=True)
class Question:
    """One question to all models: what to do about these symbols now.

    `window` holds what is known of each symbol (a symbol without data may be missing),
    `context` what the caller adds, `now` unix seconds, `decisions` what to choose from, and
    `packed` the packed context (the answer of `context.packing` in the form `items`) as JSON.
    `shared` is where models keep what is the same for several of them, such as a prompt.
    """

    symbols: tuple[str, ...]
    window: Mapping[str, Series]
    now: float
    context: Mapping[str, Any] = field(default_factory=dict)
    decisions: tuple[str, ...] = DECISIONS
    packed: bytes = b""
    shared: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def only(self, decisions: tuple[str, ...]) -> None:
        """Raise Abstained where others than these are asked for."""
        if set(self.decisions) != set(decisions):
            raise Abstained(f"answers {', '.join(decisions)} only")


class Model(Protocol):
    """One voice in the consensus."""

    @property
    def name(self) -> str:
        """Unique in a bridge; what votes and weights are filed under."""
        ...

    @property
    def kind(self) -> str:
        """How it runs: `builtin`, `torch`, `openai`, `koboldcpp`, `remote` or `custom`."""
        ...

    async def decide(self, question: Question) -> Prediction:
        """Answer from the question alone, without blocking the event loop.

        Raises Abstained where it has too little to go on, ModelUnavailable where it cannot be
        reached. May be cancelled at any await.
        """
        ...


class Quick(Model, Protocol):
    """A model that answers within microseconds: it is asked without a task and a clock."""

    answer: Callable[[Question], Prediction]
    """As `decide`, at once."""
