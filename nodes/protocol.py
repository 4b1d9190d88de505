"""Which version of the program speaks, and which of them work together."""

from __future__ import annotations

PROTOCOL = 1  # grows by one with every change that the previous version cannot read


def near(one: int, other: int) -> bool:
    """Whether nodes of these versions understand each other."""
    return abs(one - other) <= 1
