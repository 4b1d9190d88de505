"""Threads that are used again: a new one costs 0.1 ms and more, a green one too."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

log = logging.getLogger(__name__)
MOST_IDLE = 32


class _Worker:
    """One thread, while nothing is to do."""

    def __init__(self) -> None:
        self.call: Callable[[], Any]
        self.lock = threading.Lock()  # free once `call` is to be done
        self.lock.acquire()


class Workers:
    """As many threads as there are calls at a time; some stay for those to come."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []

    def start(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call in a thread, now."""
        call = partial(target, *args, **kwargs)
        try:
            worker = self._idle.pop()
        except IndexError:
            threading.Thread(target=self._work, args=(call,), daemon=True).start()
        else:
            worker.call = call
            worker.lock.release()

    def _work(self, call: Callable[[], Any]) -> None:
        worker = _Worker()
        while True:
            try:
                call()
            except Exception:
                log.exception("a call failed")
            del call  # what it holds is not kept while nothing is to do
            if len(self._idle) >= MOST_IDLE:
                return
            self._idle.append(worker)
            worker.lock.acquire()
            call = worker.call
            del worker.call
