"""Webhooks at work: a task each, reading on from its own cursor, one request at a time.

At least once and in order: the cursor moves, durably, after the receiver's 2xx, so that a crash
repeats at most the last delivery. A hook holds one delivery (at most a MiB of items) in memory, and
a receiver that is slow or dead holds up nobody but itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import msgspec

from ai_bridge.adapters.http import Reply
from ai_bridge.errors import BridgeError
from context.errors import ContextError
from context.items import Cursor
from context.request import parse_stream
from context.webhook import (
    DeadLetter,
    Hook,
    check_url,
    pause_s,
    signed,
    verdict,
)
from context.webhook_reading import Delivery, Reader
from server.agent.node import Node
from shared_storage.errors import VersionConflict

log = logging.getLogger(__name__)
HOOK, DEAD = "webhook", "webhook_dead"  # kinds in the state store; dead letters have one a hook
MAX_DEAD_LETTERS = 1000  # of one hook: then it stops, as nobody is listening
READERS = 4  # of the scan threads' queue that webhooks may fill
GATHER_S = 0.05  # what comes meanwhile goes into the same delivery
AGAIN_S = 2.0
GONE = "answered 410"
SAVE_EVERY_S = 60.0  # a cursor that moves past what does not match


class Sender:
    """One webhook's task and its state."""

    def __init__(self, node: Node, hook: Hook, version: int, readers: asyncio.Semaphore) -> None:
        self.hook = hook
        self.next_attempt_at: float | None = None
        self.scanned = Cursor.parse(hook.cursor)
        self._node, self._version, self._readers = node, version, readers
        self._reader = Reader(node.log.epoch, hook.id, parse_stream(hook.wish).selection())
        self._saved_at = time.monotonic()
        self._retrying = False
        self._changing = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Send, unless it is stopped or sends already."""
        if self.hook.state == "active" and (self._task is None or self._task.done()):
            self._task = self._node.spawn(self._run())

    async def resume(self) -> None:
        """Send again now, whatever it was waiting for."""
        await self._change(Hook.resumed)
        self._hurry.set()
        self.start()

    async def retry(self) -> None:
        """Send what was given up once more, before anything new."""
        self._retrying = True
        await self.resume()
        self._node.changed.tell()

    async def stop(self) -> None:
        """End the task."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def dead_letters(self) -> list[DeadLetter]:
        """What was given up, oldest first."""
        kind = f"{DEAD}.{self.hook.id}"
        found = self._node.state.list(kind, limit=MAX_DEAD_LETTERS, newest_first=False)
        letters = [msgspec.json.decode(each.value, type=DeadLetter) for each in found]
        return sorted(letters, key=lambda letter: letter.at)

    async def _run(self) -> None:
        while self.hook.state == "active":
            try:
                if self._retrying:
                    await self._send_dead_letters()
                else:
                    await self._step()
            except VersionConflict:
                return  # deleted meanwhile
            except Exception as exc:  # busy scans, a full disk: nothing is lost, the cursor stands
                log.warning("a webhook waits", extra={"webhook": self.hook.id, "reason": str(exc)})
                await asyncio.sleep(AGAIN_S)

    async def _step(self) -> None:
        due = await self._read(self.scanned)
        if isinstance(due, Delivery):
            if await self._deliver(due):
                self.scanned = due.cursor
            return
        self.scanned = due
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            await self._change(lambda hook: hook.moved(str(due)))
        if due.offset >= self._node.snapshot().newest:
            await self._news(due.offset)

    async def _read(self, after: Cursor, until: int | None = None) -> Delivery | Cursor:
        node = self._node
        async with self._readers:
            return await node.scan(self._reader.after, node.snapshot(), after, until)

    async def _news(self, offset: int) -> None:
        node = self._node
        await node.changed.wait_for(lambda: node.ring.newest > offset or self._retrying)
        await asyncio.sleep(GATHER_S)

    async def _deliver(self, due: Delivery) -> bool:
        """Try until it is acknowledged or given up; False where the hook stopped over it."""
        while self.hook.state == "active":
            error, headers = await self._post(due)
            if error is None:
                await self._change(lambda hook: hook.succeeded(due, time.time()))
                return True
            await self._fail(error)
            if self.hook.state == "active":
                if self.hook.attempts >= self._node.settings.webhook_attempts:
                    await self._give_up(due)
                    return True
                await self._pause(pause_s(self.hook.attempts, headers, random.random()))
        return False

    async def _fail(self, error: str, *, counts: bool = True) -> None:
        """Note a failed attempt; one that does not count is on a dead letter."""

        def failed(hook: Hook) -> Hook:
            noted = hook.failed(error, time.time(), attempts=hook.attempts + counts)
            return noted.stopped("the receiver answered 410") if error == GONE else noted

        await self._change(failed)

    async def _post(self, due: Delivery) -> tuple[str | None, dict[str, str]]:
        """What went wrong, or None; and the answer's headers."""
        hook, node = self.hook, self._node
        try:
            check_url(hook.url, node.settings.webhook_allow)
            async with asyncio.timeout(node.settings.webhook_timeout_s):
                reply = await _post(node, hook, due)
        except TimeoutError:
            result: tuple[str | None, dict[str, str]] = ("no whole answer in time", {})
        except (BridgeError, ContextError) as exc:
            result = (exc.detail[:300], {})
        else:
            what = verdict(reply.status)
            words = {"delivered": None, "gone": GONE, "failed": f"answered {reply.status}"}
            result = (words[what], dict(reply.headers))
        node.metrics.webhooks.labels("failed" if result[0] else "delivered").inc()
        return result

    async def _give_up(self, due: Delivery) -> None:
        hook = self.hook
        letter = DeadLetter(
            delivery_id=due.id,
            after=str(self.scanned),
            cursor=str(due.cursor),
            items=due.count,
            attempts=hook.attempts,
            error=hook.last_error or "",
            at=time.time(),
        )
        log.warning("a delivery was given up", extra={"webhook": hook.id, "delivery": due.id})
        await self._store_letter(letter)
        await self._change(lambda hook: hook.given_up(due, MAX_DEAD_LETTERS))

    async def _send_dead_letters(self) -> None:
        """Once each, oldest first; ends at the first failure."""
        self._retrying = False
        for letter in await asyncio.to_thread(self.dead_letters):
            error = await self._send_again(letter)
            if error:
                await self._fail(error, counts=False)
                again = msgspec.structs.replace(letter, attempts=letter.attempts + 1, error=error)
                await self._store_letter(again)
                return
            kind = f"{DEAD}.{self.hook.id}"
            await asyncio.to_thread(self._node.state.delete, kind, letter.delivery_id)
            await self._change(Hook.one_less_dead)

    async def _send_again(self, letter: DeadLetter) -> str | None:
        """Send what matches in the letter's range, and tell what is gone of it by now."""
        at, end = Cursor.parse(letter.after), Cursor.parse(letter.cursor)
        while at.epoch != end.epoch or at.offset < end.offset:
            due = await self._read(at, end.offset)
            if isinstance(due, Cursor):
                at = due
                continue
            error, _ = await self._post(due)
            if error:
                return error
            await self._change(partial(Hook.sent_again, sent=due, now=time.time()))
            at = due.cursor
        return None

    async def _pause(self, seconds: float) -> None:
        self.next_attempt_at = time.time() + seconds
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self.next_attempt_at = None

    async def _change(self, step: Callable[[Hook], Hook]) -> None:
        """Durable when it returns. Refused by the version where the hook was deleted meanwhile."""
        async with self._changing:
            hook, put = step(self.hook), self._node.state.put
            self._version = await asyncio.to_thread(
                put,
                HOOK,
                hook.id,
                msgspec.json.encode(hook),
                expected=self._version,
                now=time.time(),
            )
            self.hook, self._saved_at = hook, time.monotonic()

    async def _store_letter(self, letter: DeadLetter) -> None:
        put, stored = self._node.state.put, msgspec.json.encode(letter)
        kind = f"{DEAD}.{self.hook.id}"
        await asyncio.to_thread(put, kind, letter.delivery_id, stored, now=time.time())


async def _post(node: Node, hook: Hook, due: Delivery) -> Reply:
    parts = urlsplit(hook.url)
    where = f"{parts.scheme}://{parts.netloc}{parts.path}"
    headers = signed(due, hook.secret, time.time())
    query = f"?{parts.query}" if parts.query else ""
    body = msgspec.Raw(due.body)
    return await node.services.http.call("POST", where, body, headers=headers, query=query)
