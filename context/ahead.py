"""Blocks that are read while those before them are searched: a long search then uses two cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from context.block import Block, Bounds
from context.snapshot import Entry, Skipped

_FEW = 4  # blocks opened before that: most searches end there
_DEPTH = 4  # blocks and gaps between them that are under way


class Pending(Protocol):
    """A block on its way, as `concurrent.futures.Future`."""

    def result(self) -> Block:
        """Wait for it; raises what reading it raised."""

    def cancel(self) -> bool:
        """Do not begin where that is still possible."""


Submit = Callable[[Callable[[], Block]], Pending]


def read_ahead(
    entries: Iterable[Entry | Skipped], submit: Submit, excluded: Callable[[Bounds], bool]
) -> Iterator[Entry | Skipped]:
    """The same entries in the same order; `excluded` ones are not opened by whoever takes them.

    What is read ahead does not push out of memory what others search again and again.
    """
    queue: deque[Entry | Skipped] = deque()
    tasks: deque[Pending] = deque()
    opened = 0
    try:
        for entry in entries:
            if isinstance(entry, Entry) and not excluded(entry.bounds):
                opened += 1
                if opened > _FEW:
                    tasks.append(submit(entry.aside))
                    entry = Entry(entry.bounds, tasks[-1].result, entry.aside)  # noqa: PLW2901
            queue.append(entry)
            while queue and (opened <= _FEW or len(queue) > _DEPTH):
                yield queue.popleft()
            while len(tasks) > _DEPTH:  # taken already
                tasks.popleft()
        yield from queue
    finally:
        for task in tasks:
            task.cancel()
