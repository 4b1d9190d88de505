"""KoboldCPP by its native API: generation, the true context length, and its own token count.

The protocol knows no roles, so the conversation is written out in the Alpaca form, which is
KoboldCPP's own default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_bridge.adapters.http import Http
from ai_bridge.adapters.text_model import asked_json
from ai_bridge.errors import InvalidPrediction, ModelUnavailable
from ai_bridge.prompting import Message
from ai_bridge.specs import ModelSpec

_MARKS = {
    "system": "{}\n",
    "user": "\n### Instruction:\n{}\n",
    "assistant": "\n### Response:\n{}\n",
}
_STOP = ["### Instruction:", "### Response:"]


class KoboldBackend:
    """Speaks `/api/v1/generate` and its neighbours."""

    def __init__(self, spec: ModelSpec, http: Http, key: str | None) -> None:
        self._spec, self._http = spec, http
        self._base = (spec.base_url or "").rstrip("/").removesuffix("/api")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._window: int | None = None

    async def window(self) -> int:
        """What the server was started with, at most what is configured."""
        if self._window is None:
            told = await self._number("GET", "/api/extra/true_max_context_length", None)
            self._window = min(told, self._spec.context_window or told)
        return self._window

    async def count(self, text: str) -> int | None:
        """Tokens by the loaded model's tokenizer."""
        if not text:
            return 0
        return await self._number("POST", "/api/extra/tokencount", {"prompt": text})

    async def health(self) -> str:
        """The loaded model's name. Asked anew, for another may have been loaded."""
        self._window = None
        return str(await self._field("GET", "/api/v1/model", None, "result"))

    async def complete(self, asked: list[Message], decisions: tuple[str, ...]) -> str:
        """The generated text."""
        body = {
            "prompt": written_out(asked),
            "max_context_length": await self.window(),
            "max_length": self._spec.max_answer_tokens,
            "temperature": 0.01,  # 0 means "default" to some versions
            "stop_sequence": _STOP,
            "trim_stop": True,
            "quiet": True,
        }
        try:
            results = await self._field("POST", "/api/v1/generate", body, "results")
        except (InvalidPrediction, ModelUnavailable):
            self._window = None  # it may come back with another model
            raise
        try:
            text = results[0]["text"]
        except (KeyError, IndexError, TypeError) as wrong:
            raise InvalidPrediction("the server's answer is not a generation") from wrong
        if not isinstance(text, str):
            raise InvalidPrediction("the server's answer holds no text")
        return text

    async def _number(self, method: str, path: str, body: Any) -> int:
        value = await self._field(method, path, body, "value")
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InvalidPrediction(f"{path} answered {value!r:.80}, not a count")
        return value

    async def _field(self, method: str, path: str, body: Any, field: str) -> Any:
        url = f"{self._base}{path}"
        answer = await asked_json(self._http, method, url, body, self._headers)
        if not isinstance(answer, Mapping) or field not in answer:
            raise InvalidPrediction(f"{path} answered without {field!r}")
        return answer[field]


def written_out(asked: list[Message]) -> str:
    """A conversation as one text that ends where the model goes on."""
    said = "".join(_MARKS[each["role"]].format(each["content"]) for each in asked)
    return f"{said}\n### Response:\n"
