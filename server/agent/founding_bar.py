"""How far a founder is with bringing its log into the cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)


@contextmanager
def bringing(total: int, console: Console) -> Iterator[Callable[[int], None]]:
    """A function to tell how many items of `total` are there: a bar on a terminal, else the log."""
    started = time.monotonic()

    def rate(items: int) -> float:
        return items / max(time.monotonic() - started, 1e-3)

    if console.is_terminal:
        columns = (
            TextColumn("bringing the log into the cluster"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f} items, {task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=total, rate=0.0)
            yield lambda items: bar.update(task, completed=items, rate=rate(items))
        return
    shown = -1

    def line(items: int) -> None:
        nonlocal shown
        percent = items * 100 // max(1, total)
        if percent != shown:
            shown = percent
            fields = {"percent": percent, "items": items, "items_per_s": round(rate(items))}
            log.info("bringing the log into the cluster", extra=fields)

    yield line
