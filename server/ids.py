"""Ids of requests and decisions: random, and cheap where thousands are given a second."""

from __future__ import annotations

import os
from collections.abc import Iterator

_BYTES, _AT_ONCE = 8, 512


def _drawn() -> Iterator[str]:
    while True:
        pool = os.urandom(_BYTES * _AT_ONCE)  # one call of the system for many
        for at in range(0, len(pool), _BYTES):
            yield pool[at : at + _BYTES].hex()


class Ids:
    """Gives ids of 16 hexadecimal digits. For one thread."""

    def __init__(self) -> None:
        self._drawn = _drawn()

    def __call__(self) -> str:
        """The next one."""
        return next(self._drawn)
