"""The agent's side of the torch worker: a Model that asks over a Unix socket."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from ai_bridge.adapters.frames import BadFrame, frame, pack_series, read_frame
from ai_bridge.errors import Abstained, ModelUnavailable
from ai_bridge.ports import Question
from ai_bridge.prediction import DECISIONS, Prediction
from ai_bridge.series import Series

# Enough for some bars of a busy market; older history the worker holds itself.
NEWEST_POINTS = 20_000
POINTS_A_FRAME = 50_000
CALL_TIMEOUT_S = 5.0
Message = dict[str, Any]


class TorchModel:
    """Asks the worker; connects when needed and again after the worker came back.

    Every call raises ModelUnavailable at once where nobody listens, and when the worker goes away
    while it is being asked. Belongs to one event loop, which it never blocks.
    """

    kind = "torch"

    def __init__(self, socket_path: str, name: str = "torch") -> None:
        self.name = name
        self._path = socket_path
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._ids = itertools.count()

    async def decide(self, question: Question) -> Prediction:
        """Have the worker judge the windows; raises Abstained while it has learned too little."""
        question.only(DECISIONS)
        return await self._predicted("predict", question)

    async def decide_by(self, network: str, question: Question) -> Prediction:
        """Have a user's network judge the windows."""
        wish = {"network": network, "decisions": question.decisions}
        return await self._predicted("predict_by", question, **wish)

    async def network(self, network: str) -> str:
        """One line about a user's network; raises ModelUnavailable where it cannot be loaded."""
        answer = await self._call_in_time("network", network=network)
        if "unusable" in answer:
            raise ModelUnavailable(answer["unusable"])
        return str(answer["about"])

    async def _predicted(self, op: str, question: Question, **fields: Any) -> Prediction:
        windows = [question.window[name] for name in question.symbols if name in question.window]
        parts = [pack_series(window, -NEWEST_POINTS) for window in windows]
        answer = await self._call(op, series=parts, **fields)
        if "abstained" in answer:
            raise Abstained(answer["abstained"])
        if "unusable" in answer:
            raise ModelUnavailable(answer["unusable"])
        return Prediction(
            answer["distribution"], answer["reasoning"], question.decisions, answer["digest"]
        )

    async def observe(self, series: Series) -> None:
        """Hand over points that the worker has not seen; returns when they are taken in."""
        for start in range(0, len(series), POINTS_A_FRAME):
            part = pack_series(series, start, start + POINTS_A_FRAME)
            await self._call_in_time("observe", series=part)

    async def status(self) -> Message:
        """Return examples, version, losses beside the base rate's, device, markets."""
        answer = await self._call_in_time("status")
        return {name: value for name, value in answer.items() if name not in ("id", "ok")}

    async def close(self) -> None:
        """Hang up; a later call connects again."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _call_in_time(self, op: str, **fields: Any) -> Message:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._call(op, **fields)
        except TimeoutError as late:
            detail = f"the worker at {self._path} took over {CALL_TIMEOUT_S:g} s to {op}"
            raise ModelUnavailable(detail) from late

    async def _call(self, op: str, **fields: Any) -> Message:
        writer = await self._connected()
        number = next(self._ids)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            writer.write(frame({"id": number, "op": op, **fields}))
            await writer.drain()
            message = await answer
        except OSError as gone:
            raise ModelUnavailable(f"the worker at {self._path} hung up ({gone})") from gone
        finally:
            self._waiting.pop(number, None)
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # retrieved, though the write failed first
        if not message["ok"]:
            raise RuntimeError(f"the worker refused {op}: {message['error']}")
        return message

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                try:
                    reader, self._writer = await asyncio.open_unix_connection(self._path)
                except OSError as absent:
                    detail = f"no worker at {self._path} ({absent.strerror or absent})"
                    raise ModelUnavailable(detail) from absent
                self._reading = asyncio.create_task(self._read(reader, self._writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Give each answer to who waits for it, until the worker hangs up."""
        reason = "closed"
        try:
            while True:
                message = await read_frame(reader)
                waiting = self._waiting.get(message["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
        except (OSError, EOFError, BadFrame) as gone:
            reason = type(gone).__name__
        finally:
            self._writer = None
            writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    gone_for = ModelUnavailable(f"the worker at {self._path} hung up ({reason})")
                    waiting.set_exception(gone_for)
