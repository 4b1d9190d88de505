"""A ledger as plain values, and back to the same bits: a start need not fold all outcomes again.

Layout, version 1: msgpack of `Head`. What was learned is in `state`: every object by its
attributes, numbers as they are in memory. Which decision was judged by what is kept apart, in
pieces that are written once (`Piece`), as it grows with the outcomes. A snapshot fits only the
program that wrote it (`code`) and the outcomes it was made of: `outcomes` of them, of the log
`epoch`, the last of them `key` with the SHA-256 `digest`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec

from ai_bridge.backoff import Backoff, symbol_level
from ai_bridge.calibration import Calibration, Reliability
from ai_bridge.conformal import Conformal, Tracker
from ai_bridge.errors import InvalidRecord
from ai_bridge.ledger import Ledger, Score
from ai_bridge.pace import Pace
from ai_bridge.regret import Book, Regrets, Tally
from ai_bridge.weights import Level

VERSION = 1
_PARTS = (Ledger, Backoff, Level, Pace, Regrets, Book, Tally, Calibration, Reliability, Conformal,
          Tracker)  # fmt: skip
# What is not learned, or kept elsewhere.
_LEFT_OUT = {(Ledger, "judged"), (Level, "prior"), (Regrets, "_weights")}
# What the values of these dictionaries are made with, by their key.
_MADE: dict[tuple[type, str], Callable[[Any], object]] = {
    (Backoff, "symbols"): lambda name: symbol_level(),
    (Regrets, "symbols"): lambda name: Book(),
    (Book, "tallies"): lambda name: Tally(),
    (Ledger, "calibrations"): lambda name: Calibration(),
    (Conformal, "_trackers"): Tracker,
}
_SCORES = (Ledger, "scores")


class Piece(msgspec.Struct, frozen=True):
    """Where the outcomes of `count` decisions are, from the one numbered `first` on."""

    first: int
    count: int
    digest: str


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot without the pieces."""

    version: int = VERSION
    code: str
    epoch: str
    outcomes: int
    key: str
    digest: str
    pieces: list[Piece]
    state: dict[str, Any]


def state_of(ledger: Ledger) -> dict[str, Any]:
    """What a ledger has learned, as plain values."""
    state: dict[str, Any] = _plain(ledger)
    return state


def judged_since(ledger: Ledger, first: int) -> list[tuple[str, str]]:
    """Decisions and their outcomes, from the one numbered `first` on."""
    return list(islice(ledger.judged.items(), first, None))


def ledger_of(state: Mapping[str, Any], judged: Iterable[tuple[str, str]]) -> Ledger:
    """The ledger that `state_of` was told by; raises InvalidRecord where that is none."""
    ledger = Ledger()
    try:
        _fill(ledger, state)
    except (KeyError, TypeError, ValueError, AttributeError) as wrong:
        raise InvalidRecord(f"this is not what was learned: {wrong!r}") from wrong
    ledger.judged.update(judged)
    return ledger


def _plain(value: Any) -> Any:
    if isinstance(value, _PARTS):
        told = vars(value).items()
        return {n: _plain(each) for n, each in told if (type(value), n) not in _LEFT_OUT}
    if isinstance(value, Score):
        return [value.count, value.total]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return list(value) if isinstance(value, deque | list) else value


def _fill(part: Any, told: Mapping[str, Any]) -> None:
    """Set every attribute of a fresh object."""
    kept = [name for name in vars(part) if (type(part), name) not in _LEFT_OUT]
    if set(kept) != told.keys():
        raise ValueError(f"{type(part).__name__} has {kept}, not {list(told)}")
    for name in kept:
        place, now, value = (type(part), name), getattr(part, name), told[name]
        if isinstance(now, _PARTS):
            _fill(now, value)
        elif place in _MADE:
            now.update({key: _filled(_MADE[place](key), each) for key, each in value.items()})
        elif place == _SCORES:
            now.update({key: Score(*each) for key, each in value.items()})
        elif isinstance(now, deque):
            now.extend(value)
        elif type(now) is not type(value):
            raise TypeError(f"{name} is {now!r}, not {value!r}")
        else:
            setattr(part, name, value)


def _filled(part: object, told: Mapping[str, Any]) -> object:
    _fill(part, told)
    return part
