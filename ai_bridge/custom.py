"""Models that a user writes as a Python class, by name.

    @ai_bridge.register
    class Contrarian:
        def decide(self, context):
            return {"decision": "sell", "confidence": 0.5}

A class takes no arguments. `decide(context)` and, where it has one, `health()` may be plain or
`async`. A plain mapping (the shape of `ai_bridge.answers`), a distribution, or a `Prediction` is an
answer; raising `ai_bridge.errors.Abstained` is one too.
"""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T", bound=type[Any])
_classes: dict[str, type[Any]] = {}


def register(cls: T, name: str | None = None) -> T:
    """Make a class known under a name (its own by default); usable as a decorator.

    Raises TypeError without a `decide`, ValueError where another class has that name.
    """
    known_as = name or cls.__name__
    if not callable(getattr(cls, "decide", None)):
        raise TypeError(f"{cls.__qualname__} has no method decide(context)")
    if _classes.setdefault(known_as, cls) is not cls:
        raise ValueError(f"another class is registered as {known_as!r}")
    return cls


def registered() -> dict[str, type[Any]]:
    """Every known class by name."""
    return dict(_classes)
