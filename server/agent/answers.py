"""Small helpers that turn values into answers."""

from __future__ import annotations

from typing import Any

import msgspec

from server.ipc import Answer

JSON = {"Content-Type": "application/json"}


def json(value: Any, status: int = 200, **headers: str) -> Answer:
    """A JSON answer; header names are given with underscores."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, {**JSON, **named}, msgspec.json.encode(value))


def encoded(body: bytes, status: int = 200) -> Answer:
    """An answer whose JSON is there already."""
    return Answer(status, dict(JSON), body)
