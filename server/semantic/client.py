"""The agent's side of the worker: one short connection a request, so that nothing can get stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai_bridge.adapters.frames import BadFrame, frame, read_frame
from context.errors import ContextError, RateLimited
from context.semantic_text import Passage

MAX_SEARCHING = 64


class SemanticOff(ContextError):
    """This node does not search by meaning."""

    code = "semantic_off"
    status = 409


class SemanticUnavailable(ContextError):
    """The worker is down, starting or too slow; other searches are as always."""

    code = "semantic_unavailable"
    status = 503
    retryable = True


class SemanticClient:
    """Asks the worker at a socket; each call raises SemanticUnavailable without an answer."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self.applied = -1  # the worker has read the log up to here, as told last
        self.texts = 0
        self.items = 0
        self._searching = 0

    async def begin(self, epoch: str, *, within_s: float) -> int:
        """Open what is stored of a log; returns the offset after which it wants to read on."""
        await self._call(within_s, op="begin", epoch=epoch)
        return self.applied

    async def add(
        self, after: int, passages: Sequence[Passage], reached: int, oldest: int, *, within_s: float
    ) -> int:
        """Hand over what lies after `after` up to `reached`; returns `reached` when it is found."""
        message = {"after": after, "passages": passages, "reached": reached, "oldest": oldest}
        await self._call(within_s, op="add", **message)
        return self.applied

    async def search(
        self, query: str, wish: dict[str, Any], *, within_s: float
    ) -> list[tuple[int, float]]:
        """Offsets and scores nearest to the query, best first; `wish` as `wish.Wish`.

        Raises RateLimited where too many wait.
        """
        if self._searching >= MAX_SEARCHING:
            raise RateLimited(f"{self._searching} searches by meaning wait already")
        self._searching += 1
        try:
            answer = await self._call(within_s, op="search", query=query, wish=wish)
        finally:
            self._searching -= 1
        return [(offset, score) for offset, score in answer["found"]]

    async def _call(self, within_s: float, **request: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(within_s):
                answer = await self._exchange(request)
        except TimeoutError as late:
            detail = f"the semantic worker did not answer within {within_s * 1000:.0f} ms"
            raise SemanticUnavailable(detail) from late
        except (OSError, EOFError, BadFrame) as gone:
            detail = f"the semantic worker is not there ({type(gone).__name__}); it is restarted"
            raise SemanticUnavailable(detail) from gone
        if not answer["ok"]:
            raise SemanticUnavailable(f"the semantic worker is not ready: {answer['error']}")
        self.applied, self.texts = answer["applied"], answer["texts"]
        self.items = answer["items"]
        return answer

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=1 << 20)
        try:
            writer.write(frame(request))
            await writer.drain()
            return await read_frame(reader)
        finally:
            writer.close()
