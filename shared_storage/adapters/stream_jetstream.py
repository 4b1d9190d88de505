"""A NATS JetStream stream as the Stream port.

nats-py runs on the event loop; the calls come from other threads and wait for it. Reading asks any
replica directly, many messages a request, and keeps no consumer in the engine: whatever
restarts, the next request goes on. `watch` hears of new messages by a hint, never by their content.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from shared_storage.errors import HistoryGone, OutcomeUnknown, StreamDown, WrongSequence

log = logging.getLogger(__name__)
T = TypeVar("T")
APPEND_S = 2.0  # longer than any answer takes: the one to a message that got lost never comes
ASK_S = 1.0  # an engine without a majority does not answer at all: better ask again
READ_S = 5.0
READ_BYTES = 4 << 20
READ_MESSAGES = 64
LEAVE_S = 0.3
_LOOK_S = 0.1
_WRONG_LAST_SEQUENCE = 10071  # JSStreamWrongLastSequenceErrF


class _Answer:
    """The messages of one reading, as they come."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self._ended: asyncio.Future[None] = loop.create_future()

    def take(self, message: Msg) -> None:
        """One more, or the end."""
        found = _found(message)
        if found is not None:
            self.messages.append(found)
        elif not self._ended.done():
            self._ended.set_result(None)

    async def whole(self) -> None:
        """Wait for the end; raises TimeoutError where nothing comes for too long."""
        while not self._ended.done():
            count = len(self.messages)
            await asyncio.wait({self._ended}, timeout=READ_S)
            if not self._ended.done() and len(self.messages) == count:
                raise TimeoutError("no message came")


