"""A model on another node, which asks it there, on its own context; its vote is taken over."""

from __future__ import annotations

from typing import Any

import msgspec

from ai_bridge.adapters.http import Http, Reply
from ai_bridge.adapters.text_model import failure
from ai_bridge.errors import Abstained, InvalidPrediction, ModelUnavailable
from ai_bridge.ports import Question
from ai_bridge.prediction import DECISIONS, Prediction
from ai_bridge.specs import ModelSpec
from ai_bridge.votes import Vote

MARGIN = 0.9  # of our own patience, so that the other node's answer still arrives


class _Decision(msgspec.Struct):
    votes: list[Vote]


class _Reason(msgspec.Struct):
    field: str
    message: str


class _Problem(msgspec.Struct):
    code: str
    errors: list[_Reason] = []


class RemoteModel:
    """Asks `POST /api/context/ai/decide` of the node at `base_url` for one model's vote."""

    kind = "remote"

    def __init__(self, spec: ModelSpec, http: Http, key: str | None) -> None:
        self.name, self.spec = spec.name, spec
        self._theirs = spec.model or ""
        self._http, self._base = http, (spec.base_url or "").rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def about(self) -> dict[str, Any]:
        """What is shown of it beside its settings."""
        return self.spec.about()

    async def health(self) -> str:
        """Whether the other node is ready."""
        reply = await self._http.call("GET", f"{self._base}/readyz", headers=self._headers)
        if reply.status != 200:
            raise failure(reply)
        return "ready"

    async def decide(self, question: Question) -> Prediction:
        """Their model's vote."""
        body: dict[str, Any] = {
            "symbols": list(question.symbols),
            "context": dict(question.context),
            "models": [self._theirs],
            "deadline_ms": max(1, int(self.spec.timeout_s * MARGIN * 1000)),
        }
        if question.decisions != DECISIONS:
            body["decisions"] = list(question.decisions)
        url = f"{self._base}/api/context/ai/decide"
        reply = await self._http.call("POST", url, body, headers=self._headers)
        if reply.status != 200:
            raise self._refusal(reply)
        try:
            votes = msgspec.json.decode(reply.body, type=_Decision).votes
        except msgspec.MsgspecError as wrong:
            raise InvalidPrediction(f"the other node's decision cannot be read: {wrong}") from wrong
        vote = next((vote for vote in votes if vote.model == self._theirs), None)
        if vote is None or vote.distribution is None:
            raise InvalidPrediction(f"the other node's decision has no vote of {self._theirs!r}")
        return Prediction(vote.distribution, vote.reasoning, question.decisions)

    def _refusal(self, reply: Reply) -> Exception:
        """Nobody voted there: say why, as their model would have said it here."""
        try:
            problem = msgspec.json.decode(reply.body, type=_Problem)
        except msgspec.MsgspecError:
            return failure(reply)
        why = next((e.message for e in problem.errors if e.field == self._theirs), None)
        if problem.code != "no_models" or why is None:
            return failure(reply)
        status, _, reason = why.partition(": ")
        if status == "abstained":
            return Abstained(reason)
        return ModelUnavailable(f"at {self._base}: {why}")
