"""Ask all models at once, cut at the deadline, agree, and remember how each of them did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from ai_bridge.consensus import Consensus, pool
from ai_bridge.errors import Abstained, InvalidRequest, ModelUnavailable, NoModels, UnknownModel
from ai_bridge.ledger import Ledger, Score
from ai_bridge.ports import Model, Question
from ai_bridge.prediction import Prediction
from ai_bridge.record import decision_record
from ai_bridge.settings import ModelSettings
from ai_bridge.stats import ModelStats
from ai_bridge.votes import Status, Vote
from ai_bridge.weights import effective

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Decision:
    """One answered question: the consensus and every vote behind it."""

    question: Question
    consensus: Consensus
    votes: list[Vote]

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
        )


@dataclass(slots=True)
class Seat:
    """A registered model; a question works on a copy, so changes count from the next one."""

    model: Model
    settings: ModelSettings
    stats: ModelStats


class Bridge:
    """Many models, one decision.

    Not for several threads: use it from one event loop. `ledger` holds what outcomes taught; feed
    it by `ledger.apply`, in the order of the log.
    """

    def __init__(
        self,
        models: Sequence[Model],
        settings: Mapping[str, ModelSettings] | None = None,
        *,
        ledger: Ledger | None = None,
    ) -> None:
        self._seats: dict[str, Seat] = {}
        self._cut: set[asyncio.Task[Vote]] = set()
        self.ledger = Ledger() if ledger is None else ledger
        for model in models:
            self.add(model, (settings or {}).get(model.name, ModelSettings()))

    def add(self, model: Model, settings: ModelSettings) -> None:
        """Ask this model from now on; raises InvalidRequest where its name is taken."""
        if model.name in self._seats:
            message = f"a model named {model.name!r} is registered already"
            raise InvalidRequest(message, [{"index": 0, "field": "name", "message": message}])
        self._seats[model.name] = Seat(model, settings, ModelStats())

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
        clock: Clock,
    ) -> Decision:
        """Ask the enabled models (or those named) and agree on what answered in time.

        Parameters
        ----------
        deadline_s : seconds after which a missing answer becomes a `timeout`
        models : names to ask; None asks all that are enabled
        clock : monotonic seconds, for latencies

        Raises
        ------
        UnknownModel
            `models` names one that is not registered.
        NoModels
            Nobody voted; `detail` and `errors` give each model's reason.
        """
        asked = self._chosen(models)
        votes = await self._ask_all(asked, question, deadline_s, clock)
        for vote in votes:
            asked[vote.model].stats.note(vote)
        weighed = self._weigh(votes, asked)
        if not any(vote.weight > 0 for vote in weighed):
            raise _nobody(weighed, self._seats)
        return Decision(question, pool(weighed), weighed)

    def models(self) -> list[dict[str, Any]]:
        """Describe every model: settings, learned weight, calibration, health, counts, latency."""
        return [self.describe(name) for name in self._seats]

    def describe(self, name: str) -> dict[str, Any]:
        """Describe one model; raises UnknownModel."""
        seat = self._seat(name)
        score = self.ledger.scores.get(name, Score())
        return {
            "name": name,
            "kind": seat.model.kind,
            **seat.settings.as_dict(),
            "learned_weight": self.ledger.weight(name),
            "calibration": {"brier": score.mean, "outcomes": score.count},
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
    ) -> ModelSettings:
        """Change settings of one model and return them all; None leaves a setting as it is.

        Raises UnknownModel, or InvalidRequest naming the field and value.
        """
        seat = self._seat(name)
        seat.settings = seat.settings.changed(
            weight=weight, enabled=enabled, min_confidence=min_confidence, timeout_s=timeout_s
        )
        return seat.settings

    def _seat(self, name: str) -> Seat:
        if name not in self._seats:
            raise UnknownModel(f"no model {name!r}; there are: {', '.join(self._seats)}")
        return self._seats[name]

    def _chosen(self, names: Sequence[str] | None) -> dict[str, Seat]:
        if names is None:
            names = [name for name, seat in self._seats.items() if seat.settings.enabled]
        return {name: replace(self._seat(name)) for name in names}

    async def _ask_all(
        self, asked: Mapping[str, Seat], question: Question, deadline_s: float, clock: Clock
    ) -> list[Vote]:
        if not asked:
            return []
        tasks = {
            asyncio.create_task(_ask(name, seat, question, clock)): name
            for name, seat in asked.items()
        }
        started = clock()
        try:
            done, _ = await asyncio.wait(tasks, timeout=deadline_s)
        finally:
            self._drop(task for task in tasks if not task.done())
        late_ms = 1e3 * (clock() - started)
        late = f"no answer within the deadline of {deadline_s:g} s"
        return [
            _counted(task, name)
            if task in done
            else Vote(model=name, status="timeout", latency_ms=late_ms, reasoning=late)
            for task, name in tasks.items()
        ]

    def _drop(self, late: Iterable[asyncio.Task[Vote]]) -> None:
        """Cancel without waiting: a model that ignores it must not hold up the decision."""
        for task in list(late):
            self._cut.add(task)
            task.add_done_callback(self._cut.discard)
            task.cancel()

    def _weigh(self, votes: Sequence[Vote], asked: Mapping[str, Seat]) -> list[Vote]:
        configured = {
            vote.model: asked[vote.model].settings.weight for vote in votes if vote.status == "ok"
        }
        shares = effective(configured, self.ledger.weights)
        return [msgspec.structs.replace(vote, weight=shares.get(vote.model, 0.0)) for vote in votes]


async def _ask(name: str, seat: Seat, question: Question, clock: Clock) -> Vote:
    settings = seat.settings
    started = clock()
    status: Status
    try:
        async with asyncio.timeout(settings.timeout_s):
            prediction = await seat.model.decide(question)
    except Abstained as why:
        status, reason = "abstained", why.detail
    except ModelUnavailable as why:
        status, reason = "unavailable", why.detail
    except TimeoutError:
        status, reason = "timeout", f"no answer within its timeout of {settings.timeout_s:g} s"
    except Exception as fault:  # whatever a model does wrong costs its own vote only
        status, reason = "error", f"{type(fault).__name__}: {fault}"
    else:
        return _voted(name, prediction, settings, 1e3 * (clock() - started))
    latency_ms = 1e3 * (clock() - started)
    return Vote(model=name, status=status, latency_ms=latency_ms, reasoning=reason)


def _voted(name: str, prediction: Prediction, settings: ModelSettings, latency_ms: float) -> Vote:
    if prediction.confidence < settings.min_confidence:
        return Vote(
            model=name,
            status="abstained",
            latency_ms=latency_ms,
            reasoning=f"{prediction.decision} at {prediction.confidence:.3f} is below "
            f"min_confidence {settings.min_confidence:g}",
        )
    return Vote(
        model=name,
        status="ok",
        decision=prediction.decision,
        confidence=prediction.confidence,
        distribution=prediction.distribution,
        latency_ms=latency_ms,
        reasoning=prediction.reasoning,
    )


def _counted(task: asyncio.Task[Vote], name: str) -> Vote:
    if task.cancelled():  # by the model itself: nobody else cancels a task that is done in time
        return Vote(model=name, status="error", reasoning="the model cancelled itself")
    return task.result()


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