class JetStream:
    """One stream of a NATS cluster. Make it with `open`, on the event loop."""

    def __init__(self, client: Client, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._name, self._loop = client, name, loop
        self._js = client.jetstream(timeout=APPEND_S)
        self._api = client.jetstream(timeout=ASK_S)
        self._own = 0  # sequence of the newest message appended here
        self._answers: str | None = None
        self._asked = 0
        self._reading: dict[str, _Answer] = {}

    @classmethod
    async def open(
        cls, client: Client, name: str, *, replicas: int, max_bytes: int, anew: bool = False
    ) -> JetStream:
        """The stream, made where missing; raises StreamDown while there is no majority.

        Beyond `max_bytes` the engine drops the oldest messages. With `anew` nothing of a former
        stream of that name stays.
        """
        stream = cls(client, name, asyncio.get_running_loop())
        wanted = StreamConfig(
            name=name,
            subjects=[name],
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            storage=StorageType.FILE,
            num_replicas=replicas,
            max_bytes=max_bytes,
            allow_direct=True,
            deny_delete=True,
        )
        try:
            if anew:
                with contextlib.suppress(NotFoundError):
                    await stream._js.delete_stream(name)
            try:
                await stream._js.stream_info(name)
            except NotFoundError:
                await stream._js.add_stream(wanted)
        except (TimeoutError, nats.errors.Error, APIError) as exc:
            raise StreamDown(f"the stream {name} cannot be opened: {exc!r}") from exc
        return stream

    def append(self, message: bytes, *, expected: int) -> int:
        """Store a message; see `shared_storage.ports.Stream`."""
        return self._wait(self._append(message, expected))

    def read(self, after: int) -> list[tuple[int, bytes]]:
        """Messages behind a sequence; see `shared_storage.ports.Stream`."""
        return self._wait(self.read_on(after))

    async def read_on(self, after: int) -> list[tuple[int, bytes]]:
        """As `read`, on the event loop."""
        request = {"seq": after + 1, "batch": READ_MESSAGES, "max_bytes": READ_BYTES}
        answer, inbox = _Answer(self._loop), ""
        try:
            inbox = await self._inbox()
            self._reading[inbox] = answer
            subject = f"$JS.API.DIRECT.GET.{self._name}"
            await self._client.publish(subject, msgspec.json.encode(request), reply=inbox)
            await answer.whole()
        except (TimeoutError, nats.errors.Error, OSError) as exc:
            if not answer.messages:
                raise StreamDown(f"the engine does not answer ({exc!r})") from exc
        finally:
            self._reading.pop(inbox, None)
        messages = answer.messages
        if messages and messages[0][0] != after + 1:
            oldest = messages[0][0]
            raise HistoryGone(f"the stream begins at message {oldest}; {after + 1} was dropped")
        return messages

    def tail(self) -> int:
        """Newest sequence; see `shared_storage.ports.Stream`."""
        return self._wait(self._bounds())[1]

    async def watch(self, heard: Callable[[int], None]) -> Callable[[], Awaitable[None]]:
        """Call `heard(sequence)` on the loop for what others append; returns how to end it."""

        async def on_hint(message: Msg) -> None:
            if message.data.isdigit() and len(message.data) < 20:
                sequence = int(message.data)
                if sequence != self._own:  # who appended it has it at hand
                    heard(sequence)

        subscription = await self._client.subscribe(self._hint, cb=on_hint)
        return subscription.unsubscribe

    @property
    def _hint(self) -> str:
        return f"hint.{self._name}"

    async def _append(self, message: bytes, expected: int) -> int:
        if not self._client.is_connected:  # else the client keeps it, to send it some day
            raise StreamDown("the engine is not connected; nothing was stored")
        try:
            stored = await self._while_connected(
                self._js.publish(self._name, message, headers=self._headers(expected))
            )
        except APIError as exc:
            if exc.err_code == _WRONG_LAST_SEQUENCE:
                raise WrongSequence(str(exc.description)) from exc
            raise OutcomeUnknown(f"the engine answered {exc.description!r}") from exc
        except NoStreamResponseError as exc:
            raise StreamDown("no engine has the stream now; nothing was stored") from exc
        except (TimeoutError, nats.errors.Error, OSError) as exc:
            raise OutcomeUnknown(f"the engine did not answer ({exc!r})") from exc
        self._own = int(stored.seq)
        await self._client.publish(self._hint, str(stored.seq).encode())
        return int(stored.seq)

    @staticmethod
    def _headers(expected: int) -> dict[str, str]:
        return {"Nats-Expected-Last-Sequence": str(expected)}

    async def _while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer, but not for one that a broken connection cannot bring."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=_LOOK_S)
                if not task.done() and not self._client.is_connected:
                    raise ConnectionError("the connection to the engine broke")
            return task.result()
        finally:
            task.cancel()

    async def _bounds(self) -> tuple[int, int]:
        """Oldest and newest sequence as the stream's leader has them."""
        try:
            state = (await self._api.stream_info(self._name)).state
        except (TimeoutError, nats.errors.Error, APIError, OSError) as exc:
            raise StreamDown(f"the engine does not answer ({exc!r})") from exc
        return int(state.first_seq), int(state.last_seq)

    async def _inbox(self) -> str:
        """Where the next answer goes: one subscription hears all, as making one costs a round."""
        if self._answers is None:
            inbox = self._client.new_inbox()
            await self._client.subscribe(f"{inbox}.*", cb=self._answered)
            self._answers = inbox
        self._asked += 1
        return f"{self._answers}.{self._asked}"

    async def _answered(self, message: Msg) -> None:
        if answer := self._reading.get(message.subject):  # else nobody waits for it any more
            answer.take(message)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def step_down(client: Client, name: str, engine: str) -> None:
    """Have another engine lead a stream that `engine` leads; what fails is left as it is."""
    try:
        info = await client.jetstream(timeout=LEAVE_S).stream_info(name)
        if info.cluster is not None and info.cluster.leader == engine:
            subject = f"$JS.API.STREAM.LEADER.STEPDOWN.{name}"
            await client.request(subject, b"", timeout=LEAVE_S)
    except (TimeoutError, nats.errors.Error, APIError, OSError) as exc:
        log.debug("the stream keeps its leader", extra={"stream": name, "reason": repr(exc)})


def _found(message: Msg) -> tuple[int, bytes] | None:
    """One message of an answer; None is its end."""
    headers = message.headers or {}
    if "Status" in headers or "Nats-Sequence" not in headers:
        return None
    return int(headers["Nats-Sequence"]), message.data
