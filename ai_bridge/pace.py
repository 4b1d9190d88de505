"""How fast to learn where outcomes are late.

Decisions that wait for their outcomes at the same time are judged by nearly the same stretch of the
market. Learning each of D + 1 such outcomes at full rate counts one thing D + 1 times, and weights
swing after what is over: with few outcomes that lost to not learning at all on three of four
recorded markets (docs/consensus.md). So the rate is 1 / (D + 1), with D the usual delay: more than
every tenth outcome that is later slows it down, and a long time in which twice the rate would have
done doubles it. One outcome that comes a year later changes nothing.
"""

from __future__ import annotations

FEW, SHARE = 2, 0.1  # later outcomes that are put up with: two, and every tenth
LONG = 200  # rounds without need for so low a rate, before it is doubled


class Pace:
    """The rate of one game, by the delays of its outcomes: how many others came between."""

    def __init__(self) -> None:
        self.together = 1  # D + 1
        self._rounds = self._later = self._needed = self._least = 0  # since that was changed

    @property
    def rate(self) -> float:
        """What losses are multiplied by, up to 1."""
        return 1.0 / self.together

    def note(self, delay: int) -> None:
        """Take in a delay."""
        self._rounds += 1
        self._needed += 2 * (delay + 1) > self.together
        if delay + 1 > self.together:
            self._later += 1
            self._least = min(delay + 1, self._least or delay + 1)
        if self._later > FEW + SHARE * self._rounds:
            self.together = self._least
            self._forget()
        elif self._rounds >= LONG:
            if self._needed <= SHARE * self._rounds:
                self.together = max(1, self.together // 2)
            self._forget()

    def _forget(self) -> None:
        """Begin to count anew."""
        self._rounds = self._later = self._needed = self._least = 0
