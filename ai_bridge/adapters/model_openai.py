"""Any OpenAI-compatible server: OpenAI, vLLM, llama.cpp, Ollama, LM Studio, LiteLLM and so on.

Asks `/chat/completions` below the base URL without streaming. The answer's form is asked for as a
JSON Schema; where the server refuses that, as any JSON object; where it refuses that too, by the
prompt alone. A `max_tokens` or `temperature` that it refuses by name is renamed or left out, as
some models want it. What a server took is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_bridge.adapters.http import Http, Reply
from ai_bridge.adapters.text_model import asked_json, failure
from ai_bridge.answers import schema
from ai_bridge.errors import Abstained, InvalidPrediction
from ai_bridge.prompting import Message
from ai_bridge.specs import ModelSpec

DEFAULT_WINDOW = 8192
FORMS = ("json_schema", "json_object", "text")
# How servers refuse a response_format they do not know.
MAX_COMPLAINT = 2000
REFUSALS = (400, 415, 422, 501)


class OpenAIBackend:
    """Speaks chat completions."""

    def __init__(self, spec: ModelSpec, http: Http, key: str | None) -> None:
        self._spec, self._http = spec, http
        base = (spec.base_url or "").rstrip("/")
        self._base = base if base.endswith("/v1") else f"{base}/v1"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._form = 0
        self._refused: set[str] = set()

    async def window(self) -> int:
        """As configured; the protocol has no way to ask."""
        return self._spec.context_window or DEFAULT_WINDOW

    async def count(self, text: str) -> int | None:
        """None: the protocol has no way to ask."""
        return None

    async def health(self) -> str:
        """How many models the server lists."""
        listed = await asked_json(self._http, "GET", f"{self._base}/models", None, self._headers)
        models = listed.get("data") if isinstance(listed, Mapping) else None
        return f"{len(models) if isinstance(models, list) else 0} models"

    async def complete(self, asked: list[Message], decisions: tuple[str, ...]) -> str:
        """The text of the first choice."""
        url = f"{self._base}/chat/completions"
        form = self._form
        while True:
            body = self._body(asked, decisions, FORMS[form])
            reply = await self._http.call("POST", url, body, headers=self._headers)
            if reply.status == 200:
                self._form = form
                return _text(reply.json())
            if reply.status not in REFUSALS:
                raise failure(reply)
            if not self._gave_in(reply):
                form += 1
            if form == len(FORMS):
                raise failure(reply)

    def _gave_in(self, reply: Reply) -> bool:
        """Whether the refusal names an option that can go."""
        said = reply.body[:MAX_COMPLAINT].decode(errors="replace")
        for option in ("max_tokens", "temperature"):
            if f"'{option}'" in said and option not in self._refused:
                self._refused.add(option)
                return True
        return False

    def _body(self, asked: list[Message], decisions: tuple[str, ...], form: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": asked,
            "stream": False,
        }
        renamed = "max_tokens" in self._refused
        body["max_completion_tokens" if renamed else "max_tokens"] = self._spec.max_answer_tokens
        if "temperature" not in self._refused:
            body["temperature"] = 0
        if self._spec.model:
            body["model"] = self._spec.model
        if form == "json_schema":
            described = {"name": "vote", "strict": True, "schema": schema(decisions)}
            body["response_format"] = {"type": form, "json_schema": described}
        elif form == "json_object":
            body["response_format"] = {"type": form}
        return body


def _text(answer: Any) -> str:
    try:
        message = answer["choices"][0]["message"]
        content, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError) as wrong:
        raise InvalidPrediction("the server's answer is not a chat completion") from wrong
    if refusal:
        raise Abstained(f"the model refused: {str(refusal)[:200]}")
    if not isinstance(content, str):
        raise InvalidPrediction("the server's answer holds no text")
    return content
