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
