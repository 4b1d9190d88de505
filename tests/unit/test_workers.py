"""Threads are used again, and as many as are needed run at a time."""

from __future__ import annotations

import queue
import threading
import time

from server.workers import MOST_IDLE, Workers

DEADLINE_S = 20


def together(workers: Workers, count: int) -> list[threading.Thread]:
    """The threads of so many calls, none of which ends before all have begun."""
    barrier, threads = threading.Barrier(count), queue.Queue[threading.Thread]()

    def meet() -> None:
        barrier.wait(DEADLINE_S)
        threads.put(threading.current_thread())

    for _ in range(count):
        workers.start(meet)
    return [threads.get(timeout=DEADLINE_S) for _ in range(count)]


def comes_again(workers: Workers, known: set[threading.Thread]) -> bool:
    """Whether one of these threads takes a call within the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if known & set(together(workers, MOST_IDLE)):  # all that are idle are used
            return True
    return False


def test_calls_run_at_the_same_time_and_their_threads_are_used_again() -> None:
    workers = Workers()
    first = set(together(workers, 2 * MOST_IDLE))
    assert len(first) == 2 * MOST_IDLE
    assert comes_again(workers, first)


def test_a_call_that_fails_does_not_end_its_thread() -> None:
    workers, threads = Workers(), queue.Queue[threading.Thread]()

    def fail() -> None:
        threads.put(threading.current_thread())
        raise ValueError("as it should")

    workers.start(fail)
    assert comes_again(workers, {threads.get(timeout=DEADLINE_S)})
