"""Compare-and-set: the rule that every engine of the StateStore applies."""

from __future__ import annotations

from shared_storage.errors import VersionConflict


def next_version(name: str, current: int, expected: int | None) -> int:
    """The version that a write gives; `current` is 0 where there is no value.

    Raises VersionConflict unless `expected` is None or the current version.
    """
    if expected is not None and expected != current:
        raise VersionConflict(f"{name} is at version {current}, not {expected}; read it again")
    return current + 1
