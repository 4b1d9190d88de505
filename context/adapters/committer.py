"""Group commit: what arrives while one commit is on its way to disk shares the next one."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from context.entries import framed
from context.errors import RateLimited
from context.items import Batch
from context.ports import Draft, Log, Receipt

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    draft: Draft
    done: asyncio.Future[Receipt]


@dataclass
class CommitStats:
    """Counts since the start."""

    commits: int = 0
    batches: int = 0
    items: int = 0
    bytes: int = 0


class Committer:
    """Puts drafts into the log from one thread, in the order they came.

    `on_durable(batches)` runs in that thread after the fsync and before anyone is answered, so
    what is acknowledged can be found at once.
    """

    def __init__(
        self,
        log: Log,
        *,
        term: Callable[[], int],
        clock: Callable[[], float],
        on_durable: Callable[[Sequence[Batch]], None],
        max_waiting_bytes: int,
    ) -> None:
        self._log, self._term, self._clock = log, term, clock
        self._on_durable = on_durable
        self._max_waiting_bytes = max_waiting_bytes
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._between: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self.stats = CommitStats()
        self._thread.start()

    async def append(self, draft: Draft) -> Receipt:
        """Wait until the draft is durable.

        Raises RateLimited where too much waits already, else whatever the log raises.
        """
        waiting = _Waiting(draft, self._loop.create_future())
        with self._wake:
            if self._waiting_bytes + len(draft.text) > self._max_waiting_bytes and self._waiting:
                raise RateLimited(
                    f"{self._waiting_bytes} bytes wait to be written already; retry in a second"
                )
            self._waiting.append(waiting)
            self._waiting_bytes += len(draft.text)
            self._wake.notify()
        return await waiting.done

    def between(self, work: Callable[[], None]) -> Future[None]:
        """Run `work` in the committing thread, between two commits."""
        done: Future[None] = Future()
        with self._wake:
            if self._stopping:
                done.cancel()
            else:
                self._between.append((work, done))
                self._wake.notify()
        return done

    async def stop(self) -> None:
        """Finish what waits, then end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._between or self._stopping):
                    self._wake.wait()
                between, self._between = self._between, deque()
                group, self._waiting, self._waiting_bytes = self._waiting, [], 0
            for work, done in between:
                try:
                    with self._log.lock:
                        work()
                    done.set_result(None)
                except Exception as exc:  # its caller's to deal with
                    done.set_exception(exc)
            if not group:
                if between:
                    continue
                return
            outcomes = self._commit([waiting.draft for waiting in group])
            self._loop.call_soon_threadsafe(_answer, group, outcomes)

    def _commit(self, drafts: Sequence[Draft]) -> Sequence[Receipt | Exception]:
        now, drafts = self._clock(), [framed(draft) for draft in drafts]
        try:
            receipts = self._log.append(drafts, term=self._term(), now=now)
        except Exception as exc:  # every waiting caller hears of it; the thread goes on
            if not self._failing:
                log.error("the log takes nothing", extra={"reason": str(exc)})
            self._failing = True
            return [exc] * len(drafts)
        if self._failing:
            log.info("the log takes items again")
            self._failing = False
        batches = [
            _batch(draft, receipt, now)
            for draft, receipt in zip(drafts, receipts, strict=True)
            if isinstance(receipt, Receipt) and not receipt.replayed
        ]
        try:
            self._on_durable(batches)
        except Exception:  # the items are stored but not indexed: only a restart sets that right
            log.critical("the index refused what is stored; starting anew", exc_info=True)
            os._exit(1)
        self.stats.commits += 1
        self.stats.batches += len(batches)
        self.stats.items += sum(batch.count for batch in batches)
        self.stats.bytes += sum(len(batch.text) for batch in batches)
        return receipts


def _batch(draft: Draft, receipt: Receipt, now: float) -> Batch:
    what = draft.text, draft.heads, draft.frame
    return Batch(receipt.first_offset, draft.count, now, receipt.term, *what)


def _answer(group: Sequence[_Waiting], outcomes: Sequence[Receipt | Exception]) -> None:
    for waiting, outcome in zip(group, outcomes, strict=True):
        if waiting.done.done():  # the caller gave up waiting
            continue
        if isinstance(outcome, Exception):
            waiting.done.set_exception(outcome)
        else:
            waiting.done.set_result(outcome)
