"""Ask all models at once, cut at the deadline, agree, and remember how each of them did."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ai_bridge.asking import Asking, Clock, Guard, Seat, answer, ask
from ai_bridge.breaker import Permit, State
from ai_bridge.calibration import Calibration
from ai_bridge.conformal import DEFAULT_COVERAGE, Cover
from ai_bridge.consensus import Consensus, pool
from ai_bridge.errors import ModelExists, NoModels, UnknownModel
from ai_bridge.experts import Pooled, Rule, counting
from ai_bridge.ledger import Ledger, Score
from ai_bridge.ports import Model, Question
from ai_bridge.record import decision_record
from ai_bridge.settings import ModelSettings
from ai_bridge.started import Started
from ai_bridge.stats import ModelStats
from ai_bridge.votes import Vote


@dataclass(frozen=True, slots=True)
class Decision:
    """One answered question: the consensus and every vote behind it.

    `late` are the models that were still thinking: each ends with a vote, or cancelled.
    """

    question: Question
    consensus: Consensus
    votes: list[Vote]
    pooled: Pooled
    cover: Cover | None
    late: list[asyncio.Task[Vote]] = field(default_factory=list)

    def record(
        self, decision_id: str, *, term: int, context_id: str | None = None
    ) -> dict[str, Any]:
        """Return the decision as plain data, to answer with and to store."""
        return decision_record(
            self.question,
            self.consensus,
            self.votes,
            decision_id=decision_id,
            context_id=context_id,
            term=term,
            pooled=self.pooled,
            cover=self.cover,
        )


class Bridge:
    """Many models, one decision.

    Not for several threads: use it from one event loop. `ledger` holds what outcomes taught; feed
    it by `ledger.apply`, in the order of the log. `rule` says whether decisions use what was
    learned; `coverage` is what the consensus states where nobody asks for another.
    """

    def __init__(
        self,
        models: Sequence[Model],
        settings: Mapping[str, ModelSettings] | None = None,
        *,
        ledger: Ledger | None = None,
        rule: Rule = "learned",
        coverage: float = DEFAULT_COVERAGE,
    ) -> None:
        self.rule: Rule = rule
        self.coverage = coverage
        self._seats: dict[str, Seat] = {}
        self._cut: set[asyncio.Task[Vote]] = set()
        self.ledger = Ledger() if ledger is None else ledger
        for model in models:
            self.add(model, (settings or {}).get(model.name, ModelSettings()))

    def add(
        self, model: Model, settings: ModelSettings, guard: Guard | None = None, digest: str = ""
    ) -> None:
        """Ask this model from now on; raises ModelExists where its name is taken.

        A model outside this process gets a `guard`: circuit breaker, queue and second tries.
        `digest` identifies what it is made of; every vote of it holds that.
        """
        if model.name in self._seats:
            message = f"a model named {model.name!r} is registered already"
            raise ModelExists(message, [{"index": 0, "field": "name", "message": message}])
        if guard is not None:
            guard.limiter.limit = settings.concurrency
        quick = getattr(model, "answer", None) if guard is None else None
        self._seats[model.name] = Seat(model, settings, ModelStats(), guard, digest, quick)

    def remove(self, name: str) -> None:
        """Ask this model no more; what was learned of it stays. Raises UnknownModel."""
        self._seat(name)
        del self._seats[name]

    async def decide(
        self,
        question: Question,
        *,
        deadline_s: float,
        models: Sequence[str] | None = None,
        min_votes: int | None = None,
        late_s: float = 0.0,
        caller: str = "",
        coverage: float | None = None,
        clock: Clock,
    ) -> Decision:
        """Ask the enabled models (or those named) and agree on what answered in time.

        A model that failed too often is not waited for, unless nobody else votes.

        Parameters
        ----------
        deadline_s : seconds after which a missing answer becomes a `timeout`
        models : names to ask; None asks all that are enabled
        min_votes : decide as soon as so many have voted; None waits for all
        late_s : seconds after the deadline for which late models may go on (`Decision.late`)
        caller : who asks; free places of a busy model go to the callers in turn
        coverage : share of decisions whose prediction set is to hold what turns out right
        clock : monotonic seconds, for latencies

        Raises
        ------
        UnknownModel
            `models` names one that is not registered.
        NoModels
            Nobody voted; `detail` and `errors` give each model's reason.
        """
        asked = self._chosen(models)
        asking = Asking(question, clock() + deadline_s, caller, clock)
        asked_now = self._start(asked, asking)
        try:
            await asked_now.wait(asking, min_votes)
        except asyncio.CancelledError:
            self._drop(asked_now.pending())
            raise
        votes = asked_now.votes(asking, deadline_s)
        late = asked_now.pending()
        self._cut_after(late, late_s)
        for vote in votes:
            asked[vote.model].stats.note(vote)
        votes = [self._completed(vote, asked[vote.model]) for vote in votes]
        configured = {name: seat.settings.weight for name, seat in asked.items()}
        pooled = self.ledger.pooled(votes, configured, question.symbols, self.rule)
        consensus, weighed = _agreed(votes, pooled, self._seats)
        target = round(self.coverage if coverage is None else coverage, 2)
        cover = self.ledger.conformal.cover(target)
        return Decision(question, consensus, weighed, pooled, cover, late)

    async def ask(self, name: str, question: Question, *, clock: Clock) -> Vote:
        """One model's vote outside of any decision; what is counted of it stays as it is.

        Raises UnknownModel; what the model does wrong is the vote's status.
        """
        seat = replace(self._seat(name), guard=None)
        asking = Asking(question, clock() + seat.settings.timeout_s, "", clock)
        return await ask(name, seat, asking, "ask")

    def digest(self, name: str) -> str:
        """Digest of what a model is made of, as it was added; raises UnknownModel."""
        return self._seat(name).digest

    def at_once(self, name: str) -> int:
        """How many questions a model takes at a time; raises UnknownModel."""
        seat = self._seat(name)
        return seat.settings.concurrency if seat.guard is not None else 1

    def stats(self, name: str) -> ModelStats:
        """What was observed of a model; raises UnknownModel."""
        return self._seat(name).stats

    def breaker_state(self, name: str) -> State | None:
        """State of a model's circuit breaker, where it has one; raises UnknownModel."""
        guard = self._seat(name).guard
        return guard.breaker.state if guard is not None else None

    def note_late(self, vote: Vote) -> None:
        """Count a vote that came after its decision."""
        if vote.model in self._seats:
            self._seats[vote.model].stats.late += 1

    def names(self) -> list[str]:
        """Every registered model."""
        return list(self._seats)

    def configured(self) -> dict[str, float]:
        """Configured weight of each model that is enabled."""
        settings = {name: seat.settings for name, seat in self._seats.items()}
        return {name: each.weight for name, each in settings.items() if each.enabled}

    def models(self, now: float = 0.0) -> list[dict[str, Any]]:
        """Describe every model: settings, learned weight, calibration, health, counts, latency."""
        return [self.describe(name, now) for name in self._seats]

    def describe(self, name: str, now: float = 0.0) -> dict[str, Any]:
        """Describe one model as of `now` on the clock of `decide`; raises UnknownModel."""
        seat = self._seat(name)
        score = self.ledger.scores.get(name, Score())
        return {
            "name": name,
            "kind": seat.model.kind,
            **seat.settings.as_dict(),
            **_guarding(seat, now),
            "learned_weight": self.ledger.weight(name),
            "calibration": {
                "brier": score.mean,
                "outcomes": score.count,
                **self.ledger.calibrations.get(name, Calibration()).as_dict(),
            },
            **seat.stats.as_dict(),
        }

    def configure(
        self,
        name: str,
        *,
        weight: float | None = None,
        enabled: bool | None = None,
        min_confidence: float | None = None,
        timeout_s: float | None = None,
        concurrency: int | None = None,
    ) -> ModelSettings:
        """Change settings of one model and return them all; None leaves a setting as it is.

        Raises UnknownModel, or InvalidRequest naming the field and value.
        """
        seat = self._seat(name)
        seat.settings = seat.settings.changed(
            weight=weight,
            enabled=enabled,
            min_confidence=min_confidence,
            timeout_s=timeout_s,
            concurrency=concurrency,
        )
        if seat.guard is not None:
            seat.guard.limiter.limit = seat.settings.concurrency
            seat.guard.wake(seat.guard.limiter.admit())
        return seat.settings

    def _seat(self, name: str) -> Seat:
        if name not in self._seats:
            raise UnknownModel(f"no model {name!r}; there are: {', '.join(self._seats)}")
        return self._seats[name]

    def _chosen(self, names: Sequence[str] | None) -> dict[str, Seat]:
        if names is None:
            names = [name for name, seat in self._seats.items() if seat.settings.enabled]
        return {name: replace(self._seat(name)) for name in names}

    def _start(self, asked: Mapping[str, Seat], asking: Asking) -> Started:
        """Ask all at once; who is known to be dead votes `unavailable` without being asked."""
        started = Started(list(asked))
        now = asking.clock()
        for name, seat in asked.items():
            if seat.quick is not None:
                started.answered[name] = answer(name, seat, seat.quick, asking)
                continue
            permit: Permit = "ask"
            if seat.guard is not None:
                permit = seat.guard.breaker.permit(now)
                if permit != "ask":
                    started.dead[name] = seat.guard.breaker.reason(now)
            if permit != "refuse":
                started.tasks[name] = asyncio.create_task(ask(name, seat, asking, permit))
        return started

    def _cut_after(self, late: list[asyncio.Task[Vote]], late_s: float) -> None:
        """Let late models go on for so long, then end them."""
        if late_s <= 0:
            self._drop(late)
            late.clear()
        for task in late:
            self._cut.add(task)
            task.add_done_callback(self._cut.discard)
            asyncio.get_running_loop().call_later(late_s, task.cancel)  # nothing, if it is done

    def _drop(self, late: Iterable[asyncio.Task[Vote]]) -> None:
        """Cancel without waiting: a model that ignores it must not hold up the decision."""
        for task in list(late):
            self._cut.add(task)
            task.add_done_callback(self._cut.discard)
            task.cancel()

    def _completed(self, vote: Vote, seat: Seat) -> Vote:
        """The vote with what identifies its model, and with what it has been worth."""
        vote = msgspec.structs.replace(vote, digest=vote.digest or seat.digest)
        return self.ledger.calibrated(vote)


