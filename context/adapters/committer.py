"""Group commit: what arrives while one commit is on its way to disk shares the next one."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue

from context.errors import RateLimited
from context.items import Batch
from context.ports import Draft, Log, Outcome, Receipt

log = logging.getLogger(__name__)

Done = Callable[[Outcome], None]


@dataclass(slots=True)
class _Waiting:
    draft: Draft
    done: Done


@dataclass(slots=True)
class _Work:
    call: Callable[[], None]
    done: Future[None]

    def do(self, log: Log) -> None:
        try:
            with log.lock:
                self.call()
            self.done.set_result(None)
        except Exception as exc:  # its caller's to deal with
            self.done.set_exception(exc)


@dataclass
class CommitStats:
    """Counts since the start."""

    commits: int = 0
    batches: int = 0  # drafts stored: bodies, or what came together and was read as one


class Committer:
    """Puts drafts into the log from one thread, in the order they came.

    `on_durable(batches)` runs in that thread after the fsync and before anyone is answered, so
    what is acknowledged can be found at once. `on_told(batches)` runs in the event loop, right
    before the answers: one wake-up of the loop a commit.
    """

    def __init__(
        self,
        log: Log,
        *,
        term: Callable[[], int],
        clock: Callable[[], float],
        on_durable: Callable[[Sequence[Batch]], None],
        on_told: Callable[[Sequence[Batch]], None],
        max_waiting_bytes: int,
    ) -> None:
        self._log, self._term, self._clock = log, term, clock
        self._on_durable, self._on_told = on_durable, on_told
        self._max_waiting_bytes = max_waiting_bytes
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Waiting | _Work | None] = SimpleQueue()  # None is its end
        self._given = self._taken = 0  # bytes, each counted by one thread: the difference waits
        self._ending = threading.Lock()
        self._stopping = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self.stats = CommitStats()
        self._thread.start()

    def submit(self, draft: Draft, done: Done) -> None:
        """Have `done` called in the event loop once the draft is durable, or with what went wrong.

        Raises RateLimited where too much waits already.
        """
        waiting = self._given - self._taken
        if waiting and waiting + len(draft.text) > self._max_waiting_bytes:
            raise RateLimited(f"{waiting} bytes wait to be written already; retry in a second")
        self._given += len(draft.text)
        self._queue.put(_Waiting(draft, done))

    async def append(self, draft: Draft) -> Receipt:
        """Wait until the draft is durable.

        Raises RateLimited where too much waits already, else whatever the log raises.
        """
        outcome: asyncio.Future[Outcome] = self._loop.create_future()

        def done(what: Outcome) -> None:
            if not outcome.done():  # the caller gave up waiting
                outcome.set_result(what)

        self.submit(draft, done)
        receipt = await outcome
        if isinstance(receipt, Exception):
            raise receipt
        return receipt

    def between(self, work: Callable[[], None]) -> Future[None]:
        """Run `work` in the committing thread, between two commits."""
        done: Future[None] = Future()
        with self._ending:
            if self._stopping:
                done.cancel()
            else:
                self._queue.put(_Work(work, done))
        return done

    async def stop(self) -> None:
        """Finish what waits, then end the thread."""
        with self._ending:
            self._stopping = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        going = True
        while going:
            group: list[_Waiting] = []
            for each in self._all_there_is():
                if isinstance(each, _Waiting):
                    group.append(each)
                elif isinstance(each, _Work):
                    each.do(self._log)
                else:
                    going = False
            if group:
                self._taken += sum(len(each.draft.text) for each in group)
                told = self._commit([each.draft for each in group])
                self._loop.call_soon_threadsafe(self._tell, group, *told)

    def _all_there_is(self) -> Iterator[_Waiting | _Work | None]:
        """What waits now; at least one."""
        yield self._queue.get()
        for _ in range(self._queue.qsize()):
            yield self._queue.get()

    def _tell(
        self, group: Sequence[_Waiting], outcomes: Sequence[Outcome], batches: Sequence[Batch]
    ) -> None:
        self._on_told(batches)
        for waiting, outcome in zip(group, outcomes, strict=True):
            waiting.done(outcome)

    def _commit(self, drafts: Sequence[Draft]) -> tuple[Sequence[Outcome], Sequence[Batch]]:
        try:
            appended = self._log.append(drafts, term=self._term(), now=self._clock())
        except Exception as exc:  # every waiting caller hears of it; the thread goes on
            if not self._failing:
                log.error("the log takes nothing", extra={"reason": str(exc)})
            self._failing = True
            return [exc] * len(drafts), []
        if self._failing:
            log.info("the log takes items again")
            self._failing = False
        try:
            self._on_durable(appended.batches)
        except Exception:  # the items are stored but not indexed: only a restart sets that right
            log.critical("the index refused what is stored; starting anew", exc_info=True)
            os._exit(1)
        self.stats.commits += 1
        self.stats.batches += sum(_is_new(outcome) for outcome in appended.outcomes)
        return appended.outcomes, appended.batches


def _is_new(outcome: Outcome) -> bool:
    return isinstance(outcome, Receipt) and not outcome.replayed
