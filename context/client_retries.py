"""When a client tries again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from context.client_errors import ClientError

OnRetry = Callable[[ClientError, float], None]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3.0


class Retries:
    """Growing, jittered pauses until a deadline that starts with the first failure in a row."""

    def __init__(self, give_up_after_s: float | None, on_retry: OnRetry | None) -> None:
        self._give_up_after_s = float("inf") if give_up_after_s is None else give_up_after_s
        self._on_retry = on_retry
        self.reset()

    def reset(self) -> None:
        """Start over after a success."""
        self._deadline: float | None = None
        self._pause_s = _FIRST_PAUSE_S

    def wait(self, error: ClientError) -> None:
        """Pause before the next try, or raise `error` where trying again is no use."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._give_up_after_s
        pause_s = max(self._pause_s * random.uniform(0.5, 1), min(error.retry_after_s, 30.0))
        if not error.retryable or now + pause_s > self._deadline:
            raise error
        if self._on_retry:
            self._on_retry(error, pause_s)
        time.sleep(pause_s)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
