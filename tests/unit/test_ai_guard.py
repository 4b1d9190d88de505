"""The circuit breaker, the fair queue and the latencies: played through with a clock of our own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ai_bridge.breaker import Breaker
from ai_bridge.latency import FIRST_PATIENCE_S, MIN_SAMPLES, Latencies
from ai_bridge.limiter import Limiter, Ticket

# --- breaker --------------------------------------------------------------------------------


def test_three_failures_open_it_and_one_probe_at_a_time_closes_it() -> None:
    breaker = Breaker(cooldown_s=1, longest_s=4)
    for _ in range(2):
        assert breaker.permit(0) == "ask"
        breaker.failed(0, "down")
    breaker.succeeded()
    for _ in range(3):
        assert breaker.permit(0) == "ask"
        breaker.failed(0, "down")
    assert (breaker.state, breaker.permit(0.99)) == ("open", "refuse")
    assert "not asked after 3 failures (next try in 1.0 s): down" in breaker.reason(0)
    assert [breaker.permit(1), breaker.permit(1)] == ["probe", "refuse"]
    now = 1.0
    for cooldown in (2, 4, 4):  # grows, but not for ever
        breaker.failed(now, "still down", probe=True)
        assert breaker.permit(now + cooldown - 0.01) == "refuse"
        now += cooldown
        assert breaker.permit(now) == "probe"
    breaker.succeeded()
    assert breaker.permit(now) == "ask"
    assert breaker.as_dict(now) == {
        "state": "closed", "failures": 0, "last_error": "still down", "retry_in_s": None,
    }  # fmt: skip


def test_a_server_that_says_when_is_left_alone_until_then() -> None:
    breaker = Breaker(longest_s=60)
    breaker.failed(0, "429", retry_after_s=30)
    assert (breaker.permit(29.9), breaker.permit(30)) == ("refuse", "probe")
    breaker.failed(30, "429", probe=True, retry_after_s=1e9)
    assert (breaker.permit(89.9), breaker.permit(90)) == ("refuse", "probe")


class BreakerPlayed(RuleBasedStateMachine):
    """Any order of questions, verdicts and time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(threshold=3, cooldown_s=1, longest_s=8)
        self.now = 0.0
        self.asked = 0
        self.probes = 0
        self.row = 0  # failures in a row while it was closed

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        due = self.breaker.state == "open" and self.now >= self.breaker.open_until
        closed = self.breaker.state == "closed"
        permit = self.breaker.permit(self.now)
        assert permit == ("ask" if closed else "probe" if due else "refuse")
        self.asked += permit == "ask"
        self.probes += permit == "probe"

    @precondition(lambda self: self.asked)
    @rule(ok=st.booleans())
    def ordinary_verdict(self, ok: bool) -> None:
        self.asked -= 1
        closed = self.breaker.state == "closed"
        if ok:
            self.breaker.succeeded()
            self.probes, self.row = 0, 0  # whatever a probe says now is an ordinary verdict
            assert self.breaker.state == "closed"
        else:
            self.breaker.failed(self.now, "no")
            self.row += closed
            if closed:
                assert (self.breaker.state == "open") == (self.row >= 3)

    @precondition(lambda self: self.probes)
    @rule(verdict=st.sampled_from(["ok", "failed", "abandoned"]))
    def probe_verdict(self, verdict: str) -> None:
        self.probes -= 1
        before = self.breaker.cooldown_s
        if verdict == "ok":
            self.breaker.succeeded()
            self.row = 0
            assert self.breaker.state == "closed"
        elif verdict == "failed":
            self.breaker.failed(self.now, "no", probe=True)
            assert self.breaker.cooldown_s == min(2 * before, 8)
            assert self.breaker.open_until == self.now + self.breaker.cooldown_s
        else:
            self.breaker.abandoned(self.now, probe=True)
            assert self.breaker.permit(self.now) == "probe"
            self.probes += 1

    @invariant()
    def one_probe_and_bounded_cooldown(self) -> None:
        assert self.probes <= 1
        assert (self.breaker.state == "half_open") == (self.probes == 1)
        assert 1 <= self.breaker.cooldown_s <= 8
        assert self.breaker.open_until <= self.now + 8


TestBreakerPlayed = BreakerPlayed.TestCase

# --- limiter --------------------------------------------------------------------------------


class LimiterPlayed(RuleBasedStateMachine):
    """Callers come, wait, give up and leave in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.limiter = Limiter(2, max_waiting=5)
        self.inside: list[Ticket] = []
        self.outside: list[Ticket] = []

    @rule(caller=st.sampled_from("abc"))
    def enter(self, caller: str) -> None:
        ticket = self.limiter.enter(caller)
        if ticket is None:
            assert len(self.outside) == 5
        else:
            (self.inside if ticket.admitted else self.outside).append(ticket)

    @precondition(lambda self: self.inside)
    @rule(pick=st.integers(0, 10))
    def leave(self, pick: int) -> None:
        self._admitted(self.limiter.leave(self.inside.pop(pick % len(self.inside))))

    @precondition(lambda self: self.outside)
    @rule(pick=st.integers(0, 10))
    def give_up(self, pick: int) -> None:
        assert self.limiter.leave(self.outside.pop(pick % len(self.outside))) == []

    @rule(limit=st.integers(1, 4))
    def resize(self, limit: int) -> None:
        self.limiter.limit = limit
        self._admitted(self.limiter.admit())

    def _admitted(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            mine = [each for each in self.outside if each.caller == ticket.caller]
            assert mine[0] is ticket  # first come, first served for each caller
            self.outside.remove(ticket)
            self.inside.append(ticket)

    @invariant()
    def counts_agree_and_no_place_is_wasted(self) -> None:
        assert self.limiter.active == len(self.inside)
        assert self.limiter.waiting == len(self.outside)
        assert not self.outside or self.limiter.active >= self.limiter.limit
        assert all(ticket.admitted for ticket in self.inside)


TestLimiterPlayed = LimiterPlayed.TestCase


@given(st.integers(1, 50))
def test_a_crowd_of_one_caller_does_not_delay_the_others(crowd: int) -> None:
    limiter = Limiter(1, max_waiting=100)
    last = limiter.enter("crowd")
    for _ in range(crowd):
        limiter.enter("crowd")
    mine = limiter.enter("me")
    assert last is not None
    turns = 0
    while mine is not None and not mine.admitted:
        (last,) = limiter.leave(last)
        turns += 1
    assert turns <= 2


# --- latencies ------------------------------------------------------------------------------


def test_percentiles_patience_and_second_tries() -> None:
    latencies = Latencies()
    assert latencies.percentile(0.5) is None
    assert latencies.patience_s() == FIRST_PATIENCE_S
    for n in range(1, 101):
        assert (latencies.hedge_after_s() is None) == (n <= MIN_SAMPLES)
        latencies.add(float(n))
    assert latencies.percentile(0.5) == 50
    assert latencies.percentile(0.95) == latencies.hedge_after_s() == 95
    assert latencies.percentile(0.99) == 99
    assert latencies.patience_s() == 3 * 95
    tries = sum(latencies.spend() for _ in range(100))
    assert tries == 5  # saved up, but not more
    for _ in range(100):
        latencies.hedge_after_s()
        tries += latencies.spend()
    assert 13 <= tries <= 15  # every tenth question
