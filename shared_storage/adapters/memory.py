"""State in memory: for tests, and for what may be forgotten. Durable as long as the process."""

from __future__ import annotations

import builtins
import itertools
import threading

from shared_storage.ports import Versioned
from shared_storage.versions import next_version


class MemoryStateStore:
    """The StateStore port on a dict a kind, each in the order of the last writes."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[str, Versioned]] = {}
        self._lock = threading.Lock()

    def get(self, kind: str, key: str) -> Versioned | None:
        """The value now, or None."""
        with self._lock:
            return self._kinds.get(kind, {}).get(key)

    def put(
        self, kind: str, key: str, value: bytes, *, expected: int | None = None, now: float
    ) -> int:
        """Store the value; see `shared_storage.ports.StateStore`."""
        with self._lock:
            values = self._kinds.setdefault(kind, {})
            current = values.get(key)
            version = next_version(f"{kind} {key}", current.version if current else 0, expected)
            values.pop(key, None)  # a dict keeps the first place of a key that is set again
            values[key] = Versioned(key, version, bytes(value), now)
            return version

    def delete(self, kind: str, key: str) -> bool:
        """Remove the value; False if there was none."""
        with self._lock:
            return self._kinds.get(kind, {}).pop(key, None) is not None

    def list(
        self, kind: str, *, limit: int, newest_first: bool = True, skip: int = 0
    ) -> builtins.list[Versioned]:
        """Up to `limit` values in the order of their last writes, without the first `skip`."""
        with self._lock:
            values = self._kinds.get(kind, {}).values()
            ordered = reversed(values) if newest_first else iter(values)
            return [*itertools.islice(ordered, skip, skip + limit)]

    def prune(self, kind: str, *, keep_newest: int) -> int:
        """Remove all but the last written values and return how many are gone."""
        with self._lock:
            values = self._kinds.get(kind, {})
            old = [*values][: max(0, len(values) - keep_newest)]
            for key in old:
                del values[key]
            return len(old)
