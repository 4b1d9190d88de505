"""The progress bars of a replay and an export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from server.cli.recording import Recording


class Counts(Protocol):
    """What a replay has sent."""

    items: int
    retries: int


@contextmanager
def watching(recording: Recording, console: Console) -> Iterator[Callable[[Counts, float], None]]:
    """A function that shows counts and lag; it does nothing where `console` is no terminal."""
    if not console.is_terminal:
        yield lambda counts, lag_s: None
        return
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[items]:,} items"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TextColumn("{task.fields[lag_s]:.1f} s late"),
        TextColumn("{task.fields[retries]} retries"),
        TimeElapsedColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=recording.size, items=0, rate=0.0, lag_s=0.0, retries=0)

        def show(counts: Counts, lag_s: float) -> None:
            bar.update(
                task,
                completed=recording.position(),
                items=counts.items,
                rate=counts.items / max(time.monotonic() - started, 1e-3),
                lag_s=max(lag_s, 0.0),
                retries=counts.retries,
            )

        yield show


@contextmanager
def receiving(console: Console) -> Iterator[Callable[[int], None] | None]:
    """A function that shows bytes received; None where `console` is no terminal.

    How many there will be nobody knows before: the bar moves, it does not fill.
    """
    if not console.is_terminal:
        yield None
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda count: bar.update(task, completed=count)


@contextmanager
def verifying(console: Console, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """A function that shows items walked over and entries verified; silent elsewhere."""
    if not console.is_terminal:
        yield lambda items, entries: None
        return
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} items, {task.fields[entries]:,} entries"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total, entries=0)
        yield lambda items, entries: bar.update(task, completed=items, entries=entries)


@contextmanager
def answering(console: Console) -> Iterator[Callable[[int, int | None], None]]:
    """A function that shows questions answered, of how many; silent where there is no terminal."""
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} questions"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


LINE_EVERY_S = 1.0


@contextmanager
def indexing(console: Console, *, lines: bool) -> Iterator[Callable[[int, int, int], None]]:
    """A function that shows blocks done, of how many, and items: a bar on a terminal.

    Elsewhere it shows nothing, or with `lines` a line each second.
    """
    started = shown = time.monotonic()

    def rate(items: int) -> float:
        return items / max(time.monotonic() - started, 1e-3)

    if not console.is_terminal:

        def line(done: int, total: int, items: int) -> None:
            nonlocal shown
            if not lines or (done < total and time.monotonic() - shown < LINE_EVERY_S):
                return
            shown = time.monotonic()
            left_s = (shown - started) * (total - done) / done
            text = f"{done}/{total} blocks, {rate(items):,.0f} items/s, {left_s:.0f} s left"
            console.print(text, soft_wrap=True)

        yield line
        return
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} blocks"),
        TextColumn("{task.fields[rate]:,.0f} items/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=0, rate=0.0)
        yield lambda done, total, items: bar.update(
            task, completed=done, total=total, rate=rate(items)
        )
