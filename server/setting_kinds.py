"""Kinds of settings: how text or a native value becomes a value, and what is allowed, in words.

`parse` takes text (environment, flags) as well as what TOML and YAML yield, and raises ValueError
or TypeError for anything else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from context.retention import parse_rules

_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Kind(Protocol):
    """What a setting may be."""

    allowed: str

    def parse(self, raw: Any) -> Any:
        """The value, or ValueError or TypeError."""


class Text:
    """Text that matches a pattern wholly."""

    def __init__(self, pattern: str, allowed: str) -> None:
        self.pattern, self.allowed = re.compile(pattern), allowed

    def parse(self, raw: Any) -> str:
        """The text itself."""
        if not isinstance(raw, str) or not self.pattern.fullmatch(raw):
            raise ValueError(raw)
        return raw


class Secret:
    """Visible ASCII text that no message repeats."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.allowed = f"{low} to {high} visible ASCII characters"

    def parse(self, raw: Any) -> str:
        """The text itself."""
        if not isinstance(raw, str) or not re.fullmatch(r"[!-~]+", raw):
            raise ValueError
        if not self.low <= len(raw) <= self.high:
            raise ValueError
        return raw


class Choice:
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words, self.allowed = words, "one of " + ", ".join(words)

    def parse(self, raw: Any) -> str:
        """The word itself."""
        if raw not in self.words:
            raise ValueError(raw)
        return str(raw)


class Number:
    """A number within bounds, both included."""

    def __init__(self, low: float, high: float, *, whole: bool = True) -> None:
        self.low, self.high, self.whole = low, high, whole
        self.allowed = f"a {'whole ' if whole else ''}number from {low} to {high}"

    def parse(self, raw: Any) -> int | float:
        """An int where the setting is whole, else a float."""
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise TypeError(raw)
        if self.whole and isinstance(raw, float):
            raise TypeError(raw)
        value = int(raw) if self.whole else float(raw)
        if not math.isfinite(value) or not self.low <= value <= self.high:
            raise ValueError(raw)
        return value


class Flag:
    """Yes or no."""

    allowed = "true or false"

    def parse(self, raw: Any) -> bool:
        """True for true, yes, on and 1."""
        word = str(raw).lower()
        if word not in _YES + _NO:
            raise ValueError(raw)
        return word in _YES


class PathOf:
    """A path; `~` is the user's home."""

    allowed = "a path"

    def parse(self, raw: Any) -> Path:
        """The path, not yet looked at."""
        if not isinstance(raw, (str, Path)) or not str(raw) or "\0" in str(raw):
            raise ValueError(raw)
        return Path(raw).expanduser()


class ListOf:
    """Several texts of one pattern: a list, or text with separators."""

    def __init__(self, pattern: str, allowed: str, separators: str) -> None:
        self.pattern, self.allowed = re.compile(pattern), allowed
        self.separators = re.compile(f"[{re.escape(separators)}]+")

    def parse(self, raw: Any) -> tuple[str, ...]:
        """The texts in the order given."""
        if isinstance(raw, str):
            raw = [part for part in self.separators.split(raw) if part]
        if not isinstance(raw, (list, tuple)):
            raise TypeError(raw)
        if not all(isinstance(part, str) and self.pattern.fullmatch(part) for part in raw):
            raise ValueError(raw)
        return tuple(raw)


class Pairs:
    """Text by name: a table, or `name=text,...`."""

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed

    def parse(self, raw: Any) -> dict[str, str]:
        """The table."""
        if isinstance(raw, str):
            raw = dict(part.strip().split("=", 1) for part in raw.split(",") if part.strip())
        if not isinstance(raw, Mapping):
            raise TypeError(raw)
        if not all(isinstance(text, str) and text for pair in raw.items() for text in pair):
            raise ValueError(raw)
        return dict(raw)


class Numbers:
    """A number by name, each within bounds, both included."""

    def __init__(self, names: Collection[str], low: float, high: float) -> None:
        self.names, self.number = frozenset(names), Number(low, high, whole=False)
        self.allowed = f"NAME={self.number.allowed}, for " + ", ".join(names)

    def parse(self, raw: Any) -> dict[str, float]:
        """The table."""
        if isinstance(raw, str):
            raw = dict(part.strip().split("=", 1) for part in raw.split(",") if part.strip())
        if not isinstance(raw, Mapping):
            raise TypeError(raw)
        if not self.names.issuperset(raw):
            raise ValueError(raw)
        return {name: self.number.parse(value) for name, value in raw.items()}


class Tables:
    """A table by name."""

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed

    def parse(self, raw: Any) -> dict[str, dict[str, Any]]:
        """The tables; what is in them is checked by who reads them."""
        if isinstance(raw, str):
            try:
                raw = msgspec.json.decode(raw or "{}")
            except msgspec.DecodeError as wrong:
                raise ValueError(raw) from wrong
        if not isinstance(raw, Mapping) or not all(isinstance(t, Mapping) for t in raw.values()):
            raise TypeError(raw)
        return {str(name): dict(table) for name, table in raw.items()}


class RetentionTables(Tables):
    """Rules of retention by type."""

    def parse(self, raw: Any) -> dict[str, dict[str, Any]]:
        """The tables; raises ValueError where one is no rule."""
        tables = super().parse(raw)
        parse_rules(tables)
        return tables
