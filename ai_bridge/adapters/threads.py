"""Work in threads that nobody waits for when the process ends.

A pool's threads are joined at exit, so one that hangs in a resolver or in a user's model would keep
the whole node from stopping.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ai_bridge.errors import ModelUnavailable

T = TypeVar("T")


class DaemonThreads:
    """At most `limit` threads at a time, one a call."""

    def __init__(self, name: str, limit: int) -> None:
        self._name, self._limit, self._running = name, limit, 0

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Run the work in a thread; raises ModelUnavailable where too many still run.

        A cancelled call leaves its thread behind until the work ends by itself.
        """
        if self._running >= self._limit:
            raise ModelUnavailable(f"{self._name}: {self._running} earlier calls still run")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def finish(value: Any, fault: BaseException | None) -> None:
            self._running -= 1
            if done.cancelled():
                return
            if fault is None:
                done.set_result(value)
            else:
                done.set_exception(fault)

        def body() -> None:
            value, fault = None, None
            try:
                value = work(*args)
            except Exception as raised:
                fault = raised
            except BaseException as raised:  # StopIteration and exits do not fit into a future
                fault = RuntimeError(f"{type(raised).__name__}: {raised}")
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, value, fault)

        self._running += 1
        threading.Thread(target=body, name=self._name, daemon=True).start()
        return await done
