"""Compiles standing queries in the background while batches go on being matched."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from context.standing import Built, Compilation, StandingSet

Offload = Callable[[Callable[[], Built]], Built]


class StandingCompiler:
    """Keeps a set's databases up to date.

    `lock` guards the set: whoever adds, removes or matches holds it. `offload` runs its argument in
    a thread of the operating system and returns the result: where threads are green, a compilation
    of seconds would stop them all.
    """

    def __init__(
        self,
        standing: StandingSet,
        lock: AbstractContextManager[object],
        offload: Offload = lambda work: work(),
    ) -> None:
        self._standing, self._lock, self._offload = standing, lock, offload

    def wake(self) -> None:
        """Compile what is due, after queries were added or removed. Call without the lock."""
        while True:
            with self._lock:
                compilation = self._standing.due()
            if compilation is None:
                return
            threading.Thread(target=self._work, args=(compilation,), daemon=True).start()

    def _work(self, compilation: Compilation) -> None:
        built = self._offload(compilation.run)
        with self._lock:
            self._standing.install(built)
        self.wake()
