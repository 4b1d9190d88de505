"""When to stop asking a model that fails, and when to try it again.

    closed     asked. `threshold` failures in a row open it; a success forgets them
    open       refused until the cooldown is over
    half_open  one probe is out, all else is refused: its success closes, its failure opens again
               with twice the cooldown, up to `longest_s`

Pure: the clock is an argument (monotonic seconds), so every history can be played through.

References
----------
Nygard (2007), Release It!, "Circuit Breaker".
"""

from __future__ import annotations

from typing import Any, Literal

State = Literal["closed", "open", "half_open"]
Permit = Literal["ask", "probe", "refuse"]


class Breaker:
    """One model's circuit breaker.

    Each `ask` or `probe` is answered by one `succeeded`, `failed` or `abandoned`, with `probe` as
    it was permitted. Answers of questions that were out when it opened may still come: a success
    closes it, a failure changes nothing.
    """

    def __init__(
        self, *, threshold: int = 3, cooldown_s: float = 1.0, longest_s: float = 60.0
    ) -> None:
        self.threshold, self.shortest_s, self.longest_s = threshold, cooldown_s, longest_s
        self.state: State = "closed"
        self.failures = 0  # in a row
        self.last_error = ""
        self.cooldown_s = cooldown_s
        self.open_until = 0.0

    def permit(self, now: float) -> Permit:
        """Whether the model may be asked now; `probe` is given to one asker at a time."""
        if self.state == "closed":
            return "ask"
        if self.state == "open" and now >= self.open_until:
            self.state = "half_open"
            return "probe"
        return "refuse"

    def succeeded(self) -> None:
        """The model answered: ask it again."""
        self.state, self.failures, self.cooldown_s = "closed", 0, self.shortest_s

    def failed(
        self, now: float, reason: str, *, probe: bool = False, retry_after_s: float | None = None
    ) -> None:
        """The model failed. `retry_after_s` is what it asked for: it opens at once, for so long."""
        self.last_error = reason
        if self.state == "open" or (self.state == "half_open" and not probe):
            return
        self.failures += 1
        if probe:
            self.cooldown_s = min(2 * self.cooldown_s, self.longest_s)
        if retry_after_s is not None:
            self._open(now, min(max(retry_after_s, self.shortest_s), self.longest_s))
        elif probe or self.failures >= self.threshold:
            self._open(now, self.cooldown_s)

    def abandoned(self, now: float, *, probe: bool) -> None:
        """The question ended without a verdict; a probe may be sent again at once."""
        if probe and self.state == "half_open":
            self._open(now, 0.0)

    def reason(self, now: float) -> str:
        """Why it is not asked, in words."""
        wait = max(0.0, self.open_until - now)
        when = "being tried again" if self.state == "half_open" else f"next try in {wait:.1f} s"
        return f"not asked after {self.failures} failures ({when}): {self.last_error}"

    def as_dict(self, now: float) -> dict[str, Any]:
        """Return state, failures in a row, the last error, and seconds to the next try."""
        waiting = self.state == "open"
        return {
            "state": self.state,
            "failures": self.failures,
            "last_error": self.last_error,
            "retry_in_s": round(max(0.0, self.open_until - now), 3) if waiting else None,
        }

    def _open(self, now: float, seconds: float) -> None:
        self.state, self.open_until = "open", now + seconds
