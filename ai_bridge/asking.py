"""Ask one model one question, well: in its turn, for a bounded time, twice if that helps.

A `Guard` stands before a model outside this process. It refuses at once while the model is known
to be dead (`breaker`), holds questions until a place is free (`limiter`), and knows how long
answers take (`latencies`): a second try starts after the 95th percentile, and the first answer
counts.

What counts as a failure: an error, an absent server, the model's own time-out, and no answer
within `patience_s`, which does not depend on how little time the asker gave. A late answer is an
answer. An abstention is one too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from ai_bridge.breaker import Breaker, Permit
from ai_bridge.errors import Abstained, BridgeError, ModelUnavailable
from ai_bridge.latency import Latencies
from ai_bridge.limiter import Limiter, Ticket
from ai_bridge.ports import Model, Question
from ai_bridge.prediction import Prediction, check_distribution
from ai_bridge.settings import ModelSettings
from ai_bridge.stats import ModelStats
from ai_bridge.votes import Status, Vote

Clock = Callable[[], float]


@dataclass(slots=True)
class Guard:
    """State that protects a model, and the askers from it."""

    breaker: Breaker = field(default_factory=Breaker)
    limiter: Limiter = field(default_factory=lambda: Limiter(4))
    latencies: Latencies = field(default_factory=Latencies)
    admissions: dict[Ticket, asyncio.Event] = field(default_factory=dict)

    def release(self, ticket: Ticket) -> None:
        """Give a place back and wake who is next."""
        self.admissions.pop(ticket, None)
        self.wake(self.limiter.leave(ticket))

    def wake(self, admitted: list[Ticket]) -> None:
        """Tell tickets that they were admitted."""
        for ticket in admitted:
            self.admissions[ticket].set()


@dataclass(slots=True)
class Seat:
    """A registered model; a question works on a copy, so changes count from the next one."""

    model: Model
    settings: ModelSettings
    stats: ModelStats
    guard: Guard | None = None
    digest: str = ""  # of its configuration; weights that change come with the answers
    quick: Callable[[Question], Prediction] | None = None  # `Quick.answer`, where it has one


@dataclass(frozen=True, slots=True)
class Asking:
    """What holds for all models of one question; `deadline` is on `clock`."""

    question: Question
    deadline: float
    caller: str
    clock: Clock


class _Cancelled(Exception):
    """The model cancelled itself."""


async def ask(name: str, seat: Seat, asking: Asking, permit: Permit) -> Vote:
    """One model's vote; never raises but when cancelled."""
    started = asking.clock()
    try:
        if seat.guard is None:
            async with asyncio.timeout(seat.settings.timeout_s):
                prediction = await seat.model.decide(asking.question)
        else:
            prediction = await _guarded(seat, seat.guard, asking, probe=permit == "probe")
        check_distribution(prediction.distribution, asking.question.decisions)
    except Exception as fault:  # whatever a model does wrong costs its own vote only
        return _silent(name, fault, seat, 1e3 * (asking.clock() - started))
    return _voted(name, prediction, seat, 1e3 * (asking.clock() - started))


def answer(name: str, seat: Seat, quick: Callable[[Question], Prediction], asking: Asking) -> Vote:
    """The vote of a model that answers at once; never raises."""
    started = asking.clock()
    try:
        prediction = quick(asking.question)
        check_distribution(prediction.distribution, asking.question.decisions)
    except Exception as fault:
        return _silent(name, fault, seat, 1e3 * (asking.clock() - started))
    return _voted(name, prediction, seat, 1e3 * (asking.clock() - started))


def _silent(name: str, fault: Exception, seat: Seat, latency_ms: float) -> Vote:
    """A vote without an answer, and why."""
    status, reason = _why(fault, seat)
    return Vote(
        model=name, status=status, latency_ms=latency_ms, reasoning=reason, digest=seat.digest
    )


def _why(fault: Exception, seat: Seat) -> tuple[Status, str]:
    match fault:
        case Abstained():
            return "abstained", fault.detail
        case ModelUnavailable():
            return "unavailable", fault.detail
        case TimeoutError():
            late = f"no answer within its timeout of {seat.settings.timeout_s:g} s"
            return "timeout", str(fault) or late
        case _Cancelled():
            return "error", str(fault)
    return "error", _told(fault)


async def _guarded(seat: Seat, guard: Guard, asking: Asking, *, probe: bool) -> Prediction:
    """Wait for a place, ask, and tell the breaker how it went."""
    try:
        ticket = await _admitted(guard, asking)
    except BaseException:
        guard.breaker.abandoned(asking.clock(), probe=probe)
        raise
    attempt = _Attempt(seat, guard, asking, probe)
    try:
        return await attempt.run()
    finally:
        guard.release(ticket)


