"""Language models: show the question, read the answer strictly, ask once more if it is no vote."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from ai_bridge.adapters.http import Http, Reply
from ai_bridge.answers import parse_answer
from ai_bridge.errors import Abstained, InvalidPrediction, ModelUnavailable
from ai_bridge.ports import Question
from ai_bridge.prediction import Prediction
from ai_bridge.prompting import Message, Templates, messages, repair
from ai_bridge.specs import ModelSpec
from context.tokens import estimate

# The estimate may be a third too low for tokenizers that spend a token on every digit.
SAFE_SHARE = 2 / 3
REPAIR_TOKENS = 128  # what a repair adds, beside the wrong answer


class Backend(Protocol):
    """A server that continues a conversation."""

    async def window(self) -> int:
        """Tokens that question and answer may have together."""
        ...

    async def count(self, text: str) -> int | None:
        """Tokens of a text, or None where the server does not tell."""
        ...

    async def complete(self, asked: list[Message], decisions: tuple[str, ...]) -> str:
        """What the model writes; raises ModelUnavailable, InvalidPrediction or Abstained."""
        ...

    async def health(self) -> str:
        """One line about the server; raises ModelUnavailable where it is not there."""
        ...


class TextModel:
    """A Model behind a Backend."""

    def __init__(self, spec: ModelSpec, backend: Backend, templates: Templates) -> None:
        self.name, self.kind, self.spec = spec.name, spec.kind, spec
        self._backend, self.templates = backend, templates

    def about(self) -> dict[str, Any]:
        """What is shown of it beside its settings."""
        return self.spec.about()

    async def health(self) -> str:
        """One line about the server; raises ModelUnavailable where it is not there."""
        return await self._backend.health()

    async def decide(self, question: Question) -> Prediction:
        """The model's vote; an answer that is none gets one repair attempt."""
        asked = await self._messages(question)
        text = await self._backend.complete(asked, question.decisions)
        try:
            return parse_answer(text, question.decisions)
        except InvalidPrediction as wrong:
            problem = wrong.detail
        again = repair(asked, text, problem, question.decisions, self.templates.repair)
        try:
            text = await self._backend.complete(again, question.decisions)
            return parse_answer(text, question.decisions)
        except InvalidPrediction as wrong:
            detail = f"{wrong.detail} (second attempt; the first: {problem})"
            raise InvalidPrediction(detail) from wrong

    async def _messages(self, question: Question) -> list[Message]:
        """Render within the window; where the server counts tokens, by its count."""
        room = await self._backend.window() - 2 * self.spec.max_answer_tokens - REPAIR_TOKENS
        if room < 1:
            raise Abstained(f"its context window leaves {room} tokens for the question")
        counted = await self._backend.count("")
        budget = room if counted is not None else int(room * SAFE_SHARE)
        while True:
            asked = await self._rendered(question, budget)
            if counted is None:
                return asked
            tokens = await self._backend.count("\n".join(m["content"] for m in asked))
            if tokens is None or tokens <= room:
                return asked
            budget = int(budget * room / tokens * 0.95)

    async def _rendered(self, question: Question, budget: int) -> list[Message]:
        """Render in a thread, for counting takes milliseconds; once for all models alike."""
        key = (messages, budget, self.templates)
        if key not in question.shared:
            work = asyncio.to_thread(messages, question, self.templates, budget, estimate)
            question.shared[key] = asyncio.ensure_future(work)
        rendered: list[Message] = await asyncio.shield(question.shared[key])
        return rendered


async def asked_json(
    http: Http, method: str, url: str, body: Any, headers: Mapping[str, str]
) -> Any:
    """The JSON of a 200; raises for every other status what it means for the vote."""
    reply = await http.call(method, url, body, headers=headers)
    if reply.status != 200:
        raise failure(reply)
    return reply.json()


def failure(reply: Reply) -> ModelUnavailable | InvalidPrediction:
    """What a status that is no success means: nobody there now, or a wrong request."""
    said = f"HTTP {reply.status}: {reply.text()}"
    if 300 <= reply.status < 400:
        return InvalidPrediction(f"HTTP {reply.status}: redirects are not followed")
    if reply.status in (429, 503):
        return ModelUnavailable(said, retry_after_s=_retry_after(reply))
    if reply.status >= 500:
        return ModelUnavailable(said)
    return InvalidPrediction(said)


def _retry_after(reply: Reply) -> float | None:
    """Seconds of `Retry-After`; a date counts as none, the cooldown does then."""
    try:
        return float(int(reply.headers.get("retry-after", "")))
    except ValueError:
        return None
