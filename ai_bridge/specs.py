"""What a user says to add a model: `POST /api/context/ai/models`, or `[models.NAME]` in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from ai_bridge.errors import InvalidRequest
from ai_bridge.requests import parse
from ai_bridge.settings import ModelSettings

DEFAULT_TIMEOUT_S = 30.0
_NAME = r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
_PORTS = {"http": 80, "https": 443}


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model to register.

    `kind` says what it is and which of the others it needs. `model` is the model's name at the
    server (openai, koboldcpp: optional there), at the other node (remote), the registered class
    (custom), or the folder below `models/` (torch). `api_key_env` names the environment variable
    that holds the key; the key itself is never kept. `prompt` names a prompt template.
    """

    name: Annotated[str, Meta(pattern=_NAME)]
    kind: str
    base_url: Annotated[str, Meta(max_length=1000)] | None = None
    model: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    weight: float = 1.0
    min_confidence: float = 0.0
    context_window: Annotated[int, Meta(ge=512, le=10_000_000)] | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    enabled: bool = True
    concurrency: int = 4
    api_key_env: Annotated[str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,127}\Z")] | None = None
    prompt: Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_-]{0,63}\Z")] = "default"
    max_answer_tokens: Annotated[int, Meta(ge=16, le=32_768)] = 512

    def settings(self) -> ModelSettings:
        """What can be changed later; raises InvalidRequest naming the field and value."""
        return ModelSettings(
            weight=self.weight,
            enabled=self.enabled,
            min_confidence=self.min_confidence,
            timeout_s=self.timeout_s,
            concurrency=self.concurrency,
        )

    def about(self) -> dict[str, Any]:
        """What `GET /api/context/ai/models` shows of it beside the settings."""
        shown = ("base_url", "model", "context_window", "api_key_env", "prompt")
        return {name: getattr(self, name) for name in shown}

    def need(self, *fields: str) -> None:
        """Raise InvalidRequest where one of these fields is missing."""
        for field in fields:
            if getattr(self, field) is None:
                raise refused(field, f"is needed by a model of kind {self.kind!r}")


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a base URL.

    Raises InvalidRequest for what is not plain http(s): a user name or a query could hold a secret,
    which would be stored and shown.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as wrong:
        raise refused("base_url", f"is not a URL: {wrong}") from wrong
    if parts.scheme not in _PORTS or not parts.hostname:
        raise refused("base_url", f"must begin with http:// or https:// and a host, got {url!r}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise refused("base_url", "must not hold a user name, a query or a fragment")
    if not url.isascii() or any(char <= " " for char in url):
        raise refused("base_url", "must be ASCII without spaces")
    return parts.scheme, parts.hostname, port


def refused(field: str, problem: str) -> InvalidRequest:
    """The error of one field."""
    message = f"{field} {problem}"
    return InvalidRequest(message, [{"index": 0, "field": field, "message": message}])


def of_table(name: str, table: Mapping[str, Any]) -> ModelSpec:
    """Read `[models.NAME]` of a settings file; raises InvalidRequest that names the model."""
    try:
        spec = parse({**table, "name": name}, ModelSpec)
        spec.settings()
        if spec.base_url is not None:
            origin(spec.base_url)
    except InvalidRequest as wrong:
        raise InvalidRequest(f"models.{name}: {wrong.detail}", wrong.errors) from wrong
    return spec