async def _admitted(guard: Guard, asking: Asking) -> Ticket:
    ticket = guard.limiter.enter(asking.caller)
    if ticket is None:
        raise ModelUnavailable(f"{guard.limiter.waiting} questions wait for this model already")
    if ticket.admitted:
        return ticket
    guard.admissions[ticket] = admitted = asyncio.Event()
    try:
        async with asyncio.timeout(asking.deadline - asking.clock()):
            await admitted.wait()
    except BaseException as ended:
        guard.release(ticket)
        if isinstance(ended, TimeoutError):
            raise TimeoutError("its turn did not come before the deadline") from ended
        raise
    return ticket


class _Attempt:
    """One admitted question: one or two tries at it."""

    def __init__(self, seat: Seat, guard: Guard, asking: Asking, probe: bool) -> None:
        self._seat, self._guard, self._asking, self._probe = seat, guard, asking, probe
        self._blamed = False  # the breaker has been told
        self._tries: set[asyncio.Task[Prediction]] = set()

    async def run(self) -> Prediction:
        """The first answer of the tries; raises what the last of them raised."""
        clock, breaker = self._asking.clock, self._guard.breaker
        started = clock()
        try:
            async with asyncio.timeout(self._seat.settings.timeout_s):
                prediction = await self._first(started)
        except Abstained:
            breaker.succeeded()
            raise
        except TimeoutError:
            self._blame("timeout")
            raise
        except Exception as fault:
            self._blame(_told(fault), getattr(fault, "retry_after_s", None))
            raise
        except asyncio.CancelledError:
            if not self._blamed:
                breaker.abandoned(clock(), probe=self._probe)
            raise
        finally:
            for task in self._tries:
                if not task.cancel() and not task.cancelled():
                    task.exception()  # looked at, though nobody wants it
        self._guard.latencies.add(clock() - started)
        breaker.succeeded()
        return prediction

    async def _first(self, started: float) -> Prediction:
        clock, latencies = self._asking.clock, self._guard.latencies
        patience, hedge = latencies.patience_s(), latencies.hedge_after_s()
        self._try()
        while True:
            marks = [mark for mark in (hedge, None if self._blamed else patience) if mark]
            wait = max(0.0, started + min(marks) - clock()) if marks else None
            done, _ = await asyncio.wait(
                self._tries, timeout=wait, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                self._tries.discard(task)
                if not self._tries or _answered(task):
                    return _result(task)
            out = clock() - started
            if hedge is not None and out >= hedge:
                hedge = None
                if not self._probe and latencies.spend():
                    self._try()
            if not self._blamed and out >= patience:
                self._blame(f"no answer for {out:.1f} s")

    def _try(self) -> None:
        question = self._asking.question
        self._tries.add(asyncio.create_task(_decide(self._seat.model, question)))

    def _blame(self, reason: str, retry_after_s: float | None = None) -> None:
        if not self._blamed:
            self._blamed = True
            self._guard.breaker.failed(
                self._asking.clock(), reason, probe=self._probe, retry_after_s=retry_after_s
            )


async def _decide(model: Model, question: Question) -> Prediction:
    return await model.decide(question)


def _answered(task: asyncio.Task[Prediction]) -> bool:
    """Whether this try settles the question; an abstention does, a fault leaves it to the other."""
    return not task.cancelled() and (
        task.exception() is None or isinstance(task.exception(), Abstained)
    )


def _result(task: asyncio.Task[Prediction]) -> Prediction:
    if task.cancelled():  # by the model itself: tries are cancelled only after the question
        raise _Cancelled("the model cancelled itself")
    return task.result()


def _told(fault: BaseException) -> str:
    if isinstance(fault, BridgeError):
        return fault.detail
    return f"{type(fault).__name__}: {fault}"


def _voted(name: str, prediction: Prediction, seat: Seat, latency_ms: float) -> Vote:
    settings, digest = seat.settings, prediction.digest or seat.digest
    if prediction.confidence < settings.min_confidence:
        return Vote(
            model=name,
            status="abstained",
            latency_ms=latency_ms,
            reasoning=f"{prediction.decision} at {prediction.confidence:.3f} is below "
            f"min_confidence {settings.min_confidence:g}",
            digest=digest,
        )
    return Vote(
        model=name,
        status="ok",
        decision=prediction.decision,
        confidence=prediction.confidence,
        distribution=prediction.distribution,
        latency_ms=latency_ms,
        reasoning=prediction.reasoning,
        digest=digest,
    )
