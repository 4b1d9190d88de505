"""What a client sends, as plain values, and how what it receives becomes a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

Json = dict[str, Any]
OnProgress = Callable[[int], None]


def encode(items: Json | Sequence[Json] | bytes) -> tuple[bytes, str]:
    """Body and media type of what is to be stored; bytes are NDJSON already."""
    if isinstance(items, bytes):
        return items, "application/x-ndjson"
    text = json.dumps(items, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(), "application/json"


def bearer(token: str) -> Callable[[Any], Any]:
    """An `auth` of requests that brings the token; a .netrc would replace a mere header."""

    def sign(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign


def without_none(options: Mapping[str, Any]) -> Json:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def routing(options: Json) -> Json:
    """Takes out of the options those that say which node may answer."""
    return {name: options.pop(name) for name in ("consistency", "min_cursor") if name in options}


def params(filters: Mapping[str, Any]) -> Json:
    """Filters as query parameters: booleans in JSON's spelling, lists with commas."""
    return {name: _param(value) for name, value in without_none(filters).items()}


def _param(value: Any) -> Any:
    if isinstance(value, bool):
        return json.dumps(value)
    return ",".join(value) if isinstance(value, list | tuple) else value


def save(
    chunks: Iterable[bytes], target: str | Path | BinaryIO, on_progress: OnProgress | None
) -> int:
    """Write the chunks and return the number of bytes.

    A file named by its path comes into being, or is replaced, only once it is whole.
    """
    if not isinstance(target, str | Path):
        return _write(chunks, target, on_progress)
    part = Path(f"{target}.part")
    try:
        with part.open("wb") as file:
            count = _write(chunks, file, on_progress)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return count


def _write(chunks: Iterable[bytes], file: BinaryIO, on_progress: OnProgress | None) -> int:
    count = 0
    for chunk in chunks:
        file.write(chunk)
        count += len(chunk)
        if on_progress:
            on_progress(count)
    return count