def _guarding(seat: Seat, now: float) -> dict[str, Any]:
    if seat.guard is None:
        return {"breaker": None, "queue": None}
    limiter = seat.guard.limiter
    return {
        "breaker": seat.guard.breaker.as_dict(now),
        "queue": {"active": limiter.active, "waiting": limiter.waiting},
    }


def _agreed(
    votes: Sequence[Vote], pooled: Pooled, seats: Mapping[str, Seat]
) -> tuple[Consensus, list[Vote]]:
    """The consensus, and the votes with their parts of it; raises NoModels where none counts."""
    counted = counting(votes, pooled.configured)
    if not counted:
        raise _nobody(votes, seats)
    if pooled.rule == "static":
        total = math.fsum(pooled.configured[vote.model] for vote in counted)
        weights = {vote.model: pooled.configured[vote.model] / total for vote in counted}
        weighed = _weighed(votes, weights)
        return pool(weighed), weighed
    consensus = pool(votes, pooled)
    return consensus, _weighed(votes, consensus.weights)


def _weighed(votes: Sequence[Vote], weights: Mapping[str, float]) -> list[Vote]:
    return [msgspec.structs.replace(vote, weight=weights.get(vote.model, 0.0)) for vote in votes]


def _nobody(votes: Sequence[Vote], seats: Mapping[str, Seat]) -> NoModels:
    reasons = {
        vote.model: "its weight is 0" if vote.status == "ok" else f"{vote.status}: {vote.reasoning}"
        for vote in votes
    }
    disabled = [name for name, seat in seats.items() if not seat.settings.enabled]
    reasons = dict.fromkeys(disabled, "disabled") | reasons
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    detail = f"nobody could vote ({listed or 'no models are registered'})"
    return NoModels(
        detail,
        [{"index": i, "field": n, "message": r} for i, (n, r) in enumerate(reasons.items())],
    )
